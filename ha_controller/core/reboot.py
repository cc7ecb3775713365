"""A host that rebooted by itself: its VMs are gone, nothing needs to be powered off, and nobody else starts them.

OpenNebula finds them missing when it next hears of the host, and leaves them POWEROFF (seen on oned 7.4). What was lost
with the boot is started again on the same host; what a person or the guest had ended before is not touched.

Which boot is accounted for is durable, and is noted together with the incident: a crash in between loses no VM.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lever, lost_vms, moving, situation, suspicion, takeover, tries
from ha_controller.core.effects import ORDER_VALID_S, ResumeVm, Severity
from ha_controller.core.incident import Death, Incident, Lever, VmRecord, VmStage
from ha_controller.core.model import Host, HostState, OnedHostState, Reading, Vm, VmState
from ha_controller.core.outcome import Presence
from ha_controller.core.recovery import claims_running, is_unknown
from ha_controller.core.state import Hold, NewBoot, State
from ha_controller.core.turns import Turns
from ha_controller.core.vm_orders import note_order

SEEN_AGE_MAX_S = 600.0  #: a boot that was last seen longer ago says nothing of when it ended
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
    """When the boot before ended, at the earliest: as the host says, else when it was last seen.

    Not after it answered in the new one: its clock may be ahead.
    """
    if reading.booted_at:
        return min(reading.booted_at, reading.sent_at)
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
    lost = tuple(record for vm in here if (record := lost_vms.lost(host, vm, boot)) is not None)
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
    is_known = trust.boot_id == boot.boot_id  # accounted for without the lead, and then not on the record
    past = trust.past_boots if is_known else (*trust.past_boots, trust.boot_id)[-PAST_BOOTS_MAX:]
    state.save_trust(replace(trust, boot_id=boot.boot_id, past_boots=past))
    view = state.view(host)
    view.new_boot, view.boot_seen_at, view.boot_known_at = None, boot.noticed_at, boot.noticed_at


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


def go_on(state: State, ours: Incident, lost_since: float | None, now: float) -> Incident:
    """Go on, as the leader, with the VMs that have no outcome in an incident of ours from before the take-over.

    A new number, since ours may have been given to another incident meanwhile. Who led before may have counted the
    death, by another clock, and before we noted that boot; so may we have, at a take-over before this one.
    """
    number, noticed_at = state.cloud.next_incident, ours.noticed_at or ours.opened_at
    since = min(noticed_at, noticed_at if ours.lost_since is None else ours.lost_since) - lost_vms.CLOCKS_DIFFER_S
    left = tuple(record.anew() for record in ours.vms if not record.settled)
    died = Death(at=now, host=ours.host, host_name=ours.host_name, vms=tuple(record.id for record in left))
    is_counted = any(death.host == ours.host and death.at > since for death in state.cloud.deaths)
    deaths = (*suspicion.deaths_remembered(state, now), *(() if is_counted else (died,)))
    state.save_cloud(replace(state.cloud, next_incident=number + 1, deaths=deaths))
    incident = state.save(
        Incident(
            id=number,
            host=ours.host,
            host_name=ours.host_name,
            opened_at=now,
            state=HostState.OK,
            verdict=suspicion.REBOOTED,
            evidence=ours.evidence,
            vms=left,
            rebooted=ours.rebooted,
            noticed_at=noticed_at,
            last_life_at=ours.last_life_at,
            lost_since=lost_since,
            monitored_at=ours.monitored_at,
            prior_one_state=ours.prior_one_state,
            prior_marked=ours.prior_marked,
            foreign=takeover.why_foreign(state, ours.opened_at),
        )
    )
    _tell_what_is_gone_on_with(state, ours, incident, now)
    return incident


def _tell_what_is_gone_on_with(state: State, ours: Incident, incident: Incident, now: float) -> None:
    """With what a standby has settled and told nobody: who led then may have died before it did."""
    name, names = incident.host_name, ", ".join(record.name for record in incident.vms[:5])
    text = f"{name} rebooted by itself before this controller led; {len(incident.vms)} VMs have no outcome yet: {names}"
    next_step = "What that ended is started again there. Nothing for you to do."
    if incident.foreign:
        next_step = f"See what was done, then: ha-controller release {name}"
    elif (incident.lost_since or 0.0) > now:
        next_step = "What is off by now is not started: its guest may have ended it since. Each is told."
    state.tell_of(incident, Severity.WARNING, text, next_step)
    for record in ours.vms:
        if record.stage is VmStage.LEFT:
            text = f"{record.name} was left alone before this controller led: {record.reason}"
            state.tell_of(
                incident, Severity.WARNING, text, f"See that it is where it should be: onevm show {record.id}"
            )


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Take the next steps with a host that rebooted, as long as it answers."""
    suspicion.ask_for_vms(state, host.id, now, tuple(record.id for record in incident.vms if not record.settled))
    view = state.view(host.id)
    if now - view.advanced_at > PAUSE_MIN_S:
        view.waits_from = now  # it was silent meanwhile, or we were
    view.advanced_at = now
    # what was asked before it was taken up, after a restart or from another leader, may not know its VMs
    begun_at = max(incident.opened_at, incident.lever_since, now - suspicion.READ_AGE_MAX_S)
    if view.read_at is None or view.read_at < begun_at:
        view.waits_from = now
        return
    if incident.stopped:
        return
    if state.stands_by:
        incident = _only_look(state, host, incident, now)
        if not incident.open:
            return
    if hold := _what_holds(state, incident, now):
        view.waits_from = now
        state.hold(incident, hold, now)
        return
    records = tuple(
        lost_vms.look(state, host, incident, record, view.vms.get(record.id), now) for record in incident.vms
    )
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


def _only_look(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Without the lead: see which VMs run again, and end when all have an outcome.

    Else this boot would be news at a take-over, long after whoever led has accounted for it.
    """
    vms = state.view(host.id).vms
    records = tuple(lost_vms.seen(state, host, incident, record, vms.get(record.id), now) for record in incident.vms)
    incident = state.save(replace(incident, vms=records))
    if all(record.settled for record in records) and incident.lever is Lever.NOT_BEGUN:
        incident = _end(state, incident, now)
    return incident


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


def _have_oned_notice(state: State, host: Host, incident: Incident, now: float) -> Incident:
    """Its monitoring died with the boot, and OpenNebula may miss that for minutes: have it ask the host anew, once.

    A boot that was noted before this controller led may be long over: the host itself is asked first.
    """
    view = state.view(host.id)
    if incident.lever is not Lever.NOT_BEGUN:
        return lever.ask_anew(state, host, incident, now)
    is_in_use = view.one_state in (OnedHostState.INIT, OnedHostState.MONITORED, OnedHostState.ERROR)
    since = max(incident.opened_at, view.waits_from) if incident.noticed_at else incident.opened_at
    if incident.lever_repeats or not is_in_use or now - since < NOTICES_WITHIN_S:
        return incident
    if not any(_is_unnoticed(state, host, incident, record, now) for record in incident.vms):
        return incident
    if lever.levers_under_way(state) >= state.settings.levers_max:
        view.waits_from = now
        return incident
    return lever.ask_anew(state, host, incident, now)


def _is_unnoticed(state: State, host: Host, incident: Incident, record: VmRecord, now: float) -> bool:
    """Whether OpenNebula may not have missed a VM yet. It has not to, if the host says that it runs there."""
    vm = state.view(host.id).vms.get(record.id)
    if vm is None or vm.host != host.id or record.settled or record.tries or not (claims_running(vm) or is_unknown(vm)):
        return False
    return situation.presence(state, host.id, record.id, incident.opened_at, now) is not Presence.RUNS


def _start(state: State, host: Host, incident: Incident, now: float) -> None:
    """Start what is POWEROFF, at most `moves_parallel` at a time with those of all other hosts."""
    view = state.view(host.id)
    free = state.settings.moves_parallel - Turns(state, now).under_way
    for record in sorted(incident.vms, key=lambda record: record.id):
        vm = view.vms.get(record.id)
        if record.settled or vm is None or (view.read_at or 0.0) <= record.ordered_at:
            continue
        if not lost_vms.may_start(state, host, incident, record, vm, now):
            continue
        if not tries.may_order(state, record, free, now):
            continue
        free -= not tries.is_under_way(record)
        at = host.id if vm.host is None else vm.host
        ordered = note_order(record, VmStage.RESUMING, now, at)
        incident = state.save(moving.with_record(incident, ordered))
        not_after = now + ORDER_VALID_S
        state.out.append(
            ResumeVm(vm=record.id, incident=incident.id, attempt=ordered.order, host=at, not_after=not_after)
        )


def _end(state: State, incident: Incident, now: float) -> Incident:
    running = sum(record.stage is VmStage.RUNNING for record in incident.vms)
    left = len(incident.vms) - running
    left_alone = f", {left} left alone: ha-controller incidents show {incident.id}" if left else ""
    return suspicion.close(state, incident, f"rebooted by itself; {running} VMs run again{left_alone}", now)


def resume(state: State, incident: Incident, now: float) -> None:
    """After a restart every order that had no report may have been carried out."""
    records = tuple(
        replace(record, ordered_at=now, answered=True, maybe_done=True) if record.stage is VmStage.RESUMING else record
        for record in incident.vms
    )
    state.save(replace(incident, vms=records, lever_since=now))
