"""One login at one BMC, over asyncio: an own UDP socket per session, no thread, no state shared between BMCs.

Packets go between the socket and `Rmcp`, which knows the protocol. The socket is connected, so only the BMC's address
is heard and a closed port is told at once (ICMP). Waiting is always waiting for one future: it can be cancelled at any
point, and after closing nothing more is sent. There are no deadlines here but the protocol's own (about 10 s); callers
set theirs with a cancel scope.

Closing never waits: it sends one farewell, so that the BMC frees the session, and drops the socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ha_controller.plugin import FenceError, Unreachable, addresses_of
from ha_controller_ipmi.rmcp import Credentials, Rmcp


class IpmiSession(asyncio.DatagramProtocol):
    """An open session. Get one from `open_session`; use it from one task."""

    def __init__(self, credentials: Credentials, bmc_name: str) -> None:
        self._bmc_name = bmc_name
        self._rmcp = Rmcp(credentials, self, bmc_name)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._failure: FenceError | None = None

    @property
    def cipher_suite(self) -> int:
        """Number of the cipher suite in use: 17 (SHA-256) or 3 (SHA-1)."""
        return self._rmcp.cipher_suite

    async def command(self, netfn: int, command: int, data: bytes = b"") -> bytes:
        """Ask one thing and return the answer's data, without the completion code.

        A lost packet is repeated, so the BMC may see the same command more than once.

        Raises:
            AccessDenied, Rejected: the BMC refused; nothing was done.
            FenceError: anything else; the command may or may not have been carried out.
        """
        return await self._ask(lambda: self._rmcp.command(netfn, command, data))

    async def log_in(self, family: socket.AddressFamily, address: Any) -> None:
        """Connect a socket and log in; on any failure, also when cancelled, close again."""
        try:
            await self._connect(family, address)
            await self._ask(self._rmcp.log_in)
        except BaseException:  # however it ended, a cancellation, too: no socket may be left; the error goes on
            self.close()
            raise

    def close(self) -> None:
        """Say farewell, if there was a session, and drop the socket. Returns at once; may be called again."""
        self._rmcp.end()
        self._failure = self._failure or Unreachable(f"{self._bmc_name}: the session is closed")
        if self._transport is not None:
            self._transport.abort()

    async def _connect(self, family: socket.AddressFamily, address: Any) -> None:
        endpoint = socket.socket(family, socket.SOCK_DGRAM)
        try:
            endpoint.setblocking(False)
            endpoint.connect(address)  # of a datagram socket: only notes the address
        except OSError as error:
            endpoint.close()
            raise Unreachable(f"{self._bmc_name}: {error.strerror}") from error
        self._transport, _ = await self._loop.create_datagram_endpoint(lambda: self, sock=endpoint)

    async def _ask(self, start: Callable[[], None]) -> bytes:
        if self._failure is not None:
            raise self._failure
        self._answer = self._loop.create_future()
        try:
            start()
            return await self._answer
        finally:
            self._answer = None

    # --- the side towards the protocol (`rmcp.Wire`) ------------------------------------------------------------------

    def send(self, packet: bytes) -> None:
        """Send one datagram. A full socket buffer drops it, as the network might; the protocol repeats it."""
        if self._transport is not None:
            self._transport.sendto(packet)

    def wake_after(self, delay_s: float | None) -> None:
        """Set or clear the one timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay_s is None else self._loop.call_later(delay_s, self._rmcp.wake)

    def succeed(self, data: bytes) -> None:
        """Hand the answer to whoever waits for it."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(data)

    def fail(self, error: FenceError) -> None:
        """Hand the failure to whoever waits; without anyone waiting, the next question gets it."""
        if self._answer is None:
            self._failure = error
        elif not self._answer.done():
            self._answer.set_exception(error)

    # --- the side towards the socket (`asyncio.DatagramProtocol`) -----------------------------------------------------

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Give the packet to the protocol; the kernel has already checked the sender's address."""
        self._rmcp.feed(data)

    def error_received(self, exc: Exception) -> None:
        """Hear of an ICMP error: nobody listens there, or there is no way."""
        words = "nothing listens on this port" if isinstance(exc, ConnectionRefusedError) else str(exc)
        self.fail(Unreachable(f"{self._bmc_name}: {words}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is gone."""
        self.fail(Unreachable(f"{self._bmc_name}: the socket was closed"))


@asynccontextmanager
async def open_session(address: str, port: int, credentials: Credentials) -> AsyncIterator[IpmiSession]:
    """Log in at a BMC and close the session at the end, also when cancelled or failed.

    `address` is an IPv4 or IPv6 literal or a name. A name with several addresses is tried in the resolver's order.

    Raises:
        Unreachable: no answer, a closed port, or a name without an address.
        AccessDenied: wrong user, password, Kg or privilege.
        FenceError: the BMC has no session free, or answered nonsense.
    """
    session = await _log_in_somewhere(address, port, credentials)
    try:
        yield session
    finally:
        session.close()


async def _log_in_somewhere(address: str, port: int, credentials: Credentials) -> IpmiSession:
    bmc_name = f"BMC {address} port {port}"
    failure = Unreachable(f"{bmc_name}: the name has no address")
    for family, socket_address in await addresses_of(address, port, socket.SOCK_DGRAM):
        session = IpmiSession(credentials, bmc_name)
        try:
            await session.log_in(family, socket_address)
        except Unreachable as error:
            failure = error
        else:
            return session
    raise failure
