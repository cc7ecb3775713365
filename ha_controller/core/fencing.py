"""FAILED: power the host off, level by level, until off is verified.

Before every attempt the evidence, the guards and the lead are looked at again. An acknowledgement proves nothing, an
unknown outcome is never repeated blindly, and life after OFF voids the proof.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import guard, lasting, lever, life, power, trust
from ha_controller.core.detector import VerdictKind, alive_channels, silence_awaited
from ha_controller.core.effects import ORDER_VALID_S, Fence, Severity
from ha_controller.core.events import FenceAccepted, FenceReported, FenceResult
from ha_controller.core.incident import Attempt, AttemptOutcome, Death, Incident, Lever, Proof, VmStage
from ha_controller.core.machine import Trigger
from ha_controller.core.model import Device, Host
from ha_controller.core.outcome import wants_running
from ha_controller.core.power import ask_for_power, fingerprints, power_since, readable
from ha_controller.core.state import Hold, State, bar, unconfirmed_silence
from ha_controller.core.suspicion import approval_needed, ask_for_vms, deaths_remembered, stand_down, verdict_of

DAY_S = 86400.0
SECOND_SIGNAL_SPACING_S = 2.0  #: between two readings of another device that confirms an OFF
EXHAUSTED = "fence attempts exhausted"  #: begins the hold of a host that no device could power off
REPORT_GRACE_S = 15.0  #: beyond the device's own deadline: the executor reports earlier, or something is wrong


def advance(state: State, host: Host, incident: Incident, now: float) -> None:
    """Take the next step with a host that has FAILED."""
    last = incident.attempts[-1] if incident.attempts else None
    if last is not None and last.outcome in (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED):
        _wait_for_report(state, host, incident, last, now)
    elif last is not None and last.outcome is AttemptOutcome.OFF_READ:
        _confirm_off(state, host, incident, last, now)
    elif not incident.stopped:
        _next_attempt(state, host, incident, now)
    elif incident.stopped.startswith(EXHAUSTED) and (verdict := verdict_of(state, host, now)).kind is VerdictKind.ALIVE:
        _alive_again(state, incident, verdict.reason, now)  # a person was called, and has to know


def accepted(state: State, incident: Incident, event: FenceAccepted) -> None:
    """Note an acknowledgement, so that after a crash the order is not sent a second time."""
    attempt = _running(incident, event.attempt)
    if attempt is not None and attempt.outcome is AttemptOutcome.ORDERED:
        state.save(incident.with_attempt(replace(attempt, outcome=AttemptOutcome.ACCEPTED)))


def reported(state: State, incident: Incident, event: FenceReported, now: float) -> None:
    """Take in the end of an attempt; late and doubled reports are dropped."""
    attempt = _running(incident, event.attempt)
    if attempt is None:
        return
    if attempt.outcome is AttemptOutcome.ACCEPTED and event.result is FenceResult.NOT_SENT:
        state.view(incident.host).read_back_due = True  # it was only to be read back, and nobody looked
        return
    outcome = {
        FenceResult.OFF_READ: AttemptOutcome.OFF_READ,
        FenceResult.UNVERIFIED: AttemptOutcome.UNVERIFIED,
        FenceResult.REFUSED: AttemptOutcome.REFUSED,
        FenceResult.NOT_SENT: AttemptOutcome.NOT_SENT,
    }[event.result]
    host = state.hosts.get(incident.host)
    done = replace(attempt, outcome=outcome, off_read_at=event.off_read_at, detail=event.detail)
    is_first = incident.tried == incident.attempts
    incident = replace(incident, attempts=incident.tried)  # those before that never left are on the trail alone
    incident = state.save(lasting.without_refused(incident.with_attempt(done)))
    for name in event.mismatched:
        incident = state.save(bar(incident, [name]))
        if host is not None:
            trust.mismatch(state, host, name, event.detail)
    if outcome is AttemptOutcome.NOT_SENT:
        if is_first:
            _tell_not_sent(state, incident, done)
    elif outcome is not AttemptOutcome.OFF_READ:
        _unverified(state, incident, done, attempt.off_read_at, now)


def _unverified(state: State, incident: Incident, attempt: Attempt, was_off_at: float | None, now: float) -> None:
    """What was read off before a restart or a take-over may have been powered on since: that is a person's matter."""
    if was_off_at is None:
        _tell_unverified(state, incident, attempt)
        return
    state.stop(
        incident,
        f"{', '.join(attempt.devices)} read off, and cannot be read off again ({attempt.detail}): somebody may have "
        "powered the host on",
        f"Power it off, then: ha-controller release {incident.host_name}",
        now,
    )


def _tell_unverified(state: State, incident: Incident, attempt: Attempt) -> None:
    state.tell_of(
        incident,
        Severity.WARNING,
        f"{incident.host_name}: power-off by {', '.join(attempt.devices)} is not verified: {attempt.detail}",
        "The next device or the next round is tried.",
    )


def _tell_not_sent(state: State, incident: Incident, attempt: Attempt) -> None:
    """Once, until one leaves."""
    state.tell_of(
        incident,
        Severity.WARNING,
        f"{incident.host_name}: power-off by {', '.join(attempt.devices)} was not sent ({attempt.detail})",
        "It is tried again. If it stays so, look at the disk of the state directory and at: ha-controller leader show",
    )


def _running(incident: Incident, number: int) -> Attempt | None:
    last = incident.attempts[-1] if incident.attempts else None
    under_way = (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED)
    return last if last is not None and last.number == number and last.outcome in under_way else None


def _wait_for_report(state: State, host: Host, incident: Incident, attempt: Attempt, now: float) -> None:
    view = state.view(host.id)
    if view.read_back_due and state.term is not None:  # without the lead nobody would read it back
        _read_back(state, host, incident, attempt, now)
    elif now - attempt.ordered_at > host.fence_timeout_s + REPORT_GRACE_S:
        view.read_back_due = False
        lost = replace(attempt, outcome=AttemptOutcome.UNVERIFIED, detail="no report in time")
        _unverified(state, state.save(incident.with_attempt(lost)), lost, attempt.off_read_at, now)


def _read_back(state: State, host: Host, incident: Incident, attempt: Attempt, now: float) -> None:
    """After a restart, once the host's devices are known: an acknowledged order is not sent again, only read back."""
    state.view(host.id).read_back_due = False
    if fingerprints(host, attempt.devices) != attempt.fingerprints:
        changed = replace(attempt, outcome=AttemptOutcome.UNVERIFIED, detail="its device was changed meanwhile")
        state.save(incident.with_attempt(changed))
        return
    state.save(incident.with_attempt(replace(attempt, ordered_at=now)))
    state.out.append(
        Fence(
            host=host.id,
            incident=incident.id,
            attempt=attempt.number,
            devices=attempt.devices,
            identity=None,
            send=False,
            not_after=now + REPORT_GRACE_S,
        )
    )


def _confirm_off(state: State, host: Host, incident: Incident, attempt: Attempt, now: float) -> None:
    """Off was read: now the other devices must not read ON, and only probes sent after that count. Life voids it.

    Where the devices that read it prove nothing by themselves, another one must say so, too.
    """
    off_read_at = attempt.off_read_at or now
    views, names = state.view(host.id).views, ", ".join(attempt.devices)
    powers = power_since(state, host, off_read_at)
    why = trust.why_unproven(state, host, attempt.devices)
    second = _second_signal(state, host, incident, attempt, now) if why else ()
    if channel := life.since(state, host.id, off_read_at):
        _void(state, incident, attempt, f"{names} reads off, but {channel} answers", now)
    elif on := power.against(host, powers, attempt.devices):
        _void(state, incident, attempt, f"{names} reads off, but {', '.join(on)} reads ON", now)
    elif fingerprints(host, attempt.devices) != attempt.fingerprints:
        changed = replace(attempt, outcome=AttemptOutcome.UNVERIFIED, detail="its device was changed meanwhile")
        state.save(incident.with_attempt(changed))
    elif others := [device for device in readable(host) if device not in (*attempt.devices, *powers)]:
        ask_for_power(state, host.id, tuple(others), now)
    elif why and not second:
        _wait_for_second_signal(state, host, incident, attempt, why, now)
    elif not (missing := silence_awaited(views, state.rules(host.id), off_read_at)):
        text = f"{names} read off twice, no channel answers since"
        if why:
            text = f"{names} read off twice, and so did {', '.join(second)}; no channel answers since"
        # only those that can be read again before the moves: others (SSH) helped, and prove nothing
        proving = tuple(name for name in (*attempt.devices, *second) if name in readable(host))
        proof = Proof(at=off_read_at, text=text, devices=proving, fingerprints=fingerprints(host, proving))
        off_is_verified(state, incident, proof, now)
    elif now - off_read_at > state.settings.confirm_silence_max_s:
        kind = "off was read, but not every probe could confirm the silence since"
        state.hold(incident, unconfirmed_silence(kind, missing, incident), now)


def _strong_levels_elsewhere(state: State, host: Host, incident: Incident, attempt: Attempt) -> list[tuple[str, ...]]:
    """Levels that did not take part in an attempt, and whose OFF proves something: all their power devices together."""
    found = []
    for level in host.levels:
        devices = [device for device in level if device.proves_off]
        names = tuple(device.name for device in devices)
        ours = all(trust.is_trusted(state, host, device) for device in devices)
        strong = ours and not any(trust.why_unproven(state, host, (name,)) for name in names)
        if names and strong and not {*attempt.devices, *incident.barred} & {*names}:
            found.append(names)
    return found


def _second_signal(state: State, host: Host, incident: Incident, attempt: Attempt, now: float) -> tuple[str, ...]:
    """The devices of the first such level that have all read OFF twice since; one feed of two says nothing."""
    view, moment = state.view(host.id), attempt.off_read_at or now

    def has_read_off_twice(name: str) -> bool:
        since = view.off_since.get(name)
        return since is not None and view.power[name][0] >= max(since, moment) + SECOND_SIGNAL_SPACING_S

    levels = _strong_levels_elsewhere(state, host, incident, attempt)
    return next((names for names in levels if all(map(has_read_off_twice, names))), ())


def _wait_for_second_signal(
    state: State, host: Host, incident: Incident, attempt: Attempt, why: str, now: float
) -> None:
    asked = tuple(name for names in _strong_levels_elsewhere(state, host, incident, attempt) for name in names)
    if asked and now - (attempt.off_read_at or now) <= state.settings.confirm_silence_max_s:
        ask_for_power(state, host.id, asked, now)
        return
    but = f"; {', '.join(asked)} did not say so within {state.settings.confirm_silence_max_s:g} s" if asked else ""
    weak = replace(
        attempt,
        outcome=AttemptOutcome.UNVERIFIED,
        off_read_at=None,
        detail=f"{attempt.detail}; {why}{but}",
    )
    _tell_unverified(state, state.save(incident.with_attempt(weak)), weak)


def _void(state: State, incident: Incident, attempt: Attempt, why: str, now: float) -> None:
    voided, name = incident.with_attempt(replace(attempt, outcome=AttemptOutcome.VOIDED)), incident.host_name
    then = f"Check the wiring, then: ha-controller unfence {name} (if it is healthy)"
    state.stop(
        bar(voided, attempt.devices),
        f"{why}: the device belongs to another machine, or one of them lies. It is barred from further power-offs",
        life.or_wrong(state, incident.host, f"{then}, or ha-controller confirm-off {name}", now),
        now,
    )


def off_is_verified(state: State, incident: Incident, proof: Proof, now: float) -> None:
    """The host is FENCED: recorded with its proof before anything is moved."""
    if incident.rebooted:  # what was begun after an earlier reboot is void: all its VMs are lost once more
        shown = state.view(incident.host).vms
        vms = tuple(
            record.seen_as(vm, incident.host)
            if record.stage is VmStage.LEFT and (vm := shown.get(record.id)) is not None
            else record.anew()
            for record in incident.vms
        )
        incident = replace(incident, rebooted="", vms=vms, lever=Lever.NOT_BEGUN, lever_since=now, lever_repeats=0)
    incident = state.enter(incident, Trigger.OFF_VERIFIED, now)
    state.view(incident.host).told = ""
    lever.note_proof(state, incident, proof)
    state.save(replace(incident, proof=proof, fenced_at=now, hold="", hold_needs_person=False, stopped=""))
    running = tuple(record.id for record in incident.vms if wants_running(record))
    death = Death(at=now, host=incident.host, host_name=incident.host_name, vms=running)
    state.save_cloud(replace(state.cloud, deaths=(*deaths_remembered(state, now), death)))
    ask_for_vms(state, incident.host, now, tuple(record.id for record in incident.vms))
    next_step = f"Its {len(incident.vms)} VMs are moved."
    state.explain(incident.host, "FENCED: off is verified", proof.text, now, next_step=next_step)
    state.tell_of(
        incident,
        Severity.WARNING,
        f"{incident.host_name} is off: {proof.text}. Its VMs are started elsewhere now",
        "Nothing for you to do.",
    )


def _next_attempt(state: State, host: Host, incident: Incident, now: float) -> None:
    verdict = verdict_of(state, host, now)
    alive = alive_channels(state.view(host.id).views, state.rules(host.id), now)
    answers = verdict.kind is VerdictKind.ALIVE or (alive and verdict.kind != incident.verdict)
    if why := verdict.reason if answers else life.seen_since_an_order(state, incident, now):
        _alive_again(state, incident, why, now)
        return
    explain = f"More: ha-controller explain {incident.host_name}"
    if not state.settings.condemns(verdict.kind) and not incident.ordered_by:
        unclear = Hold("the evidence is not clear any more", verdict.reason, f"Nothing is sent. {explain}")
        state.hold(incident, unclear, now)
        return
    if hold := state.brake(incident) or approval_needed(state, incident, verdict):
        state.hold(incident, hold, now)
        return
    results = guard.check(state, host, incident, now)
    incident = guard.note(state, host, incident, results, now)
    if vetoed := guard.veto(results):
        hold = Hold(vetoed.guard, vetoed.reason, guard.what_helps(vetoed, incident), vetoed.needs_person)
        state.hold(incident, hold, now, [str(result) for result in results])
        return
    _order_power_off(state, host, replace(incident, guards=tuple(str(result) for result in results)), now)


def _alive_again(state: State, incident: Incident, reason: str, now: float) -> None:
    if not incident.untouched:
        state.stop(
            incident,
            f"alive after an unverified power-off ({reason})",
            life.or_wrong(state, incident.host, f"If it is healthy: ha-controller unfence {incident.host_name}", now),
            now,
        )
        return
    stood_down = state.enter(replace(incident, stopped=""), Trigger.STOOD_DOWN, now)
    stand_down(state, stood_down, f"{reason}; no power-off was done", now)


def _order_power_off(state: State, host: Host, incident: Incident, now: float) -> None:
    """Order the next level, unless every round has been tried. A level needs all its devices."""
    levels = _usable_levels(state, host, incident)
    done = len(incident.tried) - incident.attempts_forgiven
    if not levels or done >= len(levels) * state.settings.fence_rounds_max:
        _exhausted(state, host, incident, now)
        return
    last = incident.attempts[-1] if incident.attempts else None
    begins_anew = done > 0 and done % len(levels) == 0
    waits = last is not None and (begins_anew or last.outcome is AttemptOutcome.NOT_SENT)
    if last is not None and waits and now - last.ordered_at < state.settings.fence_retry_s:
        return
    level, devices = levels[done % len(levels)]
    names = tuple(device.name for device in devices)
    attempt = Attempt(
        number=1 if last is None else last.number + 1,
        level=level,
        devices=names,
        fingerprints=fingerprints(host, names),
        outcome=AttemptOutcome.ORDERED,
        ordered_at=now,
    )
    incident = lasting.note_ordered(host, incident, names)
    state.save(replace(incident, attempts=(*incident.attempts, attempt), hold="", hold_needs_person=False))
    what = f"attempt {attempt.number}: power off with {', '.join(names)}"
    because = f"{incident.verdict}, and no guard says no"
    next_step = "Read back until off was read twice, then the probes look again."
    rejected = _why_not(state, host, incident)
    state.explain(host.id, what, because, now, next_step=next_step, guards=incident.guards, rejected=rejected)
    state.save_cloud(replace(state.cloud, fences=_counted(state, host.id, now)))
    state.out.append(
        Fence(
            host=host.id,
            incident=incident.id,
            attempt=attempt.number,
            devices=names,
            identity=state.trust(host.id).identity,
            send=True,
            not_after=now + ORDER_VALID_S,
        )
    )


def _usable_levels(state: State, host: Host, incident: Incident) -> list[tuple[int, tuple[Device, ...]]]:
    """Levels whose devices are all this host's, without those that would cut it off from the wrong storage."""
    _tell_what_is_left_out(state, host, incident)
    levels = [
        (index, tuple(device for device in level if not lasting.why_unusable(device, incident)))
        for index, level in enumerate(host.levels)
        if not any(device.name in incident.barred for device in level)
        and (incident.approved_by or trust.level_is_trusted(state, host, level))
        and not any(trust.is_mismatched(state, host.id, device) for device in level)
    ]
    return [(index, level) for index, level in levels if level]


def _tell_what_is_left_out(state: State, host: Host, incident: Incident) -> None:
    """Once for each incident."""
    if incident.attempts:
        return
    for device in power.devices(host):
        if why := lasting.why_unusable(device, incident):
            text = f"{host.name}: {device.name} is not used: {why}"
            state.tell_of(incident, Severity.WARNING, text, "The power devices go on alone. Look at its `datastores`.")


def _why_not(state: State, host: Host, incident: Incident) -> list[str]:
    """Devices that are not used in this incident, each with the reason."""
    found = []
    for device in power.devices(host):
        if device.name in incident.barred:
            found.append(f"{device.name}: barred, what it read was wrong")
        elif trust.is_mismatched(state, host.id, device):
            found.append(f"{device.name}: it belongs to another machine")
        elif why := lasting.why_unusable(device, incident):
            found.append(f"{device.name}: {why}")
        elif not incident.approved_by and not trust.is_trusted(state, host, device):
            found.append(f"{device.name}: nobody vouches that it is this host's")
    return found


def _counted(state: State, host: int, now: float) -> tuple[tuple[float, int], ...]:
    begun = now - max(state.settings.fences_per_s, DAY_S)
    return (*((at, fenced) for at, fenced in state.cloud.fences if at > begun and fenced != host), (now, host))


def _exhausted(state: State, host: Host, incident: Incident, now: float) -> None:
    last = dict.fromkeys(attempt.detail or attempt.outcome.value for attempt in incident.attempts[-2:])
    tried = "; ".join(last)  # two rounds that went the same way are told once
    state.stop(
        incident,
        f"{EXHAUSTED} ({tried or 'no usable fence device'}). Its {len(incident.vms)} VMs wait",
        f"Check its power. If you have seen that it is off: ha-controller confirm-off {host.name}",
        now,
    )
