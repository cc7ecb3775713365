"""The journal: what was acknowledged is on disk, what is damaged is refused, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import ha_controller
from ha_controller.adapters.journal import MIGRATIONS, Entry, Journal, JournalError
from ha_controller.adapters.journal_schema import NewerJournal

PROJECT = Path(ha_controller.__file__).parents[1]

CHILD = """
import asyncio, sys
from pathlib import Path
from typing import Any
from ha_controller.adapters.journal import Entry, Journal

async def write(journal, writer):
    for number in range(1_000_000):
        entry = Entry(at=1.0, kind="intent", host=writer, incident=None, text=str(number), data={})
        await journal.commit({f"writer/{writer}": str(number)}, [entry])
        print(writer, number, flush=True)

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    async with asyncio.TaskGroup() as group:
        for writer in range(8):
            group.create_task(write(journal, writer))

asyncio.run(main())
"""


def entry(text: str = "power off with bmc, attempt 1", **changes: object) -> Entry:
    values: dict[str, object] = {"at": 1.5, "kind": "intent", "host": 7, "incident": 3, "text": text, "data": {}}
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
async def open_journal(tmp_path: Path) -> AsyncIterator[Callable[..., Journal]]:
    """Open journals with it; all are closed after the test."""
    opened: list[Journal] = []

    def make(path: Path = tmp_path / "journal.db", **options: object) -> Journal:
        opened.append(Journal.open(path, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for journal in opened:
        await journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount_point = tmp_path / "small"
    mount_point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount_point)]
    mounted = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield mount_point
    subprocess.run(["umount", "--lazy", str(mount_point)], timeout=10, check=True)


@contextmanager
def write_locked(path: Path) -> Iterator[None]:
    """Another program is writing to the file: the writer has to wait."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


def modes_of(directory: Path) -> dict[str, int]:
    """File name -> permission bits."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


def remount(mount_point: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(mount_point)], timeout=10, check=True)


def writer_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "journal writer"]


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_records_and_entries_are_there_after_reopening(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    last = await journal.commit(
        {"incident/3": "{}", "cloud": "old"}, [entry("first"), entry("second", data={"a": [1]})]
    )
    await journal.commit({"cloud": "new", "incident/3": None}, [])
    await journal.close()

    again = open_journal()
    assert await again.records() == {"cloud": "new"}
    stored = await again.entries()
    assert [(line.text, line.data, line.host, line.incident) for line in stored] == [
        ("first", {}, 7, 3),
        ("second", {"a": [1]}, 7, 3),
    ]
    assert (stored[0].at, stored[0].kind) == (1.5, "intent")
    assert last == stored[-1].id


async def test_every_acknowledged_commit_survives_kill_9(tmp_path: Path, open_journal: Callable[..., Journal]) -> None:
    path = tmp_path / "journal.db"
    command = [sys.executable, "-c", CHILD, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert child.stdout is not None
    with anyio.fail_after(30):
        lines = [await child.stdout.readline() for _ in range(400)]
        child.send_signal(signal.SIGKILL)
        lines += (await child.stdout.read()).splitlines()
        await child.wait()
    acknowledged = {tuple(line.decode().split()) for line in lines if len(line.split()) == 2}
    assert len(acknowledged) >= 400

    journal = open_journal(path)
    on_disk = await journal.entries(limit=1_000_000)
    assert acknowledged <= {(str(line.host), line.text) for line in on_disk}
    last_entries = {f"writer/{line.host}": line.text for line in on_disk}
    assert await journal.records() == last_entries, "a record and its entry are written together or not at all"


async def test_entries_are_found_by_host_incident_id_and_direction(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    await journal.commit({}, [entry(str(number), host=number % 2, incident=number % 3) for number in range(6)])

    async def texts(**query: int | bool) -> list[str]:
        return [line.text for line in await journal.entries(**query)]  # type: ignore[arg-type]

    assert await texts() == ["0", "1", "2", "3", "4", "5"]
    assert await texts(host=0) == ["0", "2", "4"]
    assert await texts(incident=1) == ["1", "4"]
    assert await texts(host=1, incident=1) == ["1"]
    assert await texts(after_id=4) == ["4", "5"]
    assert await texts(newest_first=True, limit=2) == ["5", "4"]
    assert await texts(limit=-1) == []


async def test_whoever_opens_the_journal_ends_the_writing_of_those_before(
    open_journal: Callable[..., Journal], logged: list[dict[str, object]]
) -> None:
    """A process that lost its lock may go on for a moment, and knows nothing of what its successor decided."""
    old = open_journal()
    await old.commit({"incident/7": "suspected"}, [])
    new = open_journal()
    await new.commit({"incident/7": "powered off"}, [entry()])
    for _ in range(2):
        with pytest.raises(JournalError, match="opened by another process"):
            await old.commit({"incident/7": "suspected"}, [entry("late")])
    await new.commit({"cloud": "new"}, [])
    assert await new.records() == {"cloud": "new", "incident/7": "powered off"}
    assert [line.text for line in await new.entries()] == [entry().text]
    assert any("could not be written" in str(line["event"]) for line in logged)


async def test_an_id_is_never_given_twice(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    journal = open_journal()
    first = await journal.commit({}, [entry()])
    await journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as person:
        person.execute("DELETE FROM entries")

    assert first is not None
    assert await open_journal().commit({}, [entry()]) == first + 1


async def test_the_files_are_for_their_owner_only(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch(mode=0o644)
    await open_journal().commit({"key": "text"}, [])
    assert modes_of(tmp_path) == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}


async def test_a_name_that_is_no_unicode_does_not_stop_the_journal(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    await journal.commit({"vm": '"\udc80"'}, [entry("vm \udc80", data={"name": "\udc80"})])
    assert await journal.records() == {"vm": '"\\udc80"'}
    (line,) = await journal.entries()
    assert (line.text, line.data) == ("vm \\udc80", {"name": "\udc80"})


# --- group commit -----------------------------------------------------------------------------------------------------


async def test_commits_that_wait_together_become_one_transaction(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = open_journal()
    ids: list[int | None] = []

    async def commit(number: int) -> None:
        ids.append(await journal.commit({f"key/{number}": "text"}, [entry(str(number))]))

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(commit, number)
    assert len(await journal.records()) == 100
    assert len(set(ids)) == 100
    assert journal.transactions <= 20


async def test_a_cancelled_commit_harms_no_other(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    journal = open_journal()
    async with anyio.create_task_group() as group:
        with write_locked(tmp_path / "journal.db"):
            group.start_soon(journal.commit, {"patient": "text"}, [])
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.05) as impatient:
                await journal.commit({"impatient": "text"}, [])
    assert impatient.cancelled_caught
    await journal.commit({"later": "text"}, [])
    assert {"patient", "later"} <= set(await journal.records())


async def test_an_entry_that_cannot_be_stored_spoils_only_its_own_commit(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    for bad in (
        entry(kind="guess"),
        entry(at=float("nan")),
        entry(incident=2**63),
        entry(data={"ratio": float("inf")}),
    ):
        with pytest.raises(ValueError):
            await journal.commit({"bad": "text"}, [entry(), bad])
    with pytest.raises(TypeError):
        await journal.commit({"bad": "text"}, [entry(data={"path": Path("/")})])
    await journal.commit({"good": "text"}, [entry()])
    assert await journal.records() == {"good": "text"}
    assert len(await journal.entries()) == 1


async def test_more_commits_than_may_wait_are_refused(
    open_journal: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ha_controller.adapters.journal.WAITING_MAX", 3)
    journal = open_journal()
    refused: list[str] = []

    async def commit(number: int) -> None:
        try:
            await journal.commit({f"key/{number}": "text"}, [])
        except JournalError as error:
            refused.append(str(error))

    async with anyio.create_task_group() as group:
        with write_locked(tmp_path / "journal.db"):
            group.start_soon(commit, 0)
            await anyio.wait_all_tasks_blocked()
            await until(journal._queue.empty)  # the writer has taken it and waits for the lock
            for number in range(1, 6):
                group.start_soon(commit, number)
            await until(lambda: len(refused) == 2)
    assert "3 commits wait" in refused[0]
    assert len(await journal.records()) == 4


# --- when the disk fails ----------------------------------------------------------------------------------------------


async def test_a_commit_that_takes_too_long_has_an_unknown_outcome(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = open_journal(commit_timeout_s=0.2)
    with write_locked(tmp_path / "journal.db"):
        with pytest.raises(JournalError, match="outcome unknown"):
            await journal.commit({"key": "text"}, [])
        with pytest.raises(JournalError, match="opened again"):
            await journal.commit({"later": "text"}, [])
    await journal.close()
    assert "later" not in await open_journal().records()


async def test_a_full_disk_fails_the_commit_and_all_later_ones(
    open_journal: Callable[..., Journal], small_disk: Path, logged: list[Any]
) -> None:
    journal = open_journal(small_disk / "journal.db")
    durable = 0
    with pytest.raises(JournalError, match="full"):
        for _ in range(100):
            await journal.commit({"number": str(durable + 1)}, [entry("x" * 20_000)])
            durable += 1
    assert durable > 0
    with pytest.raises(JournalError, match="opened again"):
        await journal.commit({"small": "text"}, [])
    assert await journal.records() == {"number": str(durable)}, "what was acknowledged can still be read"
    await journal.close()
    (told,) = [line for line in logged if line["event"] == "the journal could not be written"]
    assert "full" in told["why"]
    assert "exc_info" not in told, "a full disk is no bug: a sentence says it"

    remount(small_disk, "size=8m")
    again = open_journal(small_disk / "journal.db")
    assert await again.records() == {"number": str(durable)}
    assert len(await again.entries()) == durable
    await again.commit({"small": "text"}, [])


async def test_a_hung_disk_delays_no_reading_for_ever(
    open_journal: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    await journal.commit({"key": "text"}, [])
    held, release = threading.Event(), threading.Event()
    connect = sqlite3.connect

    def hang(*arguments: object, **options: object) -> sqlite3.Connection:
        held.set()
        release.wait(10)
        return connect(*arguments, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", hang)
    with anyio.move_on_after(0.1) as impatient:
        await journal.records()
    assert impatient.cancelled_caught
    assert held.is_set()
    release.set()
    assert await journal.records() == {"key": "text"}


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_damaged_page_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    run_and_close(path, lambda journal: journal.commit({f"key/{n}": "x" * 500 for n in range(200)}, []))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    with pytest.raises(JournalError, match=r"damaged|malformed") as caught:
        Journal.open(path)
    assert "journal.db-wal" in str(caught.value)
    assert "backup" in str(caught.value)


def test_a_file_that_is_no_database_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this was a journal once " * 1000)
    with pytest.raises(JournalError, match=r"not a database.*backup"):
        Journal.open(path)
    assert path.read_bytes().startswith(b"this was a journal once")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (address TEXT)")
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        Journal.open(path)
    assert path.read_bytes() == before


def test_a_missing_directory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="must exist"):
        Journal.open(tmp_path / "nowhere" / "journal.db")


@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_file_system_is_refused_with_a_remedy(small_disk: Path, exists: bool) -> None:
    path = small_disk / "journal.db"
    if exists:
        run_and_close(path, lambda journal: journal.commit({"key": "text"}, []))
    remount(small_disk, "ro")
    with pytest.raises(JournalError, match=r"[Rr]ead-only.*writable"):
        Journal.open(path)


def test_a_directory_without_write_permission_is_refused_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(JournalError, match=r"Permission denied.*writable"):
        Journal.open(tmp_path / "journal.db")


def test_an_older_journal_is_migrated_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    run_and_close(path, lambda journal: journal.commit({"key": "text"}, [entry("old")]))
    newer = (*MIGRATIONS, "ALTER TABLE entries ADD COLUMN who TEXT NOT NULL DEFAULT 'nobody'")

    async def look(journal: Journal) -> None:
        assert await journal.records() == {"key": "text"}
        assert [line.text for line in await journal.entries()] == ["old"]

    run_and_close(path, look, migrations=newer)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT text, who FROM entries").fetchall() == [("old", "nobody")]
        assert reader.execute("PRAGMA user_version").fetchone() == (len(newer),)


def test_a_migration_that_fails_leaves_the_older_version_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    run_and_close(path, lambda journal: journal.commit({"key": "text"}, []))
    broken = (*MIGRATIONS, "CREATE TABLE half (n INTEGER) STRICT; INSERT INTO nowhere VALUES (1)")
    with pytest.raises(JournalError, match="nowhere"):
        Journal.open(path, migrations=broken)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert reader.execute("SELECT name FROM sqlite_schema WHERE name = 'half'").fetchall() == []
    run_and_close(path, lambda journal: journal.commit({"later": "text"}, []))


def test_a_newer_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    run_and_close(path, lambda journal: journal.commit({"key": "text"}, []))
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(NewerJournal, match=f"newer ha-controller .schema {len(MIGRATIONS) + 1}"):
        Journal.open(path)
    assert path.read_bytes() == before


# --- backup and closing -----------------------------------------------------------------------------------------------


async def test_a_backup_taken_while_commits_go_on_can_be_opened(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    journal, target = open_journal(), tmp_path / "backup.db"
    target.write_text("an older backup")
    await journal.commit({"key": "text"}, [entry("before")])

    async def go_on() -> None:
        for number in range(50):
            await journal.commit({}, [entry(str(number))])

    async with anyio.create_task_group() as group:
        group.start_soon(go_on)
        await journal.backup(target)
    modes = {name: mode for name, mode in modes_of(tmp_path).items() if "backup" in name}
    assert modes == {"backup.db": 0o600}, "no temporary file is left"
    copy = open_journal(target)
    assert await copy.records() == {"key": "text"}
    assert (await copy.entries())[0].text == "before"


async def test_a_backup_that_fails_leaves_the_older_one(
    open_journal: Callable[..., Journal], small_disk: Path, tmp_path: Path
) -> None:
    journal, target = open_journal(), small_disk / "backup.db"
    target.write_text("an older backup")
    await journal.commit({"key": "x" * 2_000_000}, [])
    with pytest.raises(JournalError, match="could not be copied"):
        await journal.backup(target)
    assert target.read_text() == "an older backup"
    assert list(modes_of(small_disk)) == ["backup.db"]


async def test_a_backup_never_replaces_the_journal_itself(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    journal, link = open_journal(), tmp_path / "link.db"
    link.symlink_to(tmp_path / "journal.db")
    for target in (tmp_path / "journal.db", link):
        with pytest.raises(JournalError, match="the journal itself"):
            await journal.backup(target)


async def test_closing_writes_what_waits_and_ends_the_writer(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = open_journal()
    async with anyio.create_task_group() as group:
        with write_locked(tmp_path / "journal.db"):
            group.start_soon(journal.commit, {"last": "text"}, [])
            await anyio.wait_all_tasks_blocked()
            group.start_soon(journal.close)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(JournalError, match="closed"):
                await journal.commit({"too late": "text"}, [])
    assert not writer_threads()
    await journal.close()
    assert await open_journal().records() == {"last": "text"}


async def test_closing_ends_the_writer_even_when_cancelled(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.close()
    assert not writer_threads()


def run_and_close(path: Path, work: Callable[[Journal], Awaitable[object]], **options: object) -> None:
    async def main() -> None:
        journal = Journal.open(path, **options)  # type: ignore[arg-type]
        try:
            await work(journal)
        finally:
            await journal.close()

    asyncio.run(main())
