"""An IPMI 2.0 BMC over UDP, written from the specification (IPMI v2.0 rev 1.1), for the embedded cloud.

Speaks RMCP+ with cipher suites 3 (SHA-1) and 17 (SHA-256) and AES-CBC-128. What the chassis really does is the
pretended hardware's business. Whatever is not a well-formed, authentic packet is dropped without an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RMCP_IPMI = b"\x06\x00\xff\x07"
RMCP_ASF_PING = b"\x06\x00\xff\x06"
SESSIONS_MAX = 4
SESSION_IDLE_S = 60.0
ADMINISTRATOR = 4

OPEN_REQUEST, OPEN_RESPONSE, RAKP1, RAKP2, RAKP3, RAKP4 = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
ENCRYPTED, AUTHENTICATED = 0x80, 0x40
NO_RESOURCES, BAD_AUTH_ALGORITHM, BAD_USER, BAD_INTEGRITY_VALUE = 0x01, 0x04, 0x0D, 0x0F
INVALID_COMMAND, INSUFFICIENT_PRIVILEGE, NOT_IN_PRESENT_STATE = 0xC1, 0xD4, 0xD5


class Chassis(Protocol):
    """The pretended hardware behind a BMC."""

    @property
    def bmc_answers(self) -> bool:
        """False: a dead BMC; its port stays open and mute."""

    def power_is_on(self) -> bool:
        """What the BMC says about the power."""

    def order_power(self, on: bool) -> None:
        """Chassis control; may be acknowledged and ignored."""


@dataclass(frozen=True)
class _Suite:
    auth: int
    integrity: int
    digest: Callable[..., hashlib._Hash]
    check_length: int  #: of the integrity check and of RAKP 4


_SUITES = {
    (1, 1): _Suite(1, 1, hashlib.sha1, 12),
    (3, 4): _Suite(3, 4, hashlib.sha256, 16),
}


@dataclass
class _Session:
    console_id: int
    suite: _Suite
    address: tuple[str, int]
    used_at: float
    console_random: bytes = b""
    bmc_random: bytes = b""
    role: int = 0
    k1: bytes = b""
    k2: bytes = b""
    active: bool = False
    privilege: int = 2
    sequence_out: int = 0
    sequence_in: int = 0


class Bmc(asyncio.DatagramProtocol):
    """One BMC on one UDP port. Pure request and reply; no tasks."""

    def __init__(
        self, *, address: str, port: int, user: str, password: str, system_uuid: str, chassis: Chassis
    ) -> None:
        """Nothing is opened yet."""
        self.logins = 0
        self._address, self._port = address, port
        self._user, self._password = user.encode(), password.encode()
        self._guid = uuid.UUID(system_uuid).bytes_le
        self._chassis = chassis
        self._sessions: dict[int, _Session] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Open the port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._address, self._port))

    def close(self) -> None:
        """Close the port."""
        if self._transport is not None:
            self._transport.close()

    @property
    def sessions(self) -> int:
        """Sessions that are logged in now."""
        return sum(session.active for session in self._sessions.values())

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one packet, or drop it."""
        if not self._chassis.bmc_answers or self._transport is None:
            return
        try:
            reply = self._answer(data, addr[:2])
        except (struct.error, IndexError, ValueError):
            return
        if reply:
            self._transport.sendto(reply, addr)

    def _answer(self, data: bytes, address: tuple[str, int]) -> bytes:
        if data[:4] == RMCP_ASF_PING:
            return self._pong(data)
        if data[:2] != RMCP_IPMI[:2] or data[3] != 7 or len(data) < 14:
            return b""
        if data[4] == 0x06:
            return self._rmcp_plus(data, address)
        if data[4] == 0x00:
            return self._without_session(data)
        return b""

    def _pong(self, data: bytes) -> bytes:
        if len(data) < 12 or data[8] != 0x80:
            return b""
        head = struct.pack(">IBBBB", 4542, 0x40, data[9], 0, 16)
        return RMCP_ASF_PING[:2] + b"\xff\x06" + head + struct.pack(">IIBB6x", 4542, 0, 0x81, 0)

    # --- IPMI 1.5 wrapper: only what comes before a session ---

    def _without_session(self, data: bytes) -> bytes:
        length = data[13]
        message = data[14 : 14 + length]
        if len(message) != length or struct.unpack("<I", data[9:13])[0] != 0:
            return b""
        reply = self._message(message, None)
        return RMCP_IPMI + struct.pack("<BIIB", 0, 0, 0, len(reply)) + reply if reply else b""

    # --- RMCP+ ---

    def _rmcp_plus(self, data: bytes, address: tuple[str, int]) -> bytes:
        kind, session_id, sequence, length = struct.unpack("<BIIH", data[5:16])
        payload = data[16 : 16 + length]
        if len(payload) != length:
            return b""
        match kind & 0x3F:
            case 0x10:
                return self._open(payload, address)
            case 0x12:
                return self._rakp1(payload)
            case 0x14:
                return self._rakp3(payload)
            case 0x00 if session_id and kind & AUTHENTICATED:
                return self._in_session(data, kind, session_id, sequence, length)
        return b""

    def _plain(self, kind: int, payload: bytes) -> bytes:
        return RMCP_IPMI + struct.pack("<BBIIH", 6, kind, 0, 0, len(payload)) + payload

    def _open(self, payload: bytes, address: tuple[str, int]) -> bytes:
        tag, console_id = payload[0], struct.unpack("<I", payload[4:8])[0]
        auth, integrity, crypt = payload[12] & 0x3F, payload[20] & 0x3F, payload[28] & 0x3F
        suite = _SUITES.get((auth, integrity))
        if suite is None or crypt != 1:
            return self._plain(OPEN_RESPONSE, struct.pack("<BBBBI", tag, BAD_AUTH_ALGORITHM, 0, 0, console_id))
        now = asyncio.get_running_loop().time()
        self._sessions = {
            number: known
            for number, known in self._sessions.items()
            if now - known.used_at < (SESSION_IDLE_S if known.active else 5.0)
        }
        if len(self._sessions) >= SESSIONS_MAX:
            return self._plain(OPEN_RESPONSE, struct.pack("<BBBBI", tag, NO_RESOURCES, 0, 0, console_id))
        number = int.from_bytes(os.urandom(4), "little") or 1
        self._sessions[number] = _Session(console_id=console_id, suite=suite, address=address, used_at=now)
        algorithms_echo = b"".join(
            struct.pack("<BBBBBBBB", index, 0, 0, 8, value, 0, 0, 0)
            for index, value in enumerate((auth, integrity, crypt))
        )
        head = struct.pack("<BBBBII", tag, 0, ADMINISTRATOR, 0, console_id, number)
        return self._plain(OPEN_RESPONSE, head + algorithms_echo)

    def _rakp1(self, payload: bytes) -> bytes:
        tag, number = payload[0], struct.unpack("<I", payload[4:8])[0]
        session = self._sessions.get(number)
        if session is None or session.active:
            return b""
        name_length = payload[27]
        name = payload[28 : 28 + name_length]
        session.console_random, session.role = payload[8:24], payload[24]
        if name != self._user or len(session.console_random) != 16:
            del self._sessions[number]
            return self._plain(RAKP2, struct.pack("<BBHI", tag, BAD_USER, 0, session.console_id))
        session.bmc_random = os.urandom(16)
        signed = (
            struct.pack("<II", session.console_id, number)
            + session.console_random
            + session.bmc_random
            + self._guid
            + bytes([session.role, name_length])
            + name
        )
        code = self._hmac(session, self._password, signed)
        head = struct.pack("<BBHI", tag, 0, 0, session.console_id)
        return self._plain(RAKP2, head + session.bmc_random + self._guid + code)

    @staticmethod
    def _hmac(session: _Session, key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, session.suite.digest).digest()

    def _rakp3(self, payload: bytes) -> bytes:
        tag, status, number = payload[0], payload[1], struct.unpack("<I", payload[4:8])[0]
        session = self._sessions.get(number)
        if session is None or not session.bmc_random:
            return b""
        name = bytes([session.role, len(self._user)]) + self._user
        expected = self._hmac(
            session, self._password, session.bmc_random + struct.pack("<I", session.console_id) + name
        )
        if status or not hmac.compare_digest(expected, payload[8:]):
            del self._sessions[number]
            return self._plain(RAKP4, struct.pack("<BBHI", tag, BAD_INTEGRITY_VALUE, 0, session.console_id))
        sik = self._hmac(session, self._password, session.console_random + session.bmc_random + name)
        session.k1, session.k2 = (self._hmac(session, sik, bytes([each]) * 20) for each in (1, 2))
        session.active = True
        self.logins += 1
        signed = session.console_random + struct.pack("<I", number) + self._guid
        code = self._hmac(session, sik, signed)[: session.suite.check_length]
        return self._plain(RAKP4, struct.pack("<BBHI", tag, 0, 0, session.console_id) + code)

    # --- inside a session ---

    def _in_session(self, data: bytes, kind: int, number: int, sequence: int, length: int) -> bytes:
        session = self._sessions.get(number)
        if session is None or not session.active or not self._authentic(session, data, length):
            return b""
        if not session.sequence_in < sequence <= session.sequence_in + 64:
            return b""
        session.sequence_in = sequence
        session.used_at = asyncio.get_running_loop().time()
        payload = data[16 : 16 + length]
        message = self._decrypt(session, payload) if kind & ENCRYPTED else payload
        reply = self._message(message, session)
        sealed = self._seal(session, reply) if reply else b""
        if reply[1] >> 2 == 7 and message[5] == 0x3C:
            del self._sessions[number]
        return sealed

    @staticmethod
    def _authentic(session: _Session, data: bytes, length: int) -> bool:
        check = session.suite.check_length
        end = 16 + length
        pad = (-(length + 12 + 2)) % 4
        if len(data) < end + pad + 2 + check:
            return False
        signed, given = data[4 : end + pad + 2], data[end + pad + 2 : end + pad + 2 + check]
        return hmac.compare_digest(hmac.new(session.k1, signed, session.suite.digest).digest()[:check], given)

    @staticmethod
    def _decrypt(session: _Session, payload: bytes) -> bytes:
        if len(payload) < 32 or len(payload) % 16:
            raise ValueError("not AES-CBC")
        decryptor = Cipher(algorithms.AES(session.k2[:16]), modes.CBC(payload[:16])).decryptor()
        plain = decryptor.update(payload[16:]) + decryptor.finalize()
        return plain[: len(plain) - plain[-1] - 1]

    @staticmethod
    def _seal(session: _Session, message: bytes) -> bytes:
        pad = (-(len(message) + 1)) % 16
        vector = os.urandom(16)
        encryptor = Cipher(algorithms.AES(session.k2[:16]), modes.CBC(vector)).encryptor()
        payload = vector + encryptor.update(message + bytes(range(1, pad + 1)) + bytes([pad])) + encryptor.finalize()
        session.sequence_out += 1
        head = struct.pack(
            "<BBIIH", 6, ENCRYPTED | AUTHENTICATED, session.console_id, session.sequence_out, len(payload)
        )
        tail_pad = (-(len(payload) + 12 + 2)) % 4
        signed = head + payload + b"\xff" * tail_pad + bytes([tail_pad, 7])
        check = hmac.new(session.k1, signed, session.suite.digest).digest()[: session.suite.check_length]
        return RMCP_IPMI + signed + check

    # --- messages ---

    def _message(self, message: bytes, session: _Session | None) -> bytes:
        if len(message) < 7 or sum(message[:3]) & 0xFF or sum(message[3:]) & 0xFF:
            raise ValueError("bad checksum")
        function, command, data = message[1] >> 2, message[5], message[6:-1]
        code, answer = self._command(function, command, data, session)
        head = bytes([message[3], (function | 1) << 2])
        body = bytes([message[0], message[4], command, code]) + answer
        return head + _checksum(head) + body + _checksum(body)

    def _command(self, function: int, command: int, data: bytes, session: _Session | None) -> tuple[int, bytes]:
        match function, command:
            case 6, 0x38:  # Get Channel Authentication Capabilities: IPMI 2.0, non-null user names
                return 0, bytes([1, 0x80, 0x04, 0x02, 0, 0, 0, 0])
            case 6, 0x54:  # Get Channel Cipher Suites
                return 0, bytes([1]) + (
                    bytes([0xC0, 3, 1, 0x41, 0x81, 0xC0, 17, 3, 0x44, 0x81]) if data[2] & 0x3F == 0 else b""
                )
            case 6, 0x37:
                return 0, self._guid
            case _ if session is None:
                return INVALID_COMMAND, b""
            case 6, 0x01:  # Get Device ID
                return 0, bytes([0x20, 1, 1, 0, 0x51, 0xBF, 0, 0, 0, 0, 0])
            case 6, 0x3B:  # Set Session Privilege Level
                session.privilege = data[0] or session.privilege
                return 0, bytes([session.privilege])
            case 6, 0x3C:
                return 0, b""
            case 0, 0x01:
                return 0, bytes([0x01 if self._chassis.power_is_on() else 0x00, 0, 0])
            case 0, 0x02:
                return self._control(data[0] & 0x0F, session)
        return INVALID_COMMAND, b""

    def _control(self, order: int, session: _Session) -> tuple[int, bytes]:
        if session.privilege < 3:
            return INSUFFICIENT_PRIVILEGE, b""
        match order:
            case 0 | 1:
                self._chassis.order_power(order == 1)
            case 2 | 3 if self._chassis.power_is_on():
                self._chassis.order_power(False)
                self._chassis.order_power(True)
            case 2 | 3:
                return NOT_IN_PRESENT_STATE, b""
            case _:
                return INVALID_COMMAND, b""
        return 0, b""


def _checksum(data: bytes) -> bytes:
    return bytes([-sum(data) & 0xFF])
