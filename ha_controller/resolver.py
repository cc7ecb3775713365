"""For plugins that speak HTTP: aiohttp looks names up in anyio's threads, where a hung lookup stops no other one."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from ha_controller.plugin import addresses_of


class Resolver(AbstractResolver):
    """Looks names up as `addresses_of` does, and raises what that raises."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a name."""
        return [
            ResolveResult(
                hostname=host, host=str(sockaddr[0]), port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, sockaddr in await addresses_of(host, port)
        ]

    async def close(self) -> None:
        """Nothing is open."""
