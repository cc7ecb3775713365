"""Whether VMs that run are ready, where HA_READY on them says what shows it: asked over and over, until they are.

Unknown is not ready. It only ever delays the VMs that wait for this one, and never one's outcome. Nothing of it is
durable: after a restart everything is asked anew.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core.effects import AskReady, Severity
from ha_controller.core.events import Readiness, ReadyRead
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import HostState
from ha_controller.core.resources import ReadyGate
from ha_controller.core.state import ReadyView, State

ASK_EVERY_S = 2.0
ASK_RARELY_S = 30.0  #: one that was not ready in time
ANSWER_MAX_S = 150.0  #: an answer that is not there by then never comes: many may be asked before
SHOW_EVERY_S = 10.0  #: each change of a record goes to disk
NOT_READY = "; not ready: "
READY = "; ready"


def advance(state: State, now: float) -> None:
    """Ask whom there is to ask, show what they say, and tell who was not ready in time."""
    if state.term is None:
        return
    anybody_waits = any(incident.state is HostState.FENCED for incident in state.incidents.values())
    known: set[tuple[int, int]] = set()
    incidents = sorted(state.incidents.values(), key=lambda incident: incident.id)
    newest = {record.id: incident.id for incident in incidents for record in incident.vms}
    for incident in incidents:
        for record in incident.vms:
            gate = record.startup.ready
            if gate is None or record.stage is not VmStage.RUNNING or newest[record.id] != incident.id:
                continue
            known.add((incident.id, record.id))
            view = _view(state, incident, record, now)
            if view.ready_at is None and (anybody_waits or not view.told):
                _ask(state, incident, record, gate, view, now)
                _tell(state, incident, record, view, now)
            _show(state, incident.host, record, view, now)
    for key in [key for key in state.readiness if key not in known]:
        del state.readiness[key]


def note(state: State, event: ReadyRead, now: float) -> None:
    """Take in an answer. A late one, to a question before the last, says nothing."""
    view = state.readiness.get((event.incident, event.vm))
    if view is None or not view.awaited or event.asked_at < view.asked_at:
        return
    view.awaited, view.why_not = False, event.detail or event.readiness.value
    if event.readiness is Readiness.READY:
        view.ready_at = now


def since(state: State, incident: Incident, record: VmRecord) -> float | None:
    """Since when a VM that runs is ready, its delay aside; None: it is not."""
    if record.startup.ready is None:
        return record.settled_at
    view = state.readiness.get((incident.id, record.id))
    return None if view is None or view.settled_at != record.settled_at else view.ready_at


def last_at(state: State, incident: Incident) -> float:
    """When one of its VMs last became ready."""
    return max(
        (view.ready_at or 0.0 for (number, _), view in state.readiness.items() if number == incident.id), default=0.0
    )


def why_not(record: VmRecord) -> str:
    """Why a VM that runs is not ready, as it was last put on record."""
    return record.reason.partition(NOT_READY)[2]


def _view(state: State, incident: Incident, record: VmRecord, now: float) -> ReadyView:
    key = (incident.id, record.id)
    view = state.readiness.get(key)
    if view is None or view.settled_at != record.settled_at:
        told = incident.state is not HostState.FENCED and now - record.settled_at > state.settings.tier_timeout_s
        view = state.readiness[key] = ReadyView(settled_at=record.settled_at, since=now, told=told)
    return view


def _ask(state: State, incident: Incident, record: VmRecord, gate: ReadyGate, view: ReadyView, now: float) -> None:
    if view.awaited and now - view.asked_at >= ANSWER_MAX_S:
        view.awaited, view.why_not = False, f"no answer within {ANSWER_MAX_S:g} s"
    if view.awaited or now - view.asked_at < ASK_EVERY_S:
        return
    is_overdue = now - max(view.since, last_at(state, incident)) > state.settings.tier_timeout_s
    if not is_overdue or now - view.asked_at >= ASK_RARELY_S:
        view.awaited, view.asked_at = True, now
        state.out.append(AskReady(vm=record.id, incident=incident.id, host=record.runs_on, gate=gate))


def _tell(state: State, incident: Incident, record: VmRecord, view: ReadyView, now: float) -> None:
    """As long as VMs of its host wait, the order of starts tells it."""
    longest_s = state.settings.tier_timeout_s
    if view.told or incident.state is HostState.FENCED or now - record.settled_at <= longest_s:
        return
    view.told = True
    if record.id not in incident.passed_over:
        why = view.why_not or "it was not asked"
        text = f"{record.name} {_outcome(record)}, and is not ready after {longest_s:g} s: {why}"
        state.tell_of(incident, Severity.WARNING, text, "Look at it. No VM of this host waits for it.")


def _show(state: State, host: int, record: VmRecord, view: ReadyView, now: float) -> None:
    """Put on record how it stands."""
    if view.ready_at is None and (not view.why_not or now - view.shown_at < SHOW_EVERY_S):
        return
    reason = _outcome(record) + (f"{NOT_READY}{view.why_not}" if view.ready_at is None else READY)
    if reason != record.reason:
        view.shown_at = now
        after = replace(record, reason=reason)
        incident = state.incidents[host]
        vms = tuple(after if known.id == record.id else known for known in incident.vms)
        state.save(replace(incident, vms=vms))


def _outcome(record: VmRecord) -> str:
    return record.reason.partition(NOT_READY)[0].removesuffix(READY)
