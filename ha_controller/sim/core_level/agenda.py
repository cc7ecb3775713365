"""Pretended time: what is due next, in an order that the seed alone decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Act = Callable[[], None]


class Agenda:
    """Acts by the moment at which they are due. Two of one moment happen in the order in which they were noted."""

    def __init__(self, now: float) -> None:
        """Nothing is due. `now` is in seconds of the world, which no clock that jumps can move."""
        self.now = now
        self._due: list[tuple[float, int, Act]] = []
        self._noted = 0

    def at(self, moment: float, act: Act) -> None:
        """Note an act. One for the past happens next."""
        self._noted += 1
        heapq.heappush(self._due, (max(moment, self.now), self._noted, act))

    def later(self, delay_s: float, act: Act) -> None:
        """Note an act for so many seconds from now."""
        self.at(self.now + delay_s, act)

    @property
    def due(self) -> float:
        """When the next act is due; infinity when none is."""
        return self._due[0][0] if self._due else float("inf")

    def step(self, ends: float) -> bool:
        """Let the next act happen; False when none is due before `ends`, which is the present then."""
        if not self._due or self._due[0][0] > ends:
            self.now = ends
            return False
        self.now, _, act = heapq.heappop(self._due)
        act()
        return True
