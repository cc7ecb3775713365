"""A bounded memory of the last minutes: everything that the core was given and decided, steady readings in short.

Of a host that nobody looks at closely, readings that say the same as the one before cost nothing but their number: a
`Run`. Everything else is kept as it came. The memory is cut into legs; a new one begins every minute, with what a
controller would know that were started then, and the oldest is forgotten. While it is held, for an incident, nothing is
forgotten until `HELD_WEIGHT_MAX`.

No I/O and no clock. Must never be the reason that a decision waits: a round costs microseconds, see docs/replay.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Effect
from ha_controller.core.events import (
    DeviceChecked,
    Event,
    EvidenceTaken,
    HostRead,
    InventoryRead,
    LeadChanged,
    SecondMasterLooked,
    SelfChecked,
    SelfPlaced,
    SightTold,
    TimePassed,
)
from ha_controller.core.model import Host, HostState, Reading
from ha_controller.core.resources import VmGroup
from ha_controller.flight.record import NOT_KEPT, Beginning, FlightRecord, InventoryChanged, Round, Run

LEG_S = 60.0
LEGS_MAX = 6
LEG_WEIGHT_MAX = 20_000  #: readings and other things in one leg; then the next one begins early
HELD_WEIGHT_MAX = 200_000
FOLLOWED_MAX = 16  #: so many hosts under close watch are kept reading by reading; in a storm the others are runs, too
NO_GAP_MAX_S = float("inf")


@dataclass(slots=True)
class _OpenRun:
    """A run that goes on."""

    last: Reading
    last_at: float
    first_sent_at: float
    first_at: float
    cuts: int  #: after how many cuts it was made: one that was made before the last is in a record, and stays as it is
    count: int = 1
    gap_max_s: float = NO_GAP_MAX_S  #: after a longer one another run begins: readings are missing there

    def closed(self, channel: str) -> Run:
        return Run(
            channel=channel,
            last=self.last,
            last_at=self.last_at,
            first_sent_at=self.first_sent_at,
            first_at=self.first_at,
            count=self.count,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """What was held at a moment. Made at once; to make a record of it takes longer, and may be done in a thread."""

    incidents: tuple[int, ...]
    beginning: Beginning
    rounds: tuple[Round, ...]
    runs: tuple[Run, ...]
    running: tuple[tuple[str, tuple[_OpenRun, ...]], ...]
    ends_at: float
    end: str

    def record(self) -> FlightRecord:
        """As a record."""
        running = (run.closed(channel) for channel, runs in self.running for run in runs)
        return FlightRecord(
            incidents=self.incidents,
            beginning=self.beginning,
            rounds=self.rounds,
            runs=(*self.runs, *running),
            ends_at=self.ends_at,
            end=self.end,
        )


@dataclass(slots=True)
class _Leg:
    beginning: Beginning
    rounds: list[Round] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)  #: those that ended in it
    weight: int = 0


class Recorder:
    """Takes notes of one controller, from its start on."""

    def __init__(self, controller: Controller, now: float) -> None:
        """Before the first step; what the journal held is restored already."""
        self._controller = controller
        self._hosts: dict[int, Host] = {}
        self._groups: tuple[VmGroup, ...] | None = None
        self._surroundings: dict[type[Event], Event] = {}
        self._devices: dict[tuple[int, str], DeviceChecked] = {}
        self._open: dict[str, dict[int, _OpenRun]] = {}
        self._cuts = 0
        self._followed: set[int] = set()
        self._sights: dict[str, SightTold] = {}  #: the newest word of each other controller, of all hosts
        self._ticking = False
        self._legs = deque([_Leg(self._beginning(now, is_start=True))])
        self.held = False

    @property
    def weight(self) -> int:
        """How many readings and other things are held, beside the runs that go on."""
        return sum(leg.weight for leg in self._legs)

    @property
    def is_full(self) -> bool:
        """Whether no more can be held."""
        return self.weight >= HELD_WEIGHT_MAX

    def note(self, events: Sequence[Event], effects: Iterable[Effect], now: float) -> None:
        """Take down what the core was given at a moment, in this order, and what it wanted. After the step."""
        leg, before = self._legs[-1], self._followed
        self._follow()
        after, self._followed = self._followed, self._followed | before  # the last reading of a watch counts to it
        known = [part for word in self._sights.values() if (part := _part(word, after - before))]
        kept = (*known, *(each for event in events if (each := self._kept(event, now, leg)) is not None))
        self._followed = after
        wanted = tuple(effect for effect in effects if not isinstance(effect, NOT_KEPT))
        ticking = self._controller.next_deadline(now) is not None
        # a tick while nothing is watched changes nothing, and needs no note
        if wanted or ticking or self._ticking or any(type(event) is not TimePassed for event in kept):
            leg.rounds.append(Round(at=now, events=kept, effects=wanted, ticking=ticking))
            leg.weight += 1 + sum(map(_weight, kept))
        self._ticking = ticking
        if now - leg.beginning.at >= LEG_S or leg.weight >= LEG_WEIGHT_MAX:
            self._begin_leg(now)

    def cut(self, incidents: Iterable[int], now: float, end: str) -> Cut:
        """What is held now, for these incidents; taking notes goes on."""
        self._cuts += 1
        legs = list(self._legs)
        return Cut(
            incidents=tuple(incidents),
            beginning=legs[0].beginning,
            rounds=tuple(chain.from_iterable(leg.rounds for leg in legs)),
            runs=tuple(chain.from_iterable(leg.runs for leg in legs)),
            running=tuple((channel, tuple(runs.values())) for channel, runs in self._open.items()),
            ends_at=now,
            end=end,
        )

    # --- what is kept of an event ---

    def _follow(self) -> None:
        """Whose readings are kept one by one: hosts under close watch, unless all there is to do for them is done."""
        state = self._controller.state
        views, watched, incidents = state.views, state.watched, state.incidents
        self._followed = {
            host
            for host in self._followed
            if (host in watched or host in incidents) and host in views and views[host].state is not HostState.RECOVERED
        }
        for host in chain(incidents, watched):
            if len(self._followed) >= FOLLOWED_MAX:
                return
            if host in views and views[host].state is not HostState.RECOVERED:
                self._followed.add(host)

    def _kept(self, event: Event, now: float, leg: _Leg) -> Event | InventoryChanged | None:
        match event:
            case EvidenceTaken():
                readings = self._compact(event, now, leg)
                return EvidenceTaken(channel=event.channel, readings=readings) if readings else None
            case SightTold():
                self._sights[event.controller] = event
                return _part(event, self._followed)
            case InventoryRead():
                return self._changed(event)
            case DeviceChecked():
                self._devices[event.host, event.device] = event
            case LeadChanged() | SelfChecked() | SelfPlaced() | SecondMasterLooked():
                self._surroundings[type(event)] = event
            case _:
                pass
        return event

    def _compact(self, event: EvidenceTaken, now: float, leg: _Leg) -> tuple[Reading, ...]:
        """Make steady readings part of their runs; returns the others. The hot path: every reading comes by."""
        runs, followed = self._open.setdefault(event.channel, {}), self._followed
        kept = []
        for reading in event.readings:
            host = reading.host
            run = runs.get(host)
            if host in followed:
                kept.append(reading)
            elif run is not None:
                last, sent_at = run.last, reading.sent_at
                gap_s = sent_at - last.sent_at
                if gap_s < 0:
                    continue  # late: the core drops it, too
                if gap_s <= run.gap_max_s and reading.signal is last.signal and reading.boot_id == last.boot_id:
                    if run.cuts != self._cuts:
                        run = runs[host] = replace(run, cuts=self._cuts)
                    if run.count == 1:
                        run.gap_max_s = 2 * gap_s + 0.5
                    run.last, run.last_at, run.count = reading, now, run.count + 1
                    continue
            if run is not None:
                self._close(event.channel, run, leg)
                del runs[host]
            if host not in followed:
                runs[host] = _OpenRun(reading, now, reading.sent_at, now, self._cuts)
                kept.append(reading)  # what is new keeps its place among everything else
        return tuple(kept)

    def _close(self, channel: str, run: _OpenRun, leg: _Leg) -> None:
        leg.runs.append(run.closed(channel))
        leg.weight += 1

    def _changed(self, event: InventoryRead) -> InventoryChanged:
        """Only what differs; hosts that are as before stay the same objects, so that the others can be forgotten."""
        before = self._hosts
        self._hosts = {}
        changed = []
        for host in event.hosts:
            known = before.get(host.id)
            if known != host:
                changed.append(host)
            self._hosts[host.id] = host if known is None or known != host else known
        gone = tuple(sorted(before.keys() - self._hosts.keys()))
        self._devices = {key: check for key, check in self._devices.items() if key[0] in self._hosts}
        regrouped = event.groups != self._groups
        self._groups = event.groups
        groups = event.groups if regrouped else None
        return InventoryChanged(hosts=tuple(changed), gone=gone, regrouped=regrouped, groups=groups)

    # --- legs ---

    def _begin_leg(self, now: float) -> None:
        keep = self.held and not self.is_full
        while not keep and len(self._legs) >= LEGS_MAX:
            self._legs.popleft()
        self._legs.append(_Leg(self._beginning(now)))

    def _beginning(self, now: float, *, is_start: bool = False) -> Beginning:
        state = self._controller.state
        return Beginning(
            at=now,
            settled_from=state.settle_until - state.settings.settle_s,
            settings=state.settings,
            incidents=tuple(state.incidents.values()),
            cloud=state.cloud,
            trusts=tuple(state.trusts.values()),
            hosts=tuple(self._hosts.values()),
            groups=self._groups,
            known=(*self._surroundings.values(), *self._devices.values()),
            is_start=is_start,
        )


def _part(word: SightTold, hosts: Set[int]) -> SightTold | None:
    """What another controller said of these hosts; None: nothing."""
    alive = tuple(seen for seen in word.alive if seen.host in hosts)
    return SightTold(controller=word.controller, alive=alive) if alive else None


def _weight(event: Event | InventoryChanged) -> int:
    match event:
        case EvidenceTaken():
            return len(event.readings)
        case InventoryChanged():
            return len(event.hosts)
        case HostRead():
            return len(event.vms)
        case SightTold():
            return len(event.alive)
        case _:
            return 1
