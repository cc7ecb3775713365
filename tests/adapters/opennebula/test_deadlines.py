"""A deadline on every call, and a few connections that are shared so that orders never wait for pools."""

from __future__ import annotations

import asyncio
import time

import pytest

from ha_controller.adapters.opennebula import BadReply, Client, HostStatus, NoAnswer
from ha_controller.adapters.opennebula.gate import Gate, Lane

MARGIN_S = 1.5  #: how late a busy test machine may notice a deadline


class Session:
    def get_secret_value(self) -> str:
        return "tester:correct-horse"


async def fails_by_deadline(call, *, timeout_s: float) -> NoAnswer:
    started = time.monotonic()
    with pytest.raises(NoAnswer) as caught:
        await call
    assert time.monotonic() - started < timeout_s + MARGIN_S
    return caught.value


async def test_a_black_hole_ends_at_the_deadline(serve, client_of, hang, until):
    peer = await serve({"one.vm.action": hang})
    async with client_of(peer, timeout_s=0.2) as client:
        error = await fails_by_deadline(client.vm_action(1, "resume"), timeout_s=0.2)
    assert error.outcome_unknown
    assert error.retryable
    assert "0.2 s" in str(error)
    await until(lambda: peer.connections == 0)


async def test_a_body_that_drips_ends_at_the_deadline(serve, client_of, until):
    async def drip(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<?xml version='1.0'?><methodResponse>")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    peer = await serve({"one.hostpool.monitoring": drip})
    async with client_of(peer, timeout_s=0.3) as client:
        error = await fails_by_deadline(client.hosts(), timeout_s=0.3)
    assert error.outcome_unknown
    await until(lambda: peer.connections == 0)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<methodResponse><params>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\nConnection: close\r\n\r\n<methodResponse><params>",
    ],
)
async def test_a_connection_that_closes_early_is_no_answer(serve, client_of, start):
    async def close_early(writer):
        writer.write(start)
        await writer.drain()

    peer = await serve({"one.vm.migrate": close_early})
    async with client_of(peer) as client:
        with pytest.raises(NoAnswer) as caught:
            await client.migrate(1, 2)
    assert caught.value.outcome_unknown


async def test_a_refused_connection_leaves_no_doubt_that_nothing_was_sent(serve, client_of):
    peer = await serve()
    free = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = free.sockets[0].getsockname()[1]
    free.close()
    await free.wait_closed()
    peer.endpoint = f"http://127.0.0.1:{port}/RPC2"
    async with client_of(peer) as client:
        with pytest.raises(NoAnswer) as caught:
            await client.migrate(1, 2)
    assert not caught.value.outcome_unknown
    assert caught.value.retryable


async def test_a_body_without_end_is_given_up_before_it_fills_the_memory(serve, client_of, until):
    async def flood(writer):
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<methodResponse><params><param><value><array><data>"
            b"<value><boolean>1</boolean></value><value><string>"
        )
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    peer = await serve({"one.vm.recover": flood})
    async with client_of(peer, timeout_s=30) as client:
        with pytest.raises(BadReply, match="longer than"):
            await client.recover(1, 0)
    await until(lambda: peer.connections == 0)


async def test_fifteen_hanging_connections_block_a_call_until_they_go(serve, client_of, ok, until):
    peer = await serve({"one.system.version": ok("7.4.0")}, connections_max=15)  # MAX_CONN of oned
    port = int(peer.endpoint.split(":")[2].split("/")[0])
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(15)]
    await until(lambda: peer.connections == 15)
    async with client_of(peer, timeout_s=0.3) as client:
        await fails_by_deadline(client.version(), timeout_s=0.3)
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        await until(lambda: peer.connections == 0)
        assert await client.version() == "7.4.0"


async def test_a_cancelled_call_leaves_no_connection_and_frees_its_place(serve, client_of, hang, ok, until):
    peer = await serve({"one.vm.action": hang, "one.system.version": ok("7.4.0")})
    async with client_of(peer, timeout_s=30, connections=2) as client:
        for _ in range(5):
            task = asyncio.ensure_future(client.vm_action(1, "resume"))
            await until(lambda: peer.connections == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: peer.connections == 0)
        assert await client.version() == "7.4.0"


async def test_orders_go_ahead_of_slow_pool_reads(serve, client_of, hang, ok, until):
    peer = await serve({"one.datastorepool.info": hang, "one.host.info": hang, "one.host.status": ok(1)})
    async with client_of(peer, timeout_s=30) as client, asyncio.TaskGroup() as group:
        reads = [group.create_task(client.datastores()) for _ in range(10)]
        reads += [group.create_task(client.host(1)) for _ in range(10)]
        await until(lambda: peer.connections == 3)
        async with asyncio.timeout(2):
            for _ in range(20):
                await client.set_host_status(1, HostStatus.DISABLE)
        assert peer.served["one.host.status"] == 20
        assert peer.connections_seen_max <= 4
        for read in reads:
            read.cancel()
    await until(lambda: peer.connections == 0)


async def test_hanging_orders_leave_one_connection_to_pools(serve, client_of, hang, ok, until):
    peer = await serve({"one.datastorepool.info": ok("<DATASTORE_POOL/>"), "one.vm.action": hang})
    async with client_of(peer, timeout_s=30) as client, asyncio.TaskGroup() as group:
        orders = [group.create_task(client.vm_action(number, "resume")) for number in range(10)]
        await until(lambda: peer.connections == 3)
        async with asyncio.timeout(2):
            assert await client.datastores() == []
        assert peer.connections_seen_max == 4
        for order in orders:
            order.cancel()


async def test_a_call_that_never_got_a_connection_was_certainly_not_sent(serve, client_of):
    peer = await serve()
    async with client_of(peer, timeout_s=0.2, connections=2) as client, client._gate.slot(Lane.ORDER):
        error = await fails_by_deadline(client.vm_action(1, "resume"), timeout_s=0.2)
    assert "no free connection" in str(error)
    assert not error.outcome_unknown
    assert peer.requests == []


async def test_an_order_overtakes_everything_that_waits():
    gate = Gate(2)
    turns: list[str] = []

    async def use(lane: Lane, name: str) -> None:
        async with gate.slot(lane):
            turns.append(name)

    async with asyncio.TaskGroup() as group, gate.slot(Lane.ORDER):
        for lane, name in ((Lane.READ, "read 1"), (Lane.READ, "read 2"), (Lane.ORDER, "order")):
            group.create_task(use(lane, name))
        await use(Lane.POOL, "pool")  # has its own place, and gives the tasks time to queue up
        await asyncio.sleep(0)
        assert turns == ["pool"]
    assert turns == ["pool", "order", "read 1", "read 2"]


async def test_a_waiter_that_is_cancelled_gives_its_place_to_the_next(until):
    gate = Gate(2)
    entered = asyncio.Event()

    async def use() -> None:
        async with gate.slot(Lane.READ):
            entered.set()

    async with asyncio.TaskGroup() as group:
        async with gate.slot(Lane.READ):
            impatient = group.create_task(use())
            patient = group.create_task(use())
            await until(lambda: len(gate._waiting) == 2)
            impatient.cancel()
            await until(impatient.done)
            assert len(gate._waiting) == 1
        impatient_too = group.create_task(use())
        await asyncio.wait_for(patient, 2)
        impatient_too.cancel()
    assert entered.is_set()
    assert gate._busy.total() == 0
    assert gate._waiting == []


async def test_too_many_waiting_calls_fail_at_once_and_unsent(serve, client_of, hang, until, monkeypatch):
    monkeypatch.setattr("ha_controller.adapters.opennebula.gate.WAITING_MAX", 3)
    peer = await serve({"one.vm.action": hang})
    async with client_of(peer, timeout_s=30, connections=2) as client, asyncio.TaskGroup() as group:
        orders = [group.create_task(client.vm_action(number, "resume")) for number in range(4)]
        await until(lambda: peer.connections == 1)
        with pytest.raises(NoAnswer, match="waiting") as caught:
            await client.vm_action(5, "resume")
        for order in orders:
            order.cancel()
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:2633",
        "ftp://127.0.0.1/RPC2",
        "http:///RPC2",
        "http://user:secret@127.0.0.1:2633/RPC2",
    ],
)
def test_an_endpoint_that_cannot_be_right_is_refused(endpoint):
    with pytest.raises(ValueError, match="endpoint") as caught:
        Client(endpoint, Session())
    assert "secret" not in str(caught.value)


def test_a_single_connection_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        Client("http://127.0.0.1:2633/RPC2", Session(), connections=1)


async def test_a_client_that_is_not_open_sends_nothing(serve, client_of):
    peer = await serve()
    with pytest.raises(NoAnswer, match="not open") as caught:
        await client_of(peer).version()
    assert not caught.value.outcome_unknown
    assert peer.requests == []
