"""Carries out `Fence`, `Drill` and `ReadPower` through the agents, checks them in peace time, and reports.

Each device has its own deadline, so a hung one delays nobody else. A device that is used for a fence is never queued
behind a check. What is believed of a device is in `switch`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TypeVar

import anyio
import structlog

from ha_controller.adapters.fencer.drill import Drills, Looks
from ha_controller.adapters.fencer.switch import (
    NOTHING_DONE,
    Device,
    Outcome,
    Sent,
    Switch,
    can_read,
    contained,
    in_a_word,
    reads_power,
)
from ha_controller.core.effects import Drill, Fence, LiftOrders, PowerOn, ReadPower, RenewOrders
from ha_controller.core.events import (
    DeviceChecked,
    DrillReported,
    Event,
    FenceAccepted,
    FenceReported,
    FenceResult,
    OrdersLifted,
    OrdersRenewed,
    PoweredOn,
    PowerRead,
)
from ha_controller.plugin import (
    Capability,
    CheckReport,
    FenceError,
    Identity,
    PowerState,
    Unreachable,
    one_line,
)

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

IDENTITY_TIMEOUT_S = 2.0  #: right before a shot: a device that is slow to tell is used on what is on record
CHECK_TIMEOUT_S = 15.0
CHECKS_AT_ONCE = 8
CHECK_AGAIN_S = 5.0  #: a check that a power-off left no place for


class _PushedAside(Unreachable):
    """A power-off was under way or came in between: nothing was learnt of the device."""


class Fencer:
    """Knows the devices of every host and uses them."""

    def __init__(
        self,
        *,
        report: Callable[[Event], None],
        may_act: Callable[[int | None], Awaitable[bool]],
        clock: Callable[[], float],
        check_every_s: float = 600.0,
        looks: Looks | None = None,
        heed: Callable[[str, str, float], None] = lambda agent, result, took_s: None,
    ) -> None:
        """`may_act` has the lead of an order's term proven; what it allows is sent at once, and nothing else.

        `heed` is told how each agent did in a power-off, and in how many seconds.
        """
        self._report = report
        self._may_act = may_act
        self._clock = clock
        self._heed = heed
        self._switch = Switch(clock)
        self._drills = Drills(self._switch, looks or Looks(), clock)
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
        if not await self._may_act(order.term) or self._clock() > order.not_after:
            self._not_begun(order, FenceResult.NOT_SENT, "too late, or we no longer lead")
            return
        devices = [self.device(order.host, name) for name in order.devices]
        known = [device for device in devices if device is not None]
        if len(known) != len(devices):
            self._not_begun(order, FenceResult.REFUSED, "the device is no longer configured")
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

    def _not_begun(self, order: Fence, result: FenceResult, why: str) -> None:
        """What was not sent did nothing; what was acknowledged before a restart may have done it."""
        if order.send:
            self._fence_reported(order, result, None, f"not sent: {why}")
        else:
            self._fence_reported(order, FenceResult.UNVERIFIED, None, f"not read back: {why}")

    async def _fence_level(self, order: Fence, devices: list[Device]) -> None:
        outcomes: list[Outcome] = []
        acknowledged: set[str] = set()
        readable = [device for device in devices if can_read(device)]
        needed = {device.name for device in readable or devices}  # those that cannot be read help if they can

        def acknowledge(name: str) -> None:
            before = needed <= acknowledged
            acknowledged.add(name)
            if order.send and not before and needed <= acknowledged:
                self._report(FenceAccepted(host=order.host, incident=order.incident, attempt=order.attempt))

        async def one(device: Device) -> None:
            began_at = self._clock()
            outcome = await self._identified_off(device, order, acknowledge)
            outcomes.append(outcome)
            self._heed(device.agent.kind, in_a_word(device, outcome), self._clock() - began_at)

        async with anyio.create_task_group() as group:
            for device in devices:
                group.start_soon(one, device)
        outcomes.sort(key=lambda outcome: outcome.device)
        detail = "; ".join(f"{outcome.device}: {outcome.detail}" for outcome in outcomes)
        mismatched = tuple(outcome.device for outcome in outcomes if outcome.mismatched)
        moments = [outcome.off_read_at for outcome in outcomes if outcome.off_read_at is not None]
        if readable and len(moments) == len(readable) and await self._off_together(readable):
            self._fence_reported(order, FenceResult.OFF_READ, max(moments), detail)
        elif order.send and len(outcomes) == len(devices) and {outcome.sent for outcome in outcomes} <= NOTHING_DONE:
            was_kept_back = any(outcome.sent is Sent.NOT for outcome in outcomes)
            result = FenceResult.NOT_SENT if was_kept_back else FenceResult.REFUSED
            self._fence_reported(order, result, None, detail, mismatched)
        else:
            self._fence_reported(order, FenceResult.UNVERIFIED, None, detail, mismatched)

    async def _identified_off(self, device: Device, order: Fence, acknowledge: Callable[[str], None]) -> Outcome:
        """Ask the device once more whose it is, then use it. One that cannot tell now is used on what is on record."""
        if order.identity is not None and Capability.IDENTITY in device.agent.capabilities:
            named = await self._identity(device)
            if named is not None and order.identity.same_machine(named) is False:
                detail = f"it belongs to {named}, the host is {order.identity}; not used"
                return Outcome(device=device.name, sent=Sent.REFUSED, off_read_at=None, detail=detail, mismatched=True)
            if not await self._may_act(order.term):  # the device may have taken its time
                detail = "not sent: we no longer lead"
                return Outcome(device=device.name, sent=Sent.NOT, off_read_at=None, detail=detail)
        return await self._switch.off(device, send=order.send, acknowledge=acknowledge)

    async def _identity(self, device: Device) -> Identity | None:
        try:
            with anyio.fail_after(IDENTITY_TIMEOUT_S):
                named = await contained(device.agent.identity())
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

    async def _off_together(self, devices: list[Device]) -> bool:
        """Several feeds must be off at the same time, not one after the other."""
        if len(devices) == 1:
            return True
        states = await self._read_all(devices)
        return all(power is PowerState.OFF for power in states.values())

    async def _read_all(self, devices: list[Device]) -> dict[str, PowerState]:
        states: dict[str, PowerState] = {}

        async def one(device: Device) -> None:
            states[device.name] = await self._switch.read(device)

        async with anyio.create_task_group() as group:
            for device in devices:
                group.start_soon(one, device)
        return states

    # --- lasting orders ---

    async def renew(self, order: RenewOrders) -> None:
        """Renew lasting orders and report `OrdersRenewed`."""
        failed = await self._with_each_device(order, self._switch.renew)
        self._report(OrdersRenewed(host=order.host, incident=order.incident, failed=failed))

    async def lift(self, order: LiftOrders) -> None:
        """Lift lasting orders and report `OrdersLifted`."""
        failed = await self._with_each_device(order, self._switch.lift)
        self._report(OrdersLifted(host=order.host, incident=order.incident, number=order.number, failed=failed))

    async def power_on(self, order: PowerOn) -> None:
        """Switch a host on again and report `PoweredOn`."""
        failed = await self._with_each_device(order, self._switch.on_again)
        self._report(PoweredOn(host=order.host, incident=order.incident, failed=failed))

    async def _with_each_device(
        self,
        order: RenewOrders | LiftOrders | PowerOn,
        act: Callable[[Device, Callable[[], Awaitable[str]]], Awaitable[str]],
    ) -> tuple[tuple[str, str], ...]:
        """Do something with all devices of an order at once; returns those that failed, with the reason."""
        failed: dict[str, str] = {}

        async def why_not() -> str:
            """Asked at the last moment: an order may have waited for another one."""
            if not await self._may_act(order.term):
                return "not done: we no longer lead"
            return "" if self._clock() <= order.not_after else "not done: it is too late"

        async def one(name: str) -> None:
            device = self.device(order.host, name)
            if device is None:
                failed[name] = "it is no longer configured"
            elif why := await act(device, why_not):
                failed[name] = why

        async with anyio.create_task_group() as group:
            for name in order.devices:
                group.start_soon(one, name)
        return tuple(sorted(failed.items()))

    # --- drills ---

    async def drill(self, order: Drill) -> None:
        """Switch a host off and on with each device in turn, see whether it was this host, report `DrillReported`."""
        results: list[tuple[str, str, bool, str]] = []
        is_back = True
        for name in order.devices:
            device = self.device(order.host, name)
            may_act = await self._may_act(order.term)
            if device is None or not may_act or (not results and self._clock() > order.not_after):
                results.append((name, "", False, "not done: too late, no longer configured, or we do not lead"))
                continue
            switched, is_back, detail = await self._drills.hold(order.host, device)
            results.append((name, device.fingerprint, switched, detail))
            if not switched or not is_back:
                break  # the next device would be tried on a host in an unknown state
        whole = len(results) == len(order.devices) and is_back
        self._report(DrillReported(host=order.host, request=order.request, results=tuple(results), is_back=whole))

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
            if device.level == first and reads_power(device)
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
            raise _PushedAside("busy with a power-off")
        with anyio.CancelScope() as scope:
            device.background.add(scope)
            try:
                return await contained(work)
            finally:
                device.background.discard(scope)
        raise _PushedAside("pushed aside by a power-off")

    # --- checks ---

    async def run_checks(self) -> None:
        """Check every device at start and then slowly, with jitter; runs until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                for key in [key for key, due_at in self._due.items() if due_at <= self._clock()]:
                    self._due[key] = self._clock() + self._check_period_s(*key) * random.uniform(0.8, 1.2)
                    group.start_soon(self._check_when_free, *key)
                await anyio.sleep(0.5)

    def _check_period_s(self, host: int, name: str) -> float:
        device = self.device(host, name)
        own = None if device is None else device.agent.check_every_s
        return self._check_every_s if own is None else own

    async def _check_when_free(self, host: int, name: str) -> None:
        async with self._checks:
            await self.check(host, name)

    async def check_now(self, host: int | None) -> None:
        """Check the devices of one host, or of all, and return when all have been reported."""
        async with anyio.create_task_group() as group:
            for number, devices in self._devices.items():
                for name in devices if host in (None, number) else ():
                    group.start_soon(self._check_when_free, number, name)

    async def check(self, host: int, name: str) -> None:
        """Check one device now and report `DeviceChecked`. A failed check is repeated sooner.

        One that a power-off pushes aside says nothing, and is made up for soon: right after a restart it is the first
        one, and nobody would be powered off by a device that has not passed any.
        """
        device = self.device(host, name)
        if device is None:
            return
        try:
            with anyio.fail_after(CHECK_TIMEOUT_S):
                result = _sound(await self._in_background(device, device.agent.check()))
        except _PushedAside:
            self._due[(host, name)] = self._clock() + CHECK_AGAIN_S
            return
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


def _sound(result: object) -> CheckReport:
    """A plugin may return anything; what is no report is a failed check, and what is no power state is not known."""
    if not isinstance(result, CheckReport):
        return CheckReport(ok=False, summary=f"bug in the fence agent: its check returned a {type(result).__name__}")
    power = result.power if isinstance(result.power, PowerState) else PowerState.UNKNOWN
    return CheckReport(ok=result.ok is True, summary=one_line(str(result.summary)), power=power)
