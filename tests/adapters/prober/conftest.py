"""What the prober's tests share: a context without a controller, a patient reader, and servers on 127.61.0.0/16."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from ha_controller.plugin import OnedView, PowerState, Probe, ProbeContext, Reading, Target, Unreachable

PORTS = range(16000, 17000)


async def _no_power(host: int) -> PowerState:
    raise Unreachable("there is no fence device in this test")


def _no_view(host: int) -> OnedView | None:
    return None


@pytest.fixture
def make_context() -> Callable[..., ProbeContext]:
    def make(
        read_power: Callable[[int], Awaitable[PowerState]] = _no_power,
        oned_view: Callable[[int], OnedView | None] = _no_view,
    ) -> ProbeContext:
        return ProbeContext(read_power=read_power, oned_view=oned_view)

    return make


@pytest.fixture
def make_target() -> Callable[..., Target]:
    def make(host: int, address: str = "127.61.0.1", *, close_watch: bool = False) -> Target:
        return Target(host=host, name=f"kvm-{host}", address=address, close_watch=close_watch)

    return make


@pytest.fixture
def readings_of() -> Callable[..., Awaitable[list[Reading]]]:
    """Collects from a channel until as many readings have come as are wanted; fails after `within_s`."""

    async def collect(probe: Probe[Any], wanted: int, within_s: float = 5.0) -> list[Reading]:
        readings: list[Reading] = []
        async with asyncio.timeout(within_s):
            while len(readings) < wanted:
                readings += probe.collect(time.monotonic())
                await asyncio.sleep(0.005)
        return sorted(readings, key=lambda reading: reading.host)

    return collect


@pytest.fixture
def ask(readings_of: Callable[..., Awaitable[list[Reading]]]) -> Callable[..., Awaitable[list[Reading]]]:
    """Launches one question per target on an open channel and waits for all the answers."""

    async def launch_and_collect(probe: Probe[Any], targets: Sequence[Target], within_s: float = 5.0) -> list[Reading]:
        probe.launch(targets, time.monotonic())
        return await readings_of(probe, len(targets), within_s)

    return launch_and_collect


@pytest.fixture
def listen() -> Iterator[Callable[..., socket.socket]]:
    """Makes listening sockets; what becomes of their connections is up to the test. Nobody accepts by default, which is
    how a hung host looks: its kernel completes the handshake."""
    with contextlib.ExitStack() as stack:

        def make(address: str = "127.61.0.1", backlog: int = 128) -> socket.socket:
            server = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            for port in PORTS:
                with contextlib.suppress(OSError):
                    server.bind((address, port))
                    server.listen(backlog)
                    return server
            raise OSError("no free port for the test")

        yield make


@pytest.fixture
def free_port(listen: Callable[..., socket.socket]) -> int:
    """A port of 127.61.0.1 on which nobody listens."""
    server = listen()
    port: int = server.getsockname()[1]
    server.close()
    return port
