"""The journal's file: it is opened, checked, and brought to this version's schema.

Nothing is done with a file that is damaged, of a newer version or of another program, and what is wrong comes with
what helps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ha_controller.adapters.journal_copy import damage, restoring
from ha_controller.adapters.journal_schema import JournalError, Migration, NewerJournal


def open_checked(path: Path, migrations: Sequence[Migration], writer: str) -> sqlite3.Connection:
    """The writer's connection, to a file that was read through and has this version's schema."""
    if (half := restoring(path)).exists():
        raise JournalError(f"the journal {path} is half replaced: {half} is there. Do it again: ha-controller restore")
    try:
        path.touch(mode=0o600)  # SQLite gives its -wal and -shm files the mode of the main file
        path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with ExitStack() as undo:
            undo.callback(connection.close)
            version = _check(connection, path, len(migrations))
            _make_durable(connection)
            _migrate(connection, version, migrations)
            connection.execute("INSERT OR REPLACE INTO writer VALUES (1, ?)", (writer,))
            undo.pop_all()
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"the journal {path} cannot be used: {error}. {_remedy(error, path)}") from error
    return connection


def _check(connection: sqlite3.Connection, path: Path, version_known: int) -> int:
    """Refuse what is not ours, is newer than we are, or is damaged; return its version. Changes nothing."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > version_known:
        raise NewerJournal(
            f"the journal {path} was written by a newer ha-controller (schema {version}, this one knows up to "
            f"{version_known}). Install the newer version again, or restore a backup that this version made."
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise JournalError(f"{path} is another program's database. Choose another state directory.")
    if found := damage(connection):
        raise JournalError(f"the journal {path} is damaged: {found}. {_replace_it(path)}")
    return version


def _make_durable(connection: sqlite3.Connection) -> None:
    """NORMAL looks 24 times faster than FULL because it does not sync every commit: never for orders to fence."""
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    connection.execute("PRAGMA synchronous = FULL")
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    if (mode, level) != ("wal", 2):
        raise sqlite3.OperationalError(f"the file system does not allow durable commits ({mode}, {level})")


def _migrate(connection: sqlite3.Connection, version: int, migrations: Sequence[Migration]) -> None:
    """Each step is a transaction with its version number: a crash in between leaves a whole older schema."""
    for reached, step in enumerate(migrations[version:], start=version + 1):
        try:
            if isinstance(step, str):
                connection.executescript(f"BEGIN IMMEDIATE; {step}")
            else:
                connection.execute("BEGIN IMMEDIATE")
                step(connection)
            connection.execute(f"PRAGMA user_version = {reached}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:  # it failed
                connection.execute("ROLLBACK")


def _remedy(error: Exception, path: Path) -> str:
    """What helps against an error at opening. The low byte of SQLite's code is the kind of error."""
    kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _replace_it(path)
    if kind == sqlite3.SQLITE_BUSY:
        return "Another program is writing to it: end that one first."
    return "The state directory must exist, be writable for the controller's user, and have free space."


def _replace_it(path: Path) -> str:
    # a -wal file left beside a restored backup would be played back into it
    return (
        f"Move {path.name}, {path.name}-wal and {path.name}-shm away together and put the last backup in their place. "
        "Without a backup the controller starts anew and has forgotten open incidents: see which hosts it had disabled."
    )


def in_doubt(path: Path, problem: str) -> str:
    return (
        f"the journal {path} could not be written: {problem}. The last commit may or may not be on disk; nothing is "
        "written until the journal is opened again. Check free space and health of the disk, then restart."
    )
