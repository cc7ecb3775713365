"""The HTTP door of an embedded oned: HTTP 200 always, `Connection: close` always, MAX_CONN as on a real oned 7.4.0."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

MAX_CONN = 15
IDLE_S = 15.0
BODY_MAX = 1 << 20


class Door:
    """One port. Several may share the places of one server."""

    def __init__(
        self,
        respond: Callable[[bytes], Awaitable[str]],
        *,
        places: asyncio.Semaphore,
        idle_s: float = IDLE_S,
        opened: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`opened` is waited for before anything is read: a server that stands still accepts, and no more."""
        self._respond, self._opened, self._places, self._idle_s = respond, opened, places, idle_s
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> int:
        """Open the port; returns its number."""
        self._server = await asyncio.start_server(self._connection, address, port)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection takes one of MAX_CONN places until it has its answer or was idle for too long."""
        try:
            if self._opened is not None:
                await self._opened()
            async with self._places:
                async with asyncio.timeout(self._idle_s):
                    body = await self._request(reader)
                answer = (await self._respond(body)).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {len(answer)}\r\n"
                async with asyncio.timeout(self._idle_s):
                    writer.write(head.encode() + b"Connection: close\r\n\r\n" + answer)
                    await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @staticmethod
    async def _request(reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if size > BODY_MAX:
            raise ValueError("too large")
        return await reader.readexactly(size)
