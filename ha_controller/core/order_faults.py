"""What is written on VMs about their order and cannot be followed: told once, kept in the incident, and no obstacle.

Whether a name in HA_AFTER means anybody is asked of OpenNebula: the incidents know the VMs of dead hosts only.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core.effects import AskNames, Severity
from ha_controller.core.events import NamesRead
from ha_controller.core.incident import Incident
from ha_controller.core.order import faults, is_of_groups, some_of
from ha_controller.core.state import NamesView, State
from ha_controller.core.turns import Turns

ASK_AGAIN_S = 30.0  #: after they could not be looked up
ANSWER_MAX_S = 150.0  #: an answer that is not there by then never comes: all VMs of OpenNebula are read for it


def tell(state: State, incident: Incident, turns: Turns, now: float) -> Incident:
    """Look through the VMs of an incident, and tell what is new."""
    records = turns.records_of(incident)
    strangers = {key for record in records for _, key in turns.order.strangers.get(record.id, ())}
    names = frozenset(key for key in strangers if not is_of_groups(key))
    view = state.names.get(incident.host)
    if names and (view is None or view.incident != incident.id):
        view = state.names[incident.host] = NamesView(incident=incident.id)
    if view is not None and (unasked := names - view.answered) and now >= view.ask_at:
        view.ask_at = now + ANSWER_MAX_S
        state.out.append(AskNames(host=incident.host, incident=incident.id, names=tuple(sorted(unasked))))
    missing = frozenset() if view is None else view.missing
    new = [line for line in faults(records, turns.order, missing, turns.names) if line not in incident.order_faults]
    if not new:
        return incident
    text = f"{incident.host_name}: what is written on VMs is not followed: {some_of(new, '; ')}"
    state.tell_of(incident, Severity.WARNING, text, "They are started all the same. Correct it with onevm update.")
    return state.save(replace(incident, order_faults=(*incident.order_faults, *new)))


def note(state: State, incident: Incident, event: NamesRead, now: float) -> None:
    """Take in which names nobody has. All VMs may have their outcome by then."""
    view = state.names.get(incident.host)
    if view is None or view.incident != incident.id:
        return
    view.ask_at = now + ASK_AGAIN_S if event.failure else now
    if event.failure:
        return
    view.answered |= frozenset(event.names)
    view.missing |= frozenset(event.missing)
    tell(state, incident, Turns(state, now), now)
