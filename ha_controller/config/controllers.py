"""The tables about the other controllers of the same cloud, which are asked what they see."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator

from ha_controller.config.values import AbsolutePath, Section


class OtherController(Section):
    """Another controller of this cloud."""

    name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    url: str  #: of its API, without a path
    token: SecretStr  #: made there, with the role viewer
    ca_file: AbsolutePath | Literal[""] = ""  #: who signed its certificate, PEM; empty: the system's authorities

    @field_validator("ca_file")
    @classmethod
    def _is_there(cls, path: Path | str) -> Path | str:
        if path and not Path(path).is_file():
            raise ValueError("no such file. Leave it out if the system's authorities signed that certificate")
        return path

    @field_validator("url")
    @classmethod
    def _is_address_of_an_api(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is none
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError('not the address of a controller. Write it like "https://192.0.2.12:9931"')
        if parts.username is not None:  # it would be logged
            raise ValueError("must not name a user. The token goes into controller.token")
        try:
            address = ip_address(parts.hostname)
        except ValueError:
            raise ValueError("not a literal IP address. A name needs DNS, which may be what is broken") from None
        if parts.scheme == "http" and not address.is_loopback:
            raise ValueError("the token would be readable on the network. Write https, and set [api] tls_cert there")
        return url.rstrip("/")


def _with_names_of_their_own(controllers: tuple[OtherController, ...]) -> tuple[OtherController, ...]:
    names = [each.name for each in controllers]
    if len({*names}) < len(names):
        raise ValueError("two have the same name. Give each controller a name of its own")
    return controllers


OtherControllers = Annotated[tuple[OtherController, ...], AfterValidator(_with_names_of_their_own)]
