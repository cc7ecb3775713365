"""The faults of the first level, where a whole controller meets them, and those that only it can meet."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ha_controller.core.events import OperatorCommanded, Verb
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.faults import ENGINE_FAULTS, FAULTS, Rates
from ha_controller.sim.core_level.trouble import Trouble

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.world import World


OF_SEVERAL = ("vantage-cut", "witness-cut")  #: no fault where one controller is alone
OF_A_ZONE = ("front-end-stops", "front-end-cut", "followers-stop")  #: nor where they lead by etcd
IGNORE = "HA_IGNORE"  #: host attribute: hands off


class EngineTrouble(Trouble):
    """What is wrong with the world, from one seed."""

    world: World
    table = FAULTS + ENGINE_FAULTS

    def __init__(self, world: World, dice: random.Random, rates: Rates) -> None:
        """Nothing is wrong yet."""
        super().__init__(world, dice, rates)
        if not world.shares:
            self.table = tuple(fault for fault in self.table if fault.name not in OF_SEVERAL)
        if world.zone is None:
            self.table = tuple(fault for fault in self.table if fault.name not in OF_A_ZONE)
        self.passing = 0  #: troubles that end by themselves
        self._flickering: set[int] = set()

    def lasts(self, seconds: float, ends: Act) -> None:
        """Something else is wrong for so long."""
        self._for(seconds, ends)

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
            case "vantage-cut" | "witness-cut":
                self._cut_a_way(name)
            case "front-end-stops" | "front-end-cut" | "followers-stop":
                self._note(name)
                if self.world.zone is not None:
                    self.world.zone.strike(name)
            case _:
                super()._deliver(name)

    def _cut_a_way(self, name: str) -> None:
        """Of one of several controllers: to a host, or to another controller."""
        count, sight = len(self.world.controllers), self.world.sight
        one = self.dice.randrange(count)
        other = (one + self.dice.randrange(1, count)) % count
        host = self.dice.randrange(self.world.layout.hosts)
        cut, goal = (sight.cut_host, host) if name == "vantage-cut" else (sight.cut_other, other)
        self._note(f"{name}")
        self.world.story(f"{self.world.controllers[one].name} does not reach {goal}")
        cut(one, goal)
        self._for(self.dice.uniform(20, 400), lambda: cut(one, goal, -1))

    def read_off(self, host: int) -> None:
        """A host was read off, and is."""
        if self.world.truth.machines[host].powered or host in self._flickering or not self._is_open(host):
            return
        if self.rates.of("flicker") and self.strikes("flicker"):
            self._flickering.add(host)
            at, lasts_s = self.dice.uniform(0, 10), self.dice.uniform(6, 30)
            self._for(at, lambda: self.power_on(host))
            self._for(at + lasts_s, lambda: self._off_again(host))

    def _off_again(self, host: int) -> None:
        self._flickering.discard(host)
        self._dies(host, "flicker")

    def _press(self, verb: Verb, for_s: float | None = None) -> None:
        """Where the record is shared, what is said to the leader is said to all."""
        if not self.world.shares:
            super()._press(verb, for_s)
        elif (leader := self.world.arbiter.leader) is not None:
            leader.post(OperatorCommanded(request=0, verb=verb, who="eve", for_s=for_s))

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
        if self.world.zone is not None:
            self.world.zone.front_ends.mend()
        self.world.sight.heal()
        super().heal()
