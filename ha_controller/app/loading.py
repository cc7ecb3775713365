"""Finds the plugins and reads the configuration, checked as a whole: nothing is built or changed here."""

from __future__ import annotations

import os
from pathlib import Path

from ha_controller.adapters.plugins import Registry, find_plugins
from ha_controller.config import Config, load


def load_config(path: Path) -> tuple[Config, Registry]:
    """Find the plugins and read the configuration. Blocks.

    Raises:
        ConfigError: with every problem found.
        PluginConflict: two distributions claim one kind.
    """
    registry = find_plugins()
    config = load(
        path,
        environ=os.environ,
        agents={kind: agent.config_model for kind, agent in registry.agents.items()},
        channels={kind: probe.config_model for kind, probe in registry.probes.items()},
        arbiters={kind: arbiter.config_model for kind, arbiter in registry.arbiters.items()},
        notifiers={kind: notifier.config_model for kind, notifier in registry.notifiers.items()},
    )
    return config, registry
