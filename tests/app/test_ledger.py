"""Records of earlier versions are read as they were meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ha_controller import __version__
from ha_controller.adapters.journal import Journal
from ha_controller.adapters.journal_schema import NewerJournal
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
