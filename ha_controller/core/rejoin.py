"""The way back of a host that was fenced: from its first answer to the day it takes VMs again."""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lasting, lever, reboot, suspicion
from ha_controller.core.detector import alive_channels
from ha_controller.core.effects import DONE, REFUSED
from ha_controller.core.events import OperatorCommanded
from ha_controller.core.incident import AttemptOutcome, Incident, Lever
from ha_controller.core.machine import Trigger
from ha_controller.core.model import HostState, OnedHostState
from ha_controller.core.state import State

GONE = "it is no longer in OpenNebula"
UNTOUCHED = (HostState.OK, HostState.SUSPECT)  #: nothing was powered off yet


def unfence(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Readmit a host that answers again: the way back to OK."""
    name, view = incident.host_name, state.view(incident.host)
    needed_s = state.settings.rejoin_after_s
    if incident.state is HostState.FENCED:
        state.answer(command.request, REFUSED, f"VMs of {name} still wait for an outcome; it cannot be readmitted yet.")
    elif incident.state in UNTOUCHED:
        _dismiss(state, command, incident, now)
    elif (host := state.hosts.get(incident.host)) is not None and host.excluded == GONE:
        suspicion.close(state, incident, f"dismissed by {command.who}: {GONE}", now)
        state.answer(command.request, DONE, f"{name}: its incident is closed; it is no longer in OpenNebula.")
    elif incident.attempts and incident.attempts[-1].outcome in (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED):
        state.answer(command.request, REFUSED, f"A power-off of {name} is still under way. Try again.")
    elif view.answers_since is None or not alive_channels(view.views, state.rules(incident.host), now):
        state.answer(command.request, REFUSED, f"{name} does not answer. Power it on first.")
    elif now - view.answers_since < needed_s:
        text = f"{name} answers for {now - view.answers_since:.0f} s only; {needed_s:g} s are needed. Try again."
        state.answer(command.request, REFUSED, text)
    elif not command.repaired and (often := suspicion.quarantine(state, incident.host, now)):
        text = f"{name} is in quarantine: {often}. If that is repaired: ha-controller unfence {name} --repaired"
        state.answer(command.request, REFUSED, text)
    else:
        _give_back(state, command, incident, now)


def _dismiss(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Close an incident in which nothing was powered off; VMs that were to be started again are named."""
    name, view = incident.host_name, state.view(incident.host)
    if incident.lever is not Lever.NOT_BEGUN:
        state.answer(command.request, REFUSED, f"OpenNebula is just being made to ask {name} anew. Try again.")
    elif view.answers_since is None or not alive_channels(view.views, state.rules(incident.host), now):
        state.answer(command.request, REFUSED, f"{name} does not answer. Power it on first.")
    else:
        dropped = ", ".join(record.name for record in incident.vms if not record.settled) if incident.rebooted else ""
        more = f"; not started again: {dropped}" if dropped else ""
        suspicion.close(state, incident, f"dismissed by {command.who}{more}", now)
        state.answer(command.request, DONE, f"{name} is readmitted{more}.")


def _give_back(state: State, command: OperatorCommanded, incident: Incident, now: float) -> None:
    """Lift what is in force, then hand the host to OpenNebula."""
    name, host = incident.host_name, state.hosts.get(incident.host)
    if command.force:
        incident = replace(incident, in_force=())
    if incident.in_force and (why := lasting.why_not_lifted(incident, host)):
        text = f"{name}: {why}. If you have rebooted it since: ha-controller unfence {name} --force, and lift by hand"
        state.answer(command.request, REFUSED, f"{text} what {lasting.names_in_force(incident)} did to it.")
        return
    incident = state.save(replace(incident, stopped="", hold="", hold_needs_person=False))
    if incident.in_force:
        lasting.begin_to_lift(state, incident, now)
        first = f" as soon as what {lasting.names_in_force(incident)} did to it is lifted"
    else:
        lever.restore(state, incident, now)
        first = ""
    state.answer(command.request, DONE, f"{name} is given back to OpenNebula{first}.")


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
