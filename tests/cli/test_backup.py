"""Backups of the journal, and putting them back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from ha_controller.adapters.journal import Entry, Journal, JournalError
from ha_controller.adapters.journal_copy import put_back, restoring
from ha_controller.app.ledger import Ledger
from ha_controller.app.standing import StateDirectory
from ha_controller.core import pause
from ha_controller.engine import Commit
from tests.cli.pretended import Printed, called, failing_cloud


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def command(state: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Printed]:
    return lambda *words: called(*words, "--state-dir", str(state), monkeypatch=monkeypatch)


async def write(state: Path, *texts: str) -> Journal:
    journal = Journal.open(state / "journal.db")
    cloud = failing_cloud()
    paused = pause.paused(cloud.cloud, "ann", cloud.now, cloud.now + 60)  # whose end is long over today
    await Ledger(journal).commit(Commit(incidents=list(cloud.incidents.values()), cloud=paused))
    await journal.commit({}, [entry(text) for text in texts])
    return journal


def entry(text: str) -> Entry:
    return Entry(at=1000.0, kind="told", host=3, incident=1, text=text, data={})


async def off_loop(command: Callable[..., Printed], *words: str) -> Printed:
    return await anyio.to_thread.run_sync(lambda: command(*words))


async def test_a_backup_of_a_journal_in_use_comes_back_and_starts_paused(
    state: Path, tmp_path: Path, command: Callable[..., Printed]
):
    journal, file = await write(state, "before"), tmp_path / "backup.db"
    done = await off_loop(command, "backup", str(file))
    assert (done.code, "1 lines of the trail" in done.err) == (0, True), done.err
    await journal.commit({}, [entry("after")])
    await journal.close()

    done = await off_loop(command, "restore", str(file), "--yes")
    assert done.code == 0, done.err
    assert "open in it: incident 1: kvm-03 RECOVERED" in done.err
    journal = Journal.open(state / "journal.db")
    try:
        assert [line.text for line in await journal.entries()] == ["before"]
        incidents, cloud, _ = await Ledger(journal).load()
        assert [incident.host_name for incident in incidents] == ["kvm-03"]
        assert "restore of a backup" in cloud.paused_by
        assert cloud.paused_until is None, "a person ends it, and no time that was meant for another pause"
    finally:
        await journal.close()
    [kept] = state.glob("journal.db.replaced-*Z")
    with sqlite3.connect(kept) as before:
        assert before.execute("SELECT count(*) FROM entries").fetchone() == (2,)
    before.close()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_nothing_is_restored_below_a_running_controller(
    state: Path, tmp_path: Path, command: Callable[..., Printed]
):
    journal, file = await write(state, "before"), tmp_path / "backup.db"
    await journal.backup(file)
    directory = StateDirectory(state, lambda: 0)
    await directory.lock()
    try:
        done = await off_loop(command, "restore", str(file), "--yes")
        assert (done.code, "Stop the controller first" in done.err) == (4, True)
    finally:
        await directory.unlock()
        await journal.close()
    assert sorted(path.name for path in state.iterdir() if "replaced" in path.name or "restoring" in path.name) == []


async def test_what_is_no_backup_of_ours_is_refused(state: Path, tmp_path: Path, command: Callable[..., Printed]):
    await (await write(state, "mine")).close()
    journal, bad = (state / "journal.db").read_bytes(), tmp_path / "bad"
    newer = tmp_path / "newer"
    newer.write_bytes(journal)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    bad.write_bytes(journal[:5000] + b"x" * 3000 + journal[8000:])
    (tmp_path / "text").write_text("not a database")
    for name, why in (("newer", "version 99"), ("bad", ""), ("text", "no journal")):
        done = await off_loop(command, "restore", str(tmp_path / name), "--yes")
        assert (done.code, why in done.err) == (1, True), done.err
    assert (state / "journal.db").read_bytes() == journal


async def test_without_a_terminal_or_yes_nothing_is_restored(
    state: Path, tmp_path: Path, command: Callable[..., Printed]
):
    journal = await write(state, "mine")
    await journal.backup(tmp_path / "file")
    await journal.close()
    assert (await off_loop(command, "restore", str(tmp_path / "file"))).code == 2


async def test_a_crash_in_the_middle_of_a_restore_is_noticed_and_the_restore_can_be_done_again(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal, file = await write(state, "before"), tmp_path / "file"
    await journal.backup(file)
    await journal.close()

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Path, "replace", _fails_at(restoring(state / "journal.db"), crash))
        put_back(file, state / "journal.db", "first", lambda _: {})
    assert restoring(state / "journal.db").exists()
    with pytest.raises(JournalError, match="half replaced"):
        Journal.open(state / "journal.db")
    put_back(file, state / "journal.db", "second", lambda _: {})
    assert not restoring(state / "journal.db").exists()
    await Journal.open(state / "journal.db").close()


def _fails_at(path: Path, crash: Callable[[], None]) -> Callable[[Path, Path], Path]:
    replace = Path.replace

    def replaced(source: Path, target: Path) -> Path:
        if source == path:
            crash()
        return replace(source, target)

    return replaced


async def test_no_journal_is_told_and_makes_none(state: Path, tmp_path: Path, command: Callable[..., Printed]):
    done = await off_loop(command, "backup", str(tmp_path / "file"))
    assert (done.code, "--state-dir" in done.err) == (1, True)
    assert list(state.iterdir()) == []


async def test_a_token_that_was_revoked_since_does_not_come_back(
    state: Path, tmp_path: Path, command: Callable[..., Printed]
):
    journal, file = await write(state, "before"), tmp_path / "backup.db"
    await journal.commit({"token/ci": '{"role": "admin"}'}, [])
    assert (await off_loop(command, "backup", str(file))).code == 0
    await journal.commit({"token/ci": None}, [])
    await journal.close()
    assert (await off_loop(command, "restore", str(file), "--yes")).code == 0
    journal = Journal.open(state / "journal.db")
    try:
        assert [key for key in await journal.records() if key.startswith("token/")] == []
    finally:
        await journal.close()


@pytest.mark.parametrize("key", ["incident/1", "cloud"])
async def test_what_a_newer_version_wrote_is_not_put_back_and_leaves_all_as_it_was(
    state: Path, tmp_path: Path, command: Callable[..., Printed], key: str
):
    """It may be what holds an order back."""
    journal, file = await write(state, "before"), tmp_path / "backup.db"
    before = await journal.records()
    record = json.loads(before[key])
    await journal.commit({key: json.dumps({**record, "of_a_newer_version": 1})}, [])
    assert (await off_loop(command, "backup", str(file))).code == 0
    await journal.commit({key: before[key]}, [])
    await journal.close()
    done = await off_loop(command, "restore", str(file), "--yes")
    assert (done.code, "does not know" in done.err) == (1, True), done.err
    assert not restoring(state / "journal.db").exists()
    journal = Journal.open(state / "journal.db")
    try:
        assert await journal.records() == before
    finally:
        await journal.close()


async def test_a_backup_of_an_older_version_is_put_back(state: Path, tmp_path: Path, command: Callable[..., Printed]):
    """Its lasting orders have names alone."""
    journal, file = await write(state, "before"), tmp_path / "backup.db"
    record = json.loads((await journal.records())["incident/1"])
    await journal.commit({"incident/1": json.dumps({**record, "in_force": ["bmc"]})}, [])
    assert (await off_loop(command, "backup", str(file))).code == 0
    await journal.close()
    done = await off_loop(command, "restore", str(file), "--yes")
    assert done.code == 0, done.err


async def test_what_an_attempt_that_was_cut_off_left_is_not_rolled_into_the_next(
    state: Path, tmp_path: Path, command: Callable[..., Printed]
):
    journal, file = await write(state, "before"), tmp_path / "backup.db"
    assert (await off_loop(command, "backup", str(file))).code == 0
    await journal.close()
    copy = restoring(state / "journal.db")
    for end in ("-journal", "-wal", "-shm"):
        copy.with_name(f"{copy.name}{end}").write_bytes(b"of another file")
    assert (await off_loop(command, "restore", str(file), "--yes")).code == 0
    assert sorted(path.name for path in state.glob("*.restoring*")) == []
