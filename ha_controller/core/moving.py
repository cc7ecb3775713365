"""FENCED: tell OpenNebula that the host is gone, then bring each VM to an outcome (design.md 7.3 to 7.7).

Level-triggered: every reading of the host and its VMs decides anew what is left to do. Nothing moves unless the proof
that the host is off was read again within `proof_age_max_s`, and any life stops everything.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ha_controller.core.detector import life_since
from ha_controller.core.effects import HostStep, MoveVm, OrderHost, ReadPower, ResumeVm, Severity
from ha_controller.core.events import HostOrderReported, OrderResult, VmOrderReported
from ha_controller.core.machine import Trigger
from ha_controller.core.model import (
    AttemptOutcome,
    Host,
    HostState,
    Incident,
    Lever,
    OnedHostState,
    PowerState,
    Vm,
    VmRecord,
    VmStage,
)
from ha_controller.core.recovery import (
    Candidate,
    Room,
    Step,
    claims_running,
    next_step,
    on_its_way,
    place,
    was_running,
)
from ha_controller.core.state import State
from ha_controller.core.suspicion import ask_for_vms

REPEAT_AFTER_S = 5.0  #: an order without effect is looked at again after this long, then repeated
SETTLE_S = 2.0  #: after an order with an unknown outcome: it may still arrive


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Take the next steps with a host that is FENCED."""
    ask_for_vms(state, host.id, now, tuple(record.id for record in incident.vms if not record.settled))
    if _life_stops(state, incident, now):
        return
    if incident.stopped:
        return
    if reason := _waits(state, incident):
        state.hold(incident, *reason)
        return
    incident = _take_in(state, host, incident, now)
    if all(record.settled for record in incident.vms) and incident.lever is Lever.DONE:
        _recovered(state, incident, now)
        return
    if not _proof_is_fresh(state, incident, now):
        return
    incident = _pull_lever(state, host, incident, now)
    if incident.lever is Lever.DONE and not incident.stopped:
        _move(state, host, incident, now)


def _life_stops(state: State, incident: Incident, now: float) -> bool:
    """Any life after the proof voids it; with a person's word as the proof this is the only check there is."""
    if incident.proof is None:
        return True
    channel = life_since(state.view(incident.host).views, incident.proof.at)
    if not channel:
        return False
    devices = incident.proof.devices
    incident = _void(state, incident, now)
    barred = tuple(sorted({*incident.barred, *devices}))
    state.stop(
        replace(incident, barred=barred),
        f"{channel} answers although the host was proven off. No further VM is moved",
        f"Look at the host and its VMs at once; then: ha-controller unfence {incident.host_name}",
    )
    return True


def _void(state: State, incident: Incident, now: float) -> Incident:
    """The proof no longer holds: back to FAILED. The readings that gave it count as lies."""
    attempts = tuple(
        replace(attempt, outcome=AttemptOutcome.VOIDED) if attempt.outcome is AttemptOutcome.OFF_READ else attempt
        for attempt in incident.attempts
    )
    return replace(state.enter(incident, Trigger.PROOF_VOIDED, now), proof=None, attempts=attempts)


def _waits(state: State, incident: Incident) -> tuple[str, str] | None:
    if state.cloud.paused_by:
        return f"paused: {state.cloud.paused_by}", "Nothing is moved until: ha-controller resume"
    if incident.held_by:
        return f"held: {incident.held_by}", f"Nothing is moved until: ha-controller release {incident.host_name}"
    if state.term is None:
        return "leader: this controller does not hold the lead", "The leader goes on with it."
    return None


# --- the proof --------------------------------------------------------------------------------------------------------


def _proof_is_fresh(state: State, incident: Incident, now: float) -> bool:
    """Whether the devices that gave the proof have said OFF within the last seconds; asks them if not."""
    proof, view = incident.proof, state.view(incident.host)
    if proof is None:
        return False
    if not proof.devices:
        return True
    readings = [view.power.get(name) for name in proof.devices]
    newest = [reading for reading in readings if reading is not None and reading[0] >= proof.at]
    if any(power is PowerState.ON for _, power in newest):
        state.stop(
            incident,
            f"{', '.join(proof.devices)} reads ON: somebody powered the host on. No further VM is moved",
            f"Power it off, then: ha-controller release {incident.host_name}",
        )
        return False
    oldest_s = max((now - at for at, _ in newest), default=1e9)
    off = len(newest) == len(proof.devices) and all(power is PowerState.OFF for _, power in newest)
    if (not off or oldest_s > state.settings.proof_age_max_s / 2) and now - view.power_asked_at >= 1.0:
        view.power_asked_at = now
        state.out.append(ReadPower(host=incident.host, devices=proof.devices))
    if newest and not off:
        state.hold(
            incident,
            f"{', '.join(proof.devices)} cannot be read: the proof is not fresh",
            f"If you have seen that it is off: ha-controller confirm-off {incident.host_name}",
        )
    return off and oldest_s <= state.settings.proof_age_max_s


# --- the lever --------------------------------------------------------------------------------------------------------


def _pull_lever(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Have oned notice that the host is gone: OFFLINE, ENABLE, wait for ERROR, then DISABLE with our mark."""
    view = state.view(host.id)
    if view.read_at is None or view.one_state is None or view.read_at < incident.lever_since:
        return incident
    match incident.lever:
        case Lever.NOT_BEGUN:
            if not _false_running(state, host, incident):
                return _order(state, incident, Lever.DISABLE, HostStep.DISABLE, now)
            if _levers_under_way(state) >= state.settings.levers_max:
                return state.hold(incident, "waits for its turn with OpenNebula", "Nothing for you to do.")
            return _order(state, incident, Lever.OFFLINE, HostStep.OFFLINE, now)
        case Lever.OFFLINE if view.one_state == OnedHostState.OFFLINE:
            return _order(state, incident, Lever.ENABLE, HostStep.ENABLE, now)
        case Lever.OFFLINE:
            return _again(state, incident, HostStep.OFFLINE, now)
        case Lever.ENABLE if view.one_state == OnedHostState.OFFLINE:
            return _again(state, incident, HostStep.ENABLE, now)
        case Lever.ENABLE:
            return state.save(replace(incident, lever=Lever.WAIT, lever_since=now))
        case Lever.WAIT:
            return _wait_for_error(state, host, incident, view.one_state, now)
        case Lever.DISABLE if view.one_state == OnedHostState.DISABLED:
            return state.save(replace(incident, lever=Lever.DONE, lever_since=now, hold=""))
        case Lever.DISABLE:
            return _again(state, incident, HostStep.DISABLE, now)
        case _:
            return incident


def _wait_for_error(state: State, host: Host, incident: Incident, one_state: int, now: float) -> Incident:
    if one_state == OnedHostState.MONITORED:
        return state.stop(
            replace(_void(state, incident, now), lever=Lever.NOT_BEGUN),
            "OpenNebula reached it over SSH although it was proven off: it is alive. No VM is moved",
            f"Look at the host at once; if it is healthy: ha-controller unfence {incident.host_name}",
        )
    if one_state == OnedHostState.ERROR and not _false_running(state, host, incident):
        return _order(state, incident, Lever.DISABLE, HostStep.DISABLE, now)
    if now - incident.lever_since <= state.settings.ssh_timeout_s * 1.5 + REPEAT_AFTER_S:
        return incident
    if incident.lever_repeats == 0:
        again = replace(incident, lever_repeats=1)
        return _order(state, again, Lever.OFFLINE, HostStep.OFFLINE, now)
    return state.stop(
        incident,
        "OpenNebula does not notice that the host is gone: its VMs stay RUNNING there",
        "Set ConnectTimeout in oneadmin's ssh configuration and opennebula.ssh_timeout to match, then: "
        f"ha-controller release {incident.host_name}",
    )


def _false_running(state: State, host: Host, incident: Incident) -> bool:
    """Whether a VM that was running is still shown RUNNING on the dead host."""
    vms = state.view(host.id).vms
    return any(
        (vm := vms.get(record.id)) is not None and vm.host == host.id and claims_running(vm)
        for record in incident.vms
        if was_running(record) and not record.settled
    )


def _levers_under_way(state: State) -> int:
    return sum(incident.lever in (Lever.OFFLINE, Lever.ENABLE, Lever.WAIT) for incident in state.incidents.values())


def _order(state: State, incident: Incident, lever: Lever, step: HostStep, now: float) -> Incident:
    incident = state.save(replace(incident, lever=lever, lever_since=now, hold=""))
    _send(state, incident, step, now)
    return incident


def _again(state: State, incident: Incident, step: HostStep, now: float) -> Incident:
    """The order has shown no effect: repeat it, after a look and a pause. All host orders may be repeated."""
    if now - incident.lever_since < REPEAT_AFTER_S:
        return incident
    incident = state.save(replace(incident, lever_since=now))
    _send(state, incident, step, now)
    return incident


def _send(state: State, incident: Incident, step: HostStep, now: float) -> None:
    before = (OnedHostState.DISABLED, OnedHostState.OFFLINE)
    enabled_before = incident.prior_marked or incident.prior_one_state not in before
    state.out.append(
        OrderHost(
            host=incident.host,
            incident=incident.id,
            step=step,
            enabled_before=enabled_before,
            not_after=now + REPEAT_AFTER_S,
        )
    )


def host_order_reported(state: State, incident: Incident, event: HostOrderReported) -> None:
    """A refusal is told; everything else shows in the next reading."""
    if event.result is OrderResult.REFUSED:
        state.hold(incident, f"OpenNebula refuses {event.step.value}: {event.detail}", "See: ha-controller doctor")


def restore(state: State, incident: Incident, now: float) -> None:
    """Give a readmitted host back to OpenNebula in the state it had before."""
    if incident.lever in (Lever.NOT_BEGUN, Lever.RESTORED):
        state.save(replace(incident, lever=Lever.RESTORED))
        return
    if incident.lever is not Lever.RESTORE or now - incident.lever_since >= REPEAT_AFTER_S:
        _order(state, incident, Lever.RESTORE, HostStep.RESTORE, now)


# --- the VMs ----------------------------------------------------------------------------------------------------------


def _take_in(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Compare what each VM was with what it is now; note outcomes and newcomers."""
    view = state.view(host.id)
    if view.read_at is None or (incident.fenced_at is not None and view.read_at < incident.fenced_at):
        return incident
    known = {record.id for record in incident.vms}
    newcomers = tuple(
        VmRecord(id=vm.id, name=vm.name, was_state=vm.state, was_lcm_state=vm.lcm_state, was_label=vm.label)
        for vm in sorted(view.vms.values(), key=lambda vm: vm.id)
        if vm.host == host.id and vm.id not in known
    )
    records = tuple(
        _look(state, host, incident, record, view.vms.get(record.id), now) for record in (*incident.vms, *newcomers)
    )
    return state.save(replace(incident, vms=records))


def _look(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> VmRecord:
    read_at = state.view(host.id).read_at or 0.0
    if record.settled or read_at <= record.ordered_at:
        return record
    step = next_step(record, vm, host.id)
    match step.step:
        case Step.RUNNING:
            place_name = state.hosts[record.destination].name if record.destination in state.hosts else "elsewhere"
            state.tell(
                Severity.INFO,
                f"{record.name} runs on {place_name}",
                "Nothing to do.",
                host=host.id,
                incident=incident.id,
            )
            return replace(record, stage=VmStage.RUNNING, reason=f"runs on {place_name}", settled_at=now)
        case Step.LEAVE:
            return _leave(state, incident, record, step.reason, now)
        case _ if record.ordered_at and now - record.ordered_at > state.settings.vm_timeout_s:
            return _leave(state, incident, record, f"not RUNNING in time. {step.reason}", now)
        case _:
            return replace(record, reason=step.reason)


def _leave(state: State, incident: Incident, record: VmRecord, reason: str, now: float) -> VmRecord:
    severity = Severity.WARNING if was_running(record) else Severity.INFO
    state.tell(
        severity, f"{record.name} is left alone: {reason}", "Look at it.", host=incident.host, incident=incident.id
    )
    return replace(record, stage=VmStage.LEFT, reason=reason, settled_at=now)


def _move(state: State, host: Host, incident: Incident, now: float) -> None:
    """Order what is left to do, at most `moves_parallel` at a time; the first of many is a canary."""
    view = state.view(host.id)
    if view.read_at is None or view.read_at < incident.lever_since:
        return
    free = state.settings.moves_parallel - sum(
        record.stage in (VmStage.MOVING, VmStage.RESUMING) for record in incident.vms
    )
    seen_running = any(record.stage is VmStage.RUNNING for record in incident.vms)
    if len(incident.vms) > state.settings.canary_above and not seen_running:
        free -= state.settings.moves_parallel - 1
    nowhere = []
    for record in sorted(incident.vms, key=lambda record: record.id):
        vm = view.vms.get(record.id)
        if record.settled or vm is None or (view.read_at or 0.0) <= record.ordered_at:
            continue
        step = next_step(record, vm, host.id).step
        if step is Step.RESUME:
            incident = _resume(state, incident, record, now)
        elif step is Step.MOVE and _may_order(record, free, now):
            incident, ordered = _migrate(state, incident, record, vm, now)
            free -= ordered and record.stage is VmStage.WAITING
            nowhere += [] if ordered else [record.name]
    if nowhere:
        state.hold(
            incident,
            f"no room: {len(nowhere)} VMs fit on no host ({', '.join(nowhere[:5])})",
            "They are placed as soon as there is room: free or add a host",
        )
    elif incident.hold:
        state.save(replace(incident, hold=""))


def _may_order(record: VmRecord, free: int, now: float) -> bool:
    if record.stage is VmStage.WAITING:
        return free > 0
    pause_s = REPEAT_AFTER_S if record.answered else SETTLE_S
    return now - record.ordered_at >= pause_s


def _migrate(state: State, incident: Incident, record: VmRecord, vm: Vm, now: float) -> tuple[Incident, bool]:
    """Order one migrate. The destination is written down first and stays, as long as the order may have arrived."""
    destination = record.destination if record.stage is VmStage.MOVING else None
    if destination is None:
        destination = place(vm, _candidates(state, now), _taken(state), seen_max_s=state.settings.destination_seen_s)
    if destination is None:
        return incident, False
    ordered = replace(
        record,
        stage=VmStage.MOVING,
        destination=destination,
        ordered_at=now,
        answered=False,
        tries=record.tries + 1,
    )
    incident = state.save(_with(incident, ordered))
    state.out.append(
        MoveVm(
            vm=record.id,
            incident=incident.id,
            source=incident.host,
            destination=destination,
            not_after=now + state.settings.proof_age_max_s,
        )
    )
    return incident, True


def _resume(state: State, incident: Incident, record: VmRecord, now: float) -> Incident:
    """Start a VM that was running, became POWEROFF by itself, and has arrived at its destination."""
    if record.destination is None or (record.stage is VmStage.RESUMING and now - record.ordered_at < REPEAT_AFTER_S):
        return incident
    ordered = replace(record, stage=VmStage.RESUMING, ordered_at=now, answered=False)
    state.out.append(
        ResumeVm(
            vm=record.id,
            incident=incident.id,
            host=record.destination,
            not_after=now + state.settings.proof_age_max_s,
        )
    )
    return state.save(_with(incident, ordered))


def vm_order_reported(state: State, incident: Incident, event: VmOrderReported, now: float) -> None:
    """Take in what oned said; whether it did it shows in the next readings."""
    record = incident.vm(event.vm)
    if record is None or record.settled or record.answered:
        return
    if event.result is OrderResult.UNKNOWN:
        return  # stays unanswered: looked at, and repeated to the same destination only
    after = replace(record, answered=True)
    if event.result is OrderResult.REFUSED and record.stage is VmStage.MOVING:
        if record.tries >= state.settings.move_tries_max:
            after = _leave(state, incident, after, f"OpenNebula refuses to move it: {event.detail}", now)
        else:
            after = replace(after, stage=VmStage.WAITING, reason=event.detail)
    elif event.result is OrderResult.SKIPPED and record.stage is VmStage.MOVING and record.tries == 1:
        after = replace(after, stage=VmStage.WAITING, tries=0, reason=event.detail)
    state.save(_with(incident, after))


def _with(incident: Incident, record: VmRecord) -> Incident:
    return replace(incident, vms=tuple(record if known.id == record.id else known for known in incident.vms))


def _candidates(state: State, now: float) -> list[Candidate]:
    return [
        Candidate(host=host, state=view.state, seen_s=now - _seen_at(state, host.id))
        for host in sorted(state.hosts.values(), key=lambda host: host.id)
        if (view := state.view(host.id)) and host.id not in state.incidents
    ]


def _seen_at(state: State, host: int) -> float:
    return max((view.alive_at or 0.0 for view in state.view(host).views.values()), default=0.0)


def _taken(state: State) -> dict[int, Room]:
    """Room that VMs on their way will take, as long as OpenNebula may not count it yet."""
    rooms: defaultdict[int, Room] = defaultdict(Room)
    for incident in state.incidents.values():
        vms = state.view(incident.host).vms
        for record in incident.vms:
            vm = vms.get(record.id)
            if vm is None or record.destination is None:
                continue
            if on_its_way(record, incident.host, vm) or record.ordered_at > (state.oned_at or 0.0):
                room = rooms[record.destination]
                rooms[record.destination] = Room(cpu=room.cpu + vm.cpu, memory_mb=room.memory_mb + vm.memory_mb)
    return rooms


def _recovered(state: State, incident: Incident, now: float) -> None:
    incident = state.enter(incident, Trigger.VMS_SETTLED, now)
    state.view(incident.host).told = ""
    state.save(replace(incident, recovered_at=now, hold=""))
    running = sum(record.stage is VmStage.RUNNING for record in incident.vms)
    left = len(incident.vms) - running
    left_alone = f"; {left} left alone: ha-controller incidents show {incident.id}" if left else ""
    state.tell(
        Severity.INFO,
        f"{incident.host_name} is RECOVERED {now - incident.opened_at:.1f} s after the incident was opened: "
        f"{running} VMs run elsewhere{left_alone}",
        f"Repair the host. When it answers again: ha-controller unfence {incident.host_name}",
        host=incident.host,
        incident=incident.id,
    )


def resume(state: State, incident: Incident, now: float) -> None:
    """After a restart: every order that had no report has an unknown outcome; it is looked at before anything else."""
    if incident.state is not HostState.FENCED:
        return
    records = tuple(
        replace(record, ordered_at=now) if record.stage in (VmStage.MOVING, VmStage.RESUMING) else record
        for record in incident.vms
    )
    since = now if incident.lever in (Lever.OFFLINE, Lever.ENABLE, Lever.WAIT, Lever.DISABLE) else incident.lever_since
    proof = replace(incident.proof, at=now) if incident.proof else None
    state.save(replace(incident, vms=records, lever_since=since, proof=proof, fenced_at=now))
