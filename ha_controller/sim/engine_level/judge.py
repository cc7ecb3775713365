"""The checkers of the second level: those of the first, and what only a whole controller can do wrong.

G2 no order leaves without a proof of the lead that is fresh. L2 no device, no plugin and no host delays another; every
order ends by its deadline; what was told to end ends. P1 no secret in what is logged or told. X no bug of the
controller ends it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ha_controller.core.effects import Effect, Fence, MoveVm, Order, Tell, WriteAttributes
from ha_controller.core.events import Event, EvidenceTaken, VmOrderReported
from ha_controller.core.model import Signal
from ha_controller.sim.core_level.judge import Judge, Violation
from ha_controller.sim.engine_level.agents import PASSWORD
from ha_controller.sim.engine_level.front_end import SESSION
from ha_controller.sim.engine_level.record_judge import RecordJudge

if TYPE_CHECKING:
    from ha_controller.sim.core_level.stage import Controlling
    from ha_controller.sim.engine_level.process import Process
    from ha_controller.sim.engine_level.quorum import Texts
    from ha_controller.sim.engine_level.world import World

PROOF_MAX_S = 2.5  #: an order leaves at most 2 s after its proof was asked for, and has a way to go
ASKED_WITHIN_S = 3.0  #: every host is asked every second, whatever hangs
LATE_MAX_S = 4.5  #: what may pass between the last look at the clock and the order: whose it is, a proof of the lead
SENT_WITHIN_S = 12.0  #: from the record of a power-off to each of its devices: a proof of the lead, whose it is
FENCE_ENDS_WITHIN_S = 32.0  #: the device's own deadline and what is read before and after
ORDER_ENDS_WITHIN_S = 90.0
HEARD = ("icmp", "ssh", "storage")  #: channels whose life is the host's own
HEARD_SLACK_S = 2.5  #: what was heard is decided about, and an order that left before has its way to go
OVER_MAX_S = 0.1  #: beyond its own time: between the question and the note of it
SECRETS = (PASSWORD, SESSION.partition(":")[2])


@dataclass(kw_only=True)
class _Noted:
    """Of one life of a controller."""

    under_way: dict[int, tuple[Effect, float]] = field(default_factory=dict)  #: by identity, since when
    asked: dict[int, float] = field(default_factory=dict)  #: host -> when a probe last asked it
    waits_for: defaultdict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """host -> device -> ordered when"""
    heard: dict[int, tuple[float, float]] = field(default_factory=dict)
    """host -> when the last question that was answered left, on the controller's clock, and when that was told"""

    def orders(self) -> list[Effect]:
        """What is under way."""
        return [each for each, _ in self.under_way.values()]


def _is_last_word(process: Controlling, effect: Effect) -> bool:
    """A note for people about an incident that ends by the very write before it: a slow record takes in all at once."""
    incident = process.record.incidents.get(effect.incident or 0) if isinstance(effect, WriteAttributes) else None
    return incident is not None and not incident.open


class EngineJudge(Judge):
    """Looks at everything, and trusts nobody."""

    world: World

    def __init__(self, world: World) -> None:
        """Nothing has happened."""
        super().__init__(world)
        self.record = RecordJudge(world)
        self._noted: defaultdict[str, _Noted] = defaultdict(_Noted)

    def started(self, process: Process) -> None:
        """A new process has nothing under way."""
        self._noted[process.name] = _Noted()

    # --- orders ---

    def leaves(self, process: Controlling, effect: Effect) -> None:
        """An effect is dispatched."""
        super().leaves(process, effect)
        if self.world.shares and isinstance(effect, Order) and not _is_last_word(process, effect):
            self.record.announces(effect)
        if isinstance(effect, Fence) and effect.send:
            self._noted[process.name].waits_for[effect.host] = dict.fromkeys(effect.devices, self.world.now)

    def begins(self, process: Process, effect: Effect) -> None:
        """Somebody carries it out."""
        self._noted[process.name].under_way[id(effect)] = (effect, self.world.now)

    def ends(self, process: Process, effect: Effect) -> None:
        """It was carried out, or given up."""
        self._noted[process.name].under_way.pop(id(effect), None)
        if isinstance(effect, Fence):
            self._noted[process.name].waits_for.pop(effect.host, None)

    def device_asked(self, process: Process, host: int, name: str) -> None:
        """A device's agent is called to power off."""
        self._noted[process.name].waits_for[host].pop(name, None)

    def power_off_sent(self, process: Process, host: int, machine: int, called_at: float) -> None:
        """A power-off leaves the controller; its agent was called at `called_at`.

        A process that stood still in between cannot look again, unless its own time of the lead is over by then.
        """
        orders = [each for each in self._noted[process.name].orders() if isinstance(each, Fence) and each.host == host]
        if not orders:
            raise Violation("D1", f"host {host} is powered off, which nobody ordered")
        if process.blocked_until <= called_at:
            self._in_its_own_time(process, f"a power-off of host {host}")
        if process.paused_until <= called_at:
            self._leads(process, f"a power-off of host {host}")
            if (late_s := process.clock() - orders[-1].not_after) > LATE_MAX_S:
                raise Violation("G1", f"a power-off of host {host} is sent {late_s:.0f} s after its time")
            self.fence_begins(process, orders[-1])
        else:
            self.counted["fences"] += 1
        self.sent(host, machine)

    def oned_ordered(self, process: Process, method: str, arguments: tuple[Any, ...], called_at: float) -> None:
        """An order leaves for OpenNebula, by what was decided lately; it was on its way out since `called_at`."""
        stood_still = process.paused_until > called_at
        if process.blocked_until <= called_at:
            self._in_its_own_time(process, method)
        if not stood_still:
            self._leads(process, method)
        if method != "one.vm.migrate":
            return
        moves = [
            each for each in self._noted[process.name].orders() if isinstance(each, MoveVm) and each.vm == arguments[0]
        ]
        if not moves or all(each.destination != arguments[1] for each in moves):
            raise Violation("D1", f"VM {arguments[0]} is moved to host {arguments[1]}, which nobody ordered")
        if not stood_still:
            super()._stands_on_a_proof(process, moves[-1].incident, moves[-1].source)
            self._no_life_since(process, moves[-1])

    def _stands_on_a_proof(self, process: Controlling, number: int, source: int) -> None:
        """Not when a move is dispatched, which may wait: when it is sent."""

    def _leads(self, process: Process, what: str) -> None:
        election = self.world.arbiter
        asked_at = election.proven.get(process.name, 0.0)
        if self.world.now - asked_at > PROOF_MAX_S:
            ago = self.world.now - asked_at
            raise Violation("G2", f"{what} left, and the lead was proven last {min(ago, 9999):.1f} s ago")

    def _in_its_own_time(self, process: Process, what: str) -> None:
        """Whoever wakes looks at the clock before anything else runs."""
        election = self.world.arbiter
        over_s = self.world.now - election.kept.get(process.name, 0.0) - election.lead_s
        if over_s > OVER_MAX_S:
            raise Violation("G2", f"{what} left, and its sender's own time of the lead is over for {over_s:.1f} s")

    def _no_life_since(self, process: Process, move: MoveVm) -> None:
        """What this process itself has heard of the host since the proof voids that, also before it led."""
        heard = self._noted[process.name].heard.get(move.source)
        proof = self._incident(process, move.incident).proof
        if heard is None or proof is None or not proof.devices:
            return
        sent_at, told_at = heard
        if sent_at > proof.at + HEARD_SLACK_S and self.world.now - told_at > HEARD_SLACK_S:
            ago_s = process.clock() - sent_at
            raise Violation("S3", f"VM {move.vm} is moved, and {process.name} has heard its host {ago_s:.0f} s ago")

    def _known_since(self, process: Controlling, host: int) -> float | None:
        since = super()._known_since(process, host)
        return None if since is None else self.world.sight.known_since(self._whole(process), host, since)

    def _whole(self, process: Controlling) -> Process:
        return next(each for each in self.world.controllers if each is process)

    def _powered_off_by_others(self, process: Controlling, within_s: float) -> set[int]:
        """The shared record counts them for all. A clock that was set meanwhile may make them older."""
        found, offset_s = set[int](), self._whole(process).offset_s
        for other in self.world.controllers if self.world.shares else ():
            clocks = (other.clock(), process.clock())
            if other is not process and other.offset_s == offset_s:
                found |= {host for at, host in other.ledger.fences if all(now - at < within_s for now in clocks)}
        return found

    def shared(self, process: Process, before: Texts, after: Texts, led: tuple[str, int]) -> None:
        """A quorum of etcd has taken a write into the shared record."""
        self.record.written(process.name, before, after, led)

    # --- words ---

    def told(self, process: Controlling, event: Event) -> None:
        """The core will hear of it."""
        super().told(process, event)
        if isinstance(event, VmOrderReported):
            self.vm_reported(process, event)
        elif isinstance(event, EvidenceTaken) and event.channel in HEARD:
            heard = self._noted[process.name].heard
            heard.update(
                (reading.host, (reading.sent_at, self.world.now))
                for reading in event.readings
                if reading.signal is Signal.ALIVE
            )

    def told_people(self, tell: Tell) -> None:
        """People hear something."""
        super().told_people(tell)
        self.said_aloud(tell.text + tell.next_step)

    def said_aloud(self, text: str) -> None:
        """Something is written where people read it."""
        for secret in SECRETS:
            if secret in text:
                raise Violation("P1", f"a secret is in a line: {text.replace(secret, '(the secret)')[:200]}")

    # --- time ---

    def host_asked(self, process: Process, channel: str, host: int) -> None:
        """A probe asks a host."""
        if channel == "icmp":
            self._noted[process.name].asked[host] = self.world.now

    def at_the_end(self) -> None:
        """Everything is healed, and everybody has had time."""
        super().at_the_end()
        self.record.at_the_end()

    def look(self) -> None:
        """Does anybody wait for somebody else's trouble?"""
        super().look()
        for process in self.world.controllers:
            self._look_at_work(process, self._noted[process.name], self.world.now)

    def _look_at_work(self, process: Process, noted: _Noted, now: float) -> None:
        since = max(process.paused_until, process.started_at)
        if not process.runs or now - since < 20.0:
            return
        for host, at in noted.asked.items():
            if now - max(at, since) > ASKED_WITHIN_S:
                raise Violation("L2", f"host {host} was not asked for {now - at:.0f} s")
        for effect, at in noted.under_way.values():
            longest_s = FENCE_ENDS_WITHIN_S if isinstance(effect, Fence) else ORDER_ENDS_WITHIN_S
            if now - max(at, since) > longest_s:
                raise Violation("L2", f"{type(effect).__name__} does not end: begun {now - at:.0f} s ago")
        for host, devices in noted.waits_for.items():
            for name, at in devices.items():
                if now - max(at, since) > SENT_WITHIN_S:
                    raise Violation("L2", f"{name} of host {host} was not ordered off for {now - at:.0f} s")
