"""Who may call oned now: a few connections, shared in lanes, so that pools never delay orders and nobody starves.

It must never let more calls out than there are connections. Calls come from the client.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

WAITING_MAX = 1000  #: calls that may wait for a connection; more fail at once, unsent


class Lane(Enum):
    """Why a call wants a connection."""

    ORDER = "order"  #: goes ahead of everything that waits; one connection is never given to anything else
    READ = "read"  #: one object
    POOL = "pool"  #: long; one connection is never given to anything else
    NOTE = "note"  #: for people only; not while an order waits or is under way


_RANK = MappingProxyType({Lane.ORDER: 0, Lane.NOTE: 2})


@dataclass(eq=False, kw_only=True, slots=True)
class _Waiter:
    lane: Lane
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    """Shares a few connections so that pools never delay orders, and orders never starve pools."""

    def __init__(self, connections: int) -> None:
        """Admit this many calls at once, at least 2."""
        if connections < 2:
            raise ValueError("at least 2 connections are needed: one is kept for orders, one for pools")
        self._connections = connections
        self._busy: Counter[Lane] = Counter()
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def slot(self, lane: Lane) -> AsyncIterator[None]:
        """Hold a connection. Waiting is bounded by the caller's deadline.

        Raises:
            asyncio.QueueFull: too many calls are waiting already.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise asyncio.QueueFull
        waiter = _Waiter(lane=lane)
        self._waiting.append(waiter)
        self._admit()
        try:
            await waiter.admitted.wait()
            yield
        finally:
            if waiter.admitted.is_set():
                self._busy[lane] -= 1
            else:
                self._waiting.remove(waiter)
            self._admit()

    def _admit(self) -> None:
        for waiter in sorted(self._waiting, key=lambda waiter: _RANK.get(waiter.lane, 1)):
            if self._fits(waiter.lane):
                self._waiting.remove(waiter)
                self._busy[waiter.lane] += 1
                waiter.admitted.set()

    def _fits(self, lane: Lane) -> bool:
        busy = self._busy.total()
        if lane is Lane.NOTE and (self._busy[Lane.ORDER] or self._busy[Lane.NOTE]):
            return False  # those that wait were admitted before, if there was room
        kept_for_others = [kept for kept in (Lane.ORDER, Lane.POOL) if kept is not lane]
        return busy < self._connections and all(
            busy - self._busy[kept] < self._connections - 1 for kept in kept_for_others
        )
