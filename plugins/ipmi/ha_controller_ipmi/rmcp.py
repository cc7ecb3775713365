"""pyghmi's IPMI 2.0 protocol code with the input and output taken out.

`Rmcp` inherits RAKP, the HMACs, AES, retries and the choice of the cipher suite (17, then 3) from pyghmi's private
`Session` and replaces what would open sockets, start threads or wait. Packets come in through `feed`, time through
`wake`; packets, timers and results go out through a `Wire`. It never blocks, and after `end` it sends nothing.

What comes out of the network is hostile. pyghmi answers odd bytes with struct.error, IndexError, TypeError,
AssertionError or its own exceptions; all of them become a `FenceError` here, and nowhere else.

Why not pyghmi as it is: it shares sockets, locks and a thread between all BMCs and deadlocks when packets are lost. The
price is that `_prepare` repeats the attributes that `Session.__init__` would set; hence the upper bound on pyghmi's
version, and tests against a real BMC simulator.
"""

from __future__ import annotations

import logging
import secrets
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pyghmi.ipmi.private.session import Session
from pyghmi.ipmi.private.util import get_ipmi_error

from ha_controller.plugin import AccessDenied, FenceError, Unreachable
from ha_controller_ipmi.errors import completion_error, login_error

logger = logging.getLogger(__name__)

NETFN_CHASSIS: Final = 0x00
NETFN_APP: Final = 0x06
_SET_SESSION_PRIVILEGE: Final = 0x3B
_CLOSE_SESSION: Final = 0x3C

#: Headers of RMCP and session, and of a login message the tag and the status.
_SHORTEST_BYTES: Final = 18
_RMCP_PLUS: Final = 6  #: the authentication type of every packet after the first exchange
#: What pyghmi keeps with a packet: contents, sender, receiving socket. It looks at the socket only to find out whether
#: it is itself the BMC; None is in no table of it.
_QUEUE_ENTRY: Final = (None, None, None)
#: Fresh starts of a login whose packets get lost. Alone they end after about 10 s; callers set shorter deadlines.
_LOGIN_RETRIES: Final = 3
#: A retry waits one second longer than the one before; beyond this many seconds pyghmi gives up.
_LOGIN_WAIT_MAX_S: Final = 2
_COMMAND_WAIT_MAX_S: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Who logs in, in the bytes that go into the HMACs."""

    username: bytes
    password: bytes = field(repr=False)
    kg: bytes | None = field(repr=False)  #: the BMC's own key; None when it has none and the password stands in
    privilege: int  #: 3 operator, 4 administrator


class Wire(Protocol):
    """The world of one `Rmcp`."""

    def send(self, packet: bytes) -> None:
        """Send one datagram to the BMC."""

    def wake_after(self, delay_s: float | None) -> None:
        """Call `wake` once after this time, and forget the time asked for before. None: only forget."""

    def succeed(self, data: bytes) -> None:
        """Take the answer to the login (empty) or to the command (without its completion code)."""

    def fail(self, error: FenceError) -> None:
        """Take the failure of the login or the command."""


class Rmcp(Session):  # type: ignore[misc]  # pyghmi has no type hints
    """One IPMI session: `log_in`, then any number of `command`, one at a time, then `end`."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Rmcp:
        """Skip pyghmi's own, which resolves names while everything waits and hands out shared sessions."""
        return object.__new__(cls)

    def __init__(self, credentials: Credentials, wire: Wire, bmc_name: str) -> None:
        self._wire = wire
        self._bmc_name = bmc_name  #: begins every error text
        self._ended = False
        self._login_status = 0  #: the last RMCP+ status; tells why a login failed
        self._prepare(credentials)

    # --- what the asyncio side calls ----------------------------------------------------------------------------------

    @property
    def cipher_suite(self) -> int:
        """Number of the cipher suite in use: 17 (SHA-256) or 3 (SHA-1)."""
        return 17 if self.attemptedhash == 256 else 3

    def log_in(self) -> None:
        """Start the login; it ends in `Wire.succeed` with the privilege level raised, or in `Wire.fail`."""
        self._guarded(self.login)

    def command(self, netfn: int, command: int, data: bytes) -> None:
        """Send a command; its answer comes through the `Wire`."""

        def answered(response: dict[str, Any]) -> None:
            error = self._response_error(netfn, command, response)
            if error is None:
                self._wire.succeed(bytes(response["data"]))
            else:
                self._wire.fail(error)

        self.ipmicallback = answered
        self._guarded(lambda: self._send_ipmi_net_payload(netfn, command, data))

    def feed(self, datagram: bytes) -> None:
        """Take a datagram from the BMC's address. What cannot belong to this session is dropped."""
        if not self._ended and self._is_plausible(datagram):
            packet = bytearray(datagram)  # pyghmi cuts it up in place
            self._guarded(lambda: self._handle_ipmi_packet(packet, qent=_QUEUE_ENTRY))

    def wake(self) -> None:
        """Repeat what was not answered in time, or give up."""
        if not self._ended:
            self._guarded(self._timedout)

    def end(self) -> None:
        """Tell the BMC that the session is over, once and without waiting, and never send again."""
        if self._ended:
            return
        if self.sessioncontext == "ESTABLISHED":
            self.lastpayload = None  # else pyghmi would queue the farewell behind an unanswered command
            self._guarded(
                lambda: self._send_ipmi_net_payload(
                    NETFN_APP, _CLOSE_SESSION, struct.pack("<I", self.sessionid), retry=False
                )
            )
        self._stop()

    # --- what pyghmi calls --------------------------------------------------------------------------------------------

    def login(self) -> None:
        """Begin from the start, with all tries."""
        self.logontries = _LOGIN_RETRIES
        self._initsession()
        self._get_channel_auth_cap()

    def onlogon(self, parameter: dict[str, str]) -> None:
        """Hear from pyghmi that the login failed. (Success is found in `_req_priv_level`.)"""
        self._give_up(login_error(self._login_status, self._text(parameter["error"])))

    def _initsession(self) -> None:
        super()._initsession()
        # pyghmi's session id is a constant; a random one must be guessed by whoever forges answers.
        self.localsid = 1 + secrets.randbelow(2**31)

    def _relog(self) -> None:
        # pyghmi counts below zero and would try for ever when packets are lost in the later steps of a login.
        if self.logontries <= 0:
            self._mark_broken()
            return
        super()._relog()

    def _got_rmcp_response(self, data: bytearray) -> Any:
        self._login_status = data[1]
        return super()._got_rmcp_response(data)

    def _got_rakp2(self, data: bytearray) -> Any:
        self._login_status = data[1]
        return super()._got_rakp2(data)

    def _got_rakp4(self, data: bytearray) -> Any:
        self._login_status = data[1]
        return super()._got_rakp4(data)

    def _got_channel_auth_cap(self, response: dict[str, Any]) -> None:
        error = self._response_error(NETFN_APP, 0x38, response)
        if error is None:
            super()._got_channel_auth_cap(response)
        else:
            self._give_up(error)

    def _get_session_challenge(self) -> None:
        # IPMI 1.5 proves neither the BMC nor its answers; pyghmi would fall back to it when an unsigned packet says so.
        self._give_up(FenceError(self._text("does not offer IPMI 2.0; older versions are not supported")))

    def _req_priv_level(self) -> None:
        self.logged, self.logging = 1, False
        self.maxtimeout = _COMMAND_WAIT_MAX_S
        self.logontries = 0  # a session that breaks later is over; it is never rebuilt behind the caller's back

        def answered(response: dict[str, Any]) -> None:
            error = self._response_error(NETFN_APP, _SET_SESSION_PRIVILEGE, response)
            if error is None and response["data"][0] & 0x0F < self.privlevel:
                error = AccessDenied(self._text("granted a lower privilege level than asked for"))
            if error is None:
                self._wire.succeed(b"")
            else:
                self._give_up(error)

        self.ipmicallback = answered
        self._send_ipmi_net_payload(NETFN_APP, _SET_SESSION_PRIVILEGE, [self.privlevel])

    def _parse_payload(self, payload: bytearray) -> None:
        self._wire.wake_after(None)
        super()._parse_payload(payload)

    def _xmit_packet(self, retry: bool = True, delay_xmit: float | None = None, timeout: float | None = None) -> None:
        if self._ended:
            return
        if self.sequencenumber:  # zero is the number of packets outside a session and stays
            self.sequencenumber += 1
        self._wire.wake_after((timeout or self.timeout) if retry else None)
        if delay_xmit is None:
            self._wire.send(bytes(self.netpacket))

    def _mark_broken(self, error: str | None = None) -> None:
        self._give_up(Unreachable(self._text(error or "no answer")))

    def logout(self, sessionok: bool = True) -> None:
        """Do nothing: `end` closes the session, pyghmi's own would wait and count shared sockets."""

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _is_plausible(self, datagram: bytes) -> bool:
        """Look at the headers: an IPMI message over RMCP, and RMCP+ once that was agreed on.

        pyghmi notes the sequence number of an unsigned IPMI 1.5 packet before it drops it, and then takes true answers
        for old ones. What it hears of RMCP+ is either for this stage of the login or signed.
        """
        if len(datagram) < _SHORTEST_BYTES or datagram[0] != 0x06 or datagram[2:4] != b"\xff\x07":
            return False
        return self.authtype != _RMCP_PLUS or datagram[4] == _RMCP_PLUS

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # the border to pyghmi and to whatever bytes the network sent
            logger.warning("%s: pyghmi could not handle an answer", self._bmc_name, exc_info=True)
            self._give_up(FenceError(self._text(f"sent an answer that makes no sense ({type(error).__name__})")))

    def _give_up(self, error: FenceError) -> None:
        if self._ended:  # pyghmi tells some failures twice
            return
        self.lastpayload = None
        self._wire.wake_after(None)
        if self.sessioncontext != "ESTABLISHED":  # else `end` still has a farewell to send
            self._stop()
        self._wire.fail(error)

    def _stop(self) -> None:
        self._ended = True
        self.broken = True
        self.lastpayload = None
        self.pendingpayloads.clear()
        self._wire.wake_after(None)

    def _response_error(self, netfn: int, command: int, response: dict[str, Any]) -> FenceError | None:
        words = get_ipmi_error(response)
        if not words:
            return None
        if "error" in response:  # pyghmi's own: it ran out of retries
            return Unreachable(self._text("no answer"))
        code = response["code"]
        return completion_error(netfn, command, code, self._text(f"{words} (completion code 0x{code:02x})"))

    def _text(self, words: str) -> str:
        return f"{self._bmc_name}: {words}"

    def _prepare(self, credentials: Credentials) -> None:
        """Set what `Session.__init__` of pyghmi 1.6 would set, minus sockets and the login."""
        self.userid = credentials.username
        self.password = credentials.password
        self.kg = credentials.password if credentials.kg is None else credentials.kg
        self.privlevel = credentials.privilege
        self.autopriv = False  # never a lower level than the configuration says
        self.nameonly = 16  # look the user up by name alone
        self.maxtimeout = _LOGIN_WAIT_MAX_S
        self.atomicop = threading.RLock()  # pyghmi takes it; it is never contended here
        self.bmc = self._bmc_name
        self.initialized, self.broken, self.cleaningup, self.servermode = True, False, False, False
        self.logged, self.logging, self.nowait = 0, False, False
        self.awaitingresponse, self.incommand, self.autokeepalive = False, False, False
        self.lastpayload = self.lastresponse = self.last_payload_type = None
        self.onlogpayload = self.onlogpayloadtype = self.logoutexpiry = self.errormsg = None
        self._customkeepalives = self.sol_handler = self.socket = None
        self.sessioncontext: str | None = None
        self.logonwaiters: list[object] = []
        self.request_entry: list[object] = []
        self.evq: deque[object] = deque()
        self.pktqueue: deque[object] = deque()
        self.pendingpayloads: deque[object] = deque()
