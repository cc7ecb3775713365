"""Doors to hosts: what they print over SSH, write on the datastore, and send by datagram.

Nonsense is never life where the login is not life itself, and never silence.
"""

from __future__ import annotations

import json
import math
import struct
from types import SimpleNamespace
from unittest import mock

import ha_controller_watchdog.agent as watchdog

from ha_controller.adapters.domains import END, NoList, domains_in
from ha_controller.adapters.host_identity import identity_of
from ha_controller.adapters.prober import kdump
from ha_controller.adapters.prober.boot_id import BootIdProbe
from ha_controller.adapters.prober.libvirt import judged
from ha_controller.adapters.prober.neighbours import NeighboursProbe, _parsed
from ha_controller.adapters.prober.ping_socket import (
    _PACKET_MAX,
    _REQUEST,
    BATCH,
    ICMP,
    ICMPV6,
    Family,
    PingSocket,
    _Messages,
)
from ha_controller.adapters.prober.storage import StorageConfig, StorageProbe
from ha_controller.plugin import FenceError, PowerState, ProbeContext, Reading, Signal
from ha_controller.plugin import Target as Host

from .devices import _runner
from .target import Feed, Target, demand, is_one_line, joined

HOST = Host(host=7, name="kvm-07", address="192.0.2.7")
BOOT = "0f3c2f5e-8f0e-4a53-9d6b-0d3b8f6c1a2b"


def _judge(reading: Reading, now: float) -> None:
    demand(reading.host == HOST.host, "a reading of another host")
    demand(math.isfinite(reading.sent_at) and reading.sent_at <= now, "a reading from the future")
    demand(math.isfinite(reading.booted_at) and reading.booted_at <= now, "a boot in the future")
    demand(is_one_line(reading.detail) and len(reading.detail) < 400, "a detail that cannot be shown")
    demand(reading.boot_id == "" or len(reading.boot_id) == 36, "a boot id that is none")


def printed(data: bytes) -> None:
    """Any output of a command on a host."""
    feed = Feed(data)
    door, text = feed.number(5), feed.rest().decode("utf-8", "replace")
    match door:
        case 0:
            try:
                running, others = domains_in(text)
            except NoList:
                return
            demand(END in text, "a list without its end")
            demand(all(0 <= vm < 2**63 for vm in running + others), "a VM that cannot be")
        case 1:
            signal, detail = judged(text)
            demand(is_one_line(detail) and len(detail) < 400, "a detail that cannot be shown")
            demand(signal is Signal.UNKNOWN or "virsh ended" in text, "virsh was not run")
        case 2:
            identity = identity_of(text[:4096])
            if identity is not None:
                demand(identity.serial is None or is_one_line(identity.serial), "a serial that cannot be shown")
                demand(len(identity.serial or "") <= 100, "a serial without an end")
        case 3:
            probe = object.__new__(BootIdProbe)

            async def told(target: Host, command: str) -> str:
                return text

            probe.run = told  # type: ignore[method-assign, assignment]
            reading = _runner().run(probe.ask(HOST, 1000.0))
            _judge(reading, 1000.0)
        case _:
            heard = _parsed(text)
            demand(all(len(address) < 80 for address in heard), "an address without an end")
            probe = object.__new__(NeighboursProbe)
            probe.config = SimpleNamespace(need=2)  # type: ignore[assignment]
            told = {name: (Signal.UNKNOWN, text[:50].replace("\x1b", "")) for name in ("a", "b")}
            demand(probe._judge(HOST, 1.0, told).signal is Signal.UNKNOWN, "two that cannot tell do")


def heartbeats(data: bytes) -> None:
    """What lies in a host's file, look by look, a second apart: life only where a counter moved."""
    probe = StorageProbe(StorageConfig(folder="/nowhere"), ProbeContext(read_power=None, oned_view=None))  # type: ignore[arg-type]
    texts = [part.decode("utf-8", "replace") for part in Feed(data).parts()[:20]]
    before: list[str] = []
    for second, text in enumerate(texts):
        reading = probe._judge(HOST, 1000.0 + second, text)
        _judge(reading, 1000.0 + second)
        demand(reading.signal is not Signal.ALIVE or any(each != text for each in before), "life from one look")
        demand(reading.signal is not Signal.SILENT or len(before) >= 5, "silence before its time")
        before.append(text)


def leases(data: bytes) -> None:
    """The same file, read by the watchdog agent: OFF only if the lease was seen to move, and then stood still."""
    feed = Feed(data)
    config = watchdog.WatchdogConfig(folder="/nowhere", lease_name=HOST.name)
    agent = watchdog.WatchdogAgent(config)
    step_s = 1.0 + feed.number(60)
    texts = [part.decode("utf-8", "replace") for part in feed.parts()[:20]]
    clock = 1000.0
    seen: list[str] = []
    for text in texts:

        async def read(path: object, text: str = text) -> str:
            return text

        agent._text = read  # type: ignore[method-assign, assignment]
        with mock.patch.object(watchdog.time, "monotonic", lambda now=clock: now):
            try:
                power = _runner().run(agent._look())
            except FenceError as error:
                power = None
                demand(is_one_line(str(error)), "an error that cannot be shown")
        if power is not None:
            words = json.loads(text)
            demand(
                0 <= words["timeout_s"] <= config.watchdog_s and 0 <= words["lease_s"] <= config.lease_s, "odd times"
            )
        if power is PowerState.OFF:
            demand(len(set(seen)) >= 2 and clock - 1000.0 >= config.lease_s, "OFF of a lease that was not seen moving")
        seen.append(text)
        clock += step_s


class _Listener:
    """A socket that has what the input says, and then nothing."""

    def __init__(self, datagrams: list[tuple[bytes, str]]) -> None:
        self._datagrams = datagrams

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self._datagrams:
            raise BlockingIOError
        message, source = self._datagrams.pop(0)
        return message[:size], (source, 7410)


def datagrams(data: bytes) -> None:
    """Datagrams at the channel kdump and at the socket of pings: only the very message is a dump, no noise is life."""
    feed = Feed(data)
    source = ("192.0.2.7", "192.0.2.8", "fe80::1%eth0", "::ffff:192.0.2.7", "0.0.0.0")[feed.number(5)]
    parts = feed.parts(b"\xff\xff")
    probe = kdump.KdumpProbe(kdump.KdumpConfig(), ProbeContext(read_power=None, oned_view=None))  # type: ignore[arg-type]
    probe._sockets = [_Listener([(part, source) for part in parts])]  # type: ignore[list-item]
    probe.launch([HOST], 5.0)
    [reading] = probe.collect(6.0)
    _judge(reading, 6.0)
    if reading.signal is Signal.DUMPING:
        demand(any(part[:64] in kdump.MESSAGES for part in parts), "a dump that nobody told of")
    for family, has_ip_header in ((ICMP, True), (ICMP, False), (ICMPV6, False)):
        for _, number in _heard(family, parts[:BATCH], has_ip_header):
            demand(0 <= number < 2**64 and any(b"nonce-of" in part for part in parts), "an answer to nobody's question")


def _heard(family: Family, packets: list[bytes], has_ip_header: bool) -> list[tuple[bytes, int]]:
    """What is made of packets that lie where the kernel has put them."""
    ping = object.__new__(PingSocket)
    ping._family, ping._nonce, ping._in = family, b"nonce-of", _Messages(family.name, _PACKET_MAX)
    for index, packet in enumerate(packets):
        there = packet[:_PACKET_MAX]
        ping._in.packets[index * _PACKET_MAX : index * _PACKET_MAX + len(there)] = there
        ping._in._messages[index].length = len(there)
    return list(ping._with_ip_header(len(packets)) if has_ip_header else ping._plain(len(packets)))


def _beat(counter: int, **more: object) -> str:
    words = {
        "host": HOST.name, "boot_id": BOOT, "run_id": "12ab", "lease_s": 10, "counter": counter, "up_s": 12.5,
        "armed": True, "leaving": False, "identity": "iTCO_wdt", "timeout_s": 15,
    }  # fmt: skip
    return json.dumps({**words, **more})


_VIRSH = (
    f" Id   Name     State\n------\n 1    one-7    running\n -    one-8    shut off\n 3    one-9    paused\n{END}\n"
)
_ECHO = _REQUEST.pack(0, 0, 0, 1, 2, b"nonce-of", 77)

TARGETS = (
    Target(
        name="host-output",
        run=printed,
        seeds=(
            b"\x00" + _VIRSH.encode(),
            b"\x01one-7\none-8\n\nvirsh ended 0\n",
            b"\x01error: failed to connect socket to '/x': No such file or directory\nvirsh ended 1",
            b"\x024C4C4544-0000-4000-8000-000000000001\n\nSER123\n",
            b"\x03" + BOOT.encode() + b"\n123.45 99.00\n",
            b"\x04192.0.2.7 alive\n2001:db8::1 silent\nfe80::1%eth0 unknown\n",
        ),
    ),
    Target(
        name="heartbeats",
        run=heartbeats,
        seeds=(
            joined(*(_beat(number) for number in (1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3))),
            joined(_beat(1), _beat(1, run_id="2"), _beat(2, run_id="2", armed=False, leaving=True), "- No such file"),
        ),
    ),
    Target(
        name="leases",
        run=leases,
        seeds=(
            b"\x00" + joined(*(_beat(number) for number in (1, 2, 3, 3, 3))),
            b"\x3c" + joined(*(_beat(number) for number in (1, 2, 3, 3, 3))),
            b"\x01" + joined(_beat(1, armed=False), _beat(2, identity="Software Watchdog"), _beat(3, timeout_s=99)),
        ),
    ),
    Target(
        name="datagrams",
        run=datagrams,
        seeds=(
            b"\x00" + struct.pack("<II", kdump.MAGIC, kdump.VERSION),
            b"\x01" + struct.pack(">II", kdump.MAGIC, kdump.VERSION) + b"\xff\xff" + _ECHO,
            b"\x02" + b"\x45" + bytes(19) + _ECHO,
        ),
    ),
)
