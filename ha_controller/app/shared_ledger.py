"""The record that controllers share: what is open, in the engine of the lead, for whoever leads next.

Our own journal comes first: it is the copy, with the trail and all that is over. Then what has changed of what is open
goes to the engine, in the term in which it was decided. Without the engine's word for that no order leaves, and the
lead is given up: the next leader, which may be this one, begins with what the engine holds.

It must never take for read what could not be read, never say that something is shared when that is not known, and
never keep the decision loop longer than `WRITE_TIMEOUT_S`. No secret is in the record: the core knows none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import structlog

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.journal import JournalError
from ha_controller.app import ledger as texts
from ha_controller.app.ledger import Ledger
from ha_controller.core.events import RecordTakenOver
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import HostTrust
from ha_controller.engine import Commit, JournalPort, NotShared
from ha_controller.lead import SharedRecord, incident_of
from ha_controller.plugin import ArbiterUnreachable, NotLeading

log = structlog.get_logger(__name__)

WRITE_TIMEOUT_S = 5.0

Texts = dict[str, str]
Changes = dict[str, str | None]


@dataclass(kw_only=True, slots=True)
class _Taken:
    """A term, and what the engine holds in it."""

    term: int
    known: Texts  #: as it was read, and written since
    whole: bool  #: False: all has to be written once
    left_over: tuple[str, ...] = field(default=())  #: keys that belong to nothing
    unread: set[int] = field(default_factory=set)
    """Incidents of which somebody has to see what is left on the record, before we write there."""
    incidents: dict[int, Incident] = field(default_factory=dict)  #: by number: decided since, and not yet shared
    cloud: CloudRecord | None = None
    trusts: dict[int, HostTrust] = field(default_factory=dict)  #: by host

    def note(self, commit: Commit) -> None:
        """Keep what has to be shared, also what was decided while the lead was in doubt: it may go on."""
        self.incidents |= {incident.id: incident for incident in commit.incidents}
        self.trusts |= {trust.host: trust for trust in commit.trusts}
        self.cloud = commit.cloud or self.cloud
        if commit.term == self.term:  # a person released the copy that we go on with; what ended without that stays
            self.unread -= {each.id for each in self.incidents.values() if each.open and not each.foreign}

    def wrote(self, changes: Changes) -> None:
        """The engine has all of it now."""
        self.whole, self.left_over = True, ()
        self.incidents = {number: each for number, each in self.incidents.items() if number in self.unread}
        self.cloud, self.trusts = None, {}
        for key, text in changes.items():
            if text is None:
                self.known.pop(key, None)
            else:
                self.known[key] = text


class SharedLedger:
    """The engine's journal, and the hand that a new leader takes up the record with."""

    def __init__(
        self,
        ledger: Ledger,
        journal: JournalPort,
        *,
        record: SharedRecord,
        leadership: Leadership,
        post: Callable[[RecordTakenOver], None],
    ) -> None:
        """The ledger was loaded; what is committed goes through `journal` into it."""
        self._ledger = ledger
        self._journal = journal
        self._record = record
        self._leadership = leadership
        self._post = post
        self._taken: _Taken | None = None

    async def take_over(self, term: int) -> str:
        """Read what the leader before has left, and hand it to the core before it hears that we lead.

        Returns who may have done what is on no record that we have; empty: nobody. Then what was open waits for a
        person, with the newer of both records.

        Raises:
            ArbiterUnreachable: it cannot be read now. NotLeading: the term is over, or it is not of this version.
        """
        found = await self._record.read(term)
        known = dict(found.texts)
        try:
            shared = texts.of_shared(known)
        except JournalError as error:
            raise NotLeading(str(error)) from error
        meanwhile = self._leadership.arbiter.led_meanwhile()
        self._taken = taken = _Taken(term=term, known=known, whole=found.whole)
        if meanwhile:
            taken.unread = set(shared.unread)
        else:  # our own journal knows what of it is open
            taken.left_over = tuple(key for keys in shared.unread.values() for key in keys)
        left_vms = {number: texts.vms_in(known, keys) for number, keys in shared.unread.items()}
        unread: dict[int, int | None] = {**dict.fromkeys(shared.unread), **found.unread}
        if found.whole or (meanwhile and found.term > self._ledger.term):
            self._post(
                RecordTakenOver(
                    term=term,
                    led_meanwhile=meanwhile,
                    incidents=shared.incidents,
                    cloud=shared.cloud,
                    trusts=shared.trusts,
                    unread=tuple(sorted(unread.items(), key=lambda each: each[0])),
                    unread_vms=tuple((number, vms) for number, vms in sorted(left_vms.items()) if vms is not None),
                )
            )
        removed = [f"incident {number} was removed, its VMs were not" for number in sorted(shared.unread)]
        damage = "; ".join(filter(None, (found.damage, *removed)))
        if damage:
            log.warning("the shared record is not as it was written", term=term, what=damage)
        if not meanwhile or found.whole:  # what is left of an incident that is not there is told by the core
            return ""
        return f"{meanwhile} (its record is damaged: {damage})" if damage else meanwhile

    async def commit(self, commit: Commit) -> None:
        """Make all of it durable here, and what a leader decided also where the next one reads it.

        Raises:
            JournalError: it is not durable here.
            NotShared: it is not known to be on the shared record; the lead was given up.
        """
        await self._journal.commit(commit)
        if self._taken is not None:
            self._taken.note(commit)
        term = commit.term
        if term is None:
            return
        try:
            with anyio.fail_after(WRITE_TIMEOUT_S):
                await self._share(term)
        except (NotLeading, ArbiterUnreachable, TimeoutError) as error:
            why = str(error) or f"the engine of the lead did not answer within {WRITE_TIMEOUT_S:g} s"
            why = f"what was decided could not be put on the shared record: {why}"
            if self._taken is not None and self._taken.term == term:
                self._taken = None  # what comes after a gap does not belong there
            self._leadership.give_up(term, why)
            raise NotShared(why) from error

    async def _share(self, term: int) -> None:
        taken = self._taken
        if taken is None or taken.term != term:
            raise NotLeading(f"term {term} is over")
        if taken.whole:
            incidents = [each for each in taken.incidents.values() if each.id not in taken.unread]
            changes = texts.shared_changes(incidents, taken.cloud, list(taken.trusts.values()), taken.known)
        else:
            all_incidents, cloud, trusts = await self._ledger.load()
            touched = {incident_of(key) for key in taken.known}  # of years of them most never were there
            there = [each for each in all_incidents if each.open or each.id in touched]
            incidents = [each for each in there if each.id not in taken.unread]
            every = texts.shared_changes(incidents, cloud, trusts, taken.known)
            gone = [key for key in taken.known if key not in every and incident_of(key) not in taken.unread]
            changes = {**every, **dict.fromkeys(gone)}
        if not self._record.keeps_trusts:
            changes = {key: text for key, text in changes.items() if not key.startswith("trust/")}
        changes = {**dict.fromkeys(taken.left_over), **changes}  # else what belongs to nothing would stay there
        changes = {key: text for key, text in changes.items() if not _says_the_same(key, taken.known.get(key), text)}
        await self._record.write(term, changes)
        taken.wrote(changes)


def _says_the_same(key: str, before: str | None, after: str | None) -> bool:
    """Whether a write would tell the next leader nothing.

    Figures in what an incident waits for ("for 7 s", "3 of 8 hosts silent") change every second, or with each host, in
    all incidents at once. They are for people who ask the one that leads; the next one looks itself.
    """
    if before is None or after is None or before == after or not texts.is_head(key):
        return before == after
    return _without_figures(before) == _without_figures(after)


def _without_figures(head: str) -> object:
    read = json.loads(head)
    incident = read["incident"]
    return {**read, "incident": {**incident, "hold": re.sub(r"\d+", "0", incident["hold"])}}


def shared_behind(
    journal: JournalPort, ledger: Ledger, leadership: Leadership, post: Callable[[RecordTakenOver], None]
) -> JournalPort:
    """The journal, and behind it the record for the next leader, where the engine of the lead keeps one."""
    if leadership.arbiter.record is None:
        return journal
    shared = SharedLedger(ledger, journal, record=leadership.arbiter.record, leadership=leadership, post=post)
    leadership.take_over = shared.take_over
    return shared
