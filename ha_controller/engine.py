"""The only loop: take events, step the core, write to the journal, dispatch.

Nothing irreversible leaves before the record that announces it is on disk. When the journal fails, nothing is
dispatched and the engine ends: a restart takes up what the journal holds, after a full grace period.
Events come in through `post`; effects go out through the `dispatch` it was given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.lowlevel

from ha_controller.core.controller import TICK_S, Controller, Decision
from ha_controller.core.effects import (
    Answer,
    DestroyDomain,
    Drill,
    Effect,
    Explain,
    Fence,
    LiftOrders,
    LockVm,
    MarkMaintenance,
    MoveVm,
    OrderHost,
    PowerOn,
    RecoverVm,
    RenewOrders,
    RestartMonitoring,
    ResumeVm,
    Tell,
    WriteAttributes,
    not_shared,
)
from ha_controller.core.events import (
    DomainDestroyed,
    DrillReported,
    Event,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    HostOrderReported,
    MonitoringRestarted,
    OperatorCommanded,
    OrdersLifted,
    OrdersRenewed,
    PoweredOn,
    SightTold,
    TimePassed,
    VmOrderReported,
)
from ha_controller.core.incident import CloudRecord, Incident, TrailEntry
from ha_controller.core.model import HostTrust

EVIDENCE_QUEUE_MAX = 1000
EXPLAINED = ("what", "because", "next_step", "evidence", "guards", "plan", "rejected")
COMMANDED = ("who", "origin", "verb", "reason", "request", "for_s", "force", "repaired", "here")


class NotShared(Exception):
    """It is durable here, and not known to be where the next leader reads it: no order may leave."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What one round decided and has to be durable before any of its effects leaves."""

    incidents: Sequence[Incident] = ()  #: that have changed
    cloud: CloudRecord | None = None  #: None: as before
    trusts: Sequence[HostTrust] = ()  #: that have changed
    entries: Sequence[TrailEntry] = ()
    term: int | None = None  #: in which it was decided; None: without the lead


class JournalPort(Protocol):
    """What the engine needs of a journal."""

    async def commit(self, commit: Commit) -> None:
        """Make all of it durable, or raise. Its term is never lower than one on record.

        Raises:
            NotShared: it is durable, but not for the next leader. Anything else: it is not durable.
        """


class Engine:
    """Runs one core. Everything else only posts events and carries out effects."""

    def __init__(
        self,
        controller: Controller,
        *,
        journal: JournalPort,
        dispatch: Callable[[Effect], None],
        record: Callable[[Sequence[Event], Sequence[Effect], float], None],
        clock: Callable[[], float],
    ) -> None:
        """`dispatch` and `record` must not block and must not raise; `clock` gives the controller's seconds.

        `record` is told what the core was given at a moment and what it wanted, once that has left.
        """
        self.controller = controller
        self.last_round_at = clock()
        self.evidence_dropped = 0
        self._journal = journal
        self._dispatch = dispatch
        self._record = record
        self._clock = clock
        self._inbox: deque[Event] = deque()
        self._bell = anyio.Event()
        self._term: int | None = None  #: the last one on record
        self._asked: dict[int, OperatorCommanded] = {}  #: commands without an answer; the core answers each

    def post(self, event: Event) -> None:
        """Hand in an event, from the event loop's thread.

        The inbox is bounded for evidence only: when a thousand events wait, new evidence is dropped, which makes hosts
        unknown and never dead. What another controller says takes the place of what it said before and nobody has taken
        up yet: it says all anew. All other events answer orders or people and are few.
        """
        if len(self._inbox) >= EVIDENCE_QUEUE_MAX and isinstance(event, EvidenceTaken):
            self.evidence_dropped += 1
            return
        if isinstance(event, SightTold) and event.alive:
            self._inbox = deque(each for each in self._inbox if not _is_by(event.controller, each))
        self._inbox.append(event)
        self._bell.set()

    async def run(self) -> None:
        """Take up what a crash left, then go on until cancelled.

        Raises:
            whatever the journal raises when a record could not be made durable: nothing of that round was dispatched.
            When it could not be shared, the orders of that round were not, and the loop goes on.
        """
        now = self._clock()
        await self._carry_out([self.controller.resume(now)], (), now)
        ticked_at = now
        while True:
            await self._wait()
            events, self._inbox = [*self._inbox], deque()
            self._bell = anyio.Event()
            now = self._clock()  # one moment for the round: the same events at the same times decide the same
            if not events or now - ticked_at >= TICK_S:  # not in every round: each look at hundreds of VMs costs
                events.append(TimePassed())
                ticked_at = now
            await self._carry_out([self.controller.round(events, now)], events, now)
            self.last_round_at = self._clock()

    async def _wait(self) -> None:
        """Until something came in or the core wants to look."""
        if self._inbox:
            await anyio.lowlevel.checkpoint()
            return
        deadline = self.controller.next_deadline(self._clock())
        with anyio.move_on_after(1.0 if deadline is None else max(0.0, deadline - self._clock())):
            await self._bell.wait()

    async def _carry_out(self, decisions: Iterable[Decision], events: Sequence[Event], now: float) -> None:
        """First on disk, then out: one commit for all that this round decided. Last of all it is recorded."""
        incidents: dict[int, Incident] = {}
        trusts: dict[int, HostTrust] = {}
        cloud: CloudRecord | None = None
        term: int | None = None
        effects: list[Effect] = []
        for decision in decisions:
            incidents.update((incident.id, incident) for incident in decision.incidents)
            trusts.update((trust.host, trust) for trust in decision.trusts)
            cloud = decision.cloud or cloud
            term = term if decision.term is None else decision.term
            effects.extend(decision.effects)
        entries = self._entries(events, effects)
        leaving: Sequence[Effect] = effects
        is_new_term = term is not None and term != self._term  # on record before anything is done in it
        if incidents or cloud or trusts or entries or is_new_term:
            commit = Commit(
                incidents=[incidents[number] for number in sorted(incidents)],
                cloud=cloud,
                trusts=[trusts[host] for host in sorted(trusts)],
                entries=entries,
                term=term,
            )
            try:
                await self._journal.commit(commit)
            except NotShared as error:
                leaving = not_shared(effects, str(error))
            self._term = self._term if term is None else term
        for effect in leaving:
            if report := self.controller.taken_back(effect, self._inbox):
                self.post(report)
            else:
                self._dispatch(effect)
        self._record(events, effects, now)

    def _entries(self, events: Sequence[Event], effects: Sequence[Effect]) -> list[TrailEntry]:
        now = self._clock()
        lines = [line for event in events if (line := _reported(event, now))]
        self._asked.update({event.request: event for event in events if isinstance(event, OperatorCommanded)})
        for effect in effects:
            if isinstance(effect, Answer):
                lines.append(_answered(effect, self._asked.pop(effect.request, None), now))
            elif line := _announced(effect, now):
                lines.append(line)
        return lines


#: of the exit codes that the core answers with
OUTCOMES = {0: "done", 3: "no such thing", 4: "refused", 6: "not yet", 9: "not by this controller"}


def _is_by(controller: str, event: Event) -> bool:
    return isinstance(event, SightTold) and event.controller == controller


def _answered(answer: Answer, asked: OperatorCommanded | None, now: float) -> TrailEntry:
    """What became of a command; what was refused is on record like what was done."""
    whose = f"order {answer.request}" if asked is None else f"{asked.who}'s {asked.verb.value}"
    text = f"{whose}: {OUTCOMES.get(answer.code, f'code {answer.code}')}. {answer.text}"
    data = {"request": answer.request, "code": answer.code, "result": answer.text}
    host, incident = (None, None) if asked is None else (asked.host, asked.incident)
    return TrailEntry(at=now, kind="answer", text=text, host=host, incident=incident, data=data)


def _announced(effect: Effect, now: float) -> TrailEntry | None:
    """The trail's line for an order or a message; None for harmless ones."""
    incident: int | None = None
    match effect:
        case Fence(host=host, incident=incident):
            verb = "power off" if effect.send else "read back"
            text = f"{verb} with {', '.join(effect.devices)}, attempt {effect.attempt}"
        case Drill(host=host):
            text = f"drill: power off and on with {', '.join(effect.devices)}"
        case RestartMonitoring(host=host):
            text = f"tell OpenNebula: monitor host {host} anew"
        case MarkMaintenance(host=host):
            text = f"maintenance {'on' if effect.on else 'off'} ({effect.reason})"
        case RenewOrders(host=host, incident=incident):
            text = f"renew the order of {', '.join(effect.devices)}"
        case LiftOrders(host=host, incident=incident):
            text = f"lift the order of {', '.join(effect.devices)}"
        case PowerOn(host=host, incident=incident):
            text = f"power on with {', '.join(effect.devices)}"
        case DestroyDomain(host=host, incident=incident):
            text = f"destroy the leftover domain one-{effect.vm}, attempt {effect.attempt}; it runs on {effect.runs_on}"
        case OrderHost(host=host, incident=incident):
            text = f"tell OpenNebula: {effect.step.value} host {host}"
        case MoveVm(source=host, incident=incident):
            text = f"migrate VM {effect.vm} to host {effect.destination}"
        case ResumeVm(host=host, incident=incident):
            text = f"resume VM {effect.vm} on host {host}"
        case RecoverVm(host=host, incident=incident):
            text = f"recover VM {effect.vm} on host {host}: {effect.operation.name.lower()} of {effect.lcm_state}"
        case LockVm(host=host, incident=incident):
            text = f"lock VM {effect.vm} again, level {effect.level}"
        case WriteAttributes(host=host, incident=incident):
            text = f"write on {'the host' if effect.vm is None else f'VM {effect.vm}'}: {effect.text}"
        case Explain(host=host, incident=incident):
            text = f"{effect.what}{f' ({effect.because})' if effect.because else ''}"
            data = {name: getattr(effect, name) for name in EXPLAINED}
            return TrailEntry(at=now, kind="decision", text=text, host=host, incident=incident, data=data)
        case Tell():
            text = f"{effect.text}. {effect.next_step}"
            return TrailEntry(at=now, kind="told", text=text, host=effect.host, incident=effect.incident)
        case _:
            return None
    return TrailEntry(at=now, kind="intent", text=text, host=host, incident=incident, data={"term": effect.term})


def _reported(event: Event, now: float) -> TrailEntry | None:
    """The trail's line for the result of an order or a command; None for everything else."""
    match event:
        case FenceAccepted(host=host, incident=incident):
            text = f"power-off attempt {event.attempt} acknowledged (proves nothing)"
        case FenceReported(host=host, incident=incident):
            text = f"power-off attempt {event.attempt}: {event.result.value}. {event.detail}"
        case DrillReported(host=host):
            text = "drill: " + "; ".join(f"{device}: {detail}" for device, _, _, detail in event.results)
            return TrailEntry(at=now, kind="drill", text=text, host=host)
        case MonitoringRestarted(host=host):
            text = f"OpenNebula, monitor anew: {event.failure or 'accepted'}"
            return TrailEntry(at=now, kind="report", text=text, host=host)
        case OrdersRenewed(host=host, incident=incident) | OrdersLifted(host=host, incident=incident):
            verb = "renewed" if isinstance(event, OrdersRenewed) else "lifted"
            failed = "; ".join(f"{device}: {detail}" for device, detail in event.failed)
            text = f"orders not {verb}: {failed}" if failed else f"orders {verb}"
        case PoweredOn(host=host, incident=incident):
            text = "; ".join(f"{device}: {detail}" for device, detail in event.failed) or "powered on"
        case DomainDestroyed(host=host, incident=incident):
            text = f"leftover domain one-{event.vm}: {event.failure or 'destroyed'}"
        case HostOrderReported(host=host, incident=incident):
            text = f"OpenNebula, {event.step.value}: {event.result.value}. {event.detail}"
        case VmOrderReported(incident=incident):
            text = f"OpenNebula, VM {event.vm}: {event.result.value}. {event.detail}"
            return TrailEntry(at=now, kind="report", text=text, incident=incident)
        case OperatorCommanded():
            text = f"{event.who} orders {event.verb.value}: {event.reason}"
            data = {name: getattr(event, name) for name in COMMANDED}
            return TrailEntry(at=now, kind="operator", text=text, host=event.host, incident=event.incident, data=data)
        case _:
            return None
    return TrailEntry(at=now, kind="report", text=text, host=host, incident=incident)
