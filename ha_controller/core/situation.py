"""What the next step of a VM depends on beside the VM: policy, the other hosts, and who was asked for its domains.

Gathers and asks; decides nothing. An answer counts only if it was asked for after the moment that matters.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import life
from ha_controller.core.effects import AskDomains
from ha_controller.core.events import DomainsRead
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import Host, HostState, LcmState, Vm, VmState
from ha_controller.core.outcome import Care, Next, Presence, Situation
from ha_controller.core.state import DomainsView, HostView, State
from ha_controller.core.vm_table import row_of

DOMAINS_AGE_MAX_S = 15.0  #: an older answer about domains is unknown
ASK_AGAIN_S = 3.0


def of(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> Situation:
    """How things stand for one VM of the fenced host."""
    settings = state.settings
    off_since = now if incident.fenced_at is None else incident.fenced_at
    at = None if vm is None else vm.host
    if record.other_host is not None and at == host.id:
        _keep_fresh(state, record.other_host, now)
    return Situation(
        source=host.id,
        policy=settings.policy_of(None if vm is None else vm.policy, host.cluster_name),
        recreate=settings.recreate_allowed,
        unlock=settings.locked_moved,
        keep_off=settings.powered_off_moved,
        driver_ended=now - off_since >= settings.driver_wait_s,
        other=presence(state, record.other_host, record.id, off_since, now),
        arrived=presence(state, at, record.id, max(off_since, record.ordered_at), now),
        overdue=_is_overdue(state.view(host.id), record, settings.vm_timeout_s, now),
        care=Care.NONE if at is None or at == host.id else _care(state, incident, record, at),
        strays=() if vm is None or at != host.id else strays(state, record, vm, off_since, now),
    )


def note_states(view: HostView, now: float) -> None:
    """Remember since when each VM is in its state and place, as far as we have seen it."""
    for vm in view.vms.values():
        known, state = view.vm_states.get(vm.id), (vm.host, vm.state, vm.lcm_state)
        if known is None or known[0] != state:
            view.vm_states[vm.id] = state, now


def _is_overdue(view: HostView, record: VmRecord, timeout_s: float, now: float) -> bool:
    """Whether OpenNebula has done the same with it for half of its time, while it could have ended it."""
    since = max(
        record.ordered_at, view.waits_from, view.vm_states[record.id][1] if record.id in view.vm_states else now
    )
    return record.first_ordered_at > 0 and now - since > timeout_s / 2


def note_strays(state: State, record: VmRecord, vm: Vm) -> VmRecord:
    """Remember where a VM may run although OpenNebula has it on its host: it may be left, and started much later.

    A migration that was taken back may have come to its end; and what OpenNebula's monitoring calls a zombie is one.
    """
    if not vm.tried_on and vm.id not in state.zombies:
        return record
    return replace(record, tried_on=tuple(sorted({*record.tried_on, *_seen_elsewhere(state, vm)})))


def _seen_elsewhere(state: State, vm: Vm) -> set[int]:
    return {*vm.tried_on, *state.zombies.get(vm.id, ())} - {-1 if vm.host is None else vm.host}


def stray_hosts(state: State, record: VmRecord | None, vm: Vm) -> list[int]:
    """Where a VM may run although OpenNebula has it on its host."""
    tried_on = () if record is None else record.tried_on
    return sorted({*tried_on, *_seen_elsewhere(state, vm)} - {-1 if vm.host is None else vm.host})


def strays(
    state: State, record: VmRecord, vm: Vm, since: float, now: float, others: tuple[int | None, ...] = ()
) -> tuple[tuple[int, Presence], ...]:
    """Those hosts, and `others`, with what they have said of the VM since."""
    if not (others or record.tried_on or vm.tried_on or vm.id in state.zombies):
        return ()
    hosts = {*record.tried_on, *_seen_elsewhere(state, vm), *(host for host in others if host is not None)}
    asked = sorted(hosts - {-1 if vm.host is None else vm.host})
    for host in asked:
        _keep_fresh(state, host, now)
    return tuple((host, presence(state, host, vm.id, since, now)) for host in asked)


def waits_since(state: State, step: Next | None, at: int | None, now: float) -> float:
    """Since when a VM waits for another host, at the earliest; 0: not known.

    For the one that is asked: its last word may have been the one that was needed. For the one where the VM is (`at`):
    since it is not well.
    """
    asked = None if step is None or step.ask is None else state.views.get(step.ask)
    said = None if asked is None else asked.domains
    silent_since = said.asked_at if said is not None and now - said.asked_at > DOMAINS_AGE_MAX_S else 0.0
    there, incident = state.views.get(-1 if at is None else at), state.incidents.get(-1 if at is None else at)
    ill_since = there.since if there is not None and there.state is not HostState.OK else 0.0
    return max(silent_since, ill_since, 0.0 if incident is None else incident.opened_at)


def _keep_fresh(state: State, host: int, now: float) -> None:
    """An answer that is needed as long as a VM waits is asked for again before it is too old."""
    view = state.views.get(host)
    if view is not None and view.domains is not None and now - view.domains.asked_at > DOMAINS_AGE_MAX_S / 2:
        ask(state, host, now)


def presence(state: State, host: int | None, vm: int, since: float, now: float) -> Presence:
    """Whether a VM is on a host, by what that host has said since."""
    view = state.views.get(-1 if host is None else host)
    if view is None:
        return Presence.UNKNOWN
    if view.state is HostState.FENCED or _is_still_off(state, -1 if host is None else host):
        return Presence.OFF
    said = domains_of(view, since, now)
    if said is None:
        return Presence.UNKNOWN
    if vm in said.running:
        return Presence.RUNS
    return Presence.THERE if vm in said.others else Presence.ABSENT


def domains_of(view: HostView, since: float, now: float) -> DomainsView | None:
    """What a host has said of the VMs on it since that moment, if it is not too old."""
    said = view.domains
    is_known = said is not None and said.asked_at > since and now - said.asked_at <= DOMAINS_AGE_MAX_S
    return said if is_known else None


def _is_still_off(state: State, host: int) -> bool:
    """Whether it is RECOVERED, and was silent ever since it was verified off."""
    incident, view = state.incidents.get(host), state.views[host]
    proof = None if incident is None else incident.proof
    return view.state is HostState.RECOVERED and proof is not None and not life.since(state, host, proof.at)


def note_travellers(state: State, incident: Incident) -> None:
    """A VM that is seen migrating while its incident waits is one that was: its other end is asked before it is moved.

    OpenNebula may take a migration back whose end it could not see, and the VM runs at the other end all the same.
    """
    vms = state.view(incident.host).vms
    records = tuple(_as_seen(record, vms.get(record.id), incident.host) for record in incident.vms)
    if records != incident.vms:
        state.save(replace(incident, vms=records))


def _as_seen(record: VmRecord, vm: Vm | None, host: int) -> VmRecord:
    if vm is None or record.order or record.settled or not row_of(vm.state, vm.lcm_state).travels:
        return record
    seen = VmRecord.of(vm, host)
    return replace(
        record,
        was_state=seen.was_state,
        was_lcm_state=seen.was_lcm_state,
        was_label=seen.was_label,
        other_host=seen.other_host,
    )


def why_poison(state: State, record: VmRecord, now: float) -> str:
    """Why a VM of which nothing was ordered yet may be what kills its hosts; empty if it is not suspect."""
    if record.stage not in (VmStage.WAITING, VmStage.RECOVERING) or record.destination is not None:
        return ""
    lately = [death for death in state.cloud.deaths if now - death.at < state.settings.poison_within_s]
    died = sorted({death.host_name for death in lately if record.id in death.vms})
    if len(died) < state.settings.poison_after:
        return ""
    return f"it ran on {', '.join(died)} when they died, so it may be what kills them. Start it by hand"


def ask(state: State, host: int, now: float) -> None:
    """Have a host asked for its domains, now and then."""
    view = state.views.get(host)
    if view is not None and now - view.domains_asked_at >= ASK_AGAIN_S:
        view.domains_asked_at = now
        state.out.append(AskDomains(host=host))


def note(state: State, event: DomainsRead) -> None:
    """Take in what a host said of its domains."""
    view = state.views.get(event.host)
    if view is None or (view.domains is not None and event.asked_at < view.domains.asked_at):
        return
    view.domains_failed = event.failure
    if not event.failure:
        running, others = frozenset(event.running), frozenset(event.others)
        view.domains = DomainsView(asked_at=event.asked_at, running=running, others=others)


def note_zombies(state: State, hosts: tuple[Host, ...]) -> None:
    """Which VMs run where OpenNebula does not have them, by its own monitoring."""
    found: dict[int, tuple[int, ...]] = {}
    for host in hosts:
        for vm in host.zombies:
            found[vm] = (*found.get(vm, ()), host.id)
    state.zombies = found


def in_words(state: State, step: Next) -> str:
    """Why a VM waits; if it waits for a host to say what runs on it, with the reason why that did not."""
    view = None if step.ask is None else state.views.get(step.ask)
    failed = "" if view is None else view.domains_failed
    return f"{step.reason} ({failed})" if failed else step.reason


def was_on(vm: Vm, host: Host) -> bool:
    """Whether a VM is on a host, or on its way from there."""
    return host.id in (vm.host, vm.previous_host)


def records_of(state: State, host: Host, vms: list[Vm]) -> tuple[VmRecord, ...]:
    """VMs of a host as they are put on record.

    Of a VM that another dead host's incident was starting here, it counts what it was there.
    """
    return tuple(_record_of(state, host, vm) for vm in sorted(vms, key=lambda vm: vm.id))


def _record_of(state: State, host: Host, vm: Vm) -> VmRecord:
    record = VmRecord.of(vm, host.id)
    for other in _others(state, host.id):
        before = other.vm(vm.id)
        if before is None or before.settled or before.destination != host.id:
            continue
        if row_of(before.was_state, before.was_lcm_state).travels:  # that is over: one end is known to be off
            before = replace(before, was_state=VmState.ACTIVE, was_lcm_state=LcmState.RUNNING, was_label="RUNNING")
        was = {name: getattr(before, name) for name in ("was_state", "was_lcm_state", "was_label", "failed_on")}
        return replace(record, other_host=None, **was)
    return record


def _others(state: State, host: int) -> list[Incident]:
    return [known for number, known in sorted(state.incidents.items()) if number != host]


def _care(state: State, incident: Incident, record: VmRecord, at: int) -> Care:
    """Whether the incident of another host has to do with a VM that is on a host `at`, not on ours."""
    there = state.incidents.get(at)
    match state.views[at].state if at in state.views else HostState.OK:
        case HostState.FENCED:
            return Care.TAKEN
        case HostState.SUSPECT | HostState.FAILED:
            return Care.FAILING
        case HostState.RECOVERED if there is not None and (known := there.vm(record.id)) is not None and known.settled:
            return _ended(state, incident, known)
    if at in (record.destination, record.other_host):
        return Care.NONE
    for other in _others(state, incident.host):
        known = other.vm(record.id)
        if known is not None and at in (known.destination, known.other_host):
            return _ended(state, incident, known) if known.settled else Care.TAKEN
    return Care.NONE


def _ended(state: State, incident: Incident, known: VmRecord) -> Care:
    """The other incident has brought the VM to an outcome; ours may have read it before that."""
    return Care.ENDED if (state.view(incident.host).read_at or 0.0) > known.settled_at else Care.TAKEN
