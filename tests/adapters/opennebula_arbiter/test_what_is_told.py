"""Zones that cannot be used, and what people are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from lxml import etree
from pydantic import SecretStr
from zone_controllers import Beside, attributes, tokens
from zones import BROADCAST_S, Zone, zone_of_three

from ha_controller.adapters.arbiter import opennebula
from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter, OpenNebulaConfig
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterContext, ArbiterUnreachable
from ha_controller.sim.cloud import EmbeddedCloud


async def test_a_lone_opennebula_is_no_zone():
    async with EmbeddedCloud(hosts=1, vms_per_host=1) as cloud:
        account = OpenNebulaAccount(
            endpoint=cloud.endpoint, auth=SecretStr(cloud.session), orders=SecretStr(cloud.session)
        )
        context = ArbiterContext(
            name="us", instance="us", state_dir=Path("/nowhere"), last_term=lambda: 0, opennebula=account
        )
        arbiter = OpenNebulaArbiter(OpenNebulaConfig(), context)
        with pytest.raises(ArbiterUnreachable, match="needs a zone of three front-ends or more"):
            await arbiter.acquire()
        await arbiter.close()


async def test_two_front_ends_are_too_few_and_two_zones_too_many(zone: Zone, monkeypatch, beside: Beside):
    one = beside(await zone.elected())
    every = zone.zone.endpoints
    monkeypatch.setattr(zone.zone, "endpoints", lambda viewer=0: dict(list(every(viewer).items())[:2]))
    with pytest.raises(ArbiterUnreachable, match="the zone has 2 servers"):
        await one.arbiter.acquire()
    monkeypatch.undo()
    answer = zone.zone._answer

    async def federation(front_end: Any, viewer: int, body: bytes) -> str:
        found = await answer(front_end, viewer, body)
        return found.replace(
            "&lt;/ZONE_POOL&gt;", "&lt;ZONE&gt;&lt;ID&gt;100&lt;/ID&gt;&lt;/ZONE&gt;&lt;/ZONE_POOL&gt;"
        )

    monkeypatch.setattr(zone.zone, "_answer", federation)
    with pytest.raises(ArbiterUnreachable, match="a federation of 2 zones"):
        await one.arbiter.acquire()


async def test_front_ends_of_two_zones_in_one_configuration_are_refused(zone: Zone, beside: Beside):
    """Two of them say that they are the same server."""
    async with zone_of_three() as elsewhere:
        await elsewhere.elected()
        leader = await zone.elected()
        one = beside(leader)
        one.arbiter._zone._addresses = (
            *zone.zone.endpoints(leader).values(),
            *elsewhere.zone.endpoints(leader).values(),
        )
        with pytest.raises(ArbiterUnreachable, match="All front-ends must be of one zone"):
            await one.arbiter.acquire()


async def test_front_ends_may_be_named_in_the_configuration(zone: Zone, beside: Beside):
    leader = await zone.elected()
    one = beside(leader)
    one.arbiter._zone._addresses = tuple(zone.zone.endpoints(leader).values())
    assert await one.lead() == 1
    await one.arbiter.renew(1)


async def test_a_login_token_in_the_place_of_the_password_is_refused_and_stays(zone: Zone, beside: Beside):
    leader = await zone.elected()
    token = (await zone.ask(leader, "one.user.login", "oneadmin", "", 600, -1))[1]
    await anyio.sleep(3 * BROADCAST_S)
    one = beside(leader, session=f"oneadmin:{token}")
    with pytest.raises(ArbiterUnreachable, match=r"opennebula\.auth is a login token") as caught:
        await one.arbiter.acquire()
    assert token not in str(caught.value)
    assert tokens(zone) == [token]


async def test_what_is_no_claim_gives_nobody_a_low_term(zone: Zone, beside: Beside):
    one = beside(await zone.elected())
    attributes(zone)["HA_LEADER"] = "me"
    with pytest.raises(ArbiterUnreachable, match="HA_LEADER of the OpenNebula user oneadmin is no claim of ours"):
        await one.arbiter.acquire()


async def test_a_standby_says_when_nobody_leads(zone: Zone, monkeypatch, beside: Beside):
    monkeypatch.setattr(opennebula, "NOBODY_S", 0.3)
    standby = beside(zone.others(await zone.elected())[0])
    assert await standby.arbiter.acquire() is None
    await anyio.sleep(0.4)
    with pytest.raises(ArbiterUnreachable, match="no controller proves that it leads"):
        await standby.arbiter.acquire()


async def test_a_user_that_may_not_see_the_zone_is_told_how_it_may(zone: Zone, beside: Beside):
    from ha_controller.sim.oned_users import OnedUser

    zone.cloud.server.users.add(OnedUser(id=3, name="plain", password="plain-secret", admin=False))
    await anyio.sleep(3 * BROADCAST_S)
    one = beside(await zone.elected(), session="plain:plain-secret")
    with pytest.raises(ArbiterUnreachable, match="ZONE") as caught:
        await one.arbiter.acquire()
    assert "plain-secret" not in str(caught.value)


def test_the_client_reads_a_zone_as_it_was_recorded():
    from ha_controller.adapters.opennebula.documents import RAFT, ZONES
    from ha_controller.adapters.opennebula.reader import DocumentReader
    from ha_controller.sim import oned_xml

    reader = DocumentReader(ZONES)
    reader.feed(oned_xml.pool("ZONE_POOL", [oned_xml.zone({0: "http://192.0.2.11:2633/RPC2"})]))
    [found] = reader.close()
    assert (found.id, found.servers) == (0, {0: "http://192.0.2.11:2633/RPC2"})
    status = DocumentReader(RAFT)
    text = oned_xml.raft(SERVER_ID=2, STATE=3, TERM=7, VOTEDFOR=-1, COMMIT=9, LOG_INDEX=10, LOG_TERM=7)
    assert etree.fromstring(text).tag == "RAFT"
    status.feed(text)
    [raft] = status.close()
    assert (raft.id, raft.state, raft.term, raft.commit, raft.log_index) == (2, 3, 7, 9, 10)
