"""A controller's process in pretended time: inbox, rounds, journal, orders; it can be killed, and can stand still.

As the engine does it: all that came in is decided at one moment, one commit makes that durable, then the orders leave
one after the other. What executors have begun ends with the process; what they have sent goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ha_controller.core.controller import Controller, Decision
from ha_controller.core.effects import (
    AskDomains,
    AskReady,
    Effect,
    Explain,
    Order,
    ReadHost,
    ReadPower,
    WriteAttributes,
)
from ha_controller.core.events import (
    DeviceChecked,
    Event,
    EvidenceTaken,
    LeadChanged,
    SecondMasterLooked,
    SelfChecked,
    TimePassed,
)
from ha_controller.core.model import PowerState
from ha_controller.sim.core_level import layout
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.executor import Executor
from ha_controller.sim.core_level.journal import Record
from ha_controller.sim.core_level.judge import Ledger
from ha_controller.sim.core_level.probing import Probing

if TYPE_CHECKING:
    from ha_controller.sim.core_level.world import World

EVIDENCE_MAX = 1000  #: of a process that stands still: more is dropped
CHECKS_EVERY_S, INVENTORY_S = 600.0, 10.0
_FORGET_AFTER_S = 7200.0
_NO_NEWS = (ReadHost, ReadPower, AskDomains, AskReady, Explain, WriteAttributes)


class Process:
    """One controller, through all its restarts."""

    def __init__(self, world: World, index: int) -> None:
        """Not started."""
        self.world, self.index, self.name = world, index, f"controller {index}"
        self.settings = world.layout.settings  #: as its configuration says now
        self.record, self.ledger = Record(), Ledger()
        self.probing, self.executor = Probing(world, self), Executor(world, self)
        self.controller: Controller | None = None
        self.term: int | None = None  #: in which it holds that it leads
        self.number = 0  #: of the start
        self.started_at = 0.0
        self.offset_s = 0.0  #: of its clock, against the world's
        self.paused_until = 0.0
        self._inbox: list[Event] = []
        self._inventory_at = self._checks_at = 0.0
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
        self.offset_s, self.term = self.world.wall_offset_s, None
        now = self.clock()
        self.controller = Controller(self.settings, now)
        self.controller.restore(self.record.incidents.values(), self.record.cloud, now, self.record.trusts.values())
        self.world.story(f"{self.name} starts")
        self.ledger.started(now)
        decision = self.controller.resume(now)
        self._carry_out([decision])
        self._learn()

    def _learn(self) -> None:
        """What a controller learns first."""
        self.read_inventory()
        self.world.arbiter.turn(self)
        self.post(SelfChecked(ok=True, detail="gateway answers"))
        self.post(SecondMasterLooked(present=False, detail="no failure hook"))
        self.probing.boots_at = 0.0
        self._checks_at = self.world.now + 3.0
        self.world.news()

    def kill(self, down_s: float, why: str) -> None:
        """End it here and now; it is started again later."""
        if self.controller is None:
            return
        self.world.arbiter.before_a_change()
        self.world.story(f"{self.name} is killed: {why}")
        self.controller, self.term, self.number = None, None, self.number + 1
        self.probing.forget()
        self.executor.fencing.clear()
        self.world.agenda.later(down_s, self.start)
        self.world.news()

    def pause(self, for_s: float) -> None:
        """Let it stand still."""
        self.world.arbiter.before_a_change()
        self.world.story(f"{self.name} stands still for {for_s:.0f} s")
        self.paused_until = max(self.paused_until, self.world.now + for_s)
        self.world.agenda.at(self.paused_until, self.world.news)

    def lose_the_lead(self, event: LeadChanged) -> None:
        """It hears that it leads no more."""
        self.term = None
        self.world.story(f"{self.name} does not lead any more")
        self.post(event)

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

    # --- looking ---

    def turn(self, pace_s: float) -> None:
        """Look at what is due, and decide."""
        if not self.runs:
            return
        self.world.arbiter.turn(self)
        if self.world.now >= self._inventory_at:
            self.read_inventory()
        if self.world.now >= self._checks_at:
            self._checks_at = self.world.now + CHECKS_EVERY_S
            self.check_devices()
        self.probing.look(pace_s)
        self.round()

    def look_at_once(self) -> None:
        """All that is looked at now and then is looked at now."""
        if self.runs:
            self.probing.steady_at = 0.0
            self.read_inventory()
            self.probing.look(0.0)
            self.round()

    def read_inventory(self) -> None:
        """All hosts."""
        self._inventory_at = self.world.now + INVENTORY_S
        self.world.inventory.read(self)

    def check_devices(self) -> None:
        """Checks in peace time, of all devices."""
        for host in range(self.world.layout.hosts):
            for device in self.world.layout.devices(host):
                self._check(host, device.name)

    def _check(self, host: int, name: str) -> None:
        devices = self.world.devices
        device = self.world.layout.device(host, name)
        power = devices.read(host, name)
        identity = layout.identity_of(devices.machine_of(host, name)) if device.tells_identity else None
        is_ok = devices.answers(host, name)
        event = DeviceChecked(
            host=host, device=name, fingerprint=device.fingerprint, ok=is_ok, power=power,
            summary="read" if is_ok else "no answer", identity=identity if is_ok else None,
        )  # fmt: skip
        if power is not PowerState.UNKNOWN or not device.proves_off or not is_ok:
            self.post(event)

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
        judge = self.world.judge
        for event in events:
            judge.told(self, event)
        decided = controller.round(events, self.clock())
        if not (decided.effects or _writes(decided)):
            judge.after_a_step()
            return
        judge.decided(self, decided)
        if _writes(decided) or not all(isinstance(effect, _NO_NEWS) for effect in decided.effects):
            self.world.news()
        self._carry_out([decided])

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
        self.world.judge.recorded(self, decisions)
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
                self.after(0.0, self._rest(effects[index:]))
                return
            if self.controller is not None and (report := self.controller.taken_back(effect, self._inbox)):
                self.post(report)
                continue
            self.world.judge.leaves(self, effect)
            self.executor.carry_out(effect)
            if is_order and trouble.strikes("crash-after-order"):
                self.kill(trouble.down_s(), "an order has just left")
                return

    def _rest(self, effects: list[Effect]) -> Callable[[], None]:
        return lambda: self._dispatch(effects)


def _writes(decision: Decision) -> bool:
    return bool(decision.incidents or decision.cloud or decision.trusts)


def _has_orders(decisions: list[Decision]) -> bool:
    return any(isinstance(effect, Order) for decision in decisions for effect in decision.effects)
