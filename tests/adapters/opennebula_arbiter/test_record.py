"""The shared record in a zone of three: who does not lead writes nothing, all of a write counts or nothing of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from records import (
    MOVING,
    OPENED,
    OVER,
    incident,
    made_empty,
    on_host,
    one_wrote,
    open_on,
    record,
    taken_over,
    the_next,
    write,
)
from zone_controllers import Controller, elect, leading
from zones import BROADCAST_S, Zone

from ha_controller.adapters.arbiter.oned_texts import RECORD, SLOTS
from ha_controller.core.incident import VmStage
from ha_controller.plugin import ArbiterUnreachable, NotLeading


async def test_what_a_leader_writes_the_next_one_reads_and_it_is_whole_from_its_first_write_on(
    zone: Zone, controllers: list[Controller]
):
    one, first = await leading(zone, controllers)
    found = await record(one).read(first)
    assert (found.texts, found.whole, found.term) == ({}, False, 0), "nothing is there, which is not: nothing happened"
    await write(one, first, OPENED)
    await write(one, first, MOVING)
    two, second, found = await the_next(zone, controllers, one)
    assert (found.whole, found.term, found.damage) == (True, second, "")
    assert open_on(found) == (MOVING,)
    assert on_host(zone)["HA_INCIDENT"] == f"1 fenced, VMs: 2. Written by {one.name} in term {first}"
    await write(two, second, OVER)
    await made_empty(zone, two, second, 1)  # people see nothing that is over
    zone.zone.thaw(one.machine)
    await anyio.sleep(3 * BROADCAST_S)
    await elect(zone, one.machine)
    third, found = await taken_over(one)
    assert (found.whole, open_on(found)) == (True, ())
    await one.arbiter.release(third)
    _, found = await taken_over(one)
    assert found.whole, "whoever wrote nothing ordered nothing"


@pytest.mark.parametrize("dies", ["before what makes it count", "between two incidents"])
async def test_all_of_a_write_counts_or_nothing(zone: Zone, controllers: list[Controller], dies: str):
    """The leader is killed in the middle of it: nothing of that was ordered, and what was before is there."""
    one, term = await one_wrote(zone, controllers, OPENED, incident(2, host=0))
    zone_of_one, hosts = one.arbiter._zone, 0

    def dying(real: Callable[..., Awaitable[None]], *, of_user: bool) -> Callable[..., Awaitable[None]]:
        async def stands_in(raft_term: int, values: dict[str, str], *rest: Any) -> None:
            nonlocal hosts
            hosts += not of_user
            if (RECORD in values) if dies.startswith("before") else hosts == 2:
                raise ArbiterUnreachable("killed")
            await real(raft_term, values, *rest)

        return stands_in

    zone_of_one.write = dying(zone_of_one.write, of_user=True)  # type: ignore[method-assign]
    zone_of_one.write_host = dying(zone_of_one.write_host, of_user=False)  # type: ignore[method-assign]
    with pytest.raises(ArbiterUnreachable, match="killed"):
        await write(one, term, MOVING, incident(2, host=0, stage=VmStage.MOVING))
    assert any(SLOTS[1] in on_host(zone, host) for host in (0, 1)), "something of it is there"
    two, second, found = await the_next(zone, controllers, one)
    assert (found.whole, open_on(found)) == (True, (OPENED, incident(2, host=0)))
    await write(two, second, MOVING)
    assert open_on(await record(two).read(second)) == (MOVING, incident(2, host=0))


async def test_a_host_that_fails_again_as_soon_as_its_incident_is_over(zone: Zone, controllers: list[Controller]):
    one, term = await one_wrote(zone, controllers, OPENED)
    again = incident(3)
    await write(one, term, OVER, again)
    _, _, found = await the_next(zone, controllers, one)
    assert (found.whole, open_on(found)) == (True, (again,))


# --- the zone in trouble ----------------------------------------------------------------------------------------------


async def test_a_leader_that_is_cut_off_writes_nothing_and_no_write_of_it_comes_late(
    zone: Zone, controllers: list[Controller]
):
    one, first = await one_wrote(zone, controllers, OPENED)
    zone.zone.cut_off(one.machine)
    with pytest.raises(ArbiterUnreachable):
        await write(one, first, MOVING)
    two = controllers[await zone.elected(but_not=one.machine)]
    second, found = await taken_over(two)
    assert (found.whole, open_on(found)) == (True, (OPENED,))
    await write(two, second, replace(OPENED, hold="x"))
    zone.zone.heal()
    await anyio.sleep(4 * BROADCAST_S)
    with pytest.raises((NotLeading, ArbiterUnreachable)):
        await write(one, first, MOVING)
    assert open_on(await record(two).read(second)) == (replace(OPENED, hold="x"),)
    await two.arbiter.prove(second)


@pytest.mark.parametrize("what", ["an incident", "what makes it count"])
async def test_a_write_that_was_acknowledged_and_lost_is_no_write(zone: Zone, controllers: list[Controller], what: str):
    """The majority answered, then it stood still; the write waits in the old leader, which says "true" as it falls."""
    one, first = await one_wrote(zone, controllers, OPENED)
    old, zone_of_one = one.machine, one.arbiter._zone
    name = "write_host" if what == "an incident" else "write"
    patient = [zone_of_one.local, *zone_of_one._others.values()]
    for each in patient:
        each.client._timeout_s = 10.0  # so that the "true" is heard
    blocked, answered = zone_of_one._nothing_is_blocked, []
    real = getattr(zone_of_one, name)

    async def heard(*given: Any) -> None:
        async def and_then_all_stand_still() -> None:
            await blocked()
            zone.zone.freeze(*zone.others(old))

        zone_of_one._nothing_is_blocked = and_then_all_stand_still  # type: ignore[method-assign]
        try:
            await real(*given)
        finally:
            zone_of_one._nothing_is_blocked = blocked  # type: ignore[method-assign]
        answered.append(given)

    setattr(zone_of_one, name, heard)
    found: list[Exception] = []

    async def order() -> None:
        try:
            await write(one, first, MOVING)
        except (NotLeading, ArbiterUnreachable) as error:
            found.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(order)
        await zone.took_in(old)
        zone.zone.freeze(old)
        zone.zone.thaw(*zone.others(old))
        await zone.elected(but_not=old)
        zone.zone.thaw(old)
    assert answered, "oned said that it is done"
    assert len(found) == 1
    two = controllers[await zone.elected(but_not=old)]
    _, shown = await taken_over(two)
    assert (shown.whole, open_on(shown)) == (True, (OPENED,))


async def test_a_host_that_took_nothing_in_though_it_was_said_so_is_noticed(zone: Zone, controllers: list[Controller]):
    """Many of oned's methods do not look whether their write to the database worked."""
    one, term = await one_wrote(zone, controllers, OPENED)
    zone.cloud.oned.update_host = lambda host, attributes, append: host  # type: ignore[method-assign]
    with pytest.raises(ArbiterUnreachable, match="say that it has what was written"):
        await write(one, term, MOVING)
    with pytest.raises(NotLeading):
        await write(one, term, MOVING)


async def test_writes_that_block_are_given_up_in_time_and_leave_the_api_free(zone: Zone, controllers: list[Controller]):
    """And what was blocked is carried out after all: it counts, or it does not, and nothing is in between."""
    one, first = await one_wrote(zone, controllers, OPENED)
    asked = one.arbiter._zone._nothing_is_blocked

    async def and_then_all_stand_still() -> None:
        await asked()
        zone.zone.freeze(*zone.others(one.machine))

    one.arbiter._zone._nothing_is_blocked = and_then_all_stand_still  # type: ignore[method-assign]
    for _ in range(5):
        with anyio.fail_after(5), pytest.raises((ArbiterUnreachable, NotLeading)):
            await write(one, first, MOVING)
    assert zone.zone.blocked(one.machine) == 1
    assert (await zone.status(one.machine))["STATE"] == 3, "it answers"
    zone.zone.thaw(*zone.others(one.machine))
    one.arbiter._zone._nothing_is_blocked = asked  # type: ignore[method-assign]
    leader = controllers[await zone.elected()]
    leader.arbiter._drop(leader.arbiter._held) if leader.arbiter._held else None
    _, found = await taken_over(leader)
    assert (found.whole, open_on(found)) == (True, (OPENED,))


async def test_a_follower_that_is_lost_does_not_hold_up_a_write(zone: Zone, controllers: list[Controller]):
    one, term = await one_wrote(zone, controllers, OPENED)
    zone.zone.freeze(zone.others(one.machine)[0])
    await write(one, term, MOVING)
    assert open_on(await record(one).read(term)) == (MOVING,)


@pytest.mark.parametrize("who", ["somebody", "another leader"])
async def test_a_token_that_was_revoked_writes_nothing(zone: Zone, controllers: list[Controller], who: str):
    one, first = await one_wrote(zone, controllers, OPENED)
    before = dict(on_host(zone))
    if who == "somebody":
        zone.cloud.server.users.all[0].tokens.clear()
        with pytest.raises(NotLeading, match="not valid any more"):
            await write(one, first, MOVING)
    else:
        two, second, _ = await the_next(zone, controllers, one)
        zone.zone.thaw(one.machine)
        await anyio.sleep(3 * BROADCAST_S)
        with pytest.raises((NotLeading, ArbiterUnreachable)):
            await write(one, first, MOVING)
        assert await two.leads(second)
    assert on_host(zone) == before


async def test_proofs_go_on_while_the_record_is_written(zone: Zone, controllers: list[Controller]):
    one, term = await one_wrote(zone, controllers, OPENED)
    async with anyio.create_task_group() as group:

        async def prove() -> None:
            while True:
                await one.arbiter.prove(term)
                await anyio.sleep(0.02)

        group.start_soon(prove)
        for number in range(20):
            await write(one, term, replace(OPENED, hold=str(number)))
        group.cancel_scope.cancel()
    assert open_on(await record(one).read(term)) == (replace(OPENED, hold="19"),)


async def test_a_proof_that_looked_before_the_first_write_does_not_miss_it(zone: Zone, controllers: list[Controller]):
    """Nothing of ours stood there yet, and it comes while the answer is on its way."""
    one, term = await leading(zone, controllers)
    await record(one).read(term)
    zone_of_one, user = one.arbiter._zone, one.arbiter._zone.user

    async def seen_and_then_written() -> Any:
        found = await user()
        zone_of_one.user = user  # type: ignore[method-assign]
        await write(one, term, OPENED)
        return found

    zone_of_one.user = seen_and_then_written  # type: ignore[method-assign]
    await one.arbiter.prove(term)
    assert open_on(await record(one).read(term)) == (OPENED,)


async def test_a_proof_that_looks_for_longer_than_two_writes_misses_neither(zone: Zone, controllers: list[Controller]):
    one, term = await one_wrote(zone, controllers, OPENED)
    zone_of_one, user = one.arbiter._zone, one.arbiter._zone.user

    async def seen_between_two_writes() -> Any:
        zone_of_one.user = user  # type: ignore[method-assign]
        await write(one, term, MOVING)
        found = await user()
        await write(one, term, replace(MOVING, hold="in the meantime"))
        return found

    zone_of_one.user = seen_between_two_writes  # type: ignore[method-assign]
    await one.arbiter.prove(term)
