"""The public interface of arbiters: who of several controllers leads. Plugins import it from `ha_controller.plugin`.

An arbiter asks an engine outside of the controllers (a lock, a quorum) and tells what it was told. It keeps no time:
how long a lead is good for without asking again is counted by the controller, from the moment it began to ask.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr


class NotLeading(Exception):
    """This controller does not hold the lead in this term. Nothing irreversible may be ordered."""


class ArbiterUnreachable(Exception):
    """The engine did not answer, or refused to: nothing is known, and what was asked may or may not have happened.

    Its text must never contain a secret.
    """


class ArbiterConfig(BaseModel):
    """Base of an arbiter's own settings. Unknown keys are refused; secrets are `SecretStr`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


ArbiterConfigT = TypeVar("ArbiterConfigT", bound=ArbiterConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A controller that takes part in the election."""

    name: str
    instance: str = ""  #: stays the same for a state directory
    leads: bool = False
    term: int | None = None  #: of one that leads


@dataclass(kw_only=True, slots=True)
class OpenNebulaAccount:
    """Our account in OpenNebula, for an arbiter that works by it."""

    endpoint: str  #: of the oned beside this controller
    auth: SecretStr  #: "user:password", or "user:token"
    orders: SecretStr
    """What orders are sent with. An arbiter may put an empty session here in its `__init__`, and one of its own later.

    For any other that `regains`, a new leader has all login tokens of this user revoked and orders by one of its own.
    """

    def get_secret_value(self) -> str:
        """The session of orders, as it is now."""
        return self.orders.get_secret_value()

    def take(self, auth: SecretStr) -> None:
        """Another password or token of ours from now on; orders follow unless the arbiter has put a session there."""
        if self.orders is self.auth:
            self.orders = auth
        self.auth = auth


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """What an account logs in with, as it is now."""

    account: OpenNebulaAccount

    def get_secret_value(self) -> str:
        """As "user:password" or "user:token"."""
        return self.account.auth.get_secret_value()


@dataclass(frozen=True, kw_only=True, slots=True)
class ArbiterContext:
    """What the controller lends to its arbiter."""

    name: str  #: of this process, for people
    instance: str  #: of the state directory
    state_dir: Path
    last_term: Callable[[], int]
    """The highest term in which this controller's own record was written; 0 if there is none."""
    opennebula: OpenNebulaAccount | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """What the engine keeps of the record."""

    texts: Mapping[str, str]
    whole: bool  #: it has all that was ordered before this term
    term: int  #: the last one of which that was true; 0: of none
    damage: str = ""  #: what somebody has changed or removed in it, in words; then it is not whole
    unread: Mapping[int, int] = field(default_factory=dict)
    """Incidents that are open on it and missing in `texts`, since what stands there is damaged: number -> host."""


def incident_of(key: str) -> int | None:
    """The number of the incident that a key of the shared record belongs to; None: to none."""
    found = re.match(r"incident/(\d+)(/|$)", key)
    return int(found[1]) if found else None


class SharedRecord(ABC):
    """The record of what is open, kept by the engine for the next leader. Texts by key; none holds a secret.

    The keys are

    - `cloud`: what is durable beside the incidents. Always there after the first write.
    - `trust/HOST`: what was found out about that host's devices, see `keeps_trusts`.
    - `incident/NUMBER`: an open incident without its VMs, as JSON with `vms` (how many) and `incident` (of which an
      engine may read `host` and `state`, and nothing else).
    - `incident/NUMBER/vms/PART`: some of its VMs; PART has four digits and counts from 0000.

    HOST and NUMBER are decimal. An engine keeps keys that it does not know as they are. It may keep texts of its own
    beside them, but gives none of these to the caller: `written` is such a name in etcd. One incident of a host is
    open at a time, and its number is never given again.

    Both calls are safe to cancel at any await. A write that was cancelled, or had no answer, may have been taken in.
    """

    keeps_trusts: ClassVar[bool] = True
    """False: what each controller found out about the hosts' devices (`trust/...`) stays its own."""

    @abstractmethod
    async def read(self, term: int) -> Shared:
        """Read all of it, as the one who leads in this term: nobody else can have written since.

        A quorum has shown it: now, or when the term began, if whoever is read from had by that proof all that was
        committed before. What shows that nobody else has written since is read with it, or after it: so what is
        returned belongs together. A part that is damaged is left out and named (`damage`, `unread`), never guessed.

        Raises:
            NotLeading: this term is over.
            ArbiterUnreachable: nothing is known. Unknown is not empty.
        """

    @abstractmethod
    async def write(self, term: int, changes: Mapping[str, str | None]) -> None:
        """Change texts (None deletes), in this order, if this very term goes on and nobody else has written since.

        What is there after the first write of a term is whole: it must hold all that `read` did not find whole.
        What is too much for one transaction is written in several, of which none tears apart what belongs to one host
        (`trust/3`, and each incident of host 3), if that fits; the first that fails ends it.

        It returns when a quorum is known to hold all of it, in this term. What proves that is the engine's matter:
        etcd's answer to a transaction does, OpenNebula's "true" does not, so there a majority is asked to show it. It
        may try for as long as that is not known, and sets itself no end but those of single requests: whoever calls
        sets a deadline (the controller: 5 s), and gives the lead up when it is over. Only the very same write may be
        sent again, where the engine takes in one of two; else it is sent once.

        Raises:
            NotLeading: this term is over; the last part was not written.
            ArbiterUnreachable: it is not known to be written.
        """


class Arbiter(ABC, Generic[ArbiterConfigT]):
    """Gives the lead to one controller at a time. A term is a number that only ever grows, and names one lead.

    Every call must be safe to cancel at any await, and must end within a few seconds. None may block the event loop.
    They raise nothing but what is named here. The controller calls one at a time, except for `prove`.
    """

    kind: ClassVar[str]  #: the name used in `[leader] kind = "..."`
    config_model: ClassVar[type[ArbiterConfig]]
    regains: ClassVar[bool] = True
    """False: the lead goes with something that this process holds to its very end (a lock on its record). It is not
    given back earlier, and once lost not asked for again."""
    hands_over: ClassVar[bool] = True  #: False: another controller does not get the lead when this one gives it back
    confirms_orders: ClassVar[bool] = False
    """True: an order that OpenNebula accepted counts only when a proof that began after that has succeeded."""
    lead_s: float = float("inf")
    """How long the controller may lead without hearing from the engine, counted from before the question. Shorter than
    what the engine waits before it gives the lead to another, by more than any error of the clocks."""
    ask_every_s: float = 1.0  #: how often to ask for a lead that somebody else has
    renew_every_s: float = 5.0
    record: SharedRecord | None = None
    """Where a leader leaves what the next one must know; None: nowhere. So far for arbiters that come with us only."""

    def __init__(self, config: ArbiterConfigT, context: ArbiterContext) -> None:
        """Keep the settings. No I/O here."""
        self.config = config
        self.context = context

    async def close(self) -> None:
        """Close connections. The lead was released before."""

    @abstractmethod
    async def acquire(self) -> int | None:
        """Take the lead and return the new term, higher than all before; None while another controller holds it.

        Raises:
            ArbiterUnreachable: it is not known to be ours, so it is not.
        """

    @abstractmethod
    async def renew(self, term: int) -> None:
        """Keep the lead, and make sure of it like `prove`.

        Raises:
            NotLeading: this term is over.
            ArbiterUnreachable: nothing is known.
        """

    @abstractmethod
    async def prove(self, term: int) -> None:
        """Ask a quorum whether it holds that we lead in this very term, now. An old answer is no proof.

        Raises:
            NotLeading: this term is over.
            ArbiterUnreachable: nothing is known.
        """

    @abstractmethod
    async def release(self, term: int) -> None:
        """Give the lead back, as far as that can be done. Does nothing when this term is over already."""

    @abstractmethod
    async def members(self) -> Sequence[Member]:
        """The controllers known to take part, the leader first.

        Raises:
            ArbiterUnreachable: nothing is known.
        """

    def engine(self) -> Sequence[str]:
        """What was last seen of the engine, a line for each of its parts, for people."""
        return ()

    def led_meanwhile(self) -> str:
        """Who may have led between `context.last_term()` and the lead that is held, in words; empty if nobody.

        An arbiter that cannot tell leaves this as it is: then what had begun before waits for a person.
        """
        return "another controller"


__all__ = [
    "Arbiter",
    "ArbiterConfig",
    "ArbiterContext",
    "ArbiterUnreachable",
    "Login",
    "Member",
    "NotLeading",
    "OpenNebulaAccount",
    "Shared",
    "SharedRecord",
]
