"""Feeds a flight record to a fresh production core, with its own settings or others, and notes what it decides.

Nothing is carried out. The answers to orders come from the record, and so only as long as the same is ordered as then:
from the first order about a host that is given now and was not then, or the other way round, the record tells nothing
more about that host. Its further evidence is withheld, and nothing more is said about it: its ways have *parted*.

What the core asks to be read at a moment when it did not ask then is answered with the newest reading on record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import merge
from itertools import groupby
from typing import Any

from ha_controller.core import report
from ha_controller.core.controller import Controller, Decision
from ha_controller.core.effects import Drill, Effect, Explain, MoveVm, ReadHost
from ha_controller.core.events import (
    Event,
    EvidenceTaken,
    HostRead,
    InventoryRead,
    LeadChanged,
    OnedReadFailed,
    SecondMasterLooked,
    SelfChecked,
    SelfPlaced,
    SettingsChanged,
    TimePassed,
)
from ha_controller.core.model import Host, HostState, LcmState, Reading, Vm, VmState
from ha_controller.core.settings import Settings
from ha_controller.flight.record import NOT_KEPT, Beginning, FlightRecord, InventoryChanged, Round, Run

SAME_WITHIN_S = 1.0  #: what is ordered so shortly before it was ordered then is the same order
BATCH_S = 0.001  #: steady readings that came so close to each other are given at once

_ABOUT_US = (LeadChanged, SelfChecked, SelfPlaced, SecondMasterLooked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parting:
    """From when on the record cannot tell about a host, and how things stood with it now."""

    at: float
    why: str
    stood: Mapping[str, Any] | None = None  #: as `core.report.explain` tells it, where it was not ordered off now


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What was decided now."""

    effects: tuple[tuple[float, Effect], ...]
    partings: Mapping[int, Parting]
    assumed: tuple[tuple[float, int], ...]  #: (when, host): a reading of OpenNebula that nobody made then
    hosts: Mapping[int, Host]  #: as last read


def host_of(effect: Effect) -> int | None:
    """Which host an effect is about."""
    return effect.source if isinstance(effect, MoveVm) else getattr(effect, "host", None)


def order_of(effect: Effect) -> tuple[object, ...] | None:
    """What is ordered, without numbers and moments that mean the same thing otherwise; None for what is no order."""
    if isinstance(effect, (Drill, Explain, ReadHost, *NOT_KEPT)):
        return None  # a drill is a person's order, and comes in as such
    names = ("send", "devices", "step", "vm", "destination", "operation", "level", "attempt", "number")
    return (type(effect).__name__, *(getattr(effect, name, None) for name in names))


def replay(record: FlightRecord, settings: Settings | None = None) -> Replayed:
    """Decide anew, with these settings throughout, or with those that were in force."""
    return _Replay(record, settings).run()


@dataclass(slots=True)
class _Order:
    """An order of now that awaits its counterpart of then."""

    at: float
    host: int
    order: tuple[object, ...]


class _Replay:
    def __init__(self, record: FlightRecord, settings: Settings | None) -> None:
        self._record = record
        self._settings = settings
        start = record.beginning
        self._now = start.at
        self._core = Controller(settings or start.settings, start.settled_from)
        self._inventory = {host.id: host for host in start.hosts}
        self._groups = start.groups
        self._host_of_incident = {incident.id: incident.host for incident in start.incidents}
        self._effects: list[tuple[float, Effect]] = []
        self._partings: dict[int, Parting] = {}
        self._assumed: list[tuple[float, int]] = []
        self._last_read: dict[int, HostRead] = {}
        self._oned_fails = False
        self._ticking = False
        self._only_now: list[_Order] = []
        self._asked: list[tuple[float, int]] = []
        self._reads: dict[int, HostRead] = {}
        for each in record.rounds:
            self._note_then(each)

    def _note_then(self, each: Round) -> None:
        for effect in each.effects:
            host, incident = host_of(effect), getattr(effect, "incident", None)
            if host is not None and incident is not None:
                self._host_of_incident[incident] = host
            if isinstance(effect, ReadHost):
                self._asked.append((each.at, effect.host))
        for event in each.events:
            if isinstance(event, HostRead):
                self._reads.setdefault(event.host, event)

    def run(self) -> Replayed:
        """Feed it all, moment by moment."""
        self._begin()
        for at, batch in _timeline(self._record):
            self._tick_until(at)
            self._part_overdue(at)
            self._now = at
            self._feed(*batch.events)
            if isinstance(batch, Round):
                self._ticking = batch.ticking
                self._compare(batch)
        self._part_overdue(self._now + 2 * SAME_WITHIN_S)
        return Replayed(
            effects=tuple(self._effects),
            partings=self._partings,
            assumed=tuple(self._assumed),
            hosts=self._inventory,
        )

    def _begin(self) -> None:
        """As a controller that is started: first the journal, then itself, then the inventory and the devices."""
        start, core = self._record.beginning, self._core
        core.restore(start.incidents, start.cloud, start.at, start.trusts)
        if not start.is_start:
            for incident in start.incidents:
                if incident.state is not HostState.RECOVERED:
                    why = "its incident was under way already when the record begins"
                    self._partings[incident.host] = Parting(at=start.at, why=why)
        self._note(core.resume(start.at))
        for event in start.known:
            if isinstance(event, _ABOUT_US):
                self._note(core.step(event, start.settled_from))
        if start.hosts:
            self._feed(InventoryRead(hosts=start.hosts, groups=start.groups))
        for event in start.known:
            if not isinstance(event, _ABOUT_US):
                self._feed(event)

    def _tick_until(self, at: float) -> None:
        """The core is called when it asks for it, where it did not ask then; where it did, its calls are on record."""
        while not self._ticking:
            deadline = self._core.next_deadline(self._now)
            if deadline is None or deadline >= at:
                return
            self._now = deadline
            self._note(self._core.step(TimePassed(), deadline))

    # --- what the core is given ---

    def _feed(self, *events: Event | InventoryChanged) -> None:
        """All that came at one moment."""
        given = [each for event in events if (each := self._as_of_now(event)) is not None]
        for each in given:
            match each:
                case InventoryRead():
                    self._oned_fails = False
                case OnedReadFailed():
                    self._oned_fails = True
                case HostRead(host=host):
                    self._oned_fails, self._last_read[host] = False, each
                case _:
                    pass
        if given:
            self._note(self._core.round(given, self._now))

    def _as_of_now(self, event: Event | InventoryChanged) -> Event | None:
        """The event with the incident's number of now; None if it belongs to a world that is not this one."""
        match event:
            case InventoryChanged():
                changed = {host.id: host for host in event.hosts}
                self._inventory = {
                    number: host for number, host in (self._inventory | changed).items() if number not in event.gone
                }
                self._groups = event.groups if event.regrouped else self._groups
                hosts = tuple(self._inventory[number] for number in sorted(self._inventory))
                return InventoryRead(hosts=hosts, groups=self._groups)
            case EvidenceTaken():
                return self._evidence(event)
            case SettingsChanged() if self._settings is not None:
                return None
            case _:
                pass
        incident = getattr(event, "incident", None)
        host = getattr(event, "host", None)
        if host is None and incident is not None:
            host = self._host_of_incident.get(incident)
        if host in self._partings:
            return None
        if incident is None:
            return event
        known = None if host is None else self._core.state.incidents.get(host)
        return None if known is None else _numbered(event, known.id)  # the number may be another host's now

    def _evidence(self, event: EvidenceTaken) -> EvidenceTaken | None:
        """Without hosts whose ways have parted, and only of channels that are configured now."""
        settings = self._core.state.settings
        if self._settings is not None and event.channel not in {channel.name for channel in settings.channels}:
            return None
        if not self._partings:
            return event
        readings = tuple(reading for reading in event.readings if reading.host not in self._partings)
        return EvidenceTaken(channel=event.channel, readings=readings) if readings else None

    # --- what it decides ---

    def _note(self, decision: Decision) -> None:
        for effect in decision.effects:
            host = host_of(effect)
            if host in self._partings or isinstance(effect, NOT_KEPT):
                continue
            if isinstance(effect, ReadHost):
                self._answer(effect)
                continue
            self._effects.append((self._now, effect))
            if (order := order_of(effect)) is not None and host is not None:
                self._only_now.append(_Order(at=self._now, host=host, order=order))

    def _answer(self, effect: ReadHost) -> None:
        """What was asked for then is answered by the record."""
        if any(host == effect.host and abs(at - self._now) <= SAME_WITHIN_S for at, host in self._asked):
            return
        host = self._inventory.get(effect.host)
        if self._oned_fails or host is None:
            return
        self._assumed.append((self._now, effect.host))
        known = self._last_read.get(effect.host) or self._reads.get(effect.host) or _imagined(host)
        self._note(self._core.step(replace(known, asked_at=self._now), self._now))

    # --- then and now ---

    def _compare(self, each: Round) -> None:
        """Find the counterparts of the orders of then.

        One that has none by now parts the ways at once: what is seen next may come of it already.
        """
        for effect in each.effects:
            order, host = order_of(effect), host_of(effect)
            if order is None or host is None or host in self._partings:
                continue
            twin = next((other for other in self._only_now if (other.host, other.order) == (host, order)), None)
            if twin is not None:
                self._only_now.remove(twin)
                continue
            known = self._core.state.hosts.get(host)
            stood = None if known is None else report.explain(self._core.state, known, self._now)
            self._part(host, Parting(at=each.at, why="what was done then is not done now", stood=stood))

    def _part_overdue(self, now: float) -> None:
        """Orders of now that had no counterpart in time: the ways have parted when the first was given."""
        late = [each for each in self._only_now if now - each.at > SAME_WITHIN_S]
        for each in late:
            if each.host not in self._partings:
                self._part(each.host, Parting(at=each.at, why="what is done now was not done then"))

    def _part(self, host: int, parting: Parting) -> None:
        """What was decided about the host since belongs to neither world."""
        self._partings[host] = parting
        self._only_now = [each for each in self._only_now if each.host != host]
        self._effects = [(at, effect) for at, effect in self._effects if host_of(effect) != host or at <= parting.at]


def _numbered(event: Event, incident: int) -> Event:
    """The event about another incident."""
    changes: dict[str, Any] = {"incident": incident}
    return replace(event, **changes)


@dataclass(frozen=True, slots=True)
class _Steady:
    """Readings of runs that came at about the same moment."""

    events: tuple[EvidenceTaken, ...]


def _timeline(record: FlightRecord) -> Iterator[tuple[float, Round | _Steady]]:
    """Rounds and steady readings in the order of their moments; what was said before the beginning comes first."""
    rounds: Iterator[tuple[float, Round | _Steady]] = ((each.at, each) for each in record.rounds)
    start = record.beginning
    yield from merge(_steady(record.runs, start), rounds, key=lambda pair: pair[0])


def _steady(runs: Iterable[Run], start: Beginning) -> Iterator[tuple[float, Round | _Steady]]:
    """The readings of all runs, a batch for each moment and channel."""
    each = merge(*(_readings(run, start) for run in runs), key=lambda item: item[0])
    for _, batch in groupby(each, key=lambda item: int(item[0] / BATCH_S)):
        items = list(batch)
        by_channel: dict[str, list[Reading]] = {}
        for _, channel, reading in items:
            by_channel.setdefault(channel, []).append(reading)
        events = tuple(EvidenceTaken(channel=name, readings=tuple(by_channel[name])) for name in sorted(by_channel))
        yield items[-1][0], _Steady(events)


def _readings(run: Run, start: Beginning) -> Iterator[tuple[float, str, Reading]]:
    """A controller that was really started knew nothing before."""
    for at, reading in run.readings(-1.0 if start.is_start else start.at):
        yield max(at, start.at), run.channel, reading


def _imagined(host: Host) -> HostRead:
    """A host that was never read by itself: its VMs by number, taken for running."""
    vms = tuple(
        Vm(id=number, name=f"VM {number}", state=VmState.ACTIVE, lcm_state=LcmState.RUNNING, host=host.id,
           cluster=host.cluster, label="RUNNING")
        for number in host.vms
    )  # fmt: skip
    return HostRead(host=host.id, asked_at=0.0, one_state=host.one_state, vms=vms)
