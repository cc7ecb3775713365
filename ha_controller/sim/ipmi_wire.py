"""The bytes of IPMI over LAN as a BMC sees them: packets, messages, logins and the cryptography of RMCP+.

Pure functions and values: no I/O, no clock, no table of sessions, no say in whether an order is carried out. Packets
come from and go back to `bmc.py`. For any bytes at all, nothing here raises anything but `Malformed`.

Written from the specifications, with no IPMI library: sections and tables are those of IPMI v2.0 revision 1.1; the
presence ping is in section 3.2.4 of ASF 2.0. Numbers are little-endian, except in ASF.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RANDOM_BYTES: Final = 16  #: of the random numbers in RAKP messages 1 and 2

_RMCP_ASF: Final = b"\x06\x00\xff\x06"  #: version, reserved, "no RMCP acknowledge", class
_RMCP_IPMI: Final = b"\x06\x00\xff\x07"
_ASF_ENTERPRISE: Final = 4542
_FORMAT_V15, _FORMAT_RMCP_PLUS = 0x00, 0x06
_ENCRYPTED, _AUTHENTICATED = 0x80, 0x40
_NEXT_HEADER: Final = 0x07
_AES_BLOCK_BYTES: Final = 16
_BMC_ADDRESS: Final = 0x20


class Malformed(Exception):
    """No packet of this protocol, or not an authentic one: to be dropped without an answer."""


class PayloadKind(IntEnum):
    """What an RMCP+ packet carries (table 13-16)."""

    IPMI = 0x00
    OPEN_REQUEST = 0x10
    OPEN_RESPONSE = 0x11
    RAKP_1 = 0x12
    RAKP_2 = 0x13
    RAKP_3 = 0x14
    RAKP_4 = 0x15


class Status(IntEnum):
    """How a step of a login ended (table 13-15)."""

    GOOD = 0x00
    INSUFFICIENT_RESOURCES = 0x01
    INVALID_ROLE = 0x09
    UNAUTHORIZED_NAME = 0x0D
    INVALID_INTEGRITY_CHECK = 0x0F
    NO_SUITE_MATCHES = 0x11


@dataclass(frozen=True, kw_only=True, slots=True)
class Ping:
    """An ASF presence ping."""

    tag: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainMessage:
    """An IPMI message outside any session, in the wrapper of IPMI 1.5 or in that of RMCP+; not yet checked."""

    message: bytes
    rmcp_plus: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LoginStep:
    """An Open Session request, RAKP message 1 or RAKP message 3; not yet checked."""

    kind: PayloadKind
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """A packet that claims to belong to a session; nothing in it is true before `unseal` says so."""

    session_id: int
    sequence: int
    body: bytes  #: initialisation vector and ciphertext
    signed: bytes  #: what the integrity check covers, and the check itself


Packet = Ping | PlainMessage | LoginStep | Sealed


def read_packet(packet: bytes) -> Packet:
    """Tell what a datagram is.

    Raises:
        Malformed: nothing that a BMC answers.
    """
    if packet[:4] == _RMCP_ASF:
        return _read_ping(packet)
    if packet[:4] != _RMCP_IPMI or len(packet) < 5:
        raise Malformed
    if packet[4] == _FORMAT_V15:
        return _read_v15(packet)
    if packet[4] == _FORMAT_RMCP_PLUS:
        return _read_rmcp_plus(packet)
    raise Malformed


def write_pong(ping: Ping) -> bytes:
    """Answer a presence ping: IPMI is supported, ASF 1.0, no security extensions."""
    return _RMCP_ASF + struct.pack(">IBBBBIIBB6x", _ASF_ENTERPRISE, 0x40, ping.tag, 0, 16, _ASF_ENTERPRISE, 0, 0x81, 0)


def write_plain(message: bytes, *, rmcp_plus: bool) -> bytes:
    """Wrap a message for outside a session, in the wrapper that the request had."""
    if rmcp_plus:
        return _write_rmcp_plus(PayloadKind.IPMI, message)
    return _RMCP_IPMI + struct.pack("<BIIB", _FORMAT_V15, 0, 0, len(message)) + message


def _write_rmcp_plus(kind: PayloadKind, body: bytes) -> bytes:
    return _RMCP_IPMI + struct.pack("<BBIIH", _FORMAT_RMCP_PLUS, kind, 0, 0, len(body)) + body


def _read_ping(packet: bytes) -> Ping:
    # Enterprise number, message type 0x80, tag, reserved, length of the data: none.
    if len(packet) != 12 or packet[4:9] != struct.pack(">IB", _ASF_ENTERPRISE, 0x80) or packet[11]:
        raise Malformed
    return Ping(tag=packet[9])


def _read_v15(packet: bytes) -> PlainMessage:
    if len(packet) < 14:
        raise Malformed
    sequence, session_id, length = struct.unpack("<IIB", packet[5:14])
    # One byte of padding may follow: some network chips could not send certain lengths (section 13.6).
    if sequence or session_id or len(packet) not in (14 + length, 15 + length):
        raise Malformed
    return PlainMessage(message=packet[14 : 14 + length], rmcp_plus=False)


def _read_rmcp_plus(packet: bytes) -> PlainMessage | LoginStep | Sealed:
    if len(packet) < 16:
        raise Malformed
    kind, session_id, sequence, length = struct.unpack("<BIIH", packet[5:16])
    body = packet[16 : 16 + length]
    if len(body) != length:
        raise Malformed
    if kind == PayloadKind.IPMI | _AUTHENTICATED | _ENCRYPTED and session_id:
        return Sealed(session_id=session_id, sequence=sequence, body=body, signed=packet[4:])
    if session_id or sequence or len(packet) != 16 + length:
        raise Malformed
    match kind:
        case PayloadKind.IPMI:
            return PlainMessage(message=body, rmcp_plus=True)
        case PayloadKind.OPEN_REQUEST | PayloadKind.RAKP_1 | PayloadKind.RAKP_3:
            return LoginStep(kind=PayloadKind(kind), body=body)
        case _:
            raise Malformed


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One IPMI request (section 13.8)."""

    function: int  #: even: network functions of answers are odd
    command: int
    data: bytes
    requester: int  #: the address, or software id, that asks
    bmc_unit: int  #: logical unit number of the BMC
    sequence_and_unit: int  #: of the requester; comes back as it came


def read_request(message: bytes) -> Request:
    """Check and split a message.

    Raises:
        Malformed: a wrong checksum, too short, an answer, or meant for somebody behind the BMC.
    """
    if len(message) < 7 or sum(message[:3]) & 0xFF or sum(message[3:]) & 0xFF:
        raise Malformed
    function = message[1] >> 2
    if message[0] != _BMC_ADDRESS or function & 1:
        raise Malformed
    return Request(
        function=function,
        command=message[5],
        data=message[6:-1],
        requester=message[3],
        bmc_unit=message[1] & 3,
        sequence_and_unit=message[4],
    )


def write_reply(request: Request, completion: int, data: bytes = b"") -> bytes:
    """Answer a request."""
    unit = request.sequence_and_unit & 3
    head = bytes([request.requester, (request.function | 1) << 2 | unit])
    sequence_and_unit = request.sequence_and_unit & ~3 | request.bmc_unit
    body = bytes([_BMC_ADDRESS, sequence_and_unit, request.command, completion]) + data
    return head + _checksum(head) + body + _checksum(body)


def _checksum(data: bytes) -> bytes:
    return bytes([-sum(data) & 0xFF])


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A cipher suite (table 22-20)."""

    id: int
    algorithms: tuple[int, int, int]  #: RAKP, integrity, encryption: their numbers in tables 13-17 to 13-19
    digest: str
    check_bytes: int  #: length of the integrity check of packets and of RAKP message 4

    @property
    def record(self) -> bytes:
        """The suite as Get Channel Cipher Suites lists it (table 22-18)."""
        authentication, integrity, encryption = self.algorithms
        return bytes([0xC0, self.id, authentication, 0x40 | integrity, 0x80 | encryption])


SUITES: Final = (  # both with AES-CBC-128
    Suite(id=3, algorithms=(1, 1, 1), digest="sha1", check_bytes=12),
    Suite(id=17, algorithms=(3, 4, 1), digest="sha256", check_bytes=16),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What both sides of a session know after the login."""

    suite: Suite
    integrity: bytes = field(repr=False)  #: K1
    encryption: bytes = field(repr=False)  #: the first 16 bytes of K2

    def check(self, signed: bytes) -> bytes:
        """The integrity check of these bytes."""
        return hmac.digest(self.integrity, signed, self.suite.digest)[: self.suite.check_bytes]


def seal(message: bytes, keys: Keys, *, session_id: int, sequence: int) -> bytes:
    """Encrypt and sign a message for the console's session."""
    padding = -(len(message) + 1) % _AES_BLOCK_BYTES
    vector = secrets.token_bytes(_AES_BLOCK_BYTES)
    encryptor = Cipher(algorithms.AES(keys.encryption), modes.CBC(vector)).encryptor()
    body = vector + encryptor.update(message + bytes(range(1, padding + 1)) + bytes([padding])) + encryptor.finalize()
    kind = PayloadKind.IPMI | _ENCRYPTED | _AUTHENTICATED
    signed = struct.pack("<BBIIH", _FORMAT_RMCP_PLUS, kind, session_id, sequence, len(body)) + body
    # Header, body and trailer together are a multiple of four bytes long (table 13-8).
    padding = -(len(signed) + 2) % 4
    signed += b"\xff" * padding + bytes([padding, _NEXT_HEADER])
    return _RMCP_IPMI + signed + keys.check(signed)


def unseal(packet: Sealed, keys: Keys) -> bytes:
    """Check a packet, then decrypt it; returns the message in it.

    Raises:
        Malformed: a wrong integrity check, or wrong lengths or padding behind a good one.
    """
    signed, check = packet.signed[: -keys.suite.check_bytes], packet.signed[-keys.suite.check_bytes :]
    if not hmac.compare_digest(keys.check(signed), check):
        raise Malformed
    trailer = signed[12 + len(packet.body) :]
    if len(trailer) < 2 or trailer[-1] != _NEXT_HEADER or trailer[-2] != len(trailer) - 2:
        raise Malformed
    return _decrypt(packet.body, keys.encryption)


def _decrypt(body: bytes, key: bytes) -> bytes:
    """Undo AES-CBC and its padding 1, 2, 3, ... and the padding's length (section 13.29.2)."""
    if len(body) < 2 * _AES_BLOCK_BYTES or len(body) % _AES_BLOCK_BYTES:
        raise Malformed
    decryptor = Cipher(algorithms.AES(key), modes.CBC(body[:_AES_BLOCK_BYTES])).decryptor()
    plain = decryptor.update(body[_AES_BLOCK_BYTES:]) + decryptor.finalize()
    padding = plain[-1]
    if padding >= _AES_BLOCK_BYTES or plain[-1 - padding : -1] != bytes(range(1, padding + 1)):
        raise Malformed
    return plain[: -1 - padding]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRequest:
    """Open Session request (table 13-9)."""

    tag: int
    privilege: int  #: 0: the highest that the suite allows
    console_id: int
    algorithms: tuple[int, int, int]  #: as in `Suite.algorithms`

    def accepted(self) -> bytes:
        """The proposed algorithms as the response repeats them."""
        return b"".join(struct.pack("<B2xBB3x", kind, 8, number) for kind, number in enumerate(self.algorithms))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rakp1:
    """RAKP message 1 (table 13-11)."""

    tag: int
    session_id: int
    console_random: bytes
    role: int  #: bits 3:0 the wanted privilege; bit 4 looks the user up by name only. Signed as it came
    user: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Rakp3:
    """RAKP message 3 (table 13-13)."""

    tag: int
    status: int  #: other than 0: the console did not like RAKP message 2, and `code` is empty
    session_id: int
    code: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """The values that both sides of one login know, and the codes that prove it (sections 13.20 to 13.24, 13.31)."""

    suite: Suite
    console_id: int
    session_id: int
    console_random: bytes = field(repr=False)
    bmc_random: bytes = field(repr=False)
    guid: bytes
    role: int
    user: bytes
    password: bytes = field(repr=False)

    def rakp2_code(self) -> bytes:
        """What the BMC proves with RAKP message 2."""
        ids = struct.pack("<II", self.console_id, self.session_id)
        randoms = self.console_random + self.bmc_random
        return self._sign(self.password, ids + randoms + self.guid + self._role_and_user())

    def rakp3_code(self) -> bytes:
        """What the console must prove with RAKP message 3."""
        console_id = struct.pack("<I", self.console_id)
        return self._sign(self.password, self.bmc_random + console_id + self._role_and_user())

    def rakp4_code(self) -> bytes:
        """What the BMC proves with RAKP message 4."""
        signed = self.console_random + struct.pack("<I", self.session_id) + self.guid
        return self._sign(self._session_key(), signed)[: self.suite.check_bytes]

    def keys(self) -> Keys:
        """Derive the keys of the session (section 13.32)."""
        k1, k2 = (self._sign(self._session_key(), bytes([number]) * 20) for number in (1, 2))
        return Keys(suite=self.suite, integrity=k1, encryption=k2[:16])

    def _session_key(self) -> bytes:
        # Signed with the BMC's own key, Kg; a BMC without one uses the user's password.
        return self._sign(self.password, self.console_random + self.bmc_random + self._role_and_user())

    def _role_and_user(self) -> bytes:
        return bytes([self.role, len(self.user)]) + self.user

    def _sign(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self.suite.digest)


def read_open_request(body: bytes) -> OpenRequest:
    """Raises `Malformed`; a console that leaves the choice of algorithms to the BMC is not understood."""
    if len(body) != 32 or any(body[8 + 8 * number] != number or body[11 + 8 * number] != 8 for number in range(3)):
        raise Malformed
    console_id = int.from_bytes(body[4:8], "little")
    algorithms = (body[12] & 0x3F, body[20] & 0x3F, body[28] & 0x3F)
    return OpenRequest(tag=body[0], privilege=body[1] & 0x0F, console_id=console_id, algorithms=algorithms)


def read_rakp1(body: bytes) -> Rakp1:
    """Raises `Malformed`."""
    if len(body) < 28 or len(body) != 28 + body[27]:
        raise Malformed
    session_id = int.from_bytes(body[4:8], "little")
    return Rakp1(tag=body[0], session_id=session_id, console_random=body[8:24], role=body[24], user=body[28:])


def read_rakp3(body: bytes) -> Rakp3:
    """Raises `Malformed`."""
    if len(body) < 8:
        raise Malformed
    return Rakp3(tag=body[0], status=body[1], session_id=int.from_bytes(body[4:8], "little"), code=body[8:])


def write_login_answer(
    kind: PayloadKind, tag: int, status: int, console_id: int, *, privilege: int = 0, body: bytes = b""
) -> bytes:
    """Answer a login step (tables 13-10, 13-12, 13-14). Refusals have no body; only OPEN_RESPONSE has a privilege."""
    return _write_rmcp_plus(kind, struct.pack("<BBBxI", tag, status, privilege, console_id) + body)
