"""Going on with what a record holds: our own after a restart, or the one that the leader before has left.

Both are the same: the incidents are laid down as they are on record, and what was ordered without an answer may have
been carried out. It is looked for, never repeated blindly. What this controller has seen itself stays, if it ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ha_controller.core import life, moving, pause, reboot, takeover
from ha_controller.core.effects import Severity, not_shared
from ha_controller.core.events import RecordTakenOver
from ha_controller.core.incident import AttemptOutcome, CloudRecord, Incident
from ha_controller.core.lost_vms import CLOCKS_DIFFER_S
from ha_controller.core.model import HostState, HostTrust
from ha_controller.core.state import HostView, NewBoot, State


def restore(
    state: State, incidents: Iterable[Incident], cloud: CloudRecord, now: float, trusts: Iterable[HostTrust]
) -> None:
    """Lay down what is on record.

    The clock may have been set back since: no moment on record may lie in the future, or all would wait for it.
    """
    state.trusts = {known.host: known for known in trusts}
    fences = tuple((min(at, now), host) for at, host in cloud.fences)
    deaths = tuple(replace(death, at=min(death.at, now)) for death in cloud.deaths)
    state.cloud = replace(
        pause.restored(cloud, now),
        fences=fences,
        storm_at=min(cloud.storm_at, now),
        inherited_at=min(cloud.inherited_at, now),
        deaths=deaths,
    )
    for incident in sorted((incident.not_after(now) for incident in incidents), key=lambda incident: incident.id):
        if incident.open:
            state.incidents[incident.host] = incident
            _set_view(state, incident.host, incident.state, incident.opened_at, incident.cause_at)


def resume(state: State, now: float) -> None:
    """Take up open incidents. No deadline survives; unknown outcomes are looked at first."""
    for incident in list(state.incidents.values()):
        state.watch(incident.host, True)
        _resume_power_off(state, incident, now)
        moving.resume(state, incident, now)
        if incident.rebooted:
            reboot.resume(state, incident, now)


def take_over(state: State, event: RecordTakenOver, now: float) -> None:
    """Put the shared record in the place of ours, which ends where we led last, and go on from there."""
    before, theirs = dict(state.incidents), {incident.id for incident in event.incidents}
    state.out[:] = not_shared(state.out, "the lead was taken over meanwhile")  # decided in this round, on another state
    state.incidents.clear()
    state.readiness.clear()
    state.names.clear()
    state.planned = None
    for incident in before.values():
        _set_view(state, incident.host, HostState.OK, now, 0.0)
    ours = state.trusts
    trusts = ours | {trust.host: _with_a_boot(trust, ours.get(trust.host)) for trust in event.trusts}
    kept, unread = _kept(before, event), dict(event.unread)
    next_incident = max(event.cloud.next_incident, state.cloud.next_incident, *(number + 1 for number in unread))
    cloud = replace(event.cloud, next_incident=next_incident)
    restore(state, (*event.incidents, *kept.values()), cloud, now, trusts.values())
    _doubt_boots(state, ours, event, now)
    state.dirty.update((incident.id, incident) for incident in state.incidents.values())
    state.dirty_trusts.update(state.trusts)
    state.cloud_dirty = True
    names = ", ".join(incident.host_name for incident in state.incidents.values())
    for incident in sorted(before.values(), key=lambda incident: incident.id):
        if incident.id in kept:
            continue
        closing = "the shared record of incidents, which has no such one, took the place of this one"
        if _is_unread(incident, event):  # and another one is open there
            closing = "the shared record, in which what stands of this one cannot be read, took its place"
        if (anew := _go_on_with_its_reboot(state, incident, event, now)) is not None:
            closing = f"goes on as incident {anew.id}, in the shared record of incidents, which has no such one"
        if incident.id not in theirs:
            state.dirty[incident.id] = replace(incident, closed_at=now, closing=closing, hold="", stopped="")
    resume(state, now)
    takeover.forgive(state)
    _tell_of_unread(state, event, kept)
    if event.led_meanwhile:
        what, goes_on = (f"; open on it: {names}", " What it had begun is gone on with.") if names else ("", "")
        state.tell(
            Severity.WARNING,
            f"this controller leads now, term {event.term}, and {event.led_meanwhile}. Its record was read{what}",
            f"See why the other one went.{goes_on}",
        )


def _with_a_boot(theirs: HostTrust, ours: HostTrust | None) -> HostTrust:
    """The record names no boot of a host of which its leader never heard one: then ours is all that is known."""
    if theirs.boot_id or ours is None:
        return theirs
    return replace(theirs, boot_id=ours.boot_id, past_boots=ours.past_boots)


def _told_boots(event: RecordTakenOver) -> set[int]:
    """The hosts of which the record says which boots are accounted for."""
    return {trust.host for trust in event.trusts if trust.boot_id}


def _kept(before: Mapping[int, Incident], event: RecordTakenOver) -> dict[int, Incident]:
    """Ours that are open on the record, too, and cannot be read there: unknown is not over. By number.

    What another leader has done in them meanwhile is not known, so a person releases them.
    """
    taken = {incident.host for incident in event.incidents}
    kept = {ours.id: ours for ours in before.values() if _is_unread(ours, event) and ours.host not in taken}
    if not event.led_meanwhile:
        return kept
    reason = f"{event.led_meanwhile}, and what it did in this incident cannot be read on the shared record"
    return {number: takeover.unreleased(ours, reason) for number, ours in kept.items()}


def _tell_of_unread(state: State, event: RecordTakenOver, kept: Mapping[int, Incident]) -> None:
    """Nobody who relies on the record has those."""
    if not event.led_meanwhile:  # ours has all
        return
    for number, host in event.unread:
        ours, at = kept.get(number), None if host is None else state.hosts.get(host)
        name = ours.host_name if ours else at.name if at else "" if host is None else f"host {host}"
        known = "what this controller has noted of it itself" if ours else "nothing of it"
        text = f"incident {number}{name and f' ({name})'} on the shared record cannot be read; we have {known}"
        look = f"See what was done: on the controller that led, ha-controller incidents show {number}; else look"
        release = f"Then: ha-controller release {ours.host_name if ours else 'HOST'}"
        state.tell(Severity.CRITICAL, text, f"{look} at the host and where its VMs run. {release}", host=host)


def _is_unread(ours: Incident, event: RecordTakenOver) -> bool:
    """Whether it may be one that is open on the record. A standby gives numbers of its own, also to other hosts."""
    if not any(number == ours.id and host in (None, ours.host) for number, host in event.unread):
        return False
    theirs = dict(event.unread_vms).get(ours.id)
    return theirs is None or any(record.id in theirs for record in ours.vms)


def _go_on_with_its_reboot(state: State, ours: Incident, event: RecordTakenOver, now: float) -> Incident | None:
    """A boot that we had accounted for in an incident of ours has VMs without an outcome, and the record knows of none.

    Silence that goes on is seen anew by itself, and a boot is not. If the record tells which boots are accounted for,
    it has taken the place of what we had noted. VMs that we saw run since, without the lead, have their outcome.

    A VM that is POWEROFF by now may have been started by another leader, and shut down by its guest, when we did not
    look. Who led for so long that it would have given up what does not run has seen to it: what ended until now is not
    started, and people are told. If nobody else led, nobody has started it, however long ago that boot is.

    Where the record has another incident of that host, without a verified power-off, that boot is news again, and is
    taken up when that one has ended.
    """
    is_told = ours.host in _told_boots(event)
    if not ours.rebooted or is_told or all(record.settled for record in ours.vms):
        return None
    noticed_at = ours.noticed_at or ours.opened_at
    is_old = _is_old(state, event, noticed_at, now)
    on_record = state.incidents.get(ours.host)
    if on_record is None:
        return reboot.go_on(state, ours, now + CLOCKS_DIFFER_S if is_old else ours.lost_since, now)
    if on_record.fenced_at is None and on_record.rebooted != ours.rebooted:
        lost_since = None if is_old else ours.lost_since
        boot = NewBoot(boot_id=ours.rebooted, noticed_at=noticed_at, lost_since=lost_since)
        state.view(ours.host).new_boot = boot
    return None


def _is_old(state: State, event: RecordTakenOver, noticed_at: float, now: float) -> bool:
    """Whether another leader has had the time to account for a boot."""
    return bool(event.led_meanwhile) and now - noticed_at > state.settings.vm_wait_max_s


def _set_view(state: State, host: int, host_state: HostState, since: float, cause_at: float) -> None:
    """What we saw and found out of the host ourselves stays; what belonged to an incident does not."""
    seen = state.views.get(host, HostView())
    state.views[host] = HostView(
        state=host_state,
        since=since,
        cause_at=cause_at,
        views=seen.views,
        seen_by=seen.seen_by,
        awaits_life=seen.awaits_life,
        devices=seen.devices,
        answers_since=seen.answers_since,
        boot_seen_at=seen.boot_seen_at,
        boot_known_at=seen.boot_known_at,
        new_boot=seen.new_boot,
        flaps=seen.flaps,
        calm_at=seen.calm_at,
    )


def _doubt_boots(state: State, ours: Mapping[int, HostTrust], event: RecordTakenOver, now: float) -> None:
    """When a boot was seen here says nothing where the record names another one, nor beside a moment of another clock.

    Who stands by accounts for a new boot at once; a leader does when it gives the host back.
    """
    fenced = {incident.host for incident in state.incidents.values() if incident.fenced_at is not None}
    told = _told_boots(event)
    for host, view in state.views.items():
        if (boot := view.new_boot) and host not in told and _is_old(state, event, boot.noticed_at, now):
            view.new_boot = replace(boot, lost_since=None)
        is_ours = state.trust(host).boot_id == ours.get(host, HostTrust(host=host)).boot_id
        if not is_ours:
            view.new_boot, view.boot_known_at = None, 0.0
        if not is_ours or host in fenced:
            view.boot_seen_at = 0.0


def _resume_power_off(state: State, incident: Incident, now: float) -> None:
    """After a restart: what was acknowledged or read off is read back; what has an unknown outcome is unverified."""
    if incident.state is not HostState.FAILED or not incident.attempts:
        return
    last = incident.attempts[-1]
    was_off = last.outcome is AttemptOutcome.OFF_READ and not life.since(state, incident.host, last.off_read_at or now)
    if was_off or last.outcome is AttemptOutcome.ACCEPTED:
        state.view(incident.host).read_back_due = True
        again = replace(last, outcome=AttemptOutcome.ACCEPTED, ordered_at=now)  # it keeps when it was read off
        state.save(incident.with_attempt(again))
    elif last.outcome is AttemptOutcome.ORDERED:
        lost = replace(last, outcome=AttemptOutcome.UNVERIFIED, detail="the controller was restarted")
        state.save(incident.with_attempt(lost))
