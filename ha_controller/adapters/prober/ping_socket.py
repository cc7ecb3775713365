"""One ICMP socket of one address family, for thousands of hosts: sends and receives packets by the hundred.

Everything returns at once. It calls `sendmmsg` and `recvmmsg` of the C library, which Python's socket module does not
have: a call for each packet would cost as much as the kernel's own work for it. It must never take a packet for an
answer that is not of the expected kind and does not hold our nonce; whose question it answers is for the caller to say.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import socket
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

# linux/in.h, in6.h, icmp.h, icmpv6.h, asm-generic/socket.h; not in Python's socket module
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SOL_RAW, _ICMP_FILTER, _ICMPV6_FILTER = 255, 1, 1
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

BATCH = 128  #: packets in one call, and between two looks at the replies
_REQUEST = struct.Struct("=BBHHH8sQ")  # type, code, checksum, identifier, sequence; then our nonce and number
_HEADER_SIZE, _CHECKSUM_AT, _SEQUENCE_AT, _NUMBER_AT = 8, 2, 6, 16
_ERROR_SIZE = 512
_BUFFER_SIZE = 8 << 20  # the default receive buffer holds 256 replies; packets to dead neighbours fill the send buffer
_DRAIN_MAX = 4096  # packets read in one go: a flood must not hold up the loop
_ADDRESSES_MAX = 65_536
_SCOPE_MAX = 0xFFFF_FFFF


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Family:
    """What differs between ICMP and ICMPv6. There are these two and no others."""

    title: str
    family: socket.AddressFamily
    protocol: int
    request: int
    reply: int
    level: int
    receive_errors: int
    filter_level: int
    filter_option: int
    filter_value: bytes  # a set bit blocks that type
    name: struct.Struct  # struct sockaddr_in or sockaddr_in6, of which only the address is of interest


ICMP = Family(
    title="ICMP", family=socket.AF_INET, protocol=socket.IPPROTO_ICMP, request=8, reply=0,
    level=socket.IPPROTO_IP, receive_errors=_IP_RECVERR,
    filter_level=_SOL_RAW, filter_option=_ICMP_FILTER, filter_value=struct.pack("=I", 0xFFFFFFFF & ~(1 << 0)),
    name=struct.Struct("=4x4s8x"),
)  # fmt: skip
ICMPV6 = Family(
    title="ICMPv6", family=socket.AF_INET6, protocol=socket.IPPROTO_ICMPV6, request=128, reply=129,
    level=socket.IPPROTO_IPV6, receive_errors=_IPV6_RECVERR,
    filter_level=socket.IPPROTO_ICMPV6, filter_option=_ICMPV6_FILTER,
    filter_value=struct.pack("=8I", *(0xFFFFFFFF & ~(1 << 129 % 32 if word == 129 // 32 else 0) for word in range(8))),
    name=struct.Struct("=8x16s4x"),
)  # fmt: skip


class PingSocket:
    """An ICMP socket of one family. Everything returns at once."""

    def __init__(self, family: Family) -> None:
        """Open it: unprivileged where that is allowed, else raw.

        Raises:
            OSError: neither is allowed.
        """
        self._family = family
        self._nonce = secrets.token_bytes(8)
        self._socket, self._raw = _open(family)
        self._has_ip_header = self._raw and family is ICMP
        self._socket.setsockopt(family.level, family.receive_errors, 1)
        if self._raw:
            self._socket.setsockopt(family.filter_level, family.filter_option, family.filter_value)
        _enlarge(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        self._out = _Messages(family.name, _REQUEST.size)
        self._in = _Messages(family.name, _PACKET_MAX)
        # the kernel puts its own identifier on unprivileged sockets
        header = _REQUEST.pack(family.request, 0, 0, secrets.randbelow(1 << 16), 0, self._nonce, 0)
        self._out.packets[:] = header * BATCH
        self._sequences = self._out.packets.cast("H")[_SEQUENCE_AT // 2 :: _REQUEST.size // 2]
        self._numbers = self._out.packets.cast("Q")[_NUMBER_AT // 8 :: _REQUEST.size // 8]
        self._errors: list[tuple[str, int, int]] = []
        self.description = f"{family.title}: {'raw' if self._raw else 'unprivileged'} socket"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def name_of(self, address: str) -> bytes:
        """The address as the kernel writes it. Raises OSError: it is none, or its zone is not there."""
        return _name(self._family.family, address)

    def address_in(self, name: bytes) -> bytes:
        """The part of it that a reply is compared with."""
        address: bytes = self._family.name.unpack(name)[0]
        return address

    def send(self, names: Sequence[bytes], first: int) -> list[tuple[int, OSError]]:
        """Send at most `BATCH` echo requests, numbered from `first` on; returns which could not be sent, and why."""
        count, failed = len(names), []
        self._out.names[: count * self._family.name.size] = b"".join(names)
        low = first & 0xFFFF
        self._sequences[:count] = _SEQUENCES[low : low + count]
        self._numbers[:count] = array("Q", range(first, first + count))
        if self._has_ip_header:  # the kernel does it in all other cases
            self._write_checksums(count)
        sent, tried = 0, -1
        while sent < count:
            done = self._out.send(self._socket.fileno(), sent, count)
            if done > 0:
                sent += done
                continue
            # With errors switched on, a socket reports one host's "unreachable" at the next call, whomever that was
            # meant for. It is in the error queue, too; whatever comes after emptying that is about this host.
            error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self._read_errors()
            if tried == sent:
                failed.append((sent, error))
                sent += 1
            else:
                tried = sent
        return failed

    def replies(self) -> Iterator[tuple[bytes, int]]:
        """Source address and number of the echo replies that came in."""
        for _ in range(_DRAIN_MAX // BATCH):
            count = self._in.receive(self._socket.fileno())
            if count < 0:  # nothing there, or an error: the error queue tells it again, with the host that it is about
                if ctypes.get_errno() == errno.EAGAIN:
                    return
                continue
            # fewer than there is room for does not mean that no more are there: another host's error ends a call, too
            yield from self._with_ip_header(count) if self._has_ip_header else self._plain(count)

    def errors(self) -> Iterator[tuple[str, int, int]]:
        """Address that was asked, sequence number and errno of what routers or our own kernel refused."""
        self._read_errors()
        errors, self._errors = self._errors, []
        return iter(errors)

    def _plain(self, count: int) -> Iterator[tuple[bytes, int]]:
        nonce, reply, least = self._nonce, self._family.reply, _REQUEST.size
        packets = _REPLY.iter_unpack(self._in.packets_of(count))
        for (length,), (address,), (kind, told, number) in zip(
            self._in.lengths(count), self._in.addresses(count), packets, strict=True
        ):
            if told == nonce and kind == reply and length >= least:
                yield address, number

    def _with_ip_header(self, count: int) -> Iterator[tuple[bytes, int]]:
        """Its length is in words in the low half of the first byte."""
        packets = bytes(self._in.packets_of(count))
        for index, ((length,), (address,)) in enumerate(
            zip(self._in.lengths(count), self._in.addresses(count), strict=True)
        ):
            packet = packets[index * _PACKET_MAX : index * _PACKET_MAX + length]
            start = (packet[0] & 0x0F) * 4 if packet else 0
            if len(packet) >= start + _REQUEST.size and packet[start] == self._family.reply:
                *_, nonce, number = _REQUEST.unpack_from(packet, start)
                if nonce == self._nonce:
                    yield address, number

    def _write_checksums(self, count: int) -> None:
        size = _REQUEST.size
        for start in range(0, count * size, size):
            at = start + _CHECKSUM_AT
            self._out.packets[at : at + 2] = b"\0\0"
            self._out.packets[at : at + 2] = _checksum(bytes(self._out.packets[start : start + size]))

    def _read_errors(self) -> None:
        for _ in range(_DRAIN_MAX):
            try:
                quote, notes, _flags, asked = self._socket.recvmsg(_ERROR_SIZE, _ERROR_SIZE, socket.MSG_ERRQUEUE)
            except OSError:  # the queue is empty
                return
            # The kernel quotes our request, sometimes behind an IPv6 header; a router may have cut off the payload.
            header = max(quote.find(self._nonce) - _HEADER_SIZE, 0)
            sequence = int.from_bytes(quote[header + _SEQUENCE_AT : header + _SEQUENCE_AT + 2], "big")
            for level, kind, data in notes:
                if level == self._family.level and kind == self._family.receive_errors:
                    # struct sock_extended_err begins with the errno (linux/errqueue.h)
                    self._errors.append((without_zone(asked[0]), sequence, struct.unpack_from("=I", data)[0]))


def without_zone(address: str) -> str:
    """An address without the interface behind it."""
    return address.partition("%")[0] if "%" in address else address


# --- many packets in one call -----------------------------------------------------------------------------------------

_PACKET_MAX = 128  # an IPv4 header with all its options, and a reply to us; of anything longer nothing is needed
_REPLY = struct.Struct(f"=B7x8sQ{_PACKET_MAX - _REQUEST.size}x")


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr (sys/socket.h)."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("parts", ctypes.c_void_p),
        ("parts_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_LENGTH = struct.Struct(f"={_Message.length.offset}xI{ctypes.sizeof(_Message) - _Message.length.offset - 4}x")

_library = ctypes.CDLL(None, use_errno=True)
_library.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_library.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)

#: all sequence numbers in network order, and the first ones once more
_SEQUENCES = array("H", [number & 0xFFFF for number in range((1 << 16) + BATCH)])
if sys.byteorder == "little":
    _SEQUENCES.byteswap()


class _Messages:
    """A batch of messages with their names and packets, laid out once."""

    def __init__(self, name: struct.Struct, packet_size: int) -> None:
        self._name, self._packet_size = name, packet_size
        self._messages = (_Message * BATCH)()
        self._parts = (_Part * BATCH)()
        names, packets = (ctypes.c_char * (size * BATCH) for size in (name.size, packet_size))
        self._names, self._packets = names(), packets()
        starts = [ctypes.addressof(each) for each in (self._names, self._packets, self._parts, self._messages)]
        for index in range(BATCH):
            self._parts[index] = _Part(starts[1] + index * packet_size, packet_size)
            part = starts[2] + index * ctypes.sizeof(_Part)
            self._messages[index] = _Message(_Header(starts[0] + index * name.size, name.size, part, 1))
        self._start = starts[3]
        self._heads = memoryview(self._messages).cast("B")
        self.names = memoryview(self._names).cast("B")
        self.packets = memoryview(self._packets).cast("B")

    def send(self, descriptor: int, first: int, end: int) -> int:
        """Returns how many were sent; -1: none, the errno is about the first."""
        start = self._start + first * ctypes.sizeof(_Message)
        return int(_library.sendmmsg(descriptor, start, end - first, socket.MSG_DONTWAIT))

    def receive(self, descriptor: int) -> int:
        """Returns how many came in; -1: none."""
        return int(_library.recvmmsg(descriptor, self._start, BATCH, socket.MSG_DONTWAIT, None))

    def lengths(self, count: int) -> Iterator[tuple[int]]:
        """How long the packets are that came in."""
        return cast(Iterator[tuple[int]], _LENGTH.iter_unpack(self._heads[: count * _LENGTH.size]))

    def addresses(self, count: int) -> Iterator[tuple[bytes]]:
        """Who sent them."""
        return cast(Iterator[tuple[bytes]], self._name.iter_unpack(self.names[: count * self._name.size]))

    def packets_of(self, count: int) -> memoryview:
        """They themselves, each in a place of equal size."""
        return self.packets[: count * self._packet_size]


# --- opening, and what is in a packet ---------------------------------------------------------------------------------


def _open(family: Family) -> tuple[socket.socket, bool]:
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


def _name(family: socket.AddressFamily, address: str) -> bytes:
    """struct sockaddr_in or sockaddr_in6. The number of a zone may change, so such an address is not remembered."""
    if "%" not in address:
        return _known_name(family, address)
    plain, _, zone = address.partition("%")
    scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    if scope > _SCOPE_MAX:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return struct.pack("=HHI16sI", family, 0, 0, socket.inet_pton(family, plain), scope)


@lru_cache(maxsize=_ADDRESSES_MAX)
def _known_name(family: socket.AddressFamily, address: str) -> bytes:
    packed = socket.inet_pton(family, address)
    if family == socket.AF_INET:
        return struct.pack("=HH4s8x", family, 0, packed)
    return struct.pack("=HHI16sI", family, 0, 0, packed, 0)


def _checksum(packet: bytes) -> bytes:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    folded: int = total + (total >> 16)
    return (~folded & 0xFFFF).to_bytes(2, "big")
