"""What is shown: the core's state as plain values for the API, the command line and the demo.

Reads only. One plain verdict first, then the numbers; every hold comes with what to do about it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ha_controller.core import commands, guard, rejoin, reserve, simulate, timeline, trust
from ha_controller.core.detector import Views, word_of
from ha_controller.core.incident import Incident, VmStage
from ha_controller.core.model import Host, HostState, Signal
from ha_controller.core.settings import Mode, Settings
from ha_controller.core.state import HostView, State
from ha_controller.core.suspicion import verdict_of
from ha_controller.core.turns import asks

SCHEMA = "ha-controller/v1"
Json = dict[str, Any]

ROUND_AGE_MAX_S = 10.0  #: a decision loop that has not turned for so long stands still
STANDS_STILL = "This controller stands still (is its disk full, or does it hang?)"
WELL, DEGRADED, GUARDED, WAITS = 0, 1, 4, 5  #: exit codes of `status`


def status(state: State, now: float, round_age_s: float = 0.0) -> Json:
    """The cloud in one sentence, an exit code and counts. `round_age_s`: since something was last decided."""
    code, sentence = _verdict(state)
    if round_age_s >= ROUND_AGE_MAX_S:  # what the state says is as old as that
        still = f"{STANDS_STILL}: for {round_age_s:.0f} s nothing was decided."
        code, sentence = DEGRADED, f"{still} It said last: {sentence}"
    counts = {each.value: 0 for each in HostState}
    for host in state.hosts.values():
        counts[state.view(host.id).state.value] += 1
    return {
        "schema": SCHEMA,
        "at": round(now, 3),
        "verdict": sentence,
        "code": code,
        "mode": state.settings.mode.value,
        "paused": state.cloud.paused_by,
        "paused_until": state.cloud.paused_until,
        "term": state.term,
        "leader": state.leader,
        "lead_trouble": state.lead_trouble,
        "hosts": {"total": len(state.hosts), **counts},
        "excluded": sum(bool(host.excluded) for host in state.hosts.values()),
        "oned_age_s": None if state.oned_at is None else round(now - state.oned_at, 1),
        "oned_error": state.oned_detail,
        "self_check": {"ok": state.self_check, "detail": state.self_check_detail},
        "second_master": {"present": state.second_master, "detail": state.second_master_detail},
        "settling_s": max(0.0, round(state.settle_until - now, 1)),
    }


def host_id(state: State, host: str) -> int | None:
    """The id of a host by id or name; None: there is no such host, or more than one.

    A host may be called like the number of another. Whoever means one of them must never get the other.
    """
    found = [known.id for known in state.hosts.values() if host in (known.name, str(known.id))]
    return found[0] if len(found) == 1 else None


def _verdict(state: State) -> tuple[int, str]:
    waiting = [incident for _, incident in sorted(state.incidents.items()) if needs_person(incident)]
    if waiting:
        first = waiting[0]
        more = f" ({len(waiting) - 1} more)" if len(waiting) > 1 else ""
        return WAITS, f"{first.host_name} waits for a person: {first.stopped or first.hold}{more}"
    if state.cloud.paused_by:
        return GUARDED, _paused(state)
    under_way = [known for _, known in sorted(state.incidents.items()) if known.state is not HostState.RECOVERED]
    if held := [incident for incident in under_way if incident.hold]:
        return GUARDED, f"{held[0].host_name}: {held[0].hold}"
    if under_way:
        return DEGRADED, f"{_progress(under_way[0])} Nothing for you to do."
    if state.term is None and state.lead_trouble:
        return GUARDED, f"This controller does not lead: {state.lead_trouble}. It powers nothing off and moves nothing."
    if not state.hosts:
        return DEGRADED, f"OpenNebula has not been read yet: {state.oned_detail}"
    if state.oned_detail:
        return DEGRADED, f"OpenNebula cannot be read: {state.oned_detail}"
    suspects = [host.name for host in state.hosts.values() if state.view(host.id).state is HostState.SUSPECT]
    if suspects:
        return DEGRADED, f"{', '.join(sorted(suspects)[:3])} does not answer; looking closely. Nothing for you to do."
    if state.settings.mode is not Mode.OBSERVE and (helpless := _helpless(state)):
        more = f" and {len(helpless) - 3} more" if len(helpless) > 3 else ""
        return DEGRADED, (
            f"All hosts answer, but could not be powered off if they failed: {', '.join(helpless[:3])}{more}. "
            "Why: ha-controller fencing list"
        )
    recovered = [incident.host_name for incident in state.incidents.values()]
    if recovered:
        wait = "waits" if len(recovered) == 1 else "wait"
        return WELL, f"All VMs are cared for. {', '.join(sorted(recovered))} {wait} for repair."
    if state.settings.mode is Mode.OBSERVE:
        return WELL, "All hosts are well. Mode observe: nothing would be powered off."
    if state.leader:
        return WELL, f"All hosts are well. {state.leader} leads; this controller stands by."
    return WELL, "All hosts are well."


def _paused(state: State) -> str:
    by = f"{state.cloud.paused_by}{'' if state.cloud.paused_until is None else ' (ends by itself)'}"
    if state.leader:
        return f"This controller is paused by {by}. {state.leader} leads and is not paused by that."
    return f"Paused by {by}: nothing is powered off or moved."


def _helpless(state: State) -> list[str]:
    """Hosts of which no fence device passes its check now, or has passed one yet."""
    return sorted(
        host.name
        for host in state.hosts.values()
        if not host.excluded and state.view(host.id).state is HostState.OK
        if not any(device.ok and not device.mismatch for device in state.view(host.id).devices.values())
    )


def _progress(incident: Incident) -> str:
    running = sum(record.stage is VmStage.RUNNING for record in incident.vms)
    match incident.state:
        case HostState.FAILED:
            step = f"is being powered off (attempt {incident.attempts[-1].number if incident.attempts else 1})"
        case HostState.OK:
            step = f"rebooted by itself; {running} of {len(incident.vms)} VMs run again"
        case HostState.FENCED:
            step = f"is off; {running} of {len(incident.vms)} VMs run elsewhere"
        case HostState.RECOVERED:
            step = "is off and waits for repair; its VMs are cared for"
        case _:
            step = "is silent"
    return f"{incident.host_name} {step}."


def needs_person(incident: Incident) -> bool:
    """Whether nothing will happen until somebody decides."""
    return incident.open and (bool(incident.stopped) or incident.hold_needs_person)


def hosts(state: State, now: float) -> list[Json]:
    """One row for each host, the ones that are not OK first."""
    rows = [_host_row(state, host, now) for host in state.hosts.values()]
    return sorted(rows, key=lambda row: (row["state"] == HostState.OK.value, row["id"]))


def _host_row(state: State, host: Host, now: float) -> Json:
    view = state.view(host.id)
    incident = state.incidents.get(host.id)
    return {
        "id": host.id,
        "name": host.name,
        "cluster": host.cluster,
        "cluster_name": host.cluster_name,
        "places": dict(host.places),
        "one_state": _one_state(state, host),
        "state": view.state.value,
        "for_s": round(now - view.since, 1),
        "vms": len(host.vms),
        "maintenance": host.maintenance,
        "fencing": _fencing(state, host, now),
        "incident": None if incident is None else incident.id,
        "note": _note(host, incident),
        "silent": _silent(view.views, state.settings, now),
    }


def _silent(views: Views, settings: Settings, now: float) -> list[str]:
    """The channels whose last word is silence, as long as that word counts."""
    return [
        channel.name
        for channel in settings.channels
        if (view := views.get(channel.name)) is not None
        and view.signal is Signal.SILENT
        and view.fresh(now, settings.gap_max_s(channel))
    ]


def _one_state(state: State, host: Host) -> int:
    """As it was read last: with all hosts, or alone, which is done for suspects only."""
    view = state.view(host.id)
    if view.one_state is None or view.read_at is None or (state.oned_at or 0.0) > view.read_at:
        return host.one_state
    return view.one_state


def _note(host: Host, incident: Incident | None) -> str:
    if incident is None:
        return host.excluded
    return incident.stopped or incident.hold or _progress(incident)


def _age(view: HostView, device: str, now: float) -> float | None:
    checked_at = view.devices[device].checked_at if device in view.devices else None
    return None if checked_at is None else round(now - checked_at, 1)


def _fencing(state: State, host: Host, now: float) -> list[Json]:
    view = state.view(host.id)
    return [
        {
            "device": device.name,
            "level": level,
            "ready": device.name in view.devices and view.devices[device.name].ok,
            "summary": view.devices[device.name].summary if device.name in view.devices else "not checked yet",
            "checked_s_ago": _age(view, device.name, now),
            "identity": trust.how_trusted(state, host, device),
            "seen_on": trust.was_seen_on(state, host.id, device),
            "drilled_s_ago": None if (at := trust.drilled_at(state, host.id, device)) is None else round(now - at, 1),
            "mismatch": view.devices[device.name].mismatch if device.name in view.devices else "",
        }
        for level, devices in enumerate(host.levels, start=1)
        for device in devices
    ]


def explain(state: State, host: Host, now: float) -> Json:
    """Why a host is in its state, what blocks it and what comes next."""
    view = state.view(host.id)
    verdict = verdict_of(state, host, now)
    opened = state.incidents.get(host.id)
    asked = opened or _imagined(host, view, verdict.kind.value, now)
    is_off = view.state in (HostState.FENCED, HostState.RECOVERED)  # no guard is asked any more
    results = () if is_off else guard.check(state, host, asked, now)
    return {
        "schema": SCHEMA,
        **_host_row(state, host, now),
        "verdict": {"kind": verdict.kind.value, "reason": verdict.reason},
        "evidence": list(state.evidence(host.id, now)),
        "channels": _channels(view.views, state.rules(host.id), now),
        "guards": [{"guard": each.guard, "passes": each.passes, "reason": each.reason} for each in results],
        "if_ordered": _if_ordered(state, host, asked, now),
        "rejoin": _rejoin(state, opened, now),
        "if_failed": _if_failed(state, host, now) if opened is None else "",
        "plan": [] if opened is None else _plan(state, host, opened, now),
        "record": None if opened is None else incident(opened),
    }


def _channels(views: Views, rules: Settings, now: float) -> list[Json]:
    """The same as `evidence`, in columns; a channel that has shown nothing yet is unknown."""
    rows = []
    for channel in rules.channels:
        view = views.get(channel.name)
        word = Signal.UNKNOWN.value if view is None else word_of(view, rules, now)
        silent_since = None if view is None or word != Signal.SILENT.value else view.silent_since
        alive_at = None if view is None else view.alive_at
        rows.append(
            {
                "channel": channel.name,
                "domain": channel.domain.value,
                "signal": word,
                "silent_s": None if silent_since is None else round(now - silent_since, 1),
                "alive_s_ago": None if alive_at is None else round(now - alive_at, 1),
                "detail": "nothing yet" if view is None else view.unknown_detail or view.detail,
            }
        )
    return rows


def _if_ordered(state: State, host: Host, asked: Incident, now: float) -> Json:
    """What `fence` would come to now: whether it is refused, what holds it up, and what the guards say to it."""
    refused = commands.why_not_fenced(state, host, now)
    incident = commands.ordered(asked, "a person")
    brake = state.brake(incident)
    results = () if refused else guard.check(state, host, incident, now)
    return {
        "refused": refused,
        "hold": "" if brake is None or refused else brake.text,
        "guards": [{"guard": each.guard, "passes": each.passes, "reason": each.reason} for each in results],
    }


def _rejoin(state: State, opened: Incident | None, now: float) -> list[Json]:
    """What stands between a host that is away and its readmission."""
    if opened is None or opened.state not in rejoin.AWAY:
        return []
    return [
        {"condition": each.name, "passes": each.passed, "reason": each.reason, "can_be_forced": each.forcible}
        for each in rejoin.gate(state, opened, now)
    ]


def _if_failed(state: State, host: Host, now: float) -> str:
    """What would become of its VMs, as it was last computed."""
    known = state.reserve
    loss = None if known is None else next((each for each in known.losses if each.host == host.id), None)
    if known is None or loss is None:
        return state.reserve_failure
    return f"{reserve.described(loss.vms, loss.without)} (computed {now - known.asked_at:.0f} s ago)"


def _plan(state: State, host: Host, opened: Incident, now: float) -> list[str]:
    """Where its VMs would go, before it is FENCED; after that the plan that is followed is on record."""
    vms = state.view(host.id).vms.values()
    if opened.state not in (HostState.SUSPECT, HostState.FAILED) or not vms:
        return []
    loss = simulate.snapshot(state, vms, now).lose([host.id])
    names = {number: known.name for number, known in state.hosts.items()}
    placed = [f"{each.name} → {names[each.destination]}" for each in loss.placements if each.destination is not None]
    return [
        *(f"{each.name} {each.reason}" for each in loss.nowhere),
        *placed,
        *(f"{each.name} is left alone: {each.reason}" for each in loss.left),
    ]


def _imagined(host: Host, view: HostView, verdict: str, now: float) -> Incident:
    """What the guards would be asked if the host failed now."""
    return Incident(
        id=0,
        host=host.id,
        host_name=host.name,
        opened_at=now,
        state=view.state,
        verdict=verdict,
        prior_one_state=host.one_state,
        prior_marked=host.marked,
    )


def incident(known: Incident) -> Json:
    """An incident with everything that is on record, and how long each part of it took."""
    record = asdict(known)
    for row, vm in zip(record["vms"], known.vms, strict=True):
        row["outage_s"] = timeline.outage_s(known, vm)
    took = timeline.phases(known)
    return {"schema": SCHEMA, **record, "open": known.open, "needs_person": needs_person(known), "phases_s": took}


def pending(state: State) -> list[Json]:
    """Decisions that wait for a person."""
    return [
        {
            "id": known.id,
            "host": known.host_name,
            "state": known.state.value,
            "question": known.stopped or known.hold,
            "can_approve": known.state is HostState.SUSPECT or asks(known),
        }
        for _, known in sorted(state.incidents.items())
        if needs_person(known)
    ]
