"""A leader that sees less than a fit standby gives the lead away, seldom, and never in the middle of something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from world import Cloud

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.controllers import FRESH_S, Sight
from ha_controller.app.yielding import AGAIN_AFTER_S, LASTS_S, LED_MIN_S, Yielding
from ha_controller.core.effects import Fence
from ha_controller.core.events import SelfChecked, SelfPlaced, Verb
from ha_controller.lead import Shared, SharedRecord
from ha_controller.plugin import Arbiter, ArbiterConfig, ArbiterContext, Member


class Engine(Arbiter[ArbiterConfig]):
    """Gives the lead to whoever asks."""

    kind = "fake"
    config_model = ArbiterConfig
    terms = 0

    async def acquire(self) -> int | None:
        self.terms += 1
        return self.terms

    async def renew(self, term: int) -> None: ...
    async def prove(self, term: int) -> None: ...
    async def release(self, term: int) -> None: ...

    async def members(self) -> tuple[Member, ...]:
        return ()


class Record(SharedRecord):
    """Where an engine keeps what the next leader must know."""

    async def read(self, term: int) -> Shared:
        return Shared(texts={}, whole=True, term=term)

    async def write(self, term: int, changes: Mapping[str, str | None]) -> None: ...


class Leader:
    """A leader, what it sees, and what another one says."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.cloud.run(6)
        self.noted: list[str] = []
        self.is_on_record = True
        context = ArbiterContext(name="one-1", instance="ours", state_dir=Path("/nowhere"), last_term=lambda: 0)
        self.leadership = Leadership(arbiter=Engine(ArbiterConfig(), context), report=lambda told: None)
        self.other = Sight(instance="theirs", alive=frozenset(range(8)), trouble="")
        self.yielding = Yielding(
            state=self.cloud.controller.state,
            leadership=self.leadership,
            sights={"one-2": self.other},
            clock=lambda: self.cloud.now,
            note=self._note,
        )

    async def _note(self, why: str) -> bool:
        self.noted.append(why)
        return self.is_on_record

    async def leads(self) -> None:
        self.leadership._out_since = None  # the time in which it does not ask is over
        await self.leadership._round()
        self.leadership.members = (
            Member(name="one-1", instance="ours", leads=True, term=1),
            Member(name="one-2", instance="theirs"),
        )
        assert self.leadership.term is not None

    async def looks_for(self, seconds: float) -> bool:
        """Whether it gives the lead away within this time."""
        end = self.cloud.now + seconds
        while self.cloud.now < end:
            self.other.asked_at = self.cloud.now
            await self.yielding.look()
            if self.leadership.term is None:
                return True
            self.cloud.run(1.0)
        return False


@pytest.fixture
async def leader() -> Leader:
    """One that has been leading for long enough."""
    made = Leader()
    await made.leads()
    assert not await made.looks_for(LED_MIN_S + 1)
    return made


def cut_off(leader: Leader) -> None:
    leader.cloud.feed(SelfChecked(ok=False, detail="0 of 3 witnesses answer (need 2)"))


async def test_a_leader_that_reaches_no_witness_gives_the_lead_to_one_that_does(leader):
    cut_off(leader)
    assert await leader.looks_for(LASTS_S + 3)
    assert leader.noted == [
        "one-2 sees no less, and this controller reaches no witness: 0 of 3 witnesses answer (need 2)"
    ]


async def test_a_leader_for_which_many_hosts_are_silent_gives_it_to_one_that_sees_them(leader):
    for host in (1, 2, 3):
        leader.cloud.kill(host, "on")
    assert await leader.looks_for(LASTS_S + 5)
    assert leader.noted == ["one-2 sees 3 hosts alive that are silent for this controller"]


@pytest.mark.parametrize(
    "change",
    [
        {"why_unfit": ("its probes come 2 s late",)},
        {"instance": "of no member"},
        {"leads": True},
        {"paused": True},
        {"alive": frozenset()},
        {"alive": frozenset({1, 2, 3})},  # it sees those, and not the five that we see
    ],
)
async def test_it_stays_where_nobody_is_better(leader, change):
    for name, value in change.items():
        setattr(leader.other, name, value)
    for host in (1, 2, 3):
        leader.cloud.kill(host, "on")
    assert not await leader.looks_for(LASTS_S + 20)
    assert leader.noted == []


async def test_one_host_that_only_the_other_one_sees_is_no_reason(leader):
    leader.cloud.kill(1, "on")
    assert not await leader.looks_for(LASTS_S + 20)


async def test_a_cause_that_comes_and_goes_is_no_reason(leader):
    for _ in range(5):
        cut_off(leader)
        assert not await leader.looks_for(LASTS_S - 2)
        leader.cloud.feed(SelfChecked(ok=True, detail="all answer"))
        assert not await leader.looks_for(2)


async def test_one_that_does_not_answer_any_more_is_not_fit(leader):
    cut_off(leader)
    assert not await leader.looks_for(LASTS_S - 3)
    leader.cloud.run(FRESH_S + 5)
    await leader.yielding.look()
    assert leader.leadership.term is not None


async def test_a_new_leader_stays_for_a_while_and_nobody_gives_it_away_twice_in_ten_minutes():
    leader = Leader()
    cut_off(leader)
    await leader.leads()
    began = leader.cloud.now
    assert await leader.looks_for(LED_MIN_S + 5)
    assert leader.cloud.now - began >= LED_MIN_S
    gave = leader.cloud.now
    await leader.leads()
    assert await leader.looks_for(AGAIN_AFTER_S + 10)
    assert leader.cloud.now - gave >= AGAIN_AFTER_S
    assert len(leader.noted) == 2


def something_is_ordered(leader: Leader) -> None:
    leader.cloud.kill(5, "mute")
    leader.cloud.run(70)
    assert leader.cloud.incident(5).attempts


async def test_nothing_that_was_ordered_is_left_to_the_next_one(leader):
    something_is_ordered(leader)
    cut_off(leader)
    assert not await leader.looks_for(LASTS_S + 20)


async def test_what_a_person_has_stopped_is_not_given_to_one_that_does_not_know_of_it(leader):
    leader.cloud.operator(Verb.PAUSE)
    cut_off(leader)
    assert not await leader.looks_for(LASTS_S + 20)
    leader.cloud.operator(Verb.RESUME)
    assert await leader.looks_for(LASTS_S + 3)


async def test_nor_is_the_cloud_while_a_person_holds_an_incident(leader):
    leader.cloud.kill(1, "on")
    leader.cloud.operator(Verb.PAUSE)
    leader.cloud.run(70)
    leader.cloud.operator(Verb.HOLD, incident=leader.cloud.incident(1).id)
    leader.cloud.operator(Verb.RESUME)
    cut_off(leader)
    assert leader.cloud.incident(1).untouched
    assert not await leader.looks_for(LASTS_S + 20)


@pytest.mark.parametrize("stopped", ["paused", "held", "a pause of the time in which the other one led"])
async def test_where_the_record_is_shared_the_next_one_knows_what_a_person_has_stopped(leader, stopped):
    leader.leadership.arbiter.record = Record()
    if stopped == "paused":
        leader.cloud.operator(Verb.PAUSE)
    elif stopped == "held":
        leader.cloud.operator(Verb.PAUSE)
        leader.cloud.kill(1, "on")
        leader.cloud.run(70)
        leader.cloud.operator(Verb.HOLD, incident=leader.cloud.incident(1).id)
        leader.cloud.operator(Verb.RESUME)
    else:
        leader.other.paused = True
    cut_off(leader)
    assert await leader.looks_for(LASTS_S + 3)


async def test_one_that_sees_fewer_hosts_does_not_get_the_lead_although_we_reach_no_witness(leader):
    leader.other.alive = frozenset({0, 1})  # it may have no self-check at all
    cut_off(leader)
    assert not await leader.looks_for(LASTS_S + 20)


async def test_what_is_not_on_record_is_not_done(leader):
    leader.is_on_record = False
    cut_off(leader)
    assert not await leader.looks_for(LASTS_S + 3)
    assert leader.noted


def its_own_host_dies(leader: Leader, host: int = 1) -> None:
    leader.leadership.arbiter.record = Record()
    settings = replace(leader.cloud.settings, record_is_shared=True, lead_is_given_away=True)
    leader.cloud.reconfigure(settings)
    leader.cloud.feed(SelfPlaced(hosts=(host,), detail="this controller runs in VM 12 on kvm-01"))
    leader.cloud.kill(host, "off")
    leader.other.alive = frozenset(range(8)) - {host}


async def test_a_leader_on_the_host_that_is_to_be_powered_off_gives_it_to_one_elsewhere(leader):
    its_own_host_dies(leader)
    assert await leader.looks_for(LASTS_S + 10)
    (why,) = leader.noted
    assert why == ("kvm-01 is to be powered off, and one-2 does not run there: this controller runs in VM 12 on kvm-01")
    assert not leader.cloud.ordered(Fence)


@pytest.mark.parametrize(
    "change", [{"why_unfit": ("its probes come 2 s late",)}, {"runs_on": frozenset({1})}, {"instance": "of no member"}]
)
async def test_nobody_gets_it_who_is_not_fit_or_runs_there_too(leader, change):
    for name, value in change.items():
        setattr(leader.other, name, value)
    its_own_host_dies(leader)
    assert not await leader.looks_for(LASTS_S + 30)
    assert leader.cloud.incident(1).hold.startswith("own host")
    assert not leader.cloud.ordered(Fence)


async def test_it_stays_where_the_next_one_would_not_know_of_the_incident(leader):
    its_own_host_dies(leader)
    leader.cloud.reconfigure(replace(leader.cloud.settings, record_is_shared=False, lead_is_given_away=False))
    leader.leadership.arbiter.record = None
    assert not await leader.looks_for(LASTS_S + 30)


async def test_it_waits_for_what_was_ordered_for_other_hosts(leader):
    something_is_ordered(leader)
    its_own_host_dies(leader)
    assert not await leader.looks_for(LASTS_S + 20)
    assert leader.cloud.incident(1).hold.startswith("own host")


async def test_without_witnesses_of_our_own_there_is_no_self_check_to_fail(leader):
    leader.cloud.reconfigure(replace(leader.cloud.settings, self_check_needed=False))
    cut_off(leader)
    assert not await leader.looks_for(LASTS_S + 20)
