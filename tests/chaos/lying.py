"""A fence agent that says OFF and does nothing: against it, and only against it, two writers are expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ha_controller.plugin import (
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    PowerState,
    hookimpl,
)


class LyingConfig(AgentConfig):
    """Settings of the agent."""

    note: Path  #: is there when the host was ordered off


class LyingAgent(FenceAgent[LyingConfig]):
    """Reads ON until it was ordered to power off, and OFF after that."""

    kind = "lying"
    config_model = LyingConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND

    def __init__(self, config: LyingConfig) -> None:
        """There is no device."""
        super().__init__(config)
        self._note = config.note

    async def power_off(self) -> None:
        """Say yes."""
        self._note.touch()

    async def power_state(self) -> PowerState:
        """Say what was asked for."""
        return PowerState.OFF if self._note.exists() else PowerState.ON

    async def check(self) -> CheckReport:
        """Say that all is well."""
        return CheckReport(ok=True, summary="all is well", power=await self.power_state())


@hookimpl
def ha_controller_fence_agents() -> Sequence[type[FenceAgent[Any]]]:
    """Return the one agent of this module."""
    return [LyingAgent]
