"""The lead on one machine: one process at a time, terms that only grow, and no lock that outlives its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

import ha_controller
from ha_controller.adapters.arbiter import SingleArbiter, SingleConfig, StateDirectoryUnusable
from ha_controller.adapters.arbiter import single as arbiter_module
from ha_controller.plugin import Arbiter, ArbiterContext, Member, NotLeading

PROJECT = Path(ha_controller.__file__).parents[1]

HOLDER = """
import asyncio, os, subprocess, sys
from pathlib import Path
from ha_controller.adapters.arbiter import SingleArbiter, SingleConfig
from ha_controller.plugin import ArbiterContext

async def main():
    name = f"pid {os.getpid()} here"
    context = ArbiterContext(name=name, instance="one", state_dir=Path(sys.argv[1]), last_term=lambda: 0)
    arbiter = SingleArbiter(SingleConfig(), context)
    term = await arbiter.acquire()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    print(term, child.pid, arbiter.refusal, flush=True)
    sys.stdin.read()
    await arbiter.release(term)
    print("released", flush=True)
    sys.stdin.close()

asyncio.run(main())
"""


def single(state_dir: Path) -> SingleArbiter:
    name = f"pid {os.getpid()} here"
    context = ArbiterContext(name=name, instance="one", state_dir=state_dir, last_term=lambda: 0)
    return SingleArbiter(SingleConfig(), context)


async def holds(arbiter: SingleArbiter, term: int) -> bool:
    try:
        await arbiter.prove(term)
    except NotLeading:
        return False
    return True


class Holder:
    """Another controller process, which took the lead if it could, and has a child."""

    def __init__(self, state_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        term, child, self.refusal = self._line().split(" ", 2)
        self.term = None if term == "None" else int(term)
        self.child = int(child)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self._line() == "released"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """The process and its child, whatever happened before."""
        self.kill()
        os.kill(self.child, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def start_holder(tmp_path: Path) -> Iterator[Callable[[], Holder]]:
    """Start other controllers on the same state directory with it; all are ended after the test."""
    started: list[Holder] = []

    def start() -> Holder:
        started.append(Holder(tmp_path))
        return started[-1]

    yield start
    for holder in started:
        holder.end()


async def test_a_second_process_gets_nothing_and_is_told_who_leads(
    tmp_path: Path, start_holder: Callable[[], Holder]
) -> None:
    holder = start_holder()
    second = single(tmp_path)
    assert holder.term == 1
    assert await second.acquire() is None
    assert second.refusal is not None
    assert f"pid {holder.process.pid} " in second.refusal
    assert str(tmp_path / "lock") in second.refusal
    assert await second.members() == [Member(name=f"pid {holder.process.pid} here", leads=True)]
    with pytest.raises(NotLeading, match=f"pid {holder.process.pid}"):
        await second.prove(1)


async def test_we_lead_and_the_second_process_is_told_our_pid(
    tmp_path: Path, start_holder: Callable[[], Holder]
) -> None:
    first: Arbiter[SingleConfig] = single(tmp_path)
    term = await first.acquire()
    assert term is not None
    other = start_holder()
    assert other.term is None
    assert f"pid {os.getpid()} " in other.refusal
    await first.renew(term)
    await first.prove(term)
    assert first.led_meanwhile() == "", "whoever leads by this lock writes into this very record"
    assert await first.members() == [Member(name=f"pid {os.getpid()} here", instance="one", leads=True, term=term)]
    await first.release(term)


async def test_a_released_lead_goes_to_the_next_with_a_higher_term(
    tmp_path: Path, start_holder: Callable[[], Holder]
) -> None:
    holder = start_holder()
    second = single(tmp_path)
    assert await second.acquire() is None
    holder.release()
    assert await second.acquire() == 2
    assert second.refusal == ""
    await second.release(2)


async def test_a_killed_leader_loses_the_lock_though_its_child_lives_on(
    tmp_path: Path, start_holder: Callable[[], Holder]
) -> None:
    holder = start_holder()
    holder.kill()
    os.kill(holder.child, 0)  # raises if the child were gone
    second = single(tmp_path)
    assert await second.acquire() == 2
    await second.release(2)


async def test_a_second_arbiter_in_the_same_process_gets_nothing(tmp_path: Path) -> None:
    first, second = single(tmp_path), single(tmp_path)
    assert await first.acquire() == 1
    assert await second.acquire() is None
    await first.release(1)
    assert await second.acquire() == 2
    await second.release(2)


async def test_acquiring_again_keeps_the_term(tmp_path: Path) -> None:
    arbiter = single(tmp_path)
    assert await arbiter.acquire() == 1
    assert await arbiter.acquire() == 1
    await arbiter.release(1)


async def test_two_tasks_that_acquire_at_once_get_the_same_term(tmp_path: Path) -> None:
    arbiter = single(tmp_path)
    terms: list[int | None] = []

    async def acquire() -> None:
        terms.append(await arbiter.acquire())

    async with anyio.create_task_group() as group:
        group.start_soon(acquire)
        group.start_soon(acquire)
    assert terms == [1, 1]
    await arbiter.release(1)


async def test_nothing_holds_after_release_and_an_old_term_releases_nothing(tmp_path: Path) -> None:
    arbiter = single(tmp_path)
    assert await arbiter.acquire() == 1
    await arbiter.release(1)
    assert not await holds(arbiter, 1)
    with pytest.raises(NotLeading):
        await arbiter.renew(1)
    assert await arbiter.members() == []
    assert await arbiter.acquire() == 2
    await arbiter.release(1)
    assert await holds(arbiter, 2)
    with pytest.raises(NotLeading, match="term 1"):
        await arbiter.prove(1)
    assert await holds(arbiter, 2), "a question about an old term costs nothing"
    await arbiter.release(2)


async def test_release_works_while_being_cancelled(tmp_path: Path) -> None:
    arbiter = single(tmp_path)
    assert await arbiter.acquire() == 1
    with anyio.CancelScope() as scope:
        scope.cancel()
        await arbiter.release(1)
    assert await arbiter.acquire() == 2
    await arbiter.release(2)


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_lock_file_that_was_removed_ends_the_lead(tmp_path: Path, replaced: bool) -> None:
    arbiter = single(tmp_path)
    assert await arbiter.acquire() == 1
    (tmp_path / "lock").unlink()
    if replaced:
        (tmp_path / "lock").touch()
    with pytest.raises(NotLeading, match="not the file"):
        await arbiter.prove(1)
    with pytest.raises(NotLeading):
        await arbiter.renew(1)


async def test_a_term_that_is_no_number_is_refused_and_the_lock_is_free_again(tmp_path: Path) -> None:
    (tmp_path / "term").write_text("one\n")
    arbiter = single(tmp_path)
    for _ in range(2):
        with pytest.raises(StateDirectoryUnusable, match="never go back"):
            await arbiter.acquire()
    (tmp_path / "term").write_text("41\n")
    assert await arbiter.acquire() == 42
    assert (tmp_path / "term").read_text() == "42\n"
    await arbiter.release(42)


async def test_a_missing_state_directory_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryUnusable, match=r"nowhere.*must exist"):
        await single(tmp_path / "nowhere").acquire()


async def test_a_lock_that_is_got_too_late_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_answers = threading.Event()
    given = threading.Event()
    next_term = arbiter_module._next_term
    give = arbiter_module._HandOver.give

    def slow(path: Path, last_term: int) -> int:
        disk_answers.wait(10)
        return next_term(path, last_term)

    def noticed(hand_over: arbiter_module._HandOver, lead: arbiter_module._Lead) -> None:
        give(hand_over, lead)
        given.set()

    monkeypatch.setattr(arbiter_module, "_next_term", slow)
    monkeypatch.setattr(arbiter_module._HandOver, "give", noticed)
    monkeypatch.setattr(arbiter_module, "DISK_TIMEOUT_S", 0.1)
    late = single(tmp_path)
    with pytest.raises(StateDirectoryUnusable, match="no answer"):
        await late.acquire()
    assert await single(tmp_path).acquire() is None, "the disk has not answered: the lock is still taken"
    disk_answers.set()
    assert await anyio.to_thread.run_sync(given.wait, 10)
    assert not await holds(late, 1)
    monkeypatch.setattr(arbiter_module, "DISK_TIMEOUT_S", 5.0)
    assert await late.acquire() == 2
    await late.release(2)


async def test_a_disk_that_does_not_answer_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arbiter = single(tmp_path)
    assert await arbiter.acquire() == 1
    disk_answers = threading.Event()

    def slow(descriptor: int, path: Path) -> bool:
        return disk_answers.wait(10)

    monkeypatch.setattr(arbiter_module, "_is_in_place", slow)
    monkeypatch.setattr(arbiter_module, "DISK_TIMEOUT_S", 0.1)
    with pytest.raises(NotLeading):
        await arbiter.renew(1)
    disk_answers.set()
    assert not await holds(arbiter, 1), "a lead that was given up does not come back"
