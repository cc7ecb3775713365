"""The hash chain of the trail: the seal of an entry covers the entry and the seal of the one before it.

So nothing in the middle can be changed, put in or taken out without a seal that does not fit. It holds no key: whoever
may write the file can seal all of it anew, or cut off its end. Against that helps a head (the number and the seal of
the last entry) that was noted somewhere else in time: a `Head` that is compared.

Standard library only: the command line checks with it, too, far from the controller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

FIRST: Final = bytes(32)  #: what the first entry's seal covers in place of a seal
SHORTEST: Final = 12  #: digits of a seal that a noted head needs
FAULTS_MAX: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The last entry at some moment. Noted elsewhere, it tells later whether the trail up to it is still the same."""

    id: int  #: 0: there is no entry yet
    seal: str  #: hexadecimal, its beginning at least

    def __str__(self) -> str:
        """As it is written down, and as `parse` reads it."""
        return f"{self.id}:{self.seal}"

    @property
    def short(self) -> Head:
        """With as much of the seal as a noted head needs."""
        return Head(id=self.id, seal=self.seal[:SHORTEST])

    @property
    def number(self) -> int:
        """The first digits of the seal as a number, which fits into a float of 64 bits: for a metric."""
        return int(self.seal[:SHORTEST], 16) if self.seal else 0

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read `ID:SEAL`. Raises ValueError: it is none, or has too few digits to prove anything."""
        found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{12,64})", text.strip().lower())
        if found is None:
            raise ValueError(f"{text!r} is no head: write NUMBER:SEAL, with at least {SHORTEST} digits of the seal")
        return cls(id=int(found[1]), seal=found[2])


def seal(
    before: bytes, number: int, at: float, kind: str, host: int | None, incident: int | None, text: str, data: str
) -> bytes:
    """The seal of an entry. `data`: its details as `details` writes them."""
    import hashlib  # it loads OpenSSL, a tenth of what `--help` would cost: the command line imports this module

    content = json.dumps([before.hex(), number, at, kind, host, incident, text, data], separators=(",", ":"))
    return hashlib.sha256(content.encode()).digest()


def details(data: Mapping[str, object]) -> str:
    """The details of an entry as text, always the same for the same details. Raises ValueError, TypeError."""
    return json.dumps(dict(data), allow_nan=False, sort_keys=True)


@dataclass(kw_only=True)
class Chain:
    """Checks entries, given in their order, and says what does not fit."""

    heads: Sequence[Head] = ()  #: noted elsewhere
    count: int = 0
    last: int = 0  #: the number of the last entry that was given
    faults: list[str] = field(default_factory=list)  #: at most `FAULTS_MAX`
    faults_more: int = 0
    met: set[int] = field(default_factory=set)  #: noted heads whose entries were given
    _seal: bytes = FIRST

    @property
    def head(self) -> Head:
        """Of the last entry that was given."""
        return Head(id=self.last, seal=self._seal.hex() if self.last else "")

    def take(self, entry: Mapping[str, Any]) -> None:
        """Look at the next entry: its columns by name, `seal` in hexadecimal. Never raises for what it holds."""
        number = entry.get("id")
        if type(number) is not int:
            self._fault(f"after entry {self.last} stands something that is no entry")
            return
        known = bool(self.count) or number == 1
        if number <= self.last:
            self._fault(f"entry {number} comes after entry {self.last}: it was put in, or written twice")
            known = False
        elif number > self.last + 1:
            self._fault(f"{_span(self.last + 1, number - 1)} missing before entry {number}")
            known = False
        written = _bytes(entry.get("seal"))
        if known and written != _seal_of(self._seal, entry):
            self._fault(
                f"entry {number} does not fit its seal: it was changed, or something before it was put in or taken out"
            )
        self.count, self.last, self._seal = self.count + 1, max(number, self.last), written
        self.met |= {head.id for head in self.heads if head.id == number}
        for head in self.heads:
            if head.id == number and not written.hex().startswith(head.seal):
                self._fault(f"entry {number} is not the one whose head was noted ({head}): the trail was written anew")

    def end(self, last_given: int = 0) -> None:
        """There are no more entries. `last_given`: the highest number that was ever given, if that is known."""
        if last_given > self.last:
            self._fault(f"the end was cut off: {_span(self.last + 1, last_given)} missing")
        for head in self.heads:
            if head.id <= self.last and head.id not in self.met:
                self._fault(f"entry {head.id}, whose head was noted, is not there: nothing was compared with it")
            if head.id > self.last:
                self._fault(
                    f"the end was cut off: the head of entry {head.id} was noted, and the last one is {self.last}"
                )

    def _fault(self, text: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)
        else:
            self.faults_more += 1


def _seal_of(before: bytes, entry: Mapping[str, Any]) -> bytes | None:
    """None: it holds what no entry can hold."""
    try:
        columns = (entry["id"], entry["at"], entry["kind"], entry["host"], entry["incident"], entry["text"])
        return seal(before, *columns, details(entry["data"]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


def _bytes(text: object) -> bytes:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
