"""Counts what happens while the controller runs, for metrics: told by whoever sees it, beside the decisions.

It must never touch a decision: every method returns at once and never raises, whatever goes wrong inside. Nothing here
is read by anything but a scrape.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar, cast

import structlog

from ha_controller.app.tallies import Spread, Tally
from ha_controller.core import timeline
from ha_controller.core.effects import Effect, Explain, HostStep
from ha_controller.core.events import (
    DrillReported,
    Event,
    FenceReported,
    FenceResult,
    HostOrderReported,
    OrderResult,
    VmOrderReported,
)
from ha_controller.core.guard import GUARDS
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.machine import TABLE
from ha_controller.core.model import HostState
from ha_controller.core.state import State
from ha_controller.engine import Commit, JournalPort
from ha_controller.plugin import Reading, Signal

log = structlog.get_logger(__name__)

Method = TypeVar("Method", bound=Callable[..., None])
Record = Callable[[Sequence[Event], Sequence[Effect], float], None]

INCIDENTS_MAX = 1000  #: so many are remembered, so that nothing of them is counted twice
QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DEVICE_S = (0.5, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 60, 120)
FAILOVER_S = (1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600)

OUTCOMES = {VmStage.RUNNING: "running", VmStage.KEPT: "moved_not_started", VmStage.LEFT: "left_alone"}


def word(text: str) -> str:
    """A value of a label: `off read` is `off_read`."""
    return text.replace(" ", "_").replace("-", "_")


def harmless(method: Method) -> Method:
    """The border: a fault in counting is logged once, and is nobody else's."""

    @wraps(method)
    def contained(self: Counting, *told: Any) -> None:
        try:
            method(self, *told)
        except Exception:  # the border: no decision depends on this
            self.note_fault(method.__name__)

    return cast("Method", contained)


@dataclass(kw_only=True)
class _Seen:
    """What was counted of an incident."""

    phases: set[str] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    closed: bool = False


class Counting:
    """Everything that is counted."""

    def __init__(self, state: State, clock: Callable[[], float]) -> None:
        """Everything is 0. Of `state` only the hosts' states are read."""
        changes = {(a.value, b.value) for a, row in TABLE.items() for b in row.values() if a is not b}
        results = [(word(result.value),) for result in OrderResult]
        self.fences = Tally("result", known=[(word(result.value),) for result in FenceResult])
        self.fence_attempts = Tally("agent", "result")
        self.fence_duration = Spread(DEVICE_S, "agent")
        self.drills = Tally("result", known=[("switched",), ("failed",)])
        self.transitions = Tally("from", "to", known=sorted(changes))
        self.incidents_opened = Tally()
        self.incidents = Tally("outcome", known=[("recovered",), ("left_alone",), ("rebooted",), ("stood_down",)])
        self.phases = Spread(FAILOVER_S, "phase")
        self.vm_outcomes = Tally("outcome", known=[(name,) for name in OUTCOMES.values()])
        self.vm_downtime = Spread(FAILOVER_S)
        self.vm_orders = Tally("result", known=results)
        steps = [(word(step.value), *result) for step in HostStep for result in results]
        self.host_orders = Tally("step", "result", known=steps)
        self.guard_refusals = Tally("guard", known=[(word(name),) for name, _ in GUARDS])
        self.readings = Tally("channel", "result")
        self.probe_duration = Spread(QUICK_S, "channel")
        self.oned_calls = Tally("method", "result")
        self.oned_duration = Spread(QUICK_S, "method")
        self.commits = Spread(QUICK_S)
        self.rounds = Spread(QUICK_S)
        self.lag = Spread(QUICK_S)
        self.faults = Tally()  #: of counting itself
        self.config_is_bad = False  #: when it was last read
        self._state, self._clock = state, clock
        self._states: dict[int, HostState] = {}
        self._seen: OrderedDict[int, _Seen] = OrderedDict()

    def note_fault(self, what: str) -> None:
        """Counting failed; the first fault is logged with its traceback, inside an `except`."""
        if not self.faults.rows[()]:
            log.exception("something could not be counted for metrics; nothing else is touched", what=what)
        self.faults.rows[()] += 1

    # --- what is told ---

    @harmless
    def round(self, events: Sequence[Event], effects: Sequence[Effect], now: float) -> None:
        """A round of decisions that began at `now` is over: its record is on disk, its effects have left."""
        self.rounds.note(self._clock() - now)
        for event in events:
            self._happened(event)
        for effect in effects:
            if isinstance(effect, Explain):
                self._explained(effect)
        if effects:  # no host changes its state without one
            self._compare_states()

    @harmless
    def committed(self, incidents: Sequence[Incident], took_s: float) -> None:
        """These incidents are on disk."""
        self.commits.note(took_s)
        for incident in incidents:
            self._compare(incident)

    @harmless
    def restored(self, incidents: Sequence[Incident]) -> None:
        """Of these, what was on record at the start was counted by an earlier process, or is lost."""
        self._states = self._states_now()
        for incident in incidents:
            seen = self._remembered(incident.id)
            seen.phases = {name for name, took_s in timeline.phases(incident).items() if took_s is not None}
            seen.settled = {record.id for record in incident.vms if record.settled}
            seen.closed = not incident.open

    @harmless
    def probed(self, channel: str, readings: Sequence[Reading], now: float) -> None:
        """A channel has these answers at `now`."""
        for signal, count in Counter([reading.signal for reading in readings]).items():
            self.readings.add(channel, signal.value, by=count)
        for reading in readings:
            if reading.signal is Signal.ALIVE:
                self.probe_duration.note(now - reading.sent_at, channel)

    @harmless
    def called(self, method: str, result: str, took_s: float) -> None:
        """A call of OpenNebula ended."""
        self.oned_calls.add(method, result)
        self.oned_duration.note(took_s, method)

    @harmless
    def fenced(self, agent: str, result: str, took_s: float) -> None:
        """An agent was used for a power-off."""
        self.fence_attempts.add(agent, word(result))
        self.fence_duration.note(took_s, agent)

    @harmless
    def lagged(self, lag_s: float) -> None:
        """The event loop gave somebody his turn so late."""
        self.lag.note(lag_s)

    @harmless
    def equipped(self, agents: Sequence[str]) -> None:
        """These agents may be used: their counts are shown from 0 on."""
        for agent in agents:
            for result in ("off_read", "accepted", "unverified", "refused", "not_sent"):
                self.fence_attempts.add(agent, result, by=0)

    def timed(self, journal: JournalPort) -> JournalPort:
        """The same journal; what it makes durable is counted."""
        return _TimedJournal(journal, self, self._clock)

    def beside(self, record: Record) -> Record:
        """What is told of a round when another one is told of it, too."""

        def both(events: Sequence[Event], effects: Sequence[Effect], now: float) -> None:
            record(events, effects, now)
            self.round(events, effects, now)

        return both

    # --- what it comes to ---

    def _happened(self, event: Event) -> None:
        match event:
            case FenceReported():
                self.fences.add(word(event.result.value))
            case HostOrderReported():
                self.host_orders.add(word(event.step.value), word(event.result.value))
            case VmOrderReported():
                self.vm_orders.add(word(event.result.value))
            case DrillReported():
                for _, _, switched, _ in event.results:
                    self.drills.add("switched" if switched else "failed")
            case _:
                pass

    def _explained(self, effect: Explain) -> None:
        """A decision that is put on record when it becomes another one, so a guard counts once for each."""
        for line in effect.guards:
            if line.startswith("✗"):
                self.guard_refusals.add(word(line.removeprefix("✗").partition(":")[0].strip()))

    def _compare_states(self) -> None:
        before = self._states
        self._states = self._states_now()
        for host, state in self._states.items():
            if (was := before.get(host, HostState.OK)) is not state:  # a new one begins as OK
                self.transitions.add(was.value, state.value)

    def _states_now(self) -> dict[int, HostState]:
        return {host: view.state for host, view in self._state.views.items()}

    def _compare(self, incident: Incident) -> None:
        if incident.id not in self._seen:
            self.incidents_opened.add()
        seen = self._remembered(incident.id)
        for name, took_s in timeline.phases(incident).items():
            if took_s is not None and name not in seen.phases:
                seen.phases.add(name)
                self.phases.note(took_s, name)
        settled = {record.id: record for record in incident.vms if record.settled}
        for number in settled.keys() - seen.settled:
            self._settled(incident, settled[number])
        seen.settled = set(settled)
        if not incident.open and not seen.closed:
            seen.closed = True
            self.incidents.add(_outcome(incident))

    def _settled(self, incident: Incident, record: VmRecord) -> None:
        self.vm_outcomes.add(OUTCOMES[record.stage])
        if (outage_s := timeline.outage_s(incident, record)) is not None:
            self.vm_downtime.note(outage_s)

    def _remembered(self, incident: int) -> _Seen:
        seen = self._seen.setdefault(incident, _Seen())
        if len(self._seen) > INCIDENTS_MAX:
            self._seen.popitem(last=False)
        return seen


def _outcome(incident: Incident) -> str:
    """How an incident that is closed ended."""
    if any(record.stage is VmStage.LEFT for record in incident.vms):
        return "left_alone"
    if incident.rebooted:
        return "rebooted"
    return "stood_down" if incident.fenced_at is None else "recovered"


class _TimedJournal:
    """Hands everything on, and tells how long it took."""

    def __init__(self, journal: JournalPort, counting: Counting, clock: Callable[[], float]) -> None:
        self._journal, self._counting, self._clock = journal, counting, clock

    async def commit(self, commit: Commit) -> None:
        began_at = self._clock()
        await self._journal.commit(commit)
        self._counting.committed(commit.incidents, self._clock() - began_at)
