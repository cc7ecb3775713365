"""Planning for a large cloud takes minutes in a thread: the event loop must not notice, and nobody wait for its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import anyio
import pytest

from ha_controller.app.foresight import AT_ONCE_S, Breath, Foresight, GivenUp


def work_for(seconds: float) -> None:
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


def test_what_takes_a_moment_is_not_delayed_and_what_takes_long_leaves_the_processor_to_others():
    breathe, began = Breath(), time.monotonic()
    breathe()
    work_for(AT_ONCE_S / 2)
    breathe()
    assert breathe.slept_s == 0
    for _ in range(10):
        work_for(AT_ONCE_S / 10)
        breathe()
    assert breathe.slept_s > 4 * AT_ONCE_S / 2
    assert time.monotonic() - began > breathe.slept_s


async def test_what_nobody_waits_for_any_more_ends():
    ended = threading.Event()

    def work(breathe: Callable[[], None]) -> None:
        try:
            while True:
                breathe()
        except GivenUp:
            ended.set()
            raise

    with anyio.move_on_after(0.2):
        await Foresight(SimpleNamespace())._asked(work)
    assert await anyio.to_thread.run_sync(ended.wait, 10.0)


async def test_the_reserve_stands_still_while_somebody_asks(monkeypatch: pytest.MonkeyPatch):
    """Two threads that compute would leave the event loop a third of the interpreter."""
    from ha_controller.core import reserve

    breaths, begun, never = 0, threading.Event(), threading.Event()

    def assess(taken: object, asked_at: float, breathe: Callable[[], None]) -> None:
        nonlocal breaths
        while True:
            breathe()
            breaths += 1
            begun.set()

    def question(_: object) -> int:
        before = breaths
        never.wait(0.3)
        return breaths - before

    async def snapshot(hosts: object) -> None:
        """Of nothing."""

    monkeypatch.setattr(reserve, "assess", assess)
    state = SimpleNamespace(hosts={})
    foresight = Foresight(SimpleNamespace(controller=SimpleNamespace(state=state), clock=lambda: 0.0))
    monkeypatch.setattr(foresight, "_snapshot", snapshot)
    async with anyio.create_task_group() as group:
        group.start_soon(foresight.reserve)
        assert await anyio.to_thread.run_sync(begun.wait, 10.0)
        assert await foresight._asked(question) <= 1, "it was between two breaths"
        before = breaths
        with anyio.fail_after(10.0):
            while breaths == before:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def test_who_asks_does_not_wait_for_the_reserve(monkeypatch: pytest.MonkeyPatch):
    """With 10,000 hosts that is computed for minutes."""
    from ha_controller.core import reserve, simulate
    from tests.world import Cloud

    cloud, begun, goes_on = Cloud(hosts=4), threading.Event(), threading.Event()
    cloud.run(6)

    def assess(*given: object) -> None:
        begun.set()
        assert goes_on.wait(10.0)

    async def snapshot(hosts: object) -> simulate.Snapshot:
        return simulate.snapshot(cloud.controller.state, (), cloud.now)

    monkeypatch.setattr(reserve, "assess", assess)
    foresight = Foresight(SimpleNamespace(controller=cloud.controller, clock=lambda: cloud.now))
    monkeypatch.setattr(foresight, "_snapshot", snapshot)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(foresight.reserve)
            assert await anyio.to_thread.run_sync(begun.wait, 10.0)
            with anyio.fail_after(5):
                assert len((await foresight.capacity())["clusters"]) == 1
                assert (await foresight.fail([1]))["nowhere"] == 0
            goes_on.set()
    finally:
        goes_on.set()


def test_each_host_is_tried_after_a_breath():
    from ha_controller.core import reserve, simulate
    from tests.world import Cloud

    cloud = Cloud(hosts=4)
    cloud.run(6)
    taken = simulate.snapshot(cloud.controller.state, (), cloud.now)
    breaths: list[None] = []
    reserve.assess(taken, cloud.now, lambda: breaths.append(None))
    assert len(breaths) >= len(taken.hosts)


def test_given_up_in_the_middle():
    breathe = Breath()
    breathe.is_wanted = False
    with pytest.raises(GivenUp):
        breathe()
