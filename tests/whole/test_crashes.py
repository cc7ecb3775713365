"""The controller dies before and after every commit and every order of an incident; it must always end the same way.

The fail points are here and nowhere in the program: a runtime whose journal and executors can be made to die. What is
counted is what oned and the hardware saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from ha_controller.app import Runtime
from ha_controller.app.ledger import Ledger
from ha_controller.core.effects import Effect, Fence, MoveVm, OrderHost, ResumeVm
from ha_controller.core.incident import AttemptOutcome
from ha_controller.core.model import HostState
from ha_controller.demo import demo_config
from ha_controller.engine import Commit
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_model import Timings

FAST = Timings(ssh_timeout_s=0.3, boot_s=0.2)
AT_ONCE = 14
END_MAX_S = 90.0


class Crash(Exception):
    """The controller is dead from here on."""


@dataclass
class FailPoints:
    """Counts the moments; dies at the chosen one, once."""

    die_at: str = ""
    passed: list[str] = field(default_factory=list)
    armed: bool = True
    acknowledged: bool = False  #: before the death it was on disk that the power-off had been acknowledged

    def at(self, moment: str) -> None:
        number = sum(each.startswith(moment) for each in self.passed)
        name = f"{moment} {number}"
        self.passed.append(name)
        if self.armed and name == self.die_at:
            self.armed = False
            raise Crash(name)


class _DyingLedger:
    def __init__(self, ledger: Ledger, points: FailPoints) -> None:
        self._ledger, self._points = ledger, points

    async def commit(self, commit: Commit) -> None:
        incidents = commit.incidents
        if incidents:
            self._points.at("before commit")
        await self._ledger.commit(commit)
        if self._points.armed:
            outcomes = {attempt.outcome for incident in incidents for attempt in incident.attempts}
            self._points.acknowledged |= AttemptOutcome.ACCEPTED in outcomes
        if incidents:
            self._points.at("after commit")


class MortalRuntime(Runtime):
    """The real runtime, with moments to die at."""

    points: FailPoints
    died: anyio.Event

    def wrap_journal(self, ledger: Ledger) -> Any:
        return _DyingLedger(ledger, self.points)

    async def _contained(self, executor: Callable[..., Awaitable[None]], effect: Effect) -> None:
        if not isinstance(effect, Fence | OrderHost | MoveVm | ResumeVm):
            await super()._contained(executor, effect)
            return
        self.points.at("before order")
        await executor(effect)
        # the answer is in the inbox and on no disk: as if it had never come
        self.points.at("after order")


async def _run_until_death(runtime: MortalRuntime, done: Callable[[Runtime], bool]) -> bool:
    """Runs until the incident is over (True) or the controller dies (False)."""
    over = False
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.run)
            with anyio.move_on_after(END_MAX_S):
                while not done(runtime):
                    await anyio.sleep(0.05)
                over = True
            group.cancel_scope.cancel()
    except BaseExceptionGroup as error:
        if error.split(Crash)[0] is None:
            raise
        return False
    assert over, f"not over in time: {runtime.controller.state.incidents}"
    return True


def _recovered(runtime: Runtime) -> bool:
    incident = runtime.controller.state.incidents.get(1)
    return incident is not None and incident.state is HostState.RECOVERED


def _ready(runtime: Runtime) -> bool:
    state = runtime.controller.state
    views = state.views.values()
    return len(views) == 4 and all(any(device.passed_at for device in view.devices.values()) for view in views)


async def _story(folder: Path, die_at: str) -> tuple[FailPoints, list[str]]:
    """One failure with one death; returns the moments passed and what went wrong."""
    folder.mkdir()
    points = FailPoints(die_at=die_at)
    async with EmbeddedCloud(hosts=4, vms_per_host=2, timings=FAST) as cloud:
        config, registry = demo_config(folder, cloud)
        config = config.model_copy(update={"guard": config.guard.model_copy(update={"settle_s": 0.5})})
        broken = False

        def done(runtime: Runtime) -> bool:
            nonlocal broken
            if not broken and _ready(runtime):
                broken = True
                cloud.break_host(1, "hang")
            return _recovered(runtime)

        for _ in range(3):
            runtime = MortalRuntime(config, registry)
            runtime.points = points
            if await _run_until_death(runtime, done):
                break
        problems = cloud.check(vms_must_wait=False)
        moves = Counter(call.arguments[0] for call in cloud.server.calls if call.method == "one.vm.migrate" and call.ok)
        if sorted(moves.values()) != [1, 1]:
            problems.append(f"migrates: {moves}")
        orders = sum(line.what == "ordered off" for line in cloud.hardware.log)
        # an order whose outcome the dead controller took with it may be sent once more, after a look
        if orders > (1 if points.acknowledged else 2):
            problems.append(f"ordered off {orders} times, acknowledged on disk: {points.acknowledged}")
        return points, [f"{die_at}: {problem}" for problem in problems]


@pytest.mark.slow
async def test_a_death_before_or_after_every_commit_and_order_changes_nothing(tmp_path: Path):
    points, problems = await _story(tmp_path / "undisturbed", "")
    assert problems == []
    moments = points.passed
    kinds = {moment.rsplit(" ", 1)[0] for moment in moments}
    assert kinds == {"before commit", "after commit", "before order", "after order"}
    gate, failures, died = anyio.Semaphore(AT_ONCE), list[str](), list[str]()

    async def one(moment: str) -> None:
        async with gate:
            passed, wrong = await _story(tmp_path / moment.replace(" ", "-"), moment)
            failures.extend(wrong)
            if not passed.armed:
                died.append(moment)

    async with anyio.create_task_group() as group:
        for moment in moments:
            group.start_soon(one, moment)
    assert failures == []
    assert len(died) >= len(moments) * 0.9, "the deaths did not happen"
    print(f"{len(died)} deaths survived")
