"""The controller's process in pretended time: inbox, rounds, journal, orders; it can be killed, and can stand still.

As the engine does it: all that came in is decided at one moment, one commit makes that durable, then the orders leave
one after the other. What executors have begun ends with the process; what they have sent goes on without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ha_controller.core.controller import Controller, Decision
from ha_controller.core.effects import Effect, Order
from ha_controller.core.events import Event, EvidenceTaken, TimePassed
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.journal import Record

if TYPE_CHECKING:
    from ha_controller.sim.core_level.world import World

EVIDENCE_MAX = 1000  #: of a process that stands still: more is dropped
_FORGET_AFTER_S = 7200.0


class Process:
    """One controller, through all its restarts."""

    def __init__(self, world: World) -> None:
        """Not started."""
        self.world = world
        self.record = Record()
        self.controller: Controller | None = None
        self.number = 0  #: of the start
        self.started_at = 0.0
        self.offset_s = 0.0  #: of its clock, against the world's
        self.paused_until = 0.0
        self._inbox: list[Event] = []
        self._writing = False
        self._round_is_noted = False

    @property
    def is_up(self) -> bool:
        """Whether there is a process, even one that stands still."""
        return self.controller is not None

    @property
    def runs(self) -> bool:
        """Whether it does anything at this moment."""
        return self.controller is not None and self.world.now >= self.paused_until

    def clock(self) -> float:
        """The controller's seconds."""
        return self.world.now + self.offset_s

    # --- life ---

    def start(self) -> None:
        """Start, from what the journal holds."""
        if self.controller is not None:
            return
        self.number += 1
        self.started_at, self._inbox, self._writing, self._round_is_noted = self.world.now, [], False, False
        self.record.forget_closed(self.clock() - _FORGET_AFTER_S)
        self.offset_s = self.world.wall_offset_s
        now = self.clock()
        self.controller = Controller(self.world.settings, now)
        self.controller.restore(self.record.incidents.values(), self.record.cloud, now, self.record.trusts.values())
        self.world.story("the controller starts")
        self.world.judge.started()
        decision = self.controller.resume(now)
        self._carry_out([decision])
        self.world.introduce()

    def kill(self, down_s: float, why: str) -> None:
        """End it here and now; it is started again later."""
        if self.controller is None:
            return
        self.world.story(f"the controller is killed: {why}")
        self.controller, self.number = None, self.number + 1
        self.world.probing.forget()
        self.world.agenda.later(down_s, self.start)

    def pause(self, for_s: float) -> None:
        """Let it stand still."""
        self.world.story(f"the controller stands still for {for_s:.0f} s")
        self.paused_until = max(self.paused_until, self.world.now + for_s)

    def after(self, delay_s: float, act: Act) -> None:
        """Do something in the process: not if it ended meanwhile, later if it stands still then."""
        mine = self.number

        def due() -> None:
            if self.number != mine:
                return
            if self.world.now < self.paused_until:
                self.world.agenda.at(self.paused_until, due)
                return
            act()

        self.world.agenda.later(delay_s, due)

    # --- rounds ---

    def post(self, event: Event) -> None:
        """Hand in an event; it is decided about at once, unless the process is busy."""
        if self.controller is None or (isinstance(event, EvidenceTaken) and len(self._inbox) > EVIDENCE_MAX):
            return
        self._inbox.append(event)
        if not self._round_is_noted and not isinstance(event, EvidenceTaken):
            self._round_is_noted = True
            self.after(0.0, self.round)

    def round(self) -> None:
        """Decide about all that has come in."""
        self._round_is_noted = False
        controller = self.controller
        if controller is None or self._writing or self.world.now < self.paused_until:
            return
        events, self._inbox = [*self._inbox, TimePassed()], []
        now = self.clock()
        judge = self.world.judge
        for event in events:
            judge.told(event)
        decided = controller.round(events, now)
        decisions = [decided] if decided.effects or _writes(decided) else []
        judge.decided(decisions)
        if decisions:
            self._carry_out(decisions)

    def _carry_out(self, decisions: list[Decision]) -> None:
        trouble, has_orders = self.world.trouble, _has_orders(decisions)
        if has_orders and trouble.strikes("crash-before-record"):
            self.kill(trouble.down_s(), "before the record of an order")
            return
        if trouble.journal_fails and any(_writes(each) for each in decisions):
            self.kill(trouble.down_s(), "its journal takes nothing")
            return
        if trouble.journal_slow:
            self._writing = True
            self.after(trouble.dice.uniform(0.2, 4.0), lambda: self._written(decisions, has_orders))
            return
        self._written(decisions, has_orders)

    def _written(self, decisions: list[Decision], has_orders: bool) -> None:
        trouble = self.world.trouble
        self._writing = False
        self.record.write(decisions)
        self.world.judge.recorded(decisions)
        if has_orders and trouble.strikes("crash-after-record"):
            self.kill(trouble.down_s(), "after the record of an order")
            return
        self._dispatch([effect for decision in decisions for effect in decision.effects])

    def _dispatch(self, effects: list[Effect]) -> None:
        trouble = self.world.trouble
        for index, effect in enumerate(effects):
            is_order = isinstance(effect, Order)
            if is_order and trouble.strikes("pause-before-order"):
                self.pause(trouble.dice.uniform(1, 30))
                self.after(0.0, lambda rest=effects[index:]: self._dispatch(rest))  # type: ignore[misc]
                return
            if self.controller is not None and (report := self.controller.taken_back(effect, self._inbox)):
                self.post(report)
                continue
            self.world.judge.leaves(effect)
            self.world.executor.carry_out(effect)
            if is_order and trouble.strikes("crash-after-order"):
                self.kill(trouble.down_s(), "an order has just left")
                return


def _writes(decision: Decision) -> bool:
    return bool(decision.incidents or decision.cloud or decision.trusts)


def _has_orders(decisions: list[Decision]) -> bool:
    return any(isinstance(effect, Order) for decision in decisions for effect in decision.effects)
