"""The channels `ssh` and `tcp`: connect to a port of every host, over one epoll and without a task per connection.

`ssh` waits for the server's banner: a hung host often still completes handshakes, but only a running sshd writes one.
`tcp` takes the handshake itself for life, of the kernel. A refused connection is life as well: some kernel said no (a
firewall that rejects on the host's behalf cannot be told apart; it makes the host look alive, never dead).

Nothing is ever sent but the handshake, and connections end with a reset, which leaves no state behind. sshd 9.8 and
later counts each of them as "noauth" for PerSourcePenalties and drops sources that come too often: hosts should exempt
the controller (PerSourcePenaltyExemptList). A dropped connection still counts as life here.

The sockets are looked at only when the prober calls; targets come from it and readings go back to it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar

from pydantic import Field

from ha_controller.adapters.prober.channel import Pending
from ha_controller.plugin import (
    Domain,
    Duration,
    Probe,
    ProbeConfig,
    ProbeContext,
    Reading,
    Signal,
    Target,
    duration_field,
)

_EVENTS_MAX = 512
_BANNER_SIZE = 256
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger
_REFUSALS = {errno.ECONNREFUSED: "connection refused", errno.ECONNRESET: "connection reset"}


class ConnectConfig(ProbeConfig):
    """Settings of both channels."""

    port: int = Field(ge=1, le=65535)
    timeout_s: Duration = duration_field("1s", key="timeout", longest="30s")
    in_flight_max: int = Field(default=1024, ge=1, le=16384)  #: connections at once; suspects have as many on top


class SshConfig(ConnectConfig):
    """Settings of `[channel.ssh]`."""

    port: int = Field(default=22, ge=1, le=65535)


class TcpConfig(ConnectConfig):
    """Settings of `[channel.tcp]`."""


ConnectConfigT = TypeVar("ConnectConfigT", bound=ConnectConfig)


@dataclass(slots=True, kw_only=True)
class _Lane:
    """Who waits for a place, first come, first served; each host at most once."""

    places: int
    waiting: dict[int, Target] = field(default_factory=dict)


class _Connection(NamedTuple):
    """A tuple: thousands of them are made in a second."""

    host: int
    sent_at: float
    socket: socket.SocketType
    lane: _Lane


class ConnectProbe(Probe[ConnectConfigT]):
    """Connects to hosts; what counts as an answer is up to the subclass.

    A dead host holds its connection until `timeout_s`, so thousands of them would use up the file descriptors. Hosts
    beyond `in_flight_max` wait for a place. Suspects have places of their own and never wait behind the others.
    """

    domain = Domain.MANAGEMENT
    _awaited: ClassVar[int]  # the epoll event that may be an answer

    def __init__(self, config: ConnectConfigT, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._epoll: select.epoll | None = None
        self._pending: Pending[int, _Connection] = Pending(config.timeout_s)  # by file descriptor
        self._under_way: set[int] = set()  # hosts
        self._steady = _Lane(places=config.in_flight_max)
        self._suspects = _Lane(places=config.in_flight_max)
        self._readings: list[Reading] = []

    @abstractmethod
    def hear(self, connection: socket.SocketType) -> tuple[Signal, str] | None:
        """What a connection that became ready shows, with detail; None when it must be waited for further.

        Raises:
            OSError: the connection failed.
        """

    def overdue(self, connection: socket.SocketType) -> str:
        """The detail for a connection without an answer."""
        return "timeout"

    async def open(self) -> str:
        """Make the epoll."""
        self._epoll = select.epoll()
        return f"port {self.config.port}, at most {self.config.in_flight_max} connections, plus as many to suspects"

    async def close(self) -> None:
        """Reset all connections and forget who waits."""
        for connection in self._pending.take_all():
            self._end(connection)
        self._steady.waiting.clear()
        self._suspects.waiting.clear()
        self._readings.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Connect to each target that has no connection under way, as far as there are places."""
        for target in targets:
            if target.host in self._under_way or target.host in self._suspects.waiting:
                continue
            if target.close_watch:
                self._steady.waiting.pop(target.host, None)
                self._suspects.waiting[target.host] = target
            else:
                self._steady.waiting[target.host] = target
        self._fill_places(now)

    def collect(self, now: float) -> list[Reading]:
        """Look at what became ready, and only then call the overdue silent; then let the next ones in."""
        self._hear_ready()
        for connection in self._pending.take_expired(now):
            detail = self.overdue(connection.socket)
            self._end(connection)
            self._tell(connection.host, Signal.SILENT, detail, sent_at=connection.sent_at)
        self._fill_places(now)
        readings, self._readings = self._readings, []
        return readings

    def _fill_places(self, now: float) -> None:
        for lane in (self._suspects, self._steady):
            while lane.waiting and lane.places > 0:
                host = next(iter(lane.waiting))
                self._connect(lane.waiting.pop(host), lane, now)

    def _connect(self, target: Target, lane: _Lane, now: float) -> None:
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        try:
            # not socket.socket, which wraps it: that takes longer to make and to close, and nothing of it is used
            client = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:  # out of file descriptors
            self._tell(target.host, Signal.UNKNOWN, f"no socket: {error.strerror}", sent_at=now)
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        code = client.connect_ex((target.address, self.config.port))
        if self._epoll is None or code not in (0, errno.EINPROGRESS):
            client.close()
            self._tell(target.host, *_failed(code), sent_at=now)
            return
        descriptor = client.fileno()
        self._epoll.register(descriptor, self._awaited)
        self._pending.add(descriptor, _Connection(target.host, now, client, lane))
        self._under_way.add(target.host)
        lane.places -= 1

    def _hear_ready(self) -> None:
        while self._epoll is not None and (ready := self._epoll.poll(0, _EVENTS_MAX)):
            for descriptor, _events in ready:
                self._hear_one(descriptor)

    def _hear_one(self, descriptor: int) -> None:
        connection = self._pending.get(descriptor)
        if connection is None:
            return
        try:
            answer = self.hear(connection.socket)
        except OSError as error:
            answer = _failed(error.errno or 0)
        if answer is not None:
            self._pending.take(descriptor)
            self._end(connection)
            self._tell(connection.host, *answer, sent_at=connection.sent_at)

    def _end(self, connection: _Connection) -> None:
        connection.socket.close()  # which takes it out of the epoll, too
        connection.lane.places += 1
        self._under_way.discard(connection.host)

    def _tell(self, host: int, signal: Signal, detail: str, *, sent_at: float) -> None:
        self._readings.append(Reading(host=host, signal=signal, sent_at=sent_at, detail=detail))


class SshProbe(ConnectProbe[SshConfig]):
    """Waits for sshd's banner."""

    kind = "ssh"
    config_model = SshConfig
    _awaited = select.EPOLLIN

    def hear(self, connection: socket.SocketType) -> tuple[Signal, str] | None:
        """Whatever comes, comes from a process on the host; only its name for it differs."""
        try:
            banner = connection.recv(_BANNER_SIZE)
        except BlockingIOError:
            return None
        if banner.startswith(b"SSH-"):
            return Signal.ALIVE, ""
        return Signal.ALIVE, "answered, but not as SSH" if banner else "connection closed without a banner"

    def overdue(self, connection: socket.SocketType) -> str:
        """Tell a host that accepts and says nothing from one that is not there."""
        try:
            connection.getpeername()
        except OSError:
            return "timeout"
        return "connected, no banner"


class TcpProbe(ConnectProbe[TcpConfig]):
    """Takes a completed handshake for life."""

    kind = "tcp"
    config_model = TcpConfig
    proves_userland = False  # the kernel completes handshakes for a process that hangs
    _awaited = select.EPOLLOUT

    def hear(self, connection: socket.SocketType) -> tuple[Signal, str] | None:
        """Ready for writing: the handshake is over, one way or the other."""
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return _failed(code) if code else (Signal.ALIVE, "")


def _failed(code: int) -> tuple[Signal, str]:
    """A refusal comes from the host's kernel; every other failure from a router or from ourselves."""
    if code in _REFUSALS:
        return Signal.ALIVE, _REFUSALS[code]
    return Signal.UNKNOWN, os.strerror(code).lower() if code else "the channel is closed"
