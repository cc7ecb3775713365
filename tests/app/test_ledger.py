"""Records of earlier versions are read as they were meant."""

from __future__ import annotations

import json
from pathlib import Path

from ha_controller.adapters.journal import Journal
from ha_controller.app.ledger import Ledger
from ha_controller.core.incident import Attempt, AttemptOutcome, CloudRecord, Incident
from ha_controller.core.model import HostState

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
        await ledger.commit([INCIDENT], CloudRecord(), [], [])
        record = json.loads((await journal.records())["incident/7"])
        record["in_force"] = ["ceph"]
        await journal.commit({"incident/7": json.dumps(record)}, [])
        ((incident,), _, _) = await ledger.load()
        assert incident.in_force == (("ceph", "c1"),)
        assert incident.attempts == INCIDENT.attempts
    finally:
        await journal.close()
