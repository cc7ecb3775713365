"""A zone of three embedded oneds for tests, at a tenth of oned's times, asked without our own client."""

from __future__ import annotations

import asyncio
import xmlrpc.client
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from lxml import etree

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_zone import OnedZone

ELECTION_S, BROADCAST_S, FORWARD_S = 0.5, 0.05, 1.0


class Zone:
    """Three front-ends, asked without our own client."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        assert cloud.zone is not None
        self.cloud, self.zone, self.session = cloud, cloud.zone, cloud.session

    async def ask(self, server: int, method: str, *arguments: Any, session: str = "", viewer: int = 0) -> list[Any]:
        endpoint = self.zone.endpoints(viewer)[server]
        port = int(endpoint.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = xmlrpc.client.dumps((session or self.session, *arguments), method).encode()
        writer.write(b"POST /RPC2 HTTP/1.1\r\nHost: oned\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        try:
            answer = (await reader.read()).partition(b"\r\n\r\n")[2]
        finally:
            writer.close()
        root = etree.fromstring(answer)
        return [value[0].text or "" for value in root.findall(".//data/value")]

    async def status(self, server: int, viewer: int = 0) -> dict[str, int]:
        answer = await self.ask(server, "one.zone.raftstatus", viewer=viewer)
        return {element.tag: int(element.text) for element in etree.fromstring(answer[1])}

    async def note(self, server: int, text: str) -> list[Any]:
        return await self.ask(server, "one.host.update", 0, f'HA_NOTE="{text}"', 1)

    async def noted(self, server: int) -> str | None:
        return str(etree.fromstring((await self.ask(server, "one.host.info", 0, False))[1]).findtext(".//HA_NOTE"))

    async def until(self, what: Callable[[], bool], within_s: float = 5.0) -> None:
        with anyio.fail_after(within_s):
            while not what():
                await anyio.sleep(0.01)

    async def elected(self, but_not: int | None = None) -> int:
        await self.until(lambda: self.zone.leader is not None and self.zone.leader != but_not)
        await anyio.sleep(2 * BROADCAST_S)  # it replicates its log first
        leader = self.zone.leader
        assert leader is not None
        return leader

    async def took_in(self, server: int, writes: int = 1) -> None:
        """Wait until a server has so many writes in its log that it cannot commit. A connection may carry none yet."""
        log_of = self.zone.raft.servers[server]
        await self.until(lambda: len(log_of.log) - log_of.commit == writes)

    def others(self, server: int) -> list[int]:
        return [each for each in range(3) if each != server]


@asynccontextmanager
async def zone_of_three() -> AsyncIterator[Zone]:
    """Nobody leads yet."""
    made = partial(OnedZone, election_s=ELECTION_S, broadcast_s=BROADCAST_S, forward_s=FORWARD_S)
    async with EmbeddedCloud(hosts=2, vms_per_host=1, zone=made) as cloud:
        yield Zone(cloud)
