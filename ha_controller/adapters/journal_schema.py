"""The tables of the journal, from version to version."""

from __future__ import annotations

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
