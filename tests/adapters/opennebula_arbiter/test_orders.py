"""An order counts when a proof stands behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from pydantic import SecretStr
from zone_controllers import Controller, leading
from zones import BROADCAST_S, Zone

from ha_controller.adapters.opennebula import Client, HostStatus, NoAnswer, Unauthenticated, Unconfirmed, Withheld


async def order_of(controller: Controller, term: int, order: Callable[[Client], Awaitable[None]]) -> None:
    """As the recoverer sends them; the old leader never doubts its own clock here."""
    client = Client(controller.account.endpoint, controller.account.auth, orders=controller.account, timeout_s=0.5)

    async def may_send() -> bool:
        return True

    async def is_confirmed() -> bool:
        return await controller.leads(term)

    async with client:
        await order(client.proven(may_send, is_confirmed))


def disable(client: Client) -> Awaitable[None]:
    return client.set_host_status(1, HostStatus.DISABLE)


async def test_an_order_counts_when_a_proof_stands_behind_it(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    await order_of(one, term, disable)
    assert zone.cloud.oned.hosts[1].state == 4


async def test_an_error_of_a_login_keeps_its_words_and_hides_the_token():
    client = Client("http://127.0.0.1:1/RPC2", SecretStr("us:pass-word"), timeout_s=0.5)
    async with client:
        for token in ("", "c0ffee"):
            with pytest.raises(NoAnswer, match="cannot connect: ") as caught:
                await client.login("us", token, 0)
            assert "(hidden)" not in str(caught.value)


async def test_an_order_without_a_token_is_not_sent(zone: Zone, controllers: list[Controller]):
    one = controllers[await zone.elected()]
    with pytest.raises(Withheld, match="no login token"):
        await order_of(one, 1, disable)
    assert zone.cloud.oned.hosts[1].state == 2


async def test_orders_of_a_leader_that_was_followed_are_refused_or_lost(zone: Zone, controllers: list[Controller]):
    """It was paused between its proof and the packet: neither its clock nor the lead is looked at any more."""
    one, first = await leading(zone, controllers)
    old_orders = one.account.orders
    zone.zone.cut_off(one.machine)
    two = controllers[await zone.elected(but_not=one.machine)]
    await two.lead()
    one.account.orders = old_orders
    with pytest.raises(NoAnswer) as waits:
        await order_of(one, first, disable)
    assert waits.value.outcome_unknown
    info = await zone.ask(one.machine, "one.user.info", -1, False, session=old_orders.get_secret_value(),
                          viewer=one.machine)  # fmt: skip
    assert info[0] == "1", "the server that was cut off still takes its token"
    zone.zone.heal()
    await anyio.sleep(4 * BROADCAST_S)
    assert {zone.cloud.oned.hosts[1].state} == {2}, "it was lost"
    with pytest.raises(Unauthenticated):
        await order_of(one, first, disable)
    assert zone.cloud.oned.hosts[1].state == 2


async def test_an_order_that_was_acknowledged_and_lost_does_not_count(zone: Zone, controllers: list[Controller]):
    one, term = await leading(zone, controllers)
    old = one.machine
    found: list[Exception] = []

    async def order() -> None:
        try:
            client = Client(one.account.endpoint, one.account.auth, orders=one.account, timeout_s=10.0)

            async def may_send() -> bool:
                return True

            async with client:
                await disable(client.proven(may_send, lambda: one.leads(term)))
        except Unconfirmed as error:
            found.append(error)

    zone.zone.freeze(*zone.others(old))
    async with anyio.create_task_group() as group:
        group.start_soon(order)
        await zone.took_in(old)
        zone.zone.freeze(old)
        zone.zone.thaw(*zone.others(old))
        await zone.elected(but_not=old)
        zone.zone.thaw(old)
    assert len(found) == 1
    assert zone.cloud.oned.hosts[1].state == 2
