"""The shared record in a real etcd of three members: who does not lead writes nothing, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from on_record import incident

from ha_controller.adapters.arbiter.etcd_record import BYTES_MAX, OPERATIONS_MAX, _parts
from ha_controller.app import ledger as texts
from ha_controller.app.shared_ledger import WRITE_TIMEOUT_S
from ha_controller.core.incident import CloudRecord, Incident, VmStage
from ha_controller.lead import Shared, SharedRecord
from ha_controller.plugin import ArbiterUnreachable, NotLeading
from tests.peers.etcd import Etcd
from tests.peers.test_etcd import Controller, Lossy

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def healthy(require_peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One for all tests that do it no harm; each has a prefix of its own."""
    require_peer("etcd")
    cluster = Etcd(tmp_path_factory.mktemp("etcd"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def prefix() -> str:
    return f"/ha-controller/{uuid.uuid4().hex}"


@pytest.fixture
async def both(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[tuple[Controller, Controller]]:
    name = "etcd" if "etcd" in request.fixturenames else "healthy"
    endpoints = request.getfixturevalue(name).endpoints
    made = Controller("one", endpoints, prefix=prefix), Controller("two", endpoints, prefix=prefix)
    yield made
    for each in made:
        await each.arbiter.close()


@pytest.fixture
def one(both: tuple[Controller, Controller]) -> Controller:
    return both[0]


@pytest.fixture
def two(both: tuple[Controller, Controller]) -> Controller:
    return both[1]


async def written(controller: Controller) -> str | None:
    """How far the record goes, as it stands in etcd."""
    kept = await controller.arbiter._gateway.read(controller.arbiter._record.written_key)
    return None if kept is None else kept.value


async def put(controller: Controller, key: str, value: str) -> None:
    """What somebody else writes below the prefix."""
    await controller.arbiter._gateway.put(f"{controller.arbiter.config.prefix}/{key}", value, 0)


def record(controller: Controller) -> SharedRecord:
    assert controller.arbiter.record is not None
    return controller.arbiter.record


async def taken_over(controller: Controller) -> tuple[int, Shared]:
    """It leads, and has read the record."""
    term = await controller.lead()
    return term, await record(controller).read(term)


async def test_what_a_leader_writes_the_next_one_reads_and_it_is_whole_from_its_first_write_on(one, two):
    first, found = await taken_over(one)
    assert (found.texts, found.whole) == ({}, False), "nothing is there, which is not: nothing happened"
    await record(one).write(first, {"cloud": "a", "incident/1": "b"})
    await record(one).write(first, {"incident/1": None, "trust/2": "c"})
    await one.arbiter.release(first)
    second, found = await taken_over(two)
    assert (found.texts, found.whole, found.term) == ({"cloud": "a", "trust/2": "c"}, True, second)
    await two.arbiter.release(second)
    _, found = await taken_over(one)
    assert found.whole, "whoever wrote nothing ordered nothing"


async def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes(one, two):
    first, _ = await taken_over(one)
    await record(one).write(first, {"cloud": "a"})
    await one.arbiter._gateway.revoke(one.arbiter._held.lease)  # what the end of the lease does
    with pytest.raises(NotLeading, match="term 1 is over"):
        await record(one).write(first, {"cloud": "also when nobody leads"})
    second, _ = await taken_over(two)
    with pytest.raises(NotLeading):
        await record(one).write(first, {"cloud": "late"})
    await record(two).write(second, {"cloud": "b"})
    assert (await record(two).read(second)).texts == {"cloud": "b"}
    with pytest.raises(NotLeading):
        await record(two).read(first)


async def test_what_somebody_else_wrote_in_between_ends_the_term(one):
    term, _ = await taken_over(one)
    await record(one).write(term, {"cloud": "a"})
    await put(one, "record/written", "{}")
    with pytest.raises(NotLeading):
        await record(one).write(term, {"cloud": "b"})
    with pytest.raises(NotLeading):
        await record(one).read(term)


@asynccontextmanager
async def behind_a_lossy_way(etcd: Etcd, prefix: str) -> AsyncIterator[tuple[Lossy, Controller]]:
    between = Lossy(etcd.members[0])
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    controller = Controller("one", (f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",), prefix=prefix)
    try:
        yield between, controller
    finally:
        await controller.arbiter.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_a_write_whose_answer_is_lost_is_read_back(healthy: Etcd, prefix: str, lost: str):
    async with behind_a_lossy_way(healthy, prefix) as (between, controller):
        term, _ = await taken_over(controller)
        for text in ("a", "b"):
            between.lose = lost
            await record(controller).write(term, {"cloud": text})
            assert between.lose == "", "the transaction came by"
        assert (await record(controller).read(term)).texts == {"cloud": "b"}
        number = json.loads(await written(controller) or "")["number"]
        assert number == 2, "each was taken in once"


async def test_the_answer_is_lost_and_the_lead_too(healthy: Etcd, prefix: str, two):
    async with behind_a_lossy_way(healthy, prefix) as (between, controller):
        term, _ = await taken_over(controller)
        await record(controller).write(term, {"cloud": "a"})
        await two.arbiter._gateway.revoke(controller.arbiter._held.lease)
        between.lose = "answer"
        with pytest.raises(NotLeading):
            await record(controller).write(term, {"cloud": "b"})
        _, found = await taken_over(two)
        assert found.texts == {"cloud": "a"}


async def test_a_lead_that_was_asked_for_in_vain_makes_no_record_less_than_whole(healthy: Etcd, prefix: str):
    async with behind_a_lossy_way(healthy, prefix) as (between, controller):
        term, _ = await taken_over(controller)
        await record(controller).write(term, {"cloud": "a"})
        await controller.arbiter.release(term)
        for lost in ("request", "answer"):
            between.lose = lost
            term = await controller.lead()
            assert (await record(controller).read(term)).whole
            await controller.arbiter.release(term)


async def test_a_write_that_never_arrived_makes_no_record_less_than_whole(healthy: Etcd, prefix: str):
    async with behind_a_lossy_way(healthy, prefix) as (between, controller):
        term, _ = await taken_over(controller)
        await record(controller).write(term, {"cloud": "a"})
        between.lose = "request"
        with anyio.move_on_after(0.05):
            await record(controller).write(term, {"cloud": "b"})
        between.lose = ""
        await controller.arbiter.release(term)
        _, found = await taken_over(controller)
        assert found.whole


# --- what is not whole ------------------------------------------------------------------------------------------------


async def test_a_record_that_ends_before_the_last_term_is_not_whole(one, two):
    """A version without a record led meanwhile; or the leader died before it had written all for the first time."""
    first, _ = await taken_over(one)
    await record(one).write(first, {"cloud": "a"})
    await one.arbiter.release(first)
    await put(one, "term", json.dumps({"term": 7, "instance": "old", "name": "old"}))
    second, found = await taken_over(two)
    assert (second, found.texts, found.whole, found.term) == (8, {"cloud": "a"}, False, 1)
    await two.arbiter.release(second)
    third, found = await taken_over(one)
    assert not found.whole, "the one in between has made nothing whole"
    await record(one).write(third, {"cloud": "b"})
    await one.arbiter.release(third)
    assert (await taken_over(two))[1].whole


async def test_a_record_of_a_later_term_than_any_is_not_whole_and_no_term_is_given_twice(one):
    """The key `term` was lost or put back, the record was not."""
    first, _ = await taken_over(one)
    await record(one).write(first, {"cloud": "a"})
    await one.arbiter.release(first)
    one.last_term = one.arbiter._seen_term = 0
    await one.arbiter._gateway.put_if({}, {f"{one.arbiter.config.prefix}/term": None})
    term, found = await taken_over(one)
    assert (term, found.whole) == (2, False)


async def test_the_data_of_another_etcd_is_not_whole(etcd: Etcd, one, two):
    """Restored from a backup: what was written after it was made is not there."""
    first, _ = await taken_over(one)
    await record(one).write(first, {"cloud": "a"})
    await one.arbiter.release(first)
    term = await one.arbiter._gateway.read(f"{one.arbiter.config.prefix}/term")
    kept = {"term": term.value, "record/written": await written(one)}
    etcd.token = "restored"
    etcd.lose_data()
    assert await written(one) is None
    for key, value in kept.items():
        await put(one, key, value)
    assert not (await taken_over(two))[1].whole


async def test_a_record_older_than_what_this_process_wrote_is_not_whole(one):
    """The same etcd was put back, so its number is the same."""
    first, _ = await taken_over(one)
    await record(one).write(first, {"cloud": "a"})
    before = await written(one)
    await record(one).write(first, {"cloud": "b"})
    await one.arbiter.release(first)
    await put(one, "record/written", before)
    assert not (await taken_over(one))[1].whole


@pytest.mark.parametrize(
    "found",
    ['{"version": 2, "new": 1}', "", "[]", "nonsense", '{"version": 1, "x": 1}', '{"version": 1, "number": "5"}'],
)
async def test_a_record_of_a_newer_version_or_of_nobody_lets_this_one_not_lead(one, found: str):
    await put(one, "record/written", found)
    with pytest.raises(ArbiterUnreachable, match="newer ha-controller" if "new" in found else "none of ours"):
        await one.arbiter.acquire()
    assert await one.arbiter._gateway.read(f"{one.arbiter.config.prefix}/leader") is None


# --- how much fits ----------------------------------------------------------------------------------------------------


async def test_five_hundred_vms_of_one_host_are_one_transaction_and_a_move_changes_some_kilobytes(one, two):
    term, _ = await taken_over(one)
    opened = incident(1, vms=500)
    changes = texts.shared_changes([opened], CloudRecord(next_incident=2), [], {})
    assert sum(len(text) for text in changes.values() if text) < BYTES_MAX
    assert len(changes) < OPERATIONS_MAX
    await record(one).write(term, changes)
    assert json.loads(await written(one) or "")["number"] == 1, "all or nothing"
    moved = incident(1, vms=500).vms[:1] + opened.vms[1:]
    later = texts.shared_changes([Incident(**_fields(opened, vms=moved))], None, [], changes)
    assert {key: text for key, text in later.items() if changes.get(key) != text} == {}
    one_moving = (incident(1, 1, stage=VmStage.MOVING).vms[0], *opened.vms[1:])
    later = texts.shared_changes([Incident(**_fields(opened, vms=one_moving))], None, [], changes)
    different = {key: text for key, text in later.items() if changes.get(key) != text}
    assert list(different) == ["incident/1/vms/0000"]
    assert len(different["incident/1/vms/0000"] or "") < 25_000
    await record(one).write(term, different)
    await one.arbiter.release(term)
    _, found = await taken_over(two)
    (read,) = texts.of_shared(found.texts).incidents
    assert read == Incident(**_fields(opened, vms=one_moving))


async def test_what_is_too_much_for_one_transaction_is_never_read_as_if_it_were_all(one, two):
    """The writer dies before the last of several: nothing was ordered yet, and what is there does not count."""
    term, _ = await taken_over(one)
    many = [incident(1, vms=300), incident(2, vms=1500, host=2)]
    changes = texts.shared_changes(many, CloudRecord(next_incident=4), [], {})
    parts = 0
    commit = one.arbiter._record._commit

    async def dies(*given: object) -> None:
        nonlocal parts
        parts += 1
        if parts == 2:
            raise ArbiterUnreachable("killed")
        await commit(*given)

    one.arbiter._record._commit = dies
    with pytest.raises(ArbiterUnreachable):
        await record(one).write(term, changes)
    await one.arbiter.release(term)
    second, found = await taken_over(two)
    assert not found.whole
    state = texts.of_shared(found.texts)
    assert all(each in many for each in state.incidents), "whole incidents, or none"
    assert set(state.unread) == {2}, "VMs without their incident are known as such"
    await record(two).write(second, changes)
    assert texts.of_shared((await record(two).read(second)).texts).incidents == tuple(many)


def test_an_incident_is_never_torn_apart_if_it_fits_into_a_transaction():
    changes = texts.shared_changes(
        [incident(number, vms=400, host=number) for number in range(1, 8)], CloudRecord(), [], {}
    )
    parts = [{key.rpartition("/vms/")[0] or key for key in part} - {"cloud"} for part in _parts(changes, {})]
    assert len(parts) > 2
    assert sorted(key for part in parts for key in part) == [f"incident/{number}" for number in range(1, 8)]
    assert {key: text for part in _parts(changes, {}) for key, text in part.items()} == changes
    giant = texts.shared_changes([incident(1, vms=3000)], None, [], {})
    parts = list(_parts(giant, {}))
    assert len(parts) > 1
    assert all(len(part) <= OPERATIONS_MAX for part in parts)
    assert list(parts[-1])[-1] == "incident/1", "its VMs come before itself"


def test_an_incident_that_lacks_some_of_its_vms_is_refused():
    changes = {key: text for key, text in texts.shared_changes([incident(1, 40)], None, [], {}).items() if text}
    del changes["incident/1/vms/0001"]
    with pytest.raises(texts.JournalError, match="24 VMs of 40"):
        texts.of_shared(changes)


def test_what_is_over_and_what_became_fewer_is_deleted():
    known = {key: text for key, text in texts.shared_changes([incident(1, 40)], None, [], {}).items() if text}
    fewer = texts.shared_changes([incident(1, 10)], None, [], known)
    assert {key for key, text in fewer.items() if text is None} == {"incident/1/vms/0001", "incident/1/vms/0002"}
    over = texts.shared_changes([Incident(**_fields(incident(1, 40), closed_at=2.0))], None, [], known)
    assert (set(over), set(over.values())) == (set(known), {None})
    assert next(iter(over)) == "incident/1", "its VMs are not read without it"


def test_a_field_of_a_newer_version_is_refused():
    changes = {key: text for key, text in texts.shared_changes([incident(1, 1)], None, [], {}).items() if text}
    head = json.loads(changes["incident/1"])
    head["incident"]["holds_everything_back"] = True
    with pytest.raises(texts.NewerJournal, match="holds_everything_back"):
        texts.of_shared({**changes, "incident/1": json.dumps(head)})


def _fields(of: Incident, **changes: object) -> dict[str, object]:
    return {name: getattr(of, name) for name in of.__dataclass_fields__} | changes


# --- etcd in trouble --------------------------------------------------------------------------------------------------


async def test_an_etcd_that_is_full_takes_nothing_and_says_so(etcd: Etcd, one, two):
    term, _ = await taken_over(one)
    alarm = {"action": "ACTIVATE", "memberID": "0", "alarm": "NOSPACE"}  # what a member does whose quota is used up
    for member in etcd.members:
        number = etcd.ask(member, "/v3/maintenance/status", {})["header"]["member_id"]
        etcd.ask(member, "/v3/maintenance/alarm", {**alarm, "memberID": number})
    with pytest.raises(ArbiterUnreachable, match=r"database space exceeded\. Make room in etcd"):
        await record(one).write(term, {"cloud": "a"})
    await one.arbiter.release(term)
    with pytest.raises(ArbiterUnreachable, match="space exceeded"):
        await two.arbiter.acquire()


async def test_a_frozen_member_and_a_new_leader_of_etcd_only_delay_a_write(etcd: Etcd, one):
    term, _ = await taken_over(one)
    etcd.freeze(etcd.leader())
    with anyio.fail_after(WRITE_TIMEOUT_S):
        await record(one).write(term, {"cloud": "a"})
    assert (await record(one).read(term)).texts == {"cloud": "a"}


async def test_without_a_quorum_nothing_is_written_and_nothing_is_read(etcd: Etcd, one):
    term, _ = await taken_over(one)
    await record(one).write(term, {"cloud": "a"})
    etcd.freeze(*etcd.members[1:])
    with pytest.raises(ArbiterUnreachable):
        await record(one).read(term)
    with anyio.move_on_after(3) as waiting:
        await record(one).write(term, {"cloud": "b"})
    assert waiting.cancelled_caught, "what is not known is tried until the deadline, and never taken for done"
