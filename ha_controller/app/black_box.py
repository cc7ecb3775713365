"""Keeps the flight recorder running, and writes what it holds to disk while an incident is open.

One file covers all incidents that open while it is written: `flights/flight-N.jsonl.gz` below the state directory, N
the first of them. It is written when an incident opens, anew every 20 s, and a last time when each is closed or
RECOVERED, or a bound is reached. A restart of the controller ends it.

It stands behind the decisions: it is told of a round when its orders have left, writes in a thread of its own to files
of its own, and a failure is logged and costs the record alone.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog

from ha_controller import threads
from ha_controller.core.controller import Controller
from ha_controller.core.effects import Effect
from ha_controller.core.events import Event
from ha_controller.core.model import HostState
from ha_controller.flight.recorder import Cut, Recorder
from ha_controller.flight.text import header_of, written

log = structlog.get_logger(__name__)

FLIGHT_MAX_S = 900.0  #: an incident that waits for a person may be open for days
WRITE_EVERY_S = 20.0
WRITE_TIMEOUT_S = 60.0
FLIGHTS_MAX = 50  #: the oldest files beyond are deleted
BREATHER_LINES, BREATHER_S = 50, 0.001  #: the writer lets the decisions have the interpreter so often
GOES_ON = "it goes on"


@dataclass(slots=True)
class _Flight:
    """What is being recorded: the incidents since a moment."""

    opened_at: float
    incidents: list[int] = field(default_factory=list)
    written_at: float = 0.0


class BlackBox:
    """Records one run of the controller."""

    def __init__(self, controller: Controller, folder: Path, now: float) -> None:
        """What the journal held is restored already; those incidents are not recorded again."""
        self._controller = controller
        self._folder = folder
        self._recorder = Recorder(controller, now)
        self._noted_at = now
        self._next_incident = controller.state.cloud.next_incident
        self._flight: _Flight | None = None
        self._waiting: dict[int, Cut] = {}  # by the first incident: the newest, if not yet written
        self._bell = anyio.Event()
        self._thread = anyio.CapacityLimiter(1)
        self._is_broken = False

    def note(self, events: Sequence[Event], effects: Sequence[Effect], now: float) -> None:
        """Take down one round. Never raises: whatever goes wrong ends the recording and nothing else."""
        if self._is_broken:
            return
        try:
            self._recorder.note(events, effects, now)
            self._look(now)
        except Exception:  # the border: no decision depends on this
            self._is_broken = True
            log.exception("the flight recorder failed; decisions go on without it until the next start")

    async def run(self) -> None:
        """Write what is to be written until cancelled."""
        while True:
            await self._bell.wait()
            self._bell = anyio.Event()
            while self._waiting:
                first, cut = self._waiting.popitem()
                await self._write(self._folder / f"flight-{first:06}.jsonl.gz", cut)

    async def fetch(self, incident: int) -> bytes | None:
        """The record of an incident as text; None if there is none.

        Raises:
            OSError, EOFError: it cannot be read.
            BadRecord: another version has written it.
            TimeoutError: the disk hangs.
        """
        flight, cut = self._flight, None
        if flight is not None and incident in flight.incidents and not self._is_broken:
            cut = self._recorder.cut(flight.incidents, self._noted_at, GOES_ON)
        with anyio.fail_after(WRITE_TIMEOUT_S):
            return await threads.run_sync(self._text_of, incident, cut, abandon_on_cancel=True)

    # --- what is recorded ---

    def _look(self, now: float) -> None:
        """Begin, go on with, or end the record of what is open."""
        self._noted_at = now
        state, flight = self._controller.state, self._flight
        new = range(self._next_incident, state.cloud.next_incident)
        self._next_incident = state.cloud.next_incident
        if new and flight is None:
            flight = self._flight = _Flight(opened_at=now)
            self._recorder.held = True
        if flight is None:
            return
        flight.incidents.extend(new)
        end = self._end(flight, now)
        if new or end or now - flight.written_at >= WRITE_EVERY_S:
            flight.written_at = now
            self._waiting[flight.incidents[0]] = self._recorder.cut(flight.incidents, now, end or GOES_ON)
            self._bell.set()
        if end:
            self._flight, self._recorder.held = None, False

    def _end(self, flight: _Flight, now: float) -> str:
        """Why the record goes no further; empty if it does."""
        numbers = set(flight.incidents)
        under_way = any(
            incident.id in numbers and incident.state is not HostState.RECOVERED
            for incident in self._controller.state.incidents.values()
        )
        if not under_way:
            return "all that was to be done is done"
        if self._recorder.is_full:
            return "too much happened: the recorder is full"
        if now - flight.opened_at >= FLIGHT_MAX_S:
            return f"a record goes no further than {FLIGHT_MAX_S / 60:g} minutes after the incident was opened"
        return ""

    # --- files ---

    async def _write(self, path: Path, cut: Cut) -> None:
        try:
            with anyio.fail_after(WRITE_TIMEOUT_S):
                await threads.run_sync(_written_to, path, cut, limiter=self._thread, abandon_on_cancel=True)
        except TimeoutError:
            log.error("a flight record could not be written: the disk hangs", path=str(path))
        except Exception:  # the border: no decision depends on this
            log.exception("a flight record could not be written", path=str(path), incidents=cut.incidents)

    def _text_of(self, incident: int, cut: Cut | None) -> bytes | None:
        if cut is not None:
            return b"".join(_gently(written(cut.record())))
        path = max(
            (path for path in _flights(self._folder) if _first_of(path) <= incident), key=_first_of, default=None
        )
        if path is None:
            return None
        text = gzip.decompress(path.read_bytes())
        return text if incident in header_of(text.partition(b"\n")[0])["incidents"] else None


def _flights(folder: Path) -> list[Path]:
    return sorted(folder.glob("flight-*.jsonl.gz"), key=_first_of)


def _first_of(path: Path) -> int:
    number = path.name.removeprefix("flight-").removesuffix(".jsonl.gz")
    return int(number) if number.isdigit() else 0


def _written_to(path: Path, cut: Cut) -> None:
    """Beside it first, then in its place: a record is whole or not there."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
                for line in _gently(written(cut.record())):
                    packed.write(line)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:  # however it ended, half a file must not stay; the error goes on
            Path(file.name).unlink(missing_ok=True)
            raise
    for old in _flights(path.parent)[:-FLIGHTS_MAX]:
        old.unlink(missing_ok=True)


def _gently(lines: Iterable[bytes]) -> Iterator[bytes]:
    """With a short sleep now and then, in a thread: the event loop has the interpreter whenever it wants it."""
    for number, line in enumerate(lines, start=1):
        if number % BREATHER_LINES == 0:
            threads.rest(BREATHER_S)
        yield line
