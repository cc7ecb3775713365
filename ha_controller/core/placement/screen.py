"""Which hosts may take a VM at all, whatever room they have; computed once for all VMs that are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ha_controller.core.model import Host, HostState, OnedHostState, Vm
from ha_controller.core.placement.expression import Comparison, Expression, Unreadable, parse
from ha_controller.core.placement.groups import Groups, Ties
from ha_controller.core.placement.room import Room
from ha_controller.core.placement.values import Candidate, Problem, Rule, Task

_Key = tuple[object, ...]


class Unplaceable(Exception):
    """A VM for which no host can be named, because what it asks for is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """The hosts that may take a VM, and what else is to be looked at while a plan grows."""

    rooms: Sequence[Room]
    refusals: Counter[Rule]  #: of the other hosts
    ties: Ties
    changing: tuple[Expression, ...] = ()  #: requirements that look at the VMs of a host


class Screen:
    """Screens hosts for VMs, with the rooms of one plan. Sets of usable hosts are numbers with a bit for each."""

    def __init__(self, problem: Problem) -> None:
        """Take in the hosts, and the VMs that are under way to them."""
        self.rooms: dict[int, Room] = {}
        self._unusable: Counter[Rule] = Counter()
        self._problem = problem
        self._guests: dict[int, set[int]] | None = None  #: VM -> hosts that have it, usable or not
        self._groups = None if problem.groups is None else Groups(problem.groups)
        self._expressions: dict[str, Expression | str] = {}
        self._admissions: dict[_Key, Admission] = {}
        for candidate in sorted(problem.candidates, key=lambda candidate: candidate.host.id):
            if rule := _not_usable(candidate, problem.seen_max_s):
                self._unusable[rule] += 1
            else:
                self.rooms[candidate.host.id] = Room(candidate.host)
        for under_way in problem.underway:
            if under_way.destination in self.rooms:
                self.rooms[under_way.destination].take(under_way.vm)
        self._index = _Index([room.host for room in self.rooms.values()])
        self._chosen: dict[int, list[Room]] = {}

    def hosts_of(self, vms: frozenset[int]) -> frozenset[int]:
        """The hosts, usable or not, that have some of these VMs or will have them."""
        if self._guests is None:
            self._guests = {}
            to_place = {task.vm.id for task in self._problem.tasks}  # where they are now, they do not stay
            for candidate in self._problem.candidates:
                for vm in set(candidate.host.vms) - to_place:
                    self._guests.setdefault(vm, set()).add(candidate.host.id)
            for under_way in self._problem.underway:
                self._guests.setdefault(under_way.vm.id, set()).add(under_way.destination)
        guests = self._guests
        return frozenset(host for vm in vms for host in guests.get(vm, ()))

    def _anchors(self, vm: Vm, ties: Ties) -> frozenset[int] | None:
        """Where a VM must go because others are there already with which it shares a host; None: anywhere."""
        anchors = [hosts for vms in ties.together if (hosts := self.hosts_of(vms - {vm.id}))]
        return frozenset.intersection(*anchors) if anchors else None

    def admit(self, task: Task) -> Admission:
        """Find the hosts that may take a VM.

        Raises:
            Unplaceable: what the VM asks for cannot be told.
        """
        vm = task.vm
        ties = Ties() if vm.group is None else self._ties(vm)
        anchors = self._anchors(vm, ties)
        alike = (vm.host, vm.vm_mad, vm.cluster, vm.reach, vm.automatic_requirements, vm.requirements)
        key: _Key = (*alike, task.failed_on, ties.hosts, ties.not_hosts, anchors)
        known = self._admissions.get(key)
        if known is None:
            known = self._admissions[key] = self._screen(task, ties, anchors)
        return Admission(rooms=known.rooms, refusals=known.refusals, ties=ties, changing=known.changing)

    def _ties(self, vm: Vm) -> Ties:
        ties = None if self._groups is None else self._groups.ties(vm.id, vm.group)
        if ties is None:
            raise Unplaceable(f"its VM group {vm.group} cannot be read, so nobody knows what it must be apart from")
        return ties

    def _screen(self, task: Task, ties: Ties, anchors: frozenset[int] | None) -> Admission:
        vm = task.vm
        automatic = self._read(vm.automatic_requirements, "AUTOMATIC_REQUIREMENTS")
        own = self._read(vm.requirements, "SCHED_REQUIREMENTS")
        index, refusals = self._index, Counter(self._unusable)
        left = index.everywhere & ~index.where("ID", lambda host: host == str(vm.host))
        clusters = {str(cluster) for cluster in ((vm.cluster,) if vm.reach is None else vm.reach)}
        for rule, allowed in (
            (Rule.FAILED_BEFORE, ~index.these(task.failed_on)),
            (Rule.DRIVER, index.where("VM_MAD", lambda driver: driver == vm.vm_mad)),
            (Rule.CLUSTER, index.where("CLUSTER_ID", lambda cluster: cluster in clusters)),
            (Rule.AUTOMATIC_REQUIREMENTS, index.meeting(automatic)),
            (Rule.REQUIREMENTS, index.meeting(own)),
            (Rule.HOST_AFFINITY, index.everywhere if ties.hosts is None else index.these(ties.hosts)),
            (Rule.HOST_AFFINITY, ~index.these(ties.not_hosts)),
            (Rule.AFFINITY, index.everywhere if anchors is None else index.these(anchors)),
        ):
            refusals[rule] += (left & ~allowed).bit_count()
            left &= allowed
        changing = tuple(expression for expression in (automatic, own) if expression.looks_at_vms)
        return Admission(rooms=self._rooms_of(left), refusals=+refusals, ties=ties, changing=changing)

    def _rooms_of(self, hosts: int) -> list[Room]:
        if hosts not in self._chosen:
            self._chosen[hosts] = [room for place, room in enumerate(self.rooms.values()) if hosts >> place & 1]
        return self._chosen[hosts]

    def _read(self, text: str, name: str) -> Expression:
        known = self._expressions.get(text)
        if known is None:
            try:
                known = parse(text)
            except Unreadable as error:
                known = str(error)
            self._expressions[text] = known
        if isinstance(known, str):
            raise Unplaceable(f"its {name} cannot be evaluated ({known}), and nothing is guessed")
        return known


class _Index:
    """Usable hosts by the values of their attributes: each different value is looked at once, not each host."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._places = {host.id: 1 << place for place, host in enumerate(hosts)}
        self._by_name: dict[str, dict[tuple[str, ...], int]] = {}
        self._by_comparison: dict[Comparison, int] = {}
        self.everywhere = (1 << len(hosts)) - 1

    def these(self, hosts: Iterable[int]) -> int:
        """Of these ids."""
        return sum(self._places.get(host, 0) for host in set(hosts))

    def where(self, name: str, suits: Callable[[str], bool]) -> int:
        """Those whose attribute suits."""
        return sum(hosts for values, hosts in self._values(name).items() if values and suits(values[0]))

    def meeting(self, expression: Expression) -> int:
        """Those that meet a requirement; all of them, if it looks at the VMs of a host and is looked at later."""
        return self.everywhere if expression.looks_at_vms else expression.among(self._comparing, self.everywhere)

    def _comparing(self, comparison: Comparison) -> int:
        if comparison not in self._by_comparison:
            found = self._values(comparison.name).items()
            self._by_comparison[comparison] = sum(hosts for values, hosts in found if comparison.compares(values))
        return self._by_comparison[comparison]

    def _values(self, name: str) -> dict[tuple[str, ...], int]:
        if name not in self._by_name:
            found: dict[tuple[str, ...], int] = {}
            for host in self._hosts:
                values = values_of(host, name)
                found[values] = found.get(values, 0) | self._places[host.id]
            self._by_name[name] = found
        return self._by_name[name]


def values_of(host: Host, name: str) -> tuple[str, ...]:
    """The values of an attribute of a host, as OpenNebula's scheduler looks them up."""
    match name:
        case "ID":
            return (str(host.id),)
        case "NAME":
            return (host.name,)
        case "STATE":
            return (str(host.one_state),)
        case "CLUSTER_ID":
            return (str(host.cluster),)
        case "VM_MAD":
            return (host.vm_mad,)
        case _ if name in host.repeated:
            return host.repeated[name]
        case _:
            return next(((layer[name],) for layer in host.attributes if name in layer), ())


def _not_usable(candidate: Candidate, seen_max_s: float) -> Rule | None:
    """OpenNebula checks neither the state of a destination nor whether it is alive: both are our job."""
    host = candidate.host
    if candidate.state is not HostState.OK:
        return Rule.NOT_OK
    if candidate.seen_s > seen_max_s:
        return Rule.NOT_SEEN
    if host.one_state != OnedHostState.MONITORED:
        return Rule.NOT_ENABLED
    return Rule.OUT_OF_SCOPE if host.excluded else None
