"""What the next leader has to know, in OpenNebula: each open incident on its host, and on our user what belongs to it.

On a host stand `HA_INCIDENT` (for people) and the incident itself, packed, under one of two names, `HA_RECORD_0` and
`HA_RECORD_1`. On our user stands `HA_RECORD`: number, term and holder of the last write, the record of the cloud, and
for each open incident its host, which of the two names counts, and the digest of what stands there. A write puts each
incident under the name that does not count, and then changes `HA_RECORD`: all of it counts at once, or nothing does.
Then a majority has to show all of it, in the same term of Raft.

Only the login token of the lead writes here, so never a late call of an older lead. What somebody has edited, removed
or put back does not go with its digest: then the record has not all, and a person decides.

It must never take a "true" or a time-out for a write, and never a part of the record for all of it. Texts come from the
app and go back to it as they are, but for the host, the state and the number of VMs, which are read from an incident's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar

import anyio

from ha_controller.adapters.arbiter.by_host import OF_NONE, by_host, hosts_of
from ha_controller.adapters.arbiter.claim import Held, Proof
from ha_controller.adapters.arbiter.oned_texts import (
    FOR_PEOPLE,
    RECORD,
    SLOTS,
    Damaged,
    Place,
    Texts,
    Written,
    by_incident_of,
    digest_of,
    in_words,
    incident_in,
    packed,
)
from ha_controller.adapters.arbiter.zone import NoSuchHost, Zone
from ha_controller.adapters.opennebula import OnedUser
from ha_controller.lead import Shared, SharedRecord, incident_of
from ha_controller.plugin import ArbiterUnreachable, NotLeading, SecretStr

BLOCK_MAX = 1 << 20  #: characters of an incident as it is packed; OpenNebula's database takes 16 MiB of a host in all
WRITTEN_MAX = 64 << 10  #: of what stands on our user, which is in OpenNebula's log again with every proof
HOSTS_AT_ONCE = 32  #: in one write, of which all counts or nothing
CLEARING_S = 0.5  #: with each renewal of the lead
_EMPTY = MappingProxyType(dict.fromkeys((FOR_PEOPLE, *SLOTS), ""))


@dataclass(kw_only=True, slots=True)
class _Open:
    """The record in one term."""

    held: Held
    before: Written  #: as the leader before has left it
    written: Written  #: as we left it last
    pending: str = ""  #: what we are about to write
    whole: bool  #: False until all was written once
    damage: str = ""
    is_certain: bool = True  #: False once a write had no end: then nothing more is written in this term
    doubted: set[int] = field(default_factory=set)  #: hosts whose emptying had no answer: the same for what is of them
    texts: Texts | None = None  #: all that is on record; None until it was read
    litter: set[int] = field(default_factory=set)  #: hosts on which something may stand that does not count any more
    unread: dict[int, int] = field(default_factory=dict)  #: incident -> its host, where it stands and is damaged


class OnedRecord(SharedRecord):
    """Kept by a majority of a zone's servers."""

    keeps_trusts: ClassVar[bool] = False  #: a first write of a thousand hosts' would take half a minute

    def __init__(self, zone: Zone, session: Callable[[], SecretStr]) -> None:
        """`session`: to read with. No I/O."""
        self._zone = zone
        self._session = session
        self._open: _Open | None = None
        self._looks: list[set[str]] = []  #: at our user, that are under way: what each may show
        self._seen = 0  #: the highest number that this process has seen, whatever OpenNebula holds by now

    # --- for the arbiter ---

    def note(self, user: OnedUser) -> None:
        """Remember how far the record went: an older one that is put in its place is known by that."""
        with suppress(Damaged, ArbiterUnreachable):
            self._seen = max(self._seen, Written.of(user).number)

    def check(self, user: OnedUser) -> None:
        """Raises ArbiterUnreachable: the record is of a newer version, so it is not ours to lead."""
        with suppress(Damaged):
            Written.of(user)

    def begin(self, held: Held, user: OnedUser, *, was_claimed: bool, own_term: int) -> dict[str, str]:
        """A lead begins; since `user` was read nobody else can write. Returns what its first proof also writes.

        The record has all if whoever wrote it last, or took it over, is the one who proved a lead last. `own_term`: the
        last in our own journal, which is not younger, unless OpenNebula's database was put back.
        """
        damage, before, proof = "", Written(), Proof.of(user)
        try:
            before = Written.of(user)
        except Damaged as error:
            damage = str(error)
        is_last = was_claimed and (before.term, before.instance) == (proof.term, proof.instance)
        whole = is_last and 0 < before.number >= self._seen and before.term >= own_term
        if before.number and is_last and not whole:
            damage = f"{RECORD} of the OpenNebula user {user.name} is older than what this controller knows"
        written = before
        if whole:
            written = replace(before, number=before.number + 1, term=held.claim.term, instance=held.claim.instance)
        self._open = _Open(held=held, before=before, written=written, whole=whole, damage=damage)
        return {RECORD: str(written)} if whole else {}

    async def clear(self) -> None:
        """Empty some hosts whose incident is over, so that people see none there. What is left counts for nothing.

        Not in the decision loop, which would wait for hundreds of them when a network is back.
        """
        ours, until = self._open, anyio.current_time() + CLEARING_S
        while ours is not None and ours is self._open and ours.litter and anyio.current_time() < until:
            if not ours.is_certain:
                return  # a write is under way, or had no answer
            host = min(ours.litter)
            if not await self._is_made_empty(ours, host):
                return
            ours.litter.discard(host)

    async def _is_made_empty(self, ours: _Open, host: int) -> bool:
        """False: nothing was sent, or it had no answer."""
        waits = False  # for an answer

        def sends() -> None:
            nonlocal waits
            waits = True

        try:
            with suppress(NoSuchHost):
                await self._zone.write_host(ours.held.claim.raft_term, _EMPTY, host, ours.held.session, sends)
            waits = False
        except NotLeading:
            waits = False
            return False
        except ArbiterUnreachable:
            return False
        finally:
            if waits:  # it may be carried out later, over what is written there next
                ours.doubted.add(host)
                ours.litter.discard(host)
        return True

    def end(self) -> None:
        """The lead is over: nothing more is written."""
        self._open = None

    @property
    def expected(self) -> frozenset[str]:
        """What may stand on the user: what we wrote, and what we are about to write; empty while we wrote nothing."""
        ours = self._open
        if ours is None or ours.written == ours.before:
            return frozenset()
        return frozenset({str(ours.written), ours.pending} - {""})

    @contextmanager
    def what_a_look_may_show(self) -> Iterator[set[str]]:
        """`expected`, and whatever we are about to write meanwhile: a look may last longer than some writes."""
        texts = set(self.expected)
        self._looks.append(texts)
        try:
            yield texts
        finally:
            self._looks = [each for each in self._looks if each is not texts]

    # --- for who leads ---

    async def read(self, term: int) -> Shared:
        """Read all from the oned beside us, which has all that was committed before our claim."""
        ours = self._in(term)
        user = await self._zone.user()
        if self.expected and user.template.get(RECORD) not in self.expected:
            raise NotLeading(f"somebody else has written {RECORD} in OpenNebula since term {term} began")
        texts, damage = dict(ours.written.texts), [ours.damage] if ours.damage else []
        places = ours.written.places
        hosts = await self._zone.host_attributes({place.host for place in places.values()})
        for number, place in places.items():
            try:
                texts |= incident_in(hosts.get(place.host), number, place)
            except Damaged as error:
                damage.append(str(error))
                ours.unread[number] = place.host
        self._zone.must_lead(await self._zone.local_status(), ours.held.claim.raft_term, ours.held.server)
        ours.texts, ours.damage = dict(texts), "; ".join(damage)
        ours.whole = ours.whole and not damage
        last = term if ours.whole else ours.before.term
        return Shared(texts=texts, whole=ours.whole, term=last, damage=ours.damage, unread=dict(ours.unread))

    async def write(self, term: int, changes: Mapping[str, str | None]) -> None:
        """Incidents first, under the names that do not count; then what makes them count; a majority shows all."""
        ours = self._in(term)
        if ours.texts is None:
            raise NotLeading(f"the record was not read in term {term}")
        if not changes and ours.whole:
            return
        ours.is_certain = False  # what fails may be carried out later, over whatever would be written next
        for part in _parts(changes, ours) if ours.whole else [changes]:
            kept = {key: text for key, text in ours.texts.items() if key not in part}
            texts = kept | {key: text for key, text in part.items() if text is not None}
            await self._write(ours, texts, part)
        ours.is_certain = True

    async def _write(self, ours: _Open, texts: Texts, changes: Mapping[str, str | None]) -> None:
        by_incident, of_none = by_incident_of(texts)
        touched = set(by_incident_of(changes)[0] if ours.whole else by_incident)
        places, blocks = self._placed(ours, by_incident, touched)
        after = Written(
            number=max(self._seen, ours.written.number) + 1,
            term=ours.held.claim.term,
            instance=ours.held.claim.instance,
            texts=of_none,
            places=places,
        )
        if len(str(after)) > WRITTEN_MAX:
            raise ArbiterUnreachable(f"the record of the cloud is longer than {WRITTEN_MAX} characters")
        listed, used = ({each.host for each in where.values()} for where in (ours.written.places, places))
        ours.litter -= used
        await self._commit(ours, after, blocks)
        ours.unread = {number: host for number, host in ours.unread.items() if host not in used}
        # not before: until then what stands there counts. What could not be read is left for people to see
        ours.litter |= listed - used - set(ours.unread.values())
        ours.texts, ours.written, ours.pending, ours.whole, ours.damage = texts, after, "", True, ""
        self._seen = max(self._seen, after.number)

    def _placed(
        self, ours: _Open, by_incident: Mapping[int, Texts], touched: set[int]
    ) -> tuple[dict[int, Place], dict[int, dict[str, str]]]:
        """Where each open incident stands from now on, and what has to be written on hosts for that."""
        used = {each.host: each.slot for each in ours.written.places.values()}
        places: dict[int, Place] = {}
        blocks: dict[int, dict[str, str]] = {}
        for number, texts in sorted(by_incident.items()):
            if (key := f"incident/{number}") not in texts:
                continue  # VMs of nothing
            if number not in touched and number in ours.written.places:
                places[number] = ours.written.places[number]
                continue
            head = json.loads(texts[key])
            host = int(head["incident"]["host"])
            slot = 1 - used.get(host, 1)
            block = packed(texts)
            if len(block) > BLOCK_MAX:
                raise ArbiterUnreachable(f"incident {number} is longer than {BLOCK_MAX} characters")
            places[number] = Place(host=host, slot=slot, digest=digest_of(block))
            blocks[host] = {SLOTS[slot]: block, FOR_PEOPLE: in_words(number, head, ours.held.claim)}
        if len({each.host for each in places.values()}) < len(places):
            raise ArbiterUnreachable("two open incidents of one host cannot be on record")
        return places, blocks

    async def _commit(self, ours: _Open, after: Written, blocks: dict[int, dict[str, str]]) -> None:
        held, raft_term, to_be_seen = ours.held, ours.held.claim.raft_term, {}
        used = {each.host for each in after.places.values()}
        for host, attributes in blocks.items():
            self._must_be_sure(ours, used)
            try:
                await self._zone.write_host(raft_term, attributes, host, held.session)
            except NoSuchHost:  # OpenNebula takes no order for it; whoever leads next leaves all to a person
                continue
            to_be_seen[host] = {name: text for name, text in attributes.items() if name in SLOTS}
        self._must_be_sure(ours, used)
        ours.pending = text = str(after)
        for texts in self._looks:
            texts.add(text)
        await self._zone.write(raft_term, {RECORD: text}, held.user, held.session)

        def shows(user: OnedUser) -> bool:
            return held.stands_on(user) and user.template.get(RECORD) == text

        await self._zone.confirm(raft_term, held.server, shows, self._session(), hosts=to_be_seen)
        self._must_be_sure(ours, used)

    def _in(self, term: int) -> _Open:
        if self._open is None or self._open.held.claim.term != term:
            raise NotLeading(f"the lead of term {term} is not held")
        if not self._open.is_certain:
            raise NotLeading(f"a write of term {term} has no answer yet: nothing more is written in it")
        return self._open

    def _must_be_sure(self, ours: _Open, used: set[int]) -> None:
        """Raises NotLeading: the lead is over, or a host may still be made empty over what stands there and counts."""
        term = ours.held.claim.term
        if ours is not self._open:
            raise NotLeading(f"the lead of term {term} is not held")
        for host in sorted(used & ours.doubted):  # the next claim voids the token of what is under way
            raise NotLeading(f"emptying host {host} in term {term} has no answer yet: nothing is written over that")


def _parts(changes: Mapping[str, str | None], ours: _Open) -> Iterator[dict[str, str | None]]:
    """Of so many hosts at a time that each surely ends within the time that there is for all: else nothing ever would.

    What belongs to one host is never torn apart: an incident may end there and another one begin. Anything else first.
    """
    touched = {incident_of(key) for key in changes}
    known = hosts_of({key: text for key, text in (ours.texts or {}).items() if incident_of(key) in touched})
    groups = by_host(changes, known)
    part = groups.pop(OF_NONE)
    for count, group in enumerate(groups.values(), start=1):
        part |= group
        if count % HOSTS_AT_ONCE == 0:
            yield part
            part = {}
    if part:
        yield part
