"""One cloud, one whole controller or several, one seed: lets time pass for the world and for the process, turn by turn.

A calm cloud is skipped: all processes stand still until something is to happen, and are woken a minute before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ha_controller.core.effects import Effect, Fence
from ha_controller.sim.core_level import layout
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.devices import Devices
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.core_level.layout import SAN, Layout, identity_of
from ha_controller.sim.core_level.people import People
from ha_controller.sim.core_level.stage import HEAL_S, Stage
from ha_controller.sim.engine_level.election import Election
from ha_controller.sim.engine_level.front_end import FrontEnd
from ha_controller.sim.engine_level.judge import EngineJudge
from ha_controller.sim.engine_level.process import Killed, Life, Process, Running
from ha_controller.sim.engine_level.quorum import Quorum
from ha_controller.sim.engine_level.sight import Sight
from ha_controller.sim.engine_level.trouble import EngineTrouble
from ha_controller.sim.engine_level.zone import Zone

LOOK_EVERY_S = 1.0
CALM_AFTER_S, AWAKE_BEFORE_S = 90.0, 60.0
GATEWAY = "192.0.2.254"

Assemble = Callable[[Life], Running]


class World(Stage):
    """All of it."""

    judge: EngineJudge
    trouble: EngineTrouble
    controllers: tuple[Process, ...]
    arbiter: Election | Quorum | Zone

    def __init__(
        self,
        seed: int,
        hosts: int,
        rates: Rates,
        assemble: Assemble,
        *,
        controllers: int | None = None,
        lead: str = "etcd",
        trace: bool = False,
        folder: str = "",
    ) -> None:
        """A healthy cloud with controllers that have just started. `assemble` makes the controller of a life.

        `controllers`: so many; None: the seed decides. `lead`: what several of them lead by. `folder`: of their state,
        which has another name in each run.
        """
        self._folder = folder
        self.dice = random.Random(seed)
        random.seed(seed)  # the controller's own jitter
        super().__init__(_without_logins(layout.draw(self.dice, hosts, None), controllers), trace=trace)
        self.violation: Violation | None = None
        self.reloads = 0
        self.shares = self.layout.controllers > 1  #: a record
        self.zone: Zone | None = None
        self._introduce_hosts()
        self.judge, self.front_end = EngineJudge(self), FrontEnd(self)
        self.arbiter: Election | Quorum | Zone = self._engine(lead)
        self.trouble = EngineTrouble(self, self.dice, rates)
        self.devices, self.people = Devices(self), People(self)
        self.truth.on_loss = self.people.vm_lost
        self.sight = Sight(self)
        self._look_at, self._calm_since = self.now, self.now
        self.sleeps = False
        self._blocked: list[Process] = []  #: those in the middle of something that does not give their loop back
        self.controllers = tuple(Process(self, index, assemble) for index in range(self.layout.controllers))
        for process in self.controllers:
            process.start()

    def _engine(self, lead: str) -> Election | Quorum | Zone:
        if not self.shares:
            return Election(self)
        if lead != "opennebula":
            return Quorum(self)
        self.zone = Zone(self)
        return self.zone

    def _introduce_hosts(self) -> None:
        for host, known in self.oned.hosts.items():
            known.attributes |= {
                "HA_ADDRESS": f"192.0.2.{host + 1}",
                "HA_UUID": identity_of(host).system_uuid or "",
                "HA_RACK": self.layout.racks[host],
                "FENCE_HOST": str(host),
            }

    def story(self, text: str) -> None:
        """A line for who wants to read what happened."""
        super().story(text.replace(self._folder, "") if self._folder else text)

    # --- what goes wrong ---

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Within a call of the controller: a violation ends the world, and must not be caught by the controller."""
        try:
            yield
        except Violation as found:
            self._found(found)
            raise Killed from None

    def _found(self, found: Violation) -> None:
        self.violation = self.violation or found
        for process in self.controllers:
            if process.life is not None:
                process.life.loop.ended = True

    def broken(self, error: BaseException) -> None:
        """The controller ended by a bug."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        self._found(Violation("X", f"the controller ended with {type(error).__name__}: {error}"))

    def broken_by(self, faults: list[dict[str, Any]]) -> None:
        """Something was raised in its loop that nobody caught."""
        if self.violation is None:
            self._found(Violation("X", f"nobody caught {faults[0].get('exception') or faults[0].get('message')}"))

    # --- between controller and world ---

    def begins(self, process: Process, effect: Effect) -> None:
        """An executor begins."""
        fencing = process.executor.fencing
        if isinstance(effect, Fence):
            fencing[effect.host] = fencing.get(effect.host, 0) + 1
        self.judge.begins(process, effect)

    def ends(self, process: Process, effect: Effect) -> None:
        """An executor has ended, however."""
        fencing = process.executor.fencing
        if isinstance(effect, Fence) and fencing.get(effect.host):
            fencing[effect.host] -= 1
            if not fencing[effect.host]:
                del fencing[effect.host]
        self.judge.ends(process, effect)

    def ended(self, process: Process) -> None:
        """A process was killed: nothing of it is under way."""
        process.executor.fencing.clear()

    def reload(self) -> None:
        """Somebody changes the configuration."""
        self.reloads += 1
        for process in self.controllers:
            if process.life is not None and process.runs:
                process.life.running.reload()

    # --- time ---

    def happen(self, act: Act, *, is_news: bool = True) -> None:
        """Let something happen; a process that sleeps is woken before."""
        del is_news  # whoever is awake looks all the time
        if not self.sleeps:
            act()
            return
        self.sleeps, self._calm_since = False, self.now
        for process in self.controllers:
            process.wake()
        self.agenda.later(AWAKE_BEFORE_S, act)

    def drive(self, ends: float, but: Process | None = None) -> None:
        """Let time pass. `but`: a process that does not get a turn."""
        if but is not None:
            self._blocked.append(but)
        self._drive(ends)
        if but is not None:
            self._blocked.remove(but)

    def _drive(self, ends: float) -> None:
        while self.violation is None:
            awake = [] if self.sleeps else [each for each in self.controllers if each not in self._blocked]
            looks = [] if self.sleeps else [self._look_at, *([self.zone.front_ends.due()] if self.zone else [])]
            due = min([self.agenda.due, *looks, *(process.due() for process in awake)])
            if due > ends:
                self.agenda.now = max(self.now, ends)
                return
            self.agenda.now = max(self.agenda.now, due)
            while self.agenda.due <= self.now and self.violation is None:
                self._act()
            if self.zone is not None and not self.sleeps:
                self._let_pass(self.zone)
            if not self.sleeps and self._look_at <= self.now:
                self._look(may_sleep=not self._blocked)
            for process in awake:
                if not self.sleeps and process.due() <= self.now and self.violation is None:
                    process.turn()

    def _let_pass(self, zone: Zone) -> None:
        try:
            if zone.front_ends.due() <= self.now:
                zone.front_ends.tick()
        except Violation as found:
            self._found(found)

    def _act(self) -> None:
        try:
            self.agenda.step(self.now)
        except Violation as found:
            self._found(found)
        except Killed:
            pass  # a violation by something that arrived late ends the world, and is noted

    def _look(self, *, may_sleep: bool) -> None:
        self._look_at = self.now + LOOK_EVERY_S
        if self.zone is None or self.zone.front_ends.leader is not None:
            self.oned.advance(self.now)
        try:
            self.judge.look()
        except Violation as found:
            self._found(found)
        if not self._is_calm():
            self._calm_since = self.now
        elif may_sleep and self.now - self._calm_since >= CALM_AFTER_S:
            self.sleeps = True
            for process in self.controllers:
                process.sleep_until(float("inf"))

    def _is_calm(self) -> bool:
        leader = self.arbiter.leader
        if leader is None or leader.controller is None or self.trouble.passing:
            return False
        for process in self.controllers:
            if process.controller is None or not process.runs or self.now - process.started_at < CALM_AFTER_S:
                return False
        state = leader.controller.state  # another one keeps what was open when it led last
        well = all(self.truth.is_well(host) for host in range(self.layout.hosts))
        return well and not (state.incidents or state.watched or state.confirming)

    def run(self, hours: float, *, healing: bool = True) -> list[Violation]:
        """Faults for so many hours, then healing; returns what went wrong."""
        ends = self.now + hours * 3600
        self.trouble.begin(ends)
        self.people.begin()
        self.drive(ends)
        if healing and self.violation is None:
            self.happen(self.trouble.heal)
            self.drive(ends + HEAL_S)
            self._last_look()
        problems = [problem for process in self.controllers for problem in process.bury()]
        if problems and healing and self.violation is None:
            self.violation = Violation("L2", problems[-1])
        if self.violation is not None:
            self.story(f"VIOLATION {self.violation}")
            return [self.violation]
        return []

    def _last_look(self) -> None:
        if self.violation is not None:
            return
        try:
            self.judge.at_the_end()
        except Violation as found:
            self._found(found)


def _without_logins(drawn: Layout, controllers: int | None) -> Layout:
    """What the controller would do on a host, or by a device that only cuts it off, is not pretended at this level."""
    levels = [tuple(tuple(each for each in level if each.name != SAN) for level in host) for host in drawn.levels]
    asks_nobody = replace(
        drawn.settings, power_on=False, rejoins_itself=False, hosts_asked=False, destroy_leftovers=False
    )
    return replace(drawn, levels=tuple(levels), controllers=controllers or drawn.controllers, settings=asks_nobody)
