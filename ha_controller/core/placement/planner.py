"""Finds a place for many VMs at once: large ones first, each where most is left; then makes room for what did not fit.

Pure and deterministic: the same problem gives the same plan. No plan breaks a rule of `values.Rule`. It may leave out a
VM that an exhaustive search would place; docs/placement.md has the measured gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ha_controller.core.model import Vm
from ha_controller.core.placement.bundle import Bundle, Shares, bundles_of
from ha_controller.core.placement.repair import Repair, restore
from ha_controller.core.placement.room import Room
from ha_controller.core.placement.screen import Admission, Screen, Unplaceable
from ha_controller.core.placement.search import BUNDLES_MAX, Search
from ha_controller.core.placement.values import Placement, Plan, Problem, Task, in_words

SPREAD, TIGHT = 1.0, -1.0  #: to the host with the most left, or the least
_Order = Callable[[Bundle], tuple[float, ...]]


def plan(problem: Problem) -> Plan:
    """Find a place for every VM that has one."""
    return _Planner(problem).plan()


class Checker:
    """Answers about single VMs and hosts, for plans that were made a moment ago."""

    def __init__(self, problem: Problem) -> None:
        """`problem` as it is now; its tasks do not matter."""
        self._screen = Screen(problem)
        self._soften = problem.soften

    @property
    def usable(self) -> frozenset[int]:
        """The hosts that may take VMs at all."""
        return frozenset(self._screen.rooms)

    def may_take(self, task: Task, destination: int) -> bool:
        """Whether a host may take a VM, whatever room it has: for one that may be on its way there already."""
        return self._admission(task, destination) is not None

    def fits(self, task: Task, destination: int, *, softened: bool = False) -> bool:
        """Whether a VM can go there now."""
        admission = self._admission(task, destination)
        if admission is None:
            return False
        alone = Bundle((task,), (admission,), admission.rooms)
        return alone.why_not(self._screen.rooms[destination], soften=softened and self._soften) is None

    def take(self, vm: Vm, destination: int) -> None:
        """It was just ordered there."""
        self._screen.rooms[destination].take(vm)

    def _admission(self, task: Task, destination: int) -> Admission | None:
        try:
            admission = self._screen.admit(task)
        except Unplaceable:
            return None
        return admission if any(room.host.id == destination for room in admission.rooms) else None


class _Planner:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._screen = Screen(problem)
        self._unplaceable: dict[int, str] = {}
        admissions: dict[int, Admission] = {}
        for task in problem.tasks:
            try:
                admissions[task.vm.id] = self._screen.admit(task)
            except Unplaceable as error:
                self._unplaceable[task.vm.id] = str(error)
        tasks = sorted((task for task in problem.tasks if task.vm.id in admissions), key=lambda task: task.vm.id)
        self._bundles = bundles_of(tasks, admissions, self._screen)
        self._shares = Shares.of(self._screen.rooms.values())

    def plan(self) -> Plan:
        self._pack()
        if any(bundle.room is None for bundle in self._bundles):
            Repair(self._bundles).run()
        if len(self._bundles) <= BUNDLES_MAX and any(bundle.room is None for bundle in self._bundles):
            Search(self._bundles).run()
        self._split()
        self._recheck()
        if self._problem.soften:
            self._soften()
        found = [placement for bundle in self._bundles for placement in self._placements(bundle)]
        found += [
            Placement(vm=task.vm.id, name=task.vm.name, reason=self._unplaceable[task.vm.id])
            for task in self._problem.tasks
            if task.vm.id in self._unplaceable
        ]
        return Plan(placements=tuple(sorted(found, key=lambda placement: placement.vm)))

    # --- packing ---

    def _pack(self) -> None:
        """Spread, the large ones first; if that leaves somebody out, try other ways, and keep what places the most.

        Where there is not room for all, the small ones come first: more VMs run.
        """
        ways = (
            (self._by_size, SPREAD),
            (self._by_choice, SPREAD),
            (self._by_choice, TIGHT),
            (self._small_first, SPREAD),
            (self._small_first, TIGHT),
        )
        best: list[tuple[Bundle, Room | None]] = []
        for order, sign in ways:
            restore((bundle, None) for bundle in self._bundles)
            self._fill(order, sign)
            here = [(bundle, bundle.room) for bundle in self._bundles]
            if not best or self._worth(here) > self._worth(best):
                best = here
            if all(room is not None for _, room in here):
                return
        restore(best)

    def _by_size(self, bundle: Bundle) -> tuple[float, ...]:
        return (-bundle.priority, -bundle.size(self._shares), bundle.vms[0].id)

    def _small_first(self, bundle: Bundle) -> tuple[float, ...]:
        return (-bundle.priority, bundle.size(self._shares), bundle.vms[0].id)

    def _by_choice(self, bundle: Bundle) -> tuple[float, ...]:
        """Those with the fewest hosts to choose from first."""
        return (-bundle.priority, bundle.plain, len(bundle.rooms), -bundle.size(self._shares), bundle.vms[0].id)

    @staticmethod
    def _worth(places: Sequence[tuple[Bundle, Room | None]]) -> tuple[tuple[int, int], ...]:
        """How many VMs of each priority have a place, the highest priority first."""
        counted: Counter[int] = Counter()
        for bundle, room in places:
            counted[bundle.priority] += len(bundle.vms) if room is not None else 0
        return tuple(sorted(counted.items(), reverse=True))

    def _fill(self, order: _Order, sign: float) -> None:
        for bundle in sorted(self._bundles, key=order):
            room = self._choose(bundle, sign)
            if room is not None:
                bundle.enter(room)

    def _choose(self, bundle: Bundle, sign: float) -> Room | None:
        """The host with the most or the least left after it; other clusters, and those that failed it, come last."""
        for rooms in _preferences(bundle):
            if (room := self._best(bundle, rooms, sign)) is not None:
                return room
        return None

    def _best(self, bundle: Bundle, rooms: Sequence[Room], sign: float) -> Room | None:
        """The hot loop: VMs times hosts."""
        cpu, memory_mb, plain = bundle.cpu, bundle.memory_mb, bundle.plain
        per_cpu, per_mb = 1 / self._shares.cpu, 1 / self._shares.memory_mb
        best, best_score = None, float("-inf")
        for room in rooms:
            left_cpu, left_mb = room.cpu - cpu, room.memory_mb - memory_mb
            if left_cpu < 0 or left_mb < 0:
                continue
            by_cpu, by_mb = left_cpu * per_cpu, left_mb * per_mb
            score = sign * (by_cpu if by_cpu < by_mb else by_mb)
            if score > best_score and ((plain and not room.watchers) or bundle.why_not(room) is None):
                best, best_score = room, score
        return best

    # --- afterwards ---

    def _split(self) -> None:
        """Some of the VMs that must share a host are better than none: the others wait for room beside them."""
        for whole in [each for each in self._bundles if each.room is None and len(each.vms) > 1]:
            part, others = whole, list[Bundle]()
            while part.room is None and len(part.vms) > 1:
                part, other = part.split()
                others.append(other)
                if (room := self._choose(part, SPREAD)) is not None:
                    part.enter(room)
            if part.room is not None:
                for other in others:
                    other.rooms = [room for room in other.admissions[0].rooms if room is part.room]
                self._bundles.remove(whole)
                self._bundles += [part, *others]

    def _recheck(self) -> None:
        """Requirements that look at other VMs must still hold after those have moved; else the VM is left out."""
        watching = [bundle for bundle in self._bundles if any(each.changing for each in bundle.admissions)]
        for _ in range(len(watching) + 1):
            broken = [bundle for bundle in watching if bundle.room is not None and not _still_allowed(bundle)]
            if not broken:
                return
            for bundle in broken:
                bundle.leave()
        assert all(bundle.room is None or _still_allowed(bundle) for bundle in watching)

    def _soften(self) -> None:
        """In an emergency VMs share a host that should not, with as few of each other as possible."""
        for bundle in sorted(self._bundles, key=self._by_size):
            if bundle.room is not None or not any(each.ties.apart for each in bundle.admissions):
                continue
            allowed = [room for room in bundle.rooms if bundle.why_not(room, soften=True) is None]
            if allowed:
                bundle.enter(min(allowed, key=lambda room: (bundle.crowd(room), -room.memory_mb, room.host.id)))
                bundle.softened = True

    def _placements(self, bundle: Bundle) -> list[Placement]:
        if bundle.room is not None:
            at = bundle.room.host.id
            return [Placement(vm=vm.id, name=vm.name, destination=at, softened=bundle.softened) for vm in bundle.vms]
        refusals = tuple(sorted(bundle.refusals().items()))
        together = f" (together with {len(bundle.vms) - 1} others)" if len(bundle.vms) > 1 else ""
        reason = f"fits on no host{together}: {in_words(refusals)}"
        return [Placement(vm=vm.id, name=vm.name, reason=reason, refusals=refusals) for vm in bundle.vms]


def _preferences(bundle: Bundle) -> list[Sequence[Room]]:
    """The hosts it may go to in groups: of its own cluster, of others, and those that failed it before."""
    ours: list[Room] = []
    others: list[Room] = []
    bad: list[Room] = []
    for room in bundle.rooms:
        if room.host.id in bundle.last_resort:
            bad.append(room)
        else:
            (ours if room.host.cluster == bundle.cluster else others).append(room)
    return [ours, others, bad]


def _still_allowed(bundle: Bundle) -> bool:
    room = bundle.room
    assert room is not None
    bundle.leave()
    allowed = bundle.why_not(room) is None
    bundle.enter(room)
    return allowed
