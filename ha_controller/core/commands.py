"""What operators may order, and when the answer is no.

Answers carry the exit code of the command line: 0 done, 3 no such thing, 4 refused for safety, 9 not the leader.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import guard, life, pause, rejoin, suspicion, takeover, trust
from ha_controller.core.effects import (
    DONE,
    LOOK_AGAIN,
    NO_SUCH,
    NOT_LEADING,
    ORDER_VALID_S,
    REFUSED,
    Drill,
    MarkMaintenance,
    ReadPower,
    Severity,
)
from ha_controller.core.events import DrillReported, MaintenanceMarked, OperatorCommanded, PowerRead, Verb
from ha_controller.core.fencing import off_is_verified
from ha_controller.core.incident import Incident, Proof
from ha_controller.core.machine import Trigger
from ha_controller.core.model import Host, HostState, PowerState
from ha_controller.core.power import readable
from ha_controller.core.state import PendingCommand, State
from ha_controller.core.turns import Turns

#: between the deadline of one reading (4 s, three tries at most) and that of the API (40 s)
DEVICES_ANSWER_MAX_S = 25.0
DRILL_READ_AGE_MAX_S = 5.0  #: a drill needs to know that no VM is there


def obey(state: State, command: OperatorCommanded, now: float) -> None:
    """Carry out a command, or say why not."""
    who = f"{command.who}: {command.reason}" if command.reason else command.who
    if state.stands_by:
        text = f"{state.why_not_leading}, and what is ordered is on the record of the one that leads. Say it there."
        state.answer(command.request, NOT_LEADING, text[0].upper() + text[1:])
        return
    match command.verb:
        case Verb.PAUSE:
            pause.begin(state, command, who, now)
        case Verb.RESUME:
            pause.end(state, command)
        case Verb.FENCE:
            _fence(state, command, who, now)
        case Verb.DRILL:
            _drill(state, command, now)
        case Verb.MAINTENANCE_ON | Verb.MAINTENANCE_OFF:
            _maintenance(state, command, who, now)
        case _:
            incident = _incident(state, command)
            host = state.hosts.get(-1 if command.host is None else command.host)
            is_any = command.incident is None  # a person who means one incident does not mean a later one
            if incident is None and host is not None and is_any and _may_be_confirmed(state, command, host):
                incident = _opened(state, command, host, now)
            elif incident is None:
                state.answer(command.request, NO_SUCH, "There is no open incident of that host or number.")
            if incident is not None:
                _for_incident(state, command, incident, who, now)


def _for_incident(state: State, command: OperatorCommanded, incident: Incident, who: str, now: float) -> None:
    name = incident.host_name
    match command.verb:
        case Verb.APPROVE:
            _approve(state, command, incident, who, now)
        case Verb.REJECT:
            _reject(state, command, incident, who)
        case Verb.HOLD:
            state.save(replace(incident, held_by=who))
            state.answer(command.request, DONE, f"Held: nothing more is done with {name}.")
        case Verb.RELEASE:
            _release(state, command, incident, now)
        case Verb.CONFIRM_OFF:
            _confirm_off(state, command, incident, who, now)
        case Verb.UNFENCE:
            rejoin.unfence(state, command, incident, now)


def _incident(state: State, command: OperatorCommanded) -> Incident | None:
    if command.incident is not None:
        found = [known for known in state.incidents.values() if known.id == command.incident]
        return next((known for known in found if command.host in (None, known.host)), None)
    return state.incidents.get(command.host) if command.host is not None else None


def _approve(state: State, command: OperatorCommanded, incident: Incident, who: str, now: float) -> None:
    name = incident.host_name
    if takeover.refused_until_released(state, command.request, incident):
        return
    if incident.state is HostState.FENCED and (passed_over := Turns(state, now).overrule(incident, who)):
        state.answer(command.request, DONE, f"Approved: other VMs of {name} start before {passed_over}.")
        return
    if incident.state is HostState.OK and incident.rebooted:
        state.save(replace(incident, start_approved_by=who))
        state.answer(command.request, DONE, f"Approved: the VMs of {name} are started there again.")
        return
    if incident.state not in (HostState.SUSPECT, HostState.FAILED) or incident.stopped:
        state.answer(command.request, REFUSED, f"{name} is {incident.state.upper()}: nothing to approve.")
        return
    if (host := state.hosts.get(incident.host)) is not None and host.excluded:
        state.answer(command.request, REFUSED, f"{name} is out of scope, nothing is done with it: {host.excluded}.")
        return
    if host is not None and (where := guard.runs_here(state, host)):
        state.answer(command.request, REFUSED, f"{name}: {where}. {guard.instead_of_itself(state, host)}")
        return
    state.save(replace(incident, approved_by=who, rejected_by=""))
    state.answer(command.request, DONE, f"Approved: {name} is powered off if it is still silent.")


def _reject(state: State, command: OperatorCommanded, incident: Incident, who: str) -> None:
    name = incident.host_name
    if incident.state not in (HostState.SUSPECT, HostState.FAILED):
        hold = f"To stop its moves: ha-controller hold {name}"
        state.answer(command.request, REFUSED, f"{name} is {incident.state.upper()}: too late to reject. {hold}")
        return
    state.save(replace(incident, rejected_by=who, approved_by=""))
    sent = [attempt for attempt in incident.attempts if not attempt.had_no_effect]
    done = "no further power-off is sent; one was sent already" if sent else "it is not powered off"
    state.answer(command.request, DONE, f"Rejected: {name}: {done}.")


def _release(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Go on: a new round of attempts, or the moves, after fresh looks."""
    if incident.stopped and incident.state is HostState.FAILED:
        if alive := life.shown(state, incident.host, now):
            text = f"{incident.host_name} shows life ({alive}). If it is healthy: ha-controller unfence"
            text = life.or_wrong(state, incident.host, text, now)
            if incident.foreign:  # what was done under another leader is seen to; what stopped it is not
                state.save(replace(incident, foreign="", hold="", hold_needs_person=False))
                state.answer(command.request, DONE, f"Released, and it stays stopped: {text}")
            else:
                state.answer(command.request, REFUSED, text)
            return
        incident = replace(incident, attempts_forgiven=len(incident.tried))
    state.view(incident.host).power.clear()
    state.view(incident.host).off_since.clear()
    state.view(incident.host).told = ""
    state.save(
        replace(
            incident,
            held_by="",
            stopped="",
            rejected_by="",
            foreign="",
            hold="",
            hold_needs_person=False,
            lever_repeats=0,
        )
    )
    state.answer(command.request, DONE, f"Released: {incident.host_name} is taken up again.")


# --- maintenance ------------------------------------------------------------------------------------------------------


def _maintenance(state: State, command: OperatorCommanded, who: str, now: float) -> None:
    """Take a host out of our hands, or back. It is written in OpenNebula, where everybody sees it."""
    host, on = state.hosts.get(-1 if command.host is None else command.host), command.verb is Verb.MAINTENANCE_ON
    if host is None:
        state.answer(command.request, NO_SUCH, "There is no such host.")
    elif on and (incident := state.incidents.get(host.id)) is not None and incident.state not in rejoin.UNTOUCHED:
        hold = f"To stop what is being done with it: ha-controller hold {host.name}"
        state.answer(command.request, REFUSED, f"{host.name} is {incident.state.upper()}. {hold}")
    elif state.term is None:
        state.answer(command.request, NOT_LEADING, f"Nothing was done: {state.why_not_leading}.")
    else:
        until = None if command.for_s is None else now + command.for_s
        state.out.append(MarkMaintenance(host=host.id, request=command.request, on=on, until=until, reason=who))


def maintenance_marked(state: State, event: MaintenanceMarked) -> None:
    """Answer the one who asked for it; it is in force with the next inventory."""
    name = state.hosts[event.host].name if event.host in state.hosts else f"host {event.host}"
    if event.failure:
        state.answer(event.request, LOOK_AGAIN, f"OpenNebula does not take the mark on {name}: {event.failure}")
    else:
        state.answer(event.request, DONE, f"Written on {name} in OpenNebula; in force when it is next read.")


def maintenance_ended(state: State, before: Host | None, after: Host, now: float) -> None:
    """A suspension that ends says so, whether a person or the time ended it. The host must be seen alive once."""
    if before is None or not before.excluded or after.excluded:
        return
    view = state.view(after.id)
    view.views.clear()  # its full grace period begins: nobody acted on what was seen until now
    view.since, view.awaits_life = now, True
    if before.maintenance:
        next_step = "It is watched, and powered off if it fails."
        state.tell(Severity.INFO, f"{after.name}: maintenance has ended", next_step, host=after.id)


# --- fence and drill --------------------------------------------------------------------------------------------------


def _fence(state: State, command: OperatorCommanded, who: str, now: float) -> None:
    """Power a silent host off without waiting for the verdict. Guards stay; a host that answers is never touched."""
    host = state.hosts.get(-1 if command.host is None else command.host)
    if host is None:
        state.answer(command.request, NO_SUCH, "There is no such host.")
        return
    incident = state.incidents.get(host.id)
    if why := why_not_fenced(state, host, now):
        state.answer(command.request, REFUSED, why)
    elif incident is not None and takeover.refused_until_released(state, command.request, incident):
        return
    elif incident := incident or _opened(state, command, host, now):
        state.save(ordered(incident, who))
        state.answer(command.request, DONE, f"{host.name} is powered off if it is still silent and no guard says no.")


def ordered(incident: Incident, who: str) -> Incident:
    """The same, with the order of a person to power its host off."""
    return replace(incident, ordered_by=who, approved_by=who, rejected_by="", verdict="ordered")


def why_not_fenced(state: State, host: Host, now: float) -> str:
    """Why an order to power a host off would be refused now; empty if it would be taken. Guards come after that."""
    view = state.view(host.id)
    if host.excluded:
        return f"{host.name} is out of scope: {host.excluded}"
    if where := guard.runs_here(state, host):
        return f"{host.name}: {where}. {guard.instead_of_itself(state, host)}"
    if alive := life.shown(state, host.id, now):
        text = f"{host.name} is not silent: {alive}, and a host that shows life is never powered off."
        return life.or_wrong(state, host.id, text, now)
    if view.state is not HostState.SUSPECT:
        return f"{host.name} is {view.state.upper()}: only a host that is silent (SUSPECT) is powered off by hand."
    return ""


def _may_be_confirmed(state: State, command: OperatorCommanded, host: Host) -> bool:
    """Whether a person may say that a silent host is off, before there is a verdict."""
    is_silent = state.view(host.id).state is HostState.SUSPECT
    return command.verb is Verb.CONFIRM_OFF and is_silent and not host.excluded


def _opened(state: State, command: OperatorCommanded, host: Host, now: float) -> Incident | None:
    """The incident of a silent host that a person does not want to wait for; None, and answered, without its VMs."""
    if suspicion.vms_are_known(state.view(host.id), now):
        return suspicion.open_incident(state, host, suspicion.verdict_of(state, host, now), now)
    suspicion.ask_for_vms(state, host.id, now)
    state.answer(command.request, LOOK_AGAIN, f"The VMs of {host.name} are being read. Try again.")
    return None


def why_no_drill(state: State, host: Host) -> str:
    """Why the host must not be powered off and on for a drill now; empty if it may."""
    if not host.maintenance:
        return f"not in maintenance: ha-controller maintenance on {host.name} --reason drill, and move its VMs away"
    if vms := len(host.vms) or len(state.view(host.id).vms):
        return f"{vms} VMs are there: move them away"
    if host.id in state.incidents:
        return "there is an open incident"
    if state.term is None or state.cloud.paused_by:
        return "we do not lead, or the cloud is paused"
    if where := guard.runs_here(state, host):
        return where
    return "" if readable(host) else "it has no fence device that can be read"


def _drill(state: State, command: OperatorCommanded, now: float) -> None:
    """Switch a host in maintenance off and on with each device: the only way to see that a fence works."""
    host = state.hosts.get(-1 if command.host is None else command.host)
    if host is None:
        state.answer(command.request, NO_SUCH, "There is no such host.")
        return
    view, names = state.view(host.id), readable(host)
    if why := why_no_drill(state, host):
        state.answer(command.request, REFUSED, f"{host.name}: {why}.")
    elif view.read_at is None or now - view.read_at > DRILL_READ_AGE_MAX_S:
        suspicion.ask_for_vms(state, host.id, now)
        state.answer(command.request, LOOK_AGAIN, f"{host.name} is being read. Try again.")
    else:
        not_after = now + ORDER_VALID_S
        state.out.append(Drill(host=host.id, request=command.request, devices=names, not_after=not_after))


def drill_reported(state: State, event: DrillReported, now: float) -> None:
    """Put on record what a drill has shown, and answer the one who asked for it."""
    lines = [f"{device}: {detail}" for device, _, _, detail in event.results]
    for device, fingerprint, switched, _ in event.results:
        if switched:
            trust.note_trust(state, event.host, device, fingerprint, trust.DRILLED, now)
    passed = bool(event.results) and all(switched for _, _, switched, _ in event.results) and event.is_back
    host = state.hosts.get(event.host)
    name = host.name if host is not None else f"host {event.host}"
    if passed:
        state.tell(Severity.INFO, f"{name}: drill passed: {'; '.join(lines)}", "Nothing to do.", host=event.host)
    else:
        text = f"{name}: drill NOT passed: {'; '.join(lines) or 'nothing was done'}"
        next_step = "Look at the device and at the host's power before this host is needed again."
        state.tell(Severity.CRITICAL, text, next_step, host=event.host)
    state.answer(event.request, DONE if passed else REFUSED, "\n".join(lines) or "Nothing was done.")


# --- confirm-off ------------------------------------------------------------------------------------------------------


def _confirm_off(state: State, command: OperatorCommanded, incident: Incident, who: str, now: float) -> None:
    name = incident.host_name
    if incident.state not in (HostState.SUSPECT, HostState.FAILED, HostState.FENCED):
        state.answer(command.request, REFUSED, f"{name} is {incident.state.upper()}: there is nothing to confirm.")
        return
    if takeover.refused_until_released(state, command.request, incident):
        return
    if _refused_by_life(state, command.request, incident, now):
        return
    host = state.hosts.get(incident.host)
    if host is None:
        text = "OpenNebula has not been read since the start, so its devices are not known yet. Try again."
        state.answer(command.request, REFUSED, text)
        return
    names = readable(host)
    of = {"host": incident.host, "incident": incident.id}
    pending = PendingCommand(request=command.request, **of, devices=names, who=who, asked_at=now)
    if not names:
        _accept(state, pending, incident, now)
        return
    state.confirming.append(pending)
    state.out.append(ReadPower(host=incident.host, devices=names))


def _refused_by_life(state: State, request: int, incident: Incident, now: float) -> bool:
    if alive := life.shown(state, incident.host, now):
        text = f"Refused: {incident.host_name} is not off, {alive}."
        state.answer(request, REFUSED, life.or_wrong(state, incident.host, text, now))
    return bool(alive)


def power_read(state: State, event: PowerRead, now: float) -> None:
    """A `confirm-off` waits for a reading of all devices that was asked for after it; any ON refuses it."""
    answered = {name for name, _ in event.states}
    waiting = [
        pending
        for pending in state.confirming
        if pending.host == event.host and event.asked_at >= pending.asked_at and answered >= set(pending.devices)
    ]
    _confirmed(state, waiting, event, now)


def _confirmed(state: State, waiting: list[PendingCommand], event: PowerRead, now: float) -> None:
    state.confirming = [pending for pending in state.confirming if pending not in waiting]
    for pending in waiting:
        incident = state.incidents.get(pending.host)
        on = [name for name, power in event.states if power is PowerState.ON]
        if incident is None or incident.id != pending.incident:
            state.answer(pending.request, NO_SUCH, "The incident has ended meanwhile.")
        elif channel := life.since(state, pending.host, pending.asked_at):
            text = f"Refused: {channel} has seen {incident.host_name} alive since you said so. Look at it again."
            state.answer(pending.request, REFUSED, life.or_wrong(state, pending.host, text, now))
        elif on:
            text = f"Refused: {', '.join(on)} reads ON. Power {incident.host_name} off first."
            views = state.view(pending.host).devices
            if strange := [name for name in on if name in views and views[name].mismatch]:
                text += f" If that is another machine's ({', '.join(strange)}), take it out of [[fence]] first."
            state.answer(pending.request, REFUSED, text)
        elif not (
            takeover.refused_until_released(state, pending.request, incident)
            or _refused_by_life(state, pending.request, incident, now)
        ):
            _accept(state, pending, incident, now)


def expire(state: State, now: float) -> None:
    """Devices that never answered do not keep a person waiting: nothing contradicts their word."""
    for pending in [pending for pending in state.confirming if now - pending.asked_at > DEVICES_ANSWER_MAX_S]:
        _confirmed(state, [pending], PowerRead(host=pending.host, asked_at=pending.asked_at, states=()), now)


def _accept(state: State, pending: PendingCommand, incident: Incident, now: float) -> None:
    if incident.state is HostState.SUSPECT:
        incident = state.save(replace(state.enter(incident, Trigger.CONDEMNED, now), failed_at=now))
    proof = Proof(at=now, text=f"confirmed off by {pending.who}")
    if incident.state is HostState.FAILED:
        off_is_verified(state, incident, proof, now)
    else:
        state.save(replace(incident, proof=proof, stopped="", hold="", hold_needs_person=False))
    text = f"Recorded: {incident.host_name} is off. Its VMs are started elsewhere now."
    state.answer(pending.request, DONE, text)
