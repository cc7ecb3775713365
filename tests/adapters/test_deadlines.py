"""A pause of this process is not held against whoever was asked: the disk, above all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from ha_controller.adapters.journal import Entry, Journal
from ha_controller.deadlines import fairly_within

DEADLINE_S, PAUSE_S, NOTICED_S = 0.2, 0.5, 0.1


def answered_after(seconds: float) -> Callable[[], asyncio.Future[int]]:
    """An answer from another thread, which a pause of the loop does not hold up."""
    answer = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    threading.Timer(seconds, lambda: loop.call_soon_threadsafe(answer.set_result, 7)).start()
    return lambda: asyncio.shield(answer)


def stand_still(seconds: float = PAUSE_S) -> None:
    """From the next turn on, past the deadline."""
    asyncio.get_running_loop().call_soon(time.sleep, seconds)


async def test_an_answer_that_came_while_we_stood_still_is_taken():
    ask = answered_after(0.1)
    stand_still()
    assert await fairly_within(DEADLINE_S, ask, stood_still_s=NOTICED_S) == 7


async def test_an_answer_has_its_whole_time_after_a_pause():
    ask = answered_after(PAUSE_S + DEADLINE_S / 2)
    stand_still()
    assert await fairly_within(DEADLINE_S, ask, stood_still_s=NOTICED_S) == 7


async def test_a_pause_that_ended_right_behind_the_deadline_is_noticed():
    """A leader that was frozen for 10.8 s took its disk for dead, which has 10 s."""
    ask = answered_after(0.1)
    stand_still(1.05)
    assert await fairly_within(1.0, ask, stood_still_s=0.3) == 7


async def test_no_answer_in_time_is_no_answer():
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await fairly_within(DEADLINE_S, asyncio.Event().wait)
    assert time.monotonic() - began < 2 * DEADLINE_S + 0.5


async def test_no_answer_after_a_pause_either_is_no_answer():
    began = time.monotonic()
    stand_still()
    with pytest.raises(TimeoutError):
        await fairly_within(DEADLINE_S, asyncio.Event().wait, stood_still_s=NOTICED_S)
    assert time.monotonic() - began < PAUSE_S + DEADLINE_S + 1


async def test_a_journal_outlives_a_pause_in_the_middle_of_a_commit(tmp_path):
    """It was taken for a dead disk, and the controller ended."""
    journal = Journal.open(tmp_path / "journal.db", commit_timeout_s=0.3)
    try:
        asyncio.get_running_loop().call_soon(time.sleep, 1.5)
        await journal.commit({"a": "1"}, [Entry(at=1.0, kind="told", host=None, incident=None, text="one", data={})])
        assert await journal.records() == {"a": "1"}
    finally:
        await journal.close()
