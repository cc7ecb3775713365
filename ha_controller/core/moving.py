"""FENCED: bring each VM of the host to an outcome.

Level-triggered: every reading of the host and its VMs decides anew what is left to do. Nothing moves unless the proof
that the host is off was read again within `proof_age_max_s`, and any life stops everything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ha_controller.core import lever, order_faults, situation, tries, vm_orders
from ha_controller.core.destinations import BEFORE_A_MOVE, Destinations
from ha_controller.core.effects import ORDER_VALID_S, MoveVm, ResumeVm, Severity
from ha_controller.core.events import VmOrderReported
from ha_controller.core.incident import Incident, Lever, VmRecord, VmStage
from ha_controller.core.machine import Trigger
from ha_controller.core.model import Host, HostState, Vm, VmState
from ha_controller.core.outcome import Next, next_step, wants_running
from ha_controller.core.state import Hold, State
from ha_controller.core.suspicion import ask_for_vms
from ha_controller.core.turns import ORDER_OF_STARTS, Turns
from ha_controller.core.vm_orders import note_destination, note_lock, note_order, where_it_went
from ha_controller.core.vm_table import Recover, Step

STALE_AFTER_S = 15.0  #: OpenNebula told nothing new of the VMs for so long: it is not there
GAP_MAX_S = 5.0  #: nobody looked for so long: this process stood still


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Take the next steps with a host that is FENCED."""
    ask_for_vms(state, host.id, now, tuple(record.id for record in incident.vms if not record.settled))
    if lever.life_stops(state, incident, now):
        return
    view = state.view(host.id)
    if view.read_at is None or now - view.read_at > STALE_AFTER_S or now - view.advanced_at > GAP_MAX_S:
        view.waits_from = now  # no time runs while nothing can be done: here nobody looked, or OpenNebula is silent
    view.advanced_at = now
    if incident.stopped:
        view.waits_from = now
        return
    if state.second_master is None and now < state.settle_until:
        view.waits_from = now
        return  # just started: the first look is on its way
    if hold := what_holds(state, incident):
        view.waits_from = now
        state.hold(incident, hold, now)
        return
    incident = _take_in(state, host, incident, now)
    if all(record.settled for record in incident.vms) and incident.lever is Lever.DONE:
        _recovered(state, incident, now)
        return
    if not lever.proof_is_fresh(state, host, incident, now):
        if state.incidents[host.id].hold:
            view.waits_from = now
        return
    incident = lever.pull(state, host, incident, now)
    if incident.lever is Lever.DONE and not incident.stopped:
        _move(state, host, incident, now)


def what_holds(state: State, incident: Incident) -> Hold | None:
    """What stops the lever and the moves of a host that is off: people, and what makes us doubt ourselves."""
    if state.term is None:
        return Hold("leader", state.why_not_leading, "Nothing is done without the lead.")
    if hold := state.brake(incident):
        return hold
    if state.second_master is not False and not state.settings.second_master_waived:
        return Hold(
            "second master", state.second_master_detail, "Nothing is moved until we know that nobody else acts."
        )
    return None


# --- the VMs ----------------------------------------------------------------------------------------------------------


def _take_in(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Compare what each VM was with what it is now; note outcomes and newcomers."""
    view = state.view(host.id)
    if view.read_at is None or (incident.fenced_at is not None and view.read_at < incident.fenced_at):
        return incident
    situation.note_states(view, now)
    known = {record.id for record in incident.vms}
    newcomers = situation.records_of(
        state, host, [vm for vm in view.vms.values() if situation.was_on(vm, host) and vm.id not in known]
    )
    records = tuple(
        _look(state, host, incident, record, view.vms.get(record.id), now) for record in (*incident.vms, *newcomers)
    )
    return incident if records == incident.vms else state.save(replace(incident, vms=records))


def _look(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> VmRecord:
    read_at = state.view(host.id).read_at or 0.0
    if record.settled or read_at <= record.ordered_at:
        return record
    record = where_it_went(record if vm is None else situation.note_strays(state, record, vm), vm)
    step = _next(state, host, incident, record, vm, now)
    if step.ask is not None:
        situation.ask(state, step.ask, now)
    match step.step:
        case Step.MOVE | Step.RESUME if poison := situation.why_poison(state, record, now):
            return leave_alone(state, incident, record, poison, now)
        case Step.MOVE | Step.RESUME | Step.RECOVER if why := tries.why_given_up(state.settings, record):
            return leave_alone(state, incident, record, why, now)
        case Step.RUNNING | Step.KEPT if vm is not None:
            return _arrived(state, incident, record, vm, step.reason, now)
        case Step.LOCK:
            return record
        case Step.LEAVE:
            return leave_alone(state, incident, record, step.reason, now)
        case _ if step.patient:
            return _paused(state, record, step.reason, now)
        case Step.MOVE if record.stage is VmStage.WAITING:
            return record if record.reason else replace(record, reason=step.reason)
        case _ if (
            record.first_ordered_at
            and now - max(record.first_ordered_at, state.view(host.id).waits_from) > state.settings.vm_timeout_s
        ):
            last = step.reason or record.reason or "OpenNebula accepts the order and does nothing"
            reason = f"not RUNNING after {state.settings.vm_timeout_s:g} s: {last}"
            return leave_alone(state, incident, record, reason, now)
        case Step.RECOVER if step.call is Recover.RECREATE and record.stage is VmStage.WAITING:
            return record  # it waits for its turn at most
        case Step.WAIT | Step.RECOVER if not record.first_ordered_at and _waited_too_long(state, incident, now, step):
            reason = f"it cannot be moved from here: {situation.in_words(state, step)}"
            return leave_alone(state, incident, record, reason, now)
        case Step.RECOVER if record.recovers >= state.settings.recovers_max:
            reason = f"{record.recovers} orders to end its state led nowhere: {step.reason}"
            return leave_alone(state, incident, record, reason, now)
        case Step.MOVE if step.elsewhere and _tried_enough(state, record, vm):
            return leave_alone(state, incident, record, f"{step.reason}, nor on {len(record.failed_on)} others", now)
        case _:
            reason = step.reason or record.reason
            return record if reason == record.reason else replace(record, reason=reason)


def _next(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> Next:
    return next_step(record, vm, situation.of(state, host, incident, record, vm, now))


def _tried_enough(state: State, record: VmRecord, vm: Vm | None) -> bool:
    is_new = vm is not None and vm.host not in record.failed_on
    return is_new and len(record.failed_on) >= state.settings.hosts_tried_max - 1


def _arrived(state: State, incident: Incident, record: VmRecord, vm: Vm, more: str, now: float) -> VmRecord:
    """An outcome: seen RUNNING elsewhere, or moved as it was."""
    known = state.hosts.get(-1 if vm.host is None else vm.host)
    place_name = "elsewhere" if known is None else known.name
    runs = vm.state == VmState.ACTIVE
    reason = f"runs on {place_name}" if runs else f"is on {place_name}, {vm.label} as it was"
    unlocked = record.relock and not vm.lock_level
    state.tell_of(
        incident,
        Severity.WARNING if unlocked else Severity.INFO,
        f"{record.name} {reason}{f'; {more}' if unlocked else ''}",
        "Lock it again: onevm lock." if unlocked else "Nothing to do.",
    )
    stage, runs_on = (VmStage.RUNNING, vm.host) if runs else (VmStage.KEPT, None)
    return replace(record, stage=stage, runs_on=runs_on, reason=reason, settled_at=now)


def _paused(state: State, record: VmRecord, reason: str, now: float) -> VmRecord:
    """Its time does not run. Written anew now and then only: every change of a record goes to disk."""
    is_due = record.first_ordered_at and now - record.first_ordered_at > state.settings.vm_timeout_s / 2
    if not is_due and reason == record.reason:
        return record
    return replace(record, reason=reason, first_ordered_at=now if is_due else record.first_ordered_at)


def _waited_too_long(state: State, incident: Incident, now: float, step: Next | None = None) -> bool:
    """Whether a VM cannot be moved for too long, or its `step` waits for another host for too long."""
    since = max(incident.lever_since, state.view(incident.host).waits_from)
    since = max(since, situation.waits_since(state, step, None, now))
    return incident.lever is Lever.DONE and now - since > state.settings.vm_wait_max_s


def leave_alone(state: State, incident: Incident, record: VmRecord, reason: str, now: float) -> VmRecord:
    """An outcome: nothing more is done with the VM, and people are told why."""
    severity = Severity.WARNING if wants_running(record) else Severity.INFO
    reason += "; it was locked, and is not any more" if record.relock else ""
    state.tell_of(incident, severity, f"{record.name} is left alone: {reason}", "Look at it.")
    return replace(record, stage=VmStage.LEFT, reason=reason, settled_at=now)


def _move(state: State, host: Host, incident: Incident, now: float) -> None:
    """Order what is left to do, tier by tier, as the throttles allow; the first of many is a canary."""
    view = state.view(host.id)
    if view.read_at is None or view.read_at < incident.lever_since:
        return
    turns = Turns(state, now)
    incident = turns.pass_over(order_faults.tell(state, incident, turns, now))
    under_way = sum(tries.is_under_way(record) for record in incident.vms)
    seen_running = any(record.stage is VmStage.RUNNING for record in incident.vms)
    to_start = sum(wants_running(record) and record.stage is not VmStage.LEFT for record in incident.vms)
    canary = to_start > state.settings.canary_above and not seen_running
    nowhere, not_ours = list[VmRecord](), list[str]()
    destinations = Destinations(state, turns, now)
    for record in sorted(incident.vms, key=lambda each: (not wants_running(each), -turns.tier(each.id), each.id)):
        vm = view.vms.get(record.id)
        if record.settled or vm is None or (view.read_at or 0.0) <= record.ordered_at:
            continue
        step = _next(state, host, incident, record, vm, now)
        if step.patient:
            not_ours.append(f"{record.name}: {step.reason}")
        if _begins(record, step) and (blockers := turns.waits_for(incident, record, most=2)):
            if (words := turns.in_words(blockers)) != record.reason:
                incident = state.save(with_record(incident, replace(record, reason=words)))
            continue
        free = 1 - under_way if canary else turns.free(incident, record)
        if step.step is Step.RESUME and tries.may_order(state, record, free, now, VmStage.RESUMING):
            incident = _resume(state, host, incident, record, vm, now)
            if not tries.is_under_way(record):
                under_way += 1
                turns.ordered(record)
        elif step.step is Step.RECOVER and step.call is not None and tries.may_order(state, record, 1, now):
            incident = _recover(state, host, incident, record, vm, step, now)
        elif step.step is Step.LOCK and tries.may_order(state, record, free, now, VmStage.LOCKING):
            incident = _lock(state, incident, record, vm, now)
        elif step.step is Step.MOVE and tries.may_order(state, record, free, now):
            place = _place(state, record, vm, destinations, turns)
            if place.destination is not None:
                incident, after = _migrate(state, host, incident, record, vm, place.destination, now)
                if record.stage in BEFORE_A_MOVE:
                    under_way += 1
                    turns.ordered(after)
                continue
            waiting = replace(record, reason=place.reason)
            if not place.fits and not wants_running(record) and _waited_too_long(state, incident, now):
                waiting = leave_alone(state, incident, record, f"it is {vm.label}, and it {place.reason}", now)
            elif not place.fits:
                nowhere.append(waiting)
            if waiting != record:
                incident = state.save(with_record(incident, waiting))
    _hold(state, incident, turns, nowhere, not_ours, now)


def _hold(
    state: State, incident: Incident, turns: Turns, nowhere: list[VmRecord], not_ours: list[str], now: float
) -> None:
    """Say why not all of them go on: no room, a tier that is not ready, or the host where they are has failed, too."""
    if stopped := turns.why_stopped(incident):
        approve = f"To let the others start: ha-controller pending approve {incident.id}"
        next_step = f"{approve}. Or start them, or give them HA_POLICY=leave"
        state.hold(incident, Hold(ORDER_OF_STARTS, stopped, next_step, needs_person=True), now)
    elif nowhere:
        some = "; ".join(f"{record.name} {record.reason}" for record in nowhere[:3])
        reason = f"{len(nowhere)} of {len(incident.vms)} VMs wait for a place: {some}"
        hold = Hold("no room", reason, "They are placed as soon as there is room: free or add a host")
        state.hold(incident, hold, now)
    elif trouble := tries.trouble(state.settings, incident):
        state.hold(incident, trouble, now)
    elif not_ours:
        state.hold(incident, Hold("waits for another host", "; ".join(not_ours[:3]), "See to that one"), now)
    elif incident.hold:
        state.save(replace(incident, hold="", hold_needs_person=False))


def _begins(record: VmRecord, step: Next) -> bool:
    """Whether this would be the first step of a VM to where it runs."""
    return record.stage in BEFORE_A_MOVE and (step.step is Step.MOVE or step.call is Recover.RECREATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a VM goes now, or why it does not."""

    destination: int | None = None
    reason: str = ""
    fits: bool = True  #: there is a place, and it is not its turn there


def _place(state: State, record: VmRecord, vm: Vm, destinations: Destinations, turns: Turns) -> _Place:
    """The place of a VM. That of an order that may still arrive stays, as long as it may be kept."""
    kept = record.destination if record.stage is VmStage.MOVING else None
    if kept is not None and destinations.may_keep(record, vm, kept):
        return _Place(destination=kept)
    place = destinations.choose(record, vm)  # the earlier order had its time and did nothing: it was just read here
    if place.destination is None:
        return _Place(reason=place.reason, fits=False)
    if full := turns.why_full(record, place.destination):
        return _Place(reason=full)
    destinations.ordered(vm, place.destination)
    return _Place(destination=place.destination)


def _migrate(
    state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm, destination: int, now: float
) -> tuple[Incident, VmRecord]:
    """Order one migrate. The destination is on record first."""
    source = incident.host if vm.host is None else vm.host
    if source != incident.host and source not in record.failed_on:  # it did not start there: a new host, a new time
        record = replace(record, failed_on=(*record.failed_on, source), stage=VmStage.WAITING)
        record = replace(record, first_ordered_at=0.0, tries=0)
    record = note_destination(note_lock(record, vm), destination)
    ordered = note_order(record, VmStage.MOVING, now, destination)
    incident = state.save(with_record(incident, ordered))
    state.out.append(
        MoveVm(
            vm=record.id,
            incident=incident.id,
            attempt=ordered.order,
            source=source,
            destination=destination,
            not_after=lever.proven_until(state, host, incident, now),
            unlock=ordered.relock > 0,
        )
    )
    return incident, ordered


def _recover(
    state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm, step: Next, now: float
) -> Incident:
    """End a state that OpenNebula does not leave by itself."""
    assert step.call is not None
    not_after = lever.proven_until(state, host, incident, now)
    ordered, order = vm_orders.recover(
        incident, record, vm, step.call, second_start=step.second_start, not_after=not_after, now=now
    )
    state.out.append(order)
    return state.save(with_record(incident, ordered))


def _lock(state: State, incident: Incident, record: VmRecord, vm: Vm, now: float) -> Incident:
    ordered, order = vm_orders.lock(incident, record, vm, not_after=now + ORDER_VALID_S, now=now)
    state.out.append(order)
    return state.save(with_record(incident, ordered))


def _resume(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm, now: float) -> Incident:
    """Start a VM that was running, is not any more, and has arrived at its destination."""
    if record.destination is None:
        return incident
    ordered = note_order(note_lock(record, vm), VmStage.RESUMING, now, record.destination)
    incident = state.save(with_record(incident, ordered))
    state.out.append(
        ResumeVm(
            vm=record.id,
            incident=incident.id,
            attempt=ordered.order,
            host=record.destination,
            from_state=vm.state,
            unlock=ordered.relock > 0,
            not_after=lever.proven_until(state, host, incident, now),
        )
    )
    return incident


def vm_order_reported(state: State, incident: Incident, event: VmOrderReported, now: float) -> None:
    """Take in what became of an order; whether the VM moved shows in the next readings. Late reports are dropped."""
    record = incident.vm(event.vm)
    if record is None or record.settled or record.answered or event.attempt != record.order:
        return
    vm = state.view(incident.host).vms.get(event.vm)
    away = vm is not None and vm.host != incident.host
    after = tries.reported(state.settings, record, event, now, away=away)
    state.save(with_record(incident, after))


def with_record(incident: Incident, record: VmRecord) -> Incident:
    """An incident with this record of a VM in the place of the one it had."""
    return replace(incident, vms=tuple(record if known.id == record.id else known for known in incident.vms))


def _recovered(state: State, incident: Incident, now: float) -> None:
    incident = state.enter(incident, Trigger.VMS_SETTLED, now)
    state.explain(incident.host, "RECOVERED", "every VM has an outcome", now, next_step="Repair it, then unfence it.")
    state.view(incident.host).told = ""
    state.save(replace(incident, recovered_at=now, hold="", hold_needs_person=False))
    running = sum(record.stage is VmStage.RUNNING for record in incident.vms)
    kept = sum(record.stage is VmStage.KEPT for record in incident.vms)
    left = len(incident.vms) - running - kept
    left_alone = f", {kept} moved as they were" if kept else ""
    left_alone += f"; {left} left alone: ha-controller incidents show {incident.id}" if left else ""
    state.tell_of(
        incident,
        Severity.INFO,
        f"{incident.host_name} is RECOVERED {now - incident.opened_at:.1f} s after the incident was opened: "
        f"{running} VMs run elsewhere{left_alone}",
        f"Repair the host. When it answers again: ha-controller unfence {incident.host_name}",
        ends=not left,
    )


def resume(state: State, incident: Incident, now: float) -> None:
    """After a restart every order that had no report may have been carried out, and all evidence is taken anew."""
    if incident.state is not HostState.FENCED:
        return
    records = tuple(
        replace(record, ordered_at=now, answered=True, maybe_done=True)
        if record.stage in (VmStage.MOVING, VmStage.RESUMING, VmStage.RECOVERING, VmStage.LOCKING)
        else record
        for record in incident.vms
    )
    since = now if incident.lever in (Lever.OFFLINE, Lever.ENABLE, Lever.WAIT, Lever.DISABLE) else incident.lever_since
    proof = lever.proof_taken_up(state, incident, now)
    state.save(replace(incident, vms=records, lever_since=since, proof=proof, fenced_at=now))
