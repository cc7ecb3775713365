"""Wiring only: builds everything from a configuration, opens the root task group, and ends it cleanly."""

from ha_controller.app.commands import (
    BadRecord,
    check_config,
    list_plugins,
    replay,
    serve,
    settings_of,
    state_dir_of,
)
from ha_controller.app.plugin_pages import BadName, new_plugin, show_plugin
from ha_controller.app.runtime import Runtime
from ha_controller.app.stock_hook import migrate_from_hook

__all__ = [
    "BadName",
    "BadRecord",
    "Runtime",
    "check_config",
    "list_plugins",
    "migrate_from_hook",
    "new_plugin",
    "replay",
    "serve",
    "settings_of",
    "show_plugin",
    "state_dir_of",
]
