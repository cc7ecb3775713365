"""The kinds of values in a configuration, and the base of its tables.

The first sentence of an error is what is wrong, the rest is the remedy.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_WINDOW: Final = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d)-((?:[01]\d|2[0-3]):[0-5]\d)")
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[^\]]*:[^\]]*)\]|(?P<four>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_SOCKET_BYTES_MAX: Final = 107  #: sockaddr_un.sun_path without the NUL, unix(7)


def _pattern(written: object) -> object:
    """An id may be written as a number."""
    return str(written) if isinstance(written, int) and not isinstance(written, bool) else written


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no path. Leave out the NUL")
    if not path.is_absolute():
        raise ValueError("depends on the working directory. Write the whole path, from /")
    return path


def _socket(path: Path) -> Path:
    if len(str(path).encode()) > _SOCKET_BYTES_MAX:
        raise ValueError(f"too long for a socket. Its path has at most {_SOCKET_BYTES_MAX} bytes")
    return path


def _literal_address(written: str) -> str:
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        raise ValueError("not a literal IP address. A name needs DNS, which may be what is broken") from None


def _listen(written: str) -> str:
    if not written:
        return written
    address, port = listen_at(written)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def listen_at(written: str) -> tuple[str, int]:
    """The address and the port. Raises ValueError: it does not have both."""
    match = _LISTEN.fullmatch(written)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ValueError('no address and port. Write it like "127.0.0.1:9931" or "[::1]:9931"')
    return _literal_address(match["six"] or match["four"]), int(match["port"])


def _window(written: str) -> str:
    match = _WINDOW.fullmatch(written)
    if match is None or match[1] == match[2]:
        raise ValueError('no part of a day. Write begin and end like "01:00-05:00"')
    return written


PolicyName = Literal["fence", "approve", "tell"]
VmPolicyName = Literal["restart", "recreate", "leave", "poweroff"]
Pattern = Annotated[str, BeforeValidator(_pattern), Field(min_length=1)]  #: name, id or glob
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
LiteralAddress = Annotated[str, AfterValidator(_literal_address)]
SocketPath = Annotated[AbsolutePath, AfterValidator(_socket)]
Listen = Annotated[str, AfterValidator(_listen)]  #: address:port, or empty
Window = Annotated[str, AfterValidator(_window)]  #: of a day, local time


def count_between(low: int, high: int) -> Any:
    return Field(strict=True, ge=low, le=high)


class Section(BaseModel):
    """Base of all tables: unknown keys are refused, nothing changes later, no error quotes what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
