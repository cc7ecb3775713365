"""Random clouds, a judge of plans, and an exhaustive search: none of them knows how the planner works.

The judge takes rules from their definitions: sums of capacity, requirements as Python conditions beside their texts,
groups by what their words say. Not a test itself.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ha_controller.core.model import Host, HostState, Vm
from ha_controller.core.placement import Candidate, Problem, Task
from ha_controller.core.resources import Core, NumaNode, NumaRequest, PciDevice, PciRequest, Role, VmGroup

NVIDIA = 0x10DE
NODE_CORES, NODE_THREADS = 4, 8
Condition = Callable[[Host, set[int]], bool]


@dataclass
class Case:
    """A problem, and what its requirements mean."""

    problem: Problem
    meanings: dict[int, Condition] = field(default_factory=dict)

    @property
    def vms(self) -> dict[int, Vm]:
        return {task.vm.id: task.vm for task in self.problem.tasks}

    @property
    def hosts(self) -> dict[int, Host]:
        return {candidate.host.id: candidate.host for candidate in self.problem.candidates}


# --- random clouds ----------------------------------------------------------------------------------------------------


def random_case(
    seed: int, *, hosts: int, vms: int, load: float = 1.0, special: bool = True, soften: bool = False
) -> Case:
    """A cloud with every kind of rule in it; `load` 1: what is needed is about what is there."""
    dice = random.Random(seed)
    clusters = 1 if dice.random() < 0.5 else 2
    candidates = [_candidate(dice, number, clusters, special) for number in range(hosts)]
    memory = sum(candidate.host.free_memory_mb for candidate in candidates)
    case = Case(Problem(tasks=(), candidates=tuple(candidates)))
    ids = range(1000, 1000 + vms)
    tasks = tuple(
        Task(vm=_vm(dice, case, vm, memory * load / vms, clusters, special), priority=dice.choice([0, 0, 0, 1]))
        for vm in ids
    )
    groups, member_of = _groups(dice, ids, hosts) if special else ((), {})
    tasks = tuple(
        Task(vm=replace(task.vm, group=member_of.get(task.vm.id)), priority=task.priority, failed_on=task.failed_on)
        for task in tasks
    )
    case.problem = Problem(tasks=tasks, candidates=tuple(candidates), groups=groups, soften=soften)
    return case


def _candidate(dice: random.Random, number: int, clusters: int, special: bool) -> Candidate:
    host = Host(
        id=number,
        name=f"kvm-{number:02}",
        cluster=number % clusters,
        vm_mad="kvm" if not special or dice.random() < 0.9 else "lxc",
        free_cpu=dice.choice([400, 800, 1600]),
        free_memory_mb=dice.choice([4, 8, 16, 24]) * 1024,
        vms=(number * 10,),
        pci=tuple(
            PciDevice(address=f"0000:0{index}:00:0", vendor=NVIDIA, device=dice.choice([1, 2]), kind=0x0302)
            for index in range(dice.choice([0, 0, 1, 2]) if special else 0)
        ),
        numa=tuple(_node(node, dice.choice([4, 8]) * 1024 * 1024) for node in (0, 1)) if special else (),
        attributes=({"RACK": str(number % 3), **({"SSD": "YES"} if number % 2 else {})},),
    )
    out = special and dice.random() < 0.1
    return Candidate(host=host, state=HostState.SUSPECT if out else HostState.OK, seen_s=0.2)


def _node(number: int, memory_kb: int) -> NumaNode:
    cores = tuple(Core(free=2, idle=True) for _ in range(NODE_CORES))
    return NumaNode(id=number, cores=cores, threads_per_core=2, free_memory_kb=memory_kb, nearest=(number, 1 - number))


def _vm(dice: random.Random, case: Case, number: int, mean_mb: float, clusters: int, special: bool) -> Vm:
    memory_mb = max(256, round(mean_mb * dice.choice([0.25, 0.5, 1.0, 1.5, 2.0])))
    requirement, meaning = _requirement(dice, number) if special else ("", None)
    if meaning is not None:
        case.meanings[number] = meaning
    kind = dice.random() if special else 1.0
    pinned = NumaRequest(nodes=((dice.choice([2, 4, 8]), memory_mb * 1024),), pinned=True) if kind < 0.12 else None
    devices = (PciRequest(vendor=NVIDIA, device=dice.choice([1, 2])),) if kind > 0.9 and special else ()
    return Vm(
        id=number,
        name=f"vm-{number}",
        state=3,
        lcm_state=16,
        host=99,
        cluster=dice.randrange(clusters),
        reach=frozenset(range(clusters)) if dice.random() < 0.5 else None,
        vm_mad="kvm",
        cpu=dice.choice([10, 50, 100, 200]),
        memory_mb=memory_mb,
        pci=devices,
        numa=pinned,
        requirements=requirement,
    )


def _requirement(dice: random.Random, number: int) -> tuple[str, Condition | None]:
    rack, other, host = dice.randrange(3), 1000 + dice.randrange(6), dice.randrange(4)
    if other == number:
        other = 1
    found: list[tuple[str, Condition | None]] = [
        (f"RACK = {rack}", lambda at, _: at.id % 3 == rack),
        (f"RACK != {rack} & !(ID = {host})", lambda at, _: at.id % 3 != rack and at.id != host),
        ("SSD != YES", lambda at, _: False),  # those that have it have YES, the others have none
        ("!(SSD = YES)", lambda at, _: at.id % 2 == 0),
        (f'NAME = "kvm-?{host}"', lambda at, _: at.id % 10 == host),
        (f"CURRENT_VMS != {other}", lambda _, vms: other not in vms),
        (f"CURRENT_VMS = {host * 10}", lambda _, vms: host * 10 in vms),
    ]
    return dice.choice(found) if dice.random() < 0.3 else ("", None)


def _groups(dice: random.Random, ids: range, hosts: int) -> tuple[tuple[VmGroup, ...], dict[int, int]]:
    free = list(ids)
    dice.shuffle(free)
    groups, member_of = [], {}
    for number in range(dice.choice([0, 1, 2])):
        roles = []
        for name in ("a", "b"):
            members = tuple(free.pop() for _ in range(min(len(free), dice.choice([1, 2, 2]))))
            member_of |= dict.fromkeys(members, number)
            running = (dice.randrange(hosts) * 10,) if dice.random() < 0.2 else ()
            policy = dice.choice(["", "AFFINED", "ANTI_AFFINED"])
            among = tuple(dice.sample(range(hosts), max(1, hosts // 2)))
            bound = dice.random()
            roles.append(
                Role(
                    name=name,
                    vms=members + running,
                    policy=policy,
                    hosts=among if bound < 0.15 else (),
                    not_hosts=among if bound > 0.85 else (),
                )
            )
        rule = dice.choice(["", "", "affined", "anti_affined"])
        if rule == "affined" and any(role.policy == "ANTI_AFFINED" for role in roles):
            rule = ""  # OpenNebula refuses such a group
        groups.append(
            VmGroup(id=number, name=f"group-{number}", roles=tuple(roles), **({rule: (("a", "b"),)} if rule else {}))
        )
    return tuple(groups), member_of


# --- the judge --------------------------------------------------------------------------------------------------------


def violations(case: Case, places: Mapping[int, int], softened: frozenset[int] = frozenset()) -> list[str]:
    """What an assignment of VMs to hosts breaks."""
    return [*_of_hosts(case, places), *_of_single_vms(case, places), *_of_groups(case, places, softened)]


def _of_hosts(case: Case, places: Mapping[int, int]) -> Iterator[str]:
    for number, host in case.hosts.items():
        guests = [case.vms[vm] for vm, at in places.items() if at == number]
        if sum(vm.cpu for vm in guests) > host.free_cpu:
            yield f"host {number} has too little CPU"
        if sum(vm.memory_mb for vm in guests) > host.free_memory_mb:
            yield f"host {number} has too little memory"
        for device in (1, 2):
            if sum(request.device == device for vm in guests for request in vm.pci) > sum(
                each.device == device for each in host.pci
            ):
                yield f"host {number} has too few devices"
        if not _pinned_fit(host, [vm.numa for vm in guests if vm.numa is not None]):
            yield f"host {number} cannot hold the topologies"


def _pinned_fit(host: Host, requests: list[NumaRequest]) -> bool:
    """Whether each virtual node can have its CPUs from one node and its memory from one node, in any way."""
    if not requests:
        return True
    ways = itertools.product(itertools.product((0, 1), repeat=2), repeat=len(requests))
    return bool(host.numa) and any(_holds(host, requests, way) for way in ways)


def _holds(host: Host, requests: list[NumaRequest], way: tuple[tuple[int, int], ...]) -> bool:
    for node in host.numa:
        cpus = sum(request.nodes[0][0] for request, (at, _) in zip(requests, way, strict=True) if at == node.id)
        memory = sum(request.nodes[0][1] for request, (_, at) in zip(requests, way, strict=True) if at == node.id)
        if cpus > NODE_THREADS or memory > node.free_memory_kb:
            return False
    return True


def _of_single_vms(case: Case, places: Mapping[int, int]) -> Iterator[str]:
    states = {candidate.host.id: candidate.state for candidate in case.problem.candidates}
    for vm, at in places.items():
        wanted, host = case.vms[vm], case.hosts[at]
        if states[at] is not HostState.OK:
            yield f"host {at} is not OK"
        if host.vm_mad != wanted.vm_mad:
            yield f"VM {vm}: another driver"
        if host.cluster not in (wanted.reach or {wanted.cluster}):
            yield f"VM {vm}: cluster {host.cluster}"
        neighbours = {*host.vms, *(other for other, there in places.items() if there == at and other != vm)}
        if vm in case.meanings and not case.meanings[vm](host, neighbours):
            yield f"VM {vm}: {wanted.requirements} is not met on host {at}"


def _of_groups(case: Case, places: Mapping[int, int], softened: frozenset[int]) -> Iterator[str]:
    where = {vm: number for number, host in case.hosts.items() for vm in host.vms} | dict(places)
    for group in case.problem.groups or ():
        roles = {role.name: role for role in group.roles}
        for role in group.roles:
            for vm in set(role.vms) & set(places):
                if role.hosts and places[vm] not in role.hosts:
                    yield f"VM {vm} is not on the hosts of its role"
                if places[vm] in role.not_hosts:
                    yield f"VM {vm} is on a host its role must not use"
            if role.policy == "AFFINED":
                yield from _apart_or_together(case, role.vms, where, places)
            if role.policy == "ANTI_AFFINED":
                for pair in itertools.combinations(role.vms, 2):
                    yield from _beside(pair, where, places, softened)
        for names in group.affined:
            everybody = tuple(vm for name in names for vm in roles[name].vms)
            yield from _apart_or_together(case, everybody, where, places)
        for names in group.anti_affined:
            for one, other in itertools.combinations(names, 2):
                for pair in itertools.product(roles[one].vms, roles[other].vms):
                    yield from _beside(pair, where, places, softened)


def _beside(
    pair: tuple[int, int], where: Mapping[int, int], places: Mapping[int, int], softened: frozenset[int]
) -> Iterator[str]:
    if not {*pair} <= set(where) or not {*pair} & set(places) or {*pair} & softened:
        return
    if where[pair[0]] == where[pair[1]]:
        yield f"VMs {pair[0]} and {pair[1]} share host {where[pair[0]]}"


def _apart_or_together(
    case: Case, vms: tuple[int, ...], where: Mapping[int, int], places: Mapping[int, int]
) -> Iterator[str]:
    anchors = {where[vm] for vm in vms if vm in where and vm not in places}
    hosts = {places[vm] for vm in vms if vm in places}
    if anchors and not hosts <= anchors:
        yield f"VMs {vms} are not beside those that run"
    if not anchors and len(hosts) > 1:
        yield f"VMs {vms} are on several hosts"


# --- the best that there is -------------------------------------------------------------------------------------------


def most_placed(case: Case) -> tuple[int, int]:
    """How many VMs of priority 1 and 0 the best assignment places, the former first. Tries all of them."""
    tasks, hosts = case.problem.tasks, [*sorted(case.hosts)]
    alone = {task.vm.id: [host for host in hosts if _alone_possible(case, task.vm.id, host)] for task in tasks}
    best = (0, 0)
    for way in itertools.product(*([*alone[task.vm.id], None] for task in tasks)):
        placed = [task for task, host in zip(tasks, way, strict=True) if host is not None]
        worth = (sum(task.priority == 1 for task in placed), sum(task.priority == 0 for task in placed))
        if worth > best:
            places = {task.vm.id: host for task, host in zip(tasks, way, strict=True) if host is not None}
            if not violations(case, places):
                best = worth
    return best


def _alone_possible(case: Case, vm: int, host: int) -> bool:
    """Whether a VM may be there by those rules that no other VM can change."""
    problems = [*_of_hosts(case, {vm: host})]
    states = {candidate.host.id: candidate.state for candidate in case.problem.candidates}
    return not problems and states[host] is HostState.OK
