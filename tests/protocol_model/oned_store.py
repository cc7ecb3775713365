"""The record in OpenNebula (docs/decisions/0019) as guarded steps: two controllers, a zone of oneds, one incident.

What stands there is what a majority of the zone has: the claim with its login token, the proof of the lead, `HA_RECORD`
with the digest of the incident that counts, and the two names on the host under which an incident may stand. An
incident is a number here, higher for each decision. Whoever leads decides, writes, has it seen, and sends the order.

`Rules` are the right ones; each variant switches one off. What is left out stands in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protocol_model.checker import Step

DECISIONS = 3  #: in all: each is one change of the incident
TERMS = 3
EDITED = -1  #: an incident as no controller wrote it


class Word(NamedTuple):
    """`HA_RECORD`: who wrote it, and which incident counts."""

    term: int
    name: int  #: which of the two on the host
    digest: int  #: the incident whose digest stands there


FIRST = Word(term=1, name=0, digest=0)


class Store(NamedTuple):
    """What a majority of the zone has, or what one oned has that is cut off from it."""

    claim: int = 1  #: the term whose login token is valid
    proof: int = 1  #: the term that proved a lead last
    word: Word = FIRST
    names: tuple[int, int] = (0, 0)  #: the incident under each

    @property
    def incident(self) -> int | None:
        """The one that counts; None if it does not go with its digest."""
        there = self.names[self.word.name]
        return there if there == self.word.digest else None

    def with_incident(self, name: int, incident: int) -> Store:
        """The same with an incident under a name."""
        return self._replace(names=(incident, self.names[1]) if name == 0 else (self.names[0], incident))


class Write(NamedTuple):
    """On its way: an incident (`word` is None), or what makes it count."""

    term: int
    name: int
    incident: int
    word: bool
    base: Word  #: what its sender had read or written last


class Controller(NamedTuple):
    """What one of them has in mind; on its disk is `decided` alone."""

    term: int = 0  #: in which it leads; 0: it does not
    proven: bool = False  #: its first proof is written, and with it the record taken over
    is_read: bool = False
    known: Word | None = None  #: as it was read, or written by us last
    decided: int = 0  #: the incident as we decided last
    shared: int = 0  #: as we last saw it on record
    asks: bool = False  #: a person decides: the record had not all
    block: bool = False  #: how far a write is
    word: bool = False


class Faults(NamedTuple):
    """How often each may still happen."""

    killed: int = 0  #: a controller, and it starts again
    cut_off: int = 0  #: the oned that leads, with the controller beside it; both believe to lead
    moved: int = 0  #: the lead of the zone, to the oned beside the other controller
    unanswered: int = 0  #: a write is carried out at any time after, or never
    lost: int = 0  #: a write is acknowledged, and stored nowhere
    edited: int = 0  #: the incident on the host, by somebody
    old_version: int = 0  #: a version that writes no record leads, and orders
    put_back: int = 0  #: `HA_RECORD` as it was at first, by somebody


class World(NamedTuple):
    """All of it."""

    faults: Faults
    store: Store = Store()  #: what a majority has
    fork: Store | None = None  #: of the oned that is cut off
    beside: int = 1  #: the controller beside the oned that leads the majority
    late: tuple[Write, ...] = ()
    last: int = 0  #: the newest incident of anybody
    ordered: int = 0  #: the newest whose order has left
    is_odd: bool = False  #: somebody edited it, the database lost something, or a version without a record led
    first: Controller = Controller(term=1, proven=True, is_read=True, known=FIRST)
    second: Controller = Controller()

    def controller(self, who: int) -> Controller:
        """Number 1 or 2."""
        return self.first if who == 1 else self.second

    def having(self, who: int, controller: Controller, **changes: object) -> World:
        """The same world after a step of one controller."""
        return self._replace(**{"first" if who == 1 else "second": controller, **changes})  # type: ignore[arg-type]

    def seen_by(self, who: int) -> Store | None:
        """What the oned beside a controller has, if it says that it leads."""
        return self.store if who == self.beside else self.fork

    def storing(self, who: int, store: Store) -> World:
        """The same after a write into the oned beside a controller."""
        return self._replace(store=store) if who == self.beside else self._replace(fork=store)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All true: the record as it is. One of them false: a naive variant of it."""

    has_two_names: bool = True
    incident_comes_first: bool = True
    majority_is_asked: bool = True
    hosts_are_seen_too: bool = True
    digest_is_compared: bool = True
    unanswered_is_the_last: bool = True
    tokens_are_revoked: bool = True
    proof_takes_over: bool = True
    prover_is_compared: bool = True


Steps = Iterator[Step[World]]


class Record:
    """The steps from a world, by the given rules."""

    def __init__(self, rules: Rules) -> None:
        """Nothing is kept but the rules."""
        self.rules = rules

    def steps(self, world: World) -> Steps:
        """Everything that may happen next."""
        yield from self.world_goes_on(world)
        for index, write in enumerate(world.late):
            yield from self.arrives(world._replace(late=world.late[:index] + world.late[index + 1 :]), write)
        for who in (1, 2):
            yield from self.leads(world, who)
            yield from self.writes(world, who)
            yield from self.has_it_seen(world, who)

    # --- the world ---

    def world_goes_on(self, world: World) -> Steps:
        """Faults, people, and Raft by itself."""
        left = world.faults
        if left.cut_off and world.fork is None:
            spent, other = left._replace(cut_off=left.cut_off - 1), 3 - world.beside
            told = f"the oned beside C{world.beside} is cut off and says that it leads, the one beside C{other} does"
            yield told, world._replace(fork=world.store, beside=other, faults=spent), ""
        if world.fork is not None:
            yield "the oned that was cut off is back", self._joined(world), ""
        if left.moved and world.fork is None:
            spent, other = left._replace(moved=left.moved - 1), 3 - world.beside
            yield f"the oned beside C{other} leads the zone", world._replace(beside=other, faults=spent), ""
        if left.edited:
            spent = left._replace(edited=left.edited - 1)
            after = world.store.with_incident(world.store.word.name, EDITED)
            yield "somebody edits the host", world._replace(store=after, is_odd=True, faults=spent), ""
        if left.put_back and world.store.word != FIRST:
            spent, after = left._replace(put_back=left.put_back - 1), world.store._replace(word=FIRST)
            yield "somebody puts HA_RECORD back as it was", world._replace(store=after, is_odd=True, faults=spent), ""

    def _joined(self, world: World) -> World:
        """What only it had is gone; its controller sees that it does not lead."""
        who = 3 - world.beside
        return world.having(who, self._given_up(world.controller(who)), fork=None)

    def _given_up(self, controller: Controller) -> Controller:
        return Controller(decided=controller.decided, shared=controller.shared)

    def arrives(self, world: World, write: Write) -> Steps:
        """A late write, at the oned that leads: it takes it in if the token is valid still."""
        if write.term != world.store.claim and self.rules.tokens_are_revoked:
            yield f"a late write of term {write.term} is refused: its token is revoked", world, ""
            return
        after, broken = self._stored(world.store, write)
        yield f"a late write of term {write.term} is carried out", world._replace(store=after), broken

    def _stored(self, store: Store, write: Write) -> tuple[Store, str]:
        """What stands there after a write, and what that breaks."""
        if not write.word:
            return store.with_incident(write.name, write.incident), ""
        word = Word(term=write.term, name=write.name, digest=write.incident)
        is_read = store.word in (write.base, word)  # or written already, by the same hand
        return store._replace(word=word), "" if is_read else "D2"

    # --- the lead ---

    def leads(self, world: World, who: int) -> Steps:
        """Claim, first proof, reading; and how it ends."""
        mine, me, left = world.controller(who), f"C{who}", world.faults
        store = world.store
        if not mine.term and world.beside == who and store.claim < TERMS:
            claimed = store._replace(claim=store.claim + 1)
            after = self._given_up(mine)._replace(term=claimed.claim)
            told = f"{me} claims the lead, term {claimed.claim}, and revokes all tokens (OpenNebulaArbiter._claim)"
            yield told, world.having(who, after, store=claimed), ""
        if mine.term and not mine.proven and world.beside == who and mine.term == store.claim:
            yield from self.begins(world, who)
        if mine.proven and not mine.is_read and world.beside == who and mine.term == store.claim:
            yield from self.reads(world, who)
        if left.killed and mine.term:
            spent = left._replace(killed=left.killed - 1)
            yield f"{me} is killed and starts again", world.having(who, self._given_up(mine), faults=spent), ""
        seen = world.seen_by(who)
        if mine.term and (seen is None or mine.term != seen.claim):
            yield (
                f"{me} sees that it does not lead (OpenNebulaArbiter.prove)",
                world.having(who, self._given_up(mine)),
                "",
            )

    def _has_all(self, store: Store) -> bool:
        """Whether who wrote the record last is who proved a lead last."""
        return store.word.term == store.proof or not self.rules.prover_is_compared

    def begins(self, world: World, who: int) -> Steps:
        """The first proof of a lead, and the record with it, in one write."""
        mine, me, left, store = world.controller(who), f"C{who}", world.faults, world.store
        whole = self._has_all(store)
        word = store.word._replace(term=mine.term) if whole and self.rules.proof_takes_over else store.word
        after = store._replace(proof=mine.term, word=word)
        known = mine._replace(proven=True, known=word, asks=not whole)
        told = f"{me} proves its lead, and takes the record over (OpenNebulaArbiter._begin_record)"
        yield told, world.having(who, known, store=after), ""
        if left.old_version and world.last < DECISIONS:
            spent, newest = left._replace(old_version=left.old_version - 1), world.last + 1
            told = f"{me} is of a version that knows no record: it proves its lead, orders, and is stopped"
            old = store._replace(proof=mine.term)
            done = self._given_up(mine)._replace(decided=newest)
            changes: dict[str, object] = {"last": newest, "ordered": newest, "is_odd": True}
            yield told, world.having(who, done, store=old, faults=spent, **changes), ""

    def reads(self, world: World, who: int) -> Steps:
        """What counts is gone on from; if it is not all, a person decides."""
        mine, me, store = world.controller(who), f"C{who}", world.store
        if store.word != mine.known:
            told = f"{me}: somebody else has written HA_RECORD, the lead is given up (OnedRecord.read)"
            yield told, world.having(who, self._given_up(mine)), ""
            return
        incident = store.incident if self.rules.digest_is_compared else store.names[store.word.name]
        asks = mine.asks or incident is None
        if asks:
            known = mine._replace(is_read=True, asks=True)
            told = f"{me} reads the record: it has not all, a person is asked (SharedLedger.take_over)"
            yield told, world.having(who, known), "" if world.is_odd else "R2"
            return
        assert incident is not None
        known = mine._replace(is_read=True, decided=incident, shared=incident)
        broken = "R1" if incident < world.ordered else ""
        yield f"{me} reads the record, and goes on (SharedLedger.take_over)", world.having(who, known), broken

    # --- a write ---

    def writes(self, world: World, who: int) -> Steps:
        """A decision, the incident under the name that does not count, and what makes it count."""
        mine, me, store = world.controller(who), f"C{who}", world.seen_by(who)
        if not mine.is_read or mine.asks or mine.known is None or store is None:
            return
        if mine.decided == mine.shared and world.last < DECISIONS:
            newest = world.last + 1
            yield f"{me} decides", world.having(who, mine._replace(decided=newest), last=newest), ""
        if mine.decided == mine.shared or (mine.term != store.claim and self.rules.tokens_are_revoked):
            return
        is_first, name = self.rules.incident_comes_first, 1 - mine.known.name if self.rules.has_two_names else 0
        if not mine.block and (is_first or mine.word):
            write = Write(mine.term, name, mine.decided, word=False, base=mine.known)
            yield from self._sends(world, who, write, mine._replace(block=True))
        if not mine.word and (mine.block or not is_first):
            write = Write(mine.term, name, mine.decided, word=True, base=mine.known)
            yield from self._sends(world, who, write, mine._replace(word=True))

    def _sends(self, world: World, who: int, write: Write, done: Controller) -> Steps:
        """It is taken in, or acknowledged and lost, or it has no answer: then it may be carried out later."""
        me, left = f"C{who}", world.faults
        store, mine = world.seen_by(who), world.controller(who)
        assert store is not None
        by = "OnedRecord._commit"
        what = "what makes it count" if write.word else f"the incident on the host, name {write.name}"
        after, broken = self._stored(store, write)
        is_real = who == world.beside
        yield f"{me} writes {what} ({by})", world.storing(who, after).having(who, done), broken if is_real else ""
        if left.lost and is_real:
            spent = left._replace(lost=left.lost - 1)
            told = f"{me} writes {what}: acknowledged, and lost ({by})"
            yield told, world.having(who, done, is_odd=True, faults=spent), ""
        if left.unanswered and is_real:
            spent = left._replace(unanswered=left.unanswered - 1)
            ends = self._given_up(mine) if self.rules.unanswered_is_the_last else mine
            told = f"{me} writes {what}: no answer ({by})"
            yield told, world.having(who, ends, late=tuple(sorted((*world.late, write))), faults=spent), ""

    def has_it_seen(self, world: World, who: int) -> Steps:
        """A majority shows it, contents and all; then the order leaves."""
        mine, me = world.controller(who), f"C{who}"
        if not (mine.block and mine.word) or mine.known is None:
            return
        name = 1 - mine.known.name if self.rules.has_two_names else 0
        word = Word(term=mine.term, name=name, digest=mine.decided)
        has_majority = who == world.beside
        asked = world.seen_by(who) if has_majority or not self.rules.majority_is_asked else None
        shows = asked is not None and (asked.word, asked.claim) == (word, mine.term)
        if not shows or (self.rules.hosts_are_seen_too and asked is not None and asked.incident != mine.decided):
            told = f"{me}: no majority shows it, the lead is given up (SharedLedger.commit)"
            yield told, world.having(who, self._given_up(mine)), ""
            return
        is_on_record = (world.store.incident or 0) >= mine.decided
        done = mine._replace(shared=mine.decided, known=word, block=False, word=False)
        told = f"{me}: a majority shows it, the order leaves (Zone.confirm)"
        ordered = max(world.ordered, mine.decided)
        yield told, world.having(who, done, ordered=ordered), "" if is_on_record else "D1"


def goes_on(world: World) -> bool:
    """Somebody leads and has nothing left to write, or a person was asked, or the model has no term left to take."""
    leader = world.controller(world.beside)
    leads = leader.term == world.store.claim
    is_done = leader.is_read and (leader.asks or leader.decided == leader.shared)
    return is_done if leads else world.store.claim == TERMS
