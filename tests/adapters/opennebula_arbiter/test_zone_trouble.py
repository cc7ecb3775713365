"""What no majority shows proves nothing, whatever happens to the zone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from zone_controllers import Beside, Controller, elect, leading, writes
from zones import BROADCAST_S, ELECTION_S, Zone

from ha_controller.adapters.arbiter import front_ends
from ha_controller.plugin import ArbiterUnreachable, NotLeading


@pytest.mark.parametrize("fault", ["frozen", "cut off"])
async def test_the_loss_of_one_follower_ends_no_lead(zone: Zone, controllers: list[Controller], fault: str):
    one, term = await leading(zone, controllers)
    lost = zone.others(one.machine)[0]
    zone.zone.freeze(lost) if fault == "frozen" else zone.zone.cut_off(lost)
    await anyio.sleep(3 * ELECTION_S)
    for _ in range(3):
        await one.arbiter.renew(term)
    assert "does not answer" in "\n".join(one.arbiter.engine())


async def test_a_front_end_that_hangs_does_not_hold_up_a_renewal(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """Whatever the time-out of one call is: up to that of a lead may be set."""
    monkeypatch.setattr(front_ends, "LOOK_S", 0.2)
    one, term = await leading(zone, controllers)
    lost = zone.others(one.machine)[0]
    for each in one.arbiter._zone._others.values():
        monkeypatch.setattr(each.client, "_timeout_s", 5.0)
    zone.zone.freeze(lost)
    with anyio.fail_after(2):
        await one.arbiter.renew(term)
    assert f"front-end {lost} at" in "".join(line for line in one.arbiter.engine() if "does not answer within" in line)


async def test_all_are_asked_when_those_that_answered_last_are_too_few(zone: Zone, beside: Beside):
    """Also where the one beside us is listed among the others."""
    leader = await zone.elected()
    one = beside(leader)
    one.arbiter._zone._addresses = tuple(zone.zone.endpoints(leader).values())
    term = await one.lead()
    for each in one.arbiter._zone._others.values():
        if each.number != leader:
            each.silent_since = anyio.current_time()
    await one.arbiter.prove(term)


async def test_an_address_that_is_none_ends_no_lead_and_is_not_shown(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """Somebody added a front-end, and made a mistake."""
    one, term = await leading(zone, controllers)
    every = zone.zone.endpoints
    wrong = "http://oneadmin:pass-word@192.0.2.9:2633/RPC2"
    monkeypatch.setattr(zone.zone, "endpoints", lambda viewer=0: {**every(viewer), 7: wrong})
    await one.arbiter.renew(term)
    told = "\n".join(one.arbiter.engine())
    assert "1 more, whose address cannot be used" in told
    assert "pass-word" not in told


async def test_an_isolated_leader_says_that_it_leads_and_its_controller_does_not(
    zone: Zone, controllers: list[Controller]
):
    one, first = await leading(zone, controllers)
    zone.zone.cut_off(one.machine)
    with pytest.raises(ArbiterUnreachable, match="1 of 3 servers"):
        await one.arbiter.prove(first)
    two = controllers[await zone.elected(but_not=one.machine)]
    second = await two.lead()
    assert (await zone.status(one.machine, viewer=one.machine))["STATE"] == 3
    for _ in range(5):
        assert not await one.leads(first)
        assert await two.leads(second)
    assert zone.zone.blocked(one.machine) == 0, "nothing was written where it cannot be committed"
    zone.zone.heal()
    await anyio.sleep(3 * BROADCAST_S)
    with pytest.raises(NotLeading):
        await one.arbiter.prove(first)


async def test_without_a_majority_nobody_leads_and_the_api_stays_free(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    zone.zone.freeze(*zone.others(one.machine))
    for _ in range(6):
        assert not await one.leads(term)
    assert zone.zone.blocked(one.machine) == 0
    zone.zone.thaw(*zone.others(one.machine))
    await zone.elected()
    assert await controllers[await zone.elected()].lead() == term + (0 if await one.leads(term) else 1)


async def test_a_leader_that_wakes_up_finds_another_one(zone: Zone, controllers: list[Controller]):
    """oned is stopped (SIGSTOP) with its leader; what it says of itself when it goes on is old."""
    one, first = await leading(zone, controllers)
    zone.zone.freeze(one.machine)
    two = controllers[await zone.elected(but_not=one.machine)]
    second = await two.lead()
    zone.zone.thaw(one.machine)
    assert not await one.leads(first)
    assert await two.leads(second)
    await one.never_leads(0.3)


async def test_a_proof_whose_write_is_acknowledged_and_lost_proves_nothing(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """The majority answered, then it stood still; the write waits in the old leader, which says "true" as it falls."""
    one, term = await leading(zone, controllers)
    old = one.machine
    asked = one.arbiter._zone._nothing_is_blocked

    async def and_then_all_stand_still() -> None:
        await asked()
        zone.zone.freeze(*zone.others(old))

    monkeypatch.setattr(one.arbiter._zone, "_nothing_is_blocked", and_then_all_stand_still)
    monkeypatch.setattr(one.arbiter._zone.local.client, "_timeout_s", 10.0)
    found: list[Exception] = []

    async def prove() -> None:
        try:
            await one.arbiter.prove(term)
        except (NotLeading, ArbiterUnreachable) as error:
            found.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(prove)
        await zone.took_in(old)
        zone.zone.freeze(old)
        zone.zone.thaw(*zone.others(old))
        await zone.elected(but_not=old)
        zone.zone.thaw(old)
    assert len(found) == 1
    assert one.arbiter._zone.has_unanswered is False, "it had its answer: true"


async def test_no_second_write_is_sent_behind_one_without_an_answer(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    one, term = await leading(zone, controllers)
    old, has_majority = one.machine, one.arbiter._zone.has_majority
    zone.zone.raft._election_s = 60.0

    async def had_majority(term: int) -> None:
        """It answers, and takes nothing in."""

    zone.zone.freeze(*zone.others(old))
    monkeypatch.setattr(one.arbiter._zone, "has_majority", had_majority)
    for _ in range(6):
        with pytest.raises(ArbiterUnreachable):
            await one.arbiter.prove(term)
    assert zone.zone.blocked(old) == 1
    assert (await zone.status(old))["STATE"] == 3, "the API answers"
    zone.zone.thaw(*zone.others(old))
    monkeypatch.setattr(one.arbiter._zone, "has_majority", has_majority)
    await anyio.sleep(3 * BROADCAST_S)
    await one.arbiter.prove(term)


async def test_a_follower_that_is_behind_is_waited_for_and_not_believed(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    zone.zone.raft._broadcast_s = 0.3
    began_at = anyio.current_time()
    await one.arbiter.prove(term)
    await one.arbiter.prove(term)
    assert anyio.current_time() - began_at > 0.2


async def test_a_server_that_has_not_committed_what_was_before_it_counts_for_nothing(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """It shows the number, and says that its log is not known to be with a majority that far."""
    one, term = await leading(zone, controllers)
    status = zone.zone._status

    def behind(server: Any) -> str:
        told = status(server)
        is_follower = server.id != one.machine
        return told.replace(f"<COMMIT>{server.commit}<", f"<COMMIT>{server.commit - 9}<") if is_follower else told

    monkeypatch.setattr(zone.zone, "_status", behind)
    with pytest.raises(ArbiterUnreachable, match="1 of 3 servers"):
        await one.arbiter.prove(term)


async def test_a_number_that_is_shown_in_a_later_term_of_raft_counts_for_nothing(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """It was committed; then the others elected a leader, of which the one beside us has not heard, but we could."""
    one, term = await leading(zone, controllers)
    old, user = one.machine, one.arbiter._zone.user

    async def user_and_then_an_election() -> Any:
        found = await user()
        zone.zone._note_what_is_committed()
        zone.zone.raft.cut |= {frozenset({old, other}) for other in zone.others(old)}
        await zone.elected(but_not=old)
        return found

    monkeypatch.setattr(one.arbiter._zone, "user", user_and_then_an_election)
    with pytest.raises(ArbiterUnreachable, match="1 of 3 servers"):
        await one.arbiter.prove(term)
    assert (await zone.status(old))["STATE"] == 3


async def test_a_majority_without_the_one_beside_us_is_none(zone: Zone, controllers: list[Controller]):
    one, _ = await leading(zone, controllers)
    asked = one.arbiter._zone

    async def is_another(front_end: Any) -> bool:
        return front_end is not asked.local

    with pytest.raises(ArbiterUnreachable, match="2 of 3 servers"):
        await asked._of_majority(is_another, "is another")


async def test_a_new_leader_of_the_same_machine_is_another_term(zone: Zone, controllers: list[Controller]):
    """Between the two another one may have led."""
    one, first = await leading(zone, controllers)
    await elect(zone, one.machine)
    with pytest.raises(NotLeading, match="led in term"):
        await one.arbiter.prove(first)
    assert await one.lead() == first + 1
    assert one.arbiter.led_meanwhile() == ""


async def test_those_who_ask_at_the_same_time_share_a_proof_that_began_after_all_of_them(
    zone: Zone, controllers: list[Controller]
):
    one, term = await leading(zone, controllers)
    before = writes(zone)
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(one.arbiter.prove, term)
    assert writes(zone) - before <= 2


async def test_a_proof_that_was_under_way_is_none_for_those_who_ask_later(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    confirm, results = one.arbiter._zone.confirm, list[bool]()

    async def fails_from_now_on(*arguments: Any) -> None:
        await confirm(*arguments)
        zone.zone.freeze(*zone.others(one.machine))

    one.arbiter._zone.confirm = fails_from_now_on  # type: ignore[method-assign]

    async def ask() -> None:
        results.append(await one.leads(term))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.01)
        group.start_soon(ask)
    assert results == [True, False]
