"""The icmp and ssh channels against real hosts: network namespaces with kernels that answer, sshd, nft and routers.

One namespace is the controller's, with a bridge; every host is a namespace on that bridge. The test process enters the
controller's namespace for as long as it probes, so nothing outside of them is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ha_controller.adapters.prober.icmp import IcmpConfig, IcmpProbe
from ha_controller.adapters.prober.tcp import SshConfig, SshProbe
from ha_controller.plugin import OnedView, PowerState, Probe, ProbeContext, ProbeUnavailable, Reading, Signal, Target

pytestmark = pytest.mark.peer

_CLONE_NEWNET = 0x40000000
_GROUP_RANGE = Path("/proc/sys/net/ipv4/ping_group_range")


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Enter a network namespace; sockets made there stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", namespace).open() as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0


def allow_ping(groups: str) -> None:
    """Set who may use unprivileged ping sockets in the namespace that we are in."""
    _GROUP_RANGE.write_text(groups)


def without_rights(action: Callable[[], object]) -> str:
    """What `ProbeUnavailable` says when an action runs as nobody: in a child, for the tests need their own rights."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            action()
        except ProbeUnavailable as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


class Cloud:
    """A controller's namespace and hosts on one bridge, 10.61.0.0/24 and fd61::/64."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"hac{os.getpid()}"
        self.controller = f"{self.prefix}-c"
        self._namespaces: list[str] = []
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}

    def build(self) -> None:
        """Make the controller's namespace and the bridge."""
        self._add(self.controller)
        run("ip", "-n", self.controller, "link", "add", "lab", "type", "bridge")
        self._configure(self.controller, "lab", 254)

    def host(self, number: int) -> Target:
        """Switch a new host on."""
        namespace = self._add(self.namespace(number))
        far = f"eth{number}"
        run("ip", "-n", self.controller, "link", "add", far, "type", "veth", "peer", "eth0", "netns", namespace)
        run("ip", "-n", self.controller, "link", "set", far, "master", "lab", "up")
        self._configure(namespace, "eth0", number)
        self._wait_for_link(self.controller, far)
        self._wait_for_link(namespace, "eth0")
        return self.target(number)

    def namespace(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    @staticmethod
    def target(number: int, address: str = "") -> Target:
        return Target(host=number, name=f"kvm-{number}", address=address or f"10.61.0.{number}")

    def in_host(self, number: int, *command: str | Path) -> None:
        run("ip", "netns", "exec", self.namespace(number), *command)

    def partition(self, number: int) -> None:
        """Everything that reaches the host is dropped without a word."""
        self.in_host(number, "nft", "add table inet lab; add chain inet lab in { type filter hook input priority 0; "
                             "policy drop; }")  # fmt: skip

    def power_off(self, number: int) -> None:
        run("ip", "-n", self.controller, "link", "set", f"eth{number}", "down")

    def start_sshd(self, number: int) -> None:
        key = self.folder / "host_key"
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [f"HostKey={key}", "PidFile=none", "UsePAM=no", "UseDNS=no"]
        self._daemons[number] = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(number), "/usr/sbin/sshd", "-D", "-f", "/dev/null"]
            + [argument for option in options for argument in ("-o", option)],
            stderr=subprocess.DEVNULL,
        )

    def signal_sshd(self, number: int, what: signal.Signals) -> None:
        self._daemons[number].send_signal(what)
        if what is signal.SIGKILL:
            self._daemons.pop(number).wait(10)

    def down(self) -> None:
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait(10)
        for namespace in self._namespaces:
            run("ip", "netns", "del", namespace)

    def _add(self, namespace: str) -> str:
        run("ip", "netns", "add", namespace)
        self._namespaces.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    @staticmethod
    def _configure(namespace: str, device: str, number: int) -> None:
        run("ip", "-n", namespace, "addr", "add", f"10.61.0.{number}/24", "dev", device)
        run("ip", "-n", namespace, "addr", "add", f"fd61::{number}/64", "dev", device, "nodad")
        run("ip", "-n", namespace, "link", "set", device, "up")

    @staticmethod
    def _wait_for_link(namespace: str, device: str) -> None:
        """The kernel drops what is sent until it has looked at the new link, for which a busy one takes its time."""
        for _ in range(200):
            shown = subprocess.check_output(["ip", "-n", namespace, "-j", "link", "show", device], timeout=20)
            if json.loads(shown)[0]["operstate"] == "UP":
                return
            time.sleep(0.05)
        raise AssertionError(f"{device} of {namespace} does not come up")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    missing = [program for program in ("ip", "nft", "sshd", "ssh-keygen") if shutil.which(program) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "" if os.geteuid() == 0 else "needs root"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    cloud = Cloud(tmp_path)
    try:
        cloud.build()
        with inside(cloud.controller):
            yield cloud
    finally:
        cloud.down()


async def _no_power(host: int) -> PowerState:
    return PowerState.UNKNOWN


def _no_view(host: int) -> OnedView | None:
    return None


CONTEXT = ProbeContext(read_power=_no_power, oned_view=_no_view)


@pytest.fixture(params=["raw", "unprivileged"])
async def icmp(request: pytest.FixtureRequest, cloud: Cloud) -> AsyncIterator[IcmpProbe]:
    """The channel on each of its two kinds of socket."""
    allow_ping("1 0" if request.param == "raw" else "0 0")
    probe = IcmpProbe(IcmpConfig(timeout="400ms"), CONTEXT)
    in_force = await probe.open()
    assert in_force == f"ICMP: {request.param} socket; ICMPv6: {request.param} socket"
    yield probe
    await probe.close()


@pytest.fixture
async def ssh(cloud: Cloud) -> AsyncIterator[SshProbe]:
    probe = SshProbe(SshConfig(timeout="500ms"), CONTEXT)
    await probe.open()
    yield probe
    await probe.close()


async def ask(probe: Probe[Any], *targets: Target) -> list[Reading]:
    """One question to each target, and all the readings."""
    probe.launch(targets, time.monotonic())
    return await collect(probe, len(targets))


async def collect(probe: Probe[Any], wanted: int) -> list[Reading]:
    readings: list[Reading] = []
    async with asyncio.timeout(5):
        while len(readings) < wanted:
            readings += probe.collect(time.monotonic())
            await asyncio.sleep(0.005)
    return sorted(readings, key=lambda reading: reading.host)


async def ask_until(probe: Probe[Any], target: Target, wanted: Callable[[Reading], bool]) -> list[Reading]:
    """Ask again every 100 ms or so, until a reading is as wanted; returns all that came."""
    readings: list[Reading] = []
    async with asyncio.timeout(10):
        for round_number in itertools.count():
            if round_number % 20 == 0:
                probe.launch([target], time.monotonic())
            readings += probe.collect(time.monotonic())
            if any(wanted(reading) for reading in readings):
                break
            await asyncio.sleep(0.005)
    return readings


async def test_live_hosts_answer_and_a_partitioned_one_is_silent(cloud: Cloud, icmp: IcmpProbe) -> None:
    targets = [cloud.host(1), cloud.host(2), cloud.target(3, "fd61::1")]
    assert [reading.signal for reading in await ask(icmp, *targets)] == [Signal.ALIVE] * 3
    cloud.partition(2)
    readings = await ask(icmp, *targets)
    assert [reading.signal for reading in readings] == [Signal.ALIVE, Signal.SILENT, Signal.ALIVE]
    assert readings[1].detail == "timeout"


async def test_a_host_that_was_powered_off_is_silent_and_what_our_own_kernel_says_of_it_is_unknown(
    cloud: Cloud, icmp: IcmpProbe
) -> None:
    target, neighbour = cloud.host(1), cloud.host(2)
    assert (await ask(icmp, target))[0].signal is Signal.ALIVE
    cloud.power_off(1)
    run("ip", "-n", cloud.controller, "neigh", "flush", "dev", "lab")
    readings = await ask_until(icmp, target, lambda reading: reading.detail == "no route to host")
    assert readings[0].signal is Signal.SILENT
    assert {reading.signal for reading in readings} == {Signal.SILENT, Signal.UNKNOWN}
    assert {reading.host for reading in readings} == {1}
    assert [reading.signal for reading in await ask(icmp, neighbour)] == [Signal.ALIVE]


async def test_unreachable_told_by_a_router_is_unknown_and_about_the_right_host(cloud: Cloud, icmp: IcmpProbe) -> None:
    router, neighbour = cloud.host(1), cloud.host(2)
    cloud.in_host(1, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    cloud.in_host(1, "ip", "route", "add", "unreachable", "10.62.0.0/24")
    cloud.in_host(1, "ip", "route", "add", "unreachable", "fd62::/64")
    run("ip", "-n", cloud.controller, "route", "add", "10.62.0.0/24", "via", router.address)
    run("ip", "-n", cloud.controller, "route", "add", "fd62::/64", "via", "fd61::1")
    # the lost ones first: their errors come up while the others are being asked
    readings = await ask(icmp, cloud.target(7, "10.62.0.7"), cloud.target(8, "fd62::8"), router, neighbour)
    assert [(reading.host, reading.signal) for reading in readings] == [
        (1, Signal.ALIVE), (2, Signal.ALIVE), (7, Signal.UNKNOWN), (8, Signal.UNKNOWN),
    ]  # fmt: skip
    assert [reading.detail for reading in readings] == ["", "", "no route to host", "network is unreachable"]


async def test_what_our_own_firewall_or_routes_forbid_is_unknown(cloud: Cloud, icmp: IcmpProbe) -> None:
    target, neighbour = cloud.host(1), cloud.host(2)
    run("nft", "add table ip lab; add chain ip lab out { type filter hook output priority 0; }; "
               f"add rule ip lab out ip daddr {target.address} drop")  # fmt: skip
    readings = await ask(icmp, target, neighbour, cloud.target(9, "10.99.0.1"))
    assert [(reading.signal, reading.detail) for reading in readings] == [
        (Signal.UNKNOWN, "not sent: Operation not permitted"),
        (Signal.ALIVE, ""),
        (Signal.UNKNOWN, "not sent: Network is unreachable"),
    ]


@pytest.mark.parametrize("forgery", ["nothing", "foreign nonce", "wrong number", "another host", "a request"])
async def test_only_our_own_question_coming_back_from_the_host_is_life(
    cloud: Cloud, icmp: IcmpProbe, forgery: str
) -> None:
    target = cloud.host(1)
    cloud.in_host(1, "sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=1")
    cloud.in_host(1, "ip", "addr", "add", "10.61.0.99/24", "dev", "eth0")
    with inside(cloud.namespace(1)):
        host = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with host:
        host.settimeout(2.0)
        host.bind(("10.61.0.99" if forgery == "another host" else "", 0))
        listener = host
        if forgery == "another host":  # bound to that address it hears nothing
            with inside(cloud.namespace(1)):
                listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with listener:
            icmp.launch([target], time.monotonic())
            message, (prober, _) = _received(listener)
            host.sendto(_reply_to(message, forgery), (prober, 0))
        (reading,) = await collect(icmp, 1)
    assert reading.signal is (Signal.ALIVE if forgery == "nothing" else Signal.SILENT)


def _received(listener: socket.socket) -> tuple[bytes, tuple[str, int]]:
    packet, source = listener.recvfrom(512)
    return packet[(packet[0] & 0x0F) * 4 :], source


def _reply_to(message: bytes, forgery: str) -> bytes:
    identifier, sequence, nonce, number = struct.unpack("!HH8sQ", message[4:])
    if forgery == "foreign nonce":
        nonce = bytes(8)
    if forgery == "wrong number":
        number += 1 << 16  # the same sequence number after 65,536 questions
    reply = struct.pack("!BBHHH8sQ", 8 if forgery == "a request" else 0, 0, 0, identifier, sequence, nonce, number)
    total = sum(struct.unpack("!12H", reply))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return reply[:2] + checksum.to_bytes(2, "big") + reply[4:]


async def test_a_reply_that_came_before_a_late_look_is_life(cloud: Cloud, icmp: IcmpProbe) -> None:
    target, neighbour = cloud.host(1), cloud.host(2)
    cloud.in_host(1, "sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=1")
    with inside(cloud.namespace(1)):
        host = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with host:
        host.settimeout(2.0)
        icmp.launch([target], time.monotonic())
        message, prober = _received(host)
        host.sendto(_reply_to(message, "nothing"), prober)
    with pytest.raises(ConnectionRefusedError):  # a round trip over the same bridge: the reply is here by now
        socket.create_connection((neighbour.address, 9), 2.0)
    (reading,) = icmp.collect(time.monotonic() + 60)
    assert reading.signal is Signal.ALIVE


async def test_a_storm_of_dead_neighbours_does_not_silence_a_live_one(cloud: Cloud, icmp: IcmpProbe) -> None:
    """Packets to hosts whose address nobody answers for wait in the kernel and fill the socket's send buffer."""
    target = cloud.host(1)
    dead = [cloud.target(number) for number in range(2, 202)]
    readings: list[Reading] = []
    for _ in range(8):
        readings += await ask(icmp, *dead, target)
    of_target = [reading.signal for reading in readings if reading.host == 1]
    assert of_target == [Signal.ALIVE] * 8
    assert Signal.ALIVE not in {reading.signal for reading in readings if reading.host != 1}


async def test_without_any_right_the_remedy_is_named(cloud: Cloud) -> None:
    """In a child that gives up its rights: the test process needs its own."""
    allow_ping("1 0")
    text = without_rights(lambda: IcmpProbe(IcmpConfig(), CONTEXT).open().send(None))
    assert "net.ipv4.ping_group_range" in text
    assert "sysctl -w" in text
    assert "CAP_NET_RAW" in text


async def test_a_real_sshd_is_alive_gone_hung_and_cut_off(cloud: Cloud, ssh: SshProbe) -> None:
    target = cloud.host(1)
    cloud.start_sshd(1)
    await ask_until(ssh, target, lambda reading: (reading.signal, reading.detail) == (Signal.ALIVE, ""))

    cloud.signal_sshd(1, signal.SIGSTOP)
    (reading,) = await ask(ssh, target)
    assert (reading.signal, reading.detail) == (Signal.SILENT, "connected, no banner")
    cloud.signal_sshd(1, signal.SIGCONT)
    await ask_until(ssh, target, lambda reading: (reading.signal, reading.detail) == (Signal.ALIVE, ""))

    cloud.signal_sshd(1, signal.SIGKILL)
    (reading,) = await ask(ssh, target)
    assert (reading.signal, reading.detail) == (Signal.ALIVE, "connection refused")

    cloud.partition(1)
    (reading,) = await ask(ssh, target)
    assert (reading.signal, reading.detail) == (Signal.SILENT, "timeout")


async def test_no_route_is_unknown_for_ssh(cloud: Cloud, ssh: SshProbe) -> None:
    router = cloud.host(1)
    cloud.in_host(1, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    cloud.in_host(1, "ip", "route", "add", "unreachable", "10.62.0.0/24")
    run("ip", "-n", cloud.controller, "route", "add", "10.62.0.0/24", "via", router.address)
    told_by_router, ours = await ask(ssh, cloud.target(2, "10.62.0.7"), cloud.target(3, "10.99.0.1"))
    assert (told_by_router.signal, told_by_router.detail) == (Signal.UNKNOWN, "no route to host")
    assert (ours.signal, ours.detail) == (Signal.UNKNOWN, "network is unreachable")
