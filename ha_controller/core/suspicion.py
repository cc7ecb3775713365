"""From silence to the decision to power off: OK, SUSPECT, and the door to FAILED.

Never shoots: it opens the incident, asks the guards, and hands over to `fencing` when nobody says no.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import guard, life, shared_cause, situation, takeover, trust
from ha_controller.core.detector import (
    TroubleKind,
    Verdict,
    VerdictKind,
    hung,
    judge,
    last_life,
    leaving_since,
    suspicious,
    troubles,
)
from ha_controller.core.effects import ORDER_VALID_S, ReadHost, RestartMonitoring, Severity
from ha_controller.core.events import HostReaddressed, MonitoringRestarted
from ha_controller.core.incident import Death, Incident
from ha_controller.core.machine import Trigger, following
from ha_controller.core.model import Host, HostState, OnedHostState
from ha_controller.core.settings import Mode, Policy, Settings
from ha_controller.core.state import Hold, HostView, State

RESTART_AGAIN_S = 600.0
REBOOTED = "rebooted"  #: the verdict of an incident in which nothing is powered off
_REMEDIES = {
    TroubleKind.STORAGE_LOST: "It is not powered off. Look at its way to the datastore.",
    TroubleKind.SELF_TROUBLE: "It is not powered off, and its VMs may run. Look at what that channel asks for there.",
    TroubleKind.AGENT_TROUBLE: "It is not powered off. Look at OpenNebula's monitoring of it: onehost show.",
}
READ_AGE_MAX_S = 10.0  #: the VMs written into a new incident were read at most this long ago


def verdict_of(state: State, host: Host, now: float) -> Verdict:
    """Judge a host by its evidence; OFF counts only from a device that is known to be this host's."""
    off_counts = _off_counts(state, host)
    return judge(state.view(host.id).views, state.rules(host.id), now, off_counts=off_counts, vms=len(host.vms))


def _off_counts(state: State, host: Host) -> bool:
    """Whether the first level's OFF may condemn: known to be this host's, seen ON before, not weak."""
    reading = [device for device in host.levels[0] if device.proves_off] if host.levels else []
    if not reading:
        return False
    if state.settings.self_check_needed and state.self_check is not True:
        return False
    return all(
        trust.is_trusted(state, host, device)
        and trust.is_strong(state, host.id, device)
        and trust.was_seen_on(state, host.id, device)
        for device in reading
    )


def advance(state: State, host: Host, now: float) -> None:
    """Look at a host that is OK or SUSPECT."""
    view, rules = state.view(host.id), state.rules(host.id)
    if view.state is HostState.OK:
        _tell_of_troubles(state, host, rules, now)
        why = _why_suspect(view, rules, now)
        if not why:
            _unwatch_if_calm(state, host, rules)
            return
        view.state, view.since = following(view.state, Trigger.SILENCE), now
        if (incident := state.incidents.get(host.id)) is not None:  # of an earlier reboot
            state.save(replace(incident, state=view.state))
        state.explain(host.id, "SUSPECT: looked at closely", why, now, next_step="All channels are asked.")
        state.watch(host.id, True)
        ask_for_vms(state, host.id, now)
    verdict = verdict_of(state, host, now)
    if verdict.kind is VerdictKind.ALIVE:
        _answers_again(state, host, verdict, now)
    elif state.settings.condemns(verdict.kind) or is_ordered(state, host):
        _condemn(state, host, verdict, now)
    else:
        _tell_what_is_left(state, host, verdict, now)


def _why_suspect(view: HostView, rules: Settings, now: float) -> str:
    """Why a host that is OK is looked at closely from now on; empty if it is not."""
    if suspicious(view.views, rules):
        return f"{rules.misses} probes in a row were not answered"
    return hung(view.views, rules, now)


def _tell_what_is_left(state: State, host: Host, verdict: Verdict, now: float) -> None:
    """A silent host about which nothing will be done is told once: nobody waits for ever without knowing."""
    view, rules = state.view(host.id), state.rules(host.id)
    what = f"nothing is done: {verdict.kind.value}"
    state.explain(host.id, what, verdict.reason, now, next_step="Looking on.")
    announced = leaving_since(view.views)
    is_expected = announced is not None and now - announced < rules.planned_reboot_max_s
    patience_s = rules.single_domain_after_s + rules.patience_s(len(host.vms))
    late = verdict.kind is VerdictKind.UNCLEAR and not is_expected and now - view.since > patience_s
    told = verdict.kind in (VerdictKind.ISOLATED, VerdictKind.HUNG)
    kind = verdict.kind.value if told else "undecided" if late else ""
    if not kind or host.excluded or view.told == kind:
        return
    view.told = kind
    if kind == "undecided":
        text = f"{host.name} is silent, and it cannot be told whether it is dead: {verdict.reason}"
        next_step = f"Nothing is done. Look at it; to power it off: ha-controller fence {host.name}"
    elif kind == VerdictKind.HUNG:
        text = f"{host.name} is hung: {verdict.reason}"
        next_step = f"It is not powered off. Look at it; to power it off: ha-controller fence {host.name}"
    else:
        text = f"{host.name} is isolated: {verdict.reason}"
        next_step = "It is not powered off, its VMs run. Look at the network between here and there."
    state.tell(Severity.WARNING, text, next_step, host=host.id)


def _tell_of_troubles(state: State, host: Host, rules: Settings, now: float) -> None:
    """What is wrong with a host that answers is told when it begins and when it ends, and never shot."""
    view = state.view(host.id)
    found = {} if host.excluded else troubles(view.views, rules, now)
    if found or view.troubles:
        for kind in sorted(found.keys() - view.troubles.keys()):
            text = f"{host.name}: {kind.value}: {found[kind]}, and the host answers"
            state.tell(Severity.WARNING, text, _REMEDIES[kind], host=host.id)
        for kind in sorted(view.troubles.keys() - found.keys()):
            state.tell(Severity.INFO, f"{host.name}: no {kind.value} any more", "Nothing to do.", host=host.id)
        view.troubles = found
    if found or host.monitoring_restarting:
        _restart_monitoring(state, host, now)


def _restart_monitoring(state: State, host: Host, now: float) -> None:
    """A host that answers and of which OpenNebula hears nothing: its monitoring is started anew, now and then.

    Also finishes what a crash interrupted: such a host carries our mark.
    """
    view = state.view(host.id)
    needed = host.monitoring_restarting or (
        TroubleKind.AGENT_TROUBLE in view.troubles and host.one_state == OnedHostState.ERROR
    )
    alone = state.second_master is False or state.settings.second_master_waived
    allowed = state.term is not None and not state.cloud.paused_by and state.settings.mode is not Mode.OBSERVE
    if (
        needed
        and allowed
        and alone
        and not host.excluded
        and host.id not in state.incidents
        and now >= view.monitoring_restart_due_at
    ):
        view.monitoring_restart_due_at = now + RESTART_AGAIN_S
        state.out.append(RestartMonitoring(host=host.id, not_after=now + ORDER_VALID_S))


def monitoring_restarted(state: State, event: MonitoringRestarted) -> None:
    """Tell if it failed; what came of it shows in the monitoring data."""
    if event.failure and (host := state.hosts.get(event.host)) is not None:
        text = f"{host.name}: its monitoring could not be started anew: {event.failure}"
        state.tell(Severity.WARNING, text, "It is tried again later. Look at it: onehost show.", host=host.id)


def readdressed(state: State, event: HostReaddressed, now: float) -> None:
    """Its full grace period begins anew, unless an incident is open: that goes by what is on record."""
    view = state.views.get(event.host)
    if view is not None:
        view.views.clear()
        view.answers_since = None
        if view.state is HostState.SUSPECT:
            view.since = now


def is_ordered(state: State, host: Host) -> bool:
    """Whether a person ordered the power-off: then silence needs no further proof, and everything else stays."""
    incident = state.incidents.get(host.id)
    return incident is not None and bool(incident.ordered_by)


def _unwatch_if_calm(state: State, host: Host, rules: Settings) -> None:
    view = state.view(host.id)
    if host.id not in state.watched or view.new_boot is not None:
        return
    for name in rules.here:
        channel = view.views.get(name)
        if channel is not None and channel.misses:
            return
    state.watch(host.id, False)


def _answers_again(state: State, host: Host, verdict: Verdict, now: float) -> None:
    view = state.view(host.id)
    view.state, view.since, view.told = following(view.state, Trigger.LIFE), now, ""
    state.explain(host.id, "OK again: nothing is done", verdict.reason, now)
    _note_flap(state, host, now)
    if (incident := state.incidents.get(host.id)) is not None:
        stand_down(state, incident, f"{verdict.reason}; nothing was done", now)


def _note_flap(state: State, host: Host, now: float) -> None:
    """A host that comes and goes is not dead, and no place for VMs."""
    view, settings = state.view(host.id), state.settings
    view.flaps = (*(at for at in view.flaps if now - at < settings.flaps_within_s), now)
    if len(view.flaps) < settings.flaps_max:
        return
    if view.calm_at <= now:
        within = f"{settings.flaps_within_s / 60:g} min"
        text = f"{host.name} flaps: {len(view.flaps)} times silent and back within {within}"
        state.tell(Severity.WARNING, text, "No VM is placed on it meanwhile. Look at its network.", host=host.id)
    view.calm_at = now + settings.flaps_within_s


def stand_down(state: State, incident: Incident, why: str, now: float) -> None:
    """The host answers, and nothing was done to it. What is left of an earlier reboot goes on."""
    if not incident.rebooted:
        close(state, incident, why, now)
        return
    after = replace(incident, state=state.view(incident.host).state, verdict=REBOOTED, hold="", hold_needs_person=False)
    after = replace(after, ordered_by="", approved_by="", rejected_by="", failed_at=None, guards=(), barred=())
    state.save(replace(after, attempts_forgiven=len(after.tried)))


def close(state: State, incident: Incident, why: str, now: float) -> Incident:
    """End an incident in which nothing is left to do."""
    ended = replace(
        incident,
        closed_at=now,
        closing=why,
        hold="",
        hold_needs_person=False,
        stopped="",
        state=state.view(incident.host).state,
    )
    state.save(ended)
    state.view(incident.host).told = ""
    state.tell_of(incident, Severity.INFO, f"{incident.host_name}: {why}", "Nothing to do.", ends=True)
    return ended


def ask_for_vms(state: State, host: int, now: float, vms: tuple[int, ...] = ()) -> None:
    """Have the host and its VMs read, not more often than `reads_every_s`."""
    view = state.view(host)
    if now - view.read_asked_at >= state.settings.reads_every_s:
        view.read_asked_at = now
        state.out.append(ReadHost(host=host, vms=vms))


def _condemn(state: State, host: Host, verdict: Verdict, now: float) -> None:
    incident = state.incidents.get(host.id)
    if host.excluded:  # somebody else's business, and nobody is called because of it
        if incident is not None and (hold := state.brake(incident)):  # but who was asked hears that it is over
            state.hold(incident, hold, now)
        return
    view = state.view(host.id)
    if incident is None and not vms_are_known(view, now):
        ask_for_vms(state, host.id, now)
        if not vms_are_known(view, now):
            if shared_cause.common_cause(state, host, now):
                guard.note_cause(state, host, now)
            tell_that_oned_is_needed(state, host, f"is {verdict.kind.value} ({verdict.reason})")
            return  # an incident without its VMs would forget them; the reading is on its way
    elif view.read_at is None or now - view.read_at > READ_AGE_MAX_S / 2:
        ask_for_vms(state, host.id, now, () if incident is None else tuple(record.id for record in incident.vms))
    if incident is None:
        incident = open_incident(state, host, verdict, now)
    if not incident.ordered_by:
        incident = state.save(replace(incident, verdict=verdict.kind.value))
    results = guard.check(state, host, incident, now)
    incident = guard.note(state, host, incident, results, now)
    said = [str(result) for result in results]
    if hold := _what_holds(state, incident, verdict, results, now):
        state.hold(incident, hold, now, said)
        return
    if not incident.ordered_by:  # while it waited, more was seen than on the day it was opened
        seen = state.evidence(host.id, now)
        incident = replace(incident, evidence=(verdict.reason, *seen))
    what = f"condemned as {incident.verdict}: it is powered off"
    state.explain(host.id, what, verdict.reason, now, next_step="Its VMs are moved when off is verified.", guards=said)
    _commit(state, incident, results, now)


def vms_are_known(view: HostView, now: float) -> bool:
    """Read since the host fell silent: what was read earlier may have changed while it still lived."""
    return view.read_at is not None and view.read_at >= view.since and now - view.read_at <= READ_AGE_MAX_S


def tell_that_oned_is_needed(state: State, host: Host, what: str) -> None:
    """Once for each silence, and only if OpenNebula has said that it cannot be read."""
    view = state.view(host.id)
    why, kind = view.read_failed or state.oned_detail, "OpenNebula is needed"
    if why and view.told != kind:
        view.told = kind
        state.tell(
            Severity.CRITICAL,
            f"{host.name} {what}, but its VMs cannot be read: {why}",
            "Nothing is done until OpenNebula answers: look at oned.",
            host=host.id,
        )


def _what_holds(
    state: State, incident: Incident, verdict: Verdict, results: tuple[guard.GuardResult, ...], now: float
) -> Hold | None:
    """Why the host is not powered off now; None when nothing holds."""
    if hold := state.brake(incident):
        return hold
    if vetoed := guard.veto(results):
        is_news = vetoed.guard != "life" or life.is_news(state, incident.host, now)
        helps = guard.what_helps(vetoed, incident)
        return Hold(vetoed.guard, vetoed.reason, helps, needs_person=vetoed.needs_person, is_news=is_news)
    return approval_needed(state, incident, verdict)


def approval_needed(state: State, incident: Incident, verdict: Verdict) -> Hold | None:
    """Whether a person has to say yes before a power-off.

    In mode approve, for a host whose kernel lives, and where no level of devices is known to be this host's.
    """
    if incident.approved_by:
        return None
    reason, host = f"{verdict.kind.value}, {verdict.reason}", state.hosts.get(incident.host)
    unproven = host is not None and not any(trust.level_is_trusted(state, host, level) for level in host.levels)
    if unproven:
        reason += "; it was never proven, drilled or noted that its fence devices are its own"
    elif state.settings.mode is not Mode.APPROVE and state.settings.policies.get(verdict.kind) is not Policy.APPROVE:
        return None
    approve = f"To power it off: ha-controller pending approve {incident.id}"
    return Hold("waits for approval", reason, approve, needs_person=True)


def quarantine(state: State, host: int, now: float) -> str:
    """Why a host is not trusted with VMs again: it died too often lately; empty if it is trusted."""
    settings = state.settings
    died = sum(death.host == host and now - death.at < settings.quarantine_within_s for death in state.cloud.deaths)
    hours = f"{settings.quarantine_within_s / 3600:g} h"
    return f"it died or rebooted {died} times within {hours}" if died >= settings.quarantine_after else ""


def deaths_remembered(state: State, now: float) -> tuple[Death, ...]:
    """The deaths on record that still tell something."""
    remembered_s = max(state.settings.poison_within_s, state.settings.quarantine_within_s)
    return tuple(death for death in state.cloud.deaths if now - death.at < remembered_s)


def prior_one_state(state: State, host: Host) -> int:
    """Its state in OpenNebula before we touch it; OFFLINE by us is no person's wish."""
    view = state.view(host.id)
    if host.monitoring_restarting or view.monitoring_restarting:
        return OnedHostState.MONITORED
    one_state = view.one_state
    return host.one_state if one_state is None else one_state


def open_incident(state: State, host: Host, verdict: Verdict, now: float) -> Incident:
    """Put a failure on record, with its evidence and the VMs as they were just read."""
    view = state.view(host.id)
    number = state.cloud.next_incident
    state.save_cloud(replace(state.cloud, next_incident=number + 1))
    incident = Incident(
        id=number,
        host=host.id,
        host_name=host.name,
        opened_at=now,
        state=view.state,
        verdict=verdict.kind.value,
        evidence=(verdict.reason, *state.evidence(host.id, now)),
        vms=situation.records_of(
            state, host, [vm for vm in view.vms.values() if situation.was_on(vm, host) or vm.id in host.vms]
        ),
        prior_one_state=prior_one_state(state, host),
        prior_marked=host.marked,
        last_life_at=last_life(view.views) or None,
        suspect_at=view.since,
        foreign=takeover.why_foreign(state, last_life(view.views)),
    )
    return state.save(incident)


def _commit(state: State, incident: Incident, results: tuple[guard.GuardResult, ...], now: float) -> None:
    """The host has FAILED and will be powered off unless it answers first. The first order leaves in this very step."""
    incident = state.enter(incident, Trigger.CONDEMNED, now)
    seen_at = last_life(state.view(incident.host).views) or incident.last_life_at
    incident = replace(incident, failed_at=now, last_life_at=seen_at, guards=tuple(str(result) for result in results))
    incident = state.save(replace(incident, hold="", hold_needs_person=False))
    state.view(incident.host).told = ""
    if lacking := guard.lacking_memory_mb(state, state.hosts[incident.host], incident):
        text = f"{incident.host_name}: {lacking} MB of its VMs fit nowhere else"
        state.tell_of(incident, Severity.WARNING, text, "They are started when there is room: free or add a host.")
    state.tell_of(
        incident,
        Severity.CRITICAL,
        f"{incident.host_name} has FAILED ({incident.verdict}: {incident.evidence[0]}) and is being powered off. "
        f"{len(incident.vms)} VMs wait",
        "Nothing for you to do.",
    )
