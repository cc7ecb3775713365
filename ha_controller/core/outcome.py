"""The next step for one VM of a fenced host, read off the table of states.

Pure: what the VM *was* is in its record, what it *is* was just read from OpenNebula, and what else is known comes as a
`Situation`. It must never lead to a start while the VM may run somewhere: who cannot be asked is not "not there".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.model import Vm, VmPolicy, VmState
from ha_controller.core.recovery import claims_running
from ha_controller.core.vm_table import Ask, Recover, Row, Rule, Step, Want, row_of

#: a BOOT_FAILURE at the destination; 44, 46 and 61 are failures of the move itself
BOOT_FAILURE, MOVE_FAILURE, BOOT_SUSPENDED, CLEANUP_RESUBMIT = 36, 61, 21, 15
LOCK_TRIES_MAX = 3
RESUMES_MAX = 2  #: a VM that falls back to POWEROFF so often does not start there
MOVED_WITHOUT_START = (43, 44, 45, 46)  #: a VM that was to be resumed may be on such a way when its host dies


class Presence(StrEnum):
    """Whether a VM is on a host, by the host's own list of domains."""

    RUNS = "runs there"
    THERE = "is there, and does not run"  #: paused, shutting down: it may go on
    ABSENT = "is not there"
    OFF = "the host is verified off"
    UNKNOWN = "could not be asked"


class Care(StrEnum):
    """What is going on with the host that OpenNebula names for a VM, if that is not the dead one."""

    NONE = "none"
    FAILING = "failing"  #: suspect, or being powered off: nothing is known yet
    TAKEN = "taken"  #: it is off, too, and its own incident goes on with the VM
    ENDED = "ended"  #: that incident has brought the VM to an outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What a step depends on beside the VM itself."""

    source: int  #: the fenced host
    policy: VmPolicy = VmPolicy.RESTART
    recreate: bool = False  #: the operator allows to make VMs anew
    unlock: bool = False  #: locked VMs are unlocked for their move
    keep_off: bool = True  #: VMs that did not run are moved, too
    driver_ended: bool = True  #: oned's own calls to the dead host have had their time to fail
    other: Presence = Presence.UNKNOWN  #: at the other end of its migration
    arrived: Presence = Presence.UNKNOWN  #: at its destination
    overdue: bool = False  #: OpenNebula has done the same with it for half of its time
    strays: tuple[tuple[int, Presence], ...] = ()  #: other hosts on which it may run although OpenNebula has it here
    care: Care = Care.NONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    """A step and why."""

    step: Step
    reason: str = ""
    call: Recover | None = None
    ask: int | None = None  #: this host has to be asked for its domains
    elsewhere: bool = False  #: it is moved once more, because it did not start where it is
    second_start: bool = False  #: beside one that has had no end
    patient: bool = False  #: its time does not run while it waits for this


def want_of(record: VmRecord) -> Want:
    """What a VM is brought to, by what it was when its host failed."""
    return row_of(record.was_state, record.was_lcm_state).want


def wants_running(record: VmRecord) -> bool:
    """Whether the VM ran when its host failed, or was about to."""
    return want_of(record) is Want.RUNNING


def next_step(record: VmRecord, vm: Vm | None, now: Situation) -> Next:
    """What to do with a VM of the fenced host. `vm` is None when OpenNebula no longer knows it."""
    step = _step(record, vm, now)
    if step.step in (Step.RUNNING, Step.KEPT) and record.relock and vm is not None and not vm.lock_level:
        if record.stage is VmStage.LOCKING and record.tries >= LOCK_TRIES_MAX:
            return replace(step, reason="its lock could not be put on again")
        return Next(step=Step.LOCK, reason="it gets its lock back")
    return step


def _step(record: VmRecord, vm: Vm | None, now: Situation) -> Next:
    if vm is None or vm.state == VmState.DONE:
        return _leave("it no longer exists in OpenNebula")
    if want_of(record) is Want.LEFT:
        return _left_at_once(record)
    if now.policy is VmPolicy.LEAVE:
        return _leave("its policy is `leave`")
    if vm.lock_level and not now.unlock and not (claims_running(vm) and vm.host != now.source):
        return _leave("it is locked in OpenNebula: unlock it, then migrate it by hand")
    if is_made_anew(record):
        return _made_anew(vm, now)
    if record.second_starts and vm.host != record.destination and now.care is Care.NONE:
        return _stays_here(record.destination, vm)
    if vm.host == now.source:
        return _here(record, vm, now)
    if now.care is not Care.NONE:
        return _cared_for(vm, now.care)
    if record.destination is not None and vm.host == record.destination:
        return _arrived(record, vm, now)
    if record.other_host is not None and vm.host == record.other_host:
        return _leaving(record, vm, now)
    if vm.host in record.failed_on:
        return _doubted(record, vm, now)
    return _leave(f"somebody else moved it to host {vm.host}: {vm.label}")


# --- on the dead host -------------------------------------------------------------------------------------------------


def _left_at_once(record: VmRecord) -> Next:
    here = row_of(record.was_state, record.was_lcm_state).here
    reason = here.reason if isinstance(here, Rule) else ""
    return _leave(f"it was {record.was_label} when the host failed: {reason}")


def _here(record: VmRecord, vm: Vm, now: Situation) -> Next:
    row = row_of(vm.state, vm.lcm_state)
    was = row_of(record.was_state, record.was_lcm_state)
    if reason := _why_not(record, vm, row, was, now):
        return _leave(reason)
    if vm.obstacle:
        return _leave(vm.obstacle)
    if not row.travels and (doubt := doubt_of(now.strays)):
        return doubt
    if vm.storage_obstacle and not row.travels:
        if _may_recreate(now) and vm.disks_lost and vm.state == VmState.ACTIVE and not was.travels:
            return _recreate_or_wait(row)
        return _leave(vm.storage_obstacle)
    if (was.travels or row.travels) and record.other_host is None:
        return _leave(f"it was {record.was_label}, and OpenNebula does not say what the other host is: look at both")
    if was.travels and not row.travels and (doubt := doubt_of(((record.other_host, now.other),))):
        return doubt
    return _follow(row.here, row, record, now)


def _why_not(record: VmRecord, vm: Vm, row: Row, was: Row, now: Situation) -> str:
    """Why policy, or what it was before, speaks against any step."""
    if was.want is Want.AS_IT_WAS:
        if not now.keep_off and vm.state != VmState.ACTIVE:
            return f"it was {record.was_label} before the host failed and stays so"
        if vm.state == VmState.ACTIVE and row.want is Want.RUNNING:
            return f"it was {record.was_label} when the host failed: it is off, and stays so until the host is back"
    elif row.want is Want.AS_IT_WAS and vm.state == VmState.ACTIVE and vm.lcm_state not in MOVED_WITHOUT_START:
        return f"somebody ordered something else meanwhile: {row.name}"
    elif now.policy is VmPolicy.POWEROFF and vm.state == VmState.ACTIVE:
        return "its policy is `poweroff`: it is off, and stays so until it is started by hand"
    if vm.state == VmState.SUSPENDED:
        return vm.memory_obstacle
    return ""


def doubt_of(strays: tuple[tuple[int | None, Presence], ...]) -> Next | None:
    """A VM that was on its way, or may have been, and that oned shows on the host that failed. None: it runs nowhere.

    Each of the other hosts has to say that it is not there.
    """
    for host, presence in strays:
        if presence is Presence.RUNS:
            return _leave(
                f"it runs on host {host}, although OpenNebula shows it on the host that failed. Never start it: save "
                "its data there first"
            )
    asked = [(host, presence) for host, presence in strays if presence not in (Presence.ABSENT, Presence.OFF)]
    return _asks(*asked[0]) if asked else None


def _recreate_or_wait(row: Row) -> Next:
    """Its disks are lost with the host, and the operator has said that it may be made anew."""
    unknown = row.name in ("UNKNOWN", "BOOT_FAILURE", "PROLOG_FAILURE")
    if unknown and Recover.RECREATE not in row.never:
        return Next(step=Step.RECOVER, call=Recover.RECREATE, reason="it is made anew, as its policy says")
    return Next(step=Step.WAIT, reason=f"{row.name}: it is made anew when OpenNebula has noticed")


def _may_recreate(now: Situation) -> bool:
    return now.recreate and now.policy is VmPolicy.RECREATE


def _follow(rule: Rule | Ask, row: Row, record: VmRecord, now: Situation) -> Next:
    """Carry out a rule of the table."""
    if isinstance(rule, Ask):
        if now.other in (Presence.UNKNOWN, Presence.THERE):
            return _asks(record.other_host, now.other)
        absent = rule.off if rule.off is not None and now.other is Presence.OFF else rule.absent
        rule = rule.runs if now.other is Presence.RUNS else absent
    if rule.recreates and not _may_recreate(now):
        return _leave(f"{row.name}: {rule.reason}. To make it anew: onevm recover --recreate")
    if rule.after_driver and not now.driver_ended:
        return Next(step=Step.WAIT, reason=f"{row.name}: OpenNebula's own call to the dead host has to fail first")
    if rule.times and record.boots >= rule.times:
        return _leave(f"{row.name} on host {record.other_host}: tried {record.boots} times more")
    reason = f"{row.name}: {rule.reason}" if rule.reason else f"{row.name}, leads to {rule.then}"
    return Next(step=rule.step, call=rule.call, reason=rule.reason if rule.step is Step.WAIT else reason)


def _asks(host: int | None, presence: Presence) -> Next:
    what = f"host {host}, where it may run, {'could not be asked' if presence is Presence.UNKNOWN else presence.value}"
    if presence is Presence.THERE:
        what = f"its domain is on host {host} and does not run: it may go on"
    return Next(step=Step.WAIT, reason=what, ask=host)


def _leave(reason: str) -> Next:
    return Next(step=Step.LEAVE, reason=reason)


# --- on another host --------------------------------------------------------------------------------------------------


def _cared_for(vm: Vm, care: Care) -> Next:
    if care is Care.FAILING:
        return Next(step=Step.WAIT, reason=f"host {vm.host}, where it is, does not answer either", patient=True)
    if care is Care.TAKEN:
        reason = f"host {vm.host}, where it was to run, died too: its incident goes on with it"
        return Next(step=Step.WAIT, reason=reason, patient=True)
    if claims_running(vm):
        return Next(step=Step.RUNNING, reason=f"runs on host {vm.host}, by the incident of the next host that died")
    return _leave(f"{vm.label} on host {vm.host}: the incident of the next host that died has left it")


def _leaving(record: VmRecord, vm: Vm, now: Situation) -> Next:
    """Its migration to or from a living host was under way."""
    if claims_running(vm):
        return Next(step=Step.RUNNING)
    row = row_of(vm.state, vm.lcm_state)
    if row.leaving is not None:
        return _leave(vm.obstacle) if vm.obstacle else _follow(row.leaving, row, record, now)
    if vm.state == VmState.ACTIVE and row.want is Want.RUNNING:
        return Next(step=Step.WAIT, reason=f"its migration ends on host {vm.host}: {vm.label}")
    return _leave(f"it became {vm.label} on host {vm.host}")


def _arrived(record: VmRecord, vm: Vm, now: Situation) -> Next:
    if record.doubted:
        return _doubted(record, vm, now)
    wanted = wants_running(record) and now.policy is not VmPolicy.POWEROFF
    if vm.state == VmState.POWEROFF and wanted and record.stage is VmStage.RESUMING and record.tries >= RESUMES_MAX:
        return _doubted(record, vm, now)
    if vm.state == VmState.POWEROFF:
        return Next(step=Step.RESUME if wanted else Step.KEPT)
    if vm.state == VmState.SUSPENDED:
        return Next(step=Step.RESUME if wanted and record.was_lcm_state == BOOT_SUSPENDED else Step.KEPT)
    row = row_of(vm.state, vm.lcm_state)
    if now.overdue and row.overdue is not None and wanted:
        return _overdue(row.overdue, record, vm, now)
    rule = row.arrived
    if rule.step is Step.RECOVER and record.boots >= rule.times:
        return _gives_up_here(record, vm, now)
    if rule.step is Step.RECOVER:
        call = Recover.SUCCESS if vm.lcm_state == MOVE_FAILURE and record.boots else rule.call
        return Next(step=Step.RECOVER, call=call, reason=f"its start failed: {vm.label} on host {vm.host}")
    reason = (
        f"OpenNebula starts it: {vm.label}" if rule.step is Step.WAIT else f"it became {vm.label} on host {vm.host}"
    )
    return Next(step=rule.step, reason=reason)


def _overdue(what: Ask, record: VmRecord, vm: Vm, now: Situation) -> Next:
    """OpenNebula has been at work on it for too long: its drivers may have lost it when it was restarted."""
    starts = f"OpenNebula starts it: {vm.label}"
    if now.arrived not in (Presence.RUNS, Presence.ABSENT):
        return Next(step=Step.WAIT, reason=f"{starts}, for too long; host {vm.host} is asked for it", ask=vm.host)
    rule = what.runs if now.arrived is Presence.RUNS else what.absent
    again = rule.call is Recover.RETRY
    if again and record.second_starts >= rule.times:
        return Next(step=Step.WAIT, reason=starts)
    reason = rule.reason or f"{vm.label} for too long, leads to {rule.then}"
    return Next(step=rule.step, call=rule.call, reason=reason, second_start=again)


def _stays_here(host: int | None, vm: Vm) -> Next:
    """Its first start had no end when the second one was ordered: it may come to its effect at any time."""
    return _leave(
        f"it did not start on host {host}, and may yet: {vm.label}. Never start it elsewhere before you looked there"
    )


def _gives_up_here(record: VmRecord, vm: Vm, now: Situation) -> Next:
    """BOOT_FAILURE again and again: elsewhere, if its destination says that it is not there."""
    failed = f"its start failed: {vm.label} on host {vm.host}"
    if vm.lcm_state != BOOT_FAILURE:
        return _leave(failed)
    match now.arrived:
        case Presence.ABSENT if record.second_starts:
            return _stays_here(record.destination, vm)
        case Presence.RUNS if record.second_starts:
            return Next(step=Step.RECOVER, call=Recover.SUCCESS, reason=f"{failed}, and one start has succeeded")
        case Presence.ABSENT:
            # from RUNNING oned itself finds out that it is POWEROFF, and from there it can be moved on
            return Next(step=Step.RECOVER, call=Recover.SUCCESS, reason=failed)
        case Presence.RUNS:
            return Next(step=Step.WAIT, reason=f"{failed}, although it runs there")
        case _:
            return Next(step=Step.WAIT, reason=failed, ask=vm.host)


def _doubted(record: VmRecord, vm: Vm, now: Situation) -> Next:
    """It did not start there, whatever oned says: RUNNING may have been written down so that oned looks at it.

    Moved on from there, and from there alone, when the host says that it has no such domain.
    """
    if now.arrived is Presence.RUNS and claims_running(vm):
        return Next(step=Step.RUNNING)
    if now.arrived is not Presence.ABSENT:
        return Next(step=Step.WAIT, reason=f"it did not start on host {vm.host}, which cannot be asked", ask=vm.host)
    if record.second_starts:
        return _stays_here(record.destination, vm)
    if vm.state == VmState.POWEROFF:
        return Next(step=Step.MOVE, elsewhere=True, reason=f"it did not start on host {vm.host}")
    if vm.state == VmState.ACTIVE and vm.lcm_state == BOOT_FAILURE:
        return Next(step=Step.RECOVER, call=Recover.SUCCESS, reason=f"it did not start on host {vm.host}")
    return Next(step=Step.WAIT, reason=f"it did not start on host {vm.host}: {vm.label} there is false", ask=vm.host)


# --- made anew --------------------------------------------------------------------------------------------------------


def is_made_anew(record: VmRecord) -> bool:
    """Whether the VM is made anew, by us or by its owner."""
    was = record.was_lcm_state == CLEANUP_RESUBMIT and record.was_state == VmState.ACTIVE
    return record.recreated or was


def _made_anew(vm: Vm, now: Situation) -> Next:
    """OpenNebula's scheduler chooses the host: never the dead one, which is disabled."""
    if vm.state == VmState.ACTIVE and vm.host != now.source:
        reason = f"it is made anew: {vm.label}"
        return Next(step=Step.RUNNING if claims_running(vm) else Step.WAIT, reason=reason)
    if vm.state == VmState.ACTIVE and vm.lcm_state == CLEANUP_RESUBMIT and now.driver_ended:
        return Next(step=Step.RECOVER, call=Recover.SUCCESS, reason="it is made anew: CLEANUP_RESUBMIT")
    if vm.state in (VmState.ACTIVE, VmState.PENDING):
        return Next(step=Step.WAIT, reason=f"it is made anew: {vm.label}")
    return _leave(f"it became {vm.label} while it was made anew")
