"""From where who sees what: each of several controllers has a way of its own to the hosts, and ways to the others.

A way that is cut here shows nothing wrong to anybody else. What a host really is, `truth` knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Process
    from ha_controller.sim.engine_level.world import World

TOLD_WITHIN_S = 5.0  #: others are asked every second, and the first answer dates nothing


class Sight:
    """The ways."""

    def __init__(self, world: World) -> None:
        """All are open."""
        self.world = world
        self._hosts_cut: dict[tuple[int, int], int] = {}  #: (controller, host) -> how many troubles cut it
        self._others_cut: dict[tuple[int, int], int] = {}  #: (who asks, who is asked)
        self._open_since: dict[tuple[str, int, int], float] = {}

    def reaches_host(self, process: Process, host: int) -> bool:
        """Whether nothing but what everybody meets is in the way."""
        return not self._hosts_cut.get((process.index, host))

    def reaches(self, asker: Process, teller: Process) -> bool:
        """Whether one controller reaches the other one's API."""
        return not self._others_cut.get((asker.index, teller.index))

    def cut_host(self, index: int, host: int, by: int = 1) -> None:
        """A trouble begins, or ends (-1)."""
        self._change(self._hosts_cut, "host", index, host, by)

    def cut_other(self, asker: int, teller: int, by: int = 1) -> None:
        """The same between two controllers."""
        self._change(self._others_cut, "other", asker, teller, by)

    def _change(self, cut: dict[tuple[int, int], int], kind: str, one: int, other: int, by: int) -> None:
        cut[(one, other)] = max(0, cut.get((one, other), 0) + by)
        if not cut[(one, other)]:
            self._open_since[(kind, one, other)] = self.world.now

    def heal(self) -> None:
        """All are open again."""
        for kind, cut in (("host", self._hosts_cut), ("other", self._others_cut)):
            for one, other in [pair for pair, count in cut.items() if count]:
                self._open_since[(kind, one, other)] = self.world.now
            cut.clear()

    def known_since(self, process: Process, host: int, reachable_since: float) -> float | None:
        """Since when a controller hears of a host's life, by itself or by another one; None: it does not.

        `reachable_since`: who is not cut off hears the host since then.
        """
        found = [] if (own := self._seen_since(process, host)) is None else [max(own, reachable_since)]
        for other in self.world.controllers:
            seen = self._seen_since(other, host)
            if other is process or seen is None or not other.runs or not self.reaches(process, other):
                continue
            way = self._open_since.get(("other", process.index, other.index), 0.0)
            up = max(other.started_at, other.paused_until, process.started_at, process.paused_until)
            found.append(max(seen, way, up, reachable_since) + TOLD_WITHIN_S)
        return min(found, default=None)

    def _seen_since(self, process: Process, host: int) -> float | None:
        if not self.reaches_host(process, host):
            return None
        return self._open_since.get(("host", process.index, host), 0.0)
