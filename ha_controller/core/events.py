"""Facts in: what adapters and operators report to the core. All past tense."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ha_controller.core.effects import HostStep
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import Host, HostTrust, Identity, PowerState, Reading, SeenAlive, Unplaced, Vm
from ha_controller.core.resources import VmGroup
from ha_controller.core.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceTaken:
    """One channel looked at some hosts."""

    channel: str
    readings: tuple[Reading, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SightTold:
    """Another controller told which hosts it has seen alive lately. What it does not see is not told."""

    controller: str
    alive: tuple[SeenAlive, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryRead:
    """All hosts of the cloud were read. Never sent for an empty or failed reading."""

    hosts: tuple[Host, ...]
    groups: tuple[VmGroup, ...] | None = None  #: of VMs; None: they could not be read


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedReadFailed:
    """A reading of OpenNebula gave nothing: of one host, or (None) of the inventory."""

    detail: str
    host: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostRead:
    """One host and its VMs were read from OpenNebula."""

    host: int
    asked_at: float  #: when the reading was begun: it says nothing about later moments
    one_state: int
    monitored_at: float = 0.0  #: when OpenNebula last had news of it, on the front-end's clock
    marked: bool = False  #: carries our HA_STATE
    monitoring_restarting: bool = False  #: OFFLINE by us, for a moment
    vms: tuple[Vm, ...]  #: the VMs on the host's list and those that were asked for by id


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceChecked:
    """A fence device was checked in peace time."""

    host: int
    device: str
    fingerprint: str
    ok: bool
    power: PowerState
    summary: str
    identity: Identity | None = None  #: what the device says of its machine


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitoringRestarted:
    """OpenNebula was asked to monitor a host anew; what comes of it shows in its monitoring data."""

    host: int
    failure: str  #: why it was not asked; empty if it was


class FenceResult(StrEnum):
    """What became of one level of devices."""

    OFF_READ = "off read"  #: every device read off twice, as the protocol asks
    UNVERIFIED = "unverified"  #: at least one device may have acted, off was not read everywhere
    REFUSED = "refused"  #: every device definitely did nothing
    NOT_SENT = "not sent"  #: no device was told anything: it was too late, or we may not act


@dataclass(frozen=True, kw_only=True, slots=True)
class FenceAccepted:
    """All devices of the level acknowledged the order; nothing is proven."""

    host: int
    incident: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FenceReported:
    """An attempt ended."""

    host: int
    incident: int
    attempt: int
    result: FenceResult
    off_read_at: float | None
    detail: str
    mismatched: tuple[str, ...] = ()  #: devices that named another machine: they were not used


@dataclass(frozen=True, kw_only=True, slots=True)
class DrillReported:
    """A drill ended: (device, fingerprint, whether it switched this very host, in words) for every device tried."""

    host: int
    request: int
    results: tuple[tuple[str, str, bool, str], ...]
    is_back: bool = True  #: the host has its power again, and its orders were lifted


@dataclass(frozen=True, kw_only=True, slots=True)
class MaintenanceMarked:
    """A host was marked in OpenNebula as in maintenance, or no longer; `failure` says why it was not."""

    host: int
    request: int
    failure: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerRead:
    """The devices of a host were read on demand; one state for each device."""

    host: int
    asked_at: float
    states: tuple[tuple[str, PowerState], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OrdersRenewed:
    """Lasting orders were renewed; `failed` names those that were not, with the reason."""

    host: int
    incident: int
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class OrdersLifted:
    """Lasting orders were lifted, and seen lifted; `failed` names those that were not, with the reason."""

    host: int
    incident: int
    number: int  #: of the order
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PoweredOn:
    """A host was powered on; `failed` names the devices that did not do it, with the reason."""

    host: int
    incident: int
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainDestroyed:
    """A leftover domain was destroyed; `failure` says why it was not, or why that is not known."""

    host: int
    incident: int
    vm: int
    attempt: int
    failure: str = ""


class OrderResult(StrEnum):
    """What became of an order to OpenNebula."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  #: OpenNebula said no: nothing was done
    NOT_NOW = "not now"  #: nothing was done, because OpenNebula did not take it at this moment, or not in time
    SKIPPED = "skipped"  #: our executor looked first and did not send it
    UNKNOWN = "unknown"  #: no answer: it may or may not have been done


@dataclass(frozen=True, kw_only=True, slots=True)
class HostOrderReported:
    """A host order ended."""

    host: int
    incident: int
    step: HostStep
    result: OrderResult
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VmOrderReported:
    """A VM order ended."""

    vm: int
    incident: int
    attempt: int
    result: OrderResult
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainsRead:
    """A host was asked for its domains. `failure` says why it did not answer: then nothing is known of them."""

    host: int
    asked_at: float
    running: tuple[int, ...] = ()  #: ids of VMs
    others: tuple[int, ...] = ()  #: there, and paused, shutting down or the like
    failure: str = ""


class Readiness(StrEnum):
    """What a VM that was asked whether it is ready has shown."""

    READY = "ready"
    NOT_YET = "not yet"  #: it, or its host, says no, or nobody answers
    UNKNOWN = "unknown"  #: it could not be asked: that is not ready either


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyRead:
    """A VM was asked whether it is ready."""

    vm: int
    incident: int
    asked_at: float
    readiness: Readiness
    detail: str = ""  #: why not


@dataclass(frozen=True, kw_only=True, slots=True)
class NamesRead:
    """OpenNebula was looked through for names of HA_AFTER. `failure` says why it was not: then nothing is known."""

    host: int
    incident: int
    names: tuple[str, ...]
    missing: tuple[str, ...] = ()  #: those that no VM and no OneFlow role has
    failure: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostIdentified:
    """A host said which machine it is."""

    host: int
    identity: Identity
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HostReaddressed:
    """A host is probed at another address from now on: what the old one showed says nothing about it."""

    host: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadChanged:
    """This controller won (a term) or does not hold (None) the lead."""

    term: int | None
    inherited: str = ""  #: who may have led since our own record ends; empty: nobody, our record is whole
    leader: str = ""  #: another controller that leads
    trouble: str = ""  #: why we do not lead, when that is nobody's wish: the lead was lost, the engine is down


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordTakenOver:
    """Before `LeadChanged`: what the leader before has left on the shared record. It takes the place of ours."""

    term: int
    led_meanwhile: str  #: who, in words; empty: nobody but us
    incidents: tuple[Incident, ...]  #: all that are open, but for `unread`
    cloud: CloudRecord
    trusts: tuple[HostTrust, ...]
    unread: tuple[tuple[int, int | None], ...] = ()  #: (number, host if known): damaged there. Unknown is not over
    unread_vms: tuple[tuple[int, tuple[int, ...]], ...] = ()  #: (number, VMs that are still there), of some of those


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfChecked:
    """We looked at our own witnesses. None: could not tell."""

    ok: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondMasterLooked:
    """We looked for another master: hooks of OpenNebula, other controllers. None: could not tell."""

    present: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfPlaced:
    """We looked on which hosts this controller runs; several while its VM migrates. None: could not tell."""

    hosts: tuple[int, ...] | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HostLoss:
    """What would become of the VMs of one host if it failed alone."""

    host: int
    vms: int  #: that run there and would be moved
    without: tuple[Unplaced, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterReserve:
    """How many hosts of a cluster may fail, and what is lost with too many."""

    cluster: int
    name: str
    hosts: int
    may_fail: int
    worst: tuple[int, ...] = ()  #: the hosts whose loss is the worst; empty if no loss is one
    vms: int = 0  #: that run on those
    without: tuple[Unplaced, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReserveAssessed:
    """It was computed, beside the decisions, what would happen if hosts failed."""

    asked_at: float
    clusters: tuple[ClusterReserve, ...] = ()
    losses: tuple[HostLoss, ...] = ()
    failure: str = ""  #: why it could not be computed; what was known before stays


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingsChanged:
    """A new configuration is in force."""

    settings: Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePassed:
    """A deadline that the core asked for is due."""


class Verb(StrEnum):
    """What an operator can order."""

    APPROVE = "approve"
    REJECT = "reject"
    CONFIRM_OFF = "confirm-off"
    UNFENCE = "unfence"
    HOLD = "hold"
    RELEASE = "release"
    PAUSE = "pause"
    RESUME = "resume"
    FENCE = "fence"
    DRILL = "drill"
    MAINTENANCE_ON = "maintenance on"
    MAINTENANCE_OFF = "maintenance off"


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorCommanded:
    """A person ordered something. The answer goes out as an `Answer` with the same request id."""

    request: int
    verb: Verb
    who: str
    origin: str = ""  #: from where: the local socket, the page, a schedule
    reason: str = ""
    host: int | None = None
    incident: int | None = None
    for_s: float | None = None  #: maintenance and pause end by themselves after so long
    here: bool = False  #: pause: of this controller, though another one leads
    repaired: bool = False  #: unfence: the person has repaired what made the host fail again and again
    force: bool = False  #: unfence: the person has lifted by hand what is in force, and rebooted the host


Event = (
    EvidenceTaken | SightTold | InventoryRead | OnedReadFailed | HostRead | DeviceChecked
    | FenceAccepted | FenceReported | MonitoringRestarted | DomainsRead | ReadyRead | NamesRead
    | DrillReported | OrdersRenewed | OrdersLifted | PoweredOn | DomainDestroyed | MaintenanceMarked | SelfPlaced
    | HostIdentified | HostReaddressed | PowerRead | HostOrderReported | VmOrderReported | LeadChanged | SelfChecked
    | SecondMasterLooked | RecordTakenOver | ReserveAssessed | SettingsChanged | TimePassed | OperatorCommanded
)  # fmt: skip
