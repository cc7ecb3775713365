"""`backup` and `restore`: the journal of a state directory, to a file and back.

A journal that was put back knows nothing of what happened since: the cloud starts paused, until a person has looked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio
from pydantic import ValidationError

from ha_controller.adapters import journal_copy
from ha_controller.adapters.journal_copy import Summary
from ha_controller.adapters.journal_schema import JournalError
from ha_controller.app import ledger
from ha_controller.app.standing import StateDirectory
from ha_controller.core import pause

__all__ = ["JournalError", "Summary", "back_up", "open_incidents", "restore", "summary"]

JOURNAL = "journal.db"
TOKENS = "token/"  #: their records: one that was revoked since the backup must not be valid again

summary = journal_copy.summary


def back_up(state_dir: Path, target: Path) -> Summary:
    """Copy the journal, also while the controller runs.

    Raises:
        JournalError: there is no good copy; what was at the target is untouched.
    """
    source = state_dir / JOURNAL
    if not source.exists():
        raise JournalError(f"{source} is not there. Name the state directory: --state-dir DIR")
    return journal_copy.back_up(source, target)


def open_incidents(found: Summary) -> list[str]:
    """The hosts with open incidents, a line each.

    Raises:
        JournalError: another version wrote what this one does not know.
    """
    try:
        records = sorted(ledger.incidents_of(found.records), key=lambda each: each.id)
    except (ValidationError, KeyError, TypeError) as error:
        raise JournalError(f"the backup holds an incident that this version does not know: {error}") from error
    return [f"incident {each.id}: {each.host_name} {each.state.upper()}" for each in records if each.open]


def restore(state_dir: Path, backup: Path, *, now: datetime | None = None) -> Path | None:
    """Put a backup in the journal's place; returns where the journal that was there is kept.

    Raises:
        NotLeading: a controller uses the state directory.
        JournalError: the backup is none of ours, or cannot be put there.
        OSError: the state directory cannot be used.
    """
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    work = journal_copy.put_back
    return anyio.run(_locked, state_dir, lambda: work(backup, state_dir / JOURNAL, f"replaced-{moment}", _paused))


async def _locked(state_dir: Path, work: Callable[[], Path | None]) -> Path | None:
    directory = StateDirectory(state_dir, lambda: 0)
    await directory.lock()
    try:
        return work()
    finally:
        await directory.unlock()


def _paused(records: dict[str, str]) -> dict[str, str | None]:
    try:
        cloud = ledger.cloud_of(records)
    except (ValidationError, KeyError, TypeError) as error:
        raise JournalError(f"the backup holds a record that this version does not know: {error}") from error
    tokens = dict.fromkeys((key for key in records if key.startswith(TOKENS)), None)
    why = "the restore of a backup: look at incidents and hosts, then: ha-controller resume"
    # without an end: that of a pause in the backup may be long over
    return {**tokens, "cloud": ledger.cloud_text(pause.paused(cloud, why))}
