"""Many seeds one after the other or in several processes, and what came of them."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ha_controller.core.settings import Settings
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.core_level.stage import BEGIN, Stage
from ha_controller.sim.core_level.world import World

SCHEMA = "ha-controller/simulate/v1"
IDLE_AFTER_DEATHS = 20  #: fewer may all have been held by chance


@dataclass(frozen=True, kw_only=True)
class Task:
    """One seed."""

    seed: int
    hosts: int
    hours: float
    rates: Rates
    settings: Settings | None = None
    controllers: int | None = None  #: None: the seed decides
    lead: str = "etcd"  #: what several of the second level lead by
    healing: bool = True  #: afterwards all is mended, and everybody has time; False: the end is not looked at


@dataclass(kw_only=True)
class Tally:
    """What was delivered, and what came of it."""

    seeds: list[int] = field(default_factory=list)
    host_hours: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    holds: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    verified: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another part."""
        self.seeds += other.seeds
        self.host_hours += other.host_hours
        self.violations += other.violations
        for mine, theirs in (
            (self.counted, other.counted),
            (self.delivered, other.delivered),
            (self.holds, other.holds),
            (self.deaths, other.deaths),
            (self.verified, other.verified),
        ):
            mine.update(theirs)

    @property
    def idle(self) -> str:
        """Why this was no test at all; empty if it was one."""
        deaths, fences = self.counted["deaths"], self.counted["fences"]
        if deaths >= IDLE_AFTER_DEATHS and fences < 0.2 * deaths:
            return f"idle: {deaths} hosts died, and {fences} power-offs were ordered"
        return ""

    def document(self, wall_s: float) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": SCHEMA,
            "seeds": self.seeds,
            "sim_host_hours": round(self.host_hours, 1),
            "wall_s": round(wall_s, 1),
            "incidents": self.counted["incidents"],
            "violations": self.violations,
            "false_fences": self.counted["false fences"],
            "vms_lost": self.counted["vms lost"],
            "idle": self.idle,
            "counted": dict(sorted(self.counted.items())),
            "delivered": dict(sorted(self.delivered.items())),
            "deaths": dict(sorted(self.deaths.items())),
            "verified_off": dict(sorted(self.verified.items())),
            "holds": dict(sorted(self.holds.items())),
        }


def part(task: Task) -> Tally:
    """Run one seed."""
    world = World(task.seed, task.hosts, task.rates, task.settings, controllers=task.controllers)
    found = world.run(task.hours, healing=task.healing)
    return tally(task, world, found)


def tally(task: Task, world: Stage, found: Sequence[Violation]) -> Tally:
    """What came of one seed."""
    return Tally(
        seeds=[task.seed],
        host_hours=(world.now - BEGIN) / 3600 * task.hosts,
        counted=world.judge.counted,
        delivered=world.trouble.delivered,
        holds=world.judge.holds,
        deaths=world.judge.deaths,
        verified=world.judge.verified,
        violations=[{"seed": task.seed, "invariant": each.invariant, "text": str(each)} for each in found],
    )


def trace(task: Task) -> list[str]:
    """The story of one seed."""
    world = World(task.seed, task.hosts, task.rates, task.settings, trace=True, controllers=task.controllers)
    world.run(task.hours, healing=task.healing)
    return world.trace or []


def run(tasks: Sequence[Task], processes: int | None = None, part: Callable[[Task], Tally] = part) -> Iterator[Tally]:
    """Run them, each with the sum until then. `part` runs one seed: of the first level, or another one."""
    total = Tally()
    if processes == 1 or len(tasks) == 1:
        for task in tasks:
            total.add(part(task))
            yield total
        return
    with multiprocessing.Pool(processes) as pool:
        for tally in pool.imap(part, tasks):
            total.add(tally)
            yield total


def wall_clock() -> float:
    """Of the machine that simulates: nothing in the pretended world sees it."""
    return time.monotonic()


__all__ = ["SCHEMA", "Tally", "Task", "part", "run", "tally", "trace", "wall_clock"]
