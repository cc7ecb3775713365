"""The icmp channel on the loopback network. Silence, forgeries and errors of routers: tests/peers."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ha_controller.adapters.prober.icmp import IcmpConfig, IcmpProbe
from ha_controller.plugin import ProbeContext, ProbeUnavailable, Reading, Signal, Target

Ask = Callable[..., Awaitable[list[Reading]]]
MakeTarget = Callable[..., Target]


@pytest.fixture
async def icmp(make_context: Callable[..., ProbeContext]) -> AsyncIterator[IcmpProbe]:
    probe = IcmpProbe(IcmpConfig(), make_context())
    try:
        await probe.open()
    except ProbeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield probe
    await probe.close()


async def test_the_kernel_of_this_machine_answers(icmp: IcmpProbe, ask: Ask, make_target: MakeTarget) -> None:
    before = time.monotonic()
    (reading,) = await ask(icmp, [make_target(1, "127.61.0.1")])
    assert reading.signal is Signal.ALIVE
    assert before <= reading.sent_at < before + 0.5
    assert not icmp.proves_userland


async def test_ipv6_works(icmp: IcmpProbe, ask: Ask, make_target: MakeTarget) -> None:
    (reading,) = await ask(icmp, [make_target(1, "::1")])
    assert reading.signal is Signal.ALIVE


async def test_a_thousand_hosts_in_one_launch_lose_nothing(icmp: IcmpProbe, ask: Ask, make_target: MakeTarget) -> None:
    targets = [make_target(host, f"127.61.{host // 250}.{host % 250 + 1}") for host in range(1000)]
    readings = await ask(icmp, targets)
    assert [reading.host for reading in readings] == list(range(1000))
    assert {reading.signal for reading in readings} == {Signal.ALIVE}


async def test_every_question_is_answered_even_when_one_host_has_several(
    icmp: IcmpProbe, make_target: MakeTarget, readings_of: Ask
) -> None:
    started = time.monotonic()
    for round_number in range(3):
        icmp.launch([make_target(1)], started + round_number / 10)
    readings = await readings_of(icmp, 3)
    assert sorted(reading.sent_at - started for reading in readings) == pytest.approx([0.0, 0.1, 0.2])
    assert icmp.collect(time.monotonic() + 60) == []


async def test_a_reply_that_came_before_a_late_look_is_life(icmp: IcmpProbe, make_target: MakeTarget) -> None:
    icmp.launch([make_target(1)], time.monotonic())
    (reading,) = icmp.collect(time.monotonic() + 60)
    assert reading.signal is Signal.ALIVE


async def test_an_address_that_the_kernel_refuses_is_unknown(
    icmp: IcmpProbe, ask: Ask, make_target: MakeTarget
) -> None:
    readings = await ask(icmp, [make_target(1, "255.255.255.255"), make_target(2, "127.61.0.2")])
    assert readings[0].signal is Signal.UNKNOWN
    assert readings[0].detail.startswith("not sent: ")
    assert readings[1].signal is Signal.ALIVE
