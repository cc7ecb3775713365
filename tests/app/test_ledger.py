"""Records of earlier versions are read as they were meant."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from ha_controller import __version__, threads
from ha_controller.adapters.journal import Journal
from ha_controller.adapters.journal_schema import NewerJournal
from ha_controller.app import ledger as ledgers
from ha_controller.app.ledger import Ledger
from ha_controller.core.incident import Attempt, AttemptOutcome, CloudRecord, Incident
from ha_controller.core.model import HostState
from ha_controller.engine import Commit

ATTEMPT = Attempt(
    number=1,
    level=0,
    devices=("ceph", "bmc"),
    fingerprints=("c1", "b1"),
    outcome=AttemptOutcome.ORDERED,
    ordered_at=1.0,
)
INCIDENT = Incident(
    id=7, host=3, host_name="kvm-03", opened_at=1.0, state=HostState.FAILED, verdict="dead", attempts=(ATTEMPT,)
)


async def test_orders_in_force_that_were_written_by_their_names_alone_get_their_fingerprints(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal.db")
    try:
        ledger = Ledger(journal)
        await ledger.commit(Commit(incidents=[INCIDENT], cloud=CloudRecord()))
        record = json.loads((await journal.records())["incident/7"])
        record["in_force"] = ["ceph"]
        await journal.commit({"incident/7": json.dumps(record)}, [])
        ((incident,), _, _) = await ledger.load()
        assert incident.in_force == (("ceph", "c1"),)
        assert incident.attempts == INCIDENT.attempts
    finally:
        await journal.close()


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("incident/7", lambda record: record.update(keep_hands_off=True)),
        ("incident/7", lambda record: record["attempts"][0].update(lasts_until=5.0)),
        ("incident/7", lambda record: record.update(state="quarantined")),
        ("cloud", lambda record: record.update(paused_hosts=[3])),
    ],
    ids=["a field", "a field inside", "a state", "the cloud"],
)
async def test_what_a_newer_version_wrote_is_refused_with_its_name(tmp_path: Path, key: str, change: Any):
    """To drop it would be to forget what holds an order back."""
    journal = Journal.open(tmp_path / "journal.db")
    try:
        await Ledger(journal).commit(Commit(incidents=[INCIDENT], cloud=CloudRecord()))
        record = json.loads((await journal.records())[key])
        change(record)
        await journal.commit({key: json.dumps(record), "written_by": "9.9.9"}, [])
        with pytest.raises(NewerJournal, match=r"9\.9\.9 wrote it\. Install that version again"):
            await Ledger(journal).load()
    finally:
        await journal.close()


async def test_the_version_that_wrote_last_is_on_record(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal.db")
    try:
        await journal.commit({"written_by": "0.0.1"}, [])
        ledger = Ledger(journal)
        await ledger.load()
        await ledger.commit(Commit(incidents=[INCIDENT]))
        assert (await journal.records())["written_by"] == __version__
    finally:
        await journal.close()


def number_of(incident: Incident) -> int:
    return incident.id


async def test_the_newest_incidents_and_a_single_one_are_read_without_the_others(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal.db")
    try:
        ledger = Ledger(journal)
        await ledger.commit(Commit(incidents=[replace(INCIDENT, id=number) for number in (9, 100, 10, 99)]))
        await journal.commit({"incident/8": "no JSON", "incidents": "neither", "incident/100/vms/0001": "nor this"}, [])
        assert await ledger.shown(number_of, newest=4) == [100, 99, 10, 9]
        assert await ledger.shown(number_of, newest=2) == [100, 99]
        assert await ledger.shown_of(99, lambda incident: incident) == replace(INCIDENT, id=99)
        assert await ledger.shown_of(11, number_of) is None
        with pytest.raises(NewerJournal, match="Install that version again"):
            await ledger.shown(number_of)
    finally:
        await journal.close()


async def test_years_of_incidents_are_read_beside_the_event_loop(tmp_path: Path):
    """It decides about hosts meanwhile."""
    journal, done_beside = Journal.open(tmp_path / "journal.db"), list[Any]()

    async def beside(work: Any, *given: Any, **_: Any) -> Any:
        found = await anyio.to_thread.run_sync(work, *given)
        done_beside.append(found)
        return found

    try:
        ledger = Ledger(journal)
        await ledger.commit(Commit(incidents=[INCIDENT], cloud=CloudRecord()))
        with threads.done_by(beside):
            assert await ledger.shown(number_of) == [7]
            assert await ledger.shown_of(7, number_of) == 7
            assert (await ledger.load())[0] == [INCIDENT]
        assert (done_beside.count([7]), done_beside.count([INCIDENT])) == (2, 1)
    finally:
        await journal.close()


async def test_a_read_that_takes_too_long_keeps_nobody_who_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledgers, "incidents_of", lambda _: time.sleep(1.0))
    journal = Journal.open(tmp_path / "journal.db")
    try:
        began_at = time.monotonic()
        with anyio.move_on_after(0.1) as scope:
            await Ledger(journal).load()
        assert scope.cancelled_caught
        assert time.monotonic() - began_at < 0.9
    finally:
        await journal.close()
