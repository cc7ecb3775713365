"""What is done with one device: the order to switch, and the reading back that alone proves anything.

OFF is believed when it was read twice, `OFF_SPACING_S` apart, the second time at least the agent's `sample_period_s`
after the end of the order. An agent's "done" is an acknowledgement. This is the border to plugins: whatever an agent
raises becomes a FenceError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import anyio
import structlog

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
    Unreachable,
)

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

OFF_SPACING_S = 2.0
LIFTED_READINGS = 2
POLL_S = 0.5
READ_TIMEOUT_S = 4.0


@dataclass(kw_only=True)
class Device:
    """One fence device of one host, ready to be used."""

    name: str
    agent: FenceAgent[AgentConfig]
    timeout_s: float
    level: int = 1  #: the first level speaks for the host's power in peace time
    fingerprint: str = ""  #: of its settings
    fencing: int = 0  #: fences under way
    background: set[anyio.CancelScope] = field(default_factory=set)  #: checks and readings that a fence pushes aside
    lasting: anyio.Lock = field(default_factory=anyio.Lock)  #: renewing and lifting take turns


def can_read(device: Device) -> bool:
    """Whether the device says what became of an order; without that it helps, and proves nothing."""
    return Capability.READ_POWER in device.agent.capabilities


def reads_power(device: Device) -> bool:
    """Whether what it reads is the host's power, and not its way to the storage."""
    return can_read(device) and Capability.STORAGE not in device.agent.capabilities


class Sent(StrEnum):
    ACCEPTED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "no answer to the order"
    NOT = "not sent"


NOTHING_DONE = frozenset({Sent.REFUSED, Sent.NOT})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    device: str
    sent: Sent
    off_read_at: float | None
    detail: str
    mismatched: bool = False  #: it named another machine and was not used


def in_a_word(device: Device, outcome: Outcome) -> str:
    """How it ended, for whoever counts."""
    if outcome.off_read_at is not None:
        return "off read"
    if outcome.sent in NOTHING_DONE:
        return "not sent" if outcome.sent is Sent.NOT else "refused"
    return "accepted" if outcome.sent is Sent.ACCEPTED and not can_read(device) else "unverified"


class Switch:
    """Switches one device at a time and reads it back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives the controller's seconds."""
        self._clock = clock

    async def off(self, device: Device, *, send: bool, acknowledge: Callable[[str], None]) -> Outcome:
        """Order one device off and read it back, all within its deadline; `send=False` only reads."""
        sent, detail, off_read_at = Sent.UNKNOWN, Sent.UNKNOWN.value, None
        with anyio.move_on_after(device.timeout_s) as deadline:
            if send:
                sent, detail = await self._order_off(device)
            else:
                sent, detail = Sent.ACCEPTED, "acknowledged before the restart"
            ordered_at = self._clock()  # readings count from the end of the order, which may have taken its time
            if sent is Sent.ACCEPTED:
                acknowledge(device.name)
            if sent is Sent.REFUSED or not can_read(device):
                return Outcome(device=device.name, sent=sent, off_read_at=None, detail=detail)
            off_read_at = await self._read_back(device, ordered_at)
        if deadline.cancelled_caught:
            detail = f"{detail}; not read off within {device.timeout_s:g} s"
        else:
            detail = f"{detail}; read off twice"
        return Outcome(device=device.name, sent=sent, off_read_at=off_read_at, detail=detail)

    async def _order_off(self, device: Device) -> tuple[Sent, str]:
        try:
            await contained(device.agent.power_off())
        except AccessDenied as error:
            return Sent.REFUSED, str(error)
        except Rejected as error:
            if not can_read(device):
                return Sent.REFUSED, str(error)
            return await self._look_after_refusal(device, str(error))
        except FenceError as error:
            return Sent.UNKNOWN, str(error)
        return Sent.ACCEPTED, Sent.ACCEPTED.value

    async def _look_after_refusal(self, device: Device, refusal: str) -> tuple[Sent, str]:
        """Some refuse to switch off what is off (HTTP 409), others what is just going off: only readings tell.

        Refused is what still reads ON a while later; anything else may have worked.
        """
        first = await self.read(device)
        if first is PowerState.OFF:
            return Sent.ACCEPTED, f"refused, because it is off already ({refusal})"
        await anyio.sleep(OFF_SPACING_S)
        if first is PowerState.ON and await self.read(device) is PowerState.ON:
            return Sent.REFUSED, refusal
        return Sent.UNKNOWN, f"refused, but it does not read ON ({refusal})"

    async def _read_back(self, device: Device, ordered_at: float) -> float:
        """Poll until OFF was read twice as the protocol asks; returns when the second reading was complete."""
        first_off_at: float | None = None
        while True:
            began_at = self._clock()
            if await self.read(device) is not PowerState.OFF:
                first_off_at = None
                await anyio.sleep(POLL_S)
                continue
            due_at = ordered_at + device.agent.sample_period_s
            if first_off_at is not None and began_at >= max(first_off_at + OFF_SPACING_S, due_at):
                return self._clock()
            if first_off_at is None:
                first_off_at = self._clock()
            await anyio.sleep(max(POLL_S / 10, max(first_off_at + OFF_SPACING_S, due_at) - self._clock()))

    async def read(self, device: Device) -> PowerState:
        """One reading; no answer and nonsense are UNKNOWN."""
        try:
            with anyio.fail_after(READ_TIMEOUT_S):
                power = await contained(device.agent.power_state())
        except (FenceError, TimeoutError):
            return PowerState.UNKNOWN
        return power if isinstance(power, PowerState) else PowerState.UNKNOWN

    async def on(self, device: Device) -> str:
        """Switch one device on and wait until it reads so, or lift its order; returns what went wrong, or nothing."""
        if Capability.POWER_ON not in device.agent.capabilities:
            return "it cannot switch on: do that by hand"
        with anyio.move_on_after(device.timeout_s * 2):
            try:
                await contained(device.agent.power_on())
            except FenceError as error:
                return f"it does NOT switch on again: {error}"
            if Capability.LASTING in device.agent.capabilities:
                return ""  # it boots by itself
            while await self.read(device) is not PowerState.ON:  # noqa: ASYNC110 - a device calls nobody
                await anyio.sleep(POLL_S)
            return ""
        return "it does NOT read on again: look at the host"

    async def on_again(self, device: Device, why_not: Callable[[], Awaitable[str]]) -> str:
        """Switch on, unless something speaks against it at the last moment; returns what went wrong, or nothing."""
        if device.fencing:
            return "it is just being used for a power-off or a drill"
        return await why_not() or await self.on(device)

    async def renew(self, device: Device, why_not: Callable[[], Awaitable[str]]) -> str:
        """Repeat an order that is in force; returns why it could not, or nothing. One that is not is left alone."""
        async with device.lasting:
            power = await self.read(device)
            if power is not PowerState.OFF:
                return "it is not in force any more" if power is PowerState.ON else "it cannot be read"
            return await why_not() or await self._within(device, device.agent.power_off)

    async def lift(self, device: Device, why_not: Callable[[], Awaitable[str]]) -> str:
        """Lift an order and see it lifted, twice; returns why it could not, or nothing."""
        async with device.lasting:
            return await why_not() or await self._within(device, lambda: self._lifted(device))

    async def _lifted(self, device: Device) -> None:
        await contained(device.agent.power_on())
        seen = 0
        while seen < LIFTED_READINGS:
            await anyio.sleep(OFF_SPACING_S if seen else POLL_S)
            seen = seen + 1 if await self.read(device) is PowerState.ON else 0

    async def _within(self, device: Device, work: Callable[[], Awaitable[None]]) -> str:
        try:
            with anyio.fail_after(device.timeout_s):
                await contained(work())
        except FenceError as error:
            return str(error)
        except TimeoutError:
            return f"not seen to work within {device.timeout_s:g} s"
        return ""


async def contained(work: Awaitable[_T]) -> _T:
    """The border to a plugin: anything but a FenceError is its bug: logged with traceback, taken as no answer."""
    try:
        return await work
    except FenceError:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # ours
        log.exception("a fence agent waited for something that was cancelled")
        raise Unreachable("bug in the fence agent: what it waited for was cancelled") from None
    except Exception as error:  # the border to plugins: their bug is no answer
        log.exception("a fence agent raised something else than a FenceError", error=type(error).__name__)
        raise Unreachable(f"bug in the fence agent: {type(error).__name__}") from error
