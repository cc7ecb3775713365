"""The bridge from ha-controller to ClusterLabs' fence agents: registers `BridgeAgent` under the kind `fence-agents`.

`agent` says what is asked of a program, `metadata` what the program says of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_fence_agents.agent import BridgeAgent, BridgeConfig

__all__ = ["BridgeAgent", "BridgeConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [BridgeAgent]
