"""Connections that others open to us: bounded in number, and none waits for ever for a request that does not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

IDLE_MAX_S: Final = 20.0  #: for the head of a request to come, the first one and each after it


def bounded(runner: web.AppRunner, connections_max: int) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol for each connection; one beyond the bound is closed at once."""

    def make() -> asyncio.BaseProtocol:
        server = runner.server
        if server is None or len(server.connections) >= connections_max:
            return _Refusal()
        return server()

    return make


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
