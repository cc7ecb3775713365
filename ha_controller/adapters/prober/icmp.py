"""The `icmp` channel: one echo request per host and turn, all hosts over one socket per address family.

An answer proves that the host's kernel runs, and no more. Sockets are read only when the prober calls, so nothing here
runs in between. Requests carry a random nonce and a number in their payload: a reply counts only if both are ours, it
comes from the address that was asked, and the question is still open. (Sequence numbers alone would not do: with 16
bits fping 5.1 runs out at 6,553 hosts per second, schweikert/fping #385.)

It must never take somebody's "unreachable" for the host's silence: what routers and our own kernel tell is read from
the socket's error queue and becomes UNKNOWN.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ha_controller.adapters.prober.channel import Pending
from ha_controller.plugin import (
    Domain,
    Duration,
    Probe,
    ProbeConfig,
    ProbeContext,
    ProbeUnavailable,
    Reading,
    Signal,
    Target,
    duration_field,
)

# linux/in.h, in6.h, icmp.h, icmpv6.h, asm-generic/socket.h; not in Python's socket module
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SOL_RAW, _ICMP_FILTER, _ICMPV6_FILTER = 255, 1, 1
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_PACKET = struct.Struct("!BBHHH8sQ")  # type, code, checksum, identifier, sequence; then our nonce and number
_PAYLOAD = struct.Struct("!8sQ")
_HEADER_SIZE = 8
_RECEIVE_SIZE = 512
_BUFFER_SIZE = 8 << 20  # the default receive buffer holds 256 replies; packets to dead neighbours fill the send buffer
_BATCH = 128  # requests between two looks at the replies
_DRAIN_MAX = 4096  # packets read in one go: a flood must not hold up the loop

_REMEDY = (
    "allow unprivileged ping to the controller's group with "
    '`sysctl -w net.ipv4.ping_group_range="0 2147483647"` (for IPv6, too), or give the service CAP_NET_RAW'
)


class IcmpConfig(ProbeConfig):
    """Settings of `[channel.icmp]`."""

    timeout_s: Duration = duration_field("500ms", key="timeout", longest="10s")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    host: int
    sent_at: float
    number: int


class IcmpProbe(Probe[IcmpConfig]):
    """Pings hosts. A host may have several questions under way."""

    kind = "icmp"
    config_model = IcmpConfig
    domain = Domain.MANAGEMENT
    proves_userland = False

    def __init__(self, config: IcmpConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._sockets: dict[socket.AddressFamily, _PingSocket] = {}
        self._refusals: dict[socket.AddressFamily, str] = {}
        # by address and the low 16 bits of the number: that is what a short quote in an "unreachable" still shows
        self._pending: Pending[tuple[str, int], _Question] = Pending(config.timeout_s)
        self._readings: list[Reading] = []
        self._number = 0

    async def open(self) -> str:
        """Open one socket per address family: unprivileged where allowed, else raw.

        Raises:
            ProbeUnavailable: neither is allowed.
        """
        nonce = secrets.token_bytes(8)
        for family in (_ICMP, _ICMPV6):
            try:
                self._sockets[family.family] = _PingSocket(family, nonce)
            except OSError as error:
                self._refusals[family.family] = f"{family.name}: {error.strerror}"
        if not self._sockets:
            raise ProbeUnavailable(f"no ICMP socket ({'; '.join(self._refusals.values())}): {_REMEDY}")
        return "; ".join([*(ping.description for ping in self._sockets.values()), *self._refusals.values()])

    async def close(self) -> None:
        """Close the sockets and forget the questions."""
        for ping in self._sockets.values():
            ping.close()
        self._sockets.clear()
        self._refusals.clear()
        self._pending.take_all()
        self._readings.clear()

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Send one echo request to each target."""
        for start in range(0, len(targets), _BATCH):
            for target in targets[start : start + _BATCH]:
                self._ask(target, now)
            self._hear()

    def collect(self, now: float) -> list[Reading]:
        """Read what has come in, and only then call the overdue silent: a late look must not make a host late."""
        self._hear()
        for question in self._pending.take_expired(now):
            self._tell(question.host, Signal.SILENT, "timeout", sent_at=question.sent_at)
        readings, self._readings = self._readings, []
        return readings

    def _ask(self, target: Target, now: float) -> None:
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        ping = self._sockets.get(family)
        if ping is None:
            self._tell(target.host, Signal.UNKNOWN, self._refusals.get(family, "the channel is closed"), sent_at=now)
            return
        self._number += 1
        error = ping.send(target.address, self._number)
        if error is not None:
            self._tell(target.host, Signal.UNKNOWN, f"not sent: {error.strerror}", sent_at=now)
            return
        key = (_without_zone(target.address), self._number & 0xFFFF)
        self._pending.add(key, _Question(host=target.host, sent_at=now, number=self._number))

    def _hear(self) -> None:
        for ping in self._sockets.values():
            for address, number in ping.replies():
                self._hear_reply(address, number)
            for address, sequence, code in ping.errors():
                refused = self._pending.take((address, sequence))
                if refused is not None:
                    self._tell(refused.host, Signal.UNKNOWN, os.strerror(code).lower(), sent_at=refused.sent_at)

    def _hear_reply(self, address: str, number: int) -> None:
        key = (address, number & 0xFFFF)
        question = self._pending.get(key)
        if question is not None and question.number == number:
            self._pending.take(key)
            self._tell(question.host, Signal.ALIVE, "", sent_at=question.sent_at)

    def _tell(self, host: int, signal: Signal, detail: str, *, sent_at: float) -> None:
        self._readings.append(Reading(host=host, signal=signal, sent_at=sent_at, detail=detail))


# --- one socket -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """What differs between ICMP and ICMPv6."""

    name: str
    family: socket.AddressFamily
    protocol: int
    request: int
    reply: int
    level: int
    receive_errors: int
    filter_level: int
    filter_option: int
    filter_value: bytes  # a set bit blocks that type


_ICMP = _Family(
    name="ICMP", family=socket.AF_INET, protocol=socket.IPPROTO_ICMP, request=8, reply=0,
    level=socket.IPPROTO_IP, receive_errors=_IP_RECVERR,
    filter_level=_SOL_RAW, filter_option=_ICMP_FILTER, filter_value=struct.pack("=I", 0xFFFFFFFF & ~(1 << 0)),
)  # fmt: skip
_ICMPV6 = _Family(
    name="ICMPv6", family=socket.AF_INET6, protocol=socket.IPPROTO_ICMPV6, request=128, reply=129,
    level=socket.IPPROTO_IPV6, receive_errors=_IPV6_RECVERR,
    filter_level=socket.IPPROTO_ICMPV6, filter_option=_ICMPV6_FILTER,
    filter_value=struct.pack("=8I", *(0xFFFFFFFF & ~(1 << 129 % 32 if word == 129 // 32 else 0) for word in range(8))),
)  # fmt: skip


class _PingSocket:
    """An ICMP socket of one family. Everything returns at once."""

    def __init__(self, family: _Family, nonce: bytes) -> None:
        self._family = family
        self._nonce = nonce
        self._identifier = secrets.randbelow(1 << 16)  # the kernel puts its own on unprivileged sockets
        self._errors: list[tuple[str, int, int]] = []
        self._socket, self._raw = _open(family)
        self._socket.setsockopt(family.level, family.receive_errors, 1)
        if self._raw:
            self._socket.setsockopt(family.filter_level, family.filter_option, family.filter_value)
        _enlarge(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        self.description = f"{family.name}: {'raw' if self._raw else 'unprivileged'} socket"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, address: str, number: int) -> OSError | None:
        """Send one echo request; returns why it could not be sent."""
        packet = self._packet(number)
        try:
            self._socket.sendto(packet, (address, 0))
        except OSError:
            # With errors switched on, a socket reports one host's "unreachable" at the next call, whomever that was
            # meant for. It is in the error queue, too; whatever comes after emptying that is about this host.
            self._read_errors()
            return self._send_again(packet, address)
        return None

    def replies(self) -> Iterator[tuple[str, int]]:
        """Source address and number of the echo replies that came in."""
        for _ in range(_DRAIN_MAX):
            try:
                packet, source = self._socket.recvfrom(_RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError:  # the error queue tells it again, with the host that it is about
                continue
            number = self._number_in(packet)
            if number is not None:
                yield _without_zone(source[0]), number

    def errors(self) -> Iterator[tuple[str, int, int]]:
        """Address that was asked, sequence number and errno of what routers or our own kernel refused."""
        self._read_errors()
        errors, self._errors = self._errors, []
        return iter(errors)

    def _send_again(self, packet: bytes, address: str) -> OSError | None:
        try:
            self._socket.sendto(packet, (address, 0))
        except OSError as error:
            return error
        return None

    def _packet(self, number: int) -> bytes:
        fields = (self._identifier, number & 0xFFFF, self._nonce, number)
        packet = _PACKET.pack(self._family.request, 0, 0, *fields)
        if self._raw and self._family is _ICMP:  # the kernel does it in all other cases
            packet = _PACKET.pack(self._family.request, 0, _checksum(packet), *fields)
        return packet

    def _number_in(self, packet: bytes) -> int | None:
        # raw IPv4 sockets show the IP header, whose length is in words in the low half of the first byte
        start = (packet[0] & 0x0F) * 4 if packet and self._raw and self._family is _ICMP else 0
        if len(packet) < start + _PACKET.size or packet[start] != self._family.reply:
            return None
        nonce, number = _PAYLOAD.unpack_from(packet, start + _HEADER_SIZE)
        return int(number) if bytes(nonce) == self._nonce else None

    def _read_errors(self) -> None:
        for _ in range(_DRAIN_MAX):
            try:
                quote, notes, _flags, asked = self._socket.recvmsg(_RECEIVE_SIZE, _RECEIVE_SIZE, socket.MSG_ERRQUEUE)
            except OSError:  # the queue is empty
                return
            # The kernel quotes our request, sometimes behind an IPv6 header; a router may have cut off the payload.
            header = max(quote.find(self._nonce) - _HEADER_SIZE, 0)
            sequence = int.from_bytes(quote[header + 6 : header + 8], "big")
            for level, kind, data in notes:
                if level == self._family.level and kind == self._family.receive_errors:
                    # struct sock_extended_err begins with the errno (linux/errqueue.h)
                    self._errors.append((_without_zone(asked[0]), sequence, struct.unpack_from("=I", data)[0]))


def _open(family: _Family) -> tuple[socket.socket, bool]:
    """A socket and whether it is raw. Unprivileged ones come first: they receive only answers to their own requests."""
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with suppress(OSError):
        return socket.socket(family.family, socket.SOCK_DGRAM | flags, family.protocol), False
    return socket.socket(family.family, socket.SOCK_RAW | flags, family.protocol), True


def _enlarge(ping: socket.socket, forced: int, allowed: int) -> None:
    """Ask for a large buffer: beyond the system's limit where we may (CAP_NET_ADMIN), else up to the limit."""
    try:
        ping.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_SIZE)
    except PermissionError:
        ping.setsockopt(socket.SOL_SOCKET, allowed, _BUFFER_SIZE)


def _checksum(packet: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    folded: int = total + (total >> 16)
    return ~folded & 0xFFFF


def _without_zone(address: str) -> str:
    return address.partition("%")[0] if "%" in address else address
