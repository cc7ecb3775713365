"""How a flight record is written down: JSON lines, one thing each, a header first and an end last.

Line by line, so that the thread that writes holds the interpreter for microseconds at a time and no decision waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from ha_controller.core.effects import Effect
from ha_controller.core.events import Event
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import Host, HostTrust
from ha_controller.core.resources import VmGroup
from ha_controller.core.settings import Settings
from ha_controller.flight.record import Beginning, FlightRecord, InventoryChanged, Round, Run

FORMAT = "ha-controller flight record"
VERSION = 1

Json = Any

MOMENT_MAX = 1e11  #: seconds; more is no time
RUN_MAX = 10_000_000  #: readings of one channel and host that all said the same
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

_EVENTS = {kind.__name__: kind for kind in (*get_args(Event), InventoryChanged)}
_EFFECTS = {kind.__name__: kind for kind in get_args(Effect)}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made when it is needed: all of them took a tenth of a start, before the first host was asked."""
    return TypeAdapter(kind)


def make_adapters() -> None:
    """Make all of them before a record has to be written."""
    for kind in (Settings, CloudRecord, Incident, HostTrust, Host, Run, VmGroup, *_EVENTS.values(), *_EFFECTS.values()):
        _adapter(kind)


class BadRecord(Exception):
    """A text is no flight record that can be read here. Says which line, what is wrong and what helps."""


def written(record: FlightRecord) -> Iterator[bytes]:
    """The lines of a record, each with its end of line."""
    start = record.beginning
    header = {"format": FORMAT, "version": VERSION, "ha_controller": record.written_by, "incidents": record.incidents}
    header |= {"begins_at": start.at, "ends_at": record.ends_at}
    yield _line(header)
    yield _line({"settings": _plain(start.settings)})
    groups = None if start.groups is None else [_plain(group) for group in start.groups]
    about = {"at": start.at, "settled_from": start.settled_from, "is_start": start.is_start, "groups": groups}
    yield _line({"start": about})
    yield _line({"cloud": _plain(start.cloud)})
    for word, things in (
        ("incident", start.incidents),
        ("trust", start.trusts),
        ("host", start.hosts),
    ):
        yield from (_line({word: _plain(thing)}) for thing in things)
    yield from (_line({"known": _named(event)}) for event in start.known)
    for each in record.rounds:
        events = [_named(event) for event in each.events]
        effects = [_named(effect) for effect in each.effects]
        yield _line({"round": {"at": each.at, "ticking": each.ticking, "events": events, "effects": effects}})
    yield from (_line({"run": _plain(run)}) for run in record.runs)
    yield _line({"end": {"at": record.ends_at, "why": record.end}})


def header_of(line: str | bytes) -> Mapping[str, Json]:
    """The first line of a record.

    Raises:
        BadRecord: it is none, or of a version that this program does not know.
    """
    try:
        header = json.loads(line)
        is_ours = header.get("format") == FORMAT
    except _DAMAGE:
        is_ours = False
    if not is_ours:
        raise BadRecord("This is no flight record. Write one with: ha-controller incidents export N > FILE")
    if header.get("version") != VERSION:
        raise BadRecord(
            f"This flight record has version {header.get('version')}, and this ha-controller reads version {VERSION} "
            f"only. Replay it with the version that wrote it: {header.get('ha_controller')}"
        )
    return {"incidents": (), **header}


def read(lines: Iterable[str]) -> FlightRecord:
    """A record from its lines.

    Raises:
        BadRecord: it is none, of an unknown version, damaged, or its end is missing.
    """
    numbered = enumerate(lines, start=1)
    header = header_of(next(numbered, (1, ""))[1])
    found: dict[str, list[Any]] = {word: [] for word in _READERS}
    for number, line in numbered:
        try:
            ((word, value),) = json.loads(line).items()
            found[word].append(_READERS[word](value))
        except _DAMAGE as error:
            what = "a value that does not fit" if isinstance(error, ValidationError) else "no line of a record"
            raise BadRecord(f"This flight record is damaged: line {number} has {what}.") from None
    if missing := [word for word in ("settings", "start", "cloud", "end") if len(found[word]) != 1]:
        raise BadRecord(f"This flight record is not whole: it has no {missing[0]}. Export it once more.")
    return _record(header, found)


def _record(header: Mapping[str, Json], found: Mapping[str, list[Any]]) -> FlightRecord:
    try:
        beginning = Beginning(
            **{**found["start"][0], "groups": _groups(found["start"][0].get("groups"))},
            settings=found["settings"][0],
            cloud=found["cloud"][0],
            incidents=tuple(found["incident"]),
            trusts=tuple(found["trust"]),
            hosts=tuple(found["host"]),
            known=tuple(found["known"]),
        )
        moments = (beginning.at, ends_at := float(found["end"][0]["at"]), *(each.at for each in found["round"]))
        if not all(0 <= moment < MOMENT_MAX for moment in moments) or any(run.count > RUN_MAX for run in found["run"]):
            raise ValueError("no time, or a run without an end")
        return FlightRecord(
            incidents=tuple(int(number) for number in header["incidents"]),
            beginning=beginning,
            rounds=tuple(found["round"]),
            runs=tuple(found["run"]),
            ends_at=ends_at,
            end=str(found["end"][0]["why"]),
            written_by=str(header["ha_controller"]),
        )
    except _DAMAGE:
        raise BadRecord("This flight record is damaged: its start or its end cannot be read.") from None


def _groups(value: Json) -> tuple[VmGroup, ...] | None:
    return None if value is None else tuple(_adapter(VmGroup).validate_python(group) for group in value)


def _round(value: Json) -> Round:
    return Round(
        at=float(value["at"]),
        ticking=bool(value["ticking"]),
        events=tuple(_unnamed(_EVENTS, event) for event in value["events"]),
        effects=tuple(_unnamed(_EFFECTS, effect) for effect in value["effects"]),
    )


def _reader(kind: Any) -> Callable[[Json], Any]:
    return lambda value: _adapter(kind).validate_python(value)


_READERS: Mapping[str, Any] = {
    "settings": _reader(Settings),
    "start": dict,
    "cloud": _reader(CloudRecord),
    "incident": _reader(Incident),
    "trust": _reader(HostTrust),
    "host": _reader(Host),
    "known": lambda value: _unnamed(_EVENTS, value),
    "round": _round,
    "run": _reader(Run),
    "end": dict,
}


def _named(value: object) -> Json:
    """A union cannot be read back without the name of its member."""
    return {"is": type(value).__name__, **_plain(value)}


def _unnamed(kinds: Mapping[str, type], value: Json) -> Any:
    return _adapter(kinds[value["is"]]).validate_python({key: each for key, each in value.items() if key != "is"})


def _plain(value: object) -> Json:
    kind: Any = type(value)
    return _adapter(kind).dump_python(
        value, mode="json", fallback=dict, warnings=False
    )  # a mapping that cannot be changed is no dict


def _line(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
