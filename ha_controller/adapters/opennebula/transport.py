"""Carries a request to oned over HTTP, and its answer back while it arrives.

It must never follow a redirect, keep a connection (oned closes each after one reply, observed on 7.4.0) or wait by
itself: the deadline is the client's. Bodies come from and go to `client.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import aiohttp

from ha_controller.adapters.opennebula.xmlrpc import BadReply, NoAnswer

CHUNK = 16_384  #: bytes between two yields to the loop: about a millisecond of parsing, eight on a slow machine


class Transport(Protocol):
    """The way to one oned."""

    async def open(self) -> None:
        """Be ready. Connections are opened by the calls."""

    async def close(self) -> None:
        """Close all connections."""

    async def exchange(self, method: str, body: bytes, take: Callable[[bytes], None]) -> None:
        """Send a request document and hand the pieces of the answer to `take`, while they arrive.

        Raises:
            NoAnswer, BadReply: there is none, or it is not from oned.
            What `take` raises.
        """


class HttpTransport:
    """Over TCP."""

    def __init__(self, endpoint: str) -> None:
        """No I/O here."""
        self._endpoint = endpoint
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Be ready."""
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Content-Type": "text/xml", "Accept-Encoding": "identity", "User-Agent": "ha-controller"},
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def exchange(self, method: str, body: bytes, take: Callable[[bytes], None]) -> None:
        """One POST."""
        if self._http is None:
            raise NoAnswer(method, "the client is not open", sent=False)
        try:
            async with self._http.post(self._endpoint, data=body, allow_redirects=False) as response:
                if response.status >= 500:
                    raise NoAnswer(method, f"HTTP {response.status} from something between us and oned")
                if response.status != 200:  # oned says 200 always, also with errors
                    raise BadReply(method, f"HTTP {response.status}: this is not oned, or not its path /RPC2")
                async for chunk in response.content.iter_chunked(CHUNK):
                    take(chunk)
                    await asyncio.sleep(0)
        except aiohttp.ClientConnectorError as error:
            raise NoAnswer(method, f"cannot connect: {error}", sent=False) from error
        except TimeoutError:
            raise  # the client's own deadline
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(method, f"the connection failed: {type(error).__name__}") from error
