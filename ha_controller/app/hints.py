"""Looks at OpenNebula sooner when its events say that something happened there: `[opennebula] events`.

An event is only a reason. What is asked then is what would have been asked anyway: the inventory, and of a host that is
being dealt with, what the core asked last. Both have a rest between two readings, however many events come. Nothing
depends on it: when events stop, and when this fails, the polls go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import structlog

from ha_controller.app.tallies import Tally
from ha_controller.core.effects import ReadHost
from ha_controller.core.state import State

if TYPE_CHECKING:
    from ha_controller.adapters.oned_events import EventListener

log = structlog.get_logger(__name__)

READ_REST_S = 0.2  #: after each reading of a host for events; the core itself asks each every 0.5 s
ASKED_AGE_MAX_S = 15.0  #: what the core asked longer ago, it does not want to know any more
AGAIN_S = 60.0  #: after a fault of ours


class Hints:
    """From events to readings."""

    def __init__(
        self,
        address: str,
        *,
        state: State,
        look: Callable[[], None],
        read_host: Callable[[ReadHost], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`address` as "tcp://127.0.0.1:2101"; empty: nobody listens. `look` has the inventory read soon."""
        self.address = address
        self.listener: EventListener | None = None
        self._state, self._look, self._read_host, self._clock = state, look, read_host, clock
        self._asked: dict[int, tuple[float, ReadHost]] = {}
        self._due: dict[int, None] = {}  # hosts to be read; a set that keeps its order
        self._bell = anyio.Event()

    def asked(self, order: ReadHost) -> None:
        """The core has a host read: an event about it is a reason to read it once more."""
        if self.address:
            self._asked[order.host] = (self._clock(), order)

    async def run(self) -> None:
        """Listen and look until cancelled."""
        if not self.address:
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            group.start_soon(self._read)

    def counted(self) -> Tally:
        """What was heard."""
        heard = None if self.listener is None else self.listener.heard
        tally = Tally("object", known=[("host",), ("vm",), ("strange",)])
        if heard is not None:
            tally.rows |= {("host",): heard.hosts, ("vm",): heard.vms, ("strange",): heard.strange}
        return tally

    async def _listen(self) -> None:
        from ha_controller.adapters.oned_events import EventListener

        self.listener = EventListener(self.address, host=self.of_host, vm=self.of_vm, missed=self._look)
        while True:
            try:
                await self.listener.run()
            except Exception as error:  # the border: without events everything goes on, a little later
                self.listener.heard.trouble = f"{type(error).__name__}: {error}"
                log.exception("events of OpenNebula cannot be heard; it is polled as ever", address=self.address)
            await anyio.sleep(AGAIN_S)

    def of_host(self, host: int) -> None:
        """A host has changed its state."""
        self._look()
        self._want(host)

    def of_vm(self, vm: int) -> None:
        """A VM has changed its state: it matters if its host is being dealt with."""
        for incident in self._state.incidents.values():
            if incident.vm(vm) is not None:
                self._want(incident.host)

    def _want(self, host: int) -> None:
        if host in self._asked:
            self._due[host] = None
            self._bell.set()

    async def _read(self) -> None:
        """One host after the other, so that a flood of events is a few readings a second."""
        while True:
            if not self._due:
                self._bell = anyio.Event()
                await self._bell.wait()
            host = next(iter(self._due))
            del self._due[host]
            asked_at, order = self._asked[host]
            if self._clock() - asked_at <= ASKED_AGE_MAX_S:
                await self._read_host(order)
                await anyio.sleep(READ_REST_S)
