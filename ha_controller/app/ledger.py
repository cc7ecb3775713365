"""The engine's journal: incidents and the cloud record as JSON in the durable store, and the trail beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import TypeAdapter

from ha_controller.adapters.journal import Entry, Journal, JournalError
from ha_controller.core.incident import CloudRecord, Incident, TrailEntry
from ha_controller.core.model import HostTrust

_INCIDENT = TypeAdapter(Incident)
_CLOUD = TypeAdapter(CloudRecord)
_TRUST = TypeAdapter(HostTrust)


class Ledger:
    """Writes what the core decided, and reads it back at start."""

    def __init__(self, journal: Journal) -> None:
        """The journal is open."""
        self._journal = journal
        self.term = 0  #: the highest in which anything was written; known after `load`

    async def commit(
        self,
        incidents: Sequence[Incident],
        cloud: CloudRecord | None,
        trusts: Sequence[HostTrust],
        entries: Sequence[TrailEntry],
        term: int | None = None,
    ) -> None:
        """Make all of it durable. What was decided in a term that is over is refused.

        Raises:
            JournalError: it is not durable; nothing that depends on it may leave.
        """
        if term is not None and term < self.term:
            raise JournalError(f"a decision of term {term} comes after one of term {self.term}: terms never go back")
        records: dict[str, str | None] = {
            f"incident/{incident.id}": _INCIDENT.dump_json(incident).decode() for incident in incidents
        }
        records |= {f"trust/{trust.host}": _TRUST.dump_json(trust).decode() for trust in trusts}
        if cloud is not None:
            records["cloud"] = _CLOUD.dump_json(cloud).decode()
        if term is not None and term != self.term:
            records["term"] = str(term)
        lines = [
            Entry(at=line.at, kind=line.kind, host=line.host, incident=line.incident, text=line.text, data=line.data)
            for line in entries
        ]
        await self._journal.commit(records, lines)
        self.term = self.term if term is None else term

    async def load(self) -> tuple[list[Incident], CloudRecord, list[HostTrust]]:
        """All incidents on record, the cloud record, and what is known of the hosts' identities.

        Raises:
            JournalError: it cannot be read.
            ValueError: a record is not what this version writes.
        """
        records = await self._journal.records()
        self.term = max(self.term, int(records.get("term", "0")))
        incidents = [_incident(text) for key, text in records.items() if key.startswith("incident/")]
        cloud = _CLOUD.validate_json(records["cloud"]) if "cloud" in records else CloudRecord()
        trusts = [_TRUST.validate_json(text) for key, text in records.items() if key.startswith("trust/")]
        return sorted(incidents, key=lambda incident: incident.id), cloud, trusts


def _incident(text: str) -> Incident:
    """An incident as this version or an earlier one wrote it. Raises ValueError: it is none."""
    record = json.loads(text)
    names_alone = any(isinstance(each, str) for each in record.get("in_force", ()))
    if names_alone:  # before the devices' fingerprints were written beside them
        used = {
            name: fingerprint
            for attempt in record.get("attempts", ())
            for name, fingerprint in zip(attempt["devices"], attempt.get("fingerprints", ()), strict=False)
        }
        record["in_force"] = [(name, used.get(name, "")) for name in record["in_force"]]
    return _INCIDENT.validate_python(record)
