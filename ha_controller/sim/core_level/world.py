"""One cloud, its controllers, one seed: puts the parts together and lets time pass.

A calm cloud is skipped: nothing is asked of it until something happens, and then everybody is asked first. Where
everything waits for people, the looks come more rarely, but never so rarely that evidence would expire.
"""

from __future__ import annotations

import random
from dataclasses import replace

from ha_controller.core.incident import Incident
from ha_controller.core.model import HostState
from ha_controller.core.settings import Settings
from ha_controller.sim.core_level import layout
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.arbiter import Arbiter
from ha_controller.sim.core_level.devices import Devices
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.inventory import Inventory
from ha_controller.sim.core_level.judge import Judge, Violation
from ha_controller.sim.core_level.people import People
from ha_controller.sim.core_level.probing import BOOT_S
from ha_controller.sim.core_level.process import Process
from ha_controller.sim.core_level.stage import BEGIN, HEAL_S, Stage
from ha_controller.sim.core_level.trouble import Trouble

HOT_S, WAITING_S, RARELY_S, ALL_WELL_S = 0.2, 1.0, 4.0, 300.0
#: without news for so long, the looks become rarer: where something is under way, and where people are waited for
HOT_FOR_S, WAITING_FOR_S = 80.0, 15.0
OLD_S = 0.5  #: what was looked at longer ago is looked at again before something happens
_UNDECIDED = {HostState.SUSPECT, HostState.FAILED}  #: their times are counted in tenths of seconds


class World(Stage):
    """All of it."""

    controllers: tuple[Process, ...]
    arbiter: Arbiter

    def __init__(
        self,
        seed: int,
        hosts: int,
        rates: Rates,
        settings: Settings | None = None,
        trace: bool = False,
        controllers: int | None = None,
    ) -> None:
        """A healthy cloud with controllers that have just started. `controllers`: so many; None: the seed decides."""
        dice = random.Random(seed)
        self._oned_at = self._looked_at = self._news_at = BEGIN
        self._turn_number, self._turn_at = 0, BEGIN  #: the number of the turn that is due next, and when
        drawn = layout.draw(dice, hosts, settings)
        super().__init__(replace(drawn, controllers=controllers or drawn.controllers), trace=trace)
        self.judge, self.trouble = Judge(self), Trouble(self, dice, rates)
        self.devices, self.inventory, self.arbiter = Devices(self), Inventory(self), Arbiter(self)
        self.controllers = tuple(Process(self, index) for index in range(self.layout.controllers))
        self.people = People(self)
        self.truth.on_loss = self.people.vm_lost
        for process in self.controllers:
            process.start()
        self._turn_in(0.0)

    def _noted(self, machine: int, what: str, vm: int | None) -> None:
        self.news()
        super()._noted(machine, what, vm)

    # --- time ---

    def happen(self, act: Act, *, is_news: bool = True) -> None:
        """Let something happen: a cloud at which nobody has just looked is looked at first, and again afterwards."""
        if self.now - self._looked_at > OLD_S and self._turn_at - self.now > OLD_S:
            self._look_at_all()
        act()
        if is_news:
            self.news()

    def news(self) -> None:
        """Something has happened: look closely for a while."""
        self._news_at = self.now
        if self._turn_at > self.now + HOT_S:
            self._turn_in(HOT_S)

    def _look_at_all(self) -> None:
        self._advance_oned()
        for process in self.controllers:
            process.look_at_once()
        self._looked_at = self.now

    def _advance_oned(self) -> None:
        self.oned.advance(self.now)
        self._oned_at = self.now

    def _turn_in(self, seconds: float) -> None:
        self._turn_number += 1
        self._turn_at, mine = self.now + seconds, self._turn_number
        self.agenda.at(self._turn_at, lambda: self._turn(mine))

    def _turn(self, number: int) -> None:
        if number != self._turn_number:
            return  # another one was noted instead
        self._turn_at = float("inf")
        if self.now - self._oned_at >= 0.4:
            self._advance_oned()
        pace_s = self._pace()
        for process in self.controllers:
            process.turn(pace_s)
        self._looked_at = self.now
        self.judge.look()
        if self._turn_at == float("inf") and not self._is_calm():
            self._turn_in(pace_s)

    def _is_calm(self) -> bool:
        """Nothing will happen by itself."""
        quiet_s = self.now - self._news_at
        if quiet_s < WAITING_FOR_S or self.truth.ill or self.oned.lifecycle.busy or self.arbiter.leader is None:
            return False
        if self.now - max(self.booted_at.values()) < BOOT_S + WAITING_S:
            return False  # a host that rebooted in a moment shows only by its boot, which is asked for less often
        for process in self.controllers:
            if process.controller is None or not process.runs or self.now - process.started_at < 60:
                return False
            state = process.controller.state
            if state.incidents or state.watched or state.confirming:
                return False
        return not self.oned.is_behind

    def _pace(self) -> float:
        """When to look again."""
        quiet_s, under_way = self.now - self._news_at, self._under_way()
        if quiet_s < (HOT_FOR_S if _UNDECIDED & under_way else WAITING_FOR_S) and under_way:
            return HOT_S
        if quiet_s < (HOT_FOR_S if under_way else WAITING_FOR_S) or self.oned.lifecycle.busy:
            return WAITING_S
        return RARELY_S if self.truth.ill or self.arbiter.leader is None else ALL_WELL_S

    def _under_way(self) -> set[HostState]:
        """The states of the hosts with which something goes on that waits neither for people nor for the lead."""
        found: set[HostState] = set()
        for process in self.controllers:
            if process.controller is None:
                continue
            state = process.controller.state
            if not (state.watched or state.incidents):
                continue
            waits = {each.host for each in state.incidents.values() if _waits(each)}
            busy = {*state.watched, *state.incidents} - waits
            found |= {state.views[host].state for host in busy if host in state.views}
        return found - {HostState.RECOVERED}

    def run(self, hours: float, *, healing: bool = True) -> list[Violation]:
        """Faults for so many hours, then healing; returns what went wrong."""
        ends = self.now + hours * 3600
        self.trouble.begin(ends)
        self.people.begin()
        try:
            while self.agenda.step(ends):
                pass
            if healing:
                self.happen(self.trouble.heal)
                while self.agenda.step(ends + HEAL_S):
                    pass
                self.judge.at_the_end()
        except Violation as found:
            self.story(f"VIOLATION {found}")
            return [found]
        return []


def _waits(incident: Incident) -> bool:
    return bool(incident.stopped or incident.hold_needs_person or incident.hold.startswith("leader"))
