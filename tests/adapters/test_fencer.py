"""The fencer believes what it read back, never what an agent said. The agents here are doubles kept in memory: real
BMCs are in tests/peers and tests/whole; what is tested here are answers that no peer can be made to give in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from leads import always

from ha_controller.adapters.fencer import Device, Fencer
from ha_controller.core.effects import Fence, PowerOn, ReadPower
from ha_controller.core.events import (
    DeviceChecked,
    Event,
    FenceAccepted,
    FenceReported,
    FenceResult,
    PoweredOn,
    PowerRead,
)
from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    PowerState,
    Rejected,
    Unreachable,
)


class Bmc(FenceAgent[AgentConfig]):
    kind = "double"
    config_model = AgentConfig
    capabilities = Capability.READ_POWER
    sample_period_s = 0.3

    def __init__(self) -> None:
        super().__init__(AgentConfig())
        self.power: object = PowerState.ON
        self.obeys = True
        self.offs = 0
        self.refuses: Exception | None = None
        self.hangs = False

    async def power_off(self) -> None:
        if self.refuses:
            raise self.refuses
        self.offs += 1
        if self.obeys:
            self.power = PowerState.OFF

    async def power_state(self) -> PowerState:
        if self.hangs:
            await anyio.sleep_forever()
        return self.power  # type: ignore[return-value]

    async def check(self) -> CheckReport:
        return CheckReport(ok=True, summary="ok", power=PowerState.ON)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def fence(events: list[Event]):
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()  # noqa: E731

    async def fence(*agents: Bmc, send: bool = True, leads: bool = True, late: bool = False, timeout_s: float = 4.0):
        async def may_act(term: int | None) -> bool:
            return leads

        fencer = Fencer(report=events.append, may_act=may_act, clock=clock)
        names = tuple(f"bmc{index}" for index in range(len(agents)))
        devices = {n: Device(name=n, agent=a, timeout_s=timeout_s) for n, a in zip(names, agents, strict=True)}
        fencer.equip(3, devices)
        not_after = clock() + (-1 if late else 5)
        await fencer.fence(Fence(host=3, incident=1, attempt=1, devices=names, send=send, not_after=not_after))
        (report,) = [event for event in events if isinstance(event, FenceReported)]
        return report

    return fence


async def test_off_is_read_twice_two_seconds_apart(fence, events):
    began = asyncio.get_running_loop().time()
    report = await fence(Bmc())
    assert report.result is FenceResult.OFF_READ
    assert report.off_read_at - began >= 2.0
    assert isinstance(events[0], FenceAccepted)


async def test_an_acknowledgement_without_effect_proves_nothing(fence):
    bmc = Bmc()
    bmc.obeys = False
    report = await fence(bmc, timeout_s=1.0)
    assert report.result is FenceResult.UNVERIFIED


async def test_the_order_is_sent_even_when_off_is_read_already(fence):
    bmc = Bmc()
    bmc.power = PowerState.OFF
    await fence(bmc)
    assert bmc.offs == 1


async def test_a_refusal_because_it_is_off_already_is_read_back(fence):
    bmc = Bmc()
    bmc.power, bmc.refuses = PowerState.OFF, Rejected("409 not in this state")
    assert (await fence(bmc)).result is FenceResult.OFF_READ


async def test_a_refusal_while_on_is_definite(fence):
    bmc = Bmc()
    bmc.refuses = Rejected("no")
    assert (await fence(bmc)).result is FenceResult.REFUSED


class Helper(Bmc):
    """Takes orders and cannot be read, like SSH."""

    capabilities = Capability(0)

    async def power_state(self) -> PowerState:
        return PowerState.UNKNOWN


@pytest.mark.parametrize("refusal", [None, Unreachable("gone"), AccessDenied("no")])
async def test_what_cannot_be_read_helps_a_level_and_decides_nothing(fence, events, refusal):
    helper = Helper()
    helper.refuses = refusal
    report = await fence(Bmc(), helper)
    assert report.result is FenceResult.OFF_READ
    assert any(isinstance(event, FenceAccepted) for event in events)


@pytest.mark.parametrize(
    ("refusal", "result"),
    [
        (None, FenceResult.UNVERIFIED),
        (Unreachable("gone"), FenceResult.UNVERIFIED),
        (Rejected("no"), FenceResult.REFUSED),
    ],
)
async def test_what_cannot_be_read_proves_nothing_alone_and_is_not_waited_for(fence, refusal, result):
    helper = Helper()
    helper.refuses = refusal
    with anyio.fail_after(1):
        assert (await fence(helper)).result is result


async def test_a_wrong_password_is_definite(fence):
    bmc = Bmc()
    bmc.refuses = AccessDenied("wrong password")
    assert (await fence(bmc)).result is FenceResult.REFUSED


async def test_a_lost_answer_is_never_definite(fence):
    bmc = Bmc()
    bmc.refuses = Unreachable("no answer")
    assert (await fence(bmc, timeout_s=1.0)).result is FenceResult.UNVERIFIED


async def test_one_feed_of_two_is_not_off(fence):
    stuck = Bmc()
    stuck.obeys = False
    assert (await fence(Bmc(), stuck, timeout_s=3.0)).result is FenceResult.UNVERIFIED


async def test_nonsense_is_not_off(fence):
    bmc = Bmc()
    bmc.obeys, bmc.power = False, "off"
    assert (await fence(bmc, timeout_s=1.0)).result is FenceResult.UNVERIFIED


async def test_a_bug_in_an_agent_is_no_answer(fence):
    bmc = Bmc()
    bmc.refuses = ZeroDivisionError("oops")
    assert (await fence(bmc, timeout_s=1.0)).result is FenceResult.UNVERIFIED


async def test_a_hung_reading_ends_at_the_deadline(fence):
    bmc = Bmc()
    bmc.hangs = True
    with anyio.fail_after(2):
        assert (await fence(bmc, timeout_s=1.0)).result is FenceResult.UNVERIFIED


async def test_without_the_lead_or_too_late_nothing_is_sent(fence, events):
    bmc = Bmc()
    assert (await fence(bmc, leads=False)).result is FenceResult.NOT_SENT
    events.clear()
    assert (await fence(bmc, late=True)).result is FenceResult.NOT_SENT
    assert bmc.offs == 0


async def test_after_a_restart_it_only_reads_back(fence):
    bmc = Bmc()
    bmc.power = PowerState.OFF
    assert (await fence(bmc, send=False)).result is FenceResult.OFF_READ
    assert bmc.offs == 0


async def test_a_dead_device_is_read_as_unknown_and_a_check_reports(events):
    loop = asyncio.get_running_loop()
    fencer = Fencer(report=events.append, may_act=always, clock=loop.time)
    fencer.equip(3, {"bmc": Device(name="bmc", agent=Bmc(), timeout_s=1)})
    await fencer.read_power(ReadPower(host=3, devices=("bmc", "gone")))
    assert isinstance(events[-1], PowerRead)
    assert events[-1].states == (("bmc", PowerState.ON), ("gone", PowerState.UNKNOWN))
    await fencer.check(3, "bmc")
    assert isinstance(events[-1], DeviceChecked)
    assert events[-1].ok


async def test_an_acknowledged_order_that_cannot_be_read_back_is_never_called_refused(events):
    """After a restart, before the first inventory, nobody knows the devices; refused would mean: did nothing."""
    fencer = Fencer(report=events.append, may_act=always, clock=lambda: 0.0)
    await fencer.fence(Fence(host=3, incident=1, attempt=1, devices=("bmc",), send=False, not_after=5.0))
    assert events[-1].result is FenceResult.UNVERIFIED


class CancelledInside(Bmc):
    """Its library's connection was lost, and what it waited for is cancelled."""

    async def power_off(self) -> None:
        self.offs += 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future


async def test_a_wait_that_was_cancelled_inside_an_agent_is_no_refusal(fence, logged):
    agent = CancelledInside()
    report = await fence(agent, timeout_s=1.0)
    assert agent.offs == 1
    assert report.result is FenceResult.UNVERIFIED
    assert any("cancelled" in str(line["event"]) for line in logged)


class SlowToAcknowledge(Bmc):
    """The order takes a second; the reading was OFF before it was carried out."""

    sample_period_s = 3.0

    async def power_off(self) -> None:
        self.power = PowerState.OFF
        await anyio.sleep(1.0)
        self.acknowledged_at = asyncio.get_running_loop().time()


async def test_readings_count_from_the_end_of_the_order(fence):
    agent = SlowToAcknowledge()
    report = await fence(agent, timeout_s=10.0)
    assert report.off_read_at >= agent.acknowledged_at + agent.sample_period_s


async def test_a_refusal_counts_only_if_the_device_goes_on_to_read_on(fence):
    agent = Bmc()
    agent.refuses = Rejected("not possible in the present state")
    assert (await fence(agent)).result is FenceResult.REFUSED


async def test_a_refusal_after_which_nothing_can_be_read_has_an_unknown_outcome(fence):
    agent = Bmc()
    agent.refuses, agent.power = Rejected("no"), PowerState.UNKNOWN
    assert (await fence(agent)).result is FenceResult.UNVERIFIED


async def test_the_power_of_a_host_is_off_only_if_every_device_of_its_first_level_is(events):
    fencer = Fencer(report=events.append, may_act=always, clock=lambda: 0.0)
    first, second, other = Bmc(), Bmc(), Bmc()
    devices = {
        name: Device(name=name, agent=agent, timeout_s=4.0, level=level)
        for name, agent, level in (("feed a", first, 1), ("feed b", second, 1), ("pdu", other, 2))
    }
    fencer.equip(3, devices)
    first.power, other.power = PowerState.OFF, PowerState.OFF
    assert await fencer.power_of(3) is PowerState.ON
    second.power = PowerState.UNKNOWN
    assert await fencer.power_of(3) is PowerState.UNKNOWN
    second.power = PowerState.OFF
    assert await fencer.power_of(3) is PowerState.OFF


@pytest.mark.parametrize("nonsense", [None, "fine", True, CheckReport(ok="yes", summary="", power="on")])
async def test_a_check_that_returns_nonsense_has_failed_and_ends_nothing(events, nonsense):
    bmc = Bmc()

    async def check():
        return nonsense

    bmc.check = check
    fencer = Fencer(report=events.append, may_act=always, clock=lambda: 0.0)
    fencer.equip(3, {"bmc": Device(name="bmc", agent=bmc, timeout_s=1)})
    await fencer.check(3, "bmc")
    [told] = events
    assert (told.ok, told.power) == (False, PowerState.UNKNOWN)


async def test_a_device_with_other_settings_is_checked_at_once(events):
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()  # noqa: E731
    fencer = Fencer(report=events.append, may_act=always, clock=clock)

    def equip(fingerprint: str) -> None:
        fencer.equip(3, {"bmc": Device(name="bmc", agent=Bmc(), timeout_s=4.0, fingerprint=fingerprint)})

    equip("one")
    async with anyio.create_task_group() as group:
        group.start_soon(fencer.run_checks)
        await anyio.sleep(0.7)
        equip("one")
        await anyio.sleep(0.7)
        equip("two")
        await anyio.sleep(0.7)
        group.cancel_scope.cancel()
    assert [event.fingerprint for event in events if isinstance(event, DeviceChecked)] == ["one", "two"]


@pytest.mark.parametrize("begun", [True, False], ids=["under way", "not begun"])
async def test_a_check_that_a_power_off_pushes_aside_says_nothing_and_is_made_up_for_soon(events, monkeypatch, begun):
    """Else a controller that restarts while a host is powered off could not power it off again for ten minutes."""
    monkeypatch.setattr("ha_controller.adapters.fencer.fencer.CHECK_AGAIN_S", 0.5)
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()  # noqa: E731
    fencer = Fencer(report=events.append, may_act=always, clock=clock)
    bmc = SlowToCheck()
    fencer.equip(3, {"bmc": Device(name="bmc", agent=bmc, timeout_s=4.0)})
    checks = lambda: [event for event in events if isinstance(event, DeviceChecked)]  # noqa: E731
    async with anyio.create_task_group() as group:
        if begun:
            group.start_soon(fencer.run_checks)
            await bmc.asked.wait()
        bmc.slow = False
        order = Fence(host=3, incident=1, attempt=1, devices=("bmc",), send=False, not_after=clock() + 5)
        group.start_soon(fencer.fence, order)
        await anyio.lowlevel.checkpoint()
        if not begun:
            group.start_soon(fencer.run_checks)
        with anyio.fail_after(8):
            while not any(isinstance(event, FenceReported) for event in events):
                assert checks() == []
                await anyio.sleep(0.05)
            while not checks():
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert [check.ok for check in checks()] == [True]


class SlowToCheck(Bmc):
    def __init__(self) -> None:
        super().__init__()
        self.power, self.slow, self.asked = PowerState.OFF, True, anyio.Event()

    async def check(self) -> CheckReport:
        self.asked.set()
        while self.slow:
            await anyio.sleep(0.05)
        return await super().check()


class Outlet(Bmc):
    capabilities = Capability.READ_POWER | Capability.POWER_ON

    async def power_on(self) -> None:
        self.power = PowerState.ON


@pytest.mark.parametrize(
    ("agent", "leads", "late", "failed", "power"),
    [
        (Outlet, True, False, (), PowerState.ON),
        (Outlet, False, False, (("bmc", "not done: we no longer lead"),), PowerState.OFF),
        (Outlet, True, True, (("bmc", "not done: it is too late"),), PowerState.OFF),
        (Bmc, True, False, (("bmc", "it cannot switch on: do that by hand"),), PowerState.OFF),
    ],
)
async def test_a_host_is_powered_on_again_only_with_the_lead_and_in_time(events, agent, leads, late, failed, power):
    async def may_act(term: int | None) -> bool:
        return leads and term == 7

    fencer = Fencer(report=events.append, may_act=may_act, clock=lambda: 10.0)
    bmc = agent()
    bmc.power = PowerState.OFF
    fencer.equip(3, {"bmc": Device(name="bmc", agent=bmc, timeout_s=1.0)})
    await fencer.power_on(PowerOn(term=7, host=3, incident=1, devices=("bmc",), not_after=9.0 if late else 13.0))
    assert events == [PoweredOn(host=3, incident=1, failed=failed)]
    assert bmc.power is power
