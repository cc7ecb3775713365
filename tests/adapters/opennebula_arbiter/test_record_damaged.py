"""What somebody edited, removed or put back in OpenNebula is not gone on with, and ends no lead for nothing."""

from __future__ import annotations

from collections.abc import Callable
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
    without_right_to_the_host,
    write,
)
from zone_controllers import Beside, Controller, attributes
from zones import BROADCAST_S, Zone

from ha_controller.adapters.arbiter import oned_texts
from ha_controller.adapters.arbiter.oned_texts import RECORD, SLOTS
from ha_controller.core.incident import VmStage
from ha_controller.plugin import ArbiterUnreachable, NotLeading


def _removed_from_the_host(zone: Zone, before: dict[str, Any]) -> None:
    del on_host(zone)[SLOTS[1]]


def _edited_on_the_host(zone: Zone, before: dict[str, Any]) -> None:
    on_host(zone)[SLOTS[1]] = on_host(zone)[SLOTS[1]][:-1]


def _put_back_on_the_host(zone: Zone, before: dict[str, Any]) -> None:
    """Who edits a host in Sunstone writes all of it back, as it was when the page was opened."""
    on_host(zone)[SLOTS[1]] = before[SLOTS[0]]


def _host_is_gone(zone: Zone, before: dict[str, Any]) -> None:
    del zone.cloud.oned.hosts[1]


def _removed_from_the_user(zone: Zone, before: dict[str, Any]) -> None:
    del attributes(zone)[RECORD]


def _edited_on_the_user(zone: Zone, before: dict[str, Any]) -> None:
    attributes(zone)[RECORD] = attributes(zone)[RECORD].replace(" 2 ", " 3 ", 1)


def _claim_is_removed(zone: Zone, before: dict[str, Any]) -> None:
    """What is asked of people who put OpenNebula's database back."""
    del attributes(zone)["HA_LEADER"]


def _proof_is_removed(zone: Zone, before: dict[str, Any]) -> None:
    del attributes(zone)["HA_PROOF"]


def _an_older_version_led(zone: Zone, before: dict[str, Any]) -> None:
    """It proves its lead, and knows of no record."""
    attributes(zone)["HA_PROOF"] = "5 id-old nonce"


NO_HOST = "host 1, on which incident 1 stood, is not in OpenNebula, or our user has no right to it"
DAMAGES = {
    _removed_from_the_host: "incident 1 on host 1 (HA_RECORD_1) was removed by somebody",
    _edited_on_the_host: "incident 1 on host 1 (HA_RECORD_1) was changed by somebody",
    _put_back_on_the_host: "incident 1 on host 1 (HA_RECORD_1) was changed by somebody",
    _host_is_gone: NO_HOST,
    without_right_to_the_host: NO_HOST,
    _removed_from_the_user: "",
    _edited_on_the_user: "HA_RECORD of the OpenNebula user oneadmin was changed by somebody",
    _claim_is_removed: "",
    _proof_is_removed: "",
    _an_older_version_led: "",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
async def test_what_somebody_changed_or_removed_is_not_gone_on_with(
    zone: Zone, controllers: list[Controller], damage: Callable[[Zone, dict[str, Any]], None]
):
    one, term = await one_wrote(zone, controllers, OPENED)
    before = dict(on_host(zone))
    await write(one, term, MOVING)
    zone.zone.freeze(one.machine)
    damage(zone, before)
    two = controllers[await zone.elected(but_not=one.machine)]
    second, found = await taken_over(two)
    assert not found.whole
    assert found.damage == DAMAGES[damage]
    assert MOVING not in open_on(found) or "host" not in damage.__name__
    await write(two, second, replace(incident(4, host=0), hold="a first decision"))
    assert (await record(two).read(second)).whole, "from its first write on it has all again"


async def test_what_cannot_be_read_is_named_and_stays_for_people_to_see(zone: Zone, controllers: list[Controller]):
    one, _ = await one_wrote(zone, controllers, OPENED, incident(2, host=0))
    on_host(zone)[SLOTS[0]] = damaged = "changed" + on_host(zone)[SLOTS[0]]
    two, second, found = await the_next(zone, controllers, one)
    assert found.unread == {1: 1}
    assert open_on(found) == (incident(2, host=0),)
    await write(two, second, replace(incident(2, host=0), closed_at=2.0))
    await made_empty(zone, two, second, 0)
    assert on_host(zone)[SLOTS[0]] == damaged
    await write(two, second, incident(4))
    await write(two, second, replace(incident(4), closed_at=2.0))
    await made_empty(zone, two, second, 1)  # with the next incident of that host it is as any other


@pytest.mark.parametrize("who", ["leader", "standby"])
async def test_a_user_that_is_put_back_as_it_was_is_noticed(zone: Zone, controllers: list[Controller], who: str):
    """`oneuser update` writes all back that was there when the editor was opened."""
    one, term = await one_wrote(zone, controllers, OPENED)
    before = attributes(zone)[RECORD]
    await write(one, term, OPENED, next_incident=10)
    if who == "leader":
        attributes(zone)[RECORD] = before
        with pytest.raises(NotLeading, match="HA_RECORD of our OpenNebula user is not what we wrote"):
            await one.arbiter.prove(term)
        two = one
    else:
        await anyio.sleep(3 * BROADCAST_S)
        for each in controllers:
            if each is not one:
                await each.never_leads(0.1)
        zone.zone.freeze(one.machine)
        attributes(zone)[RECORD] = before
        two = controllers[await zone.elected(but_not=one.machine)]
    _, found = await taken_over(two)
    assert not found.whole
    assert found.damage == "HA_RECORD of the OpenNebula user oneadmin is older than what this controller knows"


async def test_a_database_that_was_put_back_behind_our_own_journal_is_noticed(
    zone: Zone, controllers: list[Controller], beside: Beside
):
    """Also by a process that was started since."""
    one, term = await one_wrote(zone, controllers, OPENED)
    before = dict(attributes(zone))
    await one.arbiter.release(term)
    second, found = await taken_over(one)
    assert found.whole
    await write(one, second, next_incident=20)
    attributes(zone).update(before)
    again = beside(one.machine, name=one.name)
    again.last_term = second
    _, found = await taken_over(again)
    assert (found.whole, open_on(found)) == (False, (OPENED,))
    assert "older than what this controller knows" in found.damage


async def test_a_record_of_a_newer_version_lets_this_one_not_lead(
    zone: Zone, controllers: list[Controller], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(oned_texts, "VERSION", 2)
    one, term = await one_wrote(zone, controllers, OPENED)
    await one.arbiter.release(term)
    monkeypatch.setattr(oned_texts, "VERSION", 1)
    claim = attributes(zone)["HA_LEADER"]
    with pytest.raises(ArbiterUnreachable, match="a newer ha-controller has written HA_RECORD"):
        await one.arbiter.acquire()
    assert attributes(zone)["HA_LEADER"] == claim


async def test_a_host_that_is_deleted_in_the_middle_ends_no_lead(zone: Zone, controllers: list[Controller]):
    """Nothing is done with it any more; what else is open goes on."""
    one, term = await one_wrote(zone, controllers, OPENED, incident(2, host=0))
    gone = zone.cloud.oned.hosts.pop(1)
    await write(one, term, MOVING, incident(2, host=0, stage=VmStage.MOVING))
    await one.arbiter.prove(term)
    await write(one, term, OVER)
    assert open_on(await record(one).read(term)) == (incident(2, host=0, stage=VmStage.MOVING),)
    assert gone.attributes[SLOTS[0]]


async def test_a_host_that_cannot_be_written_any_more_ends_no_lead(zone: Zone, controllers: list[Controller]):
    one, term = await one_wrote(zone, controllers, OPENED)
    without_right_to_the_host(zone, {})
    before = dict(on_host(zone))
    await write(one, term, MOVING)
    await write(one, term, OVER)
    await one.arbiter.renew(term)
    assert on_host(zone) == before
