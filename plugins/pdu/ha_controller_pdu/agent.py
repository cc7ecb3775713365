"""The PDU fence agent: switches the outlets that feed one host, on one PDU or several.

The host is off when all its outlets are off at the same time; a missing outlet, a pending one and no answer are never
"off". It verifies nothing and sets no deadline: that is the controller's work. A PDU's own "reboot" is never used: that
is on again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

import anyio

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
)
from ha_controller_pdu.config import Outlet, PduConfig
from ha_controller_pdu.snmp import Pdu

_T = TypeVar("_T")


class PduAgent(FenceAgent[PduConfig]):
    """Controls a host's power through the outlets of one or more switched PDUs, over SNMP."""

    kind: ClassVar[str] = "pdu"
    config_model: ClassVar[type[AgentConfig]] = PduConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.POWER_ON | Capability.OUTLET

    def __init__(self, config: PduConfig) -> None:
        super().__init__(config)
        self._model = config.outlet_model
        self._outlets = config.parsed_outlets()
        self.acts_on = tuple(f"outlet {each.index} of PDU {each.address}:{config.port}" for each in self._outlets)
        self._one_call = anyio.Lock()

    async def power_off(self) -> None:
        """Switch every outlet off; returns when all were accepted.

        Raises:
            AccessDenied, Rejected: no outlet was switched.
            FenceError: some were, or may have been.
        """
        await self._switch(self._model.off, self._model.off_value)

    async def power_on(self) -> None:
        """Switch every outlet on; errors as for `power_off`."""
        await self._switch(self._model.on, self._model.on_value)

    async def power_state(self) -> PowerState:
        """Read every outlet: ON if any is on, OFF if all are off.

        Raises:
            FenceError: an outlet could not be read, and none of the others is on.
        """
        read, errors = await self._each(self._outlet_state)
        if PowerState.ON in read:
            return PowerState.ON
        if errors:
            raise errors[0]
        return PowerState.OFF if all(state is PowerState.OFF for state in read) else PowerState.UNKNOWN

    async def check(self) -> CheckReport:
        """Read state and name of every outlet. Whether the account may write is seen in a drill only.

        Raises:
            FenceError: a PDU did not answer, refused the account, or has no such outlet.
        """
        power = await self.power_state()
        names, errors = await self._each(self._outlet_name)
        if errors:
            raise errors[0]
        wrong = [
            f"{outlet} is called {was!r} there, not {outlet.name!r}: swapped?" for outlet, was in self._misnamed(names)
        ]
        if wrong:
            return CheckReport(ok=False, summary="; ".join(wrong), power=power)
        called = ", ".join(
            f"{outlet.number} ({name})" if name else outlet.number
            for outlet, name in zip(self._outlets, names, strict=True)
        )
        return CheckReport(ok=True, summary=f"outlets {called} can be read; power {power.value}", power=power)

    # --- one outlet ---

    async def _outlet_state(self, outlet: Outlet) -> PowerState:
        value = await self._pdu(outlet).read_number(f"{self._model.status}.{outlet.index}")
        if value is None:
            raise Rejected(f"PDU {outlet.address} has no outlet {outlet.number}, or is no {self.config.model}")
        if value == self._model.reads_on:
            return PowerState.ON
        return PowerState.OFF if value == self._model.reads_off else PowerState.UNKNOWN

    async def _outlet_name(self, outlet: Outlet) -> str:
        if self._model.name is None:
            return ""
        return await self._pdu(outlet).read_text(f"{self._model.name}.{outlet.index}") or ""

    def _misnamed(self, names: list[str]) -> list[tuple[Outlet, str]]:
        pairs = zip(self._outlets, names, strict=True)
        return [(outlet, name) for outlet, name in pairs if outlet.name is not None and outlet.name != name]

    def _pdu(self, outlet: Outlet) -> Pdu:
        return Pdu(address=outlet.address, config=self.config)

    # --- all outlets ---

    async def _switch(self, oid: str, value: int) -> None:
        """Look at every outlet first: a missing, misnamed or silent one stops the order before any is switched."""
        async with self._one_call:
            await self._look_before_switching()

            async def write(outlet: Outlet) -> None:
                await self._pdu(outlet).write(f"{oid}.{outlet.index}", value)

            _, errors = await self._each(write)
        if not errors:
            return
        if len(errors) == len(self._outlets) and all(isinstance(error, (AccessDenied, Rejected)) for error in errors):
            raise errors[0]
        raise FenceError("; ".join(map(str, errors)))

    async def _look_before_switching(self) -> None:
        _, errors = await self._each(self._outlet_state)
        if errors:
            raise errors[0]
        if any(outlet.name is not None for outlet in self._outlets):
            names, errors = await self._each(self._outlet_name)
            if errors:
                raise errors[0]
            for outlet, name in self._misnamed(names):
                raise Rejected(f"{outlet} is called {name!r} there, not {outlet.name!r}: not switched")

    async def _each(self, ask: Callable[[Outlet], Awaitable[_T]]) -> tuple[list[_T], list[FenceError]]:
        """Ask all outlets at once; returns answers in the order of the outlets, and errors apart."""
        answers: dict[int, _T] = {}
        errors: dict[int, FenceError] = {}

        async def one(position: int, outlet: Outlet) -> None:
            try:
                answers[position] = await ask(outlet)
            except FenceError as error:
                errors[position] = error

        async with anyio.create_task_group() as group:
            for position, outlet in enumerate(self._outlets):
                group.start_soon(one, position, outlet)
        return [answers[key] for key in sorted(answers)], [errors[key] for key in sorted(errors)]
