"""The plan for the VMs of all fenced hosts: made, kept, followed, and made again when it no longer holds.

A plan is followed as long as its places hold, so that inventories do not shuffle VMs around. Each place is looked at
once more right before its order.
"""

from __future__ import annotations

from ha_controller.core import situation
from ha_controller.core.effects import Explain
from ha_controller.core.incident import Incident, Lever, VmRecord, VmStage
from ha_controller.core.model import HostState, Vm
from ha_controller.core.outcome import next_step, wants_running
from ha_controller.core.placement import Candidate, Checker, Placement, Plan, Problem, Task, Underway, plan
from ha_controller.core.state import Planned, State
from ha_controller.core.turns import Turns
from ha_controller.core.vm_table import Step

#: stages from which a VM's next migrate is its first
BEFORE_A_MOVE = (VmStage.WAITING, VmStage.RECOVERING)

RAN = 1_000_000  #: more than any tier: VMs that ran are placed before those that did not

REPLAN_AFTER_S = 1.0  #: the same VMs are not planned more often


class Destinations:
    """Answers where VMs go, within one step of the core."""

    def __init__(self, state: State, turns: Turns, now: float) -> None:
        """As things are at this moment; the higher tiers get the room first."""
        self._state, self._turns, self._now = state, turns, now
        self._checker: Checker | None = None

    def may_keep(self, record: VmRecord, vm: Vm, destination: int) -> bool:
        """Whether a host that a VM was ordered to before may still take it."""
        return self._check().may_take(self._task(record, vm), destination)

    def choose(self, record: VmRecord, vm: Vm) -> Placement:
        """The place of a VM: as planned if that still holds, else by a new plan."""
        planned = self._state.planned
        place = None if planned is None else planned.plan.of(vm.id)
        if place is not None and self._holds(place, self._task(record, vm)):
            return place
        if planned is not None and place is not None and self._now - planned.at < REPLAN_AFTER_S:
            return Placement(vm=vm.id, name=vm.name, reason=place.reason or "its place was taken; it is planned anew")
        place = self._plan_anew(record, vm).of(vm.id)
        assert place is not None  # a plan answers for every VM of its problem
        return place

    def ordered(self, vm: Vm, destination: int) -> None:
        """Count a VM where it was just ordered to."""
        self._check().take(vm, destination)

    def _holds(self, place: Placement, task: Task) -> bool:
        if place.destination is not None:
            return self._check().fits(task, place.destination, softened=place.softened)
        planned, state = self._state.planned, self._state
        if planned is None or planned.oned_at != state.oned_at or planned.vms.get(task.vm.id) != task.vm:
            return False
        return planned.usable == self._check().usable

    def _task(self, record: VmRecord, vm: Vm) -> Task:
        return task_of(record, vm, self._turns.tier(record.id))

    def _check(self) -> Checker:
        if self._checker is None:
            self._checker = Checker(problem(self._state, self._now, self._leaving()))
        return self._checker

    def _leaving(self) -> tuple[Task, ...]:
        """VMs of the plan that have not arrived: where they are now, nobody has to join them."""
        planned = self._state.planned
        if planned is None:
            return ()
        goals = {vm: self._state.hosts.get(host) for vm, host in planned.plan.placed.items()}
        arrived = {vm for vm, host in goals.items() if host is not None and vm in host.vms}
        return tuple(Task(vm=vm) for number, vm in sorted(planned.vms.items()) if number not in arrived)

    def _plan_anew(self, record: VmRecord, vm: Vm) -> Plan:
        state = self._state
        tasks = {
            record.id: self._task(record, vm)
            for incident in state.incidents.values()
            for record, vm in _waiting(state, incident, self._now)
        }
        tasks[vm.id] = self._task(record, vm)
        made = plan(problem(state, self._now, tuple(tasks[number] for number in sorted(tasks))))
        if state.planned is None or made != state.planned.plan:
            for incident in state.incidents.values():
                _record(state, incident, made)
        state.planned = Planned(
            plan=made,
            at=self._now,
            oned_at=state.oned_at,
            usable=self._check().usable,
            vms={number: task.vm for number, task in tasks.items()},
        )
        return made


def problem(state: State, now: float, tasks: tuple[Task, ...], without: frozenset[int] = frozenset()) -> Problem:
    """What a plan depends on, at this moment. `without`: hosts that take nothing, as if they had failed."""
    return Problem(
        tasks=tasks,
        candidates=tuple(_candidates(state, now, without)),
        underway=tuple(_under_way(state)),
        groups=state.groups,
        seen_max_s=state.settings.destination_seen_s,
        soften=state.settings.soften_anti_affinity,
    )


def _candidates(state: State, now: float, without: frozenset[int]) -> list[Candidate]:
    return [
        Candidate(host=host, state=view.state, seen_s=now - _seen_at(state, host.id))
        for host in sorted(state.hosts.values(), key=lambda host: host.id)
        if (view := state.view(host.id)) and host.id not in state.incidents and view.calm_at <= now
        if host.id not in without
    ]


def _seen_at(state: State, host: int) -> float:
    return max((view.alive_at or 0.0 for view in state.view(host).views.values()), default=0.0)


def _under_way(state: State) -> list[Underway]:
    """VMs that take room at their destination, as long as OpenNebula may not count it yet."""
    found = []
    for incident in state.incidents.values():
        vms = state.view(incident.host).vms
        for record in incident.vms:
            vm = vms.get(record.id)
            if vm is None or record.destination is None:
                continue
            on_its_way = record.stage is VmStage.MOVING and vm.host != record.destination
            if on_its_way or record.ordered_at > (state.oned_at or 0.0):
                found.append(Underway(vm=vm, destination=record.destination))
    return found


def task_of(record: VmRecord, vm: Vm, tier: int) -> Task:
    """What a VM asks of a plan; those that ran come first, by their tiers."""
    priority = tier + RAN if wants_running(record) else 0
    return Task(vm=vm, priority=priority, failed_on=record.failed_on, refused_on=record.refused_on)


def _waiting(state: State, incident: Incident, now: float) -> list[tuple[VmRecord, Vm]]:
    """The VMs of a host that wait for their first order to move."""
    host = state.hosts.get(incident.host)
    if host is None or incident.state is not HostState.FENCED or incident.lever is not Lever.DONE or incident.stopped:
        return []
    vms = state.view(incident.host).vms
    return [
        (record, vm)
        for record in incident.vms
        if record.stage in BEFORE_A_MOVE and (vm := vms.get(record.id)) is not None
        if next_step(record, vm, situation.of(state, host, incident, record, vm, now)).step is Step.MOVE
    ]


def _record(state: State, incident: Incident, made: Plan) -> None:
    """Put the part of a plan that is about one host on record."""
    ours = [place for record in incident.vms if (place := made.of(record.id)) is not None]
    if not ours:
        return
    placed = [place for place in ours if place.destination is not None]
    left = [place for place in ours if place.destination is None]
    count = f"all {len(ours)}" if not left else f"{len(placed)} of {len(ours)}"
    state.out.append(
        Explain(
            host=incident.host,
            incident=incident.id,
            what=f"plan: {count} VMs have a place",
            because="by room, requirements, VM groups and what the hosts show of themselves",
            plan=tuple(_line(state, place) for place in placed),
            rejected=tuple(f"{place.name}: {place.reason}" for place in left),
        )
    )


def _line(state: State, place: Placement) -> str:
    host = state.hosts.get(-1 if place.destination is None else place.destination)
    softened = " (beside VMs it should be apart from)" if place.softened else ""
    return f"{place.name} → {host.name if host else place.destination}{softened}"
