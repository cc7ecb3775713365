"""The lead by OpenNebula's Raft: one leads, and what no majority shows proves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from lxml import etree
from pydantic import SecretStr
from zones import BROADCAST_S, ELECTION_S, Zone, zone_of_three

from ha_controller.adapters.arbiter import opennebula
from ha_controller.adapters.arbiter import zone as zone_of_arbiter
from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter, OpenNebulaConfig
from ha_controller.adapters.opennebula import Client, HostStatus, NoAnswer, Unauthenticated, Unconfirmed, Withheld
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterContext, ArbiterUnreachable, NotLeading
from ha_controller.sim.cloud import EmbeddedCloud

TAKEOVER_S = 0.4


class Controller:
    """The one that runs beside a front-end."""

    def __init__(
        self, zone: Zone, machine: int, *, name: str = "", session: str = "", beside: int | None = None
    ) -> None:
        self.machine, self.name = machine, name or f"c{machine}"
        self.last_term = 0
        endpoints = zone.zone.endpoints(viewer=machine)
        auth = SecretStr(session or zone.session)
        self.account = OpenNebulaAccount(
            endpoint=endpoints[machine if beside is None else beside], auth=auth, orders=auth
        )
        context = ArbiterContext(
            name=self.name,
            instance=f"id-{self.name}",
            state_dir=Path("/nowhere"),
            last_term=lambda: self.last_term,
            opennebula=self.account,
        )
        config = OpenNebulaConfig.model_construct(servers=(), timeout_s=0.4, takeover_s=TAKEOVER_S)
        self.arbiter = OpenNebulaArbiter(config, context)

    async def lead(self, within_s: float = 10.0) -> int:
        """Ask until it leads, and put the term on record."""
        with anyio.fail_after(within_s):
            while True:
                try:
                    term = await self.arbiter.acquire()
                except ArbiterUnreachable:
                    term = None
                if term is not None:
                    self.last_term = term
                    return term
                await anyio.sleep(0.05)

    async def claim(self) -> None:
        """Ask until it has claimed, and waits."""
        with anyio.fail_after(10):
            while self.arbiter._held is None:
                with suppress(ArbiterUnreachable):
                    assert await self.arbiter.acquire() is None
                await anyio.sleep(0.01)

    async def leads(self, term: int) -> bool:
        try:
            await self.arbiter.prove(term)
        except (NotLeading, ArbiterUnreachable):
            return False
        return True

    async def never_leads(self, for_s: float) -> None:
        with anyio.move_on_after(for_s):
            while True:
                with suppress(ArbiterUnreachable):
                    assert await self.arbiter.acquire() is None
                await anyio.sleep(0.05)


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    async with zone_of_three() as made:
        await made.elected()
        yield made


Beside = Callable[..., Controller]


@pytest.fixture
async def beside(zone: Zone) -> AsyncIterator[Beside]:
    """Makes the controller beside a front-end."""
    made: list[Controller] = []

    def make(machine: int, **settings: Any) -> Controller:
        made.append(Controller(zone, machine, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.arbiter.close()


@pytest.fixture
def controllers(beside: Beside) -> list[Controller]:
    return [beside(machine) for machine in range(3)]


async def leading(zone: Zone, controllers: list[Controller]) -> tuple[Controller, int]:
    one = controllers[await zone.elected()]
    return one, await one.lead()


def attributes(zone: Zone) -> dict[str, Any]:
    return zone.cloud.server.users.all[0].template


def tokens(zone: Zone) -> list[str]:
    return list(zone.cloud.server.users.all[0].tokens)


def secret(controller: Controller) -> str:
    return controller.account.orders.get_secret_value().partition(":")[2]


def writes(zone: Zone) -> int:
    return sum(call.method == "one.user.update" for call in zone.cloud.server.calls)


# --- one leads --------------------------------------------------------------------------------------------------------


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


async def elect(zone: Zone, machine: int) -> None:
    server = zone.zone.raft.servers[machine]
    zone.zone.raft.elect(server, zone.zone._clock())
    assert server.state == 3
    await anyio.sleep(3 * BROADCAST_S)


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


# --- what can go wrong with a zone ------------------------------------------------------------------------------------


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
    monkeypatch.setattr(zone_of_arbiter, "LOOK_S", 0.2)
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
        await zone.until(lambda: zone.zone.blocked(old) == 1)
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


# --- orders -----------------------------------------------------------------------------------------------------------


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
        await zone.until(lambda: zone.zone.blocked(old) == 1)
        zone.zone.freeze(old)
        zone.zone.thaw(*zone.others(old))
        await zone.elected(but_not=old)
        zone.zone.thaw(old)
    assert len(found) == 1
    assert zone.cloud.oned.hosts[1].state == 2


# --- proofs at the same time ------------------------------------------------------------------------------------------


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


# --- what is told -----------------------------------------------------------------------------------------------------


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
