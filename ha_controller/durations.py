"""Durations and shares as people write them in the configuration: "200ms", "10s", "2m", "1h", "25%".

In Python they are seconds and parts of one. Text that is neither becomes a `ValueError` whose first sentence says what
is wrong and whose second one says what to write; a bare number is refused, because nobody can see its unit.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_UNITS_S: Final = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})
_DURATION: Final = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_SHARE: Final = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*%")
_LONGEST_S: Final = 366 * 86400.0


def parse_duration(written: object) -> float:
    """Text to seconds, more than none and at most a year.

    Raises:
        ValueError: it is no such duration.
    """
    match = _DURATION.fullmatch(written.strip()) if isinstance(written, str) else None
    if match is None:
        raise ValueError('not a duration. Write a text with a unit, like "200ms", "10s", "2m" or "1h"')
    duration_s = float(match[1]) * _UNITS_S[match[2]]
    if duration_s <= 0:
        raise ValueError('must be longer than nothing. Write a duration like "10s"')
    if duration_s > _LONGEST_S:
        raise ValueError("longer than a year. Write a shorter duration")
    return duration_s


def format_duration(duration_s: float) -> str:
    """Seconds to the text that `parse_duration` reads: in the largest unit that needs no fraction."""
    for unit in ("h", "m", "s"):
        amount = round(duration_s / _UNITS_S[unit], 9)
        if amount >= 1 and amount == int(amount):
            return f"{int(amount)}{unit}"
    return f"{round(duration_s * 1000, 6):.12g}ms"


def parse_share(written: object) -> float:
    """Percentage to a share, more than 0 and at most 1.

    Raises:
        ValueError: it is no such percentage.
    """
    match = _SHARE.fullmatch(written.strip()) if isinstance(written, str) else None
    if match is None:
        raise ValueError('not a share. Write a percentage, like "25%"')
    if not 0 < float(match[1]) <= 100:
        raise ValueError('not between 0% and 100%. Write a percentage, like "25%"')
    return float(match[1]) / 100


def format_share(share: float) -> str:
    """Share to the text that `parse_share` reads."""
    return f"{share * 100:.12g}%"


#: in schemas they are what people write, not what Python has
_WRITTEN_DURATION = WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*$"})
_WRITTEN_SHARE = WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$"})

Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str), _WRITTEN_DURATION
]
Share = Annotated[float, BeforeValidator(parse_share), PlainSerializer(format_share, return_type=str), _WRITTEN_SHARE]


def duration_field(default: str, *, key: str, longest: str = "366d") -> Any:
    """A settings field in seconds, named `..._s` in Python, that is written in the file as a text under `key`.

    The default is written and checked like a value of the file.
    """
    return Field(default, alias=key, validate_default=True, le=parse_duration(longest))
