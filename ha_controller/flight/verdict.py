"""Puts what was decided then and what would be decided now beside each other, host by host, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ha_controller import __version__
from ha_controller.core.effects import (
    Effect,
    Explain,
    Fence,
    LiftOrders,
    LockVm,
    MoveVm,
    OrderHost,
    RecoverVm,
    RenewOrders,
    RestartMonitoring,
    ResumeVm,
)
from ha_controller.core.settings import Settings
from ha_controller.flight.record import FlightRecord
from ha_controller.flight.replay import SAME_WITHIN_S, Parting, Replayed, host_of, order_of

SCHEMA = "ha-controller/v1"
Json = dict[str, Any]

_DERIVED = ("channels", "clusters", "deciding_domains", "lives_s", "by_domain")


@dataclass(slots=True)
class _Line:
    """One decision or order about a host."""

    at: float
    text: str
    said_no: tuple[str, ...] = ()  #: guards, each with its reason
    is_order: bool = False
    powers_off: bool = False
    who: str = "then"  #: "then", "now" or "both"
    now_at: float | None = None  #: of "both": when it is decided now


def compared(record: FlightRecord, replayed: Replayed, settings: Settings | None) -> Json:
    """Everything that can be said, for people and programs. `settings`: None for those of the record."""
    then = _lines((each.at, effect) for each in record.rounds for effect in each.effects)
    now = _lines(replayed.effects)
    names = {incident.host: incident.host_name for incident in record.beginning.incidents}
    names |= {host.id: host.name for host in (*record.beginning.hosts, *replayed.hosts.values())}
    hosts = [
        _host(names.get(host, f"host {host}"), then.get(host, []), now.get(host, []), replayed.partings.get(host))
        for host in sorted(then.keys() | now.keys())
    ]
    return {
        "schema": SCHEMA,
        "incidents": list(record.incidents),
        "begins_at": record.beginning.at,
        "ends_at": record.ends_at,
        "end": record.end,
        "settings": [] if settings is None else _differences(record.beginning.settings, settings),
        "notes": _notes(record, replayed, settings, names),
        "same": all(host["same"] for host in hosts),
        "hosts": hosts,
    }


def _lines(effects: Iterable[tuple[float, Effect]]) -> dict[int, list[_Line]]:
    found: dict[int, list[_Line]] = {}
    for at, effect in effects:
        host, text = host_of(effect), _text(effect)
        if host is None or not text:
            continue
        said_no = tuple(line for line in effect.guards if line.startswith("✗")) if isinstance(effect, Explain) else ()
        line = _Line(at=at, text=text, said_no=said_no, is_order=order_of(effect) is not None)
        line.powers_off = isinstance(effect, Fence) and effect.send
        found.setdefault(host, []).append(line)
    return found


def _text(effect: Effect) -> str:
    match effect:
        case Explain():
            return f"{effect.what}{f': {effect.because}' if effect.because else ''}"
        case Fence():
            verb = "power off" if effect.send else "read back"
            return f"ORDER {verb} with {', '.join(effect.devices)}, attempt {effect.attempt}"
        case OrderHost():
            return f"ORDER to OpenNebula: {effect.step.value} the host"
        case MoveVm():
            return f"ORDER migrate VM {effect.vm} to host {effect.destination}"
        case ResumeVm():
            return f"ORDER resume VM {effect.vm}"
        case RenewOrders():
            return f"ORDER renew what {', '.join(effect.devices)} did"
        case LiftOrders():
            return f"ORDER lift what {', '.join(effect.devices)} did"
        case RecoverVm():
            return f"ORDER recover VM {effect.vm}: {effect.operation.name.lower()}"
        case LockVm():
            return f"ORDER lock VM {effect.vm} again"
        case RestartMonitoring():
            return "ORDER to OpenNebula: monitor the host anew"
        case _:
            return ""


def _host(name: str, then: Sequence[_Line], now: Sequence[_Line], parting: Parting | None) -> Json:
    lines = _paired(then, now)
    return {
        "host": name,
        "then": _outcome(then, None),
        "now": _outcome(now, parting),
        "same": parting is None and all(line.who == "both" for line in lines),
        "same_orders": parting is None and all(line.who == "both" for line in lines if line.is_order),
        "cannot_tell_from": None if parting is None else parting.at,
        "cannot_tell_why": "" if parting is None else parting.why,
        "lines": [
            {"at": line.at, "now_at": line.now_at, "who": line.who, "text": line.text, "said_no": list(line.said_no)}
            for line in lines
        ],
    }


def _paired(then: Sequence[_Line], now: Sequence[_Line]) -> list[_Line]:
    """All of them in the order of time; the same line at about the same moment is one of both."""
    lines = list(then)
    for new in now:
        twin = next(
            (
                line
                for line in lines
                if line.who == "then" and line.text == new.text and abs(line.at - new.at) <= SAME_WITHIN_S
            ),
            None,
        )
        if twin is None:
            new.who = "now"
            lines.append(new)
        else:
            twin.who, twin.now_at = "both", new.at
    return sorted(lines, key=lambda line: line.at)


def _outcome(lines: Sequence[_Line], parting: Parting | None) -> Json:
    """Whether the host was ordered off, when, and why not."""
    if (shot := next((line for line in lines if line.powers_off), None)) is not None:
        why = next((line.text for line in reversed(lines[: lines.index(shot)]) if not line.powers_off), "")
        return {"ordered_off": True, "at": shot.at, "why": why}
    if parting is not None:
        return {"ordered_off": False, "at": parting.at, "why": _how_it_stood(parting)}
    last = lines[-1] if lines else None
    return {"ordered_off": False, "at": last and last.at, "why": last.text if last else "nothing was decided about it"}


def _how_it_stood(parting: Parting) -> str:
    stood = parting.stood
    if stood is None:
        return parting.why
    record = stood["record"] or {}
    if held := record.get("stopped") or record.get("hold"):
        return str(held)
    return f"{stood['verdict']['kind']}: {stood['verdict']['reason']}"


def _differences(then: Settings, now: Settings) -> list[Json]:
    """Which settings of the core differ, by cluster where they are those of one."""
    found = _differing(then, now)
    channels = [[channel.name for channel in settings.channels] for settings in (then, now)]
    if channels[0] != channels[1]:
        found.append({"name": "channels", "then": ", ".join(channels[0]), "now": ", ".join(channels[1])})
    for name in sorted(then.clusters.keys() | now.clusters.keys()):
        own = _differing(then.of_cluster(name), now.of_cluster(name))
        found += [{**each, "name": f"cluster {name}: {each['name']}"} for each in own if each not in found]
    return found


def _differing(then: Settings, now: Settings) -> list[Json]:
    return [
        {"name": name, "then": _plain(before), "now": _plain(after)}
        for name in (each.name for each in fields(Settings))
        if name not in _DERIVED
        for before, after in ((getattr(then, name), getattr(now, name)),)
        if before != after
    ]


def _plain(value: Any) -> Any:
    return ", ".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, Mapping) else value


def _notes(record: FlightRecord, replayed: Replayed, settings: Settings | None, names: Mapping[int, str]) -> list[str]:
    """What the reader must know about the limits of this replay."""

    def named(hosts: Iterable[int]) -> str:
        return ", ".join(names.get(host, f"host {host}") for host in sorted(set(hosts)))

    notes = []
    if record.written_by != __version__:
        notes.append(f"Then version {record.written_by} decided, now it is version {__version__}.")
    if not record.beginning.is_start:
        notes.append(
            "The record begins while the controller ran. Now it begins as after a start: "
            "what it then knew longer than that, such as a silence, is counted from there."
        )
    if settings is not None:
        known = {channel.name for channel in record.beginning.settings.channels} | record.channels()
        if new := [channel.name for channel in settings.channels if channel.name not in known]:
            notes.append(
                f"The record has nothing of channel {', '.join(new)}: what it would have shown cannot be told."
            )
        notes.append("Fence devices, scope and places are those of the record; so are the probes' intervals.")
    if replayed.assumed:
        asked = named(host for _, host in replayed.assumed)
        notes.append(
            f"OpenNebula is asked about {asked} when it was not asked then: its nearest answer on record is taken."
        )
    then = {host_of(effect) for each in record.rounds for effect in each.effects}
    if unwatched := {host for _, effect in replayed.effects if (host := host_of(effect)) is not None} - then:
        notes.append(
            f"{named(unwatched)} was not looked at closely then: "
            "the record has its steady readings, and none of its BMC."
        )
    if replayed.partings and len(then | {host_of(effect) for _, effect in replayed.effects}) > 1:
        since = min(replayed.partings.values(), key=lambda parting: parting.at)
        whose = [host for host, parting in replayed.partings.items() if parting is since]
        notes.append(
            f"From when on the record cannot tell about {named(whose)}, what is said about other hosts rests on what "
            "they showed in the world of then."
        )
    return notes
