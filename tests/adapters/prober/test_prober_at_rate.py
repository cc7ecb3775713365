"""The whole prober at rate, in real time: 2,000 hosts on the loopback network, and a loop that really stands still."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from ha_controller.adapters.prober import Prober
from ha_controller.adapters.prober.builtin import ha_controller_probes
from ha_controller.adapters.prober.icmp import IcmpConfig, IcmpProbe
from ha_controller.adapters.prober.tcp import SshConfig, SshProbe
from ha_controller.plugin import Domain, ProbeContext, ProbeUnavailable, Reading, Signal, Target

# Greets like sshd on every address of 127.61.0.0/16; a process of its own, so that it takes no turn in our loop.
_SERVER = """
import contextlib, socket, sys
server = socket.socket()
for port in range(16100, 17000):
    with contextlib.suppress(OSError):
        server.bind(("0.0.0.0", port))
        break
server.listen(4096)
print(port, flush=True)
while True:
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"SSH-2.0-test\\r\\n")
        connection.shutdown(socket.SHUT_WR)
"""


@pytest.fixture
def ssh_port() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def targets(count: int) -> list[Target]:
    return [
        Target(host=host, name=f"kvm-{host}", address=f"127.61.{host // 250}.{host % 250 + 1}") for host in range(count)
    ]


async def run_for(prober: Prober, duration_s: float, *, stand_still_s: float = 0.0) -> None:
    task = asyncio.ensure_future(prober.run())
    await asyncio.sleep(duration_s / 2)
    if stand_still_s:
        time.sleep(stand_still_s)  # noqa: ASYNC251  # blocking the loop is the point
    await asyncio.sleep(duration_s / 2)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_two_thousand_healthy_hosts_are_never_silent(
    make_context: Callable[..., ProbeContext], ssh_port: int
) -> None:
    icmp = IcmpProbe(IcmpConfig(), make_context())
    try:
        await icmp.open()
    except ProbeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    await icmp.close()
    told: Counter[tuple[str, Signal]] = Counter()
    heard: set[tuple[str, int]] = set()

    def sink(name: str, domain: Domain, readings: list[Reading]) -> None:
        told.update((name, reading.signal) for reading in readings)
        heard.update((name, reading.host) for reading in readings if reading.signal is Signal.ALIVE)

    channels = {"icmp": icmp, "ssh": SshProbe(SshConfig(port=ssh_port), make_context())}
    prober = Prober(channels, interval_s=1.0, confirm_interval_s=0.2, clock=time.monotonic, sink=sink)
    prober.set_targets(targets(2000))
    await run_for(prober, 5.0)
    assert heard == {(name, host) for name in channels for host in range(2000)}
    assert {signal for _, signal in told} <= {Signal.ALIVE, Signal.UNKNOWN}
    # A machine that is busy with other things may stall, which costs rounds; but silence it must never be.
    assert told["icmp", Signal.ALIVE] >= 6000
    assert told["ssh", Signal.ALIVE] >= 6000


async def test_a_loop_that_stands_still_blames_nobody(
    make_context: Callable[..., ProbeContext], listen: Callable[..., socket.socket]
) -> None:
    told: list[Reading] = []
    mute_port = listen("0.0.0.0").getsockname()[1]
    prober = Prober(
        {"ssh": SshProbe(SshConfig(port=mute_port, timeout="300ms"), make_context())},
        interval_s=1.0,
        confirm_interval_s=0.2,
        clock=time.monotonic,
        sink=lambda name, domain, readings: told.extend(readings),
    )
    prober.set_targets(targets(50))
    started = time.monotonic()
    await run_for(prober, 2.0, stand_still_s=0.7)
    stalled_at = started + 1.0
    overlapping = [reading for reading in told if stalled_at - 0.25 < reading.sent_at < stalled_at + 0.6]
    assert overlapping
    assert {reading.signal for reading in overlapping} == {Signal.UNKNOWN}
    assert all(reading.detail.startswith("controller lag ") for reading in overlapping)


def test_the_built_in_channels_are_registered() -> None:
    assert [probe.kind for probe in ha_controller_probes()] == [
        "icmp",
        "ssh",
        "tcp",
        "bmc",
        "oned",
        "storage",
        "neighbours",
        "boot-id",
        "libvirt",
        "kdump",
    ]
