"""Peers that mean harm, over real sockets: endless answers, a byte a second, wrong certificates, bombs, redirects.

Each door is asked by its own client. Time and memory are measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest
from ha_controller_redfish.agent import RedfishAgent, RedfishConfig
from pydantic import SecretStr

from ha_controller.adapters.arbiter.gateway import Gateway
from ha_controller.adapters.opennebula import BadReply, Client, NoAnswer, OpenNebulaError
from ha_controller.plugin import AccessDenied, ArbiterUnreachable, FenceError, PowerState
from tests.peers.certificates import Certificate, self_signed

MEMORY_MAX_BYTES = 200 << 20
PASSWORD = "fencer-secret-7"
Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(say: Say, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads the head of a request and then does what it is told; its port, and the heads that came."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await say(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        await asyncio.sleep(0.05)


def answer(body: bytes, *, status: str = "200 OK", more: str = "") -> Say:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode())
        writer.write(body)
        await writer.drain()
        await reader.read()

    return say


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Two gibibytes are announced, and come as fast as they are taken."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n<methodResponse><params><param><value>")
    writer.write(b"<array><data><value><boolean>1</boolean></value><value><string>&lt;VM_POOL&gt;")
    for _ in range(2**31 // 65536):
        writer.write(b"&lt;A/&gt;" * 6553)
        await writer.drain()


async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000_000):
        writer.write(b"X-%d: %s\r\n" % (number, b"a" * 1000))
        await writer.drain()


async def byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


BOMB = gzip.compress(b" " * (200 << 20))


@contextlib.contextmanager
def little_memory_and_time(within_s: float) -> Iterator[None]:
    """Of the whole process: parsers in C count, too. Writing 5 sets the high-water mark back (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began_at = _resident_bytes("VmRSS"), time.monotonic()
    yield
    assert _resident_bytes("VmHWM") - before < MEMORY_MAX_BYTES
    assert time.monotonic() - began_at < within_s


def _resident_bytes(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# --- who is asked -----------------------------------------------------------------------------------------------------


async def ask_oned(port: int) -> None:
    async with Client(f"http://127.0.0.1:{port}/RPC2", SecretStr(f"tester:{PASSWORD}"), timeout_s=2.0) as client:
        await client.vms([1])


async def ask_etcd(port: int) -> None:
    gateway = Gateway(endpoints=[f"http://127.0.0.1:{port}"], timeout_s=1.0, deadline_s=2.0)
    try:
        await gateway.read("/ha-controller/leader")
    finally:
        await gateway.close()


def redfish(port: int, **trust: object) -> RedfishAgent:
    return RedfishAgent(RedfishConfig(address="127.0.0.1", port=port, username="fencer", password=PASSWORD, **trust))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificates"))


HARMS = {
    "two gibibytes": endless_body,
    "headers without an end": endless_headers,
    "a byte now and then": byte_by_byte,
    "a gzip bomb": answer(BOMB, more="Content-Encoding: gzip\r\nContent-Type: application/json\r\n"),
    "nesting": answer(b"[" * 900_000),
    "an object of nesting": answer(b'{"kvs":' + b"[" * 100_000),
    "a redirect": answer(b"", status="307 Temporary Redirect", more="Location: http://127.0.0.1:1/\r\n"),
    "not HTTP": answer(b"", status="\x00\x1b[31m"),
}
harms = pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)


@harms
async def test_oned_is_given_up_soon_and_in_little_memory(harm):
    async with peer(harm) as (port, _):
        with little_memory_and_time(8.0), pytest.raises(OpenNebulaError) as caught:
            await ask_oned(port)
    assert isinstance(caught.value, BadReply | NoAnswer)
    assert PASSWORD not in str(caught.value)


@harms
async def test_etcd_is_given_up_soon_and_in_little_memory(harm):
    async with peer(harm) as (port, _):
        with little_memory_and_time(8.0), pytest.raises(ArbiterUnreachable):
            await ask_etcd(port)


@harms
async def test_a_bmc_is_given_up_within_the_deadline_and_in_little_memory(harm, certificate):
    async with peer(harm, certificate.server_context()) as (port, _):
        agent = redfish(port, fingerprint=certificate.fingerprint)
        with little_memory_and_time(8.0), pytest.raises((FenceError, TimeoutError)) as caught:
            with anyio.fail_after(3):
                await agent.power_state()
    assert PASSWORD not in str(caught.value)


async def test_an_answer_of_a_bmc_that_is_compressed_unasked_is_read(certificate):
    system = {"PowerState": "On"}
    said = {
        b"/redfish/v1/ ": {"Systems": {"@odata.id": "/redfish/v1/Systems"}},
        b"/redfish/v1/Systems ": {"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]},
        b"/redfish/v1/Systems/1 ": system,
    }

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        [found] = [document for path, document in said.items() if path in heads[-1]]
        body = gzip.compress(json.dumps(found).encode())
        await answer(body, more="Content-Encoding: gzip\r\n")(reader, writer)

    async with peer(say, certificate.server_context()) as (port, heads):
        assert await redfish(port, fingerprint=certificate.fingerprint).power_state() is PowerState.ON


# --- TLS --------------------------------------------------------------------------------------------------------------


def shows(folder, *, days: int = 300, name: str = "bmc") -> Certificate:
    return self_signed(folder, name, days=days)


async def test_a_bmc_with_another_certificate_is_told_nothing(tmp_path, certificate):
    other = shows(tmp_path, name="other")
    wrong = {
        "not the pinned one": (other, {"fingerprint": certificate.fingerprint}),
        "another authority": (other, {"ca_file": certificate.cert}),
        "nobody's": (other, {}),
    }
    for shown, trust in wrong.values():
        async with peer(answer(b"{}"), shown.server_context()) as (port, heads):
            with pytest.raises(AccessDenied, match="certificate"):
                await redfish(port, **trust).power_off()
        assert heads == []


async def test_a_certificate_that_ended_is_not_trusted(tmp_path):
    ended = shows(tmp_path, days=-10)
    async with peer(answer(b"{}"), ended.server_context()) as (port, heads):
        with pytest.raises(AccessDenied, match="expired"):
            await redfish(port, ca_file=ended.cert).power_off()
    assert heads == []


async def test_a_certificate_for_another_name_is_not_trusted(certificate):
    async with peer(answer(b"{}"), certificate.server_context()) as (port, heads):
        agent = RedfishAgent(
            RedfishConfig(address="localhost", port=port, username="a", password=PASSWORD, ca_file=certificate.cert)
        )
        with pytest.raises(AccessDenied, match="certificate"):
            await agent.power_off()
    assert heads == []


async def test_a_peer_without_tls_is_told_nothing(certificate):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with peer(plain) as (port, heads):
        with pytest.raises((FenceError, TimeoutError)), anyio.fail_after(2):
            await redfish(port, fingerprint=certificate.fingerprint).power_off()
    assert not any(b"Authorization" in head for head in heads)


async def test_a_redirect_takes_no_password_elsewhere(certificate):
    async with peer(answer(b"{}")) as (elsewhere, heads):
        to = f"Location: http://127.0.0.1:{elsewhere}/\r\n"
        redirect = answer(b"{}", status="302 Found", more=to)
        async with peer(redirect, certificate.server_context()) as (port, _):
            with pytest.raises(FenceError, match="302"):
                await redfish(port, fingerprint=certificate.fingerprint).power_off()
        async with peer(redirect) as (port, _):
            with pytest.raises(ArbiterUnreachable):
                await ask_etcd(port)
            with pytest.raises(OpenNebulaError):
                await ask_oned(port)
    assert heads == []
