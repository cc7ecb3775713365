"""HA_LAST and HA_STATE on VMs and hosts: written for people, behind everything else, over a real connection."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import anyio
import pytest
from leads import always
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client
from ha_controller.adapters.opennebula.gate import Gate, Lane
from ha_controller.adapters.recoverer import AttributeWriter
from ha_controller.adapters.recoverer.attributes import TRIES_MAX, fit
from ha_controller.core.effects import WriteAttributes
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_server import OnedServer

NOON = 1795694400.0  # 2026-11-26T12:00:00Z
ACCEPTED = (
    b'<?xml version="1.0"?><methodResponse><params><param><value><array><data><value><boolean>1</boolean></value>'
    b"<value><i4>3</i4></value><value><i4>0</i4></value></data></array></value></param></params></methodResponse>"
)


def order(vm: int | None = 3, *, state: str = "RESTARTED", text: str = "restarted (incident 1)") -> WriteAttributes:
    return WriteAttributes(host=0, incident=1, vm=vm, state=state, text=text, at=NOON, term=1)


def writer_of(client: Client, may_act=always) -> AttributeWriter:
    return AttributeWriter(client, may_act=may_act, while_leading=nullcontext, clock=lambda: NOON, pause_s=0.01)


async def until(condition) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


@pytest.fixture
async def oned():
    """The embedded OpenNebula, served; BMCs and hosts are not started."""
    cloud = EmbeddedCloud(hosts=2, vms_per_host=3, network=19, clock=lambda: NOON)
    server = OnedServer(cloud.oned, session=cloud.session, clock=lambda: NOON)
    port = await server.start("127.0.0.1", 0)
    async with Client(f"http://127.0.0.1:{port}/RPC2", SecretStr(cloud.session)) as client:
        yield SimpleNamespace(vms=cloud.oned.vms, hosts=cloud.oned.hosts, writer=writer_of(client), server=server)
    server.close()


async def write(oned, *orders: WriteAttributes) -> None:
    """Hand them in, and let the writer run until nothing waits."""
    for each in orders:
        oned.writer.put(each)
    async with anyio.create_task_group() as group:
        group.start_soon(oned.writer.run)
        await until(lambda: oned.writer.results.total() == len({each.vm for each in orders}))
        group.cancel_scope.cancel()


async def test_a_vm_shows_what_became_of_it_beside_what_its_owner_wrote(oned):
    oned.vms[3].attributes |= {"OWNER": "ann", "HA_STATE": "LEFT: an older incident"}
    await write(oned, order())
    assert oned.vms[3].attributes == {
        "OWNER": "ann",
        "HA_STATE": "RESTARTED",
        "HA_LAST": "2026-11-26 12:00 UTC restarted (incident 1)",
    }


async def test_a_host_shows_it_too_and_keeps_its_mark(oned):
    oned.hosts[0].attributes["HA_STATE"] = "FENCED 1"
    await write(oned, order(None, text="fenced, it was dead (incident 1)"))
    assert oned.hosts[0].attributes["HA_STATE"] == "FENCED 1"
    assert oned.hosts[0].attributes["HA_LAST"] == "2026-11-26 12:00 UTC fenced, it was dead (incident 1)"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ('says "no"', "says 'no'"),
        ('a = "b"\nHA_POLICY="leave"', "a = 'b' HA_POLICY='leave'"),
        ("ends with a backslash\\", "ends with a backslash/"),
        ('a backslash before a quote \\"', "a backslash before a quote /'"),
        ("]]> ends a CDATA section", "]] > ends a CDATA section"),
        ("[A=1, B=2]", "[A=1, B=2]"),
    ],
)
async def test_a_reason_cannot_become_another_attribute(oned, text, stored):
    await write(oned, order(text=text))
    assert oned.vms[3].attributes.keys() == {"HA_STATE", "HA_LAST"}
    written = oned.vms[3].attributes["HA_LAST"].removeprefix("2026-11-26 12:00 UTC ")
    assert written == stored


async def test_a_locked_vm_refuses_which_is_counted_and_not_tried_again(oned):
    oned.vms[3].locked = True
    await write(oned, order())
    assert oned.writer.results["locked"] == 1
    assert [call.method for call in oned.server.calls] == ["one.vm.update"]
    assert oned.vms[3].attributes == {}


async def test_the_newest_word_replaces_the_one_that_waits(oned):
    await write(oned, *(order(text=f"word {number}") for number in range(50)))
    assert [call.method for call in oned.server.calls] == ["one.vm.update"]
    assert oned.vms[3].attributes["HA_LAST"].endswith("word 49")


async def test_nothing_is_written_without_the_lead(serve, client_of):
    async def never(term: int | None) -> bool:
        assert term == 1
        return False

    peer = await serve({"one.vm.update": ACCEPTED})
    async with client_of(peer) as client:
        assert await writer_of(client, never).write(order()) == "dropped"
    assert peer.requests == []


async def test_an_opennebula_that_does_not_answer_is_asked_a_few_times(serve, client_of, hang):
    peer = await serve({"one.vm.update": hang})
    async with client_of(peer, timeout_s=0.05) as client, anyio.create_task_group() as group:
        writer = writer_of(client)
        group.start_soon(writer.run)
        writer.put(order())
        await until(lambda: writer.results["failed"])
        group.cancel_scope.cancel()
    assert len(peer.requests) == TRIES_MAX


async def test_a_write_that_hangs_delays_no_move(serve, client_of, hang):
    peer = await serve({"one.vm.update": hang, "one.vm.migrate": ACCEPTED})
    async with client_of(peer, timeout_s=60) as client, anyio.create_task_group() as group:
        writer = writer_of(client)
        group.start_soon(writer.run)
        for vm in range(500):
            writer.put(order(vm))
        await until(lambda: peer.requests)
        with anyio.fail_after(5):  # far below the 60 s that each of the writes would take
            async with anyio.create_task_group() as moves:
                for vm in range(100):
                    moves.start_soon(client.migrate, vm, 1)
        moved = [method for method, _ in peer.requests].count("one.vm.migrate")
        assert moved == 100
        assert writer.results.total() == 0, "the first write hangs for all that time"
        group.cancel_scope.cancel()


async def test_no_write_begins_while_an_order_is_under_way():
    gate, begun = Gate(4), []

    async def note() -> None:
        async with gate.slot(Lane.NOTE):
            begun.append("note")

    async with anyio.create_task_group() as group:
        async with gate.slot(Lane.ORDER):
            group.start_soon(note)
            await anyio.wait_all_tasks_blocked()
            async with gate.slot(Lane.READ):
                assert begun == []
        await anyio.wait_all_tasks_blocked()
        assert begun == ["note"]


def test_the_bound_holds_whatever_is_written():
    assert len(fit("x]]>" * 500)) <= 400
