"""Copies of the journal's file: backups while it is in use, and putting one back while it is not.

A copy is checked before it gets its name, and replaces nothing before that. No copy is ever taken for a journal that
grew on: beside a file that was put back lies no `-wal` file, which would be played into it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from ha_controller.adapters.journal_schema import MIGRATIONS, JournalError

WAIT_FOR_WRITER_S = 20.0
BESIDE = ("-wal", "-shm")  #: what SQLite keeps beside the file


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What is in a journal."""

    version: int  #: of its schema
    records: dict[str, str]
    entries: int
    last_at: float | None  #: of the newest line of the trail, unix seconds


def restoring(path: Path) -> Path:
    """Where the copy lies while it is being put back: as long as it is there, the journal is not whole."""
    return path.with_name(f"{path.name}.restoring")


def damage(connection: sqlite3.Connection) -> str | None:
    """The first thing that SQLite's own check finds wrong, or None."""
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return None if found == "ok" else found


def copy_checked(reader: sqlite3.Connection, source: Path, target: Path) -> None:
    """Backup through a temporary file beside the target, which is replaced only by a copy that was checked.

    Raises:
        JournalError, sqlite3.Error, OSError: there is no good copy; what was at the target is untouched.
    """
    if target.exists() and target.samefile(source):
        raise JournalError(f"{target} is the journal itself: a backup needs another path")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as private:  # mode 0700
        temporary = Path(private, target.name)
        with closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
            temporary.chmod(0o600)
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, to be carried away
            if found := damage(copy):
                raise JournalError(f"the backup of {source} is damaged: {found}. Nothing was put at {target}.")
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)


def back_up(source: Path, target: Path) -> Summary:
    """Copy a journal to one file, also while a controller writes to it; returns what is in the copy.

    Raises:
        JournalError: there is no good copy; what was at the target is untouched.
    """
    try:
        with closing(_reader(source)) as reader:
            copy_checked(reader, source, target)
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"{source} cannot be copied to {target}: {error}") from error
    return summary(target)


def summary(path: Path) -> Summary:
    """What is in a journal, or in a backup of one.

    Raises:
        JournalError: it is none, it is damaged, or it is of a newer version.
    """
    try:
        with closing(_reader(path)) as reader:
            version = int(reader.execute("PRAGMA user_version").fetchone()[0])
            if not 0 < version <= len(MIGRATIONS):
                known = f"this ha-controller knows 1 to {len(MIGRATIONS)}"
                raise JournalError(f"{path} has version {version} of the journal's schema; {known}")
            if found := damage(reader):
                raise JournalError(f"{path} is damaged: {found}")
            count, last_at = reader.execute("SELECT count(*), max(at) FROM entries").fetchone()
            records = dict(reader.execute("SELECT key, text FROM records"))
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"{path} is no journal that can be read: {error}") from error
    return Summary(version=version, records=records, entries=count, last_at=last_at)


def put_back(
    backup: Path, path: Path, aside: str, edit: Callable[[dict[str, str]], dict[str, str | None]]
) -> Path | None:
    """Put a backup in the place of a journal that no controller has open.

    `edit` gives the records to change, None for what goes.

    The journal that was there is kept under the name with `aside` behind it, and returned. A crash in between leaves
    the copy under the name of `restoring`: the journal is not opened then, and this can be done again.

    Raises:
        JournalError: nothing was changed, unless the text says so.
    """
    changes = edit(summary(backup).records)
    copy = restoring(path)
    try:
        _unlink_all(copy)  # a journal that an earlier attempt left beside it would be rolled into this one
        with closing(_reader(backup)) as reader:
            copy_checked(reader, backup, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as changed:
            changed.execute("BEGIN IMMEDIATE")
            changed.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in changes])
            kept = [(key, text) for key, text in changes.items() if text is not None]
            changed.executemany("INSERT INTO records (key, text) VALUES (?, ?)", kept)
            changed.execute("COMMIT")
            if found := damage(changed):
                raise JournalError(f"the copy of {backup} is damaged: {found}. Nothing was changed.")
        _sync(copy)
        _give_to_owner_of(path.parent, copy)
    except (sqlite3.Error, OSError, JournalError) as error:
        with suppress(OSError):
            _unlink_all(copy)
        raise JournalError(f"{backup} cannot be copied into {path.parent}: {error}. Nothing was changed.") from error
    before = path.with_name(f"{path.name}.{aside}") if path.exists() else None
    try:
        if before is not None:
            os.link(path, before)
        for end in BESIDE:
            with suppress(FileNotFoundError):
                path.with_name(f"{path.name}{end}").rename(path.with_name(f"{path.name}.{aside}{end}"))
        copy.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise JournalError(f"{path} is half replaced: {error}. Mend that, and restore again.") from error
    return before


def _unlink_all(path: Path) -> None:
    for end in ("", "-journal", *BESIDE):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)


def _reader(path: Path) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, timeout=WAIT_FOR_WRITER_S)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_to_owner_of(folder: Path, path: Path) -> None:
    """Root restores, and the controller's own user must be able to write."""
    owner = folder.stat()
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
