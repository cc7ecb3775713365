"""acme fence agent for ha-controller."""

from collections.abc import Sequence
from typing import Any

from ha_controller.plugin import FenceAgent, hookimpl
from ha_controller_acme.agent import AcmeAgent


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Register the agent."""
    return [AcmeAgent]
