"""A zone of embedded oneds does what was observed on three oneds 7.4.0 in one Raft zone, at a tenth of their times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from lxml import etree
from zones import BROADCAST_S, ELECTION_S, Zone, zone_of_three

from ha_controller.sim.oned_door import MAX_CONN

SOLO, CANDIDATE, FOLLOWER, LEADER = 0, 1, 2, 3


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    async with zone_of_three() as made:
        yield made


async def test_one_leads_and_says_so_of_itself(zone: Zone):
    leader = await zone.elected()
    found = [await zone.status(server) for server in range(3)]
    assert [each["SERVER_ID"] for each in found] == [0, 1, 2]
    assert [each["STATE"] for each in found] == [LEADER if server == leader else FOLLOWER for server in range(3)]
    assert len({each["TERM"] for each in found}) == 1
    assert list(found[0]) == [
        "SERVER_ID", "STATE", "TERM", "VOTEDFOR", "COMMIT", "LOG_INDEX", "LOG_TERM", "FEDLOG_INDEX"
    ]  # fmt: skip
    pool = etree.fromstring((await zone.ask(1, "one.zonepool.info", viewer=2))[1])
    assert {int(each.findtext("ID")): each.findtext("ENDPOINT") for each in pool.iter("SERVER")} == (
        zone.zone.endpoints(viewer=2)
    )


async def test_a_follower_hands_writes_on_and_reads_late(zone: Zone):
    leader = await zone.elected()
    follower = zone.others(leader)[0]
    read_late = 0
    for number in range(10):  # a machine that is slow may look only after the leader's next word to its followers
        assert (await zone.note(follower, f"new {number}"))[0] == "1"
        assert await zone.noted(leader) == f"new {number}"
        read_late += await zone.noted(follower) != f"new {number}"
    assert read_late, "read-your-write through a follower fails"
    with anyio.fail_after(100 * BROADCAST_S):
        while await zone.noted(follower) != "new 9":
            await anyio.sleep(BROADCAST_S)


async def test_without_followers_the_leader_goes_on_to_say_that_it_leads_and_blocks_writes(zone: Zone):
    leader = await zone.elected()
    before = await zone.status(leader)
    zone.zone.freeze(*zone.others(leader))
    with anyio.move_on_after(3 * ELECTION_S) as waited:
        await zone.note(leader, "blocked")
    assert waited.cancelled_caught, "no error, no end"
    after = await zone.status(leader)
    assert (after["STATE"], after["TERM"]) == (LEADER, before["TERM"])
    assert after["LOG_INDEX"] > after["COMMIT"], "the only trace"
    assert await zone.noted(leader) != "blocked"
    assert zone.zone.blocked(leader) == 1, "the client is gone, its place is not free"


async def test_blocked_writes_freeze_the_whole_api(zone: Zone):
    leader = await zone.elected()
    zone.zone.freeze(*zone.others(leader))
    async with anyio.create_task_group() as group:
        for number in range(MAX_CONN - 1):
            group.start_soon(zone.note, leader, str(number))
        await zone.until(lambda: zone.zone.blocked(leader) == MAX_CONN - 1)
        assert (await zone.status(leader))["STATE"] == LEADER
        group.start_soon(zone.note, leader, "last")
        await zone.until(lambda: zone.zone.blocked(leader) == MAX_CONN)
        with anyio.move_on_after(0.5) as waited:
            await zone.status(leader)
        assert waited.cancelled_caught
        group.cancel_scope.cancel()


async def test_a_frozen_leader_is_followed_and_what_it_acknowledges_when_it_wakes_is_lost(zone: Zone):
    """Followers frozen, a write and a login pending, leader frozen, followers elect, old leader resumed."""
    old = await zone.elected()
    term = (await zone.status(old))["TERM"]
    zone.zone.freeze(*zone.others(old))
    answers: list[list[Any]] = []

    async def order(method: str, *arguments: Any) -> None:
        answers.append(await zone.ask(old, method, *arguments))

    async with anyio.create_task_group() as group:
        group.start_soon(order, "one.host.update", 0, 'HA_NOTE="lost"', 1)
        group.start_soon(order, "one.user.login", "oneadmin", "", 600, -1)
        await zone.took_in(old, writes=2)
        zone.zone.freeze(old)
        zone.zone.thaw(*zone.others(old))
        new = await zone.elected(but_not=old)
        assert (await zone.note(new, "kept"))[0] == "1"
        zone.zone.raft.servers[new].broadcast_at += 0.3  # before the old one hears of it
        zone.zone.thaw(old)
        assert (await zone.status(old))["STATE"] == LEADER, "for a moment it may still say so"
        assert await zone.noted(old) != "kept", "and show what is old"
    assert [answer[0] for answer in answers] == ["1", "1"]
    token = max(answer[1] for answer in answers)
    assert len(token) == 64
    await anyio.sleep(0.3 + 2 * BROADCAST_S)
    for server in range(3):
        found = await zone.status(server)
        assert (found["STATE"], found["TERM"] > term) == (LEADER if server == new else FOLLOWER, True)
        assert await zone.noted(server) == "kept"
        assert (await zone.ask(server, "one.user.info", -1, False, session=f"oneadmin:{token}"))[2] == "256"


async def test_a_write_that_blocked_may_be_carried_out_later(zone: Zone):
    """The followers come back to the same leader before anybody asks for votes."""
    leader = await zone.elected()
    one, two = zone.others(leader)
    zone.zone.freeze(one, two)
    with anyio.move_on_after(0.2):
        await zone.note(leader, "late")
    zone.zone.thaw(one, two)
    for server in (one, two):
        zone.zone.raft.servers[server].heard_at = zone.zone._clock()
    await anyio.sleep(3 * BROADCAST_S)
    assert zone.zone.leader == leader
    assert await zone.noted(one) == "late"


async def test_a_lone_follower_asks_for_votes_without_end_and_refuses_writes_at_once(zone: Zone):
    leader = await zone.elected()
    lone, other = zone.others(leader)
    zone.zone.freeze(leader, other)
    await anyio.sleep(3 * ELECTION_S)
    first = (await zone.status(lone))["TERM"]
    await anyio.sleep(2 * ELECTION_S)
    found = await zone.status(lone)
    assert (found["STATE"], found["TERM"] > first) == (CANDIDATE, True)
    answer = await zone.note(lone, "refused")
    assert (answer[0], answer[2]) == ("0", "8192")
    assert "oned cluster in election mode" in answer[1]


async def test_one_that_comes_back_with_a_higher_term_and_less_in_its_log_keeps_nobody_from_leading(zone: Zone):
    """Its clock is the fastest: it asks for votes again and again, and gets none."""
    zone.zone.raft.elect(zone.zone.raft.servers[1], zone.zone._clock())
    await anyio.sleep(2 * BROADCAST_S)
    assert zone.zone.leader == 1
    zone.zone.cut_off(0)
    await zone.ask(1, "one.host.update", 0, 'HA_NOTE="new"', 1, viewer=1)
    await anyio.sleep(4 * ELECTION_S)
    zone.zone.heal()
    await anyio.sleep(2 * BROADCAST_S)
    assert zone.zone.leader != 1, "it heard of a higher term"
    assert await zone.elected() in (1, 2)
    assert await zone.noted(0) == "new"


async def test_a_follower_gives_a_write_up_that_its_leader_takes_in_later(zone: Zone):
    """It is no proof of a failure: the leader wakes before it is followed by another one."""
    leader = await zone.elected()
    follower = zone.others(leader)[0]
    zone.zone.raft._election_s = 60.0
    zone.zone.freeze(leader)
    answer = await zone.note(follower, "late")
    assert (answer[0], answer[2]) == ("0", "8192")
    assert "RPC call timed out and aborted" in answer[1]
    zone.zone.thaw(leader)
    await anyio.sleep(3 * BROADCAST_S)
    assert await zone.noted(follower) == "late"


async def test_a_leader_that_is_cut_off_is_followed_and_takes_tokens_that_were_revoked(zone: Zone):
    old = await zone.elected()
    new_side = zone.others(old)
    token = (await zone.ask(old, "one.user.login", "oneadmin", "", 600, -1))[1]
    await anyio.sleep(2 * BROADCAST_S)
    zone.zone.cut_off(old)
    new = await zone.elected(but_not=old)
    assert (await zone.ask(new, "one.user.login", "oneadmin", "", 0, -1, viewer=new))[0] == "1"
    assert (await zone.status(old, viewer=old))["STATE"] == LEADER
    info = ("one.user.info", -1, False)
    assert (await zone.ask(new, *info, session=f"oneadmin:{token}", viewer=new))[2] == "256"
    assert (await zone.ask(old, *info, session=f"oneadmin:{token}", viewer=old))[0] == "1"
    with anyio.move_on_after(0.2) as waited:
        await zone.ask(old, *info, viewer=new)
    assert waited.cancelled_caught, "from the others it cannot be reached"
    zone.zone.heal()
    await anyio.sleep(3 * BROADCAST_S)
    assert (await zone.ask(old, *info, session=f"oneadmin:{token}"))[2] == "256"
    assert new in new_side
