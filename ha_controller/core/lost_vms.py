"""What becomes of each VM that a host lost when it rebooted: what it was, what it is now, and whether it is started.

Who leads settles all of them. Who stands by only looks which run again: a VM that it has seen run since is no news to
anybody, whatever its guest or its owner does with it later.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import moving, situation, tries
from ha_controller.core.effects import Severity
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import Host, HostState, LcmState, OnedHostState, Vm, VmPolicy, VmState
from ha_controller.core.outcome import Next, Presence, doubt_of
from ha_controller.core.recovery import START_FAILURES, claims_running, was_running
from ha_controller.core.state import NewBoot, State
from ha_controller.core.vm_table import Step, row_of

UNKNOWN_END = "it ended before this controller led: it cannot be told whether by the reboot, or later by its guest"
CLOCKS_DIFFER_S = 30.0  #: OpenNebula's times are those of its front-end


def lost(host: Host, vm: Vm, boot: NewBoot) -> VmRecord | None:
    """What a VM was when the host rebooted; None if that did nothing to it."""
    if vm.state == VmState.ACTIVE:  # OpenNebula has not noticed yet, or was at work on it
        return VmRecord.of(vm, host.id)
    if vm.state == VmState.POWEROFF and boot.lost_since is not None and ended_with_it(vm, boot.lost_since):
        ran = VmRecord.of(vm)
        return replace(ran, was_state=VmState.ACTIVE, was_lcm_state=LcmState.RUNNING, was_label="RUNNING")
    return None


def seen(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> VmRecord:
    """What who does not lead may say of a VM: it runs again, or is none of this host's any more.

    Nothing is ordered and nobody is told: that is for who leads. All else has no outcome here.
    """
    if record.settled or (state.view(host.id).read_at or 0.0) <= record.ordered_at:
        return record
    record = record if vm is None else situation.note_strays(state, record, vm)
    if reason := _why_not_ours(host, record, vm):
        return replace(record, stage=VmStage.LEFT, reason=reason, settled_at=now)
    if where := _runs(state, host, incident, record, vm, now):
        return replace(
            record, stage=VmStage.RUNNING, reason=where, runs_on=None if vm is None else vm.host, settled_at=now
        )
    return record


def look(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> VmRecord:
    """Compare what a VM was with what it is now."""
    view = state.view(host.id)
    if record.settled or (view.read_at or 0.0) <= record.ordered_at:
        return record
    record = record if vm is None else situation.note_strays(state, record, vm)
    if reason := _why_not_ours(host, record, vm):
        return moving.leave_alone(state, incident, record, reason, now)
    if where := _runs(state, host, incident, record, vm, now):
        return _started(state, incident, replace(record, runs_on=None if vm is None else vm.host), where, now)
    if reason := _why_left(state, host, incident, record, vm) or policy_against(state, host, record, vm):
        return moving.leave_alone(state, incident, record, reason, now)
    doubt = _doubt(state, incident, record, vm, now)
    if doubt is not None and doubt.step is Step.LEAVE:
        return moving.leave_alone(state, incident, record, doubt.reason, now)
    if doubt is not None and doubt.ask is not None:
        situation.ask(state, doubt.ask, now)
    if why := situation.why_poison(state, record, now) or tries.why_given_up(state.settings, record):
        return moving.leave_alone(state, incident, record, why, now)
    waits_for_its_turn = vm is not None and not record.tries and may_start(state, host, incident, record, vm, now)
    longest_s = state.settings.vm_timeout_s if record.tries else state.settings.vm_wait_max_s
    begun_at = max(record.first_ordered_at, view.waits_from, incident.lever_since, incident.opened_at)
    begun_at = max(begun_at, situation.waits_since(state, doubt, None if vm is None else vm.host, now))
    if not waits_for_its_turn and now - begun_at > longest_s:
        last = record.reason or f"OpenNebula shows it {'nowhere' if vm is None else vm.label}"
        last = last if doubt is None else situation.in_words(state, doubt)
        return moving.leave_alone(state, incident, record, f"not RUNNING after {longest_s:g} s: {last}", now)
    return record


def may_start(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm, now: float) -> bool:
    """Whether a VM that is off may be started where it is: on its host, or where that was about to move it."""
    if vm.state != VmState.POWEROFF or not (was_running(record) or was_travelling(record)) or vm.host is None:
        return False
    is_there = vm.host == host.id or vm.host in record.ordered_to
    there = state.views.get(vm.host)
    is_well = (
        there is not None and there.state is HostState.OK and (vm.host == host.id or vm.host not in state.incidents)
    )
    return is_there and is_well and _doubt(state, incident, record, vm, now) is None


def ended_with_it(vm: Vm, lost_since: float | None) -> bool:
    """Whether OpenNebula found the VM missing since then, and nobody switched it off."""
    return vm.found_missing_at > max(0.0, (lost_since or 0.0) - CLOCKS_DIFFER_S)


def policy_against(state: State, host: Host, record: VmRecord, vm: Vm | None) -> str:
    """Why the VM is not to be started, by the operator's or its owner's word; empty if it may be, or runs already."""
    policy = state.settings.policy_of(None if vm is None else vm.policy, host.cluster_name)
    unwanted = policy in (VmPolicy.LEAVE, VmPolicy.POWEROFF) and not record.tries
    return f"its policy is `{policy.value}`" if unwanted and vm is not None and not claims_running(vm) else ""


def was_travelling(record: VmRecord) -> bool:
    """Whether a migration of the VM was under way."""
    return row_of(record.was_state, record.was_lcm_state).travels


def _has_news(state: State, host: Host, incident: Incident) -> bool:
    """Whether OpenNebula has heard from the host since: what it believed before the reboot proves nothing.

    Who stands by may read a late OpenNebula, and who did so when it noted the reboot: there news is what is younger
    than that, whatever came first.
    """
    view, since = state.view(host.id), incident.monitored_at
    if state.stands_by or (incident.noticed_at and not incident.lever_repeats):
        since = max(since, incident.opened_at + CLOCKS_DIFFER_S)
    monitored = view.one_state in (OnedHostState.MONITORED, OnedHostState.DISABLED)
    return monitored and view.monitored_at > since


def _why_not_ours(host: Host, record: VmRecord, vm: Vm | None) -> str:
    """Why a VM is none of our business any more: it is gone, or where none of its ways led; empty if it is."""
    if vm is None or vm.state == VmState.DONE:
        return "it no longer exists in OpenNebula"
    if vm.host in (host.id, *record.ordered_to) or _ends_elsewhere(record, vm):
        return ""
    return f"somebody else moved it to host {vm.host}: {vm.label}"


def _why_left(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None) -> str:
    """Why nothing more is done with a VM that does not run; empty if there is more to do."""
    if vm is None:
        return ""
    there = state.hosts.get(-1 if vm.host is None else vm.host)
    at = "" if vm.host == host.id else f" on {there.name if there else vm.host}"
    if not (was_running(record) or was_travelling(record)):
        return f"it was {record.was_label} when the host rebooted; look at it: {vm.label}{at}"
    if vm.state == VmState.ACTIVE and vm.lcm_state in START_FAILURES:
        return f"its start failed: {vm.label}{at}"
    is_off = vm.state == VmState.POWEROFF and not record.tries and vm.host == host.id
    if is_off and not ended_with_it(vm, incident.lost_since):
        is_known = not vm.found_missing_at or (incident.lost_since or 0.0) <= incident.opened_at
        return "somebody has switched it off" if is_known else UNKNOWN_END
    if vm.state not in (VmState.ACTIVE, VmState.POWEROFF):
        return f"it became {vm.label}{at} meanwhile"
    return ""


def _ends_elsewhere(record: VmRecord, vm: Vm) -> bool:
    """Whether a migration that was under way goes on at its other end, or came to its end there."""
    return vm.host == record.other_host and (row_of(vm.state, vm.lcm_state).travels or claims_running(vm))


def _runs(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> str:
    """Where a VM runs again, in words; empty if that is not known. Asks who can say it.

    The host's own word, given since, is enough. A follower of a zone may never hear when its leader last heard from a
    host, so who stands by asks the host, and who goes on with what it saw when it stood by, before all else.
    """
    if vm is None or vm.host is None or not claims_running(vm):
        return ""
    is_here, has_news = vm.host == host.id, _has_news(state, host, incident)
    if not is_here:
        is_doubted = record.doubted or (state.stands_by and not has_news)  # RUNNING was written down by us, or is old
    elif record.tries and not state.stands_by:
        is_doubted = False
    else:  # or OpenNebula took its migration back, and has not missed it here yet
        strays = situation.strays(state, record, vm, incident.opened_at, now)
        is_doubted = not has_news or (not record.tries and (was_travelling(record) or bool(strays)))
    if is_doubted and situation.presence(state, vm.host, vm.id, incident.opened_at, now) is not Presence.RUNS:
        if not is_here or has_news or incident.noticed_at or state.stands_by:
            situation.ask(state, vm.host, now)
        return ""
    if is_here:
        return f"runs again on {host.name}"
    place = state.hosts.get(vm.host)
    return f"runs on {place.name if place else vm.host}, where it was moved"


def _doubt(state: State, incident: Incident, record: VmRecord, vm: Vm | None, now: float) -> Next | None:
    """Whether a VM may run at another end of its ways: of a migration that was taken back, of an order of ours.

    Where it was moved from here, this host has to say that it is not here.
    """
    if vm is None or row_of(vm.state, vm.lcm_state).travels or record.tries:
        return None
    others = (record.other_host, *record.ordered_to) if vm.host == incident.host else (incident.host,)
    return doubt_of(situation.strays(state, record, vm, incident.opened_at, now, others))


def _started(state: State, incident: Incident, record: VmRecord, where: str, now: float) -> VmRecord:
    """An outcome: it runs."""
    unlocked = "; it was locked, and is not any more" if record.relock else ""
    severity = Severity.WARNING if unlocked else Severity.INFO
    state.tell_of(incident, severity, f"{record.name} {where}{unlocked}", "Nothing to do.")
    return replace(record, stage=VmStage.RUNNING, reason=where, settled_at=now)
