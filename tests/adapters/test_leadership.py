"""Keeping the lead: our own deadline on two clocks, jumps of the clock, doubt, and what is cancelled when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from ha_controller.adapters.arbiter import Leadership, Moment
from ha_controller.adapters.arbiter import leadership as leadership_module
from ha_controller.adapters.arbiter.leadership import STAY_OUT_S
from ha_controller.core.events import LeadChanged
from ha_controller.plugin import Arbiter, ArbiterConfig, ArbiterContext, ArbiterUnreachable, Member, NotLeading

LEAD_S = 8.0


class Engine(Arbiter[ArbiterConfig]):
    """An engine that says what it is told to say."""

    kind: ClassVar[str] = "fake"
    config_model: ClassVar[type[ArbiterConfig]] = ArbiterConfig
    ask_every_s = 0.01
    renew_every_s = 0.01

    def __init__(self) -> None:
        context = ArbiterContext(name="us", instance="ours", state_dir=Path("/nowhere"), last_term=lambda: 0)
        super().__init__(ArbiterConfig(), context)
        self.lead_s = LEAD_S
        self.holder: int | None = None
        self.next_term = 1
        self.free = True
        self.problem: Exception | None = None
        self.renewals = 0
        self.released: list[int] = []
        self.meanwhile = ""
        self.on_prove: Callable[[], None] = lambda: None

    async def acquire(self) -> int | None:
        self._answer()
        if not self.free:
            return None
        self.holder, self.next_term = self.next_term, self.next_term + 1
        return self.holder

    async def renew(self, term: int) -> None:
        await self.prove(term)
        self.renewals += 1

    async def prove(self, term: int) -> None:
        self.on_prove()
        self._answer()
        if term != self.holder:
            raise NotLeading("somebody else leads")

    async def release(self, term: int) -> None:
        self.released.append(term)

    async def members(self) -> list[Member]:
        self._answer()
        return [Member(name="them", instance="theirs", leads=True, term=9)] if self.holder is None else []

    def led_meanwhile(self) -> str:
        return self.meanwhile

    def _answer(self) -> None:
        if self.problem is not None:
            raise self.problem


@dataclass
class Rig:
    engine: Engine = field(default_factory=Engine)
    moment: Moment = field(default_factory=lambda: Moment(monotonic=100.0, boot=200.0, wall=1e9))
    told: list[LeadChanged] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.leadership = Leadership(arbiter=self.engine, report=self.told.append, now=lambda: self.moment)

    def pass_time(self, *, monotonic: float = 0.0, boot: float = 0.0, wall: float = 0.0) -> None:
        now = self.moment
        self.moment = replace(now, monotonic=now.monotonic + monotonic, boot=now.boot + boot, wall=now.wall + wall)

    def sleep(self, seconds: float) -> None:
        self.pass_time(monotonic=seconds, boot=seconds, wall=seconds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Leadership]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.leadership.run)
            yield self.leadership
            group.cancel_scope.cancel()

    async def until(self, what: Callable[[], Any]) -> None:
        with anyio.fail_after(5):
            while not what():
                await anyio.sleep(0.002)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def unreachable(rig: Rig) -> None:
    rig.engine.problem = ArbiterUnreachable("the engine does not answer")


async def test_the_lead_is_taken_reported_and_given_back_at_the_end(rig: Rig):
    rig.engine.meanwhile = "them led in term 0"
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
        await rig.until(lambda: rig.told)
        assert await leadership.may_act(1)
        assert not await leadership.may_act(2)
        assert not await leadership.may_act(None)
    assert rig.told == [LeadChanged(term=1, inherited="them led in term 0")]
    assert rig.engine.released == [1]
    assert not await leadership.may_act(1)


async def test_what_the_leader_before_has_left_is_taken_up_before_anybody_hears_of_the_lead(rig: Rig):
    rig.engine.meanwhile = "them led in term 0"
    heard: list[object] = []

    async def take_over(term: int) -> str:
        heard.append((term, rig.leadership.term, list(rig.told)))
        return ""

    rig.leadership.take_over = take_over
    async with rig.running():
        await rig.until(lambda: rig.told)
    assert heard == [(1, None, [])]
    assert rig.told == [LeadChanged(term=1)], "all that was done is on record"


async def test_nobody_runs_between_the_record_of_the_leader_before_and_the_word_that_we_lead(rig: Rig):
    """The core would give VMs of the record their outcome, without the words that only a leader tells people."""
    heard: list[list[LeadChanged]] = []

    async def take_over(term: int) -> str:
        del term
        asyncio.get_running_loop().call_soon(lambda: heard.append(list(rig.told)))
        return ""

    async def members() -> list[Member]:
        await anyio.sleep(0.01)  # as any that asks somebody
        return []

    rig.leadership.take_over, rig.engine.members = take_over, members  # type: ignore[method-assign]
    async with rig.running():
        await rig.until(lambda: heard)
    assert heard == [[LeadChanged(term=1)]]


@pytest.mark.parametrize(
    ("error", "soon"),
    [(ArbiterUnreachable("no answer"), True), (NotLeading("of a newer version"), False), (KeyError("x"), False)],
)
async def test_a_lead_with_a_record_that_cannot_be_read_is_given_back(rig: Rig, error: Exception, soon: bool):
    async def take_over(term: int) -> str:
        raise error

    rig.leadership.take_over = take_over
    async with rig.running() as leadership:
        await rig.until(lambda: rig.engine.released)
        await rig.until(lambda: rig.told)
        assert (rig.told[0].term, leadership.term, await leadership.may_act(1)) == (None, None, False)
        words = {"KeyError": "bug in the arbiter"}.get(type(error).__name__, str(error))
        assert f"the record of the leader before cannot be taken over: {words}" in rig.told[0].trouble
        assert leadership._stays_out() is not soon, "another one may be able to"


async def test_a_lead_that_is_given_up_is_over_for_good_and_asked_for_again(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
        leadership.give_up(7, "not ours")
        assert leadership.term == 1
        leadership.give_up(1, "the record takes nothing")
        assert not await leadership.may_act(1)
        await rig.until(lambda: rig.engine.released == [1])
        assert LeadChanged(term=None, trouble="the record takes nothing") in rig.told
        await rig.until(lambda: leadership.term == 2)
        assert not await leadership.may_act(1)


async def test_a_lead_that_is_given_up_again_and_again_is_left_to_another_one_for_a_while(rig: Rig):
    """Else people hear every second that it leads, and that it does not."""
    async with rig.running() as leadership:
        for term in (1, 2):
            await rig.until(lambda: leadership.term == term)  # noqa: B023 - awaited here
            leadership.give_up(term, "the record takes nothing")
        await rig.until(lambda: rig.engine.released == [1, 2])
        rig.sleep(STAY_OUT_S - 1)
        await anyio.wait_all_tasks_blocked()
        assert rig.engine.next_term == 3, "not asked for"
        rig.sleep(1.5)
        await rig.until(lambda: leadership.term == 3)
        for _ in range(15):
            rig.sleep(LEAD_S / 2)
            renewed = rig.engine.renewals
            await rig.until(lambda: rig.engine.renewals > renewed + 1)  # noqa: B023 - awaited here
        leadership.give_up(3, "once in a while")
        await rig.until(lambda: leadership.term == 4)


async def test_a_standby_reports_who_leads_once(rig: Rig):
    rig.engine.free = False
    async with rig.running() as leadership:
        await rig.until(lambda: rig.told)
        assert leadership.term is None
    assert rig.told == [LeadChanged(term=None, leader="them")]


@pytest.mark.parametrize("clock", ["monotonic", "boot"])
async def test_our_own_deadline_ends_the_lead_by_the_clock_that_went_further(rig: Rig, clock: str):
    """The boot clock goes on while the machine sleeps, the monotonic one does not."""
    async with rig.running() as leadership:
        await rig.until(lambda: rig.engine.renewals)
        unreachable(rig)
        rig.pass_time(wall=LEAD_S - 1, monotonic=LEAD_S - 1, boot=LEAD_S - 1)
        assert leadership.holds(1), "a lead outlives a short silence of its engine"
        rig.pass_time(**{clock: 1.5, "wall": 0.0})
        assert not leadership.holds(1)
        await rig.until(lambda: rig.told[-1].term is None)
    assert "does not answer" in rig.told[-1].trouble or "nothing was heard" in rig.told[-1].trouble


async def test_the_deadline_counts_from_the_question_and_not_from_the_answer(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
        rig.engine.on_prove = lambda: rig.sleep(3.0)  # each answer takes so long
        before = rig.engine.renewals
        await rig.until(lambda: rig.engine.renewals > before)
        assert leadership.left_s <= LEAD_S - 3.0


async def test_what_a_renewal_took_is_no_pause_before_the_next_one(rig: Rig, monkeypatch):
    """The deadline counts from the question: a pause behind a late answer would come out of what is left."""
    rig.engine.renew_every_s = LEAD_S / 2

    async def renew(term: int) -> None:
        rig.sleep(LEAD_S / 2)
        rig.engine.renewals += 1

    monkeypatch.setattr(rig.engine, "renew", renew)
    async with rig.running():
        with anyio.fail_after(LEAD_S / 4):
            await rig.until(lambda: rig.engine.renewals >= 2)
    assert [each.term for each in rig.told] == [1]


async def test_a_proof_prolongs_nothing(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: rig.engine.renewals)
    again = Leadership(arbiter=rig.engine, report=rig.told.append, now=lambda: rig.moment)
    rig.engine.free = True
    await again._ask()
    term = again.term
    rig.sleep(LEAD_S - 1)
    assert await again.may_act(term)
    rig.sleep(1.5)
    assert not await again.may_act(term)
    assert leadership.term is None


async def test_an_order_needs_an_answer_of_the_engine_though_the_deadline_is_far(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: rig.told)
        unreachable(rig)
        assert not await leadership.may_act(1)
        assert rig.told[-1] == LeadChanged(term=None, trouble="the engine does not answer")
        assert not leadership.holds(1), "what is in doubt is not used"
        rig.engine.problem = None
        await rig.until(lambda: rig.told[-1].term == 1)
        assert await leadership.may_act(1)
    assert rig.engine.next_term == 2, "the same term: its lease was never lost"


async def test_a_proof_that_took_too_long_to_come_lets_nothing_out(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: rig.told)
        rig.engine.on_prove = lambda: rig.sleep(2.5)
        assert not await leadership.may_act(1)


async def test_a_jump_between_the_clocks_needs_a_new_proof(rig: Rig):
    """A paused virtual machine: its own clocks stood still, then its wall clock is set right."""
    async with rig.running() as leadership:
        await rig.until(lambda: rig.told)
        rig.pass_time(wall=30.0)
        assert not leadership.holds(1)
        await rig.until(lambda: leadership.holds(1))  # the engine still says so
        rig.engine.holder = 2  # and now it does not
        rig.pass_time(wall=-30.0)
        assert not leadership.holds(1)
        assert not await leadership.may_act(1)
        await rig.until(lambda: rig.told[-1].term is None)


async def test_a_jump_between_the_clocks_cancels_what_is_under_way_once(rig: Rig):
    """It was proven before the pause: its next packet would be as old as the pause was long."""
    ended: list[str] = []

    async def order(leadership: Leadership, name: str, ends: anyio.Event) -> None:
        with leadership.order():
            await ends.wait()
            return
        ended.append(name)

    async with anyio.create_task_group() as group, rig.running() as leadership:
        await rig.until(lambda: rig.told)
        ends = anyio.Event()
        leadership.lapse()
        group.start_soon(order, leadership, "before", ends)
        await rig.until(lambda: len(leadership._orders) == 1)
        rig.pass_time(wall=30.0)
        leadership.lapse()
        await rig.until(lambda: ended)
        group.start_soon(order, leadership, "after", ends)
        await rig.until(lambda: len(leadership._orders) == 1)
        leadership.lapse()
        ends.set()
        await rig.until(lambda: not leadership._orders)
        assert await leadership.may_act(1), "the lead itself stays, once it is proven"
    assert ended == ["before"]


async def test_what_the_engine_denies_is_lost_at_once_and_cancels_what_is_under_way(rig: Rig):
    ended: list[str] = []

    async def order(leadership: Leadership) -> None:
        with leadership.order():
            await anyio.sleep_forever()
        ended.append("cancelled")

    async with anyio.create_task_group() as group, rig.running() as leadership:
        await rig.until(lambda: rig.told)
        group.start_soon(order, leadership)
        await rig.until(lambda: leadership._orders)
        rig.engine.holder, rig.engine.free = None, False
        await rig.until(lambda: ended)
        assert not leadership.holds(1)
        await rig.until(lambda: rig.told[-1].leader == "them")
        assert rig.engine.released == [1]
        rig.engine.free = True
        await rig.until(lambda: leadership.term == 2)
        assert not await leadership.may_act(1), "an order of the old term is not carried out in the new one"


async def test_an_arbiter_that_falls_over_proves_nothing_and_ends_nothing(rig: Rig, logged):
    rig.engine.problem = RuntimeError("bug")
    async with rig.running() as leadership:
        await rig.until(lambda: rig.told)
        assert rig.told[-1].trouble == "bug in the arbiter: RuntimeError"
        rig.engine.problem = None
        await rig.until(lambda: leadership.term == 1)
        rig.engine.problem = RuntimeError("bug")
        assert not await leadership.may_act(1)
    assert any("something else" in line["event"] for line in logged)


async def test_an_arbiter_that_never_answers_proves_nothing_and_holds_nothing_up(rig: Rig, monkeypatch):
    monkeypatch.setattr(leadership_module, "PROOF_TIMEOUT_S", 0.02)
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)

        async def never(term: int) -> None:
            del term
            await anyio.sleep_forever()

        rig.engine.prove = never  # type: ignore[method-assign]
        with anyio.fail_after(2):
            assert not await leadership.may_act(1)
        rig.sleep(LEAD_S)
        leadership.lapse()
        assert leadership.term is None
    assert rig.told[-1].trouble


async def test_a_lead_that_stepped_down_is_not_asked_for_again_for_a_while(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
        leadership.step_down("root ordered it to step down")
        assert leadership.term is None
        await rig.until(lambda: rig.engine.released == [1])
        await anyio.sleep(0.1)
        assert leadership.term is None
        rig.sleep(31.0)
        await rig.until(lambda: leadership.term == 2)


@pytest.mark.parametrize("ending", [Leadership.end, Leadership.step_down])
async def test_a_lead_that_is_granted_after_its_end_was_ordered_is_given_back(
    rig: Rig, ending: Callable[[Leadership, str], None]
):
    """The question was under way: nobody says a second time that the state directory is lost."""
    asks, may_answer, acquire = anyio.Event(), anyio.Event(), rig.engine.acquire

    async def slow() -> int | None:
        asks.set()
        await may_answer.wait()
        return await acquire()

    rig.engine.acquire = slow  # type: ignore[method-assign]
    async with rig.running() as leadership:
        await asks.wait()
        ending(leadership, "the lock file was replaced")
        may_answer.set()
        await rig.until(lambda: rig.engine.released == [1])
        assert leadership.term is None
        assert not await leadership.may_act(1)
    assert all(each.term is None for each in rig.told)


async def test_a_process_that_has_ended_holds_nothing_whatever_it_holds(rig: Rig):
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
        leadership.ended = "the lock file was replaced"
        assert not leadership.holds(1)
        assert not await leadership.may_act(1)


async def test_a_lead_that_cannot_be_regained_is_lost_for_this_process(rig: Rig, monkeypatch):
    monkeypatch.setattr(Engine, "regains", False)
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
        rig.engine.holder = None
        await rig.until(lambda: leadership.ended)
        await anyio.sleep(0.05)
        assert leadership.term is None
        assert rig.told[-1].trouble


async def test_a_lead_that_goes_with_a_lock_of_the_process_is_not_given_back_before_its_end(rig: Rig, monkeypatch):
    """The journal is still being written when the leadership ends."""
    monkeypatch.setattr(Engine, "regains", False)
    async with rig.running() as leadership:
        await rig.until(lambda: leadership.term == 1)
    assert rig.engine.released == []


async def test_a_lead_that_took_longer_to_get_than_it_lasts_is_given_back(rig: Rig):
    acquire = rig.engine.acquire

    async def slow() -> int | None:
        rig.sleep(LEAD_S + 1)
        return await acquire()

    rig.engine.acquire = slow  # type: ignore[method-assign]
    async with rig.running() as leadership:
        await rig.until(lambda: len(rig.engine.released) > 2)
        assert leadership.term is None
        assert all(each.term is None for each in rig.told)
