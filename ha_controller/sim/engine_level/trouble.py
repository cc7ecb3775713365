"""The faults of the first level, where a whole controller meets them, and those that only it can meet."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.faults import ENGINE_FAULTS, FAULTS, Rates
from ha_controller.sim.core_level.trouble import Trouble

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.world import World


IGNORE = "HA_IGNORE"  #: host attribute: hands off


class EngineTrouble(Trouble):
    """What is wrong with the world, from one seed."""

    world: World
    table = FAULTS + ENGINE_FAULTS

    def __init__(self, world: World, dice: random.Random, rates: Rates) -> None:
        """Nothing is wrong yet."""
        super().__init__(world, dice, rates)
        self.passing = 0  #: troubles that end by themselves

    def _for(self, seconds: float, ends: Act) -> None:
        self.passing += 1

        def over() -> None:
            self.passing -= 1
            ends()

        super()._for(seconds, over)

    def _deliver(self, name: str) -> None:
        match name:
            case "arbiter-down":
                self._note(name)
                self.world.arbiter.down = True
                self._for(self.dice.uniform(5, 120), self._arbiter_answers)
            case "clock-step":
                self._note(name)
                step_s = self.dice.choice((-600.0, -5.0, 5.0, 600.0))
                self.world.wall_offset_s += step_s
                self._for(self.dice.uniform(60, 600), lambda: self._step_back(step_s))
            case _:
                super()._deliver(name)

    def _note(self, name: str) -> None:
        self.world.story(f"FAULT {name}")
        self.delivered[name] += 1

    def _arbiter_answers(self) -> None:
        self.world.arbiter.down = False

    def _step_back(self, step_s: float) -> None:
        self.world.wall_offset_s -= step_s

    def _reload(self) -> None:
        self.world.reload()

    def _maintain(self, host: int) -> None:
        self.world.oned.hosts[host].attributes[IGNORE] = "YES"
        super()._maintain(host)

    def _maintained(self, host: int) -> None:
        super()._maintained(host)
        self.world.oned.hosts[host].attributes.pop(IGNORE, None)

    def heal(self) -> None:
        """All that may be taken back is."""
        self._arbiter_answers()
        super().heal()
