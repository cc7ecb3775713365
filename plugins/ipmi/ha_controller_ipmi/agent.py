"""The IPMI fence agent: asks a BMC for one thing at a time, in a fresh session each time.

A fresh session costs a few packets and buys much: none goes stale, every reading comes from the BMC of now, and a BMC
that no longer accepts the login says so. At most one session per agent is open at a time, because BMCs allow only a
handful. The agent never verifies a power-off, never repeats an order on its own account (lost packets are repeated by
the protocol) and sets no deadline: that is the controller's work.

The settings come from the controller's configuration. Passwords go into HMACs only, never on the wire, into a log or an
error text.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import anyio
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    Identity,
    PowerState,
    Rejected,
)
from ha_controller_ipmi.rmcp import NETFN_APP, NETFN_CHASSIS, Credentials
from ha_controller_ipmi.session import IpmiSession, open_session

_GET_CHASSIS_STATUS: Final = 0x01
_CHASSIS_CONTROL: Final = 0x02
_GET_SYSTEM_GUID: Final = 0x37
_GET_SESSION_INFO: Final = 0x3D
_GET_USER_ACCESS: Final = 0x44
_THIS_SESSION: Final = b"\x00"
_THIS_CHANNEL: Final = 0x0E
_POWER_DOWN: Final = b"\x00"  #: hard: the operating system is not asked (IPMI 2.0 table 28-4)
_POWER_UP: Final = b"\x01"

_PRIVILEGE_LEVELS: Final = {"operator": 3, "administrator": 4}
_LEVELS_WITH_CHASSIS_CONTROL: Final = frozenset({3, 4, 5})  #: operator, administrator, maker's own
_USERNAME_BYTES_MAX: Final = 16
_PASSWORD_BYTES_MAX: Final = 20  #: IPMI 2.0; also the length of Kg
_GUID_BYTES: Final = 16
_CHASSIS_STATUS_BYTES: Final = 3  #: of which the last may be followed by a fourth


def _require_short_username(username: str) -> str:
    if len(username.encode()) > _USERNAME_BYTES_MAX:
        raise ValueError(f"IPMI user names have at most {_USERNAME_BYTES_MAX} bytes")
    return username


class IpmiConfig(AgentConfig):
    """Settings of one BMC."""

    model_config = ConfigDict(hide_input_in_errors=True)  # an error about the password must not quote it

    address: Annotated[str, Field(min_length=1)]  #: IPv4 or IPv6 literal (better), or a name
    port: Annotated[int, Field(ge=1, le=65535)] = 623
    username: Annotated[str, AfterValidator(_require_short_username)]
    password: SecretStr
    kg: SecretStr | None = None  #: the BMC's key, when it has one: text, or 0x and hexadecimal digits
    privilege: Literal["operator", "administrator"] = "operator"  #: chassis control needs operator

    @field_validator("password")
    @classmethod
    def _require_short_password(cls, password: SecretStr) -> SecretStr:
        if len(password.get_secret_value().encode()) > _PASSWORD_BYTES_MAX:
            raise ValueError(f"IPMI passwords have at most {_PASSWORD_BYTES_MAX} bytes")
        return password

    @field_validator("kg")
    @classmethod
    def _require_usable_kg(cls, kg: SecretStr | None) -> SecretStr | None:
        try:
            key = _kg_bytes(kg) or b""
        except ValueError:
            raise ValueError("after 0x, kg takes pairs of hexadecimal digits only") from None
        if len(key) > _PASSWORD_BYTES_MAX:
            raise ValueError(f"kg has at most {_PASSWORD_BYTES_MAX} bytes")
        return kg


class IpmiAgent(FenceAgent[IpmiConfig]):
    """Controls a host's power through its BMC, over IPMI 2.0 (RMCP+) with cipher suite 17 or 3."""

    kind: ClassVar[str] = "ipmi"
    config_model: ClassVar[type[AgentConfig]] = IpmiConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.POWER_ON | Capability.IDENTITY

    def __init__(self, config: IpmiConfig) -> None:
        super().__init__(config)
        self._one_session = anyio.Lock()

    async def power_off(self) -> None:
        """Order the chassis power down, hard; returns when the BMC accepted the order.

        Raises:
            AccessDenied, Rejected: nothing was done.
            FenceError: the outcome is unknown.
        """
        async with self._session() as session:
            await session.command(NETFN_CHASSIS, _CHASSIS_CONTROL, _POWER_DOWN)

    async def power_on(self) -> None:
        """Order the chassis power up; errors as for `power_off`."""
        async with self._session() as session:
            await session.command(NETFN_CHASSIS, _CHASSIS_CONTROL, _POWER_UP)

    async def power_state(self) -> PowerState:
        """Read the chassis power.

        Raises:
            FenceError: nothing could be read.
        """
        async with self._session() as session:
            return (await _chassis_status(session)).power

    async def check(self) -> CheckReport:
        """Log in at the configured privilege level, read the chassis status and the account's limit. Changes nothing.

        Chassis control needs the operator level (IPMI 2.0 appendix G). Most BMCs refuse the login of an account that
        may not have it; some let it in and refuse the order later, hence the look at the account.

        Raises:
            AccessDenied: wrong user, password or Kg, or the user may not have the privilege level.
            FenceError: the BMC did not answer as it should.
        """
        async with self._session() as session:
            status = await _chassis_status(session)
            limit = await _account_privilege_limit(session)
            suite = session.cipher_suite
        if limit is not None and limit not in _LEVELS_WITH_CHASSIS_CONTROL:
            return CheckReport(
                ok=False,
                summary="the account may not switch the power: raise its privilege on the BMC to operator",
                power=status.power,
            )
        notes = [f"logged in as {self.config.privilege}, cipher suite {suite}", f"power {status.power.value}"]
        if status.control_fault:
            notes.append("the BMC reports that its last power order failed")
        if not _is_literal(self.config.address):
            notes.append("the address is a name, so fencing depends on DNS: use the literal address")
        return CheckReport(ok=True, summary="; ".join(notes), power=status.power)

    async def identity(self) -> Identity | None:
        """Ask for the system's GUID; None when the BMC has none or does not know the command.

        Raises:
            FenceError: the BMC did not answer as it should.
        """
        async with self._session() as session:
            try:
                guid = await session.command(NETFN_APP, _GET_SYSTEM_GUID)
            except Rejected as refusal:
                if refusal.retryable:
                    raise
                return None
        system_uuid = system_uuid_from_guid(guid)
        return None if system_uuid is None else Identity(system_uuid=system_uuid)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[IpmiSession]:
        credentials = Credentials(
            username=self.config.username.encode(),
            password=self.config.password.get_secret_value().encode(),
            kg=_kg_bytes(self.config.kg),
            privilege=_PRIVILEGE_LEVELS[self.config.privilege],
        )
        async with self._one_session, open_session(self.config.address, self.config.port, credentials) as session:
            yield session


def system_uuid_from_guid(guid: bytes) -> str | None:
    """Return the UUID as the host's /sys/class/dmi/id/product_uuid shows it; None for an unset GUID.

    BMCs hand out the 16 bytes as they stand in the SMBIOS table: the first three fields little-endian, the rest in
    order (SMBIOS specification, 7.2.1 "System UUID"). Linux (`%pUl` in ipmi_msghandler) and pyghmi read them so. IPMI
    2.0 section 20.8 asks for all 16 bytes reversed; a BMC that does so matches no host here, and proves nothing.

    Raises:
        FenceError: the answer is not 16 bytes long.
    """
    if len(guid) != _GUID_BYTES:
        raise FenceError(f"the BMC answered a system GUID of {len(guid)} bytes instead of {_GUID_BYTES}")
    if guid in (bytes(_GUID_BYTES), b"\xff" * _GUID_BYTES):
        return None
    return str(uuid.UUID(bytes_le=guid))


@dataclass(frozen=True, kw_only=True, slots=True)
class _ChassisStatus:
    power: PowerState
    control_fault: bool  #: the BMC tried to switch the power and the chassis did not follow


async def _chassis_status(session: IpmiSession) -> _ChassisStatus:
    """Read the first byte of Get Chassis Status (IPMI 2.0 table 28-3): bit 0 power is on, bit 4 control fault."""
    answer = await session.command(NETFN_CHASSIS, _GET_CHASSIS_STATUS)
    if len(answer) < _CHASSIS_STATUS_BYTES:  # a part of it could read as OFF
        raise FenceError(f"the BMC answered a chassis status of {len(answer)} bytes")
    return _ChassisStatus(
        power=PowerState.ON if answer[0] & 0x01 else PowerState.OFF, control_fault=bool(answer[0] & 0x10)
    )


async def _account_privilege_limit(session: IpmiSession) -> int | None:
    """Ask which privilege level our account may have at most (15: none); None when the BMC does not tell.

    Get Session Info holds our user id in the low six bits of its fourth byte, Get User Access the limit in the low four
    bits of its fourth byte (IPMI 2.0, 22.20 and 22.27).
    """
    try:
        session_info = await session.command(NETFN_APP, _GET_SESSION_INFO, _THIS_SESSION)
        user_id = session_info[3] & 0x3F
        user_access = await session.command(NETFN_APP, _GET_USER_ACCESS, bytes((_THIS_CHANNEL, user_id)))
        return user_access[3] & 0x0F
    except (Rejected, AccessDenied, IndexError):
        return None


def _kg_bytes(kg: SecretStr | None) -> bytes | None:
    if kg is None:
        return None
    text = kg.get_secret_value()
    return bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()


def _is_literal(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
