"""What viewers ask for together is made once, never older than the question, and in a share of the loop's time."""

from __future__ import annotations

import time

import anyio
import pytest

from ha_controller.adapters.http_api import paced
from ha_controller.adapters.http_api.paced import SHARE_MAX, Paced
from ha_controller.adapters.http_api.problems import Problem

COSTS_S = 0.01


class Made:
    """What costs time to make."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        time.sleep(COSTS_S)  # work on the loop
        return str(self.times)


async def ask(door: Paced, question: str, make: Made, answers: list[str]) -> None:
    answers.append(await door.answer(question, make))


async def test_all_who_wait_with_the_same_question_get_one_answer() -> None:
    door, make, answers = Paced(), Made(), list[str]()
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(ask, door, "/hosts", make, answers)
    assert answers == ["1"] * 30


async def test_who_asks_later_gets_a_newer_answer() -> None:
    door, make = Paced(), Made()
    assert [await door.answer("/hosts", make) for _ in range(3)] == ["1", "2", "3"]


async def test_different_questions_take_their_share_together() -> None:
    door, make, answers, began_at = Paced(), Made(), list[str](), time.monotonic()
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(ask, door, f"/hosts/{number}/explain", make, answers)
    assert make.times == 6
    assert time.monotonic() - began_at >= 5 * COSTS_S / SHARE_MAX


async def test_what_goes_wrong_is_told_to_each_and_holds_up_nobody() -> None:
    door, seen = Paced(), list[str]()

    def breaks() -> str:
        raise Problem(404, "There is no such host.")

    async def ask_in_vain() -> None:
        with pytest.raises(Problem) as told:
            await door.answer("/hosts/9/explain", breaks)
        seen.append(told.value.detail)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask_in_vain)
    assert seen == ["There is no such host."] * 3
    assert await door.answer("/hosts", Made()) == "1"


async def test_one_that_goes_away_leaves_its_turn_to_the_others() -> None:
    door, make, answers = Paced(), Made(), list[str]()
    await door.answer("/status", make)
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(COSTS_S):
            group.start_soon(ask, door, "/hosts", make, answers)
            await door.answer("/hosts", make)
    assert answers == ["2"]


async def test_who_waits_too_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "WAIT_MAX_S", COSTS_S)
    door = Paced()
    await door.answer("/hosts", Made())
    with pytest.raises(Problem) as told:
        await door.answer("/hosts", Made())
    assert (told.value.status, told.value.headers) == (503, {"Retry-After": "10"})
