"""What several controllers of the simulator have of the zone of OpenNebula that they lead by.

The arbiter, its record and its client are the production ones; only the way to the front-ends is pretended, and the
checkers hear when a controller was told what. Nothing here is used when a controller serves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, ClassVar

from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter, OpenNebulaConfig
from ha_controller.adapters.arbiter.zone import Zone
from ha_controller.adapters.opennebula import Client, NoAnswer
from ha_controller.lead import Arbiter, ArbiterConfig, ArbiterContext, ArbiterUnreachable
from ha_controller.sim.engine_level import zone as pretended
from ha_controller.sim.engine_level.process import Life
from ha_controller.sim.engine_level.zone_front_ends import ENDPOINTS

_FOR_NO_ORDER: ContextVar[bool] = ContextVar("for_no_order", default=False)  #: a proof, in this very task


class _Way:
    """To one front-end."""

    def __init__(self, life: Life, endpoint: str) -> None:
        self._life, self._server = life, ENDPOINTS.index(endpoint)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def exchange(self, method: str, body: bytes, take: Callable[[bytes], None]) -> None:
        """One call."""
        try:
            take(await _zone_of(self._life).call(self._life, self._server, method, body))
        except ConnectionError:
            raise NoAnswer(method, "cannot connect: refused", sent=False) from None


class _PretendedClient(Client):
    """The client of OpenNebula, up to the bytes that it would send."""

    life: ClassVar[Life]

    def __init__(self, endpoint: str, session: Any, **more: Any) -> None:
        super().__init__(endpoint, session, transport=_Way(self.life, endpoint), **more)


class _PretendedZoneArbiter(OpenNebulaArbiter):
    """The arbiter; the checkers hear when it was told what."""

    life: ClassVar[Life]

    def __init__(self, config: OpenNebulaConfig, context: ArbiterContext) -> None:
        super().__init__(config, replace(context, name=self.life.process.name))

    async def acquire(self) -> int | None:
        asked_at, mark = self.life.world.now, _FOR_NO_ORDER.set(True)
        try:
            term = await super().acquire()
        finally:
            _FOR_NO_ORDER.reset(mark)
        if term is not None:
            _zone_of(self.life).kept[self.life.process.name] = asked_at
        return term

    async def renew(self, term: int) -> None:
        asked_at, mark = self.life.world.now, _FOR_NO_ORDER.set(True)
        try:
            await super().renew(term)
        finally:
            _FOR_NO_ORDER.reset(mark)
        _zone_of(self.life).kept[self.life.process.name] = asked_at

    async def prove(self, term: int) -> None:
        asked_at, zone = self.life.world.now, _zone_of(self.life)
        await super().prove(term)
        with self.life.world.judged():
            zone.is_told(self.life.process, asked_at)
        if _FOR_NO_ORDER.get():
            return
        zone.proven[self.life.process.name] = asked_at
        await self.life.risk("the lead was proven, and nothing has left yet")


def _zone_of(life: Life) -> pretended.Zone:
    if life.world.zone is None:
        raise ArbiterUnreachable("there is none")
    return life.world.zone


def zone_arbiter_of(life: Life) -> dict[str, type[Arbiter[ArbiterConfig]]]:
    """The class that one life of a controller finds."""
    client = type("LifesClient", (_PretendedClient,), {"life": life})
    zone = type("LifesZone", (Zone,), {"client_class": client})
    made: dict[str, Any] = {
        "opennebula": type("LifesZoneArbiter", (_PretendedZoneArbiter,), {"life": life, "zone_class": zone})
    }
    return made
