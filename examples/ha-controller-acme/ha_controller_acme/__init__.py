"""acme fence agent for ha-controller."""

from collections.abc import Sequence

from ha_controller.plugin import AgentConfig, FenceAgent, hookimpl
from ha_controller_acme.agent import AcmeAgent


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[AgentConfig]]]:
    """Register the agent."""
    return [AcmeAgent]  # type: ignore[list-item]
