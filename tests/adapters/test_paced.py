"""What viewers ask for together is made once, never older than the question, and in a share of the loop's time."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from ha_controller.adapters.http_api import looks, paced
from ha_controller.adapters.http_api.paced import SHARE_MAX, Paced
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.http_api.sources import Unreadable
from tests.app.api_door import opened

COSTS_S = 0.01


class Made:
    """What costs time to make."""

    def __init__(self, costs_s: float = COSTS_S) -> None:
        self.times, self.costs_s, self.used_s = 0, costs_s, 0.0

    def cpu(self) -> float:
        return self.used_s

    def __call__(self) -> bytes:
        self.times += 1
        self.used_s += self.costs_s
        return b"%d" % self.times


async def ask(door: Paced, question: str, make: Made, answers: list[bytes]) -> None:
    answers.append(await door.answer(question, make))


async def test_all_who_wait_with_the_same_question_get_one_answer() -> None:
    make, answers = Made(), list[bytes]()
    door = Paced(make.cpu)
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(ask, door, "/hosts", make, answers)
    assert answers == [b"1"] * 30


async def test_who_asks_later_gets_a_newer_answer() -> None:
    make = Made()
    door = Paced(make.cpu)
    assert [await door.answer("/hosts", make) for _ in range(3)] == [b"1", b"2", b"3"]


async def test_different_questions_take_their_share_together() -> None:
    make, answers, began_at = Made(), list[bytes](), time.monotonic()
    door = Paced(make.cpu)
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(ask, door, f"/hosts/{number}/explain", make, answers)
    assert make.times == 6
    assert time.monotonic() - began_at >= 5 * COSTS_S / SHARE_MAX


async def test_what_goes_wrong_is_told_to_each_and_holds_up_nobody() -> None:
    door, seen = Paced(), list[str]()

    def breaks() -> bytes:
        raise Problem(404, "There is no such host.")

    async def ask_in_vain() -> None:
        with pytest.raises(Problem) as told:
            await door.answer("/hosts/9/explain", breaks)
        seen.append(told.value.detail)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask_in_vain)
    assert seen == ["There is no such host."] * 3
    assert await door.answer("/hosts", Made()) == b"1"


async def test_one_that_goes_away_leaves_its_turn_to_the_others() -> None:
    make, answers = Made(), list[bytes]()
    door = Paced(make.cpu)
    await door.answer("/status", make)
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(COSTS_S):
            group.start_soon(ask, door, "/hosts", make, answers)
            await door.answer("/hosts", make)
    assert answers == [b"2"]


async def test_a_machine_that_stood_still_in_the_middle_shuts_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "PAUSE_MAX_S", COSTS_S)
    make = Made(costs_s=60.0)
    door, began_at = Paced(make.cpu), time.monotonic()
    assert [await door.answer("/hosts", make) for _ in range(2)] == [b"1", b"2"]
    assert time.monotonic() - began_at < paced.WAIT_MAX_S


async def test_who_waits_too_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "WAIT_MAX_S", COSTS_S)
    make = Made()
    door = Paced(make.cpu)
    await door.answer("/hosts", make)
    with pytest.raises(Problem) as told:
        await door.answer("/hosts", make)
    assert (told.value.status, told.value.headers) == (503, {"Retry-After": "5"})


async def test_so_many_different_questions_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "TURNS_MAX", 3)
    make, refused, answers = Made(), list[int](), list[bytes]()
    door = Paced(make.cpu)

    async def ask_for(number: int) -> None:
        try:
            answers.append(await door.answer(f"/hosts/{number}/explain", make))
        except Problem as problem:
            refused.append(problem.status)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(ask_for, number)
    assert (len(answers), refused) == (3, [503, 503])


async def test_viewers_wait_and_who_may_act_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "TURNS_MAX", 0)
    async with opened(tmp_path) as door:
        for path in ("/api/v1/status", "/api/v1/hosts", "/api/v1/pending", "/api/v1/hosts/kvm-07/explain"):
            asked = {role: (await door.ask("GET", path, role=role))[0] for role in ("viewer", "operator", "admin")}
            assert asked == {"viewer": 503, "operator": 200, "admin": 200}, path


async def test_so_many_viewers_read_what_is_on_record_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "READS_MAX", 0)
    async with opened(tmp_path) as door:
        asked = {role: (await door.ask("GET", "/api/v1/incidents", role=role))[0] for role in ("viewer", "operator")}
        assert asked == {"viewer": 503, "operator": 200}


async def test_a_journal_that_cannot_be_read_is_told_with_its_remedy(tmp_path: Path) -> None:
    async def incidents(newest: int | None = None) -> list[str]:
        raise Unreadable("the journal is damaged: restore a backup")

    async with opened(tmp_path) as door:
        door.sources.incidents = incidents  # type: ignore[method-assign]
        status, told, _ = await door.ask("GET", "/api/v1/incidents", role="viewer")
        assert (status, told["detail"]) == (503, "the journal is damaged: restore a backup")
