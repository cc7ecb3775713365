"""The bridge from ha-controller to ClusterLabs' fence agents: registers `BridgeAgent` under the kind `fence-agents`.

`agent` says what is asked of a program, `metadata` what the program says of itself, `program` runs it and ends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ha_controller.plugin import AgentConfig, FenceAgent, hookimpl
from ha_controller_fence_agents.agent import BridgeAgent, BridgeConfig

__all__ = ["BridgeAgent", "BridgeConfig", "ha_controller_fence_agents"]


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[AgentConfig]]]:
    """Return the one agent class of this plugin."""
    return [BridgeAgent]  # type: ignore[list-item]  # a class for narrower settings; the controller pairs class and settings
