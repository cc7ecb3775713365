"""The lead by OpenNebula's own Raft: one controller beside each front-end, and the one beside the leader leads.

On our OpenNebula user stand the claim (`HA_LEADER`: our term, oned's term, who, a number that nobody else has) and the
last proof (`HA_PROOF`). A proof is a new number written through the oned beside us, with the login token that only the
holder of the lead has, and seen at a majority of the zone's servers together with our claim, all in the term of Raft in
which we claimed. It is made anew right before every order, and once more behind it before the order counts.
`HA_RECORD`, beside them, makes the record of what is open count (`oned_record`): who takes the lead reads it after the
claim, the first proof of a lead takes it over, and every later proof has to show it as we wrote it last.

A claim is good for one term of Raft. Whoever claims has all login tokens of the user revoked and takes a new one, so
that calls of an old leader which still wait somewhere are refused; then it waits for what was taken in before.

It must never use the password for an order: the old leader has it, too. It must never take a "true" for a commit.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar
from urllib.parse import urlsplit

import anyio
from pydantic import field_validator

from ha_controller.adapters.arbiter.claim import (
    CLAIM,
    PROOF,
    Claim,
    Held,
    Proof,
    SharedProofs,
    last_in_words,
    led_in_words,
)
from ha_controller.adapters.arbiter.oned_record import OnedRecord
from ha_controller.adapters.arbiter.oned_texts import RECORD
from ha_controller.adapters.arbiter.zone import Zone
from ha_controller.adapters.opennebula import OnedUser, RaftState
from ha_controller.plugin import (
    Arbiter,
    ArbiterConfig,
    ArbiterContext,
    ArbiterUnreachable,
    Duration,
    Member,
    NotLeading,
    SecretStr,
    duration_field,
)

ASKED = "HA_ASKED"  #: attribute of our OpenNebula user, beside claim and proof
LEAD_S = 5.0
TAKEOVER_MIN_S = 10.0  #: the lead of another one, the time in which a proven order leaves, and that of a call
RIVAL_S = LEAD_S + 3.0  #: a controller beside the same oned that proves nothing for so long is gone
NOBODY_S = 30.0  #: it is told when nobody leads for so long
TOKEN_VALID_S = 365 * 86400  #: it ends earlier, with the lead
RELEASE_TIMEOUT_S = 3.0
#: A renewal counts once it has returned, and from when it began. What it does besides (making hosts empty) begins only
#: if AMPLE_S of the lead are left by then, and ends RESERVE_S before that lead does, and so that the next renewal has
#: AMPLE_S, too.
AMPLE_S, RESERVE_S = 2.5, 0.5


class OpenNebulaConfig(ArbiterConfig):
    """Where the front-ends are, and how long a new leader waits."""

    servers: tuple[str, ...] = ()  #: of all front-ends; none: as OpenNebula itself has them
    timeout_s: Duration = duration_field("1s", key="timeout", longest="5s")  #: of one call to one front-end
    takeover_s: Duration = duration_field("20s", key="takeover", longest="10m")

    @field_validator("servers")
    @classmethod
    def _are_addresses(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            parts = urlsplit(server)
            _ = parts.port  # raises when it is none
            if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", server):
                raise ValueError('not the address of a front-end. Write it like "http://192.0.2.11:2633/RPC2"')
            if parts.username is not None:  # it would be logged
                raise ValueError("must not name a user. The one in opennebula.auth is used")
        if servers and len(set(servers)) < 3:
            raise ValueError(
                "fewer than three front-ends cannot decide by majority. Name all of the zone, or none: then "
                "OpenNebula is asked where they are"
            )
        return servers

    @field_validator("takeover_s")
    @classmethod
    def _is_long_enough(cls, takeover_s: float) -> float:
        if takeover_s < TAKEOVER_MIN_S:
            raise ValueError(
                f"too short for what the leader before may have sent last. Set it to {TAKEOVER_MIN_S:g}s at least"
            )
        return takeover_s


class OpenNebulaArbiter(Arbiter[OpenNebulaConfig]):
    """The controller beside the leader of OpenNebula's zone leads."""

    kind: ClassVar[str] = "opennebula"
    config_model: ClassVar[type[ArbiterConfig]] = OpenNebulaConfig
    hands_over: ClassVar[bool] = False
    confirms_orders: ClassVar[bool] = True
    lead_s = LEAD_S
    renew_every_s = 1.5
    zone_class: ClassVar[type[Zone]] = Zone

    def __init__(self, config: OpenNebulaConfig, context: ArbiterContext) -> None:
        """No I/O here. From now on no order leaves without a login token of ours."""
        super().__init__(config, context)
        if context.opennebula is None:
            raise ValueError("this arbiter needs our account in OpenNebula")
        self._account = context.opennebula
        self._account.orders = SecretStr("")
        self._zone = self.zone_class(self._account, config.servers, config.timeout_s)
        self.record = self._record = OnedRecord(self._zone, lambda: self._account.auth)
        self._held: Held | None = None  #: claimed; it is a lead once `acquire` has returned its term
        self._leads = False
        self._proofs = SharedProofs()
        self._renewed_at = float("-inf")  #: when what holds now was asked for
        self._seen_term = 0  #: the highest that anybody was seen to lead in
        self._attempt: tuple[Claim, str] | None = None  #: our last claim if we never led by it, and what was before it
        self._seen: tuple[str, float] = ("", 0.0)  #: claim and proof of whoever leads, since when
        self._leader: Claim | None = None

    async def close(self) -> None:
        """Close the connections."""
        with anyio.CancelScope(shield=True):
            await self._zone.close()

    # --- taking it ---

    async def acquire(self) -> int | None:
        """Claim the lead if the oned beside us leads, wait for what was sent before, and prove the claim."""
        if self._held is None:
            await self._claim_if_it_is_ours()
            return None
        held, asked_at = self._held, anyio.current_time()
        try:
            await self.prove(held.claim.term)
        except NotLeading:
            self._drop(held)
            return None
        if self._held is not held or anyio.current_time() < held.usable_at:
            return None
        self._attempt, self._seen_term = None, max(self._seen_term, held.claim.term)
        self._leads, self._account.orders, self._renewed_at = True, held.session, asked_at
        return held.claim.term

    async def _claim_if_it_is_ours(self) -> None:
        status = await self._zone.local_status()
        if status.state == RaftState.SOLO:
            raise ArbiterUnreachable(
                "this OpenNebula is alone: leader.kind opennebula needs a zone of three front-ends or more, with a "
                'controller beside each. Use leader.kind = "single" or "etcd"'
            )
        if status.state != RaftState.LEADER:
            await self._stand_by(status.state, status.term)
            return
        await self._zone.find_voters()
        await self._zone.look()
        await self._zone.has_majority(status.term)
        user = await self._zone.user()
        if self._has_rival(user, status.term):
            return
        self._record.check(user)
        with suppress(NotLeading):  # it fell meanwhile
            await self._claim(status.term, status.id, user)

    async def _stand_by(self, state: int, raft_term: int) -> None:
        """Look who leads, as far as the oned beside us knows."""
        self._note(await self._zone.user(), raft_term)
        if state == RaftState.CANDIDATE:
            raise ArbiterUnreachable("OpenNebula has no leader: the oned beside us asks for votes")
        quiet_s = anyio.current_time() - self._seen[1]
        if quiet_s > NOBODY_S:
            raise ArbiterUnreachable(
                f"no controller proves that it leads for {quiet_s:.0f} s. The one beside the front-end that leads "
                "OpenNebula should: look at it"
            )

    def _has_rival(self, user: OnedUser, raft_term: int) -> bool:
        """Whether another controller uses the same oned, and leads by it."""
        claim = self._note(user, raft_term)
        is_other = claim is not None and claim.raft_term == raft_term and claim.instance != self.context.instance
        return is_other and anyio.current_time() - self._seen[1] < RIVAL_S

    def _note(self, user: OnedUser, raft_term: int) -> Claim | None:
        """Take in what stands on our user: who claimed, and whether it goes on to prove that."""
        self._record.note(user)
        claim = Claim.of(user)
        shown = f"{claim} {user.template.get(PROOF, '')}"
        if shown != self._seen[0]:
            self._seen = (shown, anyio.current_time())
        if claim is not None and not self._is_attempt(claim):
            self._seen_term = max(self._seen_term, claim.term)
        proof = Proof.of(user)
        if proof.instance != self.context.instance:
            self._seen_term = max(self._seen_term, proof.term)
        is_alive = anyio.current_time() - self._seen[1] < RIVAL_S
        self._leader = claim if claim is not None and claim.raft_term == raft_term and is_alive else None
        return claim

    async def _claim(self, raft_term: int, server: int, user: OnedUser) -> None:
        """Write that we lead, and void the logins of all who led before."""
        if user.has_token(self._account.auth):
            raise ArbiterUnreachable(
                "opennebula.auth is a login token: a new leader revokes all of them. Give it user and password"
            )
        auth = self._account.auth
        asked = f"{self.context.instance} {uuid.uuid4().hex}"
        await self._zone.write(raft_term, {ASKED: asked}, user.id, auth)
        await self._zone.confirm(raft_term, server, lambda seen: seen.template.get(ASKED) == asked, auth)
        user = await self._zone.user()  # by now it has all that was committed before
        if self._has_rival(user, raft_term):
            return
        meanwhile, proof = self._meanwhile(user), user.template.get(PROOF)
        claim = self._next_claim(raft_term, Proof.of(user))
        self._attempt = (claim, meanwhile)
        await self._zone.write(raft_term, {CLAIM: str(claim)}, user.id, auth)
        await self._zone.login(raft_term, user.name, "", 0, auth)
        token = await self._zone.login(raft_term, user.name, "", TOKEN_VALID_S, auth)
        held = Held(
            claim=claim,
            server=server,
            user=user.id,
            user_name=user.name,
            token=SecretStr(token),
            usable_at=float("inf"),
            meanwhile=meanwhile,
        )

        def shows(seen: OnedUser) -> bool:  # and that nobody led between our look and our claim
            is_alone = seen.login_tokens == (token,) and seen.template.get(PROOF) == proof
            return is_alone and held.stands_on(seen)

        await self._zone.confirm(raft_term, server, shows, held.session)
        await self._begin_record(held, was_claimed=Claim.of(user) is not None)
        # from here: a "true" had not revoked anything yet
        self._held = replace(held, usable_at=anyio.current_time() + (self.config.takeover_s if meanwhile else 0.0))

    async def _begin_record(self, held: Held, *, was_claimed: bool) -> None:
        """Take over the record with our first proof, in one write: nobody else can write any more, nor prove."""
        claim = held.claim
        user, own_term = await self._zone.user(), self.context.last_term()
        record = self._record.begin(held, user, was_claimed=was_claimed, own_term=own_term)
        proof = str(Proof(term=claim.term, instance=claim.instance, nonce=uuid.uuid4().hex))
        await self._zone.write(claim.raft_term, {PROOF: proof, **record}, held.user, held.session)

    def _next_claim(self, raft_term: int, proof: Proof) -> Claim:
        """A term that nobody had, nor asked for as far as we know."""
        tried = self._attempt[0].term if self._attempt else 0
        return Claim(
            term=max(self._seen_term, proof.term, self.context.last_term(), tried) + 1,
            raft_term=raft_term,
            instance=self.context.instance,
            nonce=uuid.uuid4().hex,
            name=re.sub(r"[^\w .:@-]", "?", self.context.name),
        )

    def _is_attempt(self, claim: Claim) -> bool:
        return self._attempt is not None and claim == self._attempt[0]

    def _meanwhile(self, user: OnedUser) -> str:
        """Who led since our own record ends; empty if nobody."""
        last, is_proven_by_us = Claim.of(user), Proof.of(user).instance == self.context.instance
        if self._attempt is not None and last is not None and self._is_attempt(last):
            before = self._attempt[1]  # what came between may have been overwritten, if our claim was late
            return before if before or is_proven_by_us else led_in_words(None, self._seen_term)
        own_term = self.context.last_term()
        is_ours = last is not None and (last.instance, last.term) == (self.context.instance, own_term)
        if is_ours and is_proven_by_us and self._seen_term <= own_term:
            return ""
        return led_in_words(last, self._seen_term)

    # --- keeping it ---

    async def renew(self, term: int) -> None:
        """Look who votes, and prove it; then hosts whose incident is over are made empty, if there is time for that."""
        asked_at = anyio.current_time()
        self._held_in(term)
        await self._zone.find_voters()
        await self._zone.look()
        await self.prove(term)
        left_s = self._renewed_at + LEAD_S - anyio.current_time()  # this renewal counts when we return
        self._renewed_at = asked_at
        for_next_s = asked_at + LEAD_S - AMPLE_S - anyio.current_time()
        if left_s > AMPLE_S:
            with anyio.move_on_after(min(left_s - RESERVE_S, for_next_s)):
                await self._record.clear()

    async def prove(self, term: int) -> None:
        """Write a number that was never used, and see it at a majority with our claim, in the same term of Raft."""
        held = self._held_in(term)
        try:
            await self._proofs.prove(lambda: self._prove(held))
        except NotLeading:
            self._drop(held)
            raise
        self._held_in(term)

    async def _prove(self, held: Held) -> None:
        raft_term = held.claim.raft_term
        self._zone.must_lead(await self._zone.local_status(), raft_term, held.server)
        proof = str(Proof(term=held.claim.term, instance=self.context.instance, nonce=uuid.uuid4().hex))
        await self._zone.write(raft_term, {PROOF: proof}, held.user, held.session)
        with self._record.what_a_look_may_show() as texts:
            has_ours = bool(texts)  # nothing of ours: the first write may be under way
            now = await self._zone.user()
        if not held.stands_on(now):
            self._zone.must_lead(await self._zone.local_status(), raft_term, held.server)
            self._note(now, raft_term)
            raise NotLeading(
                f"our claim of term {held.claim.term} does not stand any more: {last_in_words(Claim.of(now))}"
            )

        if has_ours and now.template.get(RECORD) not in texts:
            raise NotLeading(f"{RECORD} of our OpenNebula user is not what we wrote: somebody has changed it")

        def shows(seen: OnedUser) -> bool:
            return held.stands_on(seen) and seen.template.get(PROOF) == proof

        await self._zone.confirm(raft_term, held.server, shows, self._account.auth)

    async def release(self, term: int) -> None:
        """Revoke our token, as far as that can be done; the claim ends with the proofs."""
        held = self._held
        if held is None or held.claim.term != term:
            return
        self._drop(held)
        token, answers = held.token.get_secret_value(), suppress(ArbiterUnreachable, NotLeading)
        with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_TIMEOUT_S), answers:
            await self._zone.login(held.claim.raft_term, held.user_name, token, 0, self._account.auth)

    def led_meanwhile(self) -> str:
        """Whoever claimed last led last, and our record goes on from there only if that was us."""
        return "another controller" if self._held is None else self._held.meanwhile

    def _held_in(self, term: int) -> Held:
        if self._held is None or self._held.claim.term != term:
            raise NotLeading(f"the lead of term {term} is not held")
        return self._held

    def _drop(self, held: Held) -> None:
        if self._held is held:
            self._held, self._leads, self._account.orders = None, False, SecretStr("")
            self._record.end()

    # --- for people ---

    async def members(self) -> Sequence[Member]:
        """Whoever leads, and this one. The others write nothing, so they are not known."""
        ours = Member(
            name=self.context.name,
            instance=self.context.instance,
            leads=self._leads,
            term=self._held.claim.term if self._leads and self._held else None,
        )
        leader = None if self._leads else self._leader
        if leader is None or leader.instance == self.context.instance:
            return [ours]
        return [Member(name=leader.name, instance=leader.instance, leads=True, term=leader.term), ours]

    def engine(self) -> Sequence[str]:
        """The front-ends, as they were last seen."""
        return self._zone.in_words()
