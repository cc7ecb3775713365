"""The nouns of the embedded oned: states and codes with oned's numbers, hosts, VMs, and the refusals of its calls."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field

INIT, MONITORED, ERROR, DISABLED, OFFLINE = 0, 2, 3, 4, 8
AUTHENTICATION, NOT_AUTHORIZED, NO_EXISTS, ACTION, BAD_PARAMETER, INTERNAL = 256, 512, 1024, 2048, 4096, 8192

PENDING, ACTIVE, SUSPENDED, DONE, POWEROFF, UNDEPLOYED = 1, 3, 5, 6, 8, 9
STATE_NAMES = {1: "PENDING", 2: "HOLD", 4: "STOPPED", 5: "SUSPENDED", 6: "DONE", 8: "POWEROFF", 9: "UNDEPLOYED"}

PROLOG, BOOT, RUNNING, MIGRATE, SAVE_STOP, SAVE_SUSPEND, SAVE_MIGRATE, PROLOG_MIGRATE = 1, 2, 3, 4, 5, 6, 7, 8
EPILOG, SHUTDOWN, CLEANUP_RESUBMIT, UNKNOWN, SHUTDOWN_POWEROFF = 11, 12, 15, 16, 18
BOOT_POWEROFF, BOOT_SUSPENDED, BOOT_FAILURE = 20, 21, 36
PROLOG_MIGRATE_POWEROFF, PROLOG_MIGRATE_SUSPEND, PROLOG_MIGRATE_UNKNOWN = 43, 45, 60
#: include/VirtualMachine.h, from 0 on
LCM_NAMES = dict(enumerate("""
    LCM_INIT PROLOG BOOT RUNNING MIGRATE SAVE_STOP SAVE_SUSPEND SAVE_MIGRATE PROLOG_MIGRATE PROLOG_RESUME
    EPILOG_STOP EPILOG SHUTDOWN CANCEL FAILURE CLEANUP_RESUBMIT UNKNOWN HOTPLUG SHUTDOWN_POWEROFF BOOT_UNKNOWN
    BOOT_POWEROFF BOOT_SUSPENDED BOOT_STOPPED CLEANUP_DELETE HOTPLUG_SNAPSHOT HOTPLUG_NIC HOTPLUG_SAVEAS
    HOTPLUG_SAVEAS_POWEROFF HOTPLUG_SAVEAS_SUSPENDED SHUTDOWN_UNDEPLOY EPILOG_UNDEPLOY PROLOG_UNDEPLOY BOOT_UNDEPLOY
    HOTPLUG_PROLOG_POWEROFF HOTPLUG_EPILOG_POWEROFF BOOT_MIGRATE BOOT_FAILURE BOOT_MIGRATE_FAILURE
    PROLOG_MIGRATE_FAILURE PROLOG_FAILURE EPILOG_FAILURE EPILOG_STOP_FAILURE EPILOG_UNDEPLOY_FAILURE
    PROLOG_MIGRATE_POWEROFF PROLOG_MIGRATE_POWEROFF_FAILURE PROLOG_MIGRATE_SUSPEND PROLOG_MIGRATE_SUSPEND_FAILURE
    BOOT_UNDEPLOY_FAILURE BOOT_STOPPED_FAILURE PROLOG_RESUME_FAILURE PROLOG_UNDEPLOY_FAILURE DISK_SNAPSHOT_POWEROFF
    DISK_SNAPSHOT_REVERT_POWEROFF DISK_SNAPSHOT_DELETE_POWEROFF DISK_SNAPSHOT_SUSPENDED
    DISK_SNAPSHOT_REVERT_SUSPENDED DISK_SNAPSHOT_DELETE_SUSPENDED DISK_SNAPSHOT DISK_SNAPSHOT_REVERT
    DISK_SNAPSHOT_DELETE PROLOG_MIGRATE_UNKNOWN PROLOG_MIGRATE_UNKNOWN_FAILURE DISK_RESIZE DISK_RESIZE_POWEROFF
    DISK_RESIZE_UNDEPLOYED HOTPLUG_NIC_POWEROFF HOTPLUG_RESIZE HOTPLUG_SAVEAS_UNDEPLOYED HOTPLUG_SAVEAS_STOPPED
    BACKUP BACKUP_POWEROFF RESTORE
""".split()))  # noqa: SIM905 - as text, 72 names fit on a page  # fmt: skip


class OnedRefusal(Exception):
    """An error answer of oned."""

    def __init__(self, code: int, text: str, object_id: int = -1) -> None:
        super().__init__(text)
        self.code, self.text, self.object_id = code, text, object_id


@dataclass(frozen=True, kw_only=True)
class Timings:
    """oned's intervals, in seconds; the defaults are the stock ones."""

    monitoring_interval_s: float = 180.0  #: MONITORING_INTERVAL_HOST
    manager_timer_s: float = 15.0  #: MANAGER_TIMER
    monitor_host_s: float = 120.0  #: MONITOR_HOST: how often a healthy host's timestamp moves
    ssh_timeout_s: float = 3.0  #: how long its ssh takes to give up on a dead host
    probe_s: float = 0.3  #: how long it takes with a living one
    prolog_s: float = 0.05
    boot_s: float = 0.5
    scheduler_s: float = 15.0  #: how often VMs that are PENDING or to be rescheduled are placed


@dataclass(kw_only=True)
class OnedHost:
    """A host as oned keeps it."""

    id: int
    name: str
    cluster: int
    cluster_name: str
    state: int = MONITORED
    total_cpu: int = 6400
    total_mem_kb: int = 256 * 1024 * 1024
    attributes: dict[str, str | dict[str, str]] = field(default_factory=dict)
    heard_at: float = 0.0  #: last beacon
    monitored_at: float = 0.0
    probe_due_at: float | None = None
    monitored_boot: int = 1  #: of the machine, in which its agent was started

    def snapshot(self) -> OnedHost:
        """A copy to be read. Attributes are replaced as a whole."""
        taken = copy(self)
        taken.attributes = dict(self.attributes)
        return taken

    @property
    def capacity_known(self) -> bool:
        """OFFLINE zeroes the capacity until the host was monitored again."""
        return self.state in (MONITORED, DISABLED, ERROR)


@dataclass(frozen=True, kw_only=True)
class Datastore:
    """A datastore of the embedded cloud."""

    id: int
    name: str
    shared: bool
    clusters: tuple[int, ...]
    tm_mad: str = "shared"
    type: int = 1  #: 0 images, 1 system


@dataclass(frozen=True, kw_only=True)
class VmGroup:
    """A VM group of the embedded cloud: roles as their attributes, VMS filled in by hand."""

    id: int
    name: str
    roles: tuple[dict[str, str], ...]
    rules: dict[str, str] = field(default_factory=dict)  #: AFFINED or ANTI_AFFINED: names of roles


@dataclass(kw_only=True)
class History:
    """One history record of a VM."""

    seq: int
    host: int
    started_at: float
    ended_at: float = 0.0
    found_missing_at: float = 0.0  #: oned itself saw that it runs no more
    ran: bool = True  #: oned saw it RUNNING there


@dataclass(kw_only=True)
class OnedVm:
    """A VM as oned keeps it."""

    id: int
    name: str
    state: int = ACTIVE
    lcm_state: int = RUNNING
    cpu: int = 100  #: hundredths of a core
    memory_mb: int = 1024
    datastore: int = 100
    locked: bool = False
    resched: bool = False
    missing_since: float | None = None  #: RUNNING on a living host whose agent does not report it
    attributes: dict[str, str | dict[str, str]] = field(default_factory=dict)
    groups: tuple[tuple[int, str], ...] = ()  #: the id of its VM group and its role there; one at most
    history: list[History] = field(default_factory=list)
    address: str = ""  #: of its network card; empty: it has none

    def snapshot(self) -> OnedVm:
        """A copy to be read. Attributes are replaced as a whole."""
        taken = copy(self)
        taken.attributes, taken.history = dict(self.attributes), [copy(each) for each in self.history]
        return taken

    @property
    def host(self) -> int:
        """HID of the last history record."""
        return self.history[-1].host

    @property
    def hosts(self) -> tuple[int, ...]:
        """Where it holds capacity: on both hosts while it migrates."""
        both = self.state == ACTIVE and self.lcm_state in (MIGRATE, SAVE_MIGRATE) and len(self.history) > 1
        return (self.history[-2].host, self.host) if both else (self.host,)

    @property
    def label(self) -> str:
        """Its state in oned's words."""
        names, number = (LCM_NAMES, self.lcm_state) if self.state == ACTIVE else (STATE_NAMES, self.state)
        return names.get(number, str(number))

    def become(self, state: int, lcm_state: int = 0) -> None:
        """Take a state."""
        self.state, self.lcm_state = state, lcm_state
        if (state, lcm_state) == (ACTIVE, RUNNING):
            self.history[-1].ran = True

    def is_done(self) -> bool:
        """Whether it was terminated; it stays readable by its id."""
        return self.state == DONE

    def holds_capacity(self) -> bool:
        """Whether its last host keeps CPU and memory for it."""
        return self.state not in (DONE, PENDING, UNDEPLOYED)
