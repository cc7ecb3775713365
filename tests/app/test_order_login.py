"""A new leader has the logins of before revoked, and orders by one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.opennebula import Client, Unauthenticated
from ha_controller.app import order_login
from ha_controller.app.order_login import OrderLogin
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterConfig, ArbiterContext, ArbiterUnreachable, NotLeading
from ha_controller.sim.cloud import EmbeddedCloud
from tests.app.test_yielding import Engine


class Leader:
    """A leadership, and what it orders with."""

    def __init__(self, cloud: EmbeddedCloud, client: Client, auth: str) -> None:
        self.users, self.now = cloud.server.users, 0.0
        secret = SecretStr(auth)
        account = OpenNebulaAccount(endpoint=cloud.endpoint, auth=secret, orders=secret)
        context = ArbiterContext(name="one-1", instance="ours", state_dir=Path("/nowhere"), last_term=lambda: 0)
        self.leadership = Leadership(arbiter=Engine(ArbiterConfig(), context), report=lambda told: None)
        self.client = client.as_user(secret)
        self.login = OrderLogin(account, self.leadership, client=lambda: self.client, clock=lambda: self.now)

    @property
    def session(self) -> str:
        return self.login.get_secret_value()


async def makes_no_token(user: str, token: str, valid_s: int) -> str:
    raise order_login.OpenNebulaError("one.user.login", "the zone has no leader", code=2048)


@pytest.fixture
async def cloud() -> AsyncIterator[EmbeddedCloud]:
    async with EmbeddedCloud(hosts=1, vms_per_host=1) as cloud:
        yield cloud


@pytest.fixture
async def client(cloud: EmbeddedCloud) -> AsyncIterator[Client]:
    async with Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=1.0) as client:
        yield client


async def test_the_next_leader_revokes_the_login_of_the_one_before(cloud, client):
    first, second = (Leader(cloud, client, cloud.session) for _ in range(2))
    await first.leadership._round()
    theirs = first.session
    assert theirs not in ("", cloud.session)
    assert second.session == ""
    await second.leadership._round()
    with pytest.raises(Unauthenticated):
        await client.as_user(SecretStr(theirs)).user()
    assert (await client.as_user(SecretStr(second.session)).user()).login_tokens == (second.session.partition(":")[2],)
    assert (await client.user()).id == 0, "who stands by reads by the password"


async def test_without_an_answer_of_opennebula_nobody_leads(cloud, client):
    leader = Leader(cloud, client, cloud.session)
    cloud.server.close()
    await leader.leadership._round()
    assert (leader.leadership.term, leader.session) == (None, "")
    assert "the logins of the leader before cannot be revoked" in leader.leadership.trouble


async def test_a_login_that_is_a_token_revokes_nothing_and_is_used_for_orders(cloud, client):
    token = await client.login("oneadmin", "", 600)
    leader = Leader(cloud, client, f"oneadmin:{token}")
    await leader.leadership._round()
    assert leader.session == f"oneadmin:{token}"
    assert "is a login token" in leader.login.why_own
    assert list(cloud.server.users.all[0].tokens) == [token]


async def test_a_token_that_somebody_has_revoked_is_taken_anew_while_it_leads(cloud, client):
    leader = Leader(cloud, client, cloud.session)
    await leader.leadership._round()
    before = leader.session
    await client.login("oneadmin", "", 0)
    other = await client.login("oneadmin", "", 600)
    await leader.login._look()
    assert leader.session not in ("", before)
    assert other in cloud.server.users.all[0].tokens


async def test_where_no_tokens_are_made_orders_go_by_the_password_after_a_while(cloud, client, monkeypatch):
    leader = Leader(cloud, client, cloud.session)

    monkeypatch.setattr(leader.client, "login", makes_no_token)
    while leader.now < order_login.REFUSED_FOR_S:
        with pytest.raises(ArbiterUnreachable):
            await leader.login.revoke_and_log_in(1)
        leader.now += 1.0
    await leader.login.revoke_and_log_in(1)
    assert "makes no login token" in leader.login.why_own
    assert leader.login.why_configured(await client.user()) == leader.login.why_own


async def test_as_soon_as_tokens_are_made_again_orders_go_by_one(cloud, client, monkeypatch):
    leader = Leader(cloud, client, cloud.session)

    with monkeypatch.context() as patched:
        patched.setattr(order_login, "REFUSED_FOR_S", 0.0)
        patched.setattr(leader.client, "login", makes_no_token)
        await leader.leadership._round()
        assert leader.session == cloud.session
        await leader.login._look()
        assert leader.session == cloud.session
    await leader.login._look()
    assert leader.session not in ("", cloud.session)
    assert leader.login.why_own == ""


async def test_one_refusal_an_hour_after_another_one_is_not_refused_for_long(cloud, client, monkeypatch):
    """Another one has led meanwhile, and the password that orders would go by is the old leader's, too."""
    leader = Leader(cloud, client, cloud.session)

    monkeypatch.setattr(leader.client, "login", makes_no_token)
    for leader.now in (0.0, 3600.0, 3600.0 + order_login.REFUSED_FOR_S / 2):
        with pytest.raises(ArbiterUnreachable):
            await leader.login.revoke_and_log_in(1)
    assert leader.session == ""


async def test_a_password_that_is_refused_leaves_the_lead_to_another_one(cloud, client):
    with anyio.fail_after(5), pytest.raises(NotLeading):
        await Leader(cloud, client, "oneadmin:wrong").login.revoke_and_log_in(1)


async def test_a_term_that_ended_while_tokens_are_tried_again_ends_nothing_but_the_try(cloud, client, monkeypatch):
    leader = Leader(cloud, client, cloud.session)

    with monkeypatch.context() as patched:
        patched.setattr(order_login, "REFUSED_FOR_S", 0.0)
        patched.setattr(leader.client, "login", makes_no_token)
        await leader.leadership._round()

    async def over(term: int) -> None:
        raise NotLeading(f"term {term} is over")

    async def a_moment_ago(term: int) -> bool:
        return term == 1

    monkeypatch.setattr(leader.leadership, "may_act", a_moment_ago)
    monkeypatch.setattr(leader.leadership.arbiter, "prove", over)
    await leader.login._look()
    assert leader.session == cloud.session
    assert not cloud.server.users.all[0].tokens
