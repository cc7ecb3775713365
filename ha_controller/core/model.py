"""The nouns of the core: hosts, evidence, devices, incidents, VMs and settings.

Plain frozen values; whoever changes one makes a new one. Times are seconds on the controller's clock: wall time at
the start of the process plus monotonic time since, so a jump of the wall clock moves nothing and a stored time can
still be read by a person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

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
    UNKNOWN = "unknown"  #: our own error, our own lag, or an answer that proves nothing; never counted for death


class Domain(StrEnum):
    """What fails together. Silence of several channels of one domain is *one* proof, not several."""

    MANAGEMENT = "management"  #: same network card, switch and vantage point as this controller
    VANTAGE = "vantage"  #: other hosts or controllers that asked for us
    STORAGE = "storage"
    POWER = "power"
    ONED = "oned"  #: slow by default: never decides alone


DECIDING_DOMAINS = frozenset({Domain.MANAGEMENT, Domain.VANTAGE, Domain.STORAGE})  #: they can fall silent in seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One look at one host. `sent_at` is on the clock that `Probe.launch` and `Probe.collect` are called with."""

    host: int
    signal: Signal
    sent_at: float  #: when the question left: an answer says nothing about later moments
    detail: str = ""  #: short, for the operator: "timeout", "connection refused"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host of the inventory."""

    id: int
    name: str
    cluster: int = -1
    one_state: int = OnedHostState.MONITORED
    vm_mad: str = ""
    free_cpu: int = 0  #: hundredths of a core, after RESERVED_CPU
    free_memory_mb: int = 0  #: after RESERVED_MEM
    vms: tuple[int, ...] = ()
    excluded: str = ""  #: why the controller must not act on it; empty = in scope
    maintenance: bool = False  #: excluded because a person works on it: drills are allowed
    marked: bool = False  #: carries our HA_STATE: DISABLED by us, not by the operator
    levels: tuple[tuple[Device, ...], ...] = ()
    identity: Identity | None = None  #: as the operator noted it in OpenNebula
    fence_timeout_s: float = 20.0


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
    obstacle: str = ""  #: why it must not be moved at all (local disks, locked, policy); empty = may be moved
    label: str = ""  #: state in OpenNebula's words
    datastores: tuple[int, ...] = ()  #: where its disks are


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


# --- states -----------------------------------------------------------------------------------------------------------


class HostState(StrEnum):
    """The five states. Why something waits is a hold, never a state."""

    OK = "ok"
    SUSPECT = "suspect"
    FAILED = "failed"
    FENCED = "fenced"
    RECOVERED = "recovered"


# --- incidents --------------------------------------------------------------------------------------------------------


class AttemptOutcome(StrEnum):
    """How far one attempt to power a host off came."""

    ORDERED = "ordered"  #: written down; the order may or may not have left
    ACCEPTED = "accepted"  #: every device of the level acknowledged, which proves nothing
    OFF_READ = "off read"  #: read back off as the protocol asks; life can still void it
    UNVERIFIED = "unverified"  #: sent or maybe sent, off was not read
    REFUSED = "refused"  #: every device definitely did nothing
    VOIDED = "voided"  #: off was read, and then the host showed life


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One level of fence devices, ordered once."""

    number: int  #: counts from 1 within the incident
    level: int  #: index into Host.levels
    devices: tuple[str, ...]
    outcome: AttemptOutcome
    fingerprints: tuple[str, ...] = ()  #: of the devices, in their order
    ordered_at: float
    off_read_at: float | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """Why a host counts as off."""

    at: float
    text: str
    devices: tuple[str, ...] = ()  #: empty: a person confirmed it
    fingerprints: tuple[str, ...] = ()  #: of the devices, in their order


class Lever(StrEnum):
    """How far OpenNebula has been told that the host is gone."""

    NOT_BEGUN = "not begun"
    OFFLINE = "offline ordered"
    ENABLE = "enable ordered"
    WAIT = "waiting for ERROR"
    DISABLE = "disable ordered"
    DONE = "done"
    RESTORE = "restore ordered"  #: the way back, when the host is readmitted
    RESTORED = "restored"


class VmStage(StrEnum):
    """How far one VM's recovery came."""

    WAITING = "waiting"
    MOVING = "moving"  #: a migrate was ordered; the destination is sticky
    RESUMING = "resuming"
    RUNNING = "running"  #: outcome: seen RUNNING elsewhere
    LEFT = "left alone"  #: outcome: with a reason


@dataclass(frozen=True, kw_only=True, slots=True)
class VmRecord:
    """One VM of a failed host, from what it was to its outcome."""

    id: int
    name: str
    was_state: int  #: when the incident was opened: decides what the VM *was*
    was_lcm_state: int
    was_label: str = ""
    datastores: tuple[int, ...] | None = None  #: where its disks were; None: not on record
    stage: VmStage = VmStage.WAITING
    destination: int | None = None
    ordered_at: float = 0.0
    first_ordered_at: float = 0.0  #: its way to an outcome is timed from here
    answered: bool = True  #: False while an order has no report
    maybe_done: bool = False  #: an order was lost: it may still arrive, so its destination stays
    tries: int = 0  #: orders of this stage
    order: int = 0  #: all orders so far: the number of the last one
    reason: str = ""
    settled_at: float = 0.0

    @classmethod
    def of(cls, vm: Vm) -> Self:
        """What a VM is now, as what it was."""
        return cls(
            id=vm.id,
            name=vm.name,
            was_state=vm.state,
            was_lcm_state=vm.lcm_state,
            was_label=vm.label,
            datastores=vm.datastores,
        )

    @property
    def settled(self) -> bool:
        """Whether the VM has an outcome."""
        return self.stage in (VmStage.RUNNING, VmStage.LEFT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One failure of one host: the durable record of what was seen, ordered and reached."""

    id: int
    host: int
    host_name: str
    opened_at: float
    state: HostState
    verdict: str  #: "dead", "powered off", "hung"
    evidence: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    vms: tuple[VmRecord, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    attempts_forgiven: int = 0  #: so many of them do not count as tried, since a person said `release`
    barred: tuple[str, ...] = ()  #: devices that lied: no further shots with them
    in_force: tuple[str, ...] = ()  #: devices whose lasting order may be in force: renewed, and lifted at the end
    lifting: bool = False  #: the way back has begun: they are being lifted
    proof: Proof | None = None
    prior_one_state: int = OnedHostState.MONITORED
    prior_marked: bool = False
    lever: Lever = Lever.NOT_BEGUN
    lever_since: float = 0.0
    lever_repeats: int = 0
    hold: str = ""  #: why nothing happens right now; recomputed all the time
    hold_needs_person: bool = False
    stopped: str = ""  #: why nothing will happen until a person decides
    held_by: str = ""  #: operator's `hold`: who and why
    approved_by: str = ""
    ordered_by: str = ""  #: a person ordered the power-off of a silent host, before it was condemned
    rejected_by: str = ""
    failed_at: float | None = None
    fenced_at: float | None = None
    recovered_at: float | None = None
    closed_at: float | None = None
    closing: str = ""

    @property
    def open(self) -> bool:
        """Whether the incident still counts."""
        return self.closed_at is None

    @property
    def untouched(self) -> bool:
        """Whether nothing that was ordered may have had an effect on the host, its VMs or OpenNebula."""
        return (
            all(attempt.outcome is AttemptOutcome.REFUSED for attempt in self.attempts)
            and self.lever is Lever.NOT_BEGUN
            and all(record.order == 0 for record in self.vms)
        )

    def not_after(self, now: float) -> Incident:
        """The same, with no moment in the future: for a clock that was set back while nobody ran."""
        return replace(
            self,
            opened_at=min(self.opened_at, now),
            lever_since=min(self.lever_since, now),
            fenced_at=None if self.fenced_at is None else min(self.fenced_at, now),
            failed_at=None if self.failed_at is None else min(self.failed_at, now),
            proof=None if self.proof is None else replace(self.proof, at=min(self.proof.at, now)),
            attempts=tuple(
                replace(
                    attempt,
                    ordered_at=min(attempt.ordered_at, now),
                    off_read_at=None if attempt.off_read_at is None else min(attempt.off_read_at, now),
                )
                for attempt in self.attempts
            ),
            vms=tuple(
                replace(
                    record,
                    ordered_at=min(record.ordered_at, now),
                    first_ordered_at=min(record.first_ordered_at, now),
                )
                for record in self.vms
            ),
        )

    def vm(self, vm_id: int) -> VmRecord | None:
        """The record of one VM, if it belongs to this incident."""
        return next((record for record in self.vms if record.id == vm_id), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudRecord:
    """What is durable beside the incidents."""

    next_incident: int = 1
    paused_by: str = ""  #: who paused the cloud and why; empty = not paused
    fences: tuple[tuple[float, int], ...] = ()  #: (time, host) of the power-offs that count for the budget
    storm_at: float = 0.0  #: when the storm guard last said no


@dataclass(frozen=True, kw_only=True, slots=True)
class TrailEntry:
    """One line of the trail: what was decided, ordered, reported or told. Never changed once written."""

    at: float
    kind: str  #: "intent", "report", "operator", "told"
    text: str
    host: int | None = None
    incident: int | None = None
