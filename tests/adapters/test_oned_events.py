"""oned's events over real ZeroMQ sockets: a reason to look sooner, never needed, never believed, never a burden."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
import zmq
import zmq.asyncio
from leads import always
from pydantic import SecretStr, ValidationError

from ha_controller.adapters.oned_events import FRAMES_AT_ONCE, MESSAGE_BYTES_MAX, EventListener
from ha_controller.adapters.opennebula import Client
from ha_controller.adapters.recoverer import Recoverer, Scope
from ha_controller.adapters.recoverer.pace import REST_S
from ha_controller.app import doctor, hints
from ha_controller.app.hints import Hints
from ha_controller.config.model import OpenNebula
from ha_controller.core.effects import ReadHost
from ha_controller.core.events import HostRead, InventoryRead
from ha_controller.core.state import State
from ha_controller.sim import oned_model as one
from ha_controller.sim.cloud import EmbeddedCloud

DISABLE, ENABLE = 1, 0


async def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    with anyio.fail_after(seconds):
        while not holds():
            await anyio.sleep(0.01)


class Controller:
    """What reads OpenNebula and what listens to it, as the runtime wires them."""

    def __init__(self, cloud: EmbeddedCloud, client: Client, address: str, poll_s: float) -> None:
        self.cloud = cloud
        self.inventories: list[tuple[float, InventoryRead]] = []
        self.reads: list[HostRead] = []
        self.recoverer = Recoverer(
            client, report=self._report, may_act=always, clock=time.time, scope=Scope(), poll_s=poll_s,
            equip=lambda hosts: {},
        )  # fmt: skip
        self.incidents: dict[int, object] = {}
        self.hints = Hints(
            address,
            state=SimpleNamespace(incidents=self.incidents),
            look=self.recoverer.pace.sooner,
            read_host=self.recoverer.read_host,
            clock=time.time,
        )

    def _report(self, event: object) -> None:
        if isinstance(event, InventoryRead):
            self.inventories.append((time.monotonic(), event))
        elif isinstance(event, HostRead):
            self.reads.append(event)

    def state(self, host: int) -> int:
        return self.inventories[-1][1].hosts[host].one_state if self.inventories else -1

    @property
    def connected(self) -> bool:
        return self.hints.listener is not None and self.hints.listener.heard.connected


@asynccontextmanager
async def listening(poll_s: float, address: str = "") -> AsyncIterator[Controller]:
    async with (
        EmbeddedCloud(hosts=3, vms_per_host=2, bmcs=False) as cloud,
        Client(cloud.endpoint, SecretStr(cloud.session)) as client,
        anyio.create_task_group() as group,
    ):
        published = cloud.publish()
        controller = Controller(cloud, client, address or published, poll_s)
        group.start_soon(controller.recoverer.run_inventory)
        group.start_soon(controller.hints.run)
        yield controller
        group.cancel_scope.cancel()


@contextmanager
def publisher() -> Iterator[tuple[zmq.Socket, str]]:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.linger, socket.sndhwm = 0, 100_000
        yield socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


@asynccontextmanager
async def heard_from(address: str) -> AsyncIterator[SimpleNamespace]:
    told = SimpleNamespace(hosts=[], vms=[], missed=0)

    def missed() -> None:
        told.missed += 1

    listener = EventListener(address, host=told.hosts.append, vm=told.vms.append, missed=missed)
    told.listener = listener
    async with anyio.create_task_group() as group:
        group.start_soon(listener.run)
        yield told
        group.cancel_scope.cancel()


async def test_what_happens_in_opennebula_is_seen_at_once_and_not_at_the_next_poll():
    async with listening(poll_s=600.0) as controller:
        await until(lambda: controller.connected and controller.inventories)
        await anyio.sleep(REST_S + 0.2)  # the reading for the new connection is over, and so is its rest
        before = len(controller.inventories)
        began_at = time.monotonic()
        controller.cloud.oned.set_status(1, DISABLE, time.time())
        await until(lambda: controller.state(1) == one.DISABLED)
        assert controller.inventories[-1][0] - began_at < 3.0
        assert len(controller.inventories) == before + 1


async def test_when_the_publisher_dies_nothing_is_lost_and_when_it_is_back_it_is_heard_again():
    async with listening(poll_s=1.0) as controller:
        await until(lambda: controller.connected)
        controller.cloud.publisher.close()
        await until(lambda: not controller.connected)
        controller.cloud.publisher.look = lambda: None
        controller.cloud.oned.set_status(1, DISABLE, time.time())
        await until(lambda: controller.state(1) == one.DISABLED)  # by its poll
        controller.cloud.publish(controller.hints.address)
        await until(lambda: controller.connected)
        heard = controller.hints.listener.heard.hosts
        await until(lambda: _toggled(controller.cloud) and controller.hints.listener.heard.hosts > heard)


def _toggled(cloud: EmbeddedCloud) -> bool:
    """Its state changes until somebody hears of it: what comes before a subscription is lost."""
    cloud.oned.set_status(1, ENABLE if cloud.oned.hosts[1].state == one.DISABLED else DISABLE, time.time())
    return True


async def test_a_host_that_is_dealt_with_is_read_when_one_of_its_vms_moves_and_no_other_is():
    async with listening(poll_s=600.0) as controller:
        await until(lambda: controller.connected)
        controller.incidents[1] = SimpleNamespace(host=1, vm={2: "its record"}.get)
        controller.hints.asked(ReadHost(host=1, vms=(2, 3)))
        controller.hints.of_vm(4)
        controller.hints.of_vm(2)
        await until(lambda: controller.reads)
        assert controller.reads[0].host == 1
        assert {vm.id for vm in controller.reads[0].vms} == {2, 3}
        for _ in range(1000):
            controller.hints.of_vm(2)
        await until(lambda: len(controller.reads) == 2)
        assert not controller.hints._due


async def test_what_the_core_does_not_want_to_know_any_more_is_not_read(monkeypatch):
    monkeypatch.setattr(hints, "ASKED_AGE_MAX_S", -1.0)
    async with listening(poll_s=600.0) as controller:
        controller.hints.asked(ReadHost(host=1))
        controller.hints.of_host(1)
        await until(lambda: not controller.hints._due)
        assert controller.reads == []


async def test_garbage_of_every_kind_is_no_event_and_ends_nothing():
    with publisher() as (socket, address):
        async with heard_from(address) as told:
            await until(lambda: _sent(socket, b"EVENT HOST 7/ERROR/ ", b"body") and told.hosts)
            told.hosts.clear()
            for frames in (
                [b""], [b"", b""], [b"EVENT"], [b"EVENT HOST "], [b"EVENT HOST x/ERROR/ "], [b"EVENT HOST -1/ERROR/ "],
                [b"EVENT VM 99999999999999999999/ACTIVE/ "], [b"EVENT VM \xff\xfe/"], [b"EVENT HOST " + b"1" * 100_000],
                [b"EVENT API one.vm.migrate 1", b"x"], [b"x", b"EVENT HOST 8/ERROR/ "],
                [b"EVENT VM 5/ACTIVE/UNKNOWN ", b"\x00\xff not base64"],
                [b"EVENT STATE HOST/ERROR//9 ", b""], [b"EVENT VM 6/", *[b"EVENT HOST 8/"] * (2 * FRAMES_AT_ONCE)],
            ):  # fmt: skip
                socket.send_multipart(frames)
            await until(lambda: told.vms[-1:] == [6])
            assert set(told.hosts) <= {7}
            assert told.vms == [5, 6]
            assert told.listener.heard.strange == 6


async def test_a_message_without_measure_costs_the_connection_and_it_is_opened_again():
    with publisher() as (socket, address):
        async with heard_from(address) as told:
            await until(lambda: _sent(socket, b"EVENT HOST 1/ERROR/ ", b"") and told.hosts)
            told.hosts.clear()
            missed = told.missed
            socket.send_multipart([b"EVENT HOST 2/ERROR/ ", bytes(2 * MESSAGE_BYTES_MAX)])
            await until(lambda: _sent(socket, b"EVENT HOST 3/ERROR/ ", b"") and 3 in told.hosts)
            assert 2 not in told.hosts
            assert told.missed > missed, "events may have been lost in between"


def _sent(socket: zmq.Socket, *frames: bytes) -> bool:
    """Again and again, until a subscription is there."""
    socket.send_multipart(frames)
    return True


async def test_a_peer_that_speaks_something_else_is_asked_again_and_harms_nobody():
    async def babble(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(range(256)) * 64)

    tries = 0

    async def counted(stream: anyio.abc.SocketStream) -> None:
        nonlocal tries
        tries += 1
        await babble(stream)

    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with server, anyio.create_task_group() as group:
        group.start_soon(server.serve, counted)
        async with heard_from(f"tcp://127.0.0.1:{server.extra(anyio.abc.SocketAttribute.local_port)}") as told:
            await until(lambda: tries >= 2)
            assert (told.hosts, told.vms, told.listener.heard.connected) == ([], [], False)
        group.cancel_scope.cancel()


async def test_a_flood_is_a_few_looks_and_does_not_hold_up_the_loop():
    with publisher() as (socket, address):
        async with listening(poll_s=600.0, address=address) as controller:
            await until(lambda: controller.connected and controller.inventories)
            began_at, lags, sent = time.monotonic(), [], 0
            calls = controller.cloud.server.calls
            before = sum(call.method == "one.hostpool.info" for call in calls)
            while time.monotonic() - began_at < 1.5:
                for _ in range(500):
                    socket.send_multipart([b"EVENT HOST 1/ERROR/ ", b"x" * 1000])
                sent += 500
                asleep_at = time.monotonic()
                await anyio.sleep(0.005)
                lags.append(time.monotonic() - asleep_at - 0.005)
            looks = sum(call.method == "one.hostpool.info" for call in calls) - before
            assert sent > 2000
            assert controller.hints.listener.heard.hosts > 100
            assert 1 <= looks <= (time.monotonic() - began_at) / REST_S + 1
            assert sorted(lags)[len(lags) * 9 // 10] < 0.1, "above 0.25 s the prober doubts what it sees"


async def test_a_fault_in_listening_ends_nothing_else(monkeypatch):
    monkeypatch.setattr(hints, "AGAIN_S", 0.05)
    tried = 0

    async def fails(self: EventListener) -> None:
        nonlocal tried
        tried += 1
        await anyio.lowlevel.checkpoint()
        raise zmq.ZMQError(zmq.EINVAL) if tried % 2 else RuntimeError("a bug")

    monkeypatch.setattr(EventListener, "run", fails)
    async with listening(poll_s=0.05) as controller:
        await until(lambda: tried > 3 and len(controller.inventories) > 3)
        assert controller.hints.listener.heard.trouble


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:2101", "tcp://127.0.0.1", "ipc:///tmp/x", "tcp://one:2101/x", "tcp://a:b@one:2101", "tcp://:1"],
)
def test_what_is_no_address_of_a_publisher_is_refused(address):
    with pytest.raises(ValidationError, match="events"):
        OpenNebula(auth=SecretStr("a:b"), events=address)


def test_without_pyzmq_the_setting_is_refused_with_what_to_install(monkeypatch):
    assert OpenNebula(auth=SecretStr("a:b"), events="tcp://one:2101").events == "tcp://one:2101"
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    assert OpenNebula(auth=SecretStr("a:b")).events == ""
    with pytest.raises(ValidationError, match=r"pip install 'pyzmq>=27,<28'"):
        OpenNebula(auth=SecretStr("a:b"), events="tcp://one:2101")


def test_doctor_says_whether_events_are_heard():
    heard = SimpleNamespace(connected=True, hosts=3, vms=40, trouble="")
    quiet = Hints("", state=State, look=print, read_host=print, clock=time.time)
    wanted = Hints("tcp://one:2101", state=State, look=print, read_host=print, clock=time.time)
    runtime = SimpleNamespace(hints=quiet, config=SimpleNamespace(opennebula=SimpleNamespace(poll_s=10.0)))
    assert doctor._events(runtime) == []
    runtime.hints = wanted
    assert (doctor._events(runtime)[0]["ok"], "every 10 s" in doctor._events(runtime)[0]["text"]) == (None, True)
    wanted.listener = SimpleNamespace(heard=heard)
    assert doctor._events(runtime)[0]["ok"] is True
    assert "3 of hosts and 40 of VMs" in doctor._events(runtime)[0]["text"]
