"""An IPMI 2.0 BMC on a UDP port, for the embedded cloud: keeps sessions and carries out commands.

Packets come from the network and are answered, or dropped, at once: one reply at most, no task, nothing kept for later.
Orders go to the `Chassis`, the pretended hardware, and it alone knows what the power really does. It must never carry
out, nor answer with a success, what is not authentic; packets that are not well formed are dropped without an answer.
It knows one user, an administrator, and no Kg. How the bytes look: `ipmi_wire.py`. Sections: IPMI v2.0 revision 1.1.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from ha_controller.sim import ipmi_wire as wire
from ha_controller.sim.ipmi_wire import Malformed, PayloadKind, Status

SESSIONS_MAX: Final = 4  #: logins under way count; real BMCs allow about as many
SESSION_IDLE_S: Final = 60.0  #: section 6.12.15
LOGIN_IDLE_S: Final = 5.0  #: own choice: a console that gave up must not block the table for a minute

_NOBODY, _CALLBACK, _USER, _OPERATOR, _ADMINISTRATOR = range(5)  #: privilege levels; nobody has logged in
_LAN_CHANNEL: Final = 1
_CHANNELS: Final = (_LAN_CHANNEL, 0x0E)  #: 0x0E: the one that the request came through

# Completion codes, table 5-2; the last three belong to one command each (sections 22.18 and 22.19).
_GOOD: Final = 0x00
_INVALID_COMMAND, _INVALID_LENGTH, _INVALID_FIELD = 0xC1, 0xC7, 0xCC
_INSUFFICIENT_PRIVILEGE, _NOT_IN_PRESENT_STATE = 0xD4, 0xD5
_LEVEL_NOT_AVAILABLE, _LEVEL_ABOVE_LIMIT, _NO_SUCH_SESSION = 0x80, 0x81, 0x87

#: (network function, command) -> least privilege (appendix G), length of the data in bytes
_COMMANDS: Final[Mapping[tuple[int, int], tuple[int, int]]] = {
    (0x00, 0x01): (_USER, 0),  # Get Chassis Status
    (0x00, 0x02): (_OPERATOR, 1),  # Chassis Control
    (0x06, 0x01): (_USER, 0),  # Get Device ID
    (0x06, 0x37): (_NOBODY, 0),  # Get System GUID
    (0x06, 0x38): (_NOBODY, 2),  # Get Channel Authentication Capabilities
    (0x06, 0x3B): (_CALLBACK, 1),  # Set Session Privilege Level
    (0x06, 0x3C): (_CALLBACK, 4),  # Close Session
    (0x06, 0x54): (_NOBODY, 3),  # Get Channel Cipher Suites
}

#: IPMI 2.0 firmware 1.0 of nobody (manufacturer 0), a chassis device.
_DEVICE_ID: Final = bytes([0x20, 1, 1, 0, 0x02, 0x80, 0, 0, 0, 0, 0])


class _Refused(Exception):
    """The answer is a refusal: a completion code, or while logging in a status, other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code 0x{code:02x}")
        self.code = code


class ChassisRefusal(_Refused):
    """The chassis refuses an order, and did nothing. `code` is the completion code that the BMC answers (table 5-2)."""

    def __init__(self, code: int = _NOT_IN_PRESENT_STATE) -> None:
        super().__init__(code)


class Chassis(Protocol):
    """The pretended hardware behind a BMC."""

    @property
    def bmc_answers(self) -> bool:
        """False: a dead BMC; its port stays open and mute."""

    def power_is_on(self) -> bool:
        """What the BMC says about the power, which need not be true."""

    def order_power(self, on: bool) -> None:
        """Chassis control; may be acknowledged and ignored.

        Raises:
            ChassisRefusal: nothing was done.
        """


@dataclass(kw_only=True, slots=True)
class _ReplayWindow:
    """Lets every session sequence number pass once, at most 15 ahead of and 16 behind the highest (section 6.12.13)."""

    highest: int = 0
    seen: int = 1  #: bit n: highest - n has passed. Number 0 never may

    def admits(self, sequence: int) -> bool:
        """Whether this number is new and near; if so, it has now passed."""
        ahead = sequence - self.highest
        if not -16 <= ahead <= 15 or (ahead <= 0 and self.seen >> -ahead & 1):
            return False
        if ahead > 0:
            self.highest, self.seen, ahead = sequence, self.seen << ahead & 0x1FFFF, 0
        self.seen |= 1 << -ahead
        return True


@dataclass(kw_only=True, slots=True)
class _Session:
    """One line of the session table; filled in step by step during the login."""

    console_id: int  #: the console's own number for the session
    suite: wire.Suite
    peer: tuple[Any, ...]
    privilege_max: int
    used_at: float
    bmc_random: bytes = field(repr=False)
    login: wire.Login | None = None  #: after RAKP message 1
    keys: wire.Keys | None = None  #: after RAKP message 3: logged in
    privilege: int = _NOBODY
    window: _ReplayWindow = field(default_factory=_ReplayWindow)
    sequence_sent: int = 0


class Bmc(asyncio.DatagramProtocol):
    """One BMC. Knows cipher suites 3 and 17."""

    def __init__(
        self,
        *,
        address: str,
        port: int,
        user: str,
        password: str,
        system_uuid: str,
        chassis: Chassis,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is opened yet. `clock` gives seconds; only differences matter.

        Raises:
            ValueError: not a UUID, or a user or password that IPMI has no room for (16 and 20 bytes).
        """
        self.logins = 0  #: how many consoles ever logged in
        self._address, self._port = address, port
        self._user, self._password = user.encode(), password.encode()
        if not 0 < len(self._user) <= 16 or len(self._password) > 20:
            raise ValueError(f"BMC {address}: user (1 to 16 bytes) or password (up to 20 bytes) has a wrong length")
        # As SMBIOS stores it (7.2.1: the first three fields little-endian) and most BMCs send it, although section 20.8
        # wants all 16 bytes reversed. So a reader gets the text of /sys/class/dmi/id/product_uuid by the same rule.
        self._guid = uuid.UUID(system_uuid).bytes_le
        self._chassis = chassis
        self._clock = clock
        self._table: dict[int, _Session] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Open the port; raises OSError when that is impossible."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._address, self._port))

    def close(self) -> None:
        """Close the port and forget all sessions; a second time does nothing."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        self._table.clear()

    @property
    def sessions(self) -> int:
        """How many consoles are logged in now."""
        self._forget_idle_sessions()
        return sum(session.keys is not None for session in self._table.values())

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer one packet, or drop it."""
        if not self._chassis.bmc_answers or self._transport is None:
            return
        self._forget_idle_sessions()
        try:
            reply = self._answer(data, addr)
        except Malformed:
            return
        self._transport.sendto(reply, addr)

    def _answer(self, data: bytes, peer: tuple[Any, ...]) -> bytes:
        match wire.read_packet(data):
            case wire.Ping() as ping:
                return wire.write_pong(ping)
            case wire.PlainMessage(message=message, rmcp_plus=rmcp_plus):
                return wire.write_plain(self._obey(message, None), rmcp_plus=rmcp_plus)
            case wire.LoginStep(kind=PayloadKind.OPEN_REQUEST, body=body):
                return self._open(wire.read_open_request(body), peer)
            case wire.LoginStep(kind=PayloadKind.RAKP_1, body=body):
                return self._challenge(wire.read_rakp1(body))
            case wire.LoginStep(body=body):
                return self._admit(wire.read_rakp3(body))
            case wire.Sealed() as sealed:
                return self._in_session(sealed)

    def _forget_idle_sessions(self) -> None:
        now = self._clock()
        for session_id, session in list(self._table.items()):
            if now - session.used_at >= (LOGIN_IDLE_S if session.keys is None else SESSION_IDLE_S):
                del self._table[session_id]

    def _open(self, request: wire.OpenRequest, peer: tuple[Any, ...]) -> bytes:
        """Open Session request: take a line of the table."""
        answer = partial(wire.write_login_answer, PayloadKind.OPEN_RESPONSE, request.tag)
        try:
            suite, session_id = _choose_suite(request), self._line_for(request, peer)
        except _Refused as refused:
            return answer(refused.code, request.console_id)
        privilege_max = request.privilege or _ADMINISTRATOR
        self._table[session_id] = _Session(
            console_id=request.console_id,
            suite=suite,
            peer=peer,
            privilege_max=privilege_max,
            used_at=self._clock(),
            bmc_random=secrets.token_bytes(wire.RANDOM_BYTES),
        )
        body = session_id.to_bytes(4, "little") + request.accepted()
        return answer(Status.GOOD, request.console_id, privilege=privilege_max, body=body)

    def _line_for(self, request: wire.OpenRequest, peer: tuple[Any, ...]) -> int:
        for session_id, session in self._table.items():
            # The console asks again because an answer was lost: that must not take a second line.
            if session.login is None and (session.peer, session.console_id) == (peer, request.console_id):
                return session_id
        if len(self._table) >= SESSIONS_MAX:
            raise _Refused(Status.INSUFFICIENT_RESOURCES)
        while (session_id := secrets.randbits(32)) in self._table or session_id == 0:
            pass
        return session_id

    def _challenge(self, rakp1: wire.Rakp1) -> bytes:
        """RAKP message 1: whom the console claims to be."""
        session = self._table.get(rakp1.session_id)
        if session is None or session.keys is not None:
            raise Malformed
        answer = partial(wire.write_login_answer, PayloadKind.RAKP_2, rakp1.tag)
        try:
            session.privilege_max = min(session.privilege_max, self._check_claim(rakp1))
        except _Refused as refused:
            del self._table[rakp1.session_id]
            return answer(refused.code, session.console_id)
        session.used_at = self._clock()
        session.login = login = wire.Login(
            suite=session.suite,
            console_id=session.console_id,
            session_id=rakp1.session_id,
            console_random=rakp1.console_random,
            bmc_random=session.bmc_random,
            guid=self._guid,
            role=rakp1.role,
            user=rakp1.user,
            password=self._password,
        )
        return answer(Status.GOOD, session.console_id, body=login.bmc_random + login.guid + login.rakp2_code())

    def _check_claim(self, rakp1: wire.Rakp1) -> int:
        """The privilege that the console may get."""
        wanted = rakp1.role & 0x0F
        if not _CALLBACK <= wanted <= _ADMINISTRATOR:
            raise _Refused(Status.INVALID_ROLE)
        if rakp1.user != self._user:
            raise _Refused(Status.UNAUTHORIZED_NAME)
        return wanted

    def _admit(self, rakp3: wire.Rakp3) -> bytes:
        """RAKP message 3: whether the console knows the password."""
        session = self._table.get(rakp3.session_id)
        if session is None or session.login is None:
            raise Malformed
        answer = partial(wire.write_login_answer, PayloadKind.RAKP_4, rakp3.tag)
        proven = rakp3.status == Status.GOOD and hmac.compare_digest(rakp3.code, session.login.rakp3_code())
        if not proven and session.keys is not None:
            raise Malformed  # a forged packet must not end somebody's session
        if not proven:
            del self._table[rakp3.session_id]
            return answer(Status.INVALID_INTEGRITY_CHECK, session.console_id)
        if session.keys is None:  # else our answer was lost, and the console asks again
            session.keys = session.login.keys()
            session.privilege = min(session.privilege_max, _USER)  # section 22.18: where every session begins
            session.used_at = self._clock()
            self.logins += 1
        return answer(Status.GOOD, session.console_id, body=session.login.rakp4_code())

    def _in_session(self, sealed: wire.Sealed) -> bytes:
        session = self._table.get(sealed.session_id)
        if session is None or session.keys is None:
            raise Malformed
        message = wire.unseal(sealed, session.keys)
        if not session.window.admits(sealed.sequence):
            raise Malformed
        session.used_at = self._clock()
        reply = self._obey(message, session)
        session.sequence_sent += 1
        return wire.seal(reply, session.keys, session_id=session.console_id, sequence=session.sequence_sent)

    def _obey(self, message: bytes, session: _Session | None) -> bytes:
        """Carry out one message and return the answer; `session` is None outside any."""
        request = wire.read_request(message)
        try:
            return wire.write_reply(request, _GOOD, self._carry_out(request, session))
        except _Refused as refused:
            return wire.write_reply(request, refused.code)

    def _carry_out(self, request: wire.Request, session: _Session | None) -> bytes:
        rule = _COMMANDS.get((request.function, request.command))
        if rule is None:
            raise _Refused(_INVALID_COMMAND)
        privilege, length = rule
        if (session.privilege if session is not None else _NOBODY) < privilege:
            raise _Refused(_INSUFFICIENT_PRIVILEGE)
        data = request.data
        if len(data) != length:
            raise _Refused(_INVALID_LENGTH)
        match request.function, request.command:
            case 0x00, 0x01:  # power, last power event, other state
                return bytes([self._chassis.power_is_on(), 0, 0])
            case 0x00, 0x02:
                return self._control_chassis(data[0] & 0x0F)
            case 0x06, 0x01:
                return _DEVICE_ID
            case 0x06, 0x37:
                return self._guid
            case 0x06, 0x38:
                return _authentication_capabilities(data)
            case 0x06, 0x54:
                return _cipher_suites(data)
            case 0x06, 0x3B if session is not None:
                return _set_privilege(session, data[0] & 0x0F)
            case 0x06, 0x3C if session is not None:
                return self._close_session(data, session)
        raise AssertionError(f"command {request.command:#04x} is in the table, but nothing carries it out")

    def _control_chassis(self, order: int) -> bytes:
        """Chassis Control (section 28.3): 0 off, 1 on, 2 cycle, 3 reset; the last two need the power on."""
        match order:
            case 0 | 1:
                self._chassis.order_power(order == 1)
            case 2 | 3 if self._chassis.power_is_on():
                self._chassis.order_power(False)
                self._chassis.order_power(True)
            case 2 | 3:
                raise _Refused(_NOT_IN_PRESENT_STATE)
            case _:
                raise _Refused(_INVALID_FIELD)
        return b""

    def _close_session(self, data: bytes, session: _Session) -> bytes:
        """Close Session (section 22.19): the own one, or as administrator any."""
        session_id = int.from_bytes(data, "little")
        other = self._table.get(session_id)
        if other is None:
            raise _Refused(_NO_SUCH_SESSION)
        if other is not session and session.privilege < _ADMINISTRATOR:
            raise _Refused(_INSUFFICIENT_PRIVILEGE)
        del self._table[session_id]
        return b""


def _choose_suite(request: wire.OpenRequest) -> wire.Suite:
    """The suite that an Open Session request proposes."""
    if request.privilege > _ADMINISTRATOR:
        raise _Refused(Status.INVALID_ROLE)
    for suite in wire.SUITES:
        if request.algorithms == suite.algorithms:
            return suite
    raise _Refused(Status.NO_SUITE_MATCHES)


def _authentication_capabilities(data: bytes) -> bytes:
    """Get Channel Authentication Capabilities (section 22.13): RMCP+ only, users have names, no Kg."""
    if data[0] & 0x0F not in _CHANNELS or not _CALLBACK <= data[1] & 0x0F <= _ADMINISTRATOR:
        raise _Refused(_INVALID_FIELD)
    rmcp_plus_asked = bool(data[0] & 0x80)
    return bytes([_LAN_CHANNEL, 0x80 if rmcp_plus_asked else 0, 0x04, 0x02 if rmcp_plus_asked else 0, 0, 0, 0, 0])


def _cipher_suites(data: bytes) -> bytes:
    """Get Channel Cipher Suites (section 22.15): 16 bytes of the list, the ones that the index asks for."""
    if data[0] & 0x0F not in _CHANNELS or data[1] & 0x3F != PayloadKind.IPMI or not data[2] & 0x80:
        raise _Refused(_INVALID_FIELD)  # the other kind of list, single algorithms, nobody asks for
    start = 16 * (data[2] & 0x3F)
    return bytes([_LAN_CHANNEL]) + b"".join(suite.record for suite in wire.SUITES)[start : start + 16]


def _set_privilege(session: _Session, level: int) -> bytes:
    """Set Session Privilege Level (section 22.18); level 0 only asks."""
    if level in (_USER, _OPERATOR, _ADMINISTRATOR):
        if level > session.privilege_max:
            raise _Refused(_LEVEL_ABOVE_LIMIT)
        session.privilege = level
    elif level:
        raise _Refused(_LEVEL_NOT_AVAILABLE)
    return bytes([session.privilege])
