"""The `kdump` channel: whether a host says that it has crashed and writes its memory to disk.

fence_kdump_send runs in the kdump kernel and sends a message every 10 s, to UDP port 7410. Nobody is asked: what was
heard is told when the prober looks at a suspect. It says DUMPING or UNKNOWN, and must never say ALIVE or SILENT.

The messages are not authenticated: whoever can send from a host's address can say that it dumps. That delays the
power-off of a host that is silent anyway, up to `detect.dump_max`, and does nothing else.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from ha_controller.adapters.prober.channel import usable_address
from ha_controller.plugin import (
    Domain,
    Probe,
    ProbeConfig,
    ProbeContext,
    ProbeUnavailable,
    Reading,
    Signal,
    Target,
)

MAGIC, VERSION = 0x1B302A40, 1  #: struct fence_kdump_msg, agents/kdump/message.h of ClusterLabs' fence-agents
#: it is sent in the byte order of the host, whichever that is
MESSAGES: Final = frozenset(struct.pack(f"{order}II", MAGIC, VERSION) for order in "<>")
HEARD_FOR_S: Final = 30.0  #: three of its messages
ADDRESSES_MAX: Final = 4096  #: remembered; the oldest is forgotten first
_DRAIN_MAX = 1024  # messages read in one go: a flood must not hold up the loop


class KdumpConfig(ProbeConfig):
    """Settings of `[channel.kdump]`."""

    port: int = Field(default=7410, ge=1, le=65535)  #: fence_kdump_send's -p


class KdumpProbe(Probe[KdumpConfig]):
    """Listens for hosts that dump."""

    kind = "kdump"
    config_model = KdumpConfig
    domain = Domain.SELF
    suspects_only = True
    proves_userland = False

    def __init__(self, config: KdumpConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._sockets: list[socket.socket] = []
        self._heard: dict[str, float] = {}  # address -> when, the newest last
        self._asked: dict[int, tuple[str, float]] = {}

    async def open(self) -> str:
        """Open a socket per address family.

        Raises:
            ProbeUnavailable: the port is in use, or not allowed.
        """
        for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            try:
                self._sockets.append(_listening(family, everywhere, self.config.port))
            except OSError as error:
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and self._sockets:
                    continue  # a machine without IPv6
                await self.close()
                raise ProbeUnavailable(_remedy(error, self.config.port)) from error
        return f"UDP port {self.config.port}"

    async def close(self) -> None:
        """Close the sockets and forget what was heard."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._heard.clear()
        self._asked.clear()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Note who is to be told about."""
        self._asked.update((target.host, (target.address, now)) for target in targets)

    def collect(self, now: float) -> list[Reading]:
        """Read what has come in, and tell about those that were asked about."""
        for each in self._sockets:
            self._hear(each, now)
        asked, self._asked = self._asked, {}
        return [self._reading(host, address, asked_at, now) for host, (address, asked_at) in asked.items()]

    def _reading(self, host: int, address: str, asked_at: float, now: float) -> Reading:
        heard_at = self._heard.get(address)
        if heard_at is None or now - heard_at > HEARD_FOR_S:
            return Reading(host=host, signal=Signal.UNKNOWN, sent_at=asked_at, detail="no word of a crash dump")
        sent_at = min(heard_at, asked_at)
        return Reading(host=host, signal=Signal.DUMPING, sent_at=sent_at, detail="it says that it writes a crash dump")

    def _hear(self, listener: socket.socket, now: float) -> None:
        for _ in range(_DRAIN_MAX):
            try:
                message, source = listener.recvfrom(64)
            except OSError:  # nothing more
                return
            address = usable_address(str(source[0]).partition("%")[0])
            if message in MESSAGES and address:
                self._heard.pop(address, None)
                self._heard[address] = now
                if len(self._heard) > ADDRESSES_MAX:
                    del self._heard[next(iter(self._heard))]


def _listening(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


def _remedy(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"UDP port {port} is in use: end what listens there (ss -lunp), or set channel.kdump.port and send to that"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"UDP port {port} is not allowed to us: set channel.kdump.port to one above 1023, and send to that"
    return f"UDP port {port} cannot be opened: {os.strerror(error.errno or 0).lower()}"
