"""The pretended hosts answer datagrams and connections while they live, and only then."""

from __future__ import annotations

import asyncio
import socket

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault


async def echoed(cloud: EmbeddedCloud, host: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        asker.sendto(b"are you there", (cloud.hosts[host].address, cloud.echo_port))
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(asker, 64), 0.5) == b"are you there"
        except TimeoutError:
            return False


async def test_an_echo_comes_back_from_living_hosts_only() -> None:
    async with EmbeddedCloud(hosts=3, vms_per_host=1) as cloud:
        assert await echoed(cloud, 1)
        cloud.hardware.break_machine(1, Fault.POWER_LOSS)
        assert not await echoed(cloud, 1)
        assert await echoed(cloud, 0)
        cloud.hardware.power(1, True)
        assert await echoed(cloud, 1)
