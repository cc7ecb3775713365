"""The tables of the journal, from version to version, and what is said when they cannot be used."""

from __future__ import annotations


class JournalError(Exception):
    """The journal cannot be opened, read or written. The text says what is wrong and what helps."""


class NewerJournal(JournalError):
    """A newer version has written it. To start again does not help: install that version, or restore a backup."""


MIGRATIONS: tuple[str, ...] = (
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
)
"""Script n brings a file from version n to n+1. Scripts are only ever added: files of every version are out there."""
