"""The echo channel of the embedded cloud against a real UDP socket."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from ha_controller.plugin import ProbeContext, Reading, Signal, Target
from ha_controller.sim.echo import EchoConfig, EchoProbe, ha_controller_probes

ReadingsOf = Callable[..., Awaitable[list[Reading]]]
MakeTarget = Callable[..., Target]


@pytest.fixture
def host() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.61.0.1", 16990))
        host.settimeout(2.0)
        yield host


@pytest.fixture
async def echo(make_context: Callable[..., ProbeContext]) -> AsyncIterator[EchoProbe]:
    probe = EchoProbe(EchoConfig(port=16990, timeout="200ms"), make_context())
    await probe.open()
    yield probe
    await probe.close()


async def test_a_datagram_that_comes_back_is_life(
    echo: EchoProbe, host: socket.socket, make_target: MakeTarget, readings_of: ReadingsOf
) -> None:
    asked_at = time.monotonic()
    echo.launch([make_target(1)], asked_at)
    host.sendto(*host.recvfrom(64))
    assert await readings_of(echo, 1) == [Reading(host=1, signal=Signal.ALIVE, sent_at=asked_at)]


async def test_a_black_hole_ends_at_the_deadline(
    echo: EchoProbe, host: socket.socket, make_target: MakeTarget, readings_of: ReadingsOf
) -> None:
    started = time.monotonic()
    echo.launch([make_target(1)], started)
    (reading,) = await readings_of(echo, 1)
    assert (reading.signal, reading.detail) == (Signal.SILENT, "timeout")
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("forgery", ["foreign nonce", "wrong number", "too short", "another host"])
async def test_a_datagram_that_is_not_ours_proves_nothing(
    echo: EchoProbe, host: socket.socket, make_target: MakeTarget, readings_of: ReadingsOf, forgery: str
) -> None:
    echo.launch([make_target(1)], time.monotonic())
    question, prober = host.recvfrom(64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.61.0.2", 16990))
        sender = other if forgery == "another host" else host
        changed = {
            "foreign nonce": bytes(8) + question[8:],
            "wrong number": question[:8] + bytes([255]) + question[9:],
            "too short": question[:-1],
        }
        sender.sendto(changed.get(forgery, question), prober)
    (reading,) = await readings_of(echo, 1)
    assert reading.signal is Signal.SILENT


def test_the_module_registers_its_channel() -> None:
    assert [probe.kind for probe in ha_controller_probes()] == ["echo"]
