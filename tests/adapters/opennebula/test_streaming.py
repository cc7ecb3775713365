"""Pools of a large cloud are read while they arrive: the loop never stalls, and the memory stays small."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from xml.sax.saxutils import escape

import pytest
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client, OnedHost
from ha_controller.adapters.opennebula.documents import HOSTS as HOSTS_KIND
from ha_controller.adapters.opennebula.reader import DocumentReader, Fields

HOSTS = 2_500
VMS = 10_000
STALL_S = 0.020
FAKE = "]] ></VM><VM><ID>77777</ID></VM>"


def host(number: int) -> str:
    cores = "".join(f"<CORE><CPUS><![CDATA[{core}:-1]]></CPUS><ID><![CDATA[{core}]]></ID></CORE>" for core in range(64))
    vms = "".join(f"<ID>{number * 4 + index}</ID>" for index in range(4))
    return (
        f"<HOST><ID>{number}</ID><NAME>node-{number:04}</NAME><STATE>2</STATE><IM_MAD><![CDATA[kvm]]></IM_MAD>"
        f"<VM_MAD><![CDATA[kvm]]></VM_MAD><CLUSTER_ID>100</CLUSTER_ID><CLUSTER>prod</CLUSTER><HOST_SHARE>"
        f"<MEM_USAGE>1</MEM_USAGE><CPU_USAGE>2</CPU_USAGE><MAX_MEM>3</MAX_MEM><MAX_CPU>4</MAX_CPU><RUNNING_VMS>4"
        f"</RUNNING_VMS><NUMA_NODES><NODE>{cores}</NODE></NUMA_NODES></HOST_SHARE><VMS>{vms}</VMS><TEMPLATE>"
        + "".join(f"<ATTRIBUTE_{index}><![CDATA[some value {index}]]></ATTRIBUTE_{index}>" for index in range(30))
        + "</TEMPLATE><MONITORING/></HOST>"
    )


def vm(number: int) -> str:
    filler = "".join(f"<NOTE_{index}><![CDATA[{FAKE} & more]]></NOTE_{index}>" for index in range(40))
    return (
        f"<VM><ID>{number}</ID><NAME>vm-{number:05}</NAME><STATE>3</STATE><LCM_STATE>3</LCM_STATE><RESCHED>0</RESCHED>"
        f"<TEMPLATE><CPU><![CDATA[0.5]]></CPU><MEMORY><![CDATA[512]]></MEMORY><DISK><DISK_ID>0</DISK_ID><DATASTORE_ID>1"
        f"</DATASTORE_ID><TM_MAD>shared</TM_MAD></DISK></TEMPLATE><USER_TEMPLATE>{filler}</USER_TEMPLATE>"
        f"<HISTORY_RECORDS><HISTORY><HID>{number // 4}</HID></HISTORY></HISTORY_RECORDS></VM>"
    )


def reply(text: str) -> bytes:
    return (
        "<?xml version='1.0'?><methodResponse><params><param><value><array><data><value><boolean>1</boolean></value>"
        f"<value><string>{escape(text)}</string></value><value><i4>0</i4></value></data></array></value></param>"
        "</params></methodResponse>"
    ).encode()


@contextmanager
def served_by_a_thread(bodies: dict[bytes, bytes]) -> Iterator[str]:
    """Serve bodies by method from another thread, so that the test's own thread does nothing but read them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while b"</methodCall>" not in request:
                    received = connection.recv(65536)
                    if not received:
                        return
                    request += received
                body = next(body for method, body in bodies.items() if method in request)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())
                connection.sendall(body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}/RPC2"
    socket.create_connection(("127.0.0.1", port)).close()  # an empty request ends the thread
    thread.join(5)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture
def steps(monkeypatch) -> Iterator[list[float]]:
    """The CPU time of every callback that the loop runs, in seconds of this thread.

    Like the controller after its start, the test freezes what exists already: else a full garbage collection walks
    over all modules, and takes longer than any step of the client.
    """
    durations: list[float] = []
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        started = time.thread_time()
        run(handle)
        durations.append(time.thread_time() - started)

    monkeypatch.setattr(asyncio.events.Handle, "_run", timed)
    gc.collect()
    gc.freeze()
    yield durations
    gc.unfreeze()


@pytest.fixture
def host_pool() -> bytes:
    return reply("<HOST_POOL>" + "".join(map(host, reversed(range(HOSTS)))) + "</HOST_POOL>")


@pytest.fixture
def monitoring() -> bytes:
    records = "".join(f"<MONITORING><TIMESTAMP>{9000 + n}</TIMESTAMP><ID>{n}</ID></MONITORING>" for n in range(HOSTS))
    return reply(f"<MONITORING_DATA>{records}</MONITORING_DATA>")


@pytest.fixture
def vm_pool() -> bytes:
    return reply("<VM_POOL>" + "".join(map(vm, reversed(range(VMS)))) + "</VM_POOL>")


async def test_the_hosts_of_a_large_cloud_stream_without_a_stall(host_pool, monitoring, steps):
    assert len(host_pool) > 15_000_000
    with served_by_a_thread({b"hostpool.monitoring": monitoring, b"hostpool.info": host_pool}) as endpoint:
        async with Client(endpoint, SecretStr("a:b"), timeout_s=120) as client:
            hosts = await client.hosts()
    assert [host.id for host in hosts] == list(range(HOSTS))
    assert hosts[7].monitored_at == 9007
    assert len(steps) > len(host_pool) // 65536
    assert max(steps) < STALL_S


async def test_the_vms_of_a_large_cloud_stream_without_a_stall(vm_pool, steps):
    assert len(vm_pool) > 30_000_000
    with served_by_a_thread({b"infoextended": vm_pool}) as endpoint:
        async with Client(endpoint, SecretStr("a:b"), timeout_s=120) as client:
            vms = await client.vms_between(0, VMS)
    assert [vm.id for vm in vms] == list(range(VMS))
    assert vms[4001].host_id == 1000
    assert vms[0].attributes["NOTE_0"] == f"{FAKE} & more"
    assert max(steps) < STALL_S


def test_an_element_that_was_read_is_gone_from_the_tree():
    siblings: list[int] = []

    def build(fields: Fields) -> OnedHost:
        siblings.append(len(fields._element.getparent()))
        return HOSTS_KIND.build(fields)

    reader = DocumentReader(dataclasses.replace(HOSTS_KIND, build=build))
    for text in ("<HOST_POOL>", *map(host, range(300)), "</HOST_POOL>"):
        reader.feed(text)
    assert len(reader.close()) == 300
    assert max(siblings) == 1


async def test_a_pool_is_never_held_in_memory_as_a_whole(host_pool, monitoring):
    with served_by_a_thread({b"hostpool.monitoring": monitoring, b"hostpool.info": host_pool}) as endpoint:
        async with Client(endpoint, SecretStr("a:b"), timeout_s=120) as client:
            gc.collect()
            tracemalloc.start()
            try:
                hosts = await client.hosts()
                kept, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert len(hosts) == HOSTS
    assert peak - kept < 2_000_000 < len(host_pool)
