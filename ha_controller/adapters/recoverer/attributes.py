"""Writes HA_LAST and HA_STATE on VMs and hosts in OpenNebula, for people.

It must never delay or fail anything: one write at a time, behind all orders, with a deadline, tried a few times, and
given up. What waits is bounded; the newest word about a VM or host replaces the one before. It never writes a host's
HA_STATE, which is a mark that means something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial

import anyio
import structlog

from ha_controller.adapters.opennebula import Client, Locked, NoAnswer, OpenNebulaError, Withheld
from ha_controller.adapters.recoverer.scope import MARK
from ha_controller.core.effects import WriteAttributes
from ha_controller.plugin import one_line

log = structlog.get_logger(__name__)

LAST = "HA_LAST"  #: attribute of VMs and hosts: when what became of it
VALUE_MAX = 300  #: characters
WAITING_MAX = 5000
TRIES_MAX = 3
PAUSE_S = 5.0  #: after a write that failed
_PLAIN = str.maketrans({'"': "'", "\\": "/"})
VALID_S = 900.0  #: what could not be written for so long is given up


class AttributeWriter:
    """One queue and one writer."""

    def __init__(
        self,
        client: Client,
        *,
        may_act: Callable[[int | None], Awaitable[bool]],
        while_leading: Callable[[], AbstractContextManager[None]],
        clock: Callable[[], float],
        pause_s: float = PAUSE_S,
    ) -> None:
        """`while_leading`: ends what runs inside it when the lead ends."""
        self._client, self._may_act, self._while_leading = client, may_act, while_leading
        self._clock, self._pause_s = clock, pause_s
        self._waiting: dict[tuple[str, int], tuple[WriteAttributes, int]] = {}  #: with the number of tries
        self._bell = anyio.Event()
        self.results: Counter[str] = Counter(written=0, locked=0, failed=0, dropped=0)  #: how many writes ended how

    def put(self, order: WriteAttributes) -> None:
        """Take an order; returns at once. When too many wait, the oldest is dropped."""
        self._waiting.pop(_key(order), None)
        self._waiting[_key(order)] = (order, 0)
        if len(self._waiting) > WAITING_MAX:
            self._waiting.pop(next(iter(self._waiting)))
            self.results["dropped"] += 1
        self._bell.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            while self._waiting:
                order, tries = self._waiting.pop(next(iter(self._waiting)))
                await self._one(order, tries)
            self._bell = anyio.Event()
            await self._bell.wait()

    async def _one(self, order: WriteAttributes, tries: int) -> None:
        result: str | None = "dropped"  # what a lead that ends in the middle leaves
        with self._while_leading():
            result = await self._tried(order, tries)
        if result is None:
            await anyio.sleep(self._pause_s)
        else:
            self.results[result] += 1

    async def _tried(self, order: WriteAttributes, tries: int) -> str | None:
        """How it ended; None: it waits to be tried again."""
        try:
            return await self.write(order)
        except Locked:
            return "locked"
        except OpenNebulaError as error:
            unsent = isinstance(error, NoAnswer) and not error.sent
            tries += not unsent
            if error.retryable and tries < TRIES_MAX and self._clock() - order.at < VALID_S:
                self._waiting.setdefault(_key(order), (order, tries))
                return None
            log.info("an attribute was not written", vm=order.vm, host=order.host, error=str(error))
            return "failed"

    async def write(self, order: WriteAttributes) -> str:
        """Write once; returns how it ended. Raises OpenNebulaError."""
        moment = datetime.fromtimestamp(order.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        last = {LAST: fit(f"{moment} {order.text}")}
        client = self._client.proven(partial(self._may_act, order.term))
        try:
            if order.vm is None:
                await client.note_host(order.host, last)
            else:
                await client.note_vm(order.vm, {**last, MARK: fit(order.state)})
        except Withheld:
            return "dropped"
        return "written"


def _key(order: WriteAttributes) -> tuple[str, int]:
    return ("host", order.host) if order.vm is None else ("vm", order.vm)


def fit(text: str) -> str:
    r"""A text for OpenNebula's templates that needs no escapes: one line, bounded, no quotes, backslashes or "]]>"."""
    plain = one_line(text, characters_max=VALUE_MAX).translate(_PLAIN)
    return plain.replace("]]>", "]] >")
