"""Where each value was written: its line in TOML text, which tomllib does not tell, and its place in the layers.

The scanner only has to follow the text, never to judge it: that is tomllib's part. It must never be a reason to refuse
a configuration, unless that is nested beyond reason: where it gets lost, it returns the lines that it found until
there.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pydantic import SecretStr

Location = tuple[str | int, ...]
"""Keys and array indices from the top of the configuration, like `("fence", 0, "agent")`."""

DEPTH_MAX: Final = 32  #: of tables and arrays; no setting needs more, and much more exhausts the stack
_STRING: Final = r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'"
_LONG_STRING: Final = r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}|' + r"'''(?:[^']|'{1,2}(?!'))*'{3,5}"
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEY: Final = re.compile(rf"{_STRING}|{_BARE_KEY.pattern}")
_SCALAR: Final = re.compile(rf"{_LONG_STRING}|{_STRING}|[^,\]}}\n#]+")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


def positions(text: str) -> dict[Location, int]:
    """Line number, from 1, of every table, key, array item and key of an inline table.

    Raises:
        ValueError: nested beyond reason.
    """
    scanner = _Scanner(text)
    with suppress(_Lost):
        scanner.scan()
    return scanner.found


def parse(text: str) -> tuple[dict[str, Any], dict[Location, int]]:
    """Values of a TOML text, and their lines as from `positions`.

    Raises:
        ValueError: it is not TOML, or nested beyond reason.
    """
    try:
        found = positions(text)  # first: tomllib takes minutes over a key of many thousand parts
        return tomllib.loads(text), found
    except RecursionError:
        raise ValueError("nested too deeply") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A line of a file, or an environment variable."""

    file: str  #: or the name of the variable
    line: int | None = None

    def __str__(self) -> str:
        """Like `config.toml:41` or `HA_MODE`."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origins:
    """Where each value was written. All are equal: moving a line changes no configuration."""

    written: Mapping[Location, Origin] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    readers: Mapping[Location, Callable[[], SecretStr]] = field(
        default_factory=lambda: MappingProxyType({}), compare=False, repr=False
    )  #: where a secret stands: reads it once more


@dataclass(kw_only=True, slots=True)
class Layers:
    """Values of several layers, each laid over the one before, and where each value was written."""

    is_value: Callable[[Mapping[str, Any]], bool]  #: tables that are one value: never merged, replaced as a whole
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Location, Origin] = field(default_factory=dict)

    def overlay(self, values: dict[str, Any], origins: Mapping[Location, Origin]) -> None:
        """Lay a layer over: tables are merged, `[[fence]]` is appended, everything else is replaced."""
        fences = self.values.get("fence")
        shift = len(fences) if isinstance(fences, list) and isinstance(values.get("fence"), list) else 0
        self._merge(self.values, values, ())
        for location, origin in origins.items():
            match location:
                case ("fence", int(index), *rest):
                    self.origins["fence", index + shift, *rest] = origin
                case _:
                    self.origins[location] = origin

    def nearest(self, location: Location) -> Origin | None:
        """Where this was written, or else the closest table around it."""
        places = (location[:length] for length in range(len(location), 0, -1))
        return next((self.origins[place] for place in places if place in self.origins), None)

    def _merge(self, below: dict[str, Any], above: dict[str, Any], location: Location) -> None:
        for key, value in above.items():
            here = (*location, key)
            match below.get(key), value:
                case dict(known), dict() if not (self.is_value(known) and self.is_value(value)):
                    self._merge(known, value, here)
                case list(known), list() if here == ("fence",):
                    below[key] = [*known, *value]
                case _:
                    below[key] = value
                    self._forget(here)

    def _forget(self, location: Location) -> None:
        for stale in [place for place in self.origins if place[: len(location)] == location]:
            del self.origins[stale]


def dotted(location: Location) -> str:
    """Path as people write it: `fence.0.agent`."""
    return ".".join(
        str(part) if isinstance(part, int) or _BARE_KEY.fullmatch(part) else _quoted(part) for part in location
    )


def as_toml(value: object) -> str:
    """A value on one line, near enough to TOML to be understood."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dotted((key,))} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    return str(value)


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08X}"


# --- the scanner ------------------------------------------------------------------------------------------------------


class _Lost(Exception):
    """The text is not what a valid one could go on with."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.found: dict[Location, int] = {}
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._last_item: dict[Location, int] = {}  # of each array of tables

    def scan(self) -> None:
        table: Location = ()
        while self._skip_blank() < len(self._text):
            line = self._line()
            if self._take("[["):
                table = self._table(self._dotted_key(), new_item=True)
                self._expect("]]")
            elif self._take("["):
                table = self._table(self._dotted_key(), new_item=False)
                self._expect("]")
            else:
                self._assignment(table)
                continue
            self._note(table, line)

    def _table(self, keys: tuple[str, ...], *, new_item: bool) -> Location:
        """Where a header leads: `[fence.x]` is about the last item of `[[fence]]` so far."""
        table: Location = ()
        for depth, key in enumerate(keys, start=1):
            table = (*table, key)
            if new_item and depth == len(keys):
                self._last_item[table] = self._last_item.get(table, -1) + 1
            if table in self._last_item:
                table = (*table, self._last_item[table])
        return table

    def _assignment(self, table: Location) -> None:
        line = self._line()
        location = table
        for key in self._dotted_key():
            location = (*location, key)
            self._note(location, line)
        self._expect("=")
        self._value(location)

    def _value(self, location: Location) -> None:
        self._skip_blank()
        if self._take("["):
            self._items(location, "]")
        elif self._take("{"):
            self._items(location, "}")
        else:
            self._match(_SCALAR)

    def _items(self, location: Location, end: str) -> None:
        index = 0
        while self._skip_blank() < len(self._text) and not self._take(end):
            if end == "}":
                self._assignment(location)
            else:
                self._note((*location, index), self._line())
                self._value((*location, index))
                index += 1
            self._skip_blank()
            self._take(",")

    def _dotted_key(self) -> tuple[str, ...]:
        keys: list[str] = []
        while not keys or self._take("."):
            if len(keys) == DEPTH_MAX:
                raise ValueError("nested too deeply")  # at once: every prefix of a key is a place of its own
            self._skip_blank()
            written = self._match(_KEY)
            keys.append(self._unquoted(written) if written[0] in "\"'" else written)
            self._skip_blank()
        return tuple(keys)

    def _unquoted(self, written: str) -> str:
        try:
            return next(iter(tomllib.loads(f"{written} = 0")))
        except tomllib.TOMLDecodeError:
            raise _Lost from None

    def _note(self, location: Location, line: int) -> None:
        if len(location) > DEPTH_MAX:
            raise ValueError("nested too deeply")
        self.found.setdefault(location, line)

    def _line(self) -> int:
        return bisect_left(self._line_ends, self._at) + 1

    def _skip_blank(self) -> int:
        self._match(_BLANK)
        return self._at

    def _take(self, sign: str) -> bool:
        taken = self._text.startswith(sign, self._at)
        self._at += len(sign) if taken else 0
        return taken

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise _Lost

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._at = match.end()
        return match[0]
