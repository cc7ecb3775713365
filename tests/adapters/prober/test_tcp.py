"""The ssh and tcp channels against real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ha_controller.adapters.prober.tcp import ConnectProbe, SshConfig, SshProbe, TcpConfig, TcpProbe
from ha_controller.plugin import ProbeContext, Reading, Signal, Target

Ask = Callable[..., Awaitable[list[Reading]]]
Listen = Callable[..., socket.socket]
MakeTarget = Callable[..., Target]


@asynccontextmanager
async def opened(probe: ConnectProbe[Any]) -> AsyncIterator[ConnectProbe[Any]]:
    await probe.open()
    try:
        yield probe
    finally:
        await probe.close()


@pytest.fixture
def ssh(make_context: Callable[..., ProbeContext]) -> Callable[..., SshProbe]:
    return lambda port, **config: SshProbe(SshConfig(port=port, **config), make_context())


@pytest.fixture
def tcp(make_context: Callable[..., ProbeContext]) -> Callable[..., TcpProbe]:
    return lambda port, **config: TcpProbe(TcpConfig(port=port, **config), make_context())


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


@asynccontextmanager
async def answering(server: socket.socket, *answers: bytes, pause_s: float = 0.0) -> AsyncIterator[None]:
    """Accepts connections and sends the answers with a pause before each."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for data in answers:
                await asyncio.sleep(pause_s)
                writer.write(data)
                await writer.drain()
            if answers:
                await reader.read()
        writer.close()

    serving = await asyncio.start_server(answer, sock=server)
    try:
        yield
    finally:
        serving.close()
        await serving.wait_closed()


async def test_a_banner_is_life(
    ssh: Callable[..., SshProbe], listen: Listen, ask: Ask, make_target: MakeTarget
) -> None:
    server = listen()
    async with opened(ssh(port_of(server))) as probe, answering(server, b"SSH-2.0-OpenSSH_9.2p1\r\n"):
        before = time.monotonic()
        (reading,) = await ask(probe, [make_target(1)])
    assert (reading.signal, reading.detail) == (Signal.ALIVE, "")
    assert before <= reading.sent_at < before + 0.5


async def test_a_late_banner_within_the_deadline_is_life(
    ssh: Callable[..., SshProbe], listen: Listen, ask: Ask, make_target: MakeTarget
) -> None:
    server = listen()
    async with (
        opened(ssh(port_of(server), timeout="2000ms")) as probe,
        answering(server, b"SSH-2.0-x\r\n", pause_s=0.5),
    ):
        (reading,) = await ask(probe, [make_target(1)])
    assert reading.signal is Signal.ALIVE


async def test_a_banner_after_the_deadline_is_silence_told_once(
    ssh: Callable[..., SshProbe], listen: Listen, ask: Ask, make_target: MakeTarget
) -> None:
    server = listen()
    async with opened(ssh(port_of(server), timeout="200ms")) as probe, answering(server, b"SSH-2.0-x\r\n", pause_s=0.4):
        readings = await ask(probe, [make_target(1)])
        await asyncio.sleep(0.3)  # longer than the banner takes
        readings += probe.collect(time.monotonic())
    assert [(reading.signal, reading.detail) for reading in readings] == [(Signal.SILENT, "connected, no banner")]


async def test_a_mute_server_is_silent_at_the_deadline(
    ssh: Callable[..., SshProbe], listen: Listen, ask: Ask, make_target: MakeTarget
) -> None:
    started = time.monotonic()
    async with opened(ssh(port_of(listen()), timeout="300ms")) as probe:
        (reading,) = await ask(probe, [make_target(1)])
    assert (reading.signal, reading.detail) == (Signal.SILENT, "connected, no banner")
    assert 0.3 <= time.monotonic() - started < 1.5


async def test_a_banner_that_arrived_before_a_late_look_is_life(
    ssh: Callable[..., SshProbe], listen: Listen, make_target: MakeTarget
) -> None:
    server = listen()
    async with opened(ssh(port_of(server), timeout="200ms")) as probe:
        probe.launch([make_target(1)], time.monotonic())
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-x\r\n")
            (reading,) = probe.collect(time.monotonic() + 60)
    assert reading.signal is Signal.ALIVE


@pytest.mark.parametrize("channel", ["ssh", "tcp"])
async def test_a_refused_connection_is_the_life_of_a_kernel(
    channel: str, request: pytest.FixtureRequest, free_port: int, ask: Ask, make_target: MakeTarget
) -> None:
    async with opened(request.getfixturevalue(channel)(free_port)) as probe:
        (reading,) = await ask(probe, [make_target(1)])
    assert (reading.signal, reading.detail) == (Signal.ALIVE, "connection refused")


async def test_a_reset_connection_is_life(
    ssh: Callable[..., SshProbe], listen: Listen, make_target: MakeTarget, readings_of: Ask
) -> None:
    server = listen()
    async with opened(ssh(port_of(server))) as probe:
        probe.launch([make_target(1)], time.monotonic())
        connection, _ = server.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        (reading,) = await readings_of(probe, 1)
    assert (reading.signal, reading.detail) == (Signal.ALIVE, "connection reset")


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        ((), "connection closed without a banner"),
        ((b"Exceeded MaxStartups\r\n",), "answered, but not as SSH"),
    ],
)
async def test_a_server_that_drops_us_is_alive(
    ssh: Callable[..., SshProbe],
    listen: Listen,
    ask: Ask,
    make_target: MakeTarget,
    sent: tuple[bytes, ...],
    detail: str,
) -> None:
    server = listen()
    async with opened(ssh(port_of(server))) as probe, answering(server, *sent):
        (reading,) = await ask(probe, [make_target(1)])
    assert (reading.signal, reading.detail) == (Signal.ALIVE, detail)


async def test_a_host_that_drops_the_handshake_is_silent(
    tcp: Callable[..., TcpProbe], ssh: Callable[..., SshProbe], listen: Listen, ask: Ask, make_target: MakeTarget
) -> None:
    server = listen(backlog=0)
    with socket.create_connection(server.getsockname()):  # fills the queue: further handshakes are dropped
        for channel in (tcp, ssh):
            async with opened(channel(port_of(server), timeout="300ms")) as probe:
                (reading,) = await ask(probe, [make_target(1)])
            assert (reading.signal, reading.detail) == (Signal.SILENT, "timeout")


async def test_a_handshake_is_enough_for_tcp(
    tcp: Callable[..., TcpProbe], listen: Listen, ask: Ask, make_target: MakeTarget
) -> None:
    async with opened(tcp(port_of(listen()))) as probe:
        (reading,) = await ask(probe, [make_target(1)])
    assert (reading.signal, reading.detail) == (Signal.ALIVE, "")
    assert not probe.proves_userland


async def test_ipv6_works(tcp: Callable[..., TcpProbe], listen: Listen, ask: Ask, make_target: MakeTarget) -> None:
    async with opened(tcp(port_of(listen("::1")))) as probe:
        (reading,) = await ask(probe, [make_target(1, "::1")])
    assert reading.signal is Signal.ALIVE


async def test_an_address_without_a_route_is_unknown(
    tcp: Callable[..., TcpProbe], ask: Ask, make_target: MakeTarget
) -> None:
    async with opened(tcp(16000)) as probe:
        (reading,) = await ask(probe, [make_target(1, "255.255.255.255")])
    assert reading.signal is Signal.UNKNOWN
    assert reading.detail in (os.strerror(errno.ENETUNREACH).lower(), os.strerror(errno.EACCES).lower())


async def test_running_out_of_descriptors_is_unknown(
    tcp: Callable[..., TcpProbe], listen: Listen, make_target: MakeTarget
) -> None:
    async with opened(tcp(port_of(listen()))) as probe:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            probe.launch([make_target(1)], time.monotonic())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (reading,) = probe.collect(time.monotonic())
    assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "no socket: Too many open files")


async def test_a_host_has_one_connection_at_a_time(
    ssh: Callable[..., SshProbe], listen: Listen, ask: Ask, make_target: MakeTarget, readings_of: Ask
) -> None:
    async with opened(ssh(port_of(listen()), timeout="200ms")) as probe:
        for _ in range(3):
            probe.launch([make_target(1)], time.monotonic())
        readings = await readings_of(probe, 1)
        readings += await ask(probe, [make_target(1)])
    assert [reading.signal for reading in readings] == [Signal.SILENT, Signal.SILENT]


async def test_suspects_never_wait_behind_other_silent_hosts(
    ssh: Callable[..., SshProbe], listen: Listen, make_target: MakeTarget, readings_of: Ask
) -> None:
    async with opened(ssh(port_of(listen()), timeout="300ms", in_flight_max=2)) as probe:
        started = time.monotonic()
        probe.launch([make_target(host) for host in range(6)], started)
        probe.launch([make_target(5, close_watch=True)], started)
        first = await readings_of(probe, 3)
        rest = await readings_of(probe, 3)
    assert [reading.host for reading in first] == [0, 1, 5], "the suspect has a place of its own"
    assert [reading.host for reading in rest] == [2, 3, 4], "and the others come in the order in which they waited"
    assert all(reading.sent_at >= started + 0.3 for reading in rest[:2]), "a question counts from when it left"


async def test_closing_drops_what_is_under_way(
    ssh: Callable[..., SshProbe], listen: Listen, make_target: MakeTarget
) -> None:
    server = listen()
    probe = ssh(port_of(server))
    async with opened(probe):
        probe.launch([make_target(1)], time.monotonic())
        connection, _ = server.accept()
    with connection:
        connection.settimeout(2.0)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert probe.collect(time.monotonic() + 60) == []
