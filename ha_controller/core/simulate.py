"""Before the disaster: where VMs would go if hosts failed now, and how many hosts may fail.

Uses the very planner that recovers, with what is known at this moment. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ha_controller.core.destinations import problem, task_of
from ha_controller.core.incident import VmRecord
from ha_controller.core.model import Host, HostState, LcmState, Vm
from ha_controller.core.order import Order, faults, order_of, ready_when, starts
from ha_controller.core.outcome import Situation, next_step, wants_running
from ha_controller.core.placement import Placement, Problem, Task, plan
from ha_controller.core.recovery import claims_running
from ha_controller.core.settings import Settings
from ha_controller.core.state import State
from ha_controller.core.vm_table import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A VM that recovery would leave alone, wherever there is room."""

    vm: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """When a VM would start."""

    vm: int
    name: str
    tier: int
    after: tuple[str, ...]  #: names of VMs that are ready first
    ready: str  #: when it counts as ready itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What would become of the VMs of hosts that fail."""

    hosts: tuple[int, ...]
    placements: tuple[Placement, ...] = ()
    left: tuple[Left, ...] = ()
    must_run: frozenset[int] = frozenset()  #: the VMs among them that run now
    order: Order = field(default_factory=Order)
    records: tuple[VmRecord, ...] = ()  #: of the VMs in that order

    @property
    def unserved(self) -> tuple[Placement, ...]:
        """The VMs that run now and would not run any more."""
        return tuple(each for each in self.nowhere if each.vm in self.must_run)

    @property
    def nowhere(self) -> tuple[Placement, ...]:
        """The VMs that would fit nowhere."""
        return tuple(each for each in self.placements if each.destination is None)

    @property
    def strangers(self) -> frozenset[str]:
        """Names in HA_AFTER that none of these VMs has: others may, or nobody."""
        return frozenset(key for names in self.order.strangers.values() for _, key in names)

    def order_faults(self, missing: Container[str]) -> tuple[str, ...]:
        """What is written on the VMs about their order and would not be followed. `missing`: names of nobody."""
        return faults(self.records, self.order, missing, {record.id: record.name for record in self.records})

    def starts(self, settings: Settings) -> list[Start]:
        """In which order the VMs would start that run now and find a place."""
        known = {record.id: record for record in self.records}
        placed = {each.vm for each in self.placements if each.destination is not None}
        return [
            Start(
                vm=vm,
                name=known[vm].name,
                tier=self.order.tiers[vm],
                after=tuple(known[other].name for other in self.order.after.get(vm, ()) if other in placed),
                ready=ready_when(known[vm].startup, settings.ready_delay_s),
            )
            for vm in starts(self.order, placed & self.must_run & known.keys())
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The cloud at one moment: all that simulations need, and nothing that changes."""

    world: Problem  #: every host that may take VMs
    hosts: Mapping[int, Host]
    vms: Mapping[int, tuple[Vm, ...]]  #: by host
    settings: Settings

    def left_alone(self, host: int) -> tuple[Left, ...]:
        """The VMs of a host that would be left alone if it failed, wherever there is room."""
        priority = self.settings.vm_priority
        found = [_task_of(vm, self.hosts[host], self.settings, priority) for vm in self.vms.get(host, ())]
        return tuple(each for each in found if isinstance(each, Left))

    def lose(self, hosts: Iterable[int]) -> Loss:
        """Let these hosts fail at once."""
        failed = frozenset(hosts)
        tasks: list[Task] = []
        left: list[Left] = []
        lost = [VmRecord.of(vm, host) for host in sorted(failed) for vm in self.vms.get(host, ())]
        running = tuple(record for record in lost if wants_running(record))
        default = self.settings.vm_priority
        order = order_of(running, self.world.groups, default)
        for host in sorted(failed):
            for vm in self.vms.get(host, ()):
                match _task_of(vm, self.hosts[host], self.settings, order.tiers.get(vm.id, default)):
                    case Task() as task:
                        tasks.append(task)
                    case Left() as alone:
                        left.append(alone)
        others = tuple(each for each in self.world.candidates if each.host.id not in failed)
        made = plan(replace(self.world, tasks=tuple(tasks), candidates=others))
        must_run = frozenset(task.vm.id for task in tasks if wants_running(VmRecord.of(task.vm)))
        return Loss(
            hosts=tuple(sorted(failed)),
            placements=made.placements,
            left=tuple(left),
            must_run=must_run,
            order=order,
            records=running,
        )


def snapshot(state: State, vms: Iterable[Vm], now: float) -> Snapshot:
    """Take one. `vms`: as OpenNebula shows them now."""
    by_host: dict[int, list[Vm]] = {}
    for vm in vms:
        if vm.host is not None:
            by_host.setdefault(vm.host, []).append(vm)
    return Snapshot(
        world=problem(state, now, ()),
        hosts=dict(state.hosts),
        vms={host: tuple(sorted(found, key=lambda vm: vm.id)) for host, found in by_host.items()},
        settings=state.settings,
    )


def _task_of(vm: Vm, host: Host, settings: Settings, tier: int) -> Task | Left:
    """What recovery would do with a VM: as if OpenNebula had noticed that its host is gone.

    One that waits for something first (a migration, an action of OpenNebula) counts as if that ended well.
    """
    record = VmRecord.of(vm, host.id)
    then = replace(vm, lcm_state=LcmState.UNKNOWN) if claims_running(vm) else vm
    step = next_step(
        record,
        then,
        Situation(
            source=host.id,
            policy=settings.policy_of(vm.policy, host.cluster_name),
            recreate=settings.recreate_allowed,
            unlock=settings.locked_moved,
            keep_off=settings.powered_off_moved,
        ),
    )
    if step.step is Step.LEAVE:
        return Left(vm=vm.id, name=vm.name, reason=step.reason)
    return task_of(record, vm, tier)


# --- how many hosts may fail ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterCapacity:
    """How many hosts of a cluster may fail."""

    cluster: int
    alone: tuple[Loss, ...]  #: each host that could fail, alone
    may_fail: int  #: so many at once, whichever of those tried
    too_many: Loss | None = None  #: one more than that, and what would fit nowhere


def capacity(taken: Snapshot, breathe: Callable[[], None] = lambda: None) -> list[ClusterCapacity]:
    """Of each cluster, from single hosts to the fullest ones together.

    All sets of hosts cannot be tried: those with the most memory in use, and those with the most CPU, stand for them.
    `breathe` is called before each is tried: a plan costs as much as there are hosts, and one is made for each of them.
    """
    able = [each.host for each in taken.world.candidates if each.state is HostState.OK and not each.host.excluded]
    return [
        _of_cluster(taken, cluster, [host for host in able if host.cluster == cluster], breathe)
        for cluster in sorted({host.cluster for host in able})
    ]


def _of_cluster(taken: Snapshot, cluster: int, hosts: Sequence[Host], breathe: Callable[[], None]) -> ClusterCapacity:
    def lose(failed: Sequence[int]) -> Loss:
        breathe()
        return taken.lose(failed)

    alone = tuple(lose([host.id]) for host in hosts)
    first_bad = next((loss for loss in alone if loss.unserved), None)
    if first_bad is not None:
        return ClusterCapacity(cluster=cluster, alone=alone, may_fail=0, too_many=first_bad)
    found: list[tuple[int, Loss | None]] = []
    for use in (_memory, _cpu):
        order = sorted(hosts, key=lambda host: (-use(taken.vms.get(host.id, ())), host.id))
        found.append(_most(lose, [host.id for host in order]))
    may_fail, too_many = min(found, key=lambda each: each[0])
    return ClusterCapacity(cluster=cluster, alone=alone, may_fail=may_fail, too_many=too_many)


def _most(lose: Callable[[Sequence[int]], Loss], order: Sequence[int]) -> tuple[int, Loss | None]:
    """How many of the first may fail, by halving; one alone is known to be fine, and all of them to be too many."""
    good, bad, worst = min(1, len(order)), len(order) + 1, None
    while bad - good > 1:
        count = (good + bad) // 2
        loss = lose(order[:count])
        if loss.unserved:
            bad, worst = count, loss
        else:
            good = count
    return good, worst


def _memory(vms: Sequence[Vm]) -> int:
    return sum(vm.memory_mb for vm in vms)


def _cpu(vms: Sequence[Vm]) -> int:
    return sum(vm.cpu for vm in vms)
