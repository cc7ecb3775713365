"""The table about the doors for people and programs: where they are, and who may come in as what."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator

from ha_controller.config.values import (
    AbsolutePath,
    Listen,
    LiteralAddress,
    Section,
    SocketPath,
    count_between,
    listen_at,
)
from ha_controller.durations import Duration, duration_field

RoleName = Literal["viewer", "operator", "admin"]
GroupName = Annotated[str, Field(min_length=1)]
HeaderName = Annotated[str, Field(pattern="^[A-Za-z0-9-]{1,100}$")]


class Api(Section):
    """The doors for people and programs: this machine's own socket, TCP, and pages for everybody."""

    socket: SocketPath = Path("/run/ha-controller/ha-controller.sock")
    listen: Listen = ""  #: address:port; empty: the socket alone
    tls_cert: AbsolutePath | Literal[""] = ""  #: with the chain, PEM
    tls_key: AbsolutePath | Literal[""] = Field("", validate_default=True)
    insecure: StrictBool = Field(
        False, validate_default=True
    )  #: the operator wants tokens and passwords to travel unencrypted
    groups: dict[GroupName, RoleName] = Field(
        default_factory=lambda: dict[str, RoleName](oneadmin="admin")
    )  #: of OpenNebula users that log in: the primary group's name, or any group's number
    session_s: Duration = duration_field("12h", key="session")  #: then a person logs in again
    proxies: tuple[LiteralAddress, ...] = ()  #: reverse proxies that log people in; their headers are believed
    proxy_user_header: HeaderName = "X-Forwarded-User"
    proxy_groups_header: HeaderName = "X-Forwarded-Groups"
    proxy_groups: dict[GroupName, RoleName] = Field(default_factory=dict)
    metrics_address: LiteralAddress = "127.0.0.1"
    metrics_port: Annotated[int, count_between(0, 65535)] = 0  #: 0: they are served over the socket only
    metrics_open: StrictBool = Field(
        False, validate_default=True
    )  #: the operator wants names of hosts readable without a login from elsewhere

    @field_validator("tls_key")
    @classmethod
    def _belongs_to_a_certificate(cls, key: Path | str, info: ValidationInfo) -> Path | str:
        if bool(key) != bool(info.data.get("tls_cert")):
            raise ValueError("goes with api.tls_cert. Set both, or none")
        return key

    @field_validator("insecure")
    @classmethod
    def _is_encrypted_or_stays_here(cls, insecure: bool, info: ValidationInfo) -> bool:
        listen, is_plain = info.data.get("listen"), not info.data.get("tls_cert")
        if listen and is_plain and not insecure and not ip_address(listen_at(listen)[0]).is_loopback:
            raise ValueError(
                f"must be true to serve {listen} without TLS: passwords and tokens would be readable on the network. "
                "Better set api.tls_cert and api.tls_key"
            )
        return insecure

    @field_validator("metrics_open")
    @classmethod
    def _is_loopback_or_wanted(cls, wanted: bool, info: ValidationInfo) -> bool:
        address = ip_address(str(info.data.get("metrics_address", "127.0.0.1")))
        if info.data.get("metrics_port") and not address.is_loopback and not wanted:
            raise ValueError(f"must be true for an address that others reach ({address}): the pages need no login")
        return wanted
