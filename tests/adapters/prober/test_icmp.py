"""The icmp channel on the loopback network. Silence, forgeries and errors of routers: tests/peers."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from ha_controller.adapters.prober.icmp import IcmpConfig, IcmpProbe
from ha_controller.adapters.prober.ping_socket import ICMP, _library, _Messages
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


@pytest.mark.parametrize("later", [1, 3])
async def test_an_unreachable_finds_its_question_behind_ten_thousands_of_later_ones(
    icmp: IcmpProbe, make_target: MakeTarget, later: int
) -> None:
    """It shows the low 16 bits of the number alone."""
    asked, others = make_target(1, "192.0.2.1"), make_target(2, "192.0.2.2")
    icmp._pending = dict.fromkeys(range(5, later * 65536 + 9), (others, 0.0, 1000000000.0))
    icmp._pending[7] = (asked, 0.5, 1e9)
    icmp._number = later * 65_536 + 8
    icmp._hear_error("192.0.2.1", 7, errno.EHOSTUNREACH)
    assert icmp._readings == [Reading(host=1, signal=Signal.UNKNOWN, sent_at=0.5, detail="no route to host")]
    icmp._hear_error("192.0.2.1", 7, errno.EHOSTUNREACH)
    icmp._hear_error("192.0.2.9", 8, errno.EHOSTUNREACH)
    assert len(icmp._readings) == 1, "of nobody else"


async def test_an_address_with_an_impossible_zone_costs_its_host_and_no_other(
    icmp: IcmpProbe, ask: Ask, make_target: MakeTarget
) -> None:
    bad, good = await ask(icmp, [make_target(1, "fe80::1%99999999999"), make_target(2, "127.61.0.2")])
    assert (bad.signal, good.signal) == (Signal.UNKNOWN, Signal.ALIVE)


async def test_replies_behind_the_error_of_another_host_are_read(
    icmp: IcmpProbe, ask: Ask, make_target: MakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends a call where a socket has an error: fewer packets than asked for, and more are there."""

    def one_at_a_time(messages: _Messages, descriptor: int) -> int:
        return int(_library.recvmmsg(descriptor, messages._start, 1, socket.MSG_DONTWAIT, None))

    monkeypatch.setattr(_Messages, "receive", one_at_a_time)
    readings = await ask(icmp, [make_target(host, f"127.61.1.{host}") for host in range(1, 11)])
    assert {reading.signal for reading in readings} == {Signal.ALIVE}
    family = icmp._sockets[ICMP]
    family.send([family.name_of(f"127.61.1.{host}") for host in range(1, 11)], 500)
    await anyio.sleep(0.2)
    assert len(list(family.replies())) == 10, "in one look"
