"""Settings of the outlets that feed one host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from ha_controller.plugin import AgentConfig
from ha_controller_pdu.models import OutletModel, Override, known_models

_OUTLET: Final = re.compile(r"(?:(?P<address>[^/\s]+)/)?(?P<index>\d+(\.\d+)*)")
V3_PASSWORD_MIN: Final = 8  #: RFC 3414, 11.2


def _listed(written: Any) -> Any:
    """Let a list be written as text too, so that it can come from one attribute of the host."""
    if isinstance(written, int) and not isinstance(written, bool):
        return [str(written)]
    if isinstance(written, str):
        return [part for part in re.split(r"[,;]\s*|\s+", written.strip()) if part]
    return [str(part) if isinstance(part, int) else part for part in written] if isinstance(written, list) else written


def _names(written: Any) -> Any:
    """As `_listed`, but a name may contain blanks."""
    return [part.strip() for part in written.split(",") if part.strip()] if isinstance(written, str) else written


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlet:
    """One outlet of one PDU."""

    address: str
    number: str  #: as the operator wrote it
    index: str  #: as the PDU knows it
    name: str | None  #: what the PDU must call it

    def __str__(self) -> str:
        """For people."""
        return f"outlet {self.number} of PDU {self.address}"


class PduConfig(AgentConfig):
    """Settings of the outlets that feed one host."""

    address: str | None = None  #: of the PDU; an outlet may name another one
    port: Annotated[int, Field(ge=1, le=65535)] = 161
    model: str
    outlets: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1, max_length=32)]
    names: Annotated[
        tuple[str, ...], BeforeValidator(_names)
    ] = ()  #: what the PDU must call the outlets, in their order
    override: Override | None = None
    version: Literal["1", "2c", "3"] = "3"
    community: SecretStr | None = None  #: for version 1 and 2c
    username: str | None = None  #: this and what follows: for version 3
    auth_password: SecretStr | None = None
    priv_password: SecretStr | None = None
    auth_protocol: Literal["md5", "sha", "sha224", "sha256", "sha384", "sha512"] = "sha"
    priv_protocol: Literal["des", "aes", "aes192", "aes256"] = "aes"

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        if model not in known_models():
            raise ValueError(f"no such model. There are {', '.join(known_models())}")
        return model

    @field_validator("outlets")
    @classmethod
    def _are_outlets(cls, outlets: tuple[str, ...]) -> tuple[str, ...]:
        for outlet in outlets:
            if not _OUTLET.fullmatch(outlet):
                raise ValueError(f'"{outlet}" is no outlet: write a number, 1.2, or ADDRESS/number')
        if len(set(outlets)) < len(outlets):
            raise ValueError("names an outlet twice")
        return outlets

    @field_validator("auth_password", "priv_password")
    @classmethod
    def _is_long_enough(cls, password: SecretStr | None) -> SecretStr | None:
        if password is not None and len(password.get_secret_value()) < V3_PASSWORD_MIN:
            raise ValueError(f"passwords of SNMPv3 have at least {V3_PASSWORD_MIN} characters")
        return password

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.version == "3" and (not self.username or self.auth_password is None):
            raise ValueError('version "3" needs username and auth_password (and priv_password); or set version = "2c"')
        if self.version != "3" and self.community is None:
            raise ValueError(f'version "{self.version}" needs a community')
        if self.names and len(self.names) != len(self.outlets):
            raise ValueError("as many names as outlets, or none")
        if self.names and self.outlet_model.name is None:
            raise ValueError("this model has no names of outlets: leave them out")
        if self.address is None and any("/" not in outlet for outlet in self.outlets):
            raise ValueError("an address is needed: of the PDU, or in each outlet as ADDRESS/number")
        return self

    @property
    def outlet_model(self) -> OutletModel:
        """How the outlets are read and switched."""
        model = known_models()[self.model]
        return model if self.override is None else self.override.applied_to(model)

    def parsed_outlets(self) -> tuple[Outlet, ...]:
        """Return the outlets with the address of their PDU."""
        found = []
        for position, written in enumerate(self.outlets):
            match = _OUTLET.fullmatch(written)
            assert match is not None
            number = match["index"]
            found.append(
                Outlet(
                    address=match["address"] or self.address or "",
                    number=number,
                    index=self.outlet_model.index(number),
                    name=self.names[position] if self.names else None,
                )
            )
        return tuple(found)
