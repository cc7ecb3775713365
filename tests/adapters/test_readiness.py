"""Whether a port answers, asked of real sockets: one that listens, one that refuses, one that swallows everything."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import pytest

from ha_controller.adapters import readiness
from ha_controller.adapters.readiness import AGENTS_AT_ONCE, ReadinessAsker
from ha_controller.adapters.ssh_login import Output
from ha_controller.core.effects import AskReady
from ha_controller.core.events import Readiness, ReadyRead
from ha_controller.core.readiness import ANSWER_MAX_S
from ha_controller.core.resources import ReadyBy, ReadyGate
from ha_controller.plugin import Target


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what comes, as a guest does that is not there."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            assert filler.connect_ex(listener.getsockname()) in (0, errno.EINPROGRESS)
        yield listener.getsockname()[1]


def asker(events: list[ReadyRead]) -> ReadinessAsker:
    return ReadinessAsker(None, targets=list, report=events.append, clock=lambda: 17.0)  # type: ignore[arg-type]


def question(port: int, address: str = "127.0.0.1", vm: int = 42) -> AskReady:
    return AskReady(vm=vm, incident=5, host=3, gate=ReadyGate(by=ReadyBy.TCP, port=port, address=address))


async def said(port: int, address: str = "127.0.0.1") -> tuple[Readiness, str]:
    events: list[ReadyRead] = []
    await asker(events).ask(question(port, address))
    [event] = events
    assert (event.vm, event.incident, event.asked_at) == (42, 5, 17.0)
    return event.readiness, event.detail


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_port_that_answers_is_ready_and_is_left_alone_at_once(address):
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        assert await said(server.getsockname()[1], address) == (Readiness.READY, "")
        server.settimeout(5)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b""


async def test_a_port_that_refuses_is_not_ready_yet():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert await said(port) == (Readiness.NOT_YET, f"port {port} of 127.0.0.1 refuses connections")


async def test_a_port_that_swallows_everything_is_not_ready_yet_and_has_a_deadline(black_hole, monkeypatch):
    monkeypatch.setattr(readiness, "CONNECT_MAX_S", 0.3)
    with anyio.fail_after(5):
        assert await said(black_hole) == (Readiness.NOT_YET, f"port {black_hole} of 127.0.0.1 does not answer")


async def test_an_address_to_which_there_is_no_way_is_unknown():
    found, detail = await said(80, "fe80::1")  # without its link, no kernel knows where that is
    assert found is Readiness.UNKNOWN
    assert detail.startswith("port 80 of fe80::1 cannot be asked: ")


async def test_a_vm_without_an_address_is_unknown():
    detail = "port 80 cannot be asked: OpenNebula knows no address of the VM"
    assert await said(80, "") == (Readiness.UNKNOWN, detail)


async def test_ports_that_swallow_everything_hold_nobody_up_for_ever(black_hole, monkeypatch):
    """More of them than are asked at once: each is answered for, and who comes last finds a place."""
    monkeypatch.setattr(readiness, "PORTS_AT_ONCE", 2)
    monkeypatch.setattr(readiness, "CONNECT_MAX_S", 0.2)
    monkeypatch.setattr(readiness, "TURN_MAX_S", 0.7)
    events: list[ReadyRead] = []
    asked = asker(events)
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with anyio.create_task_group() as group:
            for vm in range(4):
                group.start_soon(asked.ask, question(black_hole, vm=vm))
            await anyio.wait_all_tasks_blocked()
            await asked.ask(question(server.getsockname()[1], vm=99))
            assert events[-1].vm == 99
            assert events[-1].readiness is Readiness.READY
            for vm in range(4, 20):
                group.start_soon(asked.ask, question(black_hole, vm=vm))
    assert sorted(event.vm for event in events) == [*range(20), 99]
    details = {event.detail for event in events if event.readiness is not Readiness.READY}
    port = f"port {black_hole} of 127.0.0.1"
    assert details == {f"{port} does not answer", f"{port}: its turn did not come within 0.7 s"}


def test_the_core_waits_for_an_answer_longer_than_it_can_take():
    """Else it asks again while the first question waits for its turn, and questions pile up."""
    longest = max(readiness.CONNECT_MAX_S, readiness.AGENT_MAX_S)
    assert readiness.TURN_MAX_S + longest < ANSWER_MAX_S


async def test_agents_that_do_not_answer_keep_nobody_on_their_host_from_being_asked(monkeypatch):
    """Forty of them take forty seconds in turn: who came last lost its place each time, and was never asked."""
    scale, at_once = 100, [0]
    monkeypatch.setattr(readiness, "TURN_MAX_S", readiness.TURN_MAX_S / scale)

    async def virsh(login: object, address: str, command: str, *, timeout_s: float) -> Output:
        at_once.append(at_once[-1] + 1)
        await anyio.sleep((readiness.AGENT_ANSWERS_WITHIN_S + 1) / scale)
        at_once.append(at_once[-1] - 1)
        return Output(text='{"return":{}}' if "one-99 " in command else "error: agent is not connected", status=1)

    monkeypatch.setattr(readiness, "run_command", virsh)
    events: list[ReadyRead] = []
    target = Target(host=3, name="kvm-03", address="192.0.2.3")
    asks = ReadinessAsker(object(), targets=lambda: [target], report=events.append, clock=lambda: 1.0)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        for vm in [*range(40), 99]:
            order = AskReady(vm=vm, incident=5, host=3, gate=ReadyGate(by=ReadyBy.AGENT))
            group.start_soon(asks.ask, order)
    assert max(at_once) == AGENTS_AT_ONCE
    assert {event.vm: event.readiness for event in events} == dict.fromkeys(range(40), Readiness.NOT_YET) | {
        99: Readiness.READY
    }
