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
        await Foresight(SimpleNamespace())._beside(work)
    assert await anyio.to_thread.run_sync(ended.wait, 10.0)


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
