"""Controllers and members of etcd as machines of their own: a network namespace each, on one bridge.

Who is cut off from whom loses every packet, in both directions, by rules in its own namespace. Nothing is refused and
no connection is closed: so a partition looks from inside. Hosts, BMCs and OpenNebula lie behind the bridge.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ha_controller.sim import netns
from ha_controller.sim.oned_door import MAX_CONN, Door
from tests.chaos.cloud import LivingCloud

NEAR = "10.220.0.1"  #: our own end of the bridge: OpenNebula, and the way to everything else
_BRIDGE = "machines"


class Machine:
    """One of them. Programs run there behind the words of `inside`."""

    def __init__(self, name: str, number: int) -> None:
        """The bridge is there already."""
        self.name, self.address = name, f"10.220.0.{number + 10}"
        self.inside = ("ip", "netns", "exec", name)
        netns._run("ip", "netns", "add", name)
        netns._run("ip", "link", "add", f"m{number}", "type", "veth", "peer", "eth0", "netns", name)
        netns._run("ip", "link", "set", f"m{number}", "master", _BRIDGE, "up")
        netns._run("ip", "-n", name, "address", "add", f"{self.address}/24", "dev", "eth0")
        netns._run("ip", "-n", name, "link", "set", "lo", "up")
        netns._run("ip", "-n", name, "link", "set", "eth0", "up")
        netns._run("ip", "-n", name, "route", "add", "default", "via", NEAR)
        self._filter(
            "add table inet cut; add chain inet cut in { type filter hook input priority 0; };"
            "add chain inet cut out { type filter hook output priority 0; }"
        )

    def cut_off(self, others: Iterable[Machine]) -> None:
        """From some of the others, until it is joined again."""
        for other in others:
            self._filter(f"add rule inet cut in ip saddr {other.address} drop")
            self._filter(f"add rule inet cut out ip daddr {other.address} drop")

    def cut_off_port(self, port: int) -> None:
        """From one service at the near end."""
        self._filter(
            f"add rule inet cut in ip saddr {NEAR} tcp sport {port} drop;"
            f"add rule inet cut out ip daddr {NEAR} tcp dport {port} drop"
        )

    def join(self) -> None:
        """Everything is reached again."""
        self._filter("flush table inet cut")

    def _filter(self, rules: str) -> None:
        netns._run("ip", "netns", "exec", self.name, "nft", rules)


def build(names: Iterable[str]) -> list[Machine]:
    """The bridge and its machines; answers of hosts come back to us, who hand them on."""
    netns._run("ip", "link", "add", _BRIDGE, "type", "bridge")
    netns._run("ip", "address", "add", f"{NEAR}/24", "dev", _BRIDGE)
    netns._run("ip", "link", "set", _BRIDGE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    netns._run(
        "nft",
        "add table ip near; add chain ip near post { type nat hook postrouting priority 100; };"
        "add rule ip near post ip saddr 10.220.0.0/24 ip daddr 10.219.0.0/16 masquerade",
    )
    return [Machine(name, number) for number, name in enumerate(names)]


def reach_bmcs(cloud: LivingCloud) -> None:
    """The BMCs answer at addresses that other machines reach; before they are started."""
    for number, host in enumerate(cloud.hosts):
        address = f"10.221.0.{number + 1}"
        netns._run("ip", "address", "add", f"{address}/32", "dev", "lo")
        cloud.hosts[number] = dataclasses.replace(host, bmc_address=address)
        cloud.oned.hosts[host.id].attributes["FENCE_IP"] = address


class Doors:
    """A port of OpenNebula for each controller: so it is known who called, whatever a controller says of itself."""

    def __init__(self, cloud: LivingCloud) -> None:
        """None is open yet."""
        self._cloud, self._places = cloud, asyncio.Semaphore(MAX_CONN)
        self._doors: list[Door] = []
        self.callers: dict[int, str] = {}  #: by the number of the call in `server.calls`

    async def open(self, name: str) -> int:
        """For one controller; returns the port."""
        door = Door(partial(self._respond, name), places=self._places)
        self._doors.append(door)
        return await door.start(NEAR, 0)

    async def _respond(self, name: str, body: bytes) -> str:
        calls = self._cloud.server.calls
        before = len(calls)
        text = self._cloud.server.answer(body)
        self.callers |= dict.fromkeys(range(before, len(calls)), name)
        return text

    def close(self) -> None:
        """Close all."""
        for door in self._doors:
            door.close()
