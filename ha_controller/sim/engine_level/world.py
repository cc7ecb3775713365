"""One cloud, one whole controller, one seed: lets time pass for the world and for the process, turn by turn.

A calm cloud is skipped: the process stands still until something is to happen, and is woken a minute before.
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
from ha_controller.sim.engine_level.trouble import EngineTrouble

LOOK_EVERY_S = 1.0
CALM_AFTER_S, AWAKE_BEFORE_S = 90.0, 60.0
GATEWAY = "192.0.2.254"

Assemble = Callable[[Life], Running]


class World(Stage):
    """All of it."""

    judge: EngineJudge
    trouble: EngineTrouble
    controllers: tuple[Process]
    arbiter: Election

    def __init__(
        self, seed: int, hosts: int, rates: Rates, assemble: Assemble, *, trace: bool = False, folder: str = ""
    ) -> None:
        """A healthy cloud with a controller that has just started. `assemble` makes the controller of a life.

        `folder`: the state directory, which has another name in each run.
        """
        self._folder = folder
        self.dice = random.Random(seed)
        random.seed(seed)  # the controller's own jitter
        super().__init__(_without_logins(layout.draw(self.dice, hosts, None)), trace=trace)
        self.violation: Violation | None = None
        self.reloads = 0
        self.judge, self.trouble = EngineJudge(self), EngineTrouble(self, self.dice, rates)
        self.devices, self.people = Devices(self), People(self)
        self.truth.on_loss = self.people.vm_lost
        self.arbiter, self.front_end = Election(self), FrontEnd(self)
        self._introduce_hosts()
        self._look_at, self._calm_since = self.now, self.now
        self.sleeps = False
        self.process = Process(self, "controller-a", assemble)
        self.controllers = (self.process,)
        self.process.start()

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
        for life in [self.process.life]:
            if life is not None:
                life.loop.ended = True

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

    def begins(self, effect: Effect) -> None:
        """An executor begins."""
        if isinstance(effect, Fence):
            self.process.executor.fencing[effect.host] = self.process.executor.fencing.get(effect.host, 0) + 1
        self.judge.begins(effect)

    def ends(self, effect: Effect) -> None:
        """An executor has ended, however."""
        if isinstance(effect, Fence) and self.process.executor.fencing.get(effect.host):
            self.process.executor.fencing[effect.host] -= 1
            if not self.process.executor.fencing[effect.host]:
                del self.process.executor.fencing[effect.host]
        self.judge.ends(effect)

    def ended(self, process: Process) -> None:
        """A process was killed: nothing of it is under way."""
        process.executor.fencing.clear()

    def reload(self) -> None:
        """Somebody changes the configuration."""
        self.reloads += 1
        if self.process.life is not None and self.process.runs:
            self.process.life.running.reload()

    # --- time ---

    def happen(self, act: Act, *, is_news: bool = True) -> None:
        """Let something happen; a process that sleeps is woken before."""
        del is_news  # whoever is awake looks all the time
        if not self.sleeps:
            act()
            return
        self.sleeps, self._calm_since = False, self.now
        self.process.wake()
        self.agenda.later(AWAKE_BEFORE_S, act)

    def drive(self, ends: float, but: Process | None = None) -> None:
        """Let time pass. `but`: a process that does not get a turn."""
        process = self.process
        while self.violation is None:
            due = min(self.agenda.due, float("inf") if self.sleeps else self._look_at)
            if process is not but and not self.sleeps:
                due = min(due, process.due())
            if due > ends:
                self.agenda.now = ends
                return
            self.agenda.now = max(self.agenda.now, due)
            while self.agenda.due <= self.now and self.violation is None:
                self._act()
            if not self.sleeps and self._look_at <= self.now:
                self._look(may_sleep=but is None)
            if process is not but and not self.sleeps and process.due() <= self.now and self.violation is None:
                process.turn()

    def _act(self) -> None:
        try:
            self.agenda.step(self.now)
        except Violation as found:
            self._found(found)

    def _look(self, *, may_sleep: bool) -> None:
        self._look_at = self.now + LOOK_EVERY_S
        self.oned.advance(self.now)
        try:
            self.judge.look()
        except Violation as found:
            self._found(found)
        if not self._is_calm():
            self._calm_since = self.now
        elif may_sleep and self.now - self._calm_since >= CALM_AFTER_S:
            self.sleeps = True
            self.process.sleep_until(float("inf"))

    def _is_calm(self) -> bool:
        controller = self.process.controller
        if controller is None or not self.process.runs or self.now - self.process.started_at < CALM_AFTER_S:
            return False
        state = controller.state
        well = all(self.truth.is_well(host) for host in range(self.layout.hosts))
        return well and not (state.incidents or state.watched or state.confirming or self.trouble.passing)

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
        problems = self.process.bury()
        if problems and self.violation is None:
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


def _without_logins(drawn: Layout) -> Layout:
    """What the controller would do on a host, or by a device that only cuts it off, is not pretended at this level."""
    levels = [tuple(tuple(each for each in level if each.name != SAN) for level in host) for host in drawn.levels]
    asks_nobody = replace(
        drawn.settings, power_on=False, rejoins_itself=False, hosts_asked=False, destroy_leftovers=False
    )
    return replace(drawn, levels=tuple(levels), controllers=1, settings=asks_nobody)
