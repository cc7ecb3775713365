"""What becomes of a VM of a dead host, for every STATE and LCM_STATE in which OpenNebula may show it.

One row for each number: what the VM is brought to, and the rules for where it is now. `outcome.next_step` is read off
this table and docs/vm-outcomes.md shows it. It must never hold a call that ends a VM or loses its disks (recreate is
asked for by the operator alone), nor one that its own row forbids.

What the calls do was seen on a running oned 7.4 (SEEN) or read in its source, src/lcm (CODE); the rest is our caution.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from ha_controller.core.model import VmState


class Want(StrEnum):
    """What a VM is brought to, by what it was when its host failed."""

    RUNNING = "runs again"
    AS_IT_WAS = "moved, not started"
    LEFT = "left alone"


class Step(StrEnum):
    """What to do next for one VM."""

    MOVE = "migrate"
    RECOVER = "recover"  #: end a state that OpenNebula does not leave by itself
    RESUME = "resume"
    WAIT = "wait"  #: OpenNebula is at work, or has to notice first
    RUNNING = "runs"  #: outcome
    LOCK = "lock again"
    KEPT = "as it was"  #: outcome: moved, and not started because it did not run before
    LEAVE = "leave alone"  #: outcome, with the reason


class Recover(IntEnum):
    """Operations of one.vm.recover. Its deletes (3 and 5) are not here: this controller ends no VM."""

    FAILURE = 0
    SUCCESS = 1
    RETRY = 2
    RECREATE = 4


class Source(StrEnum):
    """How a rule is known."""

    SEEN = "seen"
    CODE = "code"
    OURS = "our rule"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One step, and what shows that it worked."""

    step: Step
    call: Recover | None = None
    then: str = ""  #: the state that it leads to, in OpenNebula's words
    reason: str = ""  #: why it waits or is left alone, for people
    after_driver: bool = False  #: only when oned's own call to the dead host has had its time to fail
    recreates: bool = False  #: only where the operator allows to make VMs anew
    times: int = 0  #: at most so often on one host, then it is given up there; 0: as often as orders are repeated
    source: Source = Source.OURS


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """It may run at the other end of a migration: that host is asked for its domains first."""

    runs: Rule
    absent: Rule
    off: Rule | None = None  #: the other end is verified off, too; None: as absent


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Everything about one state."""

    name: str
    want: Want  #: for a VM that was in this state when its host failed
    here: Rule | Ask  #: its last history record names the dead host
    arrived: Rule  #: it is on the living host that was chosen for it
    overdue: Ask | None = None  #: there OpenNebula has been at work on it for too long; that host is asked first
    leaving: Rule | Ask | None = None  #: it was on its way from the dead host to a living one
    never: tuple[Recover, ...] = ()
    never_text: str = ""

    @property
    def travels(self) -> bool:
        """Whether it may run on two hosts, or on the other one."""
        return self.leaving is not None


# --- rules that many rows share ---------------------------------------------------------------------------------------

_FALSE: Final = "false RUNNING, then UNKNOWN"
_STARTS: Final = Rule(step=Step.WAIT, reason="OpenNebula is at work on it", source=Source.SEEN)
_BECAME: Final = Rule(step=Step.LEAVE, reason="somebody changed it meanwhile")
_MOVE: Final = Rule(step=Step.MOVE, then="PROLOG_MIGRATE_UNKNOWN, BOOT, RUNNING", source=Source.SEEN)
_ENDS_WELL: Final = Rule(step=Step.WAIT, reason="its migration ends on the living host")


def _end(call: Recover, then: str, source: Source, *, after_driver: bool = True, times: int = 0) -> Rule:
    return Rule(step=Step.RECOVER, call=call, then=then, source=source, after_driver=after_driver, times=times)


def _left(name: str, reason: str, *, never: tuple[Recover, ...] = (), never_text: str = "") -> Row:
    rule = Rule(step=Step.LEAVE, reason=reason)
    return Row(name=name, want=Want.LEFT, here=rule, arrived=_STARTS, never=never, never_text=never_text)


def _busy(name: str, source: Source = Source.CODE) -> Row:
    """It ran while something was done to it; recover 0 ends that."""
    return Row(name=name, want=Want.RUNNING, here=_end(Recover.FAILURE, _FALSE, source), arrived=_STARTS)


def _busy_off(name: str, then: str) -> Row:
    """It did not run while something was done to it."""
    return Row(name=name, want=Want.AS_IT_WAS, here=_end(Recover.FAILURE, then, Source.CODE), arrived=_STARTS)


def _saving(name: str) -> Row:
    return Row(
        name=name,
        want=Want.RUNNING,
        here=_end(Recover.FAILURE, _FALSE, Source.SEEN),
        arrived=_STARTS,
        never=(Recover.SUCCESS,),
        never_text="recover 1: the saved file may be half of it",
    )


def _booting(name: str, source: Source) -> Row:
    return Row(
        name=name,
        want=Want.RUNNING,
        here=_end(Recover.SUCCESS, _FALSE, source),
        arrived=_STARTS,
        never=(Recover.RETRY,),
        never_text="recover 2: boots on the dead host",
    )


def _booting_from(name: str, then: str, overdue: Ask | None = None) -> Row:
    here = _end(Recover.FAILURE, then, Source.CODE)
    return Row(name=name, want=Want.RUNNING, here=here, arrived=_STARTS, overdue=overdue)


_MEMORY: Final = "its saved memory is still in its datastore: look at it, then retry or recover it by hand"
_COPYING: Final = "its disks were being copied and may be incomplete"
_REVERTING: Final = "a disk was being replaced by an older one and may be incomplete"
_OBSOLETE: Final = "OpenNebula no longer uses this state"
_NO_HOST: Final = "it is on no host: OpenNebula's scheduler places it"
_ENDING: Final = "its owner was terminating it: it is off; terminate it again, or onevm recover --success"
_TO_DONE: Final = "recover 1: ends in DONE, and the VM is gone"
_HOLD_DATA: Final = "recreate: its disks hold data"
_UNBORN: Final = "its disks were being made for the first time"

_MIGRATE_HERE: Final = Ask(
    runs=_end(Recover.FAILURE, "RUNNING on its living source", Source.SEEN, after_driver=False),
    absent=_end(Recover.SUCCESS, _FALSE, Source.CODE),
)
_MIGRATE_LEAVING: Final = Ask(
    # before oned's own call fails: that would write the VM back to the dead source, while it runs on the target
    runs=_end(Recover.SUCCESS, "RUNNING on the living target", Source.CODE, after_driver=False),
    absent=_end(Recover.FAILURE, _FALSE, Source.SEEN),
)
_SAVES: Final = Rule(step=Step.WAIT, reason="its living source saves it", then="PROLOG_MIGRATE or RUNNING")
#: a restart of oned loses the answers of its drivers, and what they were doing has no end
_BOOTS_FOR_TOO_LONG: Final = Ask(
    runs=_end(Recover.SUCCESS, "RUNNING, as it does", Source.CODE, after_driver=False),
    absent=_end(Recover.RETRY, "RUNNING: it is started there once more", Source.CODE, after_driver=False, times=1),
)
_MOVES_FOR_TOO_LONG: Final = Ask(
    runs=Rule(step=Step.WAIT, reason="it runs where it is to be moved, although OpenNebula has not started it there"),
    absent=_end(Recover.RETRY, "its move once more, BOOT, RUNNING", Source.CODE, after_driver=False, times=1),
)
_ODD: Final = Rule(
    step=Step.LEAVE, reason="it runs on the other host although OpenNebula has saved it: look at it at once"
)

# --- the table --------------------------------------------------------------------------------------------------------

#: LCM_STATE of an ACTIVE VM, include/VirtualMachine.h of OpenNebula 7.4. Every number from 0 to 71.
LCM: Final[dict[int, Row]] = {
    0: _left("LCM_INIT", "OpenNebula does not say what it does"),
    1: Row(
        name="PROLOG", want=Want.RUNNING, arrived=_STARTS,
        here=Rule(step=Step.RECOVER, call=Recover.FAILURE, then="PROLOG_FAILURE", reason=_UNBORN, after_driver=True,
                  recreates=True, source=Source.SEEN),
        never=(Recover.SUCCESS,), never_text="recover 1: boots without complete disks",
    ),
    2: Row(
        name="BOOT", want=Want.RUNNING, arrived=_STARTS, overdue=_BOOTS_FOR_TOO_LONG,
        here=_end(Recover.SUCCESS, _FALSE, Source.CODE), never_text="recover 2 on the dead host: boots there",
    ),
    3: Row(
        name="RUNNING", want=Want.RUNNING, arrived=Rule(step=Step.RUNNING, source=Source.SEEN),
        here=Rule(step=Step.WAIT, reason="OpenNebula still shows it RUNNING on the dead host", then="UNKNOWN",
                  source=Source.SEEN),
        never_text="migrate, resched, poweroff-hard, terminate-hard: they call the dead host and fall back to RUNNING",
    ),
    4: Row(name="MIGRATE", want=Want.RUNNING, here=_MIGRATE_HERE, leaving=_MIGRATE_LEAVING, arrived=_STARTS,
           never=(Recover.RETRY,), never_text="recover 0 or 1 before the other host was asked"),
    5: _saving("SAVE_STOP"),
    6: _saving("SAVE_SUSPEND"),
    7: Row(
        name="SAVE_MIGRATE", want=Want.RUNNING, arrived=_STARTS,
        here=Ask(runs=_SAVES, absent=_SAVES, off=_end(Recover.FAILURE, _FALSE, Source.SEEN)),
        leaving=Ask(runs=_ODD, absent=_end(Recover.FAILURE, _FALSE, Source.SEEN)),
        never=(Recover.SUCCESS, Recover.RETRY), never_text="recover 1: the saved file may be half of it",
    ),
    8: Row(name="PROLOG_MIGRATE", want=Want.RUNNING, arrived=_STARTS, leaving=_ENDS_WELL,
           here=_end(Recover.FAILURE, "PROLOG_MIGRATE_FAILURE", Source.CODE)),
    9: _left("PROLOG_RESUME", _MEMORY),
    10: _left("EPILOG_STOP", f"it was being stopped; {_MEMORY}"),
    11: _left("EPILOG", _ENDING, never=(Recover.SUCCESS,), never_text=_TO_DONE),
    12: _left("SHUTDOWN", _ENDING, never=(Recover.SUCCESS,), never_text=_TO_DONE),
    13: _left("CANCEL", _OBSOLETE),
    14: _left("FAILURE", _OBSOLETE),
    15: Row(name="CLEANUP_RESUBMIT", want=Want.RUNNING, arrived=_STARTS,
            here=_end(Recover.SUCCESS, "PENDING, and the scheduler places it", Source.SEEN)),
    16: Row(
        name="UNKNOWN", want=Want.RUNNING, here=_MOVE, arrived=_STARTS,
        never=(Recover.FAILURE, Recover.SUCCESS),
        never_text="recover 0 or 1 (write RUNNING and do nothing), poweroff-hard, terminate-hard; recreate by default",
    ),
    17: _busy("HOTPLUG"),
    18: Row(name="SHUTDOWN_POWEROFF", want=Want.AS_IT_WAS, arrived=_STARTS,
            # at once: oned's own call would fail and fall back to RUNNING
            here=_end(Recover.SUCCESS, "POWEROFF, as its owner ordered", Source.SEEN, after_driver=False)),
    19: _booting_from("BOOT_UNKNOWN", "UNKNOWN", overdue=_BOOTS_FOR_TOO_LONG),
    20: _booting_from("BOOT_POWEROFF", "POWEROFF; it is started where it is moved to", overdue=_BOOTS_FOR_TOO_LONG),
    21: _booting_from("BOOT_SUSPENDED", "SUSPENDED; it is started where it is moved to"),
    22: _left("BOOT_STOPPED", _MEMORY),
    23: _left("CLEANUP_DELETE", _ENDING, never=(Recover.FAILURE, Recover.SUCCESS), never_text="recover 0 or 1: DONE"),
    24: _busy("HOTPLUG_SNAPSHOT"),
    25: _busy("HOTPLUG_NIC"),
    26: _busy("HOTPLUG_SAVEAS"),
    27: _busy_off("HOTPLUG_SAVEAS_POWEROFF", "POWEROFF"),
    28: _busy_off("HOTPLUG_SAVEAS_SUSPENDED", "SUSPENDED"),
    29: Row(name="SHUTDOWN_UNDEPLOY", want=Want.AS_IT_WAS, arrived=_STARTS,
            here=_end(Recover.SUCCESS, "EPILOG_UNDEPLOY, UNDEPLOYED, as its owner ordered", Source.SEEN,
                      after_driver=False)),
    30: Row(name="EPILOG_UNDEPLOY", want=Want.AS_IT_WAS, arrived=_STARTS,
            here=Rule(step=Step.WAIT, reason="it is being undeployed", then="UNDEPLOYED", source=Source.SEEN)),
    31: _left("PROLOG_UNDEPLOY", _COPYING, never=(Recover.RECREATE,), never_text=_HOLD_DATA),
    32: _booting("BOOT_UNDEPLOY", Source.CODE),
    33: _busy_off("HOTPLUG_PROLOG_POWEROFF", "POWEROFF"),
    34: _busy_off("HOTPLUG_EPILOG_POWEROFF", "POWEROFF"),
    35: Row(name="BOOT_MIGRATE", want=Want.RUNNING, arrived=_STARTS, leaving=_ENDS_WELL,
            here=_end(Recover.SUCCESS, _FALSE, Source.CODE)),
    36: Row(
        name="BOOT_FAILURE", want=Want.RUNNING,
        here=_end(Recover.SUCCESS, _FALSE, Source.SEEN, after_driver=False),
        arrived=_end(Recover.RETRY, "BOOT, RUNNING", Source.SEEN, after_driver=False, times=2),
        never=(Recover.FAILURE,),
        never_text="recover 2 on the dead host (boots there); migrate and resched are refused; recover 0",
    ),
    37: Row(name="BOOT_MIGRATE_FAILURE", want=Want.RUNNING, arrived=_STARTS,
            here=_end(Recover.SUCCESS, _FALSE, Source.CODE, after_driver=False),
            leaving=_end(Recover.RETRY, "BOOT_MIGRATE, RUNNING on the living target", Source.CODE, times=2,
                         after_driver=False)),
    38: Row(
        name="PROLOG_MIGRATE_FAILURE", want=Want.RUNNING, arrived=_STARTS,
        here=Ask(
            runs=_ODD,
            absent=_end(Recover.FAILURE, "restored on its living source", Source.SEEN, after_driver=False),
            off=_end(Recover.SUCCESS, "BOOT_MIGRATE, BOOT_MIGRATE_FAILURE", Source.CODE, after_driver=False),
        ),
        leaving=_end(Recover.RETRY, "PROLOG_MIGRATE, RUNNING on the living target", Source.CODE, times=2,
                     after_driver=False),
        never_text="recover 0 while the source is the dead host: it boots there",
    ),
    39: Row(
        name="PROLOG_FAILURE", want=Want.RUNNING, arrived=_STARTS,
        here=Rule(step=Step.RECOVER, call=Recover.RECREATE, then="CLEANUP_RESUBMIT, PENDING, RUNNING", reason=_UNBORN,
                  recreates=True, source=Source.SEEN),
        never=(Recover.SUCCESS,), never_text="recover 1: boots without complete disks",
    ),
    40: _left("EPILOG_FAILURE", _ENDING, never=(Recover.SUCCESS,), never_text=_TO_DONE),
    41: _left("EPILOG_STOP_FAILURE", f"it was being stopped; {_MEMORY}"),
    42: _left("EPILOG_UNDEPLOY_FAILURE", "it was being undeployed: its disks may be on their way"),
    43: Row(name="PROLOG_MIGRATE_POWEROFF", want=Want.AS_IT_WAS, arrived=_STARTS,
            here=_end(Recover.SUCCESS, "POWEROFF", Source.CODE)),
    44: Row(name="PROLOG_MIGRATE_POWEROFF_FAILURE", want=Want.AS_IT_WAS,
            here=_end(Recover.SUCCESS, "POWEROFF", Source.CODE, after_driver=False),
            arrived=_end(Recover.SUCCESS, "POWEROFF", Source.CODE, after_driver=False, times=1),
            never=(Recover.FAILURE,), never_text="recover 0: back to the dead host"),
    45: Row(name="PROLOG_MIGRATE_SUSPEND", want=Want.AS_IT_WAS, arrived=_STARTS,
            here=_end(Recover.SUCCESS, "SUSPENDED", Source.CODE)),
    46: Row(name="PROLOG_MIGRATE_SUSPEND_FAILURE", want=Want.AS_IT_WAS,
            here=_end(Recover.SUCCESS, "SUSPENDED", Source.CODE, after_driver=False),
            arrived=_end(Recover.SUCCESS, "SUSPENDED", Source.CODE, after_driver=False, times=1),
            never=(Recover.FAILURE,), never_text="recover 0: back to the dead host"),
    47: _booting("BOOT_UNDEPLOY_FAILURE", Source.CODE),
    48: _left("BOOT_STOPPED_FAILURE", _MEMORY, never=(Recover.SUCCESS,), never_text="recover 1: loses its memory"),
    49: _left("PROLOG_RESUME_FAILURE", _MEMORY),
    50: _left("PROLOG_UNDEPLOY_FAILURE", _COPYING, never=(Recover.RECREATE,), never_text=_HOLD_DATA),
    51: _busy_off("DISK_SNAPSHOT_POWEROFF", "POWEROFF"),
    52: _left("DISK_SNAPSHOT_REVERT_POWEROFF", _REVERTING),
    53: _busy_off("DISK_SNAPSHOT_DELETE_POWEROFF", "POWEROFF"),
    54: _busy_off("DISK_SNAPSHOT_SUSPENDED", "SUSPENDED"),
    55: _left("DISK_SNAPSHOT_REVERT_SUSPENDED", _REVERTING),
    56: _busy_off("DISK_SNAPSHOT_DELETE_SUSPENDED", "SUSPENDED"),
    57: _busy("DISK_SNAPSHOT"),
    58: _left("DISK_SNAPSHOT_REVERT", _REVERTING),
    59: _busy("DISK_SNAPSHOT_DELETE"),
    60: Row(name="PROLOG_MIGRATE_UNKNOWN", want=Want.RUNNING, arrived=_STARTS, overdue=_MOVES_FOR_TOO_LONG,
            here=_end(Recover.SUCCESS, "BOOT and BOOT_FAILURE on the dead host", Source.CODE),
            never=(Recover.FAILURE,), never_text="recover 0: leads to 61, and from there to the old host"),
    61: Row(
        name="PROLOG_MIGRATE_UNKNOWN_FAILURE", want=Want.RUNNING,
        here=_end(Recover.SUCCESS, "BOOT and BOOT_FAILURE on the dead host", Source.SEEN, after_driver=False),
        arrived=_end(Recover.RETRY, "PROLOG_MIGRATE_UNKNOWN, BOOT, RUNNING; the second time recover 1", Source.SEEN,
                     after_driver=False, times=2),
        never=(Recover.FAILURE,), never_text="recover 0: boots on the old, dead host",
    ),
    62: _busy("DISK_RESIZE"),
    63: _busy_off("DISK_RESIZE_POWEROFF", "POWEROFF"),
    64: _left("DISK_RESIZE_UNDEPLOYED", _NO_HOST),
    65: _busy_off("HOTPLUG_NIC_POWEROFF", "POWEROFF"),
    66: _busy("HOTPLUG_RESIZE"),
    67: _left("HOTPLUG_SAVEAS_UNDEPLOYED", _NO_HOST),
    68: _left("HOTPLUG_SAVEAS_STOPPED", _NO_HOST),
    69: _busy("BACKUP"),
    70: _busy_off("BACKUP_POWEROFF", "POWEROFF"),
    71: _left("RESTORE", "its disks were being replaced by a backup and may be incomplete"),
}  # fmt: skip


def _off_host(name: str, reason: str) -> Row:
    rule = Rule(step=Step.LEAVE, reason=reason)
    return Row(name=name, want=Want.LEFT, here=rule, arrived=_BECAME)


def _still(name: str, then: str) -> Row:
    rule = Rule(step=Step.MOVE, then=then, source=Source.SEEN)
    return Row(name=name, want=Want.AS_IT_WAS, here=rule, arrived=Rule(step=Step.KEPT, source=Source.SEEN))


#: STATE of a VM that is not ACTIVE. 7 (FAILED) is obsolete.
STATES: Final[dict[int, Row]] = {
    0: _off_host("INIT", _NO_HOST),
    1: _off_host("PENDING", _NO_HOST),
    2: _off_host("HOLD", "it is on no host: its owner holds it"),
    4: _off_host("STOPPED", "it is on no host: its owner stopped it"),
    5: _still("SUSPENDED", "PROLOG_MIGRATE_SUSPEND, SUSPENDED"),
    6: _off_host("DONE", "it no longer exists in OpenNebula"),
    7: _off_host("FAILED", _OBSOLETE),
    8: _still("POWEROFF", "PROLOG_MIGRATE_POWEROFF, POWEROFF; resumed if it ran when its host failed"),
    9: _off_host("UNDEPLOYED", "it is on no host: its owner undeployed it"),
    10: _off_host("CLONING", "it is on no host: its images are being cloned"),
    11: _off_host("CLONING_FAILURE", "it is on no host: its images could not be cloned"),
}


def row_of(state: int, lcm_state: int) -> Row:
    """The row of a VM. A number that is in no table gets one that waits and then leaves the VM alone."""
    number, rows = (lcm_state, LCM) if state == VmState.ACTIVE else (state, STATES)
    if number in rows:
        return rows[number]
    name = f"{'LCM_STATE' if state == VmState.ACTIVE else 'STATE'} {number}"
    strange = Rule(step=Step.WAIT, reason=f"{name} is not known to this version")
    return Row(name=name, want=Want.LEFT, here=strange, arrived=strange)


def is_forbidden(state: int, lcm_state: int, call: Recover) -> bool:
    """Whether a recover would do harm in this state, wherever the VM is. Of DONE and what is on no host: always."""
    row = row_of(state, lcm_state)
    return state != VmState.ACTIVE or row.name.startswith("LCM_STATE") or call in row.never
