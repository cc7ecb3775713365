"""Connections that others open to us: bounded in number, and none waits for ever for a request that does not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

IDLE_MAX_S: Final = 20.0  #: for the head of a request to come, the first one and each after it
HANDSHAKE_MAX_S: Final = 5.0  #: of TLS


def bounded(runner: web.AppRunner, connections_max: int) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol for each connection of one socket; one beyond its bound is closed at once.

    Each socket has a bound of its own, so that strangers on one keep nobody from the other. A connection counts from
    the moment it is taken, before TLS has begun.
    """
    loop, alive, begun = asyncio.get_running_loop(), set[_Connection](), dict[_Connection, float]()

    def make() -> asyncio.BaseProtocol:
        too_old = loop.time() - HANDSHAKE_MAX_S - 1.0
        for each in [each for each, at in begun.items() if at < too_old]:  # its handshake has failed
            del begun[each]
        server = runner.server
        if server is None or len(alive) + len(begun) >= connections_max:
            return _Refusal()
        connection = _Connection(server(), alive, begun)
        begun[connection] = loop.time()
        return connection

    return make


class _Connection(asyncio.Protocol):
    """Counts a connection, and hands all on."""

    def __init__(self, inner: asyncio.Protocol, alive: set[_Connection], begun: dict[_Connection, float]) -> None:
        self._inner, self._alive, self._begun = inner, alive, begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._begun.pop(self, None)
        self._alive.add(self)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive.discard(self)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
