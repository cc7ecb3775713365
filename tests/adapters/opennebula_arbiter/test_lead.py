"""One leads, its claim is on record, and who led before is not hidden."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from zone_controllers import TAKEOVER_S, Beside, Controller, attributes, elect, leading, secret, tokens
from zones import BROADCAST_S, Zone

from ha_controller.adapters.arbiter import opennebula
from ha_controller.plugin import ArbiterUnreachable, NotLeading


async def test_the_controller_beside_the_leader_leads_and_no_other(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    assert term == 1
    await one.arbiter.renew(term)
    for other in controllers:
        if other is not one:
            await other.never_leads(0.3)
            members = await other.arbiter.members()
            assert [(each.name, each.leads, each.term) for each in members] == [
                (one.name, True, 1), (other.name, False, None)
            ]  # fmt: skip
    assert [(each.name, each.leads) for each in await one.arbiter.members()] == [(one.name, True)]
    told = "\n".join(one.arbiter.engine())
    assert (told.count("says that it leads"), told.count("follows")) == (1, 2)
    with pytest.raises(NotLeading):
        await one.arbiter.prove(2)


async def test_a_new_leader_revokes_all_logins_and_orders_go_by_a_token_of_its_own(
    zone: Zone, controllers: list[Controller]
):
    before = (await zone.ask(await zone.elected(), "one.user.login", "oneadmin", "", 600, -1))[1]
    one = controllers[await zone.elected()]
    assert one.account.get_secret_value() == "", "nothing is ordered with the password"
    await one.lead()
    assert tokens(zone) == [secret(one)]
    assert before not in tokens(zone)


async def test_a_new_leader_waits_for_what_was_sent_before_it(zone: Zone, controllers: list[Controller]):
    one = controllers[await zone.elected()]
    claimed_at = anyio.current_time()
    await one.claim()
    assert attributes(zone)["HA_LEADER"].split()[0] == str(one.arbiter._held.claim.term)
    assert one.account.get_secret_value() == ""
    await one.lead()
    assert anyio.current_time() - claimed_at >= TAKEOVER_S - 0.05
    assert one.arbiter.led_meanwhile() == "who led before is not on record in OpenNebula"


async def test_a_restart_of_the_one_that_led_last_goes_on_at_once(
    zone: Zone, controllers: list[Controller], beside: Beside
):
    one, term = await leading(zone, controllers)
    again = beside(one.machine)
    again.last_term = term
    await again.claim()
    assert await again.arbiter.acquire() == term + 1
    assert again.arbiter.led_meanwhile() == ""
    assert not await one.leads(term), "a copy of it that still runs has no claim any more"
    assert one.account.get_secret_value() == ""


async def test_a_lead_that_is_given_back_revokes_its_token(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    await one.arbiter.release(term)
    assert tokens(zone) == []
    assert not await one.leads(term)
    assert await one.lead() == term + 1
    assert one.arbiter.led_meanwhile() == ""


async def test_who_led_meanwhile_is_told(zone: Zone, controllers: list[Controller]):
    one, _ = await leading(zone, controllers)
    zone.zone.cut_off(one.machine)
    two = controllers[await zone.elected(but_not=one.machine)]
    assert await two.lead() == 2
    assert two.arbiter.led_meanwhile() == f"{one.name} led in term 1"


async def test_a_claim_that_came_to_nothing_is_not_taken_for_a_lead(zone: Zone, controllers: list[Controller]):
    """It was written, and the process never led by it."""
    one, term = await leading(zone, controllers)
    await one.arbiter.release(term)
    await one.claim()
    tried = one.arbiter._held.claim.term
    assert tried > term
    one.arbiter._drop(one.arbiter._held)
    assert await one.lead() > tried
    assert one.arbiter.led_meanwhile() == ""


async def test_terms_never_go_back_behind_our_own_record(zone: Zone, controllers: list[Controller]):
    one = controllers[await zone.elected()]
    one.last_term = 41
    assert await one.lead() == 42
    assert one.arbiter.led_meanwhile() == "who led before is not on record in OpenNebula"


async def test_two_controllers_beside_one_front_end_do_not_take_turns(zone: Zone, monkeypatch, beside: Beside):
    """As when all were given a virtual address: the second one waits until the first proves nothing any more."""
    monkeypatch.setattr(opennebula, "RIVAL_S", 1.0)
    server = await zone.elected()
    one, two = (beside(server, name=name) for name in ("one", "two"))
    term = await one.lead()
    async with anyio.create_task_group() as group:

        async def prove() -> None:
            while True:
                await one.arbiter.renew(term)
                await anyio.sleep(0.1)

        group.start_soon(prove)
        await two.never_leads(2.5)
        group.cancel_scope.cancel()
    assert await two.lead() == term + 1
    assert not await one.leads(term)


async def another_leads_and_it_comes_back(zone: Zone, controllers: list[Controller], one: Controller) -> Controller:
    """The oned beside `one` leads again, and its controller has seen nothing of what was in between."""
    zone.zone.cut_off(one.machine)
    two = controllers[await zone.elected(but_not=one.machine)]
    await two.lead()
    zone.zone.heal()
    await anyio.sleep(3 * BROADCAST_S)
    return two


async def test_a_claim_that_was_late_does_not_hide_who_led_before_it(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """It had no answer, and was carried out by the next leader's OpenNebula: the password is good there, too."""
    one, term = await leading(zone, controllers)
    await one.arbiter.release(term)
    before = attributes(zone)["HA_LEADER"]

    async def no_answer(*_: Any) -> str:
        raise ArbiterUnreachable("nothing")

    with monkeypatch.context() as patched:
        patched.setattr(one.arbiter._zone, "login", no_answer)
        with pytest.raises(ArbiterUnreachable):
            await one.arbiter.acquire()
    late, attributes(zone)["HA_LEADER"] = attributes(zone)["HA_LEADER"], before
    two = await another_leads_and_it_comes_back(zone, controllers, one)
    attributes(zone)["HA_LEADER"] = late
    assert not await two.leads(two.last_term), "it does not lead by the claim of another"
    await elect(zone, one.machine)
    assert await one.lead() > two.last_term
    assert one.arbiter.led_meanwhile() == "who led before is not on record in OpenNebula: term 2 was seen before"


async def test_a_claim_that_was_late_does_not_make_terms_go_back(zone: Zone, controllers: list[Controller]):
    """The third one has seen nothing of the terms before."""
    one, _ = await leading(zone, controllers)
    late = attributes(zone)["HA_LEADER"]
    one.last_term = 41
    one.arbiter._drop(one.arbiter._held)
    assert await one.lead() == 42
    attributes(zone)["HA_LEADER"] = late
    zone.zone.cut_off(one.machine)
    assert await controllers[await zone.elected(but_not=one.machine)].lead() == 43


async def test_whoever_led_between_our_look_and_our_claim_is_not_forgotten(zone: Zone, monkeypatch, beside: Beside):
    """Two beside one front-end, and the first of them stands still in between."""
    monkeypatch.setattr(opennebula, "RIVAL_S", 0.2)
    server = await zone.elected()
    one, two = (beside(server, name=name) for name in ("one", "two"))
    await one.arbiter.release(await one.lead())
    write, stood_still = one.arbiter._zone.write, False

    async def after_a_while(raft_term: int, values: dict[str, str], *rest: Any) -> None:
        nonlocal stood_still
        if "HA_LEADER" in values and not stood_still:
            stood_still = True
            assert await two.lead() == 2
        await write(raft_term, values, *rest)

    monkeypatch.setattr(one.arbiter._zone, "write", after_a_while)
    assert await one.lead() > 2
    assert stood_still
    assert one.arbiter.led_meanwhile() == "who led before is not on record in OpenNebula: term 2 was seen before"
    assert not await two.leads(2)


@pytest.mark.parametrize("what", ["claim", "token"])
async def test_a_claim_or_a_token_that_somebody_takes_away_ends_the_lead(
    zone: Zone, controllers: list[Controller], what: str
):
    one, term = await leading(zone, controllers)
    if what == "claim":
        attributes(zone).pop("HA_LEADER")
    else:
        zone.cloud.server.users.all[0].tokens.clear()
    with pytest.raises(NotLeading):
        await one.arbiter.prove(term)
    assert one.account.get_secret_value() == ""
    assert await one.lead() > term


async def test_an_endpoint_that_moves_to_another_front_end_proves_nothing(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    other = controllers[(one.machine + 1) % 3]
    one.arbiter._zone.local = other.arbiter._zone.local
    with pytest.raises(NotLeading, match="it must be the oned of this machine"):
        await one.arbiter.prove(term)
