"""Who leads, and what a new leader may take up.

Where the record of incidents is not shared, or was lost, a controller that leads after another one does not know what
that one ordered: which destinations were chosen, whether an order is still on its way. So it acts only on failures that
it saw begin: a host must have shown life since the lead was taken, or a person releases its incident.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import pause
from ha_controller.core.detector import last_life
from ha_controller.core.effects import REFUSED, Severity
from ha_controller.core.events import LeadChanged
from ha_controller.core.incident import Incident, Lever
from ha_controller.core.model import HostState
from ha_controller.core.state import State


def lead_changed(state: State, event: LeadChanged, now: float) -> None:
    """Note who leads. Every change begins with the settle time."""
    if event.term != state.term:
        state.settle_until = now + state.settings.settle_s
    if event.term is not None and state.term is None and state.led_term is not None:
        forgive(state)
    if event.term is not None and event.term != state.led_term:
        if event.inherited:
            _inherit(state, event.term, event.inherited, now)
        state.led_term = event.term
    _tell(state, event)
    if event.term is not None and state.term is None:
        pause.tell_of_lead(state)
    state.term, state.leader, state.lead_trouble = event.term, event.leader, event.trouble


def why_foreign(state: State, seen_at: float) -> str:
    """Why a failure may have begun under another leader; empty if the host was seen before it, by us as leader."""
    cloud = state.cloud
    if not cloud.inherited_at or seen_at > cloud.inherited_at:
        return ""
    return f"it has not answered since we took the lead, and {cloud.inherited}: what was ordered is not on our record"


def refused_until_released(state: State, request: int, incident: Incident) -> bool:
    """Whether a person's word has to wait for `release`, which is answered.

    What is unreleased is not on the shared record, and no order may stand on what the next leader cannot read.
    """
    if incident.foreign:
        name = incident.host_name
        text = f"{name}: {incident.foreign}. See what was done, and first: ha-controller release {name}"
        state.answer(request, REFUSED, text)
    return bool(incident.foreign)


def forget_when_all_were_seen(state: State) -> None:
    """Once every host was seen alive since the take-over, nothing of the time before is left to fear."""
    inherited_at = state.cloud.inherited_at
    ours = [host.id for host in state.hosts.values() if not host.excluded]
    if not inherited_at or not ours or any(incident.foreign for incident in state.incidents.values()):
        return
    if all(last_life(state.view(host).views) > inherited_at for host in ours):
        state.save_cloud(replace(state.cloud, inherited_at=0.0, inherited=""))


def forgive(state: State) -> None:
    """Power-offs that ended with the lead must not count as tried; nobody knows which of them left."""
    for incident in list(state.incidents.values()):
        if incident.state is HostState.FAILED:
            state.save(replace(incident, attempts_forgiven=len(incident.tried)))


def _inherit(state: State, term: int, inherited: str, now: float) -> None:
    """Whatever is open may have been gone on with, and what was approved was approved for something else."""
    state.save_cloud(replace(state.cloud, inherited_at=now, inherited=inherited))
    reason = f"{inherited}: what was ordered meanwhile is not on our record"
    for incident in list(state.incidents.values()):
        state.save(unreleased(incident, reason))
    state.tell(
        Severity.WARNING,
        f"this controller leads now, term {term}, and {inherited}",
        "A host that fails from now on is cared for. What had failed before waits for a person: ha-controller pending "
        "list",
    )


def unreleased(incident: Incident, reason: str) -> Incident:
    """Nothing that a person said counts any more, nor does a way back go on that has begun: `unfence` says it anew."""
    lever = Lever.DONE if incident.lever in (Lever.RESTORE, Lever.RESTORED) else incident.lever
    return replace(incident, foreign=reason, approved_by="", ordered_by="", lever=lever, lifting=False)


def _tell(state: State, event: LeadChanged) -> None:
    """People hear when nobody may lead, and when that is over."""
    if event.trouble and not state.lead_trouble:
        state.tell(
            Severity.CRITICAL,
            f"this controller does not lead: {event.trouble}",
            "It powers nothing off and moves nothing; it goes on looking. See who leads: ha-controller leader show",
        )
    elif state.lead_trouble and not event.trouble:
        who = f"{event.leader} leads" if event.term is None else f"this controller leads again, term {event.term}"
        who = who if event.leader or event.term is not None else "the lead can be taken again"
        state.tell(Severity.INFO, who, "Nothing to do.")
