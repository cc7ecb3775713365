"""What the author of an agent provides for its checks: a device and its host, and how to break them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

from ha_controller.plugin import FenceAgent

Agent = FenceAgent[Any]


class Fault(StrEnum):
    """How a rig makes its device misbehave."""

    STAYS_ON = "stays on"  #: acknowledges a power-off and leaves the power on
    SLOW = "slow"  #: acknowledges a power-off at once and switches a second or two later
    REFUSES = "refuses"  #: answers a power-off with a refusal, in its protocol's own way
    HANGS = "hangs"  #: never answers; what is sent to it is lost for ever
    NONSENSE = "nonsense"  #: answers everything with bytes that make no sense


class Rig(Protocol):
    """A device with its host, as a test sees them. Fresh ones are healthy and the host is on.

    For a STORAGE agent "on" means that the host can reach its storage. A rig whose device does not tell a wrong
    password from other trouble says so with `tells_denials = False`.
    """

    agent_class: type[Agent]  #: the class under test
    secrets: Sequence[str]  #: every password or key that this rig gives to an agent, the wrong one too
    system_uuid: str | None  #: what `identity` must return; None without IDENTITY, or for a device with a serial only

    def make_agent(self, *, wrong_password: bool = False) -> Agent:
        """Build an agent for the device in its present state. A rig may lead it elsewhere while a fault is set."""

    async def host_is_on(self) -> bool:
        """Look at the host itself, not through the agent."""

    async def set_host_power(self, on: bool) -> None:
        """Switch the host, not through the agent."""

    async def set_fault(self, fault: Fault | None) -> None:
        """Make the device misbehave, or heal it (None)."""


Check = Callable[[Rig], Awaitable[None]]


class ConformanceFailure(AssertionError):
    """The agent breaks the contract; the text says how."""
