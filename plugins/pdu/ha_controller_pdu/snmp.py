"""SNMP requests over pysnmp: one value at a time, one request per PDU at a time, nothing sent after a cancellation.

pysnmp repeats packets by itself, also for a caller that is gone, and in version 3 sends an order only after it has
learned the PDU's clock. Both would let a cancelled power-off act later. So its own repeats are switched off and made
here, and every order is preceded by a reading, which does the learning; the order is then one packet, sent at once.

An engine of pysnmp costs 200 ms of CPU; it is built in a thread and kept as long as the event loop. There is one for
each version 3 account, because one engine mixes up accounts of the same name.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from pyasn1.type.univ import Integer
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch.asyncio import (
    USM_AUTH_HMAC96_MD5,
    USM_AUTH_HMAC96_SHA,
    USM_AUTH_HMAC128_SHA224,
    USM_AUTH_HMAC192_SHA256,
    USM_AUTH_HMAC256_SHA384,
    USM_AUTH_HMAC384_SHA512,
    USM_PRIV_CBC56_DES,
    USM_PRIV_CFB128_AES,
    USM_PRIV_CFB192_AES,
    USM_PRIV_CFB256_AES,
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    Udp6TransportTarget,
    UdpTransportTarget,
    UsmUserData,
    get_cmd,
    set_cmd,
)
from pysnmp.proto import errind
from pysnmp.proto.rfc1902 import Integer32, OctetString

from ha_controller.plugin import AccessDenied, FenceError, Rejected, Unreachable, addresses_of, one_line
from ha_controller_pdu.config import PduConfig

ANSWER_WITHIN_S: Final = 1.0
TRIES: Final = 3
_AUTH: Final = {
    "md5": USM_AUTH_HMAC96_MD5, "sha": USM_AUTH_HMAC96_SHA, "sha224": USM_AUTH_HMAC128_SHA224,
    "sha256": USM_AUTH_HMAC192_SHA256, "sha384": USM_AUTH_HMAC256_SHA384, "sha512": USM_AUTH_HMAC384_SHA512,
}  # fmt: skip
_PRIV: Final = {
    "des": USM_PRIV_CBC56_DES, "aes": USM_PRIV_CFB128_AES, "aes192": USM_PRIV_CFB192_AES, "aes256": USM_PRIV_CFB256_AES,
}  # fmt: skip
_DENIALS: Final = (
    errind.WrongDigest, errind.UnknownUserName, errind.UnsupportedSecurityLevel, errind.DecryptionError,
    errind.AuthenticationFailure, errind.AuthenticationError, errind.UnknownSecurityName,
)  # fmt: skip
#: RFC 3416: an order that ended so was not carried out
_NO_RIGHT: Final = frozenset({"noAccess", "authorizationError"})
_REFUSED: Final = frozenset(
    {"tooBig", "badValue", "wrongType", "wrongLength", "wrongEncoding", "wrongValue", "noCreation",
     "inconsistentValue", "inconsistentName"}
)  # fmt: skip

_engines: RunVar[dict[str, SnmpEngine]] = RunVar("SNMP engines")
_locks: RunVar[dict[tuple[str, int], anyio.Lock]] = RunVar("one request per PDU")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reply:
    """What a PDU answered."""

    value: Any = None
    refusal: str = ""  #: the error status, or what is wrong with the account
    denied: bool = False  #: the account is not taken
    repeated: bool = False  #: earlier packets got no answer, and may have been carried out


@dataclass(frozen=True, kw_only=True, slots=True)
class Pdu:
    """A PDU and who we are there."""

    address: str
    config: PduConfig

    @property
    def _name(self) -> str:
        return f"PDU {self.address}"

    async def read_number(self, oid: str) -> int | None:
        """Read an integer; None when the PDU has no such object.

        Raises:
            Unreachable, AccessDenied, FenceError: it could not be read.
        """
        value = await self._get(oid)
        if value is None:
            return None
        if not isinstance(value, Integer):  # base of all numbers of SNMP; a text of digits is none
            raise FenceError(f"{self._name}: {oid} is no number")
        return int(value)

    async def read_text(self, oid: str) -> str | None:
        """Read a text; None when the PDU has no such object. Errors as for `read_number`."""
        value = await self._get(oid)
        if value is None:
            return None
        if not isinstance(value, OctetString):  # bytes() of a number would be as many zeros
            raise FenceError(f"{self._name}: {oid} is no text")
        return one_line(bytes(value).decode("utf-8", "replace"))

    async def write(self, oid: str, value: int) -> None:
        """Write an integer. Call it after a reading: see above.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown, also when a repeated order is refused: the first may have acted.
        """
        reply = await self._asked(set_cmd, ObjectType(ObjectIdentity(oid), Integer32(value)))
        status = reply.refusal
        if not status:
            return
        if reply.repeated:
            raise FenceError(f"{self._name}: refused the repeated order ({status}), and did not answer the first")
        if reply.denied or status in _NO_RIGHT:
            raise AccessDenied(f"{self._name}: the account may not write ({status})")
        if status in ("noSuchName", "readOnly", "notWritable"):
            raise Rejected(
                f"{self._name}: {oid} cannot be written ({status}): the account may only read, or the model is wrong"
            )
        if status in _REFUSED:
            raise Rejected(f"{self._name}: refused {oid} = {value} ({status})")
        raise FenceError(f"{self._name}: {status} to {oid} = {value}")

    async def _get(self, oid: str) -> Any:
        reply = await self._asked(get_cmd, ObjectType(ObjectIdentity(oid)))
        if reply.refusal == "noSuchName":
            return None  # version 1
        if reply.denied or reply.refusal in _NO_RIGHT:
            raise AccessDenied(f"{self._name}: the account may not read {oid} ({reply.refusal})")
        if reply.refusal:
            raise FenceError(f"{self._name}: {reply.refusal} to {oid}")
        # versions 2c and 3 answer a missing object with a value of a special type
        missing = type(reply.value).__name__ in ("NoSuchObject", "NoSuchInstance", "EndOfMibView", "Null")
        return None if missing else reply.value

    async def _asked(self, command: Any, question: ObjectType) -> _Reply:
        """Ask one question, again when there is no answer; other hosts of the PDU may ask in between."""
        target, engine = await self._target(), await _engine_for(self.config)
        for attempt in range(TRIES):
            async with _lock_of(self.address, self.config.port):
                try:
                    failure, status, _, values = await command(
                        engine, _account(self.config), target, ContextData(), question, lookupMib=False
                    )
                except (PySnmpError, OSError) as error:
                    raise Unreachable(f"{self._name}: {type(error).__name__}") from None
            if isinstance(failure, errind.RequestTimedOut):
                continue
            if isinstance(failure, _DENIALS):
                return _Reply(refusal=str(failure), denied=True, repeated=attempt > 0)
            if failure is not None:
                raise FenceError(f"{self._name}: {failure}")
            if int(status):
                return _Reply(refusal=str(status.prettyPrint()), repeated=attempt > 0)
            if len(values) != 1:
                raise FenceError(f"{self._name}: answered {len(values)} values to one question")
            return _Reply(value=values[0][1])
        hint = "" if self.config.version == "3" else ", or it does not know the community"
        raise Unreachable(f"{self._name}: no answer{hint}")

    async def _target(self) -> UdpTransportTarget | Udp6TransportTarget:
        family, sockaddr = (await addresses_of(self.address, self.config.port, socket.SOCK_DGRAM))[0]
        kind = Udp6TransportTarget if family == socket.AF_INET6 else UdpTransportTarget
        return await kind.create((sockaddr[0], self.config.port), timeout=ANSWER_WITHIN_S, retries=0)


def close_engines() -> None:
    """Close the sockets of this event loop's engines; for those who end a loop and go on."""
    for engine in _engines.get({}).values():
        engine.close_dispatcher()
    _engines.set({})


def _lock_of(address: str, port: int) -> anyio.Lock:
    """Many PDUs answer one request at a time. Hosts that share one wait for each other; at a dead one, in vain."""
    locks = _locks.get({})
    _locks.set(locks)
    return locks.setdefault((address, port), anyio.Lock())


async def _engine_for(config: PduConfig) -> SnmpEngine:
    account = _account(config)
    secret = [p.get_secret_value() for p in (config.auth_password, config.priv_password) if p is not None]
    key = (
        ""
        if isinstance(account, CommunityData)
        else repr((config.username, secret, config.auth_protocol, config.priv_protocol))
    )
    engines = _engines.get({})
    _engines.set(engines)
    if key not in engines:
        made = await anyio.to_thread.run_sync(SnmpEngine, abandon_on_cancel=True)
        engines.setdefault(key, made)
    return engines[key]


def _account(config: PduConfig) -> CommunityData | UsmUserData:
    if config.version != "3":
        assert config.community is not None
        return CommunityData(config.community.get_secret_value(), mpModel=0 if config.version == "1" else 1)
    assert config.auth_password is not None
    private = {}
    if config.priv_password is not None:
        private = {"privKey": config.priv_password.get_secret_value(), "privProtocol": _PRIV[config.priv_protocol]}
    return UsmUserData(
        config.username,
        authKey=config.auth_password.get_secret_value(),
        authProtocol=_AUTH[config.auth_protocol],
        **private,
    )
