"""The live stream: lines of the trail with their numbers, and the state whenever it changes, as server-sent events.

A listener that comes back with the number of the last line it saw gets what it missed. What waits for one listener is
bounded: one that reads too slowly is cut off, and costs the others nothing. Nobody works for the stream while nobody
listens: whoever listens looks, at most once a second for all.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import anyio

from ha_controller.adapters.http_api.problems import Problem

LISTENERS_MAX: Final = 64
WAITING_MAX: Final = 2000  #: frames for one listener; then it is cut off
MISSED_MAX: Final = 5000  #: lines that are sent to a listener that comes back
LINES_AT_ONCE: Final = 500
LOOK_EVERY_S: Final = 1.0
SHARE_MAX: Final = 0.05  #: of the time of the event loop, for looking
WAKE_EVERY_S: Final = 0.25
ALIVE_EVERY_S: Final = 15.0  #: so that both ends notice a dead connection; pages do not see comments
ALIVE: Final = b"event: alive\ndata: {}\n\n"
_AGES: Final = frozenset({"at", "for_s", "oned_age_s", "settling_s", "checked_s_ago", "drilled_s_ago"})

Json = Any


class Seen(Protocol):
    """What is shown live."""

    def status(self) -> Json:
        """The cloud in one sentence, and counts."""

    def hosts(self) -> Json:
        """One row for each host."""

    async def trail(self, *, after: int, limit: int) -> list[Json]:
        """Lines of the trail with higher numbers, oldest first."""

    async def trail_end(self) -> int:
        """The number of its last line; 0 if there is none."""


class CutOff(Exception):
    """The listener reads too slowly, or the controller ends."""


class Listener:
    """What waits for one listener."""

    def __init__(self) -> None:
        """Nothing waits."""
        self.frames: deque[bytes] = deque()
        self.cut_off = False

    def put(self, frame: bytes) -> None:
        """Have it wait. One too many cuts the listener off: it comes back and gets what it missed."""
        if len(self.frames) >= WAITING_MAX:
            self.cut_off = True
            self.frames.clear()
        elif not self.cut_off:
            self.frames.append(frame)

    def taken(self) -> bytes:
        """All that waits."""
        whole = b"".join(self.frames)
        self.frames.clear()
        return whole


class Feed:
    """Everybody who listens."""

    def __init__(self, seen: Seen, now: Callable[[], float] = anyio.current_time) -> None:
        """`now` gives monotonic seconds."""
        self._seen = seen
        self._now = now
        self._listeners: set[Listener] = set()
        self._one = anyio.Lock()
        self._not_before = float("-inf")
        self._last_line = 0
        self._status: Json = None
        self._rows: dict[int, Json] = {}
        self._ended = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def end(self) -> None:
        """Cut everybody off: the controller ends."""
        self._ended = True
        for listener in self._listeners:
            listener.cut_off = True

    async def frames(self, after: int | None) -> AsyncGenerator[bytes, None]:
        """What a listener gets, from now on or from after a line; `alive` when nothing has happened for long.

        Raises:
            Problem: too many listen.
            CutOff: it took too long between two of them.
        """
        with self._listening() as listener:
            first, missed_to = await self._greet(listener)
            yield first
            if after is not None:
                async for frame in self._missed(after, missed_to):
                    yield frame
            silent_since = self._now()
            while True:
                if listener.cut_off or self._ended:
                    raise CutOff
                if listener.frames:
                    silent_since = self._now()
                    yield listener.taken()
                elif self._now() - silent_since >= ALIVE_EVERY_S:
                    silent_since = self._now()
                    yield ALIVE
                else:
                    await anyio.sleep(WAKE_EVERY_S)
                    await self._look()

    @contextmanager
    def _listening(self) -> Iterator[Listener]:
        if len(self._listeners) >= LISTENERS_MAX:
            raise Problem(503, f"{LISTENERS_MAX} listen to the stream already.", headers={"Retry-After": "5"})
        listener = Listener()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def _greet(self, listener: Listener) -> tuple[bytes, int]:
        """The whole state as of now, and the line up to which the trail is not sent by itself."""
        async with self._one:
            if not self._listeners:
                self._last_line = await self._seen.trail_end()
                self._status, self._rows = None, {}
            self._look_at_state()  # so that what differs from now on is what differs from this
            self._listeners.add(listener)
            whole = frame("status", self._status) + frame("hosts", [*self._rows.values()])
            return whole, self._last_line

    async def _missed(self, after: int, end: int) -> AsyncIterator[bytes]:
        """The lines between, or word that they are not sent."""
        if after > end or end - after > MISSED_MAX:
            yield frame("gap", {"after": after, "to": end})
            return
        while after < end:
            lines = await self._seen.trail(after=after, limit=min(LINES_AT_ONCE, end - after))
            if not lines:
                return
            yield b"".join(line(each) for each in lines if each["id"] <= end)
            after = lines[-1]["id"]

    async def _look(self) -> None:
        """Send everybody what is new."""
        async with self._one:
            if self._now() < self._not_before:
                return
            lines = await self._seen.trail(after=self._last_line, limit=LINES_AT_ONCE)
            for each in lines:
                self._send(line(each))
            self._last_line = lines[-1]["id"] if lines else self._last_line
            began = self._now()
            self._look_at_state()
            took = self._now() - began
            self._not_before = began + max(LOOK_EVERY_S, took / SHARE_MAX)

    def _look_at_state(self) -> None:
        status, rows = self._seen.status(), {row["id"]: row for row in self._seen.hosts()}
        if self._status is not None and _lasting(status) != _lasting(self._status):
            self._send(frame("status", status))
        for number in self._rows.keys() - rows.keys():
            self._send(frame("gone", {"id": number}))
        for number, row in rows.items():
            if self._status is not None and _lasting(row) != _lasting(self._rows.get(number)):
                self._send(frame("host", row))
        self._status, self._rows = status, rows

    def _send(self, whole: bytes) -> None:
        for listener in self._listeners:
            listener.put(whole)


def _lasting(value: Json) -> Json:
    """Without the ages, which change all the time by themselves."""
    match value:
        case dict():
            return {key: _lasting(inner) for key, inner in value.items() if key not in _AGES}
        case list():
            return [_lasting(inner) for inner in value]
    return value


def line(entry: Json) -> bytes:
    """A line of the trail as an event that can be resumed from."""
    return b"id: %d\n" % entry["id"] + frame("trail", entry)


def frame(kind: str, data: Json) -> bytes:
    """An event. JSON has no line breaks, so its data is one line."""
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
