"""A host that rebooted by itself: its VMs are gone, nothing needs to be powered off, and nobody else starts them.

OpenNebula finds them missing when it next hears of the host, and leaves them POWEROFF (seen on oned 7.4). What was lost
with the boot is started again on the same host; what a person or the guest had ended before is not touched.

Which boot is accounted for is durable, and is noted together with the incident: a crash in between loses no VM.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lever, moving, situation, suspicion, takeover, tries
from ha_controller.core.effects import ORDER_VALID_S, ResumeVm, Severity
from ha_controller.core.incident import Death, Incident, Lever, VmRecord, VmStage
from ha_controller.core.model import Host, HostState, LcmState, OnedHostState, Reading, Vm, VmPolicy, VmState
from ha_controller.core.outcome import Next, Presence, doubt_of
from ha_controller.core.recovery import START_FAILURES, claims_running, is_unknown, was_running
from ha_controller.core.state import Hold, NewBoot, State
from ha_controller.core.turns import Turns
from ha_controller.core.vm_orders import note_order
from ha_controller.core.vm_table import Step, row_of

SEEN_AGE_MAX_S = 600.0  #: a boot that was last seen longer ago says nothing of when it ended
CLOCKS_DIFFER_S = 30.0  #: OpenNebula's times are those of its front-end
NOTICES_WITHIN_S = 15.0  #: before OpenNebula is made to ask the host anew
PAST_BOOTS_MAX = 8
PAUSE_MIN_S = 5.0  #: a host that was not looked at for this long was silent meanwhile, or we were


def note(state: State, reading: Reading, now: float) -> None:
    """Take in which boot of a host answered. The first one that is ever seen is no news."""
    view, trust = state.view(reading.host), state.trust(reading.host)
    if reading.boot_id == trust.boot_id:
        view.boot_seen_at = max(view.boot_seen_at, reading.sent_at)
        return
    if not trust.boot_id:
        state.save_trust(replace(trust, boot_id=reading.boot_id))
        view.boot_seen_at = view.boot_known_at = reading.sent_at
        return
    pending = view.new_boot
    if reading.boot_id in trust.past_boots or (pending is not None and pending.boot_id == reading.boot_id):
        return
    lost_since = _lost_since(reading, view.boot_seen_at)
    if pending is not None:  # it rebooted once more before the VMs of the first time were looked at
        known = [at for at in (lost_since, pending.lost_since) if at is not None]
        lost_since = min(known) if len(known) == 2 else None
    view.new_boot = NewBoot(boot_id=reading.boot_id, noticed_at=now, lost_since=lost_since)
    state.watch(reading.host, True)


def _lost_since(reading: Reading, seen_at: float) -> float | None:
    """When the boot before ended, at the earliest: as the host says, else when it was last seen."""
    if reading.booted_at:
        return reading.booted_at
    return seen_at if reading.sent_at - seen_at <= SEEN_AGE_MAX_S else None


def take_up(state: State, host: Host, now: float) -> None:
    """Account for the VMs of a host that answers after another boot, once they were read."""
    view = state.view(host.id)
    boot = view.new_boot
    if boot is None or view.state is not HostState.OK or host.id in state.incidents:
        return
    if host.excluded:  # a person works on it
        account_for(state, host.id, boot)
        return
    if view.read_at is None or view.read_at < boot.noticed_at:
        suspicion.ask_for_vms(state, host.id, now)
        suspicion.tell_that_oned_is_needed(state, host, "rebooted by itself")
        return
    view.told = ""
    here = [vm for _, vm in sorted(view.vms.items()) if situation.was_on(vm, host)]
    lost = tuple(record for vm in here if (record := _lost(host, vm, boot)) is not None)
    foreign = takeover.why_foreign(state, view.boot_seen_at)
    account_for(state, host.id, boot)
    _tell_what_cannot_be_told(state, host, boot, here)
    if lost:
        open_incident(state, host, boot, lost, foreign, now)
    else:
        state.explain(host.id, "rebooted by itself: nothing is done", "no VM was lost, as far as is known", now)
        text = f"{host.name} rebooted by itself; no VM was lost, as far as is known"
        state.tell(Severity.INFO, text, "Nothing to do.", host=host.id)


def account_for(state: State, host: int, boot: NewBoot) -> None:
    """What was lost with this boot is on record, or nothing was: it is no news any more."""
    trust = state.trust(host)
    past = (*trust.past_boots, trust.boot_id)[-PAST_BOOTS_MAX:]
    state.save_trust(replace(trust, boot_id=boot.boot_id, past_boots=past))
    view = state.view(host)
    view.new_boot, view.boot_seen_at, view.boot_known_at = None, boot.noticed_at, boot.noticed_at


def _lost(host: Host, vm: Vm, boot: NewBoot) -> VmRecord | None:
    """What a VM was when the host rebooted; None if that did nothing to it."""
    if vm.state == VmState.ACTIVE:  # OpenNebula has not noticed yet, or was at work on it
        return VmRecord.of(vm, host.id)
    if vm.state == VmState.POWEROFF and boot.lost_since is not None and ended_with_it(vm, boot.lost_since):
        ran = VmRecord.of(vm)
        return replace(ran, was_state=VmState.ACTIVE, was_lcm_state=LcmState.RUNNING, was_label="RUNNING")
    return None


def ended_with_it(vm: Vm, lost_since: float | None) -> bool:
    """Whether OpenNebula found the VM missing since then, and nobody switched it off."""
    return vm.found_missing_at > max(0.0, (lost_since or 0.0) - CLOCKS_DIFFER_S)


def _tell_what_cannot_be_told(state: State, host: Host, boot: NewBoot, vms: list[Vm]) -> None:
    unclear = [vm.name for vm in vms if vm.state == VmState.POWEROFF and vm.found_missing_at]
    if boot.lost_since is None and unclear:
        names = ", ".join(unclear[:9])
        text = f"{host.name} rebooted while nobody looked; it cannot be told whether {names} ran until then"
        state.tell(Severity.WARNING, text, "They are POWEROFF. Start by hand what should run.", host=host.id)


def open_incident(
    state: State,
    host: Host,
    boot: NewBoot,
    lost: tuple[VmRecord, ...],
    foreign: str,
    now: float,
    *,
    returned: bool = False,
) -> None:
    """Put on record what is to be started again. `returned`: after a power-off, whose death is counted already."""
    view, number = state.view(host.id), state.cloud.next_incident
    names = ", ".join(record.name for record in lost[:5])
    what = "it is given back after its power-off" if returned else f"another boot answers ({boot.boot_id[:8]})"
    reason = f"{what}; {len(lost)} VMs were there: {names}"
    died = Death(at=now, host=host.id, host_name=host.name, vms=tuple(record.id for record in lost))
    deaths = (*suspicion.deaths_remembered(state, now), *(() if returned else (died,)))
    state.save_cloud(replace(state.cloud, next_incident=number + 1, deaths=deaths))
    incident = state.save(
        Incident(
            id=number,
            host=host.id,
            host_name=host.name,
            opened_at=now,
            state=HostState.OK,
            verdict=suspicion.REBOOTED,
            evidence=(reason,),
            vms=lost,
            rebooted=boot.boot_id,
            last_life_at=None if returned else boot.lost_since,
            lost_since=boot.lost_since,
            monitored_at=view.monitored_at,
            prior_one_state=suspicion.prior_one_state(state, host),
            prior_marked=host.marked,
            foreign=foreign,
            start_approved_by="the readmission" if returned else "",
        )
    )
    state.explain(
        host.id,
        "is back: its VMs that nobody moved are started" if returned else "rebooted by itself: no power-off is needed",
        reason,
        now,
        next_step="Its VMs are started again where they are, as soon as OpenNebula has noticed.",
    )
    text = f"{host.name} {'is back' if returned else 'rebooted by itself'}: {reason}"
    state.tell_of(incident, Severity.WARNING, text, "They are started again there. Nothing for you to do.")


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Take the next steps with a host that rebooted, as long as it answers."""
    suspicion.ask_for_vms(state, host.id, now, tuple(record.id for record in incident.vms if not record.settled))
    view = state.view(host.id)
    if now - view.advanced_at > PAUSE_MIN_S:
        view.waits_from = now  # it was silent meanwhile, or we were
    view.advanced_at = now
    if view.read_at is None or view.read_at < max(incident.opened_at, now - suspicion.READ_AGE_MAX_S):
        view.waits_from = now
        return
    if incident.stopped:
        return
    if hold := _what_holds(state, incident, now):
        view.waits_from = now
        state.hold(incident, hold, now)
        return
    records = tuple(_look(state, host, incident, record, view.vms.get(record.id), now) for record in incident.vms)
    incident = replace(incident, vms=records)
    if trouble := tries.trouble(state.settings, incident):
        incident = state.hold(incident, trouble, now)
    else:
        incident = state.save(replace(incident, hold="", hold_needs_person=False))
    if all(record.settled for record in incident.vms) and incident.lever is Lever.NOT_BEGUN:
        _end(state, incident, now)
        return
    incident = _have_oned_notice(state, host, incident, now)
    if incident.lever is Lever.NOT_BEGUN:
        _start(state, host, incident, now)


def _what_holds(state: State, incident: Incident, now: float) -> Hold | None:
    if hold := moving.what_holds(state, incident):
        return hold
    if (often := suspicion.quarantine(state, incident.host, now)) and not incident.start_approved_by:
        return Hold(
            "quarantine",
            often,
            f"Its VMs are not started there again. Move them, or: ha-controller pending approve {incident.id}",
            needs_person=True,
        )
    return None


def _look(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> VmRecord:
    """Compare what a VM was with what it is now."""
    view = state.view(host.id)
    if record.settled or (view.read_at or 0.0) <= record.ordered_at:
        return record
    record = record if vm is None else situation.note_strays(state, record, vm)
    if reason := _why_not_ours(host, record, vm):
        return moving.leave_alone(state, incident, record, reason, now)
    if where := _runs(state, host, incident, record, vm, now):
        return _started(state, incident, replace(record, runs_on=None if vm is None else vm.host), where, now)
    if reason := _why_left(state, host, incident, record, vm) or policy_against(state, host, record, vm):
        return moving.leave_alone(state, incident, record, reason, now)
    doubt = _doubt(state, incident, record, vm, now)
    if doubt is not None and doubt.step is Step.LEAVE:
        return moving.leave_alone(state, incident, record, doubt.reason, now)
    if doubt is not None and doubt.ask is not None:
        situation.ask(state, doubt.ask, now)
    if why := situation.why_poison(state, record, now) or tries.why_given_up(state.settings, record):
        return moving.leave_alone(state, incident, record, why, now)
    waits_for_its_turn = vm is not None and not record.tries and _may_start(state, host, incident, record, vm, now)
    longest_s = state.settings.vm_timeout_s if record.tries else state.settings.vm_wait_max_s
    begun_at = max(record.first_ordered_at, view.waits_from, incident.lever_since, incident.opened_at)
    begun_at = max(begun_at, situation.waits_since(state, doubt, None if vm is None else vm.host, now))
    if not waits_for_its_turn and now - begun_at > longest_s:
        last = record.reason or f"OpenNebula shows it {'nowhere' if vm is None else vm.label}"
        last = last if doubt is None else situation.in_words(state, doubt)
        return moving.leave_alone(state, incident, record, f"not RUNNING after {longest_s:g} s: {last}", now)
    return record


def _why_not_ours(host: Host, record: VmRecord, vm: Vm | None) -> str:
    """Why a VM is none of our business any more: it is gone, or where none of its ways led; empty if it is."""
    if vm is None or vm.state == VmState.DONE:
        return "it no longer exists in OpenNebula"
    if vm.host in (host.id, *record.ordered_to) or _ends_elsewhere(record, vm):
        return ""
    return f"somebody else moved it to host {vm.host}: {vm.label}"


def _why_left(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None) -> str:
    """Why nothing more is done with a VM that does not run; empty if there is more to do."""
    if vm is None:
        return ""
    there = state.hosts.get(-1 if vm.host is None else vm.host)
    at = "" if vm.host == host.id else f" on {there.name if there else vm.host}"
    if not (was_running(record) or was_travelling(record)):
        return f"it was {record.was_label} when the host rebooted; look at it: {vm.label}{at}"
    if vm.state == VmState.ACTIVE and vm.lcm_state in START_FAILURES:
        return f"its start failed: {vm.label}{at}"
    is_off = vm.state == VmState.POWEROFF and not record.tries and vm.host == host.id
    if is_off and not ended_with_it(vm, incident.lost_since):
        return "somebody has switched it off"
    if vm.state not in (VmState.ACTIVE, VmState.POWEROFF):
        return f"it became {vm.label}{at} meanwhile"
    return ""


def _ends_elsewhere(record: VmRecord, vm: Vm) -> bool:
    """Whether a migration that was under way goes on at its other end, or came to its end there."""
    return vm.host == record.other_host and (row_of(vm.state, vm.lcm_state).travels or claims_running(vm))


def was_travelling(record: VmRecord) -> bool:
    """Whether a migration of the VM was under way."""
    return row_of(record.was_state, record.was_lcm_state).travels


def _runs(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> str:
    """Where a VM runs again, in words; empty if that is not known. Asks who can say it."""
    if vm is None or not claims_running(vm):
        return ""
    if vm.host is not None and vm.host != host.id:
        if record.doubted and situation.presence(state, vm.host, vm.id, incident.opened_at, now) is not Presence.RUNS:
            situation.ask(state, vm.host, now)  # RUNNING was written down by us
            return ""
        place = state.hosts.get(vm.host)
        return f"runs on {place.name if place else vm.host}, where it was moved"
    if not record.tries and not _has_news(state, host, incident):
        return ""
    doubted = was_travelling(record) or situation.strays(state, record, vm, incident.opened_at, now)
    if doubted and not record.tries:  # OpenNebula took its migration back, and has not missed it here yet
        said = situation.presence(state, host.id, record.id, incident.opened_at, now)
        if said is not Presence.RUNS:
            situation.ask(state, host.id, now)
            return ""
    return f"runs again on {host.name}"


def _doubt(state: State, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> Next | None:
    """Whether a VM may run at another end of its ways: of a migration that was taken back, of an order of ours.

    Where it was moved from here, this host has to say that it is not here.
    """
    if vm is None or row_of(vm.state, vm.lcm_state).travels or record.tries:
        return None
    others = (record.other_host, *record.ordered_to) if vm.host == incident.host else (incident.host,)
    return doubt_of(situation.strays(state, record, vm, incident.opened_at, now, others))


def policy_against(state: State, host: Host, record: VmRecord, vm: Vm | None) -> str:
    """Why the VM is not to be started, by the operator's or its owner's word; empty if it may be, or runs already."""
    policy = state.settings.policy_of(None if vm is None else vm.policy, host.cluster_name)
    unwanted = policy in (VmPolicy.LEAVE, VmPolicy.POWEROFF) and not record.tries
    return f"its policy is `{policy.value}`" if unwanted and vm is not None and not claims_running(vm) else ""


def _started(state: State, incident: Incident, record: VmRecord, where: str, now: float) -> VmRecord:
    """An outcome: it runs."""
    unlocked = "; it was locked, and is not any more" if record.relock else ""
    severity = Severity.WARNING if unlocked else Severity.INFO
    state.tell_of(incident, severity, f"{record.name} {where}{unlocked}", "Nothing to do.")
    return replace(record, stage=VmStage.RUNNING, reason=where, settled_at=now)


def _may_start(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm, now: float) -> bool:
    """Whether a VM that is off may be started where it is: on its host, or where that was about to move it."""
    if vm.state != VmState.POWEROFF or not (was_running(record) or was_travelling(record)) or vm.host is None:
        return False
    is_there = vm.host == host.id or vm.host in record.ordered_to
    there = state.views.get(vm.host)
    is_well = (
        there is not None and there.state is HostState.OK and (vm.host == host.id or vm.host not in state.incidents)
    )
    return is_there and is_well and _doubt(state, incident, record, vm, now) is None


def _has_news(state: State, host: Host, incident: Incident) -> bool:
    """Whether OpenNebula has heard from the host since: what it believed before the reboot proves nothing."""
    view = state.view(host.id)
    monitored = view.one_state in (OnedHostState.MONITORED, OnedHostState.DISABLED)
    return monitored and view.monitored_at > incident.monitored_at


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
    if not unnoticed or not is_in_use or incident.lever_repeats or now - incident.opened_at < NOTICES_WITHIN_S:
        return incident
    if lever.levers_under_way(state) >= state.settings.levers_max:
        view.waits_from = now
        return incident
    return lever.ask_anew(state, host, incident, now)


def _start(state: State, host: Host, incident: Incident, now: float) -> None:
    """Start what is POWEROFF, at most `moves_parallel` at a time with those of all other hosts."""
    view = state.view(host.id)
    free = state.settings.moves_parallel - Turns(state, now).under_way
    for record in sorted(incident.vms, key=lambda record: record.id):
        vm = view.vms.get(record.id)
        if record.settled or vm is None or (view.read_at or 0.0) <= record.ordered_at:
            continue
        if not _may_start(state, host, incident, record, vm, now) or not tries.may_order(state, record, free, now):
            continue
        free -= not tries.is_under_way(record)
        at = host.id if vm.host is None else vm.host
        ordered = note_order(record, VmStage.RESUMING, now, at)
        incident = state.save(moving.with_record(incident, ordered))
        not_after = now + ORDER_VALID_S
        state.out.append(
            ResumeVm(vm=record.id, incident=incident.id, attempt=ordered.order, host=at, not_after=not_after)
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
