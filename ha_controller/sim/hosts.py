"""The network side of the machines: an SSH banner over TCP and an echo over UDP, on 127.x addresses.

Loopback cannot be silent: the kernel itself refuses connections to closed ports. So a dead machine's sockets stay open
and mute: connections are accepted and get no byte, datagrams get no answer.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

from ha_controller.sim.hardware import Hardware

BANNER = b"SSH-2.0-OpenSSH_9.2p1 embedded\r\n"


class _SshSide(asyncio.Protocol):
    def __init__(self, hardware: Hardware, machine: int) -> None:
        self._hardware, self._machine = hardware, machine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._hardware.answers(self._machine) and isinstance(transport, asyncio.WriteTransport):
            transport.write(BANNER)


class _EchoSide(asyncio.DatagramProtocol):
    def __init__(self, hardware: Hardware, machine: int) -> None:
        self._hardware, self._machine = hardware, machine
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # not asked what it is: before Python 3.12 asyncio's own transport does not call itself a DatagramTransport
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and self._hardware.kernel_answers(self._machine):  # as a ping
            self._transport.sendto(data, addr)


class HostNetwork:
    """The sockets of every machine. One listener and one datagram socket each, no task."""

    def __init__(self, hardware: Hardware, addresses: dict[int, str], *, ssh_port: int, echo_port: int) -> None:
        """Nothing is opened yet."""
        self._hardware, self._addresses = hardware, addresses
        self._ssh_port, self._echo_port = ssh_port, echo_port
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.BaseTransport] = []

    async def start(self) -> None:
        """Open everything."""
        loop = asyncio.get_running_loop()
        for machine, address in self._addresses.items():
            self._servers.append(
                await loop.create_server(partial(_SshSide, self._hardware, machine), address, self._ssh_port)
            )
            transport, _ = await loop.create_datagram_endpoint(
                partial(_EchoSide, self._hardware, machine), local_addr=(address, self._echo_port)
            )
            self._datagrams.append(transport)

    def close(self) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        for transport in self._datagrams:
            transport.close()
