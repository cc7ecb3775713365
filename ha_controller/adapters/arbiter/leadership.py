"""Keeps the lead, or waits for it; says right before every effect whether it is still held.

The lead has a deadline of our own: `lead_s` from the moment we *began* to ask for its last renewal, on two clocks, one
of which goes on while the machine sleeps. A jump between the wall clock and the monotonic one (a paused virtual machine
that gets its time back) voids everything until the arbiter has proven the lead anew. Beyond that the arbiter is asked
right before every effect: no order leaves on memory alone.

It must never say that we lead when it cannot tell. What is under way when the lead is lost is cancelled. Reports go to
the core as `LeadChanged`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import structlog

from ha_controller.core.events import LeadChanged
from ha_controller.plugin import Arbiter, ArbiterUnreachable, Member, NotLeading, one_line

log = structlog.get_logger(__name__)

JUMP_S = 1.0  #: wall and monotonic clock may drift apart by this much between two renewals
PROOF_TIMEOUT_S = 6.0
PROOF_VALID_S = 2.0  #: an order leaves within this after we began to ask for its proof
ASK_TIMEOUT_S = 20.0
TAKE_OVER_TIMEOUT_S = 5.0  #: the lead must last for some time behind it
LEFT_MIN_S = 0.5
OTHERS_FIRST = 1.5  #: pauses between two questions, after a take-over that failed: each of the others asks in it
AGAIN_S = 0.5  #: a renewal that got no answer is tried again after this
LOOK_EVERY_S = 5.0  #: at the members, for people
LOOK_TIMEOUT_S = 1.5  #: a renewal must not wait for it
STAY_OUT_S = 30.0  #: after `step-down`
GIVEN_UP_SOON_S = 60.0  #: a lead that was given up is given up again within this


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Now, on the three clocks of the machine, in seconds."""

    monotonic: float
    boot: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Read the clocks."""
        return cls(monotonic=time.monotonic(), boot=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())

    @property
    def offset(self) -> float:
        """What a step of the wall clock changes, and nothing else."""
        return self.wall - self.monotonic

    def age_s(self, now: Moment) -> float:
        """How long ago it was, by the clock that has gone further."""
        return max(now.monotonic - self.monotonic, now.boot - self.boot)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lead:
    term: int
    asked: Moment  #: when we began to ask for what holds now
    offset: float  #: between the clocks, at the last proof
    doubt: str = ""  #: why the lead could not be proven; then it is not used until it is renewed


@dataclass(kw_only=True)
class Leadership:
    """The one who asks the arbiter. `holds`, `may_act` and `lapse` may be called at any time from the event loop."""

    arbiter: Arbiter[Any]
    report: Callable[[LeadChanged], None]
    now: Callable[[], Moment] = Moment.now
    members: tuple[Member, ...] = ()  #: as last seen
    trouble: str = ""  #: why nobody can tell who leads; empty if somebody can
    ended: str = ""  #: why this process never leads again
    revoke_logins: Callable[[int], Awaitable[None]] | None = None
    """Takes OpenNebula out of the hands of the leader before, before anything else. It raises as `take_over` does."""
    take_over: Callable[[int], Awaitable[str]] | None = None
    """Takes up in a term what the leader before has left, before anybody hears that we lead. Returns who may have done
    what is not on record; empty if nobody. Whatever it raises, the lead is given back, and after NotLeading (it can be
    read, and not by us) not asked for soon."""
    _lead: _Lead | None = None
    _inherited: str = ""  #: who may have done what we do not know
    _told: LeadChanged | None = None
    _orders: set[anyio.CancelScope] = field(default_factory=set)
    _lost: list[int] = field(default_factory=list)  #: terms to be given back
    _out_since: Moment | None = None  #: of `step_down`
    _given_up_at: Moment | None = None
    _looked: Moment | None = None
    _offset: float | None = None  #: between the clocks, when the event loop last woke
    _bell: anyio.Event = field(default_factory=anyio.Event)

    @property
    def term(self) -> int | None:
        """The term in which we lead now, as far as can be said without asking."""
        return self._lead.term if self._lead is not None and self.holds(self._lead.term) else None

    @property
    def left_s(self) -> float:
        """How long the lead holds without another word of the engine."""
        return 0.0 if self._lead is None else max(0.0, self.arbiter.lead_s - self._lead.asked.age_s(self.now()))

    # --- right before every effect ---

    def holds(self, term: int | None) -> bool:
        """Whether we lead in this term by our own clocks. That is no proof."""
        lead, now = self._lead, self.now()
        if lead is None or not self._is_usable(lead, term, now):
            return False
        if abs(now.offset - lead.offset) > JUMP_S:
            self._bell.set()
            return False
        return True

    async def may_act(self, term: int | None) -> bool:
        """Have the lead proven; whoever asks must send its order at once, without waiting for anything else."""
        lead, asked = self._lead, self.now()
        if lead is None or not self._is_usable(lead, term, asked):
            return False
        try:
            with anyio.fail_after(PROOF_TIMEOUT_S):
                await self.arbiter.prove(lead.term)
        except NotLeading as error:
            self._lose(lead.term, str(error))
        except Exception as error:  # the border to an arbiter: whatever it does is no proof
            self._doubt(lead.term, _why(error))
        else:
            self._proven(lead.term, asked)
        return self.holds(term) and asked.age_s(self.now()) <= PROOF_VALID_S

    @contextmanager
    def order(self) -> Iterator[None]:
        """Something that is cancelled when the lead ends while it is under way: its outcome is unknown then."""
        with anyio.CancelScope() as scope:
            self._orders.add(scope)
            try:
                yield
            finally:
                self._orders.discard(scope)

    def lapse(self) -> None:
        """End a lead whose time is over, and what is under way when the clock jumped.

        Called whenever the event loop wakes, before anything else runs.
        A process that was frozen may find answers that arrived meanwhile: nobody must act on them first.
        """
        now = self.now()
        before, self._offset = self._offset, now.offset
        if before is not None and abs(now.offset - before) > JUMP_S:
            self._cancel_orders()  # each was proven before, however long it is ago
            self._bell.set()
        if self._lead is not None and self._is_over(self._lead, now):
            self._lose(self._lead.term, f"nothing was heard of the engine for {self.arbiter.lead_s:g} s")

    # --- keeping it ---

    async def run(self) -> None:
        """Ask for the lead, keep it, and report every change; runs until cancelled."""
        try:
            while True:
                pause_s = await self._round()
                self._tell()
                with anyio.move_on_after(pause_s):
                    await self._bell.wait()
                self._bell = anyio.Event()
        finally:
            if self._lead is not None:
                self._lost.append(self._lead.term)
                self._lead = None
            with anyio.CancelScope(shield=True):
                await self._give_back()
                with anyio.move_on_after(ASK_TIMEOUT_S):
                    await self.arbiter.close()

    async def _round(self) -> float:
        """One question to the engine; returns how long to wait for the next."""
        await self._give_back()
        if self._lead is not None:
            pause_s = await self._renew(self._lead)
        elif self.ended or self._stays_out():
            pause_s = self.arbiter.ask_every_s
        else:
            pause_s = await self._ask()
        await self._look()
        return pause_s

    async def _ask(self) -> float:
        asked, term = self.now(), None
        try:
            with anyio.fail_after(ASK_TIMEOUT_S):
                term = await self.arbiter.acquire()
        except Exception as error:  # the border to an arbiter: whatever it does gives no lead
            self.trouble = _why(error)
            return self.arbiter.ask_every_s
        self.trouble = ""
        if term is None:
            return self.arbiter.ask_every_s
        lead = _Lead(term=term, asked=asked, offset=asked.offset)
        if self.ended or self._stays_out() or self._is_over(lead, self.now()):
            self._lost.append(term)  # it took too long to be told, or we must not lead since
            return 0.0
        if not await self._takes_over(lead):
            await self._give_back()  # before the pause: another one, whose OpenNebula answers, must find it free
            return self.arbiter.ask_every_s * OTHERS_FIRST
        if self.ended or self._stays_out() or self._is_over(lead, self.now()):
            self._lost.append(term)
            return 0.0
        self._lead, self._looked = lead, None
        self._tell()  # with what was taken over: nobody may decide on that first
        log.info("this controller leads", term=term, led_meanwhile=self._inherited)
        return min(self.arbiter.renew_every_s, AGAIN_S)

    async def _takes_over(self, lead: _Lead) -> bool:
        """Whether what the leader before has left could be taken up. What cannot be read is left to another one."""
        term, self._inherited = lead.term, self.arbiter.led_meanwhile()
        left_s = self.arbiter.lead_s - lead.asked.age_s(self.now()) - LEFT_MIN_S
        what = "the logins of the leader before cannot be revoked"
        try:
            with anyio.fail_after(min(TAKE_OVER_TIMEOUT_S, left_s)):
                if self.revoke_logins is not None:
                    await self.revoke_logins(term)
                what = "the record of the leader before cannot be taken over"
                if self.take_over is not None:
                    self._inherited = await self.take_over(term)
        except Exception as error:  # a border: a record that cannot be read must not end the one who looks and tells
            self._lost.append(term)
            why = one_line(str(error)) if isinstance(error, NotLeading) else _why(error)
            self.trouble = f"{what}: {why}"
            if not isinstance(error, ArbiterUnreachable | TimeoutError):
                self._out_since = self.now()  # another one may be able to
            log.error("the lead is given back", term=term, why=self.trouble)
            return False
        return True

    async def _renew(self, lead: _Lead) -> float:
        asked = self.now()
        try:
            with anyio.fail_after(self.left_s):
                await self.arbiter.renew(lead.term)
        except NotLeading as error:
            self._lose(lead.term, str(error))
        except Exception as error:  # the border to an arbiter: no answer, and our own time goes on
            self.trouble = _why(error)
            log.warning("the lead could not be renewed", term=lead.term, left_s=round(self.left_s, 1), why=self.trouble)
            self.lapse()
            return AGAIN_S
        else:
            self.trouble = ""
            if self._lead is not None and self._lead.term == lead.term:
                self._lead = _Lead(term=lead.term, asked=asked, offset=asked.offset)
        return max(0.0, self.arbiter.renew_every_s - asked.age_s(self.now()))  # the deadline counts from there, too

    async def _look(self) -> None:
        now = self.now()
        if self.trouble or (self._looked is not None and self._looked.age_s(now) < LOOK_EVERY_S):
            return
        self._looked = now
        try:
            with anyio.fail_after(LOOK_TIMEOUT_S):
                self.members = tuple(await self.arbiter.members())
        except Exception as error:  # the border to an arbiter: only people look at it
            log.warning("the other controllers cannot be listed", why=_why(error))

    async def _give_back(self) -> None:
        while self._lost:
            term = self._lost.pop()
            if not self.arbiter.regains:
                continue
            try:
                with anyio.fail_after(PROOF_TIMEOUT_S):
                    await self.arbiter.release(term)
            except Exception as error:  # the border to an arbiter: a lead that is not given back ends by itself
                log.warning("the lead could not be given back", term=term, why=_why(error))

    # --- ending it ---

    def step_down(self, why: str) -> None:
        """Give the lead to another controller, and do not ask for it again for `STAY_OUT_S`."""
        self._out_since = self.now()
        if self._lead is not None:
            self._lose(self._lead.term, why)

    def give_up(self, term: int, why: str) -> None:
        """End a lead that cannot be used, if it is still held. It is asked for again at once, but not the next time.

        Another one may be able to use it; and who leads every other second tells people so every other second.
        """
        if self._lead is None or self._lead.term != term:
            return
        before, self._given_up_at = self._given_up_at, self.now()
        if before is not None and before.age_s(self._given_up_at) < GIVEN_UP_SOON_S:
            self._out_since = self._given_up_at
        self._lose(term, why)

    def end(self, why: str) -> None:
        """Never lead again in this process."""
        self.ended = self.ended or why
        if self._lead is not None:
            self._lose(self._lead.term, why)

    def _stays_out(self) -> bool:
        return self._out_since is not None and self._out_since.age_s(self.now()) < STAY_OUT_S

    def _is_usable(self, lead: _Lead, term: int | None, now: Moment) -> bool:
        return lead.term == term and not lead.doubt and not self.ended and not self._is_over(lead, now)

    def _is_over(self, lead: _Lead, now: Moment) -> bool:
        return lead.asked.age_s(now) >= self.arbiter.lead_s

    def _proven(self, term: int, asked: Moment) -> None:
        """The deadline stays: a proof prolongs nothing."""
        if self._lead is not None and self._lead.term == term:
            self._lead = replace(self._lead, offset=asked.offset)

    def _doubt(self, term: int, why: str) -> None:
        if self._lead is not None and self._lead.term == term and not self._lead.doubt:
            log.error("the lead could not be proven: nothing is ordered until it is", term=term, why=why)
            self._lead = replace(self._lead, doubt=why)
            self.trouble = why
            self._tell()
            self._bell.set()

    def _lose(self, term: int, why: str) -> None:
        if self._lead is None or self._lead.term != term:
            return
        self._lead, self._looked, self.members = None, None, ()
        self._lost.append(term)
        if not self.arbiter.regains:
            self.ended = self.ended or why
        self._cancel_orders()
        log.critical("the lead is lost: nothing is powered off or moved by this controller", term=term, why=why)
        self._tell(why)
        self._bell.set()

    def _cancel_orders(self) -> None:
        for scope in list(self._orders):
            scope.cancel()

    def _tell(self, lost: str = "") -> None:
        """Report what has changed, and nothing twice."""
        usable = self._lead is not None and not self._lead.doubt
        ours = self.arbiter.context.instance
        others = [member.name for member in self.members if member.leads and member.instance != ours]
        told = LeadChanged(
            term=self._lead.term if self._lead is not None and usable else None,
            inherited=self._inherited if usable else "",
            leader="" if usable or lost or self.trouble else ", ".join(others),
            trouble="" if usable else self.ended or lost or self.trouble,
        )
        before, self._told = self._told, told
        if before is None or _key(before) != _key(told):
            self.report(told)


def _key(told: LeadChanged) -> tuple[object, ...]:
    return told.term, told.leader, bool(told.trouble)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the engine did not answer in time"
    if isinstance(error, ArbiterUnreachable):
        return one_line(str(error), characters_max=300)
    log.error("the arbiter raised something else than it may", error=type(error).__name__, exc_info=error)
    return f"bug in the arbiter: {type(error).__name__}"
