"""Carries out `Fence` and `ReadPower`: sends the order through the agents, reads the power back, reports.

Verification is here and nowhere else: OFF twice, `OFF_SPACING_S` apart, the second one at least the agent's
`sample_period_s` after the order. An agent's "done" is an acknowledgement. Each device has its own deadline, so a hung
one delays nobody else. A device that is used for a fence is never queued behind a check.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import anyio
import structlog

from ha_controller.core.effects import Fence, ReadPower
from ha_controller.core.events import DeviceChecked, Event, FenceAccepted, FenceReported, FenceResult, PowerRead
from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    Identity,
    PowerState,
    Rejected,
    Unreachable,
)

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

OFF_SPACING_S = 2.0
POLL_S = 0.5
READ_TIMEOUT_S = 4.0
IDENTITY_TIMEOUT_S = 2.0  #: right before a shot: a device that is slow to tell is used on what is on record
CHECK_TIMEOUT_S = 15.0
CHECKS_AT_ONCE = 8


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


class _Sent(StrEnum):
    ACCEPTED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "no answer to the order"


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    device: str
    sent: _Sent
    off_read_at: float | None
    detail: str
    mismatched: bool = False  #: it named another machine and was not used


class Fencer:
    """Knows the devices of every host and uses them."""

    def __init__(
        self,
        *,
        report: Callable[[Event], None],
        may_act: Callable[[], bool],
        clock: Callable[[], float],
        check_every_s: float = 600.0,
    ) -> None:
        """`may_act` says whether we hold the lead right now; it is asked right before every order."""
        self._report = report
        self._may_act = may_act
        self._clock = clock
        self._check_every_s = check_every_s
        self._devices: dict[int, dict[str, Device]] = {}
        self._due: dict[tuple[int, str], float] = {}
        self._checks = anyio.CapacityLimiter(CHECKS_AT_ONCE)

    def equip(self, host: int, devices: Mapping[str, Device]) -> None:
        """Set the devices of a host, for later uses. New ones are checked at once."""
        before, self._devices[host] = self._devices.get(host, {}), dict(devices)
        for name, device in devices.items():
            if name not in before or before[name].fingerprint != device.fingerprint:
                self._due[(host, name)] = 0.0
        for name in before.keys() - devices.keys():
            self._due.pop((host, name), None)

    def device(self, host: int, name: str) -> Device | None:
        """A device, if the host has it."""
        return self._devices.get(host, {}).get(name)

    # --- fencing ---

    async def fence(self, order: Fence) -> None:
        """Carry out one level and report exactly one `FenceReported`."""
        if self._clock() > order.not_after or not self._may_act():
            self._not_begun(order, "too late, or we no longer lead")
            return
        devices = [self.device(order.host, name) for name in order.devices]
        known = [device for device in devices if device is not None]
        if len(known) != len(devices):
            self._not_begun(order, "the device is no longer configured")
            return
        for device in known:
            device.fencing += 1
            for scope in device.background:
                scope.cancel()
        try:
            await self._fence_level(order, known)
        finally:
            for device in known:
                device.fencing -= 1

    def _not_begun(self, order: Fence, why: str) -> None:
        """What was not sent did nothing; what was acknowledged before a restart may have done it."""
        if order.send:
            self._fence_reported(order, FenceResult.REFUSED, None, f"not sent: {why}")
        else:
            self._fence_reported(order, FenceResult.UNVERIFIED, None, f"not read back: {why}")

    async def _fence_level(self, order: Fence, devices: list[Device]) -> None:
        outcomes: list[_Outcome] = []
        acknowledged: set[str] = set()

        def acknowledge(name: str) -> None:
            acknowledged.add(name)
            if len(acknowledged) == len(devices) and order.send:
                self._report(FenceAccepted(host=order.host, incident=order.incident, attempt=order.attempt))

        async def one(device: Device) -> None:
            outcomes.append(await self._identified_off(device, order, acknowledge))

        async with anyio.create_task_group() as group:
            for device in devices:
                group.start_soon(one, device)
        outcomes.sort(key=lambda outcome: outcome.device)
        detail = "; ".join(f"{outcome.device}: {outcome.detail}" for outcome in outcomes)
        mismatched = tuple(outcome.device for outcome in outcomes if outcome.mismatched)
        moments = [outcome.off_read_at for outcome in outcomes if outcome.off_read_at is not None]
        if len(moments) == len(devices) and await self._off_together(devices):
            self._fence_reported(order, FenceResult.OFF_READ, max(moments), detail)
        elif len(outcomes) == len(devices) and all(outcome.sent is _Sent.REFUSED for outcome in outcomes):
            self._fence_reported(order, FenceResult.REFUSED, None, detail, mismatched)
        else:
            self._fence_reported(order, FenceResult.UNVERIFIED, None, detail, mismatched)

    async def _identified_off(self, device: Device, order: Fence, acknowledge: Callable[[str], None]) -> _Outcome:
        """Ask the device once more whose it is, then use it. One that cannot tell now is used on what is on record."""
        if order.identity is not None and Capability.IDENTITY in device.agent.capabilities:
            named = await self._identity(device)
            if named is not None and order.identity.same_machine(named) is False:
                detail = f"it belongs to {named}, the host is {order.identity}; not used"
                return _Outcome(
                    device=device.name, sent=_Sent.REFUSED, off_read_at=None, detail=detail, mismatched=True
                )
        return await self._off(device, send=order.send, acknowledge=acknowledge)

    async def _identity(self, device: Device) -> Identity | None:
        try:
            with anyio.fail_after(IDENTITY_TIMEOUT_S):
                named = await _contained(device.agent.identity())
        except (FenceError, TimeoutError):
            return None
        return named if isinstance(named, Identity) else None

    def _fence_reported(
        self,
        order: Fence,
        result: FenceResult,
        off_read_at: float | None,
        detail: str,
        mismatched: tuple[str, ...] = (),
    ) -> None:
        self._report(
            FenceReported(
                host=order.host,
                incident=order.incident,
                attempt=order.attempt,
                result=result,
                off_read_at=off_read_at,
                detail=detail,
                mismatched=mismatched,
            )
        )

    async def _off(self, device: Device, *, send: bool, acknowledge: Callable[[str], None]) -> _Outcome:
        """Order one device off and read it back, all within its deadline."""
        sent, detail, off_read_at = _Sent.UNKNOWN, _Sent.UNKNOWN.value, None
        with anyio.move_on_after(device.timeout_s) as deadline:
            if send:
                sent, detail = await self._order_off(device)
            else:
                sent, detail = _Sent.ACCEPTED, "acknowledged before the restart"
            ordered_at = self._clock()  # readings count from the end of the order, which may have taken its time
            if sent is _Sent.REFUSED:
                return _Outcome(device=device.name, sent=sent, off_read_at=None, detail=detail)
            if sent is _Sent.ACCEPTED:
                acknowledge(device.name)
            off_read_at = await self._read_back(device, ordered_at)
        if deadline.cancelled_caught:
            detail = f"{detail}; not read off within {device.timeout_s:g} s"
        else:
            detail = f"{detail}; read off twice"
        return _Outcome(device=device.name, sent=sent, off_read_at=off_read_at, detail=detail)

    async def _order_off(self, device: Device) -> tuple[_Sent, str]:
        try:
            await _contained(device.agent.power_off())
        except AccessDenied as error:
            return _Sent.REFUSED, str(error)
        except Rejected as error:
            return await self._look_after_refusal(device, str(error))
        except FenceError as error:
            return _Sent.UNKNOWN, str(error)
        return _Sent.ACCEPTED, _Sent.ACCEPTED.value

    async def _look_after_refusal(self, device: Device, refusal: str) -> tuple[_Sent, str]:
        """Some refuse to switch off what is off (HTTP 409), others what is just going off: only readings tell.

        Refused is what still reads ON a while later; anything else may have worked.
        """
        first = await self._read(device)
        if first is PowerState.OFF:
            return _Sent.ACCEPTED, f"refused, because it is off already ({refusal})"
        await anyio.sleep(OFF_SPACING_S)
        if first is PowerState.ON and await self._read(device) is PowerState.ON:
            return _Sent.REFUSED, refusal
        return _Sent.UNKNOWN, f"refused, but it does not read ON ({refusal})"

    async def _read_back(self, device: Device, ordered_at: float) -> float:
        """Poll until OFF was read twice as the protocol asks; returns when the second reading was complete."""
        first_off_at: float | None = None
        while True:
            began_at = self._clock()
            if await self._read(device) is not PowerState.OFF:
                first_off_at = None
                await anyio.sleep(POLL_S)
                continue
            due_at = ordered_at + device.agent.sample_period_s
            if first_off_at is not None and began_at >= max(first_off_at + OFF_SPACING_S, due_at):
                return self._clock()
            if first_off_at is None:
                first_off_at = self._clock()
            await anyio.sleep(max(POLL_S / 10, max(first_off_at + OFF_SPACING_S, due_at) - self._clock()))

    async def _read(self, device: Device) -> PowerState:
        """One reading; no answer and nonsense are UNKNOWN."""
        try:
            with anyio.fail_after(READ_TIMEOUT_S):
                power = await _contained(device.agent.power_state())
        except (FenceError, TimeoutError):
            return PowerState.UNKNOWN
        return power if isinstance(power, PowerState) else PowerState.UNKNOWN

    async def _off_together(self, devices: list[Device]) -> bool:
        """Several feeds must be off at the same time, not one after the other."""
        if len(devices) == 1:
            return True
        states = await self._read_all(devices)
        return all(power is PowerState.OFF for power in states.values())

    async def _read_all(self, devices: list[Device]) -> dict[str, PowerState]:
        states: dict[str, PowerState] = {}

        async def one(device: Device) -> None:
            states[device.name] = await self._read(device)

        async with anyio.create_task_group() as group:
            for device in devices:
                group.start_soon(one, device)
        return states

    # --- reading ---

    async def read_power(self, order: ReadPower) -> None:
        """Read devices on demand, each in a fresh session, and report one `PowerRead`."""
        asked_at = self._clock()
        known = [device for name in order.devices if (device := self.device(order.host, name)) is not None]
        states = await self._read_all(known)
        complete = tuple((name, states.get(name, PowerState.UNKNOWN)) for name in order.devices)
        self._report(PowerRead(host=order.host, asked_at=asked_at, states=complete))

    async def power_of(self, host: int) -> PowerState:
        """The power of a host by all devices of its first level, for the `bmc` channel: off only if all are off.

        Raises:
            FenceError: one could not be read, or is being used for a fence.
        """
        devices = list(self._devices.get(host, {}).values())
        first = min((device.level for device in devices), default=0)
        states = [
            await self._in_background(device, device.agent.power_state())
            for device in devices
            if device.level == first and Capability.READ_POWER in device.agent.capabilities
        ]
        if not states:
            raise Unreachable("no fence device that can be read")
        if PowerState.ON in states:
            return PowerState.ON
        return PowerState.OFF if all(power is PowerState.OFF for power in states) else PowerState.UNKNOWN

    async def _in_background(self, device: Device, work: Awaitable[_T]) -> _T:
        """Do something that a fence may push aside."""
        if device.fencing:
            if isinstance(work, Coroutine):
                work.close()
            raise Unreachable("busy with a power-off")
        with anyio.CancelScope() as scope:
            device.background.add(scope)
            try:
                return await _contained(work)
            finally:
                device.background.discard(scope)
        raise Unreachable("pushed aside by a power-off")

    # --- checks ---

    async def run_checks(self) -> None:
        """Check every device at start and then slowly, with jitter; runs until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                for key in [key for key, due_at in self._due.items() if due_at <= self._clock()]:
                    self._due[key] = self._clock() + self._check_every_s * random.uniform(0.8, 1.2)
                    group.start_soon(self._check_when_free, *key)
                await anyio.sleep(0.5)

    async def _check_when_free(self, host: int, name: str) -> None:
        async with self._checks:
            await self.check(host, name)

    async def check(self, host: int, name: str) -> None:
        """Check one device now and report `DeviceChecked`. A failed check is repeated sooner."""
        device = self.device(host, name)
        if device is None or device.fencing:
            return
        try:
            with anyio.fail_after(CHECK_TIMEOUT_S):
                result = await self._in_background(device, device.agent.check())
        except (FenceError, TimeoutError) as error:
            result = CheckReport(ok=False, summary=str(error) or f"no answer within {CHECK_TIMEOUT_S:g} s")
        identity = None
        if result.ok and Capability.IDENTITY in device.agent.capabilities:
            identity = await self._identity(device)
        if not result.ok:
            self._due[(host, name)] = self._clock() + min(60.0, self._check_every_s)
        self._report(
            DeviceChecked(
                host=host,
                device=name,
                fingerprint=device.fingerprint,
                ok=result.ok,
                power=result.power,
                summary=result.summary,
                identity=identity,
            )
        )


async def _contained(work: Awaitable[_T]) -> _T:
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
    except Exception as error:
        log.exception("a fence agent raised something else than a FenceError", error=type(error).__name__)
        raise Unreachable(f"bug in the fence agent: {type(error).__name__}") from error
