"""The tables of the journal, from version to version, and what is said when they cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ha_controller import sealing

Migration = str | Callable[[sqlite3.Connection], None]  #: a script, or what a script cannot do


class JournalError(Exception):
    """The journal cannot be opened, read or written. The text says what is wrong and what helps."""


class NewerJournal(JournalError):
    """A newer version has written it. To start again does not help: install that version, or restore a backup."""


def _seal_what_is_there(connection: sqlite3.Connection) -> None:
    """Entries from before there were seals are sealed as they are found: what was done to them before is not seen."""
    before = sealing.FIRST
    rows = connection.execute("SELECT id, at, kind, host, incident, text, data FROM entries ORDER BY id").fetchall()
    for row in rows:
        before = sealing.seal(before, *row)
        connection.execute("UPDATE entries SET seal = ? WHERE id = ?", (before, row[0]))


MIGRATIONS: tuple[Migration, ...] = (
    """
    CREATE TABLE records (key TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL,
        host INTEGER, incident INTEGER, text TEXT NOT NULL, data TEXT NOT NULL
    ) STRICT;
    CREATE INDEX entries_of_host ON entries (host, id) WHERE host IS NOT NULL;
    CREATE INDEX entries_of_incident ON entries (incident, id) WHERE incident IS NOT NULL;
    """,
    "CREATE TABLE writer (number INTEGER PRIMARY KEY CHECK (number = 1), id TEXT NOT NULL) STRICT",
    "ALTER TABLE entries ADD COLUMN seal BLOB NOT NULL DEFAULT x''",
    _seal_what_is_there,
)
"""Step n brings a file from version n to n+1. Steps are only ever added: files of every version are out there."""
