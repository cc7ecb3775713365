"""Manual fencing for ha-controller: registers `ManualAgent` under the kind `manual`.

It asks a person, and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ha_controller.plugin import AgentConfig, Capability, CheckReport, FenceAgent, PowerState, Rejected, hookimpl

__all__ = ["ManualAgent", "ManualConfig", "ha_controller_fence_agents"]


class ManualConfig(AgentConfig):
    """What a person needs to know."""

    instructions: Annotated[str, Field(min_length=1, max_length=500)]  #: where the host is, and how it is powered off


class ManualAgent(FenceAgent[ManualConfig]):
    """Asks a person to power the host off; the incident then waits for `confirm-off`."""

    kind: ClassVar[str] = "manual"
    config_model: ClassVar[type[AgentConfig]] = ManualConfig
    capabilities = Capability(0)

    async def power_off(self) -> None:
        """Refuse, with the instructions: they become a part of the question that the operator is asked.

        Raises:
            Rejected: always; nothing is done.
        """
        raise Rejected(f"a person must power it off: {self.config.instructions}")

    async def power_state(self) -> PowerState:
        """Return UNKNOWN."""
        return PowerState.UNKNOWN

    async def check(self) -> CheckReport:
        """Be ready: a person is."""
        return CheckReport(ok=True, summary=f"a person is asked: {self.config.instructions}")


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent class of this plugin."""
    return [ManualAgent]
