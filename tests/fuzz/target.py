"""What a fuzz target is: a door, fed with any bytes, and what may come out of it.

A target returns for every input that was handled, also for one that was refused with the door's own error. Whatever it
raises is a finding. It must be quick, keep nothing from one input to the next, and touch no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

CONTROL = frozenset(map(chr, (*range(32), *range(127, 160))))


@dataclass(frozen=True, kw_only=True)
class Target:
    """One door."""

    name: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]  #: true input, from the embedded servers and from the documentation of formats
    bytes_max: int = 4096


class Finding(AssertionError):
    """The door let something out that may not come out."""


def demand(condition: bool, what: str) -> None:
    """Raise `Finding` unless it holds; also under -O."""
    if not condition:
        raise Finding(what)


def is_one_line(text: str) -> bool:
    """Whether a text may stand in a log or on a terminal."""
    return not CONTROL & set(text)


class Feed:
    """Takes an input apart. Ends early instead of failing: every input means something."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """One byte, as a choice."""
        chosen = self.take(1)
        return chosen[0] % below if chosen else 0

    def take(self, count: int) -> bytes:
        """So many bytes at most."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def parts(self, between: bytes = b"\0") -> list[bytes]:
        """All that is left, in parts."""
        return self.rest().split(between)


def pieces(data: bytes, length: int) -> Iterator[bytes]:
    """As a network might deliver it."""
    for start in range(0, len(data), length):
        yield data[start : start + length]


def joined(*parts: bytes | str) -> bytes:
    """The other way round, for seeds."""
    return b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
