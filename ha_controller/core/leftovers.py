"""Leftovers: domains on a host that was fenced, of VMs that are somewhere else by now.

As soon as OpenNebula uses such a host again, a VM may run twice. The host's own list of domains decides; where nobody
may log in, what OpenNebula's monitoring calls zombies. One is destroyed only if the operator allows that, and never the
only one that runs: the VM must be RUNNING elsewhere, by OpenNebula's word and by that host's own list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ha_controller.core import moving, situation, suspicion
from ha_controller.core.detector import alive_channels
from ha_controller.core.effects import ORDER_VALID_S, DestroyDomain, Severity
from ha_controller.core.events import DomainDestroyed
from ha_controller.core.incident import Incident
from ha_controller.core.model import Host, HostState, Vm, VmState
from ha_controller.core.outcome import Presence
from ha_controller.core.recovery import claims_running
from ha_controller.core.state import State

LOOK_EVERY_S = 10.0
DESTROY_AGAIN_S = 20.0
DESTROYS_MAX = 3
HELD_BY = "leftover domains: "  #: begins the hold of an incident that waits for their end


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftovers:
    """What is known of domains that should not be on a host."""

    vms: tuple[int, ...] = ()
    unknown: str = ""  #: why it is not known whether there are any
    source: str = ""


def found(state: State, incident: Incident, now: float) -> Leftovers:
    """What is left on the host. Decides from what is known; asks nobody."""
    host, view = state.hosts.get(incident.host), state.view(incident.host)
    if not state.settings.hosts_asked:
        zombies = host.zombies if host is not None else ()
        return Leftovers(vms=zombies, source="OpenNebula's monitoring (ZOMBIES)")
    since = _since(incident)
    said = situation.domains_of(view, since, now)
    if said is None:
        return Leftovers(unknown=view.domains_failed or "it is being asked which VMs are on it")
    there = sorted(said.running | said.others)
    read_at = view.read_at
    if there and (read_at is None or read_at < since or now - read_at > situation.DOMAINS_AGE_MAX_S):
        return Leftovers(unknown=view.read_failed or "OpenNebula is being asked where its VMs are")
    left = []
    for vm in there:
        known = view.vms.get(vm)
        if known is None and (read_at or 0.0) <= said.asked_at:
            return Leftovers(unknown="OpenNebula is being asked where its VMs are")
        if known is None or known.host != incident.host or known.state == VmState.DONE:
            left.append(vm)
            continue
        elsewhere = _elsewhere(state, incident, known, now)
        if {Presence.RUNS, Presence.THERE} & {presence for _, presence in elsewhere}:
            left.append(vm)
        elif asked := [state.hosts[at].name for at, presence in elsewhere if presence is Presence.UNKNOWN]:
            return Leftovers(unknown=f"{', '.join(asked)} has not said whether {known.name} runs there")
    return Leftovers(vms=tuple(left), source="its own list of domains")


def _elsewhere(state: State, incident: Incident, vm: Vm, now: float) -> list[tuple[int, Presence]]:
    """Where a VM that OpenNebula has here may run all the same, after a migration that was taken back."""
    hosts = situation.stray_hosts(state, incident.vm(vm.id), vm)
    return [(at, situation.presence(state, at, vm.id, _since(incident), now)) for at in hosts if at in state.hosts]


def _since(incident: Incident) -> float:
    """What a host, or anybody of it, said before that moment says nothing of what is left on it."""
    return incident.opened_at if incident.fenced_at is None else incident.fenced_at


def look(state: State, incident: Incident, now: float) -> None:
    """Keep the list of a host that answers fresh, and OpenNebula's word on the VMs that are on it."""
    view = state.view(incident.host)
    if not state.settings.hosts_asked:
        return
    if now - view.domains_asked_at >= LOOK_EVERY_S:
        situation.ask(state, incident.host, now)
    said = view.domains
    if said is not None and (said.running or said.others) and (view.read_at or 0.0) <= said.asked_at:
        suspicion.ask_for_vms(state, incident.host, now, tuple(sorted(said.running | said.others)))
    there = () if said is None else sorted(said.running | said.others)
    for vm in (view.vms[each] for each in there if each in view.vms):
        for at, _ in _elsewhere(state, incident, vm, now):
            situation.ask(state, at, now)


def names(state: State, incident: Incident, vms: tuple[int, ...]) -> str:
    """Each with the host where OpenNebula has it, for people."""
    return ", ".join(_name(state, incident, vm) for vm in vms)


def _name(state: State, incident: Incident, vm: int) -> str:
    known, record = state.view(incident.host).vms.get(vm), incident.vm(vm)
    if known is not None and known.host == incident.host:
        others = ", ".join(
            state.hosts[at].name for at in situation.stray_hosts(state, record, known) if at in state.hosts
        )
        return f"{known.name} (domain one-{vm}; OpenNebula has it here, and it is on {others})"
    name = known.name if known is not None else record.name if record is not None else f"VM {vm}"
    at = known.host if known is not None else record.destination if record is not None else None
    where = state.hosts[at].name if at in state.hosts else ""
    label = known.label if known is not None else ""
    shown = f"{label} on {where}".strip() if where and at != incident.host else "not here"
    return f"{name} (domain one-{vm}; OpenNebula has it {shown})"


def tell(state: State, incident: Incident, left: Leftovers) -> Incident:
    """The worst that a returned host can bring: said once for each set, and shown until it is gone."""
    view, name = state.view(incident.host), incident.host_name
    if left.unknown:
        return incident
    if not left.vms:
        is_held = incident.state is HostState.RECOVERED and incident.hold.startswith(HELD_BY)  # also after a restart
        if view.leftovers_told or is_held:
            state.tell_of(incident, Severity.INFO, f"{name}: no domain is left over there any more", "Nothing to do.")
        view.leftovers_told = ()
        return state.save(replace(incident, hold="", hold_needs_person=False)) if is_held else incident
    text = f"{name} is back and still has {names(state, incident, left.vms)}, by {left.source}"
    if view.leftovers_told != left.vms:
        view.leftovers_told = left.vms
        own = "It is destroyed there if that is safe." if state.settings.destroy_leftovers else ""
        domains = " ".join(f"one-{vm}" for vm in left.vms)
        next_step = own or f"A VM may run twice: look at once. On {name}: virsh destroy {domains}"
        state.tell_of(incident, Severity.CRITICAL, f"{text}. The host stays disabled", next_step)
    if incident.state is not HostState.RECOVERED:
        return incident  # what holds the power-off is shown there
    return state.save(replace(incident, hold=f"{HELD_BY}{text}", hold_needs_person=True))


# --- destroying -------------------------------------------------------------------------------------------------------


def destroy(state: State, incident: Incident, left: Leftovers, now: float) -> None:
    """Order it for each domain that is safe to end, if the operator allows it. The executor looks once more."""
    view = state.view(incident.host)
    allowed = state.settings.destroy_leftovers and state.settings.hosts_asked
    if not allowed or incident.state is not HostState.RECOVERED or incident.stopped:
        return
    if moving.what_holds(state, incident) is not None:
        return
    for vm in left.vms:
        tries, due_at = view.destroys.get(vm, (0, 0.0))
        if tries >= DESTROYS_MAX or now < due_at or why_not_destroyed(state, incident, vm, now):
            continue
        view.destroys[vm] = (tries + 1, now + DESTROY_AGAIN_S)
        order = DestroyDomain(
            host=incident.host,
            incident=incident.id,
            vm=vm,
            runs_on=view.vms[vm].host or 0,
            attempt=tries + 1,
            not_after=now + ORDER_VALID_S,
        )
        state.out.append(order)


def why_not_destroyed(state: State, incident: Incident, vm: int, now: float) -> str:
    """Why a domain must not be destroyed now; empty if the VM surely runs elsewhere. Asks who can say that."""
    view = state.view(incident.host)
    known, said = view.vms.get(vm), view.domains
    if known is None or said is None or view.read_at is None or view.read_at <= said.asked_at:
        return "OpenNebula has not said where the VM is since it was seen here"
    there = state.hosts.get(-1 if known.host is None else known.host)
    if there is None or there.id == incident.host or not claims_running(known):
        return f"OpenNebula does not show it RUNNING elsewhere, but {known.label}"
    return _why_not_there(state, there, vm, _since(incident), now)


def _why_not_there(state: State, there: Host, vm: int, since: float, now: float) -> str:
    view = state.view(there.id)
    if view.state is not HostState.OK or not alive_channels(view.views, state.rules(there.id), now):
        return f"{there.name} itself is not well"
    if situation.presence(state, there.id, vm, since, now) is Presence.RUNS:
        return ""
    situation.ask(state, there.id, now)
    return f"{there.name} has not said that it runs there"


def destroyed(state: State, incident: Incident, event: DomainDestroyed) -> None:
    """Whatever came of it: what the host said before counts no more, and it is asked again."""
    view = state.view(incident.host)
    tries, _ = view.destroys.get(event.vm, (0, 0.0))
    if event.attempt != tries:
        return
    view.domains, view.domains_asked_at = None, -1e9
    if event.failure and tries >= DESTROYS_MAX:
        text = f"{incident.host_name}: the leftover domain one-{event.vm} could not be destroyed: {event.failure}"
        state.tell_of(incident, Severity.CRITICAL, text, f"By hand, on {incident.host_name}: virsh destroy")
