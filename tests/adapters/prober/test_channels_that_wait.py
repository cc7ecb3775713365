"""`AsyncProbe` and the bmc channel on it: deadlines, places and errors, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ha_controller.adapters.prober.bmc import BmcConfig, BmcProbe
from ha_controller.adapters.prober.channel import AsyncProbe
from ha_controller.plugin import AccessDenied, PowerState, ProbeContext, Reading, Signal, Target

pytestmark = pytest.mark.looptime

MakeContext = Callable[..., ProbeContext]
MakeTarget = Callable[..., Target]


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def served(probe: AsyncProbe[Any]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(probe.serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


def bmc(make_context: MakeContext, read_power: Callable[[int], Awaitable[PowerState]], **config: float) -> BmcProbe:
    return BmcProbe(BmcConfig.model_validate(config), make_context(read_power=read_power))


async def collected(probe: AsyncProbe[Any], after_s: float) -> list[Reading]:
    await asyncio.sleep(after_s)
    return probe.collect(now())


@pytest.mark.parametrize(
    ("power", "signal", "detail"),
    [
        (PowerState.OFF, Signal.OFF, "chassis off"),
        (PowerState.ON, Signal.ON, "chassis on"),
        (PowerState.UNKNOWN, Signal.UNKNOWN, "the device cannot tell"),
    ],
)
async def test_only_off_says_anything(
    make_context: MakeContext, make_target: MakeTarget, power: PowerState, signal: Signal, detail: str
) -> None:
    async def read_power(host: int) -> PowerState:
        await asyncio.sleep(0.3)
        return power

    probe = bmc(make_context, read_power)
    async with served(probe):
        asked_at = now()
        probe.launch([make_target(7)], asked_at)
        readings = await collected(probe, 0.4)
    assert readings == [Reading(host=7, signal=signal, sent_at=asked_at, detail=detail)]


async def test_an_error_of_the_device_is_unknown_with_its_text(
    make_context: MakeContext, make_target: MakeTarget
) -> None:
    async def read_power(host: int) -> PowerState:
        raise AccessDenied("the BMC of kvm-7 refuses the login")

    probe = bmc(make_context, read_power)
    async with served(probe):
        probe.launch([make_target(7)], now())
        (reading,) = await collected(probe, 0.1)
    assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "the BMC of kvm-7 refuses the login")


async def test_a_bug_is_unknown_and_logged_and_the_channel_goes_on(
    make_context: MakeContext, make_target: MakeTarget, logged: list[dict[str, object]]
) -> None:
    async def read_power(host: int) -> PowerState:
        if host == 1:
            raise KeyError(host)
        return PowerState.OFF

    probe = bmc(make_context, read_power, at_once=1)
    async with served(probe):
        probe.launch([make_target(1), make_target(2)], now())
        readings = await collected(probe, 0.1)
    assert [reading.signal for reading in readings] == [Signal.UNKNOWN, Signal.OFF]
    assert logged[0]["exc_info"]


async def test_a_hung_device_ends_at_its_deadline_and_delays_nobody_else(
    make_context: MakeContext, make_target: MakeTarget
) -> None:
    async def read_power(host: int) -> PowerState:
        await asyncio.sleep(3600 if host == 1 else 0.1)
        return PowerState.OFF

    probe = bmc(make_context, read_power, timeout="5000ms", at_once=2)
    async with served(probe):
        probe.launch([make_target(host) for host in range(1, 11)], now())
        first = await collected(probe, 1.0)
        rest = await collected(probe, 4.1)
    assert {reading.host for reading in first} == set(range(2, 11))
    assert [(reading.host, reading.signal, reading.detail) for reading in rest] == [
        (1, Signal.UNKNOWN, "no answer within 5 s")
    ]


async def test_one_question_per_host_and_so_many_at_once(make_context: MakeContext, make_target: MakeTarget) -> None:
    under_way: list[int] = []
    most = 0

    async def read_power(host: int) -> PowerState:
        nonlocal most
        assert host not in under_way
        under_way.append(host)
        most = max(most, len(under_way))
        await asyncio.sleep(0.5)
        under_way.remove(host)
        return PowerState.OFF

    probe = bmc(make_context, read_power, at_once=3)
    async with served(probe):
        for _ in range(4):
            probe.launch([make_target(host) for host in range(6)], now())
            await asyncio.sleep(0.1)
        readings = await collected(probe, 3.0)
    assert sorted(reading.host for reading in readings) == list(range(6))
    assert {reading.signal for reading in readings} == {Signal.OFF}
    assert most == 3


async def test_a_question_counts_from_when_it_left_the_queue(
    make_context: MakeContext, make_target: MakeTarget
) -> None:
    async def read_power(host: int) -> PowerState:
        await asyncio.sleep(0.5)
        return PowerState.OFF

    probe = bmc(make_context, read_power, at_once=1)
    async with served(probe):
        asked_at = 5000.0  # the controller's clock need not be the loop's
        probe.launch([make_target(1), make_target(2)], asked_at)
        readings = await collected(probe, 1.1)
    assert [reading.sent_at - asked_at for reading in readings] == pytest.approx([0.0, 0.5], abs=0.01)


async def test_suspects_do_not_wait_behind_others_that_hang(make_context: MakeContext, make_target: MakeTarget) -> None:
    async def read_power(host: int) -> PowerState:
        await asyncio.sleep(0.1 if host == 9 else 3600)
        return PowerState.OFF

    probe = bmc(make_context, read_power, at_once=1)
    async with served(probe):
        probe.launch([make_target(host) for host in range(10)], now())
        await asyncio.sleep(1)
        probe.launch([make_target(9, close_watch=True)], now())
        (reading,) = await collected(probe, 0.2)
        rest = await collected(probe, 120)
    assert (reading.host, reading.signal) == (9, Signal.OFF)
    assert sorted(each.host for each in rest) == list(range(9))  # it has left the line of the others


class DearProbe(BmcProbe):
    """A channel that costs much."""

    def __init__(self, config: BmcConfig, context: ProbeContext) -> None:
        super().__init__(config, context, per_s=10)


async def test_a_channel_that_costs_much_keeps_its_pace_for_each_line(
    make_context: MakeContext, make_target: MakeTarget
) -> None:
    left: dict[int, float] = {}

    async def read_power(host: int) -> PowerState:
        left[host] = now()
        return PowerState.OFF

    probe = DearProbe(BmcConfig(), make_context(read_power=read_power))
    async with served(probe):
        await asyncio.sleep(5)  # a quiet time is not saved up
        began = now()
        probe.launch([make_target(host) for host in range(10)], now())
        probe.launch([make_target(host, close_watch=True) for host in range(10, 15)], now())
        readings = await collected(probe, 2.0)
    assert len(readings) == 15
    assert [left[host] - began for host in range(10)] == pytest.approx([each / 10 for each in range(10)], abs=0.01)
    assert [left[host] - began for host in range(10, 15)] == pytest.approx([each / 10 for each in range(5)], abs=0.01)
