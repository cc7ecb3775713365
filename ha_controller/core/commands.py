"""What operators may order, and when the answer is no.

Answers carry the exit code of the command line: 0 done, 3 no such thing, 4 refused for safety.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lasting, lever, reboot, suspicion, trust
from ha_controller.core.detector import alive_channels
from ha_controller.core.effects import ORDER_VALID_S, Answer, Drill, MarkMaintenance, ReadPower, Severity
from ha_controller.core.events import DrillReported, MaintenanceMarked, OperatorCommanded, PowerRead, Verb
from ha_controller.core.fencing import off_is_verified
from ha_controller.core.incident import AttemptOutcome, Incident, Lever, Proof
from ha_controller.core.machine import Trigger
from ha_controller.core.model import Host, HostState, OnedHostState, PowerState
from ha_controller.core.power import readable
from ha_controller.core.state import PendingCommand, State

GONE = "it is no longer in OpenNebula"
UNTOUCHED = (HostState.OK, HostState.SUSPECT)  #: nothing was powered off yet
DONE, NO_SUCH, REFUSED, LOOK_AGAIN = 0, 3, 4, 6
#: between the deadline of one reading (4 s, three tries at most) and that of the API (40 s)
DEVICES_ANSWER_MAX_S = 25.0
DRILL_READ_AGE_MAX_S = 5.0  #: a drill needs to know that no VM is there


def obey(state: State, command: OperatorCommanded, now: float) -> None:
    """Carry out a command, or say why not."""
    who = f"{command.who}: {command.reason}" if command.reason else command.who
    match command.verb:
        case Verb.PAUSE:
            state.save_cloud(replace(state.cloud, paused_by=who))
            _answer(state, command.request, DONE, "Paused: nothing is powered off or moved. Probing goes on.")
        case Verb.RESUME:
            state.save_cloud(replace(state.cloud, paused_by=""))
            _answer(state, command.request, DONE, "Resumed.")
        case Verb.FENCE:
            _fence(state, command, who, now)
        case Verb.DRILL:
            _drill(state, command, now)
        case Verb.MAINTENANCE_ON | Verb.MAINTENANCE_OFF:
            _maintenance(state, command, who, now)
        case _:
            incident = _incident(state, command)
            if incident is None:
                _answer(state, command.request, NO_SUCH, "There is no open incident of that host or number.")
                return
            _for_incident(state, command, incident, who, now)


def _for_incident(state: State, command: OperatorCommanded, incident: Incident, who: str, now: float) -> None:
    name = incident.host_name
    match command.verb:
        case Verb.APPROVE:
            _approve(state, command, incident, who)
        case Verb.REJECT:
            _reject(state, command, incident, who)
        case Verb.HOLD:
            state.save(replace(incident, held_by=who))
            _answer(state, command.request, DONE, f"Held: nothing more is done with {name}.")
        case Verb.RELEASE:
            _release(state, command, incident, now)
        case Verb.CONFIRM_OFF:
            _confirm_off(state, command, incident, who, now)
        case Verb.UNFENCE:
            _unfence(state, command, incident, now)


def _incident(state: State, command: OperatorCommanded) -> Incident | None:
    if command.incident is not None:
        return next((known for known in state.incidents.values() if known.id == command.incident), None)
    return state.incidents.get(command.host) if command.host is not None else None


def _answer(state: State, request: int, code: int, text: str) -> None:
    state.out.append(Answer(request=request, code=code, text=text))


def _approve(state: State, command: OperatorCommanded, incident: Incident, who: str) -> None:
    name = incident.host_name
    if incident.state is HostState.OK and incident.rebooted:
        state.save(replace(incident, start_approved_by=who))
        _answer(state, command.request, DONE, f"Approved: the VMs of {name} are started there again.")
        return
    if incident.state not in (HostState.SUSPECT, HostState.FAILED) or incident.stopped:
        _answer(state, command.request, REFUSED, f"{name} is {incident.state.upper()}: nothing to approve.")
        return
    state.save(replace(incident, approved_by=who, rejected_by=""))
    _answer(state, command.request, DONE, f"Approved: {name} is powered off if it is still silent.")


def _reject(state: State, command: OperatorCommanded, incident: Incident, who: str) -> None:
    name = incident.host_name
    if incident.state not in (HostState.SUSPECT, HostState.FAILED):
        hold = f"To stop its moves: ha-controller hold {name}"
        _answer(state, command.request, REFUSED, f"{name} is {incident.state.upper()}: too late to reject. {hold}")
        return
    state.save(replace(incident, rejected_by=who, approved_by=""))
    sent = [attempt for attempt in incident.attempts if attempt.outcome is not AttemptOutcome.REFUSED]
    done = "no further power-off is sent; one was sent already" if sent else "it is not powered off"
    _answer(state, command.request, DONE, f"Rejected: {name}: {done}.")


def _release(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Go on: a new round of attempts, or the moves, after fresh looks."""
    if incident.stopped and incident.state is HostState.FAILED:
        alive = alive_channels(state.view(incident.host).views, state.rules(incident.host), now)
        if alive:
            text = f"{incident.host_name} answers ({', '.join(alive)}). If it is healthy: ha-controller unfence"
            _answer(state, command.request, REFUSED, text)
            return
        incident = replace(incident, attempts_forgiven=len(incident.attempts))
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
    _answer(state, command.request, DONE, f"Released: {incident.host_name} is taken up again.")


# --- maintenance ------------------------------------------------------------------------------------------------------


def _maintenance(state: State, command: OperatorCommanded, who: str, now: float) -> None:
    """Take a host out of our hands, or back. It is written in OpenNebula, where everybody sees it."""
    host, on = state.hosts.get(-1 if command.host is None else command.host), command.verb is Verb.MAINTENANCE_ON
    if host is None:
        _answer(state, command.request, NO_SUCH, "There is no such host.")
    elif on and (incident := state.incidents.get(host.id)) is not None and incident.state not in UNTOUCHED:
        hold = f"To stop what is being done with it: ha-controller hold {host.name}"
        _answer(state, command.request, REFUSED, f"{host.name} is {incident.state.upper()}. {hold}")
    elif state.term is None:
        _answer(state, command.request, REFUSED, "This controller does not hold the lead.")
    else:
        until = None if command.for_s is None else now + command.for_s
        state.out.append(MarkMaintenance(host=host.id, request=command.request, on=on, until=until, reason=who))


def maintenance_marked(state: State, event: MaintenanceMarked) -> None:
    """Answer the one who asked for it; it is in force with the next inventory."""
    name = state.hosts[event.host].name if event.host in state.hosts else f"host {event.host}"
    if event.failure:
        _answer(state, event.request, LOOK_AGAIN, f"OpenNebula does not take the mark on {name}: {event.failure}")
    else:
        _answer(state, event.request, DONE, f"Written on {name} in OpenNebula; in force when it is next read.")


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
        _answer(state, command.request, NO_SUCH, "There is no such host.")
        return
    view, incident = state.view(host.id), state.incidents.get(host.id)
    if host.excluded:
        _answer(state, command.request, REFUSED, f"{host.name} is out of scope: {host.excluded}")
    elif view.state is not HostState.SUSPECT or alive_channels(view.views, state.rules(host.id), now):
        answers = ", ".join(alive_channels(view.views, state.rules(host.id), now))
        why = f"{answers} answers, and a host that shows life is never powered off" if answers else view.state.upper()
        _answer(state, command.request, REFUSED, f"{host.name} is not silent: {why}.")
    elif incident is None and not suspicion.vms_are_known(view, now):
        suspicion.ask_for_vms(state, host.id, now)
        _answer(state, command.request, LOOK_AGAIN, f"The VMs of {host.name} are being read. Try again.")
    else:
        if incident is None:
            incident = suspicion.open_incident(state, host, suspicion.verdict_of(state, host, now), now)
        state.save(replace(incident, ordered_by=who, approved_by=who, rejected_by="", verdict="ordered"))
        _answer(state, command.request, DONE, f"{host.name} is powered off if it is still silent and no guard says no.")


def why_no_drill(state: State, host: Host) -> str:
    """Why the host must not be powered off and on for a drill now; empty if it may."""
    if not host.maintenance:
        return f"not in maintenance: ha-controller maintenance on {host.name}, and move its VMs away"
    if vms := len(host.vms) or len(state.view(host.id).vms):
        return f"{vms} VMs are there: move them away"
    if host.id in state.incidents:
        return "there is an open incident"
    if state.term is None or state.cloud.paused_by:
        return "we do not lead, or the cloud is paused"
    return "" if readable(host) else "it has no fence device that can be read"


def _drill(state: State, command: OperatorCommanded, now: float) -> None:
    """Switch a host in maintenance off and on with each device: the only way to see that a fence works."""
    host = state.hosts.get(-1 if command.host is None else command.host)
    if host is None:
        _answer(state, command.request, NO_SUCH, "There is no such host.")
        return
    view, names = state.view(host.id), readable(host)
    if why := why_no_drill(state, host):
        _answer(state, command.request, REFUSED, f"{host.name}: {why}.")
    elif view.read_at is None or now - view.read_at > DRILL_READ_AGE_MAX_S:
        suspicion.ask_for_vms(state, host.id, now)
        _answer(state, command.request, LOOK_AGAIN, f"{host.name} is being read. Try again.")
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
    _answer(state, event.request, DONE if passed else REFUSED, "\n".join(lines) or "Nothing was done.")


# --- confirm-off ------------------------------------------------------------------------------------------------------


def _confirm_off(state: State, command: OperatorCommanded, incident: Incident, who: str, now: float) -> None:
    name = incident.host_name
    if incident.state not in (HostState.SUSPECT, HostState.FAILED, HostState.FENCED):
        _answer(state, command.request, REFUSED, f"{name} is {incident.state.upper()}: there is nothing to confirm.")
        return
    if _refused_by_life(state, command.request, incident, now):
        return
    host = state.hosts.get(incident.host)
    if host is None:
        text = "OpenNebula has not been read since the start, so its devices are not known yet. Try again."
        _answer(state, command.request, REFUSED, text)
        return
    names = readable(host)
    pending = PendingCommand(request=command.request, host=incident.host, devices=names, who=who, asked_at=now)
    if not names:
        _accept(state, pending, incident, now)
        return
    state.confirming.append(pending)
    state.out.append(ReadPower(host=incident.host, devices=names))


def _refused_by_life(state: State, request: int, incident: Incident, now: float) -> bool:
    alive = alive_channels(state.view(incident.host).views, state.rules(incident.host), now)
    if alive:
        text = f"Refused: {incident.host_name} is not off, {', '.join(alive)} answers."
        _answer(state, request, REFUSED, text)
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
        if incident is None:
            _answer(state, pending.request, NO_SUCH, "The incident has ended meanwhile.")
        elif on:
            text = f"Refused: {', '.join(on)} reads ON. Power {incident.host_name} off first."
            _answer(state, pending.request, REFUSED, text)
        elif not _refused_by_life(state, pending.request, incident, now):
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
    _answer(state, pending.request, DONE, text)


# --- unfence ----------------------------------------------------------------------------------------------------------


def _unfence(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Readmit a host that answers again: the way back to OK."""
    name, view = incident.host_name, state.view(incident.host)
    needed_s = state.settings.rejoin_after_s
    if incident.state is HostState.FENCED:
        _answer(
            state, command.request, REFUSED, f"VMs of {name} still wait for an outcome; it cannot be readmitted yet."
        )
    elif incident.state in UNTOUCHED:
        _dismiss(state, command, incident, now)
    elif (host := state.hosts.get(incident.host)) is not None and host.excluded == GONE:
        suspicion.close(state, incident, f"dismissed by {command.who}: {GONE}", now)
        _answer(state, command.request, DONE, f"{name}: its incident is closed; it is no longer in OpenNebula.")
    elif incident.attempts and incident.attempts[-1].outcome in (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED):
        _answer(state, command.request, REFUSED, f"A power-off of {name} is still under way. Try again.")
    elif view.answers_since is None or not alive_channels(view.views, state.rules(incident.host), now):
        _answer(state, command.request, REFUSED, f"{name} does not answer. Power it on first.")
    elif now - view.answers_since < needed_s:
        text = f"{name} answers for {now - view.answers_since:.0f} s only; {needed_s:g} s are needed. Try again."
        _answer(state, command.request, REFUSED, text)
    elif not command.repaired and (often := suspicion.quarantine(state, incident.host, now)):
        text = f"{name} is in quarantine: {often}. If that is repaired: ha-controller unfence {name} --repaired"
        _answer(state, command.request, REFUSED, text)
    else:
        _give_back(state, command, incident, now)


def _dismiss(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Close an incident in which nothing was powered off; VMs that were to be started again are named."""
    name, view = incident.host_name, state.view(incident.host)
    if incident.lever is not Lever.NOT_BEGUN:
        _answer(state, command.request, REFUSED, f"OpenNebula is just being made to ask {name} anew. Try again.")
    elif view.answers_since is None or not alive_channels(view.views, state.rules(incident.host), now):
        _answer(state, command.request, REFUSED, f"{name} does not answer. Power it on first.")
    else:
        dropped = ", ".join(record.name for record in incident.vms if not record.settled) if incident.rebooted else ""
        more = f"; not started again: {dropped}" if dropped else ""
        suspicion.close(state, incident, f"dismissed by {command.who}{more}", now)
        _answer(state, command.request, DONE, f"{name} is readmitted{more}.")


def _give_back(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Lift what is in force, then hand the host to OpenNebula."""
    name, host = incident.host_name, state.hosts.get(incident.host)
    if command.force:
        incident = replace(incident, in_force=())
    if incident.in_force and (why := lasting.why_not_lifted(incident, host)):
        text = f"{name}: {why}. If you have rebooted it since: ha-controller unfence {name} --force, and lift by hand"
        _answer(state, command.request, REFUSED, f"{text} what {lasting.names_in_force(incident)} did to it.")
        return
    incident = state.save(replace(incident, stopped="", hold="", hold_needs_person=False))
    if incident.in_force:
        lasting.begin_to_lift(state, incident, now)
        first = f" as soon as what {lasting.names_in_force(incident)} did to it is lifted"
    else:
        lever.restore(state, incident, now)
        first = ""
    _answer(state, command.request, DONE, f"{name} is given back to OpenNebula{first}.")


def readmit(state: State, incident: Incident, now: float) -> None:
    """Finish `unfence`: close the incident once OpenNebula shows the host's former state."""
    view = state.view(incident.host)
    if incident.lever is Lever.RESTORE:
        wanted = lever.state_before(incident)
        enabled = (OnedHostState.INIT, OnedHostState.MONITORED)
        restored = view.one_state == wanted or (wanted in enabled and view.one_state in enabled)
        suspicion.ask_for_vms(state, incident.host, now)
        if view.read_at is None or view.read_at <= incident.lever_since or not restored:
            lever.restore(state, incident, now)
            return
        incident = state.save(replace(incident, lever=Lever.RESTORED))
    if incident.lever is Lever.RESTORED:
        incident = state.enter(incident, Trigger.READMITTED, now)
        suspicion.close(state, incident, "readmitted", now)
        state.watch(incident.host, False)
        reboot.readmitted(state, incident, now)
