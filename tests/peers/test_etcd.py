"""The lead by a real etcd of three members: one leads, terms only grow, and what no quorum says proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from ha_controller.adapters.arbiter.etcd import EtcdArbiter, EtcdConfig
from ha_controller.plugin import ArbiterContext, ArbiterUnreachable, NotLeading
from tests.peers.certificates import self_signed
from tests.peers.etcd import Etcd, Member

pytestmark = pytest.mark.peer

LEASE_S = 5
PREFIX = "/ha-controller"
PERMISSION = {"permType": "READWRITE", "key": "L2hhLQ==", "range_end": "L2hhLg=="}  #: /ha- to /ha.


class Controller:
    """An arbiter, and the highest term in the record of its controller."""

    def __init__(self, name: str, endpoints: tuple[str, ...], **settings: Any) -> None:
        self.last_term = 0
        written = {"lease": f"{LEASE_S}s", "timeout": "500ms", "prefix": PREFIX, **settings}
        self.arbiter = EtcdArbiter(
            EtcdConfig.model_validate({"endpoints": endpoints, **written}),
            ArbiterContext(
                name=name, instance=f"id-{name}", state_dir=Path("/nowhere"), last_term=lambda: self.last_term
            ),
        )

    async def lead(self) -> int:
        """Ask until it leads, and write it on its record, like the controller does before anything else."""
        with anyio.fail_after(20):
            while True:
                try:
                    term = await self.arbiter.acquire()
                except ArbiterUnreachable:
                    term = None
                if term is not None:
                    self.last_term = term
                    return term
                await anyio.sleep(0.1)

    async def leads(self, term: int) -> bool:
        try:
            await self.arbiter.prove(term)
        except (NotLeading, ArbiterUnreachable):
            return False
        return True


@pytest.fixture
async def controllers(etcd: Etcd) -> AsyncIterator[tuple[Controller, Controller]]:
    made = Controller("one", etcd.endpoints), Controller("two", etcd.endpoints)
    yield made
    for each in made:
        await each.arbiter.close()


async def eventually(what: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    with anyio.fail_after(within_s):
        while not await what():
            await anyio.sleep(0.05)


# --- who leads --------------------------------------------------------------------------------------------------------


async def test_one_leads_and_the_other_sees_who(controllers):
    one, two = controllers
    assert await one.arbiter.acquire() == 1
    assert await two.arbiter.acquire() is None
    await one.arbiter.renew(1)
    await one.arbiter.prove(1)
    for asked in (one, two):
        members = await asked.arbiter.members()
        assert [(m.name, m.instance, m.leads, m.term) for m in members] == [
            ("one", "id-one", True, 1), ("two", "id-two", False, None)
        ]  # fmt: skip
    with pytest.raises(NotLeading):
        await two.arbiter.prove(1)


async def test_a_lead_that_is_given_back_is_taken_at_once_in_a_higher_term(controllers):
    one, two = controllers
    assert await one.arbiter.acquire() == 1
    await one.arbiter.release(1)
    assert await two.arbiter.acquire() == 2
    assert not await one.leads(1)
    await one.arbiter.release(1)
    assert await two.leads(2), "an old term gives back nothing"


async def test_of_many_who_ask_at_once_one_gets_it_and_no_term_is_given_twice(etcd: Etcd):
    crowd = [Controller(f"c{number}", etcd.endpoints) for number in range(5)]
    terms: list[int] = []
    for _ in range(10):
        answers: dict[Controller, int | None] = {}

        async def ask(each: Controller, answers: dict[Controller, int | None] = answers) -> None:
            answers[each] = await each.arbiter.acquire()

        async with anyio.create_task_group() as group:
            for each in crowd:
                group.start_soon(ask, each)
        ((winner, term),) = [(each, term) for each, term in answers.items() if term is not None]
        terms.append(term)
        await winner.arbiter.release(term)
    assert terms == sorted(set(terms))
    for each in crowd:
        await each.arbiter.close()


async def test_a_leader_that_falls_silent_is_followed_when_its_lease_has_ended(controllers):
    one, two = controllers
    loop = asyncio.get_running_loop()
    assert await one.arbiter.acquire() == 1
    asked_at = loop.time()
    await one.arbiter.renew(1)
    assert await two.lead() == 2
    assert one.arbiter.lead_s < LEASE_S, "our own deadline comes first"
    assert LEASE_S - 0.5 < loop.time() - asked_at < LEASE_S + 5
    with pytest.raises(NotLeading, match="two leads, term 2"):
        await one.arbiter.prove(1)
    with pytest.raises(NotLeading):
        await one.arbiter.renew(1)


# --- whose record is whole --------------------------------------------------------------------------------------------


async def test_who_led_meanwhile_is_told_only_when_our_own_record_has_a_gap(controllers):
    one, two = controllers
    first = await one.lead()
    new = "who led before is not on record in etcd"
    assert one.arbiter.led_meanwhile() == new, "an etcd that is new looks like one that lost its data"
    await one.arbiter.release(first)
    second = await one.lead()
    assert one.arbiter.led_meanwhile() == "", "it was us"
    await one.arbiter.release(second)
    await two.arbiter.release(await two.lead())
    assert two.arbiter.led_meanwhile() == "one led in term 2"
    await one.lead()
    assert one.arbiter.led_meanwhile() == "two led in term 3"


async def test_a_copy_of_a_state_directory_is_not_taken_for_the_original(etcd: Etcd):
    """The same instance, but its record ends before the last term."""
    original, copy = Controller("one", etcd.endpoints), Controller("one", etcd.endpoints)
    copy.last_term = await original.lead()
    await original.arbiter.release(copy.last_term)
    await original.arbiter.release(await original.lead())
    await copy.lead()
    assert copy.arbiter.led_meanwhile() == "one led in term 2"
    for each in (original, copy):
        await each.arbiter.close()


async def test_an_etcd_that_lost_its_data_makes_no_standby_believe_that_nobody_led(etcd: Etcd, controllers):
    """The standby has no record of its own, and has seen who led; the term it saw is not given a second time."""
    one, two = controllers
    assert await one.lead() == 1
    assert await two.arbiter.acquire() is None
    etcd.lose_data()
    assert await two.lead() == 2
    assert two.arbiter.led_meanwhile() == "who led before is not on record in etcd: it told of term 1 before"


async def test_an_etcd_with_the_data_of_another_is_not_taken_for_the_one_we_led_in(etcd: Etcd, controllers):
    """Restored from a backup: the last term in it is ours, and others may have led after it was made."""
    one, _ = controllers
    await one.arbiter.release(await one.lead())
    key = f"{PREFIX}/term"
    kept = await one.arbiter._gateway.read(key)
    assert kept is not None
    etcd.token = "restored"
    etcd.lose_data()
    assert await one.arbiter._gateway.read(key) is None
    await one.arbiter._gateway.put(key, kept.value, 0)
    assert await one.lead() == 2
    assert one.arbiter.led_meanwhile() == "one led in term 1, and etcd's data was put back since"


async def test_terms_never_go_back_behind_our_own_record_also_when_etcd_is_new(etcd: Etcd, tmp_path: Path):
    one = Controller("one", etcd.endpoints)
    one.last_term = 41
    assert await one.lead() == 42
    assert one.arbiter.led_meanwhile() == "who led before is not on record in etcd"
    await one.arbiter.close()


# --- members of etcd --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_the_lead_outlives_the_leader_of_etcd(etcd: Etcd, fault: str):
    """With the default lease: an election of etcd takes one to two seconds, a frozen member costs a time-out more."""
    settings = {"lease": "10s", "timeout": "1s"}
    one, two = (Controller(name, etcd.endpoints, **settings) for name in ("one", "two"))
    term = await one.lead()
    getattr(etcd, fault)(etcd.leader())

    async def renewed() -> bool:
        try:
            await one.arbiter.renew(term)
        except ArbiterUnreachable:
            return False
        return True

    await eventually(renewed, within_s=one.arbiter.lead_s)
    await one.arbiter.prove(term)
    assert await two.arbiter.acquire() is None
    for each in (one, two):
        await each.arbiter.close()


async def test_without_a_quorum_nothing_is_proven_though_a_lone_member_still_knows_the_key(etcd: Etcd, controllers):
    one, two = controllers
    term = await one.lead()
    leader = etcd.leader()
    others = [member for member in etcd.members if member is not leader]
    etcd.freeze(*others)
    with pytest.raises(ArbiterUnreachable):
        await one.arbiter.prove(term)
    with pytest.raises(ArbiterUnreachable):
        await one.arbiter.renew(term)
    with pytest.raises(ArbiterUnreachable):
        await two.arbiter.acquire()
    assert etcd.serializable(leader, f"{PREFIX}/leader"), "what must never decide"
    etcd.heal()
    assert await two.lead() == term + 1, "its lease ended, as nothing prolonged it"
    assert not await one.leads(term)


async def test_after_an_outage_whoever_led_before_goes_first(etcd: Etcd, controllers):
    """Its record is whole: it goes on with what is open, where another one would leave that to a person."""
    one, two = controllers
    term = await one.lead()
    etcd.kill(*etcd.members)
    for each in (one, two):
        with pytest.raises(ArbiterUnreachable):
            await each.arbiter.acquire()
    await one.arbiter.release(term)
    etcd.heal()
    etcd.wait_until_well()
    assert await two.arbiter.acquire() is None
    assert await one.lead() == term + 1
    assert one.arbiter.led_meanwhile() == ""
    await one.arbiter.release(term + 1)
    assert await two.lead() == term + 2, "it waits for the length of a lease, not for ever"
    assert two.arbiter.led_meanwhile() == "one led in term 2"


async def test_all_members_are_killed_and_started_again(etcd: Etcd, controllers):
    one, two = controllers
    first = await one.lead()
    etcd.kill(*etcd.members)
    with pytest.raises(ArbiterUnreachable, match="etcd does not answer"):
        await one.arbiter.prove(first)
    etcd.heal()
    etcd.wait_until_well()
    await eventually(lambda: one.leads(first))
    await one.arbiter.release(first)
    assert await two.lead() == first + 1


async def test_a_member_that_was_cut_off_and_frozen_keeps_nobody_in_the_lead(etcd: Etcd, controllers):
    """It answers by itself for a moment when it thaws: the quorum has moved on."""
    one, two = controllers
    first = await one.lead()
    old = etcd.leader()
    alone = Controller("one", (old.endpoint,))
    alone.arbiter._held = one.arbiter._held
    etcd.freeze(old)
    assert await two.lead() == first + 1, "one did not renew"
    etcd.thaw(old)
    assert not await alone.leads(first)
    with pytest.raises((NotLeading, ArbiterUnreachable)):
        await alone.arbiter.renew(first)
    await alone.arbiter.close()


# --- answers that are lost --------------------------------------------------------------------------------------------


class Lossy:
    """Stands before a member: hands requests on, and loses the answer, or the request, of the next transaction."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.lose = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                body = await reader.readexactly(length)
                lose, self.lose = (self.lose, "") if b"/v3/kv/txn" in head else ("", self.lose)
                if lose == "request":
                    return
                path = head.split()[1].decode()
                answer = await asyncio.to_thread(self._forward, path, body)
                if lose == "answer":
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def _forward(self, path: str, body: bytes) -> bytes:
        import urllib.request

        with urllib.request.urlopen(urllib.request.Request(self.member.endpoint + path, body), timeout=5) as response:
            return bytes(response.read())


@pytest.fixture
async def lossy(etcd: Etcd) -> AsyncIterator[tuple[Lossy, str]]:
    between = Lossy(etcd.members[0])
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    yield between, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_a_transaction_whose_answer_is_lost_is_read_back_and_never_sent_twice(lossy, etcd: Etcd, lost: str):
    between, endpoint = lossy
    one, two = Controller("one", (endpoint,)), Controller("two", etcd.endpoints)
    between.lose = lost
    term = await one.arbiter.acquire()
    assert between.lose == "", "the transaction came by"
    if lost == "answer":
        assert term == 1
        await one.arbiter.prove(1)
        assert await two.arbiter.acquire() is None
    else:
        assert term is None
        assert await two.arbiter.acquire() == 1
        assert not await one.leads(1)
    for each in (one, two):
        await each.arbiter.close()


async def test_an_order_to_take_the_lead_that_is_cancelled_leaves_no_key_behind(etcd: Etcd, controllers):
    one, two = controllers
    for delay_s in (0.001, 0.003, 0.006, 0.01, 0.02):
        with anyio.move_on_after(delay_s):
            await one.arbiter.acquire()
        held = one.arbiter._held
        if held is not None:
            await one.arbiter.release(held.term)
    assert await two.arbiter.acquire() is not None


# --- TLS and users ----------------------------------------------------------------------------------------------------


async def test_tls_with_a_client_certificate_and_a_user_with_a_password(
    require_peer: Callable[[str], str], tmp_path: Path
):
    require_peer("etcd")
    server, stranger, named = (self_signed(tmp_path, name) for name in ("server", "stranger", "named"))
    client = self_signed(tmp_path, "client", has_common_name=False)
    authorities = tmp_path / "authorities.pem"
    authorities.write_text("".join(each.cert.read_text() for each in (server, client, named)))
    cluster = Etcd(tmp_path / "etcd", server=server, client_ca=authorities)
    ours = {"ca_file": str(server.cert), "cert_file": str(client.cert), "key_file": str(client.key)}
    theirs = {"ca_file": str(server.cert), "cert_file": str(stranger.cert), "key_file": str(stranger.key)}
    try:
        cluster.start()
        # three members that have just started, and hash passwords, have time
        root = Controller("root", cluster.endpoints, **ours, lease="60s", timeout="5s")
        for path, body in (
            ("user/add", {"name": "root", "password": "root-secret"}), ("user/grant", {"user": "root", "role": "root"}),
            ("user/add", {"name": "ha", "password": "ha-secret"}), ("role/add", {"name": "ha"}),
            ("role/grant", {"name": "ha", "perm": PERMISSION}),
            ("user/grant", {"user": "ha", "role": "ha"}), ("enable", {}),
        ):  # fmt: skip
            await root.arbiter._gateway._call(f"/v3/auth/{path}", body, bool)
        await root.arbiter.close()
        user = {**ours, "username": "ha", "password": "ha-secret"}
        one = Controller("one", cluster.endpoints, **user)
        assert await one.lead() == 1
        await one.arbiter.renew(1)

        for refused in ({**user, "password": "wrong-secret"}, theirs, {"ca_file": str(stranger.cert)}):
            other = Controller("other", cluster.endpoints, **refused)
            with pytest.raises(ArbiterUnreachable) as caught:
                await other.arbiter.acquire()
            assert "secret" not in str(caught.value)
            await other.arbiter.close()
        both = {**user, "cert_file": str(named.cert), "key_file": str(named.key)}
        other = Controller("other", cluster.endpoints, **both)
        with pytest.raises(ArbiterUnreachable, match="CommonName"):
            await other.arbiter.acquire()
        await other.arbiter.close()
        outside = Controller("other", cluster.endpoints, **{**user, "prefix": "/elsewhere"})
        with pytest.raises(ArbiterUnreachable, match="permission denied"):
            await outside.arbiter.acquire()
        await outside.arbiter.close()

        cluster.kill(*cluster.members)  # a restarted member knows no login of before
        cluster.heal()
        await eventually(lambda: one.leads(1), within_s=20)
        await one.arbiter.close()
    finally:
        cluster.stop()


async def test_an_address_that_is_no_etcd_is_told_and_proves_nothing():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n<html/>")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one = Controller("one", (f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",))
    with pytest.raises(ArbiterUnreachable, match="etcd does not answer"):
        await one.arbiter.acquire()
    await one.arbiter.close()
    server.close()
