"""Orders out: what the core wants done. All imperative.

An *irreversible* order is on disk before it leaves. Each carries the keys by which a late or doubled report is
recognised, and a moment after which its executor must drop it: a decision made before a stall is not carried out after.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ha_controller.core.model import Identity, VmState
from ha_controller.core.resources import ReadyGate
from ha_controller.core.vm_table import Recover

#: the exit codes of an answer: done, no such thing, refused for safety, try again in a moment, another controller leads
DONE, NO_SUCH, REFUSED, LOOK_AGAIN, NOT_LEADING = 0, 3, 4, 6, 9
ORDER_VALID_S = 3.0  #: an order that its executor has not begun by then is dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What only a leader may have done. Its executor has the lead of that very term proven right before."""

    term: int | None = None  #: in which it was decided; the core's door writes it. None: nobody may carry it out


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchClosely:
    """Probe a host fast and on every channel, or stop doing so."""

    host: int
    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadHost:
    """Read a host and its VMs from OpenNebula, and these VMs wherever they are by now."""

    host: int
    vms: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPower:
    """Read these devices of a host, now, each in a fresh session."""

    host: int
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fence(Order):
    """Power a host off with all devices of one level, and read back.

    `send=False`: the order was acknowledged before a restart; only read back.
    """

    host: int
    incident: int
    attempt: int
    devices: tuple[str, ...]
    send: bool
    not_after: float
    identity: Identity | None = None  #: the host's own: a device that names another one right before is not used


@dataclass(frozen=True, kw_only=True, slots=True)
class Drill(Order):
    """Power a host in maintenance off and on again with each of its devices, and see whether it was this host."""

    host: int
    request: int
    devices: tuple[str, ...]
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkMaintenance(Order):
    """Write on a host in OpenNebula that a person works on it, or that nobody does any more."""

    host: int
    request: int
    on: bool
    until: float | None  #: it ends by itself then
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RestartMonitoring(Order):
    """Have OpenNebula start its monitoring of a host that answers anew: OFFLINE, then ENABLE."""

    host: int
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RenewOrders(Order):
    """Order once more what these devices did to a host, so that it does not end by itself."""

    host: int
    incident: int
    devices: tuple[str, ...]
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LiftOrders(Order):
    """Lift what these devices did to a host that is given back, and see that it is lifted."""

    host: int
    incident: int
    number: int  #: of the try
    devices: tuple[str, ...]
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerOn(Order):
    """Power a host on again that our own power-off switched off. Sent once."""

    host: int
    incident: int
    devices: tuple[str, ...]  #: those that gave the proof
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DestroyDomain(Order):
    """End a domain that is left over on a host. Nothing is sent unless the VM is RUNNING on `runs_on` right before."""

    host: int
    incident: int
    vm: int
    runs_on: int
    attempt: int
    not_after: float


class HostStep(StrEnum):
    """Orders to OpenNebula about a host."""

    OFFLINE = "offline"
    ENABLE = "enable"
    DISABLE = "disable"  #: and mark it with our HA_STATE
    RESTORE = "restore"  #: back to the state before the incident, mark removed


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderHost(Order):
    """Change a host's state in OpenNebula."""

    host: int
    incident: int
    step: HostStep
    state_before: int  #: for RESTORE: HOST/STATE before the incident
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveVm(Order):
    """Migrate a VM off a fenced host. The executor looks at the VM first and sends nothing if it changed."""

    vm: int
    incident: int
    attempt: int  #: counts the orders for this VM
    source: int
    destination: int
    not_after: float
    unlock: bool = False  #: a lock may be taken away for it; without this a locked VM is not touched


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeVm(Order):
    """Start a VM that was running before, does not now, and is on its destination."""

    vm: int
    incident: int
    attempt: int
    host: int
    not_after: float
    from_state: int = VmState.POWEROFF
    unlock: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoverVm(Order):
    """End a state of a VM. Nothing is sent unless the VM is in this very state on this host."""

    vm: int
    incident: int
    attempt: int
    host: int
    lcm_state: int
    operation: Recover
    not_after: float
    unlock: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LockVm(Order):
    """Lock a VM again that was unlocked to be moved."""

    vm: int
    incident: int
    attempt: int
    host: int
    level: int
    not_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteAttributes(Order):
    """Write what became of a VM, or of a host, where people look. May be late, may be lost: nothing depends on it."""

    host: int
    incident: int
    vm: int | None  #: None: on the host itself
    state: str = ""  #: HA_STATE of the VM; that of a host is a mark of its own
    text: str  #: HA_LAST, after the moment
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AskDomains:
    """Ask a host over SSH which VMs are on it. Changes nothing."""

    host: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AskReady:
    """Ask a VM that runs whether it is ready, once. Changes nothing."""

    vm: int
    incident: int
    host: int | None  #: on which it was seen RUNNING; None: not known
    gate: ReadyGate


@dataclass(frozen=True, kw_only=True, slots=True)
class AskNames:
    """Look in OpenNebula for the VMs and OneFlow roles that these names of HA_AFTER mean. Changes nothing."""

    host: int
    incident: int
    names: tuple[str, ...]


class Severity(StrEnum):
    """How loud a message is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tell:
    """Tell people. Goes into the trail as well."""

    severity: Severity
    text: str
    next_step: str  #: what happens next, and what the reader must do ("nothing" is an answer)
    host: int | None = None
    incident: int | None = None
    ends: bool = False  #: nobody has to care for the incident any more


@dataclass(frozen=True, kw_only=True, slots=True)
class Explain:
    """Put on record why something is done with a host, or why nothing is. Nobody is told; `explain` shows it."""

    host: int
    incident: int | None
    what: str  #: what was decided
    because: str
    next_step: str = ""
    evidence: tuple[str, ...] = ()  #: one line for each channel, with its age
    guards: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()  #: where each VM goes, one line for each
    rejected: tuple[str, ...] = ()  #: what else could have been done, and why it was not


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Answer an operator's command. `code` is the exit code of the command line."""

    request: int
    code: int
    text: str


Effect = (
    WatchClosely | ReadHost | ReadPower | Fence | Drill | RenewOrders | LiftOrders | PowerOn | DestroyDomain
    | MarkMaintenance | RestartMonitoring | OrderHost | MoveVm | ResumeVm | RecoverVm | LockVm | WriteAttributes
    | AskDomains | AskReady | AskNames | Tell | Explain | Answer
)  # fmt: skip


def not_shared(effects: Iterable[Effect], why: str) -> tuple[Effect, ...]:
    """What is left of effects that are not on the record of the next leader: no order, and no word that one is done."""
    return tuple(unconfirmed(effect, why) for effect in effects if not isinstance(effect, Order))


def unconfirmed(effect: Effect, why: str) -> Effect:
    """The same, but a person is not told that something is done."""
    if not isinstance(effect, Answer) or effect.code != DONE:
        return effect
    text = (
        f"It is not on the record that controllers share, so it may not count: {why}. Look at the controller that "
        "leads, and say it again there"
    )
    return Answer(request=effect.request, code=LOOK_AGAIN, text=text)
