"""The public plugin interface: what a fence agent, a probe channel, an arbiter or a notifier must look like.

A plugin is a distribution with an entry point in the group `ha_controller` whose module implements one of the hooks
at the end of this file. The hooks only *register classes*; they are never called while a host is being fenced.

This module imports nothing of the controller but a few words of its vocabulary. A plugin needs nothing but this
module, and `ha_controller.testing` for its own tests.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, ClassVar, Generic, TypeVar

import anyio.to_thread
import pluggy
from pydantic import BaseModel, ConfigDict, SecretStr

from ha_controller.core.model import Domain, Identity, PowerState, Reading, Signal
from ha_controller.durations import Duration, duration_field
from ha_controller.lead import Arbiter, ArbiterConfig, ArbiterContext, ArbiterUnreachable, Member, NotLeading
from ha_controller.notify import Message, NotDelivered, Notifier, NotifierConfig, Undeliverable
from ha_controller.showable import one_line

ENTRY_POINT_GROUP = "ha_controller"
SHOWN_MAX = 500  #: characters of what a device says that people are shown
hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


# --- errors -----------------------------------------------------------------------------------------------------------


class FenceError(Exception):
    """The only kind of exception an agent may raise. Its text must never contain a secret."""

    retryable = True

    def __str__(self) -> str:
        """One line that is safe to show: devices put into it what they like."""
        return one_line(super().__str__(), characters_max=SHOWN_MAX)


class Unreachable(FenceError):
    """The device did not answer, or stopped answering: whatever was asked may or may not have happened."""


class AccessDenied(FenceError):
    """Wrong user, wrong password or a missing privilege."""

    retryable = False


class Rejected(FenceError):
    """The device understood the order and refused it: nothing was done."""

    retryable = False


# --- fence agents -----------------------------------------------------------------------------------------------------


class Capability(Flag):
    """What an agent can do and how far its word reaches."""

    READ_POWER = auto()  #: power_state() tells the truth about the chassis or the outlet
    OUT_OF_BAND = auto()  #: works without the host's operating system and network
    POWER_ON = auto()
    IDENTITY = auto()  #: identity() can prove which machine this device controls
    WEAK_OFF = auto()  #: its OFF may also mean "not there": it needs a second signal
    STORAGE = auto()  #: isolates the host from its storage; joins a level, never proves alone; see `datastores`
    LASTING = auto()  #: its order stays in force also while the host runs, until power_on() lifts it: needs POWER_ON
    OUTLET = auto()  #: it switches what feeds the host: ON says that there is power to be had, not that the host runs
    SELF_RESET = auto()  #: the host resets itself, and may boot again before OFF is read; believed only after a drill


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Result of a read-only check of a fence device."""

    ok: bool
    summary: str  #: one line for the operator: what was checked, or what is wrong and what helps
    power: PowerState = PowerState.UNKNOWN

    def __post_init__(self) -> None:
        """Devices put into the summary what they like."""
        object.__setattr__(self, "summary", one_line(self.summary, characters_max=SHOWN_MAX))


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting, as people are shown it."""

    name: str
    type: str
    required: bool = False
    default: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One of the programs or the like that an agent stands for, as people are shown it."""

    name: str
    summary: str
    settings: tuple[Setting, ...]


class AgentConfig(BaseModel):
    """Base of an agent's own settings. Unknown keys are refused; secrets are `SecretStr`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


ConfigT = TypeVar("ConfigT", bound=AgentConfig)


class FenceAgent(ABC, Generic[ConfigT]):
    """Controls the power of one host through one device.

    The controller verifies, never the agent: `power_off` returning is an acknowledgement and proves nothing.
    Deadlines and cancellation are the controller's; an agent must be safe to cancel at any await, and after that must
    send nothing more. It must not block the event loop. It raises nothing but `FenceError`.
    """

    kind: ClassVar[str]  #: the name used in `agent = "..."`; equals the entry-point name
    config_model: ClassVar[type[AgentConfig]]
    capabilities: Capability  #: of the class; an agent whose settings decide it sets its own in __init__
    sample_period_s: ClassVar[float] = 4.0  #: how old a power reading of this kind of device may be
    check_every_s: ClassVar[float | None] = None  #: how often it is checked; None: as all others
    acts_on: tuple[str, ...] = ()  #: outlets, addresses or the like: no two hosts may have one in common
    datastores: tuple[int, ...] = ()  #: with STORAGE: ids of the OpenNebula datastores that it cuts the host off from
    timeout_min_s: float = (
        0.0  #: power_off() and reading it back take at least this long; a shorter `timeout` is refused
    )

    def __init__(self, config: ConfigT) -> None:
        """Keep the settings. No I/O here."""
        self.config = config

    @classmethod
    def variants(cls) -> Sequence[str]:
        """Names of what the kind stands for on this machine, for `plugins show`; none for most. May block."""
        return ()

    @classmethod
    def variant(cls, name: str) -> Variant | None:
        """Describe one of them, with the settings that it takes; None if there is none of that name. May block."""
        del name
        return None

    @abstractmethod
    async def power_off(self) -> None:
        """Order the power off: hard, never graceful, never a cycle. Return as soon as the device accepted it.

        Must be idempotent: the order is sent even when the power is off already. With LASTING it is repeated every ten
        minutes for as long as it must stay in force: an order that expires must last for at least an hour.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown.
        """

    @abstractmethod
    async def power_state(self) -> PowerState:
        """Read the power from the device, never from a cache of the agent.

        Raises:
            FenceError: nothing could be read.
        """

    async def power_on(self) -> None:
        """Order the power on, or lift a LASTING order. Only called for agents with POWER_ON."""
        raise Rejected(f"{self.kind} cannot power on")

    @abstractmethod
    async def check(self) -> CheckReport:
        """Look whether the device could fence now: login, privilege, certificate and password age. Changes nothing.

        Raises:
            FenceError: the device did not answer or refused the login.
        """

    async def identity(self) -> Identity | None:
        """Tell which machine this device controls; None when the device cannot say."""
        return None

    async def boot_id(self) -> str | None:
        """Tell the boot of the host that the device last heard of; None when it hears of none. Errors as `check`."""
        return None


# --- probe channels ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A host as a probe channel sees it."""

    host: int  #: OpenNebula's host id
    name: str
    address: str  #: literal IPv4 or IPv6 address; never a name, so that no channel waits for DNS
    close_watch: bool = False  #: the host is suspect: look now, with everything there is


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedView:
    """What OpenNebula itself says about a host."""

    state: int  #: HOST/STATE: 0 INIT, 2 MONITORED, 3 ERROR, 4 DISABLED, 8 OFFLINE
    monitored_at: int  #: MONITORING/TIMESTAMP, seconds of the front-end's wall clock; only its progress is used
    read_at: float  #: when this was read from oned, on the controller's clock
    previous_read_at: float | None  #: when the read before this one was made


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeContext:
    """What the controller lends to a channel."""

    read_power: Callable[[int], Awaitable[PowerState]]
    """Read the power of a host from its first fence device; raises FenceError. Never more than one session per BMC."""
    oned_view: Callable[[int], OnedView | None]
    """The last view of a host in OpenNebula; None when it was never read."""
    neighbours: Callable[[int], Sequence[Target]] = lambda host: ()
    """Hosts of the same cluster that showed life just now, with their literal addresses; others for each host."""


class ProbeConfig(BaseModel):
    """Base of a channel's own settings. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SlowProbeConfig(ProbeConfig):
    """Base of the settings of a channel that costs the hosts too much to be asked every second."""

    every_s: Duration = duration_field("30s", key="every", longest="1h")
    """In peace each host is asked this often, at a moment of its own."""


ProbeConfigT = TypeVar("ProbeConfigT", bound=ProbeConfig)


class Probe(ABC, Generic[ProbeConfigT]):
    """Looks at many hosts at once through one channel.

    The prober calls `launch` with the hosts whose turn it is and `collect` a few milliseconds later, again and again.
    Both must return at once: a channel keeps its own table of questions under way. Every launched question must come
    back from `collect` exactly once, at the latest `timeout_s` after it was sent.

    With a `SlowProbeConfig` a host has its turn every `every_s`. One that came under close watch is asked at once, and
    one that answers again until the channel has a word about it from after that.
    """

    kind: ClassVar[str]  #: the name used in `[channel.KIND]`
    config_model: ClassVar[type[ProbeConfig]]
    domain: ClassVar[Domain]
    suspects_only: ClassVar[bool] = False  #: asked only about hosts under close watch
    watched_every_s: ClassVar[float] = (
        0.0  #: a host under close watch is asked this often; 0: `detect.confirm_interval`
    )
    proves_userland: ClassVar[bool] = True  #: False: an ALIVE says only that the kernel answers (ICMP)

    def __init__(self, config: ProbeConfigT, context: ProbeContext) -> None:
        """Keep the settings. No I/O here."""
        self.config = config
        self.context = context

    @abstractmethod
    async def open(self) -> str:
        """Open sockets. Returns one line for the start-up log that says what is in force.

        Raises:
            ProbeUnavailable: the channel cannot work here; the text names the remedy.
        """

    async def serve(self) -> None:
        """Do what needs tasks of its own while the channel is open; cancelled before `close`. Nothing by default."""
        return

    @abstractmethod
    async def close(self) -> None:
        """Close everything; questions under way are dropped."""

    @abstractmethod
    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Send one question to each target. A target with a question under way may be skipped."""

    @abstractmethod
    def collect(self, now: float) -> list[Reading]:
        """Hand over what was answered or timed out since the last call."""


class ProbeUnavailable(Exception):
    """A channel cannot work on this machine. The text says why and what helps."""


# --- for agents -------------------------------------------------------------------------------------------------------


async def addresses_of(
    name: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM
) -> list[tuple[socket.AddressFamily, Any]]:
    """Look a name or a literal address up; returns (family, socket address) in the resolver's order.

    A literal asks nobody. A name costs one of anyio's threads: in asyncio's default pool six hung lookups would stop
    every other one.

    Raises:
        Unreachable: the name has no address.
    """

    def look_up(flags: int) -> list[tuple[socket.AddressFamily, Any]]:
        return [(entry[0], entry[4]) for entry in socket.getaddrinfo(name, port, type=kind, flags=flags)]

    with suppress(OSError):
        return look_up(socket.AI_NUMERICHOST)
    try:
        return await anyio.to_thread.run_sync(look_up, 0, abandon_on_cancel=True)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{name}: the name cannot be resolved: {error}") from error


# --- hooks ------------------------------------------------------------------------------------------------------------


class HookSpecs:
    """The hooks. Every implementation returns at once and does no I/O."""

    @hookspec
    def ha_controller_fence_agents(self) -> Sequence[type[FenceAgent[Any]]]:
        """Return the fence agent classes of this plugin."""
        raise NotImplementedError  # pluggy calls the plugins' implementations, never a specification

    @hookspec
    def ha_controller_probes(self) -> Sequence[type[Probe[Any]]]:
        """Return the probe channel classes of this plugin."""
        raise NotImplementedError  # pluggy calls the plugins' implementations, never a specification

    @hookspec
    def ha_controller_arbiters(self) -> Sequence[type[Arbiter[Any]]]:
        """Return the arbiter classes of this plugin."""
        raise NotImplementedError  # pluggy calls the plugins' implementations, never a specification

    @hookspec
    def ha_controller_notifiers(self) -> Sequence[type[Notifier[Any]]]:
        """Return the notifier classes of this plugin."""
        raise NotImplementedError  # pluggy calls the plugins' implementations, never a specification


__all__ = [
    "ENTRY_POINT_GROUP",
    "AccessDenied",
    "AgentConfig",
    "Arbiter",
    "ArbiterConfig",
    "ArbiterContext",
    "ArbiterUnreachable",
    "Capability",
    "CheckReport",
    "Domain",
    "Duration",
    "FenceAgent",
    "FenceError",
    "HookSpecs",
    "Identity",
    "Member",
    "Message",
    "NotDelivered",
    "NotLeading",
    "Notifier",
    "NotifierConfig",
    "OnedView",
    "PowerState",
    "Probe",
    "ProbeConfig",
    "ProbeContext",
    "ProbeUnavailable",
    "Reading",
    "Rejected",
    "SecretStr",
    "Setting",
    "Signal",
    "SlowProbeConfig",
    "Target",
    "Undeliverable",
    "Unreachable",
    "Variant",
    "addresses_of",
    "duration_field",
    "hookimpl",
    "hookspec",
    "one_line",
]
