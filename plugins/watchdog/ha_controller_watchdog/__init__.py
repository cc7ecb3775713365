"""The watchdog fence agent of ha-controller: registers `WatchdogAgent` under the kind `watchdog`.

`agent` runs in the controller, `host` on every host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_watchdog.agent import WatchdogAgent, WatchdogConfig

__all__ = ["WatchdogAgent", "WatchdogConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [WatchdogAgent]
