"""Looks at every way to place a few VMs, when packing and repair left one of them out.

For the small cloud and the small host, where one VM more or less matters most. Bounded in steps, not in time: what is
found within them is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from ha_controller.core.placement.bundle import Bundle
from ha_controller.core.placement.repair import restore
from ha_controller.core.placement.room import Room

BUNDLES_MAX = 12
STEPS_MAX = 30_000  #: looks at a bundle on a host

Worth = tuple[int, ...]  #: VMs placed, of each priority, the highest first


class Search:
    """A depth-first search with a bound: branches that cannot beat the best are cut off."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        """Where the bundles are now is what has to be beaten."""
        self._bundles = sorted(
            bundles, key=lambda each: (-each.priority, each.plain, len(each.rooms), -each.memory_mb, each.vms[0].id)
        )
        self._priorities = sorted({task.priority for each in bundles for task in each.tasks}, reverse=True)
        self._best = [(bundle, bundle.room) for bundle in self._bundles]
        self._most = self._worth([bundle for bundle, room in self._best if room is not None])
        self._all = [self._worth(self._bundles[index:]) for index in range(len(self._bundles) + 1)]
        self._steps = STEPS_MAX

    def run(self) -> None:
        """Leave the bundles where the best assignment has them."""
        restore((bundle, None) for bundle in self._bundles)
        self._from(0, self._worth(()))
        restore(self._best)

    def _worth(self, bundles: Sequence[Bundle]) -> Worth:
        priorities = [task.priority for bundle in bundles for task in bundle.tasks]
        return tuple(priorities.count(each) for each in self._priorities)

    def _from(self, index: int, placed: Worth) -> None:
        """Place the bundle at `index` in every way, and those after it."""
        possible = tuple(have + more for have, more in zip(placed, self._all[index], strict=True))
        if self._steps < 0 or possible <= self._most:
            return
        if index == len(self._bundles):
            self._most, self._best = placed, [(bundle, bundle.room) for bundle in self._bundles]
            return
        bundle = self._bundles[index]
        with_it = tuple(have + more for have, more in zip(placed, self._worth((bundle,)), strict=True))
        for room in self._rooms(bundle):
            bundle.enter(room)
            self._from(index + 1, with_it)
            bundle.leave()
        self._from(index + 1, placed)

    def _rooms(self, bundle: Bundle) -> list[Room]:
        """Where it fits, the tightest first; good hosts before those that failed it."""
        self._steps -= len(bundle.rooms)
        fitting = [room for room in bundle.rooms if bundle.why_not(room) is None]
        return sorted(fitting, key=lambda room: (room.host.id in bundle.last_resort, room.memory_mb, room.host.id))
