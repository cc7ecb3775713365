"""The durable record: what was decided, ordered, reported and told, and the records a restart goes on from.

One SQLite file in the state directory, in WAL mode with `synchronous=FULL`. One writer thread turns all commits that
wait into one transaction; whoever waits is answered after COMMIT, never before. Readings use connections of their own,
read-only, in worker threads, so they delay no commit.

It must never answer a commit that is not on disk, never go on after a failed write (what the disk holds is then in
doubt until the file is opened again), and never block the event loop. One process writes: the arbiter's lock sees to
that, and no commit is taken from a process that lost it, once another one has opened the file. Entries are only ever
added, each with a seal that covers the one before (`sealing`).

Data comes from the engine and goes back to it at start, to the API and to backups. No secret belongs in here.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import anyio
import structlog

from ha_controller import sealing, threads
from ha_controller.adapters.journal_copy import copy_checked
from ha_controller.adapters.journal_file import in_doubt, open_checked
from ha_controller.adapters.journal_schema import MIGRATIONS, Migration
from ha_controller.adapters.journal_schema import JournalError as JournalError  # part of what this module offers
from ha_controller.deadlines import fairly_within

log = structlog.get_logger(__name__)

__all__ = ["KINDS", "MIGRATIONS", "Entry", "Journal", "JournalError", "StoredEntry"]

KINDS = frozenset({"intent", "report", "decision", "drill", "operator", "answer", "told"})
TIMEOUT_S = 10.0  #: for a commit, a reading, and for closing
BACKUP_TIMEOUT_S = 120.0
WAITING_MAX = 1000
READERS_MAX = 4
ROWS_MAX = 256  #: of one statement; SQLite takes 32,766 values

_COLUMNS = "id, at, kind, host, incident, text, data, seal"
_INSERT = f"INSERT INTO entries ({_COLUMNS})"
_REPLACE = "INSERT OR REPLACE INTO records (key, text)"
_LAST_GIVEN = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'"
_T = TypeVar("_T")
_Row = tuple[float, str, int | None, int | None, str, str]
_StoredRow = tuple[int, float, str, int | None, int | None, str, str, bytes]
_Head = tuple[int, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the trail. Never changed once written."""

    at: float  #: the controller's clock, unix seconds
    kind: str  #: one of `KINDS`
    host: int | None
    incident: int | None
    text: str
    data: Mapping[str, object]  #: details that JSON can hold


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEntry(Entry):
    """A line of the trail as it is on disk."""

    id: int  #: one more than the last one's, is never given twice
    seal: str  #: hexadecimal


@dataclass(frozen=True, kw_only=True, slots=True)
class _Commit:
    """One commit on its way to the writer, and where its caller waits."""

    records: Mapping[str, str | None]
    rows: Sequence[_Row]
    answer: asyncio.Future[int | None]


class Journal:
    """An open journal. Its methods are called from one event loop."""

    def __init__(self, path: Path, connection: sqlite3.Connection, writer: str, *, commit_timeout_s: float) -> None:
        """Use `Journal.open`. Takes over the connection; the writer closes it."""
        self.path = path
        self.transactions = 0  #: how many transactions the writer has committed
        self._commit_timeout_s = commit_timeout_s
        self._connection = connection
        self._head = _last_entry(connection)
        self._id = writer
        self._queue: SimpleQueue[_Commit | None] = SimpleQueue()
        self._failure: str | None = None
        self._closed = False
        self._readers = anyio.CapacityLimiter(READERS_MAX)
        # a daemon: a disk that hangs must not keep the process from ending
        self._writer = threading.Thread(target=self._write_until_closed, name="journal writer", daemon=True)
        self._begin()

    @property
    def head(self) -> sealing.Head:
        """Of the last entry that was written: what to note elsewhere."""
        number, seal = self._head
        return sealing.Head(id=number, seal=seal.hex() if number else "")

    def _begin(self) -> None:
        self._writer.start()

    def _hand_over(self, commit: _Commit) -> None:
        self._queue.put(commit)

    @classmethod
    def open(
        cls, path: Path, *, commit_timeout_s: float = TIMEOUT_S, migrations: Sequence[Migration] = MIGRATIONS
    ) -> Journal:
        """Open the journal, make it when there is none, bring it to this version's schema. Blocks: it reads it all.

        Raises:
            JournalError: the file is damaged, not a journal, or cannot be written; NewerJournal: of a newer version.
        """
        writer = secrets.token_hex(8)
        return cls(path, open_checked(path, migrations, writer), writer, commit_timeout_s=commit_timeout_s)

    async def commit(self, records: Mapping[str, str | None], entries: Sequence[Entry]) -> int | None:
        """Make records (key -> text; None deletes) and entries durable, all or nothing; return the last entry's id.

        Up to `WAITING_MAX` commits may wait; one more is refused and nothing else happens. A cancelled commit may or
        may not be on disk, and harms no other. A lone surrogate in a text is stored as its escape (`\\udc80`), which
        means the same in JSON: a strange name in the cloud must not stop the journal.

        Raises:
            JournalError: it is not durable, or not known to be. All later commits fail until the file is reopened.
            ValueError, TypeError: an entry that cannot be stored; nothing was written.
        """
        rows = [_to_row(entry) for entry in entries]
        texts = {_storable(key): None if text is None else _storable(text) for key, text in records.items()}
        if self._closed:
            raise JournalError(f"the journal {self.path} is closed")
        if self._failure is not None:
            raise JournalError(self._failure)
        if self._queue.qsize() >= WAITING_MAX:
            raise JournalError(f"{WAITING_MAX} commits wait for {self.path} already: the disk does not keep up")
        answer = asyncio.get_running_loop().create_future()
        self._hand_over(_Commit(records=texts, rows=rows, answer=answer))
        try:
            return await fairly_within(self._commit_timeout_s, lambda: asyncio.shield(answer))
        except TimeoutError:
            problem = f"the disk did not answer within {self._commit_timeout_s:g} s, outcome unknown"
            self._failure = self._failure or in_doubt(self.path, problem)
            raise JournalError(self._failure) from None
        finally:
            answer.cancel()

    async def records(self) -> dict[str, str]:
        """All records, key -> text, in the order of their keys. Raises JournalError: the file cannot be read."""
        return await self._read(lambda reader: dict(reader.execute("SELECT key, text FROM records ORDER BY key")))

    async def numbered(self, prefix: str, *, newest: int | None = None) -> list[str]:
        """The texts of the records whose keys are the prefix and a number, the highest number first.

        Raises:
            JournalError: the file cannot be read.
        """

        def read(reader: sqlite3.Connection) -> list[str]:
            keys = reader.execute("SELECT key FROM records WHERE key >= ? AND key < ?", (f"{prefix}0", f"{prefix}:"))
            numbers = [rest for (key,) in keys if (rest := key.removeprefix(prefix)).isdecimal() and rest.isascii()]
            wanted = sorted(numbers, key=int, reverse=True)[:newest]
            query = "SELECT text FROM records WHERE key = ?"  # the texts of the others stay in the file
            return [text for rest in wanted for (text,) in reader.execute(query, (prefix + rest,))]

        return await self._read(read)

    async def record(self, key: str) -> str | None:
        """The text of one record; None: there is none. Raises JournalError: the file cannot be read."""
        query = "SELECT text FROM records WHERE key = ?"
        return await self._read(lambda reader: next((text for (text,) in reader.execute(query, (key,))), None))

    async def entries(
        self,
        *,
        after_id: int = 0,
        host: int | None = None,
        incident: int | None = None,
        kind: str | None = None,
        before: float | None = None,
        limit: int = 200,
        newest_first: bool = False,
    ) -> list[StoredEntry]:
        """At most `limit` entries with a higher id than `after_id`, of those that are asked for (`before`: not later).

        Raises:
            JournalError: the file cannot be read.
        """
        wanted: dict[str, int | float | str | None] = {"id > ?": after_id, "host = ?": host, "incident = ?": incident}
        wanted |= {"kind = ?": kind, "at <= ?": before}
        given = {condition: value for condition, value in wanted.items() if value is not None}
        where, order = " AND ".join(given), "DESC" if newest_first else "ASC"
        query = f"SELECT {_COLUMNS} FROM entries WHERE {where} ORDER BY id {order} LIMIT ?"
        values = (*given.values(), max(0, limit))  # SQLite takes a negative limit as "all"
        return await self._read(lambda reader: [_from_row(row) for row in reader.execute(query, values)])

    async def check(self, newest: int) -> sealing.Chain:
        """Look whether the newest entries are as they were written. All of them: `ha-controller audit verify`.

        Raises:
            JournalError: the file cannot be read.
        """
        head = self.head
        start = max(0, head.id - newest)
        chain = sealing.Chain(last=start, heads=[head] if head.id else [])
        for entry in await self.entries(after_id=start, limit=newest):
            chain.take(asdict(entry))
        chain.end(head.id)
        return chain

    async def backup(self, path: Path) -> None:
        """Copy the journal to a new file while it is in use, check it, and only then put it at `path`.

        Raises:
            JournalError: there is no good copy; a file that was at `path` before is untouched.
        """
        await self._read(
            lambda reader: copy_checked(reader, self.path, path), doing="copied", timeout_s=BACKUP_TIMEOUT_S
        )

    async def close(self) -> None:
        """Write what waits, end the writer, close the file. Runs to its end even when cancelled; may be repeated.

        Raises:
            JournalError: the disk hangs and so does the writer. What was answered before is on disk all the same.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await threads.run_sync(self._writer.join, TIMEOUT_S, limiter=anyio.CapacityLimiter(1))
        if self._writer.is_alive():
            raise JournalError(f"the journal {self.path} did not close within {TIMEOUT_S:g} s: the disk hangs")

    async def _read(
        self, query: Callable[[sqlite3.Connection], _T], *, doing: str = "read", timeout_s: float = TIMEOUT_S
    ) -> _T:
        """Run a query in a thread, on a connection of its own: it costs 0.2 ms, and an abandoned one ends by itself."""

        def work() -> _T:
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as reader:
                return query(reader)

        try:
            with anyio.fail_after(timeout_s):
                return await threads.run_sync(work, abandon_on_cancel=True, limiter=self._readers)
        except TimeoutError:
            raise JournalError(f"the journal {self.path} could not be {doing} within {timeout_s:g} s") from None
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
            raise JournalError(f"the journal {self.path} could not be {doing}: {error}") from error

    # --- the writer's thread ---

    def _write_until_closed(self) -> None:
        closed = False
        while not closed:
            batch, closed = self._next_batch()
            self._write(batch)
        self._connection.close()

    def _next_batch(self) -> tuple[list[_Commit], bool]:
        """Wait for a commit and take all that wait behind it; True when the journal was closed after them."""
        batch: list[_Commit] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _write(self, batch: Sequence[_Commit]) -> None:
        """One transaction for the batch, then the answers. After a failure nothing is written any more."""
        ids: Sequence[int | None] = [None] * len(batch)
        failure = self._failure
        if batch and failure is None:
            try:
                ids, self._head = _transact(self._connection, self._id, self._head, batch)
                self.transactions += 1
            except Exception as error:  # the border of this thread: it must live to answer those who wait
                say = log.error if _is_of_the_disk(error) else log.exception
                say("the journal could not be written", path=str(self.path), error=type(error).__name__, why=str(error))
                # a transaction that is left open is rolled back when the file is closed
                failure = self._failure = in_doubt(self.path, str(error))
        if batch:
            with suppress(RuntimeError):  # the loop is closed, so nobody waits
                batch[0].answer.get_loop().call_soon_threadsafe(_tell, batch, ids, failure)


def _tell(batch: Sequence[_Commit], ids: Sequence[int | None], failure: str | None) -> None:
    """Answer a batch, in the event loop: to be called there for each commit would cost more than the commit."""
    for commit, entry_id in zip(batch, ids, strict=True):
        if commit.answer.done():  # the caller was cancelled or ran out of time
            continue
        if failure is None:
            commit.answer.set_result(entry_id)
        else:
            commit.answer.set_exception(JournalError(failure))


def _is_of_the_disk(error: Exception) -> bool:
    """Whether a disk, or another process, can bring it about; anything else is a bug and needs its traceback."""
    return isinstance(error, JournalError | OSError) or type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)


# --- rows -------------------------------------------------------------------------------------------------------------


def _last_entry(connection: sqlite3.Connection) -> _Head:
    """Of the last entry the highest number that was ever given and its seal, also when it is gone from the file."""
    number = int(connection.execute(_LAST_GIVEN).fetchone()[0])
    found = connection.execute("SELECT seal FROM entries WHERE id = ?", (number,)).fetchone()
    return number, sealing.FIRST if found is None else found[0]


def _transact(
    connection: sqlite3.Connection, writer: str, head: _Head, batch: Sequence[_Commit]
) -> tuple[list[int | None], _Head]:
    """All commits in one transaction; for each the id of its last entry, and the new head.

    The seals go on from the last one that was written by us, not from what the file holds now: what somebody else does
    to its end while it is open shows.
    """
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT id FROM writer").fetchone() != (writer,):
        connection.execute("ROLLBACK")
        raise JournalError("it was opened by another process since")
    number, seal = max(head[0], connection.execute(_LAST_GIVEN).fetchone()[0]), head[1]
    ids: list[int | None] = []
    records: dict[str, str | None] = {}
    rows: list[tuple[object, ...]] = []
    for commit in batch:
        records |= commit.records
        for row in commit.rows:
            number += 1
            seal = sealing.seal(seal, number, *row)
            rows.append((number, *row, seal))
        ids.append(number if commit.rows else None)
    connection.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in records if records[key] is None])
    _put(connection, _REPLACE, [(key, text) for key, text in records.items() if text is not None])
    _put(connection, _INSERT, rows)
    connection.execute("COMMIT")
    return ids, (number, seal)


def _put(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Many rows by one statement: each statement lets other threads run, and waits up to 5 ms for the busy loop."""
    for start in range(0, len(rows), ROWS_MAX):
        some = rows[start : start + ROWS_MAX]
        places = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        connection.execute(f"{statement} VALUES {places}", [value for row in some for value in row])


def _to_row(entry: Entry) -> _Row:
    """Everything that SQLite would refuse is refused here, before it can spoil the transaction of others."""
    if entry.kind not in KINDS:
        raise ValueError(f"{entry.kind!r} is no kind of entry")
    if not math.isfinite(entry.at):
        raise ValueError(f"{entry.at} is no time")
    if any(abs(number) >= 2**63 for number in (entry.host, entry.incident) if number is not None):
        raise ValueError("a host or incident number is too large to be stored")
    data = sealing.details(entry.data)
    return (float(entry.at), entry.kind, entry.host, entry.incident, _storable(entry.text), data)


def _from_row(row: _StoredRow) -> StoredEntry:
    number, at, kind, host, incident, text, data, seal = row
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):  # never written by us: it is shown, and does not fit its seal
        found = {"unreadable": data}
    return StoredEntry(
        id=number, at=at, kind=kind, host=host, incident=incident, text=text, data=found, seal=bytes(seal).hex()
    )


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
