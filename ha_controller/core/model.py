"""The nouns of the core: evidence, hosts, devices, VMs and identities.

Plain frozen values; whoever changes one makes a new one. Times are seconds on the controller's clock: wall time at
the start of the process plus monotonic time since, so a jump of the wall clock moves nothing and a stored time can
still be read by a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ha_controller.core.resources import NOTHING_WRITTEN, NumaNode, NumaRequest, PciDevice, PciRequest, Startup

# --- evidence ---------------------------------------------------------------------------------------------------------


class PowerState(StrEnum):
    """What a device says about the power of its host. UNKNOWN is neither on nor off."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Signal(StrEnum):
    """What one look at a host through one channel showed."""

    ALIVE = "alive"  #: something on the host answered
    SILENT = "silent"  #: the question was sent in time and nobody answered
    OFF = "off"  #: a power device says off
    ON = "on"  #: a power device says on: a hung host is on, too, so this proves nothing; but the device is there
    UNKNOWN = "unknown"  #: our own error, our own lag, or an answer that proves nothing; never counted for death
    DUMPING = "dumping"  #: it has crashed and writes its memory to disk: its VMs are gone, the power is still needed
    LEAVING = "leaving"  #: it said that it is being shut down or rebooted on purpose


class Domain(StrEnum):
    """What fails together. Silence of several channels of one domain is *one* proof, not several."""

    MANAGEMENT = "management"  #: same network card, switch and vantage point as this controller
    VANTAGE = "vantage"  #: other hosts or controllers that asked for us
    STORAGE = "storage"
    POWER = "power"
    ONED = "oned"  #: slow by default: never decides alone
    SELF = "self"  #: what the host tells of itself: shows life, boots and troubles; its silence says nothing


DECIDING_DOMAINS = frozenset({Domain.MANAGEMENT, Domain.VANTAGE, Domain.STORAGE})  #: they can fall silent in seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenAlive:
    """Another controller saw life of a host, through one of its channels."""

    host: int
    channel: str
    at: float  #: when its question left, on our clock: rather too early than too late


@dataclass(unsafe_hash=True, kw_only=True, slots=True)  # nobody changes one: frozen, each takes three times as long
class Reading:
    """One look at one host. `sent_at` is on the clock that `Probe.launch` and `Probe.collect` are called with."""

    host: int
    signal: Signal
    sent_at: float  #: when the question left: an answer says nothing about later moments
    detail: str = ""  #: short, for the operator: "timeout", "connection refused"
    boot_id: str = ""  #: which boot of the host answered, if the channel can tell; of ALIVE only
    booted_at: float = 0.0  #: when that boot began, on the clock of `sent_at`; 0: not told


# --- hosts and VMs as OpenNebula shows them ---------------------------------------------------------------------------


class OnedHostState:
    """HOST/STATE of OpenNebula (include/Host.h); other numbers are obsolete."""

    INIT = 0
    MONITORED = 2
    ERROR = 3
    DISABLED = 4
    OFFLINE = 8


class VmState:
    """VM/STATE of OpenNebula, the ones a decision needs."""

    PENDING = 1
    ACTIVE = 3
    SUSPENDED = 5
    DONE = 6
    POWEROFF = 8


class LcmState:
    """VM/LCM_STATE of OpenNebula, the ones a decision needs."""

    INIT = 0
    RUNNING = 3
    UNKNOWN = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A fence device of one host, as configured."""

    name: str
    identity_noted: bool = False  #: the operator has checked that it belongs to this host
    weak_off: bool = False  #: its OFF may also mean "not there"
    proves_off: bool = True  #: False for agents that cannot read power or act on storage only
    drill_needed: bool = False  #: its OFF proves nothing before a drill has shown that it works
    lasting: bool = False  #: its order stays in force until it is lifted
    datastores: tuple[int, ...] | None = None  #: it cuts the host off from these, not from others; None: from its power
    fingerprint: str = ""  #: of its settings without secrets: another one is another device, whatever its name
    tells_identity: bool = False  #: it can say which machine it belongs to
    outlet: bool = False  #: its ON says that there is power to be had, not that the host runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host of the inventory."""

    id: int
    name: str
    cluster: int = -1
    cluster_name: str = ""
    one_state: int = OnedHostState.MONITORED
    vm_mad: str = ""
    free_cpu: int = 0  #: hundredths of a core, after RESERVED_CPU
    free_memory_mb: int = 0  #: after RESERVED_MEM
    vms: tuple[int, ...] = ()
    pci: tuple[PciDevice, ...] = ()  #: the free ones, by address
    numa: tuple[NumaNode, ...] = ()
    #: what requirements look at, as layers: the first that has a name decides
    attributes: tuple[Mapping[str, str], ...] = field(default=(), repr=False, compare=False)
    #: all values of attributes that it has several times
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)
    excluded: str = ""  #: why the controller must not act on it; empty = in scope
    places: tuple[tuple[str, str], ...] = ()  #: (what, which): what it shares with others, such as a rack
    maintenance: bool = False  #: excluded because a person works on it: drills are allowed
    zombies: tuple[int, ...] = ()  #: VMs that run there although OpenNebula has them elsewhere, by its monitoring
    drill_by_itself: bool = False  #: and they may begin by themselves
    monitoring_restarting: bool = False  #: OFFLINE by us, for a moment, so that OpenNebula monitors it anew
    marked: bool = False  #: carries our HA_STATE: DISABLED by us, not by the operator
    levels: tuple[tuple[Device, ...], ...] = ()
    identity: Identity | None = None  #: as the operator noted it in OpenNebula
    fence_timeout_s: float = 20.0


class VmPolicy(StrEnum):
    """What is done for a VM when its host dies."""

    RESTART = "restart"  #: moved, and started if it ran
    RECREATE = "recreate"  #: as RESTART; made anew where its disks are lost with the host, if the operator allows that
    LEAVE = "leave"  #: nothing
    POWEROFF = "poweroff"  #: never started; moved where that is possible without a start


@dataclass(frozen=True, kw_only=True, slots=True)
class Vm:
    """A VM as last read from OpenNebula."""

    id: int
    name: str
    state: int
    lcm_state: int
    host: int | None  #: HID of the last history record
    cluster: int = -1
    vm_mad: str = ""
    cpu: int = 0  #: hundredths of a core
    memory_mb: int = 0
    found_missing_at: float = 0.0  #: when OpenNebula itself saw that it runs no more; 0: it did not end like that
    obstacle: str = ""  #: why it must not be touched at all (a device, an unknown policy); empty = may be moved
    storage_obstacle: str = ""  #: why it would be without its disks elsewhere
    disks_lost: bool = False  #: that is known, and not only feared because something cannot be told
    memory_obstacle: str = ""  #: why its saved memory would be lost when it is moved while SUSPENDED
    lock_level: int = 0  #: 0 none, 1 use, 2 manage, 3 admin, 4 all
    policy: VmPolicy | None = None  #: as written on the VM; None: nothing is
    previous_host: int | None = None  #: HID of the history record before; read while it migrates only
    tried_on: tuple[int, ...] = ()  #: hosts to which a migration was begun lately that OpenNebula took back
    pci: tuple[PciRequest, ...] = ()
    numa: NumaRequest | None = None
    automatic_requirements: str = field(default="", repr=False)  #: written by OpenNebula
    requirements: str = field(default="", repr=False)  #: SCHED_REQUIREMENTS, written by the owner of the VM
    group: int | None = None  #: its VM group
    reach: frozenset[int] | None = None  #: clusters that have all its datastores; None: not known, so only its own
    label: str = ""  #: state in OpenNebula's words
    datastores: tuple[int, ...] | None = None  #: where its disks are; None: not known
    startup: Startup = NOTHING_WRITTEN


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Which machine something belongs to: what the host says of itself, or what a device says of its machine."""

    system_uuid: str | None = None  #: lower case, with dashes, in the byte order of /sys/class/dmi/id/product_uuid
    serial: str | None = None

    def same_machine(self, other: Identity) -> bool | None:
        """Whether both name the same machine; None when they have nothing in common that could tell.

        The same serial under another UUID tells nothing: some BMCs hand out their UUID in another byte order.
        """
        serials = self.serial == other.serial if self.serial and other.serial else None
        if self.system_uuid and other.system_uuid:
            if self.system_uuid.lower() == other.system_uuid.lower():
                return True
            return None if serials else False
        return serials

    def __str__(self) -> str:
        """For people."""
        named = (("UUID", self.system_uuid), ("serial", self.serial))
        return ", ".join(f"{word} {value}" for word, value in named if value) or "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTrust:
    """Why a device is believed to switch this very host."""

    name: str
    fingerprint: str
    how: str  #: "proven": it named the host's own identity; "drilled": it switched the host, and that was seen
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class HostTrust:
    """What is on record about a host's identity and its devices. Durable: a dead host cannot be asked."""

    host: int
    identity: Identity | None = None  #: what the host says of itself
    source: str = ""  #: where that comes from
    devices: tuple[DeviceTrust, ...] = ()
    seen_on: tuple[tuple[str, str], ...] = ()  #: (name, fingerprint) of devices that were read ON at least once
    boot_id: str = ""  #: the last boot of the host of which all VMs are accounted for
    past_boots: tuple[str, ...] = ()  #: those before: a late word of one of them is no news


# --- states -----------------------------------------------------------------------------------------------------------


class HostState(StrEnum):
    """The five states. Why something waits is a hold, never a state."""

    OK = "ok"
    SUSPECT = "suspect"
    FAILED = "failed"
    FENCED = "fenced"
    RECOVERED = "recovered"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unplaced:
    """A VM that would find no place."""

    vm: int
    name: str
    reason: str
