"""The seals of the trail: whatever is done to entries on disk is found, and what cannot be found is said."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ha_controller import sealing
from ha_controller.adapters.journal import MIGRATIONS, Entry, Journal
from ha_controller.sealing import Chain, Head

COUNT = 8
SEALS_BEGIN = 2  #: the version of the last journal without seals


def entry(text: str, **data: object) -> Entry:
    return Entry(at=1790000000.25, kind="operator", host=7, incident=None, text=text, data=data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a journal with eight entries."""
    write(tmp_path / "journal.db", range(COUNT))
    return tmp_path / "journal.db"


def write(path: Path, numbers: range, **options: object) -> Head:
    async def main() -> Head:
        journal = Journal.open(path, **options)  # type: ignore[arg-type]
        for number in numbers:
            await journal.commit({}, [entry(f"order {number}", who="ann é", number=number)])
        await journal.close()
        return journal.head

    return asyncio.run(main())


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as person:
        for statement in statements:
            person.execute(statement)


def checked(path: Path, *heads: Head) -> list[str]:
    """As `audit verify` does it. The faults."""

    async def main() -> list[str]:
        journal = Journal.open(path)
        last = journal.head
        chain = Chain(heads=heads)
        for stored in await journal.entries(limit=1000):
            chain.take(asdict(stored))
        chain.end(last.id)
        await journal.close()
        return chain.faults

    return asyncio.run(main())


def seal_anew(path: Path, first: int) -> None:
    """As somebody would do it who knows how: the chain has no key."""
    with closing(sqlite3.connect(path, isolation_level=None)) as person:
        found = person.execute("SELECT seal FROM entries WHERE id = ?", (first - 1,)).fetchone()
        seal = sealing.FIRST if found is None else found[0]
        query = "SELECT id, at, kind, host, incident, text, data FROM entries WHERE id >= ? ORDER BY id"
        for row in person.execute(query, (first,)).fetchall():
            seal = sealing.seal(seal, *row)
            person.execute("UPDATE entries SET seal = ? WHERE id = ?", (seal, row[0]))


def test_an_untouched_trail_is_as_it_was_written(path: Path) -> None:
    head = write(path, range(COUNT, COUNT + 3))  # it goes on over a restart
    assert head.id == COUNT + 3
    assert checked(path, head, head.short) == []


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        (["UPDATE entries SET text = 'nothing' WHERE id = 4"], "entry 4 does not fit"),
        (["UPDATE entries SET at = at + 1 WHERE id = 4"], "entry 4 does not fit"),
        (["UPDATE entries SET host = NULL WHERE id = 4"], "entry 4 does not fit"),
        (["UPDATE entries SET data = replace(data, 'ann', 'bob') WHERE id = 4"], "entry 4 does not fit"),
        (["UPDATE entries SET data = '{' WHERE id = 4"], "entry 4 does not fit"),
        (["UPDATE entries SET data = '{\"x\": NaN}' WHERE id = 4"], "entry 4 does not fit"),
        (["UPDATE entries SET seal = x'00' WHERE id = 1"], "entry 1 does not fit"),
        (["DELETE FROM entries WHERE id = 4"], "entry 4 is missing before entry 5"),
        (["DELETE FROM entries WHERE id < 4"], "entries 1 to 3 are missing before entry 4"),
        (["DELETE FROM entries WHERE id = 4", "UPDATE entries SET id = id - 1 WHERE id > 4"], "entry 4 does not fit"),
        (
            [
                "UPDATE entries SET id = id + 100 WHERE id > 3",
                "UPDATE entries SET id = id - 99 WHERE id > 100",
                "INSERT INTO entries SELECT 4, at, kind, host, incident, 'new', data, seal FROM entries WHERE id = 3",
            ],
            "entry 4 does not fit",
        ),
        (["DELETE FROM entries WHERE id > 6"], "the end was cut off: entries 7 to 8 are missing"),
        (["DELETE FROM entries"], "the end was cut off: entries 1 to 8 are missing"),
    ],
)
def test_what_was_done_to_the_file_is_found_with_its_number(path: Path, statements: list[str], fault: str) -> None:
    change(path, *statements)
    assert fault in checked(path)[0]


def test_an_entry_whose_seal_was_made_anew_shows_at_the_next_one(path: Path) -> None:
    change(path, "UPDATE entries SET text = 'nothing' WHERE id = 4")
    seal = "SELECT id, at, kind, host, incident, text, data FROM entries WHERE id = 4"
    with closing(sqlite3.connect(path, isolation_level=None)) as person:
        before = person.execute("SELECT seal FROM entries WHERE id = 3").fetchone()[0]
        person.execute(
            "UPDATE entries SET seal = ? WHERE id = 4", (sealing.seal(before, *person.execute(seal).fetchone()),)
        )
    assert [fault.split(" does")[0] for fault in checked(path)] == ["entry 5"]


def test_an_end_cut_off_with_care_is_found_by_a_noted_head_alone(path: Path) -> None:
    head = write(path, range(COUNT, COUNT + 1))
    change(path, "DELETE FROM entries WHERE id > 6", "UPDATE sqlite_sequence SET seq = 6")
    assert checked(path) == []
    assert "the head of entry 9 was noted, and the last one is 6" in checked(path, head)[0]


def test_a_trail_sealed_anew_is_found_by_a_noted_head_alone(path: Path) -> None:
    head = write(path, range(0))
    change(path, "UPDATE entries SET text = 'nothing' WHERE id = 4")
    seal_anew(path, 4)
    assert checked(path) == []
    assert "entry 8 is not the one whose head was noted" in checked(path, head.short)[0]


def test_a_gap_stays_visible_after_the_trail_went_on(path: Path) -> None:
    change(path, "DELETE FROM entries WHERE id > 6")
    write(path, range(2))
    assert checked(path) == ["entries 7 to 8 are missing before entry 9"]


async def test_what_is_done_to_the_end_of_an_open_journal_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path)
    await journal.commit({}, [entry("one"), entry("two")])
    change(path, "UPDATE entries SET text = 'nothing' WHERE id = 2")
    await journal.commit({}, [entry("three")])
    assert [fault.split(" does")[0] for fault in (await journal.check(100)).faults] == ["entry 2"]
    change(path, "DELETE FROM entries WHERE id = 3", "UPDATE sqlite_sequence SET seq = 2")
    assert "the end was cut off" in (await journal.check(1)).faults[-1]
    await journal.commit({}, [entry("four")])
    assert "entry 3 is missing before entry 4" in (await journal.check(100)).faults
    await journal.close()


async def test_the_newest_entries_alone_can_be_checked(path: Path) -> None:
    journal = Journal.open(path)
    chain = await journal.check(3)
    assert (chain.count, chain.faults, chain.head) == (3, [], journal.head)
    await journal.close()


def test_an_older_journal_is_sealed_as_it_was_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        for script in MIGRATIONS[:SEALS_BEGIN]:
            assert isinstance(script, str)
            old.executescript(script)
        old.execute(f"PRAGMA user_version = {SEALS_BEGIN}")
        for number in range(1, 4):
            old.execute("INSERT INTO entries VALUES (?, 1.5, 'told', 3, NULL, 'off é', '{\"a\": [1]}')", (number,))
    assert checked(path) == []
    write(path, range(2))
    assert checked(path) == []
    change(path, "UPDATE entries SET text = 'on' WHERE id = 2")
    assert "entry 2 does not fit" in checked(path)[0]


def test_a_crash_while_it_is_sealed_leaves_the_older_version_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, range(3))

    def die(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE entries SET text = 'half'")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Journal.open(path, migrations=(*MIGRATIONS, die))
    assert checked(path) == []


def test_a_damaged_trail_does_not_stop_the_controller(path: Path) -> None:
    """It is evidence, not what decisions stand on: hosts are still cared for."""
    change(path, "UPDATE entries SET data = 'x', seal = x'' WHERE id > 2", "DELETE FROM entries WHERE id = 5")
    assert write(path, range(1)).id == COUNT + 1
    assert len(checked(path)) > 1


def test_many_faults_are_counted_and_not_kept() -> None:
    chain = Chain()
    for number in range(300):
        chain.take({"id": number + 1, "seal": ""})
    assert (len(chain.faults), chain.faults_more) == (sealing.FAULTS_MAX, 200)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2)))
def test_nothing_that_stands_in_an_entry_is_too_strange_to_be_checked(value: object) -> None:
    for column in ("id", "at", "data", "seal", "text"):
        chain = Chain()
        good = {
            "id": 1,
            "at": 1.0,
            "kind": "told",
            "host": None,
            "incident": None,
            "text": "",
            "data": {},
            "seal": "00",
        }
        chain.take({**good, column: value})
        assert chain.faults


@pytest.mark.parametrize(
    "text", ["", "7", "7:abc", "7:" + "g" * 12, "0:" + "a" * 12, "-1:" + "a" * 12, "7:" + "a" * 65]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no head"):
        Head.parse(text)


def test_a_head_is_read_as_it_is_written() -> None:
    head = Head(id=7, seal="0123456789abcdef" * 4)
    assert Head.parse(f" {head} ") == head
    assert Head.parse(str(head.short)) == head.short == Head(id=7, seal="0123456789ab")
    assert f"{int(float(head.number)):012x}" == "0123456789ab", "a metric is a float"


def test_the_seal_is_what_the_page_says() -> None:
    """Others can compute it, too: docs/audit.md."""
    import hashlib

    text = '["%s",1,1.5,"told",3,null,"off \\u00e9","{\\"a\\": 1}"]' % ("0" * 64)
    data = sealing.details({"a": 1})
    assert (
        sealing.seal(sealing.FIRST, 1, 1.5, "told", 3, None, "off é", data).hex()
        == hashlib.sha256(text.encode()).hexdigest()
    )
