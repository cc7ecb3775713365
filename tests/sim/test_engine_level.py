"""The simulator's second level: the whole controller in pretended time. Its planted bugs are in tests/planted."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import anyio
from click.testing import CliRunner

from ha_controller.app import pretended
from ha_controller.cli.simulation import run as command
from ha_controller.sim.core_level.faults import ENGINE_FAULTS, Rates
from ha_controller.sim.engine_level.loop import LATE_MAX_S, PretendedLoop


class Time:
    """A loop, and the time that it runs in."""

    def __init__(self, seed: int = 1) -> None:
        self.now, self.woken = 100.0, 0
        self.loop = PretendedLoop(lambda: self.now, random.Random(seed), self._wake)  # type: ignore[abstract]

    def _wake(self) -> None:
        self.woken += 1

    def run(self, work, *, until: float = 1000.0):
        task = self.loop.begin(work)
        while not task.done() and self.loop.due() <= until:
            self.now = max(self.now, self.loop.due())
            self.loop.turn()
        return task


def test_time_jumps_to_the_next_timer_and_sleepers_wake_in_their_order():
    time, woken = Time(), []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((seconds, time.now - 100.0))

    async def work() -> None:
        async with anyio.create_task_group() as group:
            for seconds in (30.0, 0.5, 7.0):
                group.start_soon(sleeper, seconds)

    assert time.run(work()).done()
    assert [seconds for seconds, _ in woken] == [0.5, 7.0, 30.0]
    assert all(0.0 <= at - seconds <= LATE_MAX_S for seconds, at in woken)


def test_a_deadline_ends_what_hangs():
    async def work() -> bool:
        with anyio.move_on_after(5) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught

    time = Time()
    assert time.run(work()).result() is True
    assert 5.0 <= time.now - 100.0 <= 5.1


def test_a_loop_that_is_held_does_nothing_until_then_and_one_that_was_ended_nothing_any_more():
    time, seen = Time(), []

    async def work() -> None:
        try:
            while True:
                await anyio.sleep(1.0)
                seen.append(time.now)
        finally:
            seen.append("ended")

    task = time.loop.begin(work())
    time.loop.turn()
    time.now, time.loop.held_until = 101.5, 110.0
    time.loop.turn()
    assert seen == []
    time.now = 110.0
    time.loop.turn()
    assert seen == [110.0]
    time.loop.ended, time.now = True, 120.0
    time.loop.turn()
    assert seen == [110.0]
    assert time.loop.due() == float("inf")
    time.loop.ended = False
    task.cancel()
    time.loop.turn()


def test_the_seed_decides_who_goes_first_of_those_that_become_ready_together():
    def order(seed: int) -> list[int]:
        went: list[int] = []

        async def wait(number: int, bell: asyncio.Event) -> None:
            await bell.wait()
            went.append(number)

        async def work() -> None:
            bell = asyncio.Event()
            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(wait, number, bell)
                await anyio.sleep(1)
                bell.set()

        Time(seed).run(work())
        return went

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(1, 6)}) > 1


def story(seed: int) -> list[str]:
    with pretended.world(seed, 6, Rates().times(60, 5), trace=True) as world:
        world.run(0.1, healing=False)
    return world.trace or []


def test_the_same_seed_tells_the_same_story_in_another_process():
    mine = story(7)
    assert len(mine) > 60
    work = "import sys; from tests.sim.test_engine_level import story; sys.stdout.write('\\n'.join(story(7)))"
    other = subprocess.run(
        [sys.executable, "-c", work],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    assert other.stdout.split("\n") == "\n".join(mine).split("\n")


def test_the_whole_controller_brings_the_dead_to_an_end_and_breaks_nothing():
    rates = Rates().only(*(fault.name for fault in ENGINE_FAULTS)).with_rates({"power-loss": 0.8, "answer-lost": 0.02})
    world, found = pretended.run(7, 4, 0.3, rates, controllers=1)
    assert [str(each) for each in found] == []
    assert world.judge.counted["deaths"]
    assert world.judge.counted["fences"]
    assert world.judge.counted["vms moved"]


def test_the_command_runs_the_second_level_and_takes_no_configuration_there(tmp_path):
    words = ["--level", "engine", "--hours", "0.1", "--hosts", "4", "--seeds", "1:2", "--processes", "1", "-o", "json"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert '"schema": "ha-controller/simulate/v1"' in done.output
    refused = CliRunner().invoke(command, [*words, "--config", str(tmp_path / "config.toml")])
    assert "--level core only" in str(refused.exception)


def test_no_thread_of_a_pretended_world_stands_back_for_real(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pretended.world(3, 4, Rates().only(), controllers=1) as world:
        world.drive(world.now + 60)
        world.truth.supply(2, chassis=False)
        world.drive(world.now + 90)
        assert world.judge.counted["incidents"] == 1
    assert not slept
