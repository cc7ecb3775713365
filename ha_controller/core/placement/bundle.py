"""VMs that go to one host together, usually one alone: how large they are, where they fit, what keeps them away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ha_controller.core.model import Vm
from ha_controller.core.placement.room import Room
from ha_controller.core.placement.screen import Admission, Screen, values_of
from ha_controller.core.placement.values import Rule, Task


@dataclass(frozen=True, slots=True)
class Shares:
    """What the hosts have left on average, so that CPU and memory can be compared."""

    cpu: float
    memory_mb: float

    @classmethod
    def of(cls, rooms: Iterable[Room]) -> Shares:
        """Of these hosts; at least 1 of each."""
        all_rooms = list(rooms)
        count = max(1, len(all_rooms))
        return cls(
            max(1.0, sum(room.cpu for room in all_rooms) / count),
            max(1.0, sum(room.memory_mb for room in all_rooms) / count),
        )


@dataclass(eq=False, slots=True)
class Bundle:
    """VMs that go to one host together. Its room is set while it is placed."""

    tasks: tuple[Task, ...]
    admissions: tuple[Admission, ...]
    rooms: Sequence[Room]  #: those that every VM of it may go to, whatever is left there
    cpu: int = 0
    memory_mb: int = 0
    plain: bool = True  #: nothing but CPU and memory decides
    last_resort: frozenset[int] = frozenset()
    cluster: int = -1
    room: Room | None = None
    softened: bool = False
    vms: tuple[Vm, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what is asked often."""
        self.vms = tuple(task.vm for task in self.tasks)
        self.cpu = sum(vm.cpu for vm in self.vms)
        self.memory_mb = sum(vm.memory_mb for vm in self.vms)
        self.cluster = self.vms[0].cluster
        self.last_resort = frozenset(host for task in self.tasks for host in task.refused_on)
        bound = any(admission.ties.apart or admission.changing for admission in self.admissions)
        self.plain = not bound and not any(vm.pci or vm.numa is not None for vm in self.vms)

    @property
    def priority(self) -> int:
        """The highest of its VMs."""
        return max(task.priority for task in self.tasks)

    def size(self, shares: Shares) -> float:
        """How much it needs of what is scarcer."""
        return max(self.cpu / shares.cpu, self.memory_mb / shares.memory_mb)

    def why_not(self, room: Room, *, soften: bool = False) -> Rule | None:
        """What keeps it from a host that it may go to; leaves the host as it was."""
        if self.cpu > room.cpu:
            return Rule.CPU
        if self.memory_mb > room.memory_mb:
            return Rule.MEMORY
        if self.plain and not room.watchers:
            return None
        if len(self.vms) == 1:
            return self._keeps_away(0, room, soften) or room.lacks(self.vms[0])
        return self._one_after_the_other(room, soften)

    def _one_after_the_other(self, room: Room, soften: bool) -> Rule | None:
        rule, taken = None, []
        for index, vm in enumerate(self.vms):
            rule = self._keeps_away(index, room, soften) or room.lacks(vm)
            if rule:
                break
            room.take(vm)
            taken.append(vm)
        for vm in reversed(taken):
            room.release(vm)
        return rule

    def _keeps_away(self, index: int, room: Room, soften: bool) -> Rule | None:
        admission = self.admissions[index]
        if not soften and not admission.ties.apart.isdisjoint(room.vms):
            return Rule.ANTI_AFFINITY
        for expression in admission.changing:
            if not expression.holds(lambda name: values_of(room.host, name), room.vms):
                return Rule.REQUIREMENTS
        if room.watchers and not self._is_suffered(self.vms[index], room):
            return Rule.ANTI_AFFINITY
        return None

    @staticmethod
    def _is_suffered(vm: Vm, room: Room) -> bool:
        """Whether the guests whose requirements look at their neighbours still have them met beside it."""
        vms = room.vms | {vm.id}
        return all(
            expression.holds(lambda name: values_of(room.host, name), vms)
            for watcher in room.watchers.values()
            for expression in watcher
        )

    def crowd(self, room: Room) -> int:
        """How many VMs of a host it should be apart from."""
        return sum(len(admission.ties.apart & room.vms) for admission in self.admissions)

    def enter(self, room: Room) -> None:
        """Go there."""
        self.room = room
        for vm, admission in zip(self.vms, self.admissions, strict=True):
            room.take(vm)
            if admission.changing:
                room.watchers[vm.id] = admission.changing

    def leave(self) -> None:
        """Undo `enter`."""
        assert self.room is not None
        for vm in reversed(self.vms):
            self.room.release(vm)
            self.room.watchers.pop(vm.id, None)
        self.room = None

    def refusals(self) -> Counter[Rule]:
        """How many hosts each rule keeps away, the first rule of each host counted."""
        counted = Counter(self.admissions[0].refusals)
        counted[Rule.AFFINITY] += len(self.admissions[0].rooms) - len(self.rooms)
        counted.update(rule for room in self.rooms if (rule := self.why_not(room)))
        return +counted

    def split(self) -> tuple[Bundle, Bundle]:
        """Without the least important and largest of its VMs, and that one alone."""
        order = sorted(
            range(len(self.tasks)),
            key=lambda index: (-self.tasks[index].priority, self.vms[index].memory_mb, self.vms[index].id),
        )
        kept, last = order[:-1], order[-1]
        return (
            bundle([self.tasks[index] for index in kept], [self.admissions[index] for index in kept]),
            Bundle((self.tasks[last],), (self.admissions[last],), ()),
        )


def bundles_of(tasks: Sequence[Task], admissions: Mapping[int, Admission], screen: Screen) -> list[Bundle]:
    """Tie those VMs together that must share a host, and of whose set none is anywhere yet."""
    company = {task.vm.id: {task.vm.id} for task in tasks}
    for task in tasks:
        for vms in admissions[task.vm.id].ties.together:
            if screen.hosts_of(vms):
                continue  # those that are there bind it already
            for other in sorted(vms & company.keys()):
                _join(company, task.vm.id, other)
    made: list[Bundle] = []
    done: set[int] = set()
    for task in tasks:
        if task.vm.id not in done:
            done |= company[task.vm.id]
            alone = len(company[task.vm.id]) == 1
            members = [task] if alone else [each for each in tasks if each.vm.id in company[task.vm.id]]
            made += _bundles([(each, admissions[each.vm.id]) for each in members])
    return made


def _join(company: dict[int, set[int]], one: int, other: int) -> None:
    if company[one] is not company[other]:
        company[one] |= company[other]
        for vm in company[other]:
            company[vm] = company[one]


def _bundles(members: list[tuple[Task, Admission]]) -> list[Bundle]:
    """One bundle, and those alone that may not go where the most, and the most important, of the others may."""
    whole = bundle([task for task, _ in members], [admission for _, admission in members])
    if whole.rooms or len(members) == 1:
        return [whole]
    welcome: dict[int, list[tuple[Task, Admission]]] = {}
    for member in members:
        for room in member[1].rooms:
            welcome.setdefault(room.host.id, []).append(member)
    most = max(welcome.values(), key=lambda some: sorted((task.priority for task, _ in some), reverse=True), default=[])
    kept = [bundle([task for task, _ in most], [admission for _, admission in most])] if most else []
    alone = [Bundle((task,), (admission,), ()) for task, admission in members if (task, admission) not in most]
    return [*kept, *alone]


def bundle(tasks: Sequence[Task], admissions: Sequence[Admission]) -> Bundle:
    """VMs that go together, to a host that each of them may go to."""
    rooms = admissions[0].rooms
    for admission in admissions[1:]:
        allowed = {room.host.id for room in admission.rooms}
        rooms = [room for room in rooms if room.host.id in allowed]
    return Bundle(tuple(tasks), tuple(admissions), rooms)
