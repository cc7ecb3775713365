"""OpenNebula's numbers for the states of hosts and VMs, and their names for people.

oned sends plain numbers and may send ones that this table does not know (each release adds some), so models keep the
number and `name` never fails. Source: include/Host.h and include/VirtualMachine.h of OpenNebula 7.4.
"""

from __future__ import annotations

from enum import IntEnum


class OnedHostState(IntEnum):
    """HOST/STATE. 1, 5, 6 and 7 are obsolete."""

    INIT = 0
    MONITORED = 2
    ERROR = 3
    DISABLED = 4  #: still monitored; the scheduler skips it
    OFFLINE = 8  #: not monitored; deploying or migrating to it is refused


class RaftState(IntEnum):
    """RAFT/STATE of a server of a zone, in its own words."""

    SOLO = 0
    CANDIDATE = 1
    FOLLOWER = 2
    LEADER = 3  #: also said without end by one that is cut off


class VmState(IntEnum):
    """VM/STATE. 7 (FAILED) is obsolete."""

    INIT = 0
    PENDING = 1
    HOLD = 2
    ACTIVE = 3  #: only here VM/LCM_STATE means anything
    STOPPED = 4
    SUSPENDED = 5
    DONE = 6
    POWEROFF = 8
    UNDEPLOYED = 9
    CLONING = 10
    CLONING_FAILURE = 11


class LcmState(IntEnum):
    """VM/LCM_STATE, what an ACTIVE VM is doing. 13 (CANCEL) and 14 (FAILURE) are obsolete."""

    LCM_INIT = 0
    PROLOG = 1
    BOOT = 2
    RUNNING = 3
    MIGRATE = 4
    SAVE_STOP = 5
    SAVE_SUSPEND = 6
    SAVE_MIGRATE = 7
    PROLOG_MIGRATE = 8
    PROLOG_RESUME = 9
    EPILOG_STOP = 10
    EPILOG = 11
    SHUTDOWN = 12
    CLEANUP_RESUBMIT = 15
    UNKNOWN = 16
    HOTPLUG = 17
    SHUTDOWN_POWEROFF = 18
    BOOT_UNKNOWN = 19
    BOOT_POWEROFF = 20
    BOOT_SUSPENDED = 21
    BOOT_STOPPED = 22
    CLEANUP_DELETE = 23
    HOTPLUG_SNAPSHOT = 24
    HOTPLUG_NIC = 25
    HOTPLUG_SAVEAS = 26
    HOTPLUG_SAVEAS_POWEROFF = 27
    HOTPLUG_SAVEAS_SUSPENDED = 28
    SHUTDOWN_UNDEPLOY = 29
    EPILOG_UNDEPLOY = 30
    PROLOG_UNDEPLOY = 31
    BOOT_UNDEPLOY = 32
    HOTPLUG_PROLOG_POWEROFF = 33
    HOTPLUG_EPILOG_POWEROFF = 34
    BOOT_MIGRATE = 35
    BOOT_FAILURE = 36
    BOOT_MIGRATE_FAILURE = 37
    PROLOG_MIGRATE_FAILURE = 38
    PROLOG_FAILURE = 39
    EPILOG_FAILURE = 40
    EPILOG_STOP_FAILURE = 41
    EPILOG_UNDEPLOY_FAILURE = 42
    PROLOG_MIGRATE_POWEROFF = 43
    PROLOG_MIGRATE_POWEROFF_FAILURE = 44
    PROLOG_MIGRATE_SUSPEND = 45
    PROLOG_MIGRATE_SUSPEND_FAILURE = 46
    BOOT_UNDEPLOY_FAILURE = 47
    BOOT_STOPPED_FAILURE = 48
    PROLOG_RESUME_FAILURE = 49
    PROLOG_UNDEPLOY_FAILURE = 50
    DISK_SNAPSHOT_POWEROFF = 51
    DISK_SNAPSHOT_REVERT_POWEROFF = 52
    DISK_SNAPSHOT_DELETE_POWEROFF = 53
    DISK_SNAPSHOT_SUSPENDED = 54
    DISK_SNAPSHOT_REVERT_SUSPENDED = 55
    DISK_SNAPSHOT_DELETE_SUSPENDED = 56
    DISK_SNAPSHOT = 57
    DISK_SNAPSHOT_REVERT = 58
    DISK_SNAPSHOT_DELETE = 59
    PROLOG_MIGRATE_UNKNOWN = 60
    PROLOG_MIGRATE_UNKNOWN_FAILURE = 61
    DISK_RESIZE = 62
    DISK_RESIZE_POWEROFF = 63
    DISK_RESIZE_UNDEPLOYED = 64
    HOTPLUG_NIC_POWEROFF = 65
    HOTPLUG_RESIZE = 66
    HOTPLUG_SAVEAS_UNDEPLOYED = 67
    HOTPLUG_SAVEAS_STOPPED = 68
    BACKUP = 69
    BACKUP_POWEROFF = 70
    RESTORE = 71


def name(state: int, lcm_state: int) -> str:
    """Name what a VM is or does, as OpenNebula's own tools would: the LCM state of an ACTIVE VM, else the state."""
    if state == VmState.ACTIVE:
        return _number_name(LcmState, lcm_state, "LCM_STATE")
    return _number_name(VmState, state, "STATE")


def host_state_name(state: int) -> str:
    """Name the state of a host."""
    return _number_name(OnedHostState, state, "STATE")


def _number_name(states: type[IntEnum], number: int, label: str) -> str:
    try:
        return states(number).name
    except ValueError:
        return f"{label} {number}"
