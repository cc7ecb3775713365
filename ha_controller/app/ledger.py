"""The engine's journal: incidents and the cloud record as JSON in the durable store, and the trail beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ha_controller import __version__, threads
from ha_controller.adapters.journal import Entry, Journal, JournalError
from ha_controller.adapters.journal_schema import NewerJournal
from ha_controller.core.incident import CloudRecord, Incident, VmRecord
from ha_controller.core.model import HostTrust
from ha_controller.engine import Commit
from ha_controller.lead import incident_of
from ha_controller.sealing import Head

# A field that this version does not know is refused, not dropped: a newer version has put something there that holds an
# order back or keeps it in force. Lists, since pydantic takes a configuration for what contains dataclasses only.
_STRICT = ConfigDict(extra="forbid")
_INCIDENTS = TypeAdapter(list[Incident], config=_STRICT)
_CLOUDS = TypeAdapter(list[CloudRecord], config=_STRICT)
_TRUSTS = TypeAdapter(list[HostTrust], config=_STRICT)
_VMS = TypeAdapter(list[VmRecord])
REST_EVERY, REST_S = 16, 0.002  #: incidents that are shown; then the event loop has the interpreter
_NOT_KNOWN = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)  #: what a record of another version raises, when it is read
T = TypeVar("T")
_KEY = "incident/"  #: and its number
VMS_A_TEXT = 16  #: a VM that is moved changes one text of some kilobytes, and 500 of them fit into a transaction
_INCIDENT, _CLOUD, _TRUST = TypeAdapter(Incident), TypeAdapter(CloudRecord), TypeAdapter(HostTrust)


class Ledger:
    """Writes what the core decided, and reads it back at start."""

    def __init__(self, journal: Journal) -> None:
        """The journal is open."""
        self._journal = journal
        self._deciding, self._showing = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        self.term = 0  #: the highest in which anything was written; known after `load`
        self._written_by = ""  #: the version that wrote last

    @property
    def head(self) -> Head:
        """The last entry of the trail that is on disk."""
        return self._journal.head

    async def commit(self, commit: Commit) -> None:
        """Make all of it durable. What was decided in a term that is over is refused.

        Raises:
            JournalError: it is not durable; nothing that depends on it may leave.
        """
        term = commit.term
        if term is not None and term < self.term:
            raise JournalError(f"a decision of term {term} comes after one of term {self.term}: terms never go back")
        records: dict[str, str | None] = {
            f"{_KEY}{incident.id}": _INCIDENT.dump_json(incident).decode() for incident in commit.incidents
        }
        records |= {f"trust/{trust.host}": _TRUST.dump_json(trust).decode() for trust in commit.trusts}
        if commit.cloud is not None:
            records["cloud"] = cloud_text(commit.cloud)
        if term is not None and term != self.term:
            records["term"] = str(term)
        if self._written_by != __version__:
            records["written_by"] = __version__
        lines = [
            Entry(at=line.at, kind=line.kind, host=line.host, incident=line.incident, text=line.text, data=line.data)
            for line in commit.entries
        ]
        await self._journal.commit(records, lines)
        self.term = self.term if term is None else term
        self._written_by = __version__

    async def note(self, entry: Entry) -> None:
        """Add a line to the trail that no decision of the core is behind.

        Raises:
            JournalError: it is not durable.
        """
        await self._journal.commit({}, [entry])

    async def load(self) -> tuple[list[Incident], CloudRecord, list[HostTrust]]:
        """All incidents on record, the cloud record, and what is known of the hosts' identities.

        Raises:
            JournalError: it cannot be read; NewerJournal: another version wrote what this one does not know.
        """
        records = await self._journal.records()
        self._written_by = records.get("written_by", "")
        self.term = max(self.term, int(records.get("term", "0")))
        try:
            incidents = await threads.run_sync(incidents_of, records, abandon_on_cancel=True, limiter=self._deciding)
            cloud = cloud_of(records)
            trusts = _TRUSTS.validate_python([json.loads(text) for text in _texts(records, "trust/")])
        except _NOT_KNOWN as error:
            raise NewerJournal(self._not_known(error)) from error
        return sorted(incidents, key=lambda incident: incident.id), cloud, trusts

    async def shown(self, show: Callable[[Incident], T], *, newest: int | None = None) -> list[T]:
        """What is shown of each incident on record, the newest first; `show` runs in a thread. Raises as `load`."""
        return await self._shown(await self._journal.numbered(_KEY, newest=newest), show)

    async def shown_of(self, number: int, show: Callable[[Incident], T]) -> T | None:
        """What is shown of one of them; None: there is none. Raises as `load`."""
        text = await self._journal.record(f"{_KEY}{number}")
        return None if text is None else (await self._shown([text], show))[0]

    async def _shown(self, texts: Sequence[str], show: Callable[[Incident], T]) -> list[T]:
        """One call at a time, and apart from what decides: people may ask often, and for all that ever was."""

        def each() -> list[T]:
            found = []
            for number, text in enumerate(texts, start=1):
                found.append(show(_incident_in(text)))
                if number % REST_EVERY == 0:
                    threads.rest(REST_S)
            return found

        try:
            return await threads.run_sync(each, abandon_on_cancel=True, limiter=self._showing)
        except _NOT_KNOWN as error:
            raise NewerJournal(self._not_known(error)) from error

    def _not_known(self, error: Exception) -> str:
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, found['loc'][1:]))}: {found['msg']}" if found else repr(error)
        return (
            f"the journal {self._journal.path} holds a record that ha-controller {__version__} does not know ({what}). "
            f"{self._written_by or 'Another version'} wrote it. Install that version again, or restore a backup that "
            "this version made."
        )


def incidents_of(records: Mapping[str, str]) -> list[Incident]:
    """The incidents that are on record, of whatever version up to this one.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: another version wrote what this one does not know.
    """
    return [_incident_in(text) for text in _texts(records, _KEY)]


def _incident_in(text: str) -> Incident:
    """One at a time: a call keeps the interpreter to itself until it is over."""
    return _INCIDENTS.validate_python([_incident(text)])[0]


def cloud_of(records: Mapping[str, str]) -> CloudRecord:
    """The record of the cloud. Raises as `incidents_of`."""
    clouds = _CLOUDS.validate_python([json.loads(text) for text in _texts(records, "cloud")])
    return clouds[0] if clouds else CloudRecord()


def cloud_text(cloud: CloudRecord) -> str:
    """As it is put on record."""
    return _CLOUD.dump_json(cloud).decode()


def _texts(records: Mapping[str, str], prefix: str) -> list[str]:
    return [text for key, text in records.items() if key.startswith(prefix)]


def _incident(text: str) -> dict[str, Any]:
    """An incident as this version writes it, of what this one or an earlier one wrote."""
    record: dict[str, Any] = json.loads(text)
    names_alone = any(isinstance(each, str) for each in record.get("in_force", ()))
    if names_alone:  # before the devices' fingerprints were written beside them
        used = {
            name: fingerprint
            for attempt in record.get("attempts", ())
            for name, fingerprint in zip(attempt["devices"], attempt.get("fingerprints", ()), strict=False)
        }
        record["in_force"] = [(name, used.get(name, "")) for name in record["in_force"]]
    return record


# --- the same for other controllers -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedState:
    """What controllers share."""

    incidents: tuple[Incident, ...]  #: all that are open
    cloud: CloudRecord
    trusts: tuple[HostTrust, ...]
    unread: Mapping[int, tuple[str, ...]]
    """By the number of an incident that is not there, the keys of its VMs, which are. Somebody removed it, or it was so
    big that its writer died in the middle: before it was all there, or after it was over."""


def shared_changes(
    incidents: Sequence[Incident], cloud: CloudRecord | None, trusts: Sequence[HostTrust], known: Mapping[str, str]
) -> dict[str, str | None]:
    """What these are in the shared record, where `known` is; None deletes. What is over is in the journal alone.

    In an order of which any beginning may be read: the number of an incident before it, its VMs before itself, and
    which boots are accounted for behind what was lost with them.
    """
    changes: dict[str, str | None] = {} if cloud is None else {"cloud": cloud_text(cloud)}
    for incident in incidents:
        key, vms = f"incident/{incident.id}", incident.vms
        if not incident.open:
            changes |= dict.fromkeys([key, *(each for each in known if each.startswith(f"{key}/"))])
            continue
        for start in range(0, len(vms), VMS_A_TEXT):
            part = list(vms[start : start + VMS_A_TEXT])
            changes[f"{key}/vms/{start // VMS_A_TEXT:04}"] = _VMS.dump_json(part).decode()
        changes |= dict.fromkeys(each for each in known if each.startswith(f"{key}/") and each not in changes)
        about = _INCIDENT.dump_python(replace(incident, vms=()), mode="json")
        changes[key] = json.dumps({"vms": len(vms), "incident": about})
    changes |= {f"trust/{trust.host}": _TRUST.dump_json(trust).decode() for trust in trusts}
    return changes


def of_shared(texts: Mapping[str, str]) -> SharedState:
    """What stands in the shared record.

    Raises:
        NewerJournal: another version wrote what this one does not know. JournalError: a part of it is missing.
    """
    try:
        heads = {key: json.loads(text) for key, text in texts.items() if is_head(key)}
        incidents = [_joined(key, head, texts) for key, head in heads.items()]
        trusts = _TRUSTS.validate_python([json.loads(text) for text in _texts(texts, "trust/")])
        cloud = cloud_of(texts)
    except (ValueError, KeyError, TypeError) as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, found['loc'][1:]))}: {found['msg']}" if found else repr(error)
        raise NewerJournal(
            f"the shared record holds what ha-controller {__version__} does not know ({what}). Install the same "
            "version on all controllers"
        ) from error
    numbers = {key: incident_of(key) for key in texts if not is_head(key) and key.startswith("incident/")}
    unread = sorted({number for number in numbers.values() if number is not None and f"incident/{number}" not in heads})
    return SharedState(
        incidents=tuple(sorted(incidents, key=lambda each: each.id)),
        cloud=cloud,
        trusts=tuple(trusts),
        unread={number: tuple(key for key, each in numbers.items() if each == number) for number in unread},
    )


def vms_in(texts: Mapping[str, str], keys: Sequence[str]) -> tuple[int, ...] | None:
    """Which VMs stand in these texts of an incident that is not there; None: that cannot be read."""
    try:
        return tuple(sorted({int(vm["id"]) for key in keys for vm in json.loads(texts[key])}))
    except (ValueError, KeyError, TypeError):
        return None


def is_head(key: str) -> bool:
    """Whether a text of the shared record is that of an incident, without its VMs."""
    return key.startswith("incident/") and key.count("/") == 1


def _joined(key: str, head: dict[str, Any], texts: Mapping[str, str]) -> Incident:
    parts = sorted(each for each in texts if each.startswith(f"{key}/vms/"))
    vms = [vm for part in parts for vm in json.loads(texts[part])]
    if len(vms) != head["vms"]:
        raise JournalError(
            f"the shared record of {key} has {len(vms)} VMs of {head['vms']}: it is not complete. If every controller "
            "says so, delete the record (docs/decisions/0017, 0019): what is open then waits for a person"
        )
    (incident,) = _INCIDENTS.validate_python([{**head["incident"], "vms": vms}])
    return incident
