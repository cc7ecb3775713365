"""A host that rebooted by itself: its VMs are gone, nothing needs to be powered off, and nobody else starts them.

OpenNebula finds them missing when it next hears of the host, and leaves them POWEROFF (seen on oned 7.4). What was lost
with the boot is started again on the same host; what a person or the guest had ended before is not touched.

Which boot is accounted for is durable, and is noted together with the incident: a crash in between loses no VM.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lever, moving, suspicion
from ha_controller.core.effects import ORDER_VALID_S, ResumeVm, Severity
from ha_controller.core.incident import Death, Incident, Lever, VmRecord, VmStage
from ha_controller.core.model import Host, HostState, LcmState, OnedHostState, Reading, Vm, VmState
from ha_controller.core.recovery import START_FAILURES, claims_running, is_unknown, was_running
from ha_controller.core.state import Hold, NewBoot, State

CLOCKS_DIFFER_S = 30.0  #: OpenNebula's times are those of its front-end
NOTICES_WITHIN_S = 15.0  #: before OpenNebula is made to ask the host anew
PAST_BOOTS_MAX = 8
VERDICT = "rebooted"


def note(state: State, reading: Reading, now: float) -> None:
    """Take in which boot of a host answered. The first one that is ever seen is no news."""
    view, trust = state.view(reading.host), state.trust(reading.host)
    if reading.boot_id == trust.boot_id:
        view.boot_seen_at = max(view.boot_seen_at, reading.sent_at)
    elif not trust.boot_id:
        state.save_trust(replace(trust, boot_id=reading.boot_id))
        view.boot_seen_at = reading.sent_at
    elif reading.boot_id not in trust.past_boots and (
        view.new_boot is None or view.new_boot.boot_id != reading.boot_id
    ):
        lost_since = reading.booted_at or view.boot_seen_at or None
        view.new_boot = NewBoot(boot_id=reading.boot_id, noticed_at=now, lost_since=lost_since)
        state.watch(reading.host, True)


def take_up(state: State, host: Host, now: float) -> None:
    """Account for the VMs of a host that answers after another boot, once they were read."""
    view = state.view(host.id)
    boot = view.new_boot
    if boot is None or view.state is not HostState.OK or host.id in state.incidents:
        return
    if host.excluded:  # a person works on it
        _account_for(state, host, boot)
        return
    if view.read_at is None or view.read_at < boot.noticed_at:
        suspicion.ask_for_vms(state, host.id, now)
        return
    lost = tuple(
        record
        for vm in sorted(view.vms.values(), key=lambda vm: vm.id)
        if (record := _lost(host, vm, boot)) is not None
    )
    _account_for(state, host, boot)
    if lost:
        _open(state, host, boot, lost, now)
    else:
        state.explain(host.id, "rebooted by itself: nothing is done", "no VM was lost", now)
        state.tell(Severity.INFO, f"{host.name} rebooted by itself; no VM was lost", "Nothing to do.", host=host.id)


def _account_for(state: State, host: Host, boot: NewBoot) -> None:
    trust = state.trust(host.id)
    past = (*trust.past_boots, trust.boot_id)[-PAST_BOOTS_MAX:]
    state.save_trust(replace(trust, boot_id=boot.boot_id, past_boots=past))
    view = state.view(host.id)
    view.new_boot, view.boot_seen_at = None, boot.noticed_at


def _lost(host: Host, vm: Vm, boot: NewBoot) -> VmRecord | None:
    """What a VM was that ran until the host rebooted; None if it did not."""
    if vm.host != host.id:
        return None
    if claims_running(vm) or is_unknown(vm):  # OpenNebula has not noticed yet
        return VmRecord.of(vm)
    since = boot.lost_since
    if vm.state == VmState.POWEROFF and since is not None and vm.found_missing_at > since - CLOCKS_DIFFER_S:
        ran = VmRecord.of(vm)
        return replace(ran, was_state=VmState.ACTIVE, was_lcm_state=LcmState.RUNNING, was_label="RUNNING")
    return None


def _open(state: State, host: Host, boot: NewBoot, lost: tuple[VmRecord, ...], now: float) -> None:
    view, number = state.view(host.id), state.cloud.next_incident
    names = ", ".join(record.name for record in lost[:5])
    reason = f"another boot answers ({boot.boot_id[:8]}); {len(lost)} VMs ran there: {names}"
    death = Death(at=now, host=host.id, host_name=host.name, vms=tuple(record.id for record in lost))
    deaths = (*suspicion.deaths_remembered(state, now), death)
    state.save_cloud(replace(state.cloud, next_incident=number + 1, deaths=deaths))
    incident = state.save(
        Incident(
            id=number,
            host=host.id,
            host_name=host.name,
            opened_at=now,
            state=HostState.OK,
            verdict=VERDICT,
            evidence=(reason,),
            vms=lost,
            rebooted=boot.boot_id,
            prior_one_state=host.one_state if view.one_state is None else view.one_state,
            prior_marked=host.marked,
        )
    )
    state.explain(
        host.id,
        "rebooted by itself: no power-off is needed",
        reason,
        now,
        next_step="Its VMs are started again where they are, as soon as OpenNebula has noticed.",
    )
    text = f"{host.name} rebooted by itself: {reason}"
    state.tell_of(incident, Severity.WARNING, text, "They are started again there. Nothing for you to do.")


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Take the next steps with a host that rebooted, as long as it answers."""
    suspicion.ask_for_vms(state, host.id, now, tuple(record.id for record in incident.vms if not record.settled))
    view = state.view(host.id)
    if view.read_at is None or view.read_at < incident.opened_at or incident.stopped:
        return
    if hold := _what_holds(state, incident, now):
        state.hold(incident, hold, now)
        return
    records = tuple(_look(state, host, incident, record, view.vms.get(record.id), now) for record in incident.vms)
    incident = state.save(replace(incident, vms=records, hold="", hold_needs_person=False))
    if all(record.settled for record in incident.vms) and incident.lever is Lever.NOT_BEGUN:
        _end(state, incident, now)
        return
    incident = _have_oned_notice(state, host, incident, now)
    if incident.lever is Lever.NOT_BEGUN:
        _start(state, host, incident, now)


def _what_holds(state: State, incident: Incident, now: float) -> Hold | None:
    if hold := moving.what_holds(state, incident):
        return hold
    if (often := suspicion.quarantine(state, incident.host, now)) and not incident.restart_approved_by:
        return Hold(
            "quarantine",
            often,
            f"Its VMs are not started there again. Move them, or: ha-controller pending approve {incident.id}",
            needs_person=True,
        )
    return None


def _look(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> VmRecord:
    """Compare what a VM was with what it is now."""
    read_at = state.view(host.id).read_at or 0.0
    if record.settled or read_at <= record.ordered_at:
        return record
    if vm is None or vm.state == VmState.DONE:
        return moving.leave_alone(state, incident, record, "it no longer exists in OpenNebula", now)
    if vm.host != host.id:
        return moving.leave_alone(state, incident, record, f"somebody else moved it to host {vm.host}: {vm.label}", now)
    waited_s = now - (record.first_ordered_at or max(incident.lever_since, incident.opened_at))
    if claims_running(vm) and (record.tries or (incident.lever_repeats and waited_s > NOTICES_WITHIN_S)):
        state.tell_of(incident, Severity.INFO, f"{record.name} runs again on {host.name}", "Nothing to do.")
        return replace(record, stage=VmStage.RUNNING, reason=f"runs again on {host.name}", settled_at=now)
    if vm.state == VmState.ACTIVE and vm.lcm_state in START_FAILURES:
        return moving.leave_alone(state, incident, record, f"its start failed: {vm.label}", now)
    if vm.state not in (VmState.ACTIVE, VmState.POWEROFF):
        return moving.leave_alone(state, incident, record, f"it became {vm.label} meanwhile", now)
    longest_s = state.settings.vm_timeout_s if record.tries else state.settings.vm_wait_max_s
    if waited_s > longest_s:
        last = record.reason or f"OpenNebula shows it {vm.label}"
        return moving.leave_alone(state, incident, record, f"not RUNNING after {longest_s:g} s: {last}", now)
    return record


def _have_oned_notice(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Its monitoring died with the boot, and OpenNebula may miss that for minutes: have it ask the host anew, once."""
    view = state.view(host.id)
    if incident.lever is not Lever.NOT_BEGUN:
        return lever.ask_anew(state, host, incident, now)
    unnoticed = any(
        (vm := view.vms.get(record.id)) is not None and vm.host == host.id and (claims_running(vm) or is_unknown(vm))
        for record in incident.vms
        if not record.settled and not record.tries
    )
    is_in_use = view.one_state in (OnedHostState.INIT, OnedHostState.MONITORED, OnedHostState.ERROR)
    if unnoticed and is_in_use and not incident.lever_repeats and now - incident.opened_at >= NOTICES_WITHIN_S:
        return lever.ask_anew(state, host, incident, now)
    return incident


def _start(state: State, host: Host, incident: Incident, now: float) -> None:
    """Start what is POWEROFF, at most `moves_parallel` at a time."""
    view = state.view(host.id)
    free = state.settings.moves_parallel - sum(record.stage is VmStage.RESUMING for record in incident.vms)
    for record in sorted(incident.vms, key=lambda record: record.id):
        vm = view.vms.get(record.id)
        if record.settled or vm is None or (view.read_at or 0.0) <= record.ordered_at or not was_running(record):
            continue
        if vm.state != VmState.POWEROFF or not moving.may_order(state, record, free, now):
            continue
        killed = moving.died_with(state, record, now)
        if len(killed) >= state.settings.poison_after:
            reason = f"it ran on {', '.join(killed)} when they died, so it may be what kills them. Start it by hand"
            incident = state.save(
                moving.with_record(incident, moving.leave_alone(state, incident, record, reason, now))
            )
            continue
        free -= record.stage is VmStage.WAITING
        ordered = moving.note_order(record, VmStage.RESUMING, now, host.id)
        incident = state.save(moving.with_record(incident, ordered))
        not_after = now + ORDER_VALID_S
        state.out.append(
            ResumeVm(vm=record.id, incident=incident.id, attempt=ordered.order, host=host.id, not_after=not_after)
        )


def _end(state: State, incident: Incident, now: float) -> None:
    running = sum(record.stage is VmStage.RUNNING for record in incident.vms)
    left = len(incident.vms) - running
    left_alone = f", {left} left alone: ha-controller incidents show {incident.id}" if left else ""
    suspicion.close(state, incident, f"rebooted by itself; {running} VMs run again{left_alone}", now)


def resume(state: State, incident: Incident, now: float) -> None:
    """After a restart every order that had no report may have been carried out."""
    records = tuple(
        replace(record, ordered_at=now, answered=True, maybe_done=True) if record.stage is VmStage.RESUMING else record
        for record in incident.vms
    )
    state.save(replace(incident, vms=records, lever_since=now))
