"""Makes room for VMs that did not fit, by giving others of the same plan another place.

Nothing that was placed is left out for it, and nothing that already runs is touched. Bounded in steps, not in time, so
that it is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable

from ha_controller.core.placement.bundle import Bundle
from ha_controller.core.placement.room import Room

STEPS_MAX = 20_000  #: looks at a bundle on a host
DEPTH_MAX = 2  #: one that gives way may make others give way so often


def restore(places: Iterable[tuple[Bundle, Room | None]]) -> None:
    """Put bundles back to where they were, wherever they are now."""
    known = list(places)
    for bundle, _ in known:
        if bundle.room is not None:
            bundle.leave()
    for bundle, room in known:
        if room is not None:
            bundle.enter(room)


class _OutOfSteps(Exception):
    """The search has become too long."""


class Repair:
    """Tries to place what was left out."""

    def __init__(self, bundles: Iterable[Bundle]) -> None:
        """All bundles of a plan, placed or not."""
        self._bundles = list(bundles)
        self._guests: dict[int, list[Bundle]] = {}
        self._steps = STEPS_MAX
        for bundle in self._bundles:
            if bundle.room is not None:
                self._guests.setdefault(bundle.room.host.id, []).append(bundle)

    def run(self) -> None:
        """Place as many as possible, the more important and then the larger ones first."""
        left = [bundle for bundle in self._bundles if bundle.room is None]
        left.sort(key=lambda bundle: (-bundle.priority, -bundle.memory_mb, -bundle.cpu, bundle.vms[0].id))
        for bundle in left:
            before = [(each, each.room) for each in self._bundles]
            try:
                self._place(bundle, DEPTH_MAX, frozenset())
            except _OutOfSteps:
                restore(before)
                return

    def _place(self, bundle: Bundle, depth: int, closed: frozenset[int]) -> bool:
        """Place it where it fits, else where others can give way. `closed`: hosts that are being cleared just now."""
        rooms = [room for room in bundle.rooms if room.host.id not in closed]
        for room in rooms:
            self._step()
            if bundle.why_not(room) is None:
                self._enter(bundle, room)
                return True
        return depth > 0 and any(self._clear(room, bundle, depth, closed) for room in rooms)

    def _clear(self, room: Room, bundle: Bundle, depth: int, closed: frozenset[int]) -> bool:
        """Let guests go, from each of them on, until the bundle fits; then find places for those that went."""
        guests = sorted(self._guests.get(room.host.id, ()), key=lambda guest: (guest.memory_mb, guest.cpu))
        for start in range(len(guests)):
            gone = self._let_go(room, bundle, guests[start:])
            if gone is None:
                return False  # not even without all of them; later starts let fewer go
            self._enter(bundle, room)
            if self._resettle(gone, depth, closed | {room.host.id}):
                return True
            self._leave(bundle)
            for guest in gone:
                self._enter(guest, room)
        return False

    def _let_go(self, room: Room, bundle: Bundle, guests: list[Bundle]) -> list[Bundle] | None:
        gone: list[Bundle] = []
        for guest in guests:
            self._step()
            self._leave(guest)
            gone.append(guest)
            if bundle.why_not(room) is None:
                return gone
        for guest in gone:
            self._enter(guest, room)
        return None

    def _resettle(self, gone: list[Bundle], depth: int, closed: frozenset[int]) -> bool:
        settled: list[Bundle] = []
        for guest in sorted(gone, key=lambda guest: (-guest.memory_mb, -guest.cpu)):
            if not self._place(guest, depth - 1, closed):
                for each in settled:
                    self._leave(each)
                return False
            settled.append(guest)
        return True

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise _OutOfSteps

    def _enter(self, bundle: Bundle, room: Room) -> None:
        bundle.enter(room)
        self._guests.setdefault(room.host.id, []).append(bundle)

    def _leave(self, bundle: Bundle) -> None:
        assert bundle.room is not None
        self._guests[bundle.room.host.id].remove(bundle)
        bundle.leave()
