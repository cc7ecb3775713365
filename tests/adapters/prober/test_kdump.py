"""The kdump channel with real sockets on loopback. The real sender: tests/peers/test_channels.py."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncIterator, Callable

import pytest

from ha_controller.adapters.prober import kdump
from ha_controller.adapters.prober.kdump import KdumpConfig, KdumpProbe
from ha_controller.plugin import ProbeContext, ProbeUnavailable, Reading, Signal, Target

PORT = 17410
LITTLE, BIG = bytes.fromhex("402a301b01000000"), bytes.fromhex("1b302a4000000001")

MakeContext = Callable[..., ProbeContext]
MakeTarget = Callable[..., Target]


@pytest.fixture
async def probe(make_context: MakeContext) -> AsyncIterator[KdumpProbe]:
    made = KdumpProbe(KdumpConfig(port=PORT), make_context())
    await made.open()
    yield made
    await made.close()


def send(message: bytes, source: str = "127.61.0.1") -> None:
    family, to = (socket.AF_INET6, "::1") if ":" in source else (socket.AF_INET, "127.0.0.1")
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(message, (to, PORT))


def ask(probe: KdumpProbe, *targets: Target, now: float = 100.0) -> list[Reading]:
    probe.launch(targets, now)
    return probe.collect(now)


@pytest.mark.parametrize("message", [LITTLE, BIG], ids=["little-endian", "big-endian"])
async def test_a_host_that_says_so_is_dumping_and_no_other_is(
    probe: KdumpProbe, make_target: MakeTarget, message: bytes
) -> None:
    send(message)
    readings = ask(probe, make_target(1), make_target(2, "127.61.0.2"))
    assert [(reading.host, reading.signal) for reading in readings] == [(1, Signal.DUMPING), (2, Signal.UNKNOWN)]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"x" * 8,
        LITTLE[:7],
        LITTLE + b"\0",
        struct.pack("<II", kdump.MAGIC, 2),
        struct.pack("<II", 1, 1),
        BIG[::-1],
    ],
)
async def test_other_messages_say_nothing(probe: KdumpProbe, make_target: MakeTarget, message: bytes) -> None:
    send(message)
    (reading,) = ask(probe, make_target(1))
    assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "no word of a crash dump")


async def test_a_host_is_heard_over_ipv6(probe: KdumpProbe, make_target: MakeTarget) -> None:
    send(LITTLE, "::1")
    (reading,) = ask(probe, make_target(1, "::1"))
    assert reading.signal is Signal.DUMPING


async def test_what_was_heard_before_the_host_was_suspect_is_told_and_dated(
    probe: KdumpProbe, make_target: MakeTarget
) -> None:
    send(LITTLE)
    probe.collect(100.0)
    (reading,) = ask(probe, make_target(1), now=110.0)
    assert (reading.signal, reading.sent_at) == (Signal.DUMPING, 100.0)


async def test_after_three_messages_that_did_not_come_the_dump_is_over(
    probe: KdumpProbe, make_target: MakeTarget
) -> None:
    send(LITTLE)
    probe.collect(100.0)
    (reading,) = ask(probe, make_target(1), now=100.1 + kdump.HEARD_FOR_S)
    assert reading.signal is Signal.UNKNOWN


async def test_a_flood_from_many_addresses_takes_no_memory_and_no_time(
    probe: KdumpProbe, make_target: MakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kdump, "ADDRESSES_MAX", 3)
    for last in range(1, 9):
        send(LITTLE, f"127.61.1.{last}")
    send(LITTLE)
    began = time.monotonic()
    (reading,) = ask(probe, make_target(1))
    assert time.monotonic() - began < 0.1
    assert reading.signal is Signal.DUMPING
    assert list(probe._heard) == ["127.61.1.7", "127.61.1.8", "127.61.0.1"]


async def test_a_port_in_use_is_told_with_a_remedy_and_nothing_is_left_open(
    probe: KdumpProbe, make_context: MakeContext
) -> None:
    second = KdumpProbe(KdumpConfig(port=PORT), make_context())
    with pytest.raises(ProbeUnavailable, match=rf"UDP port {PORT} is in use: end what listens there \(ss -lunp\), or"):
        await second.open()
    assert second._sockets == []
