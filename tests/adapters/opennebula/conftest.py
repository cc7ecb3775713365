"""A small oned on loopback that says exactly what a test wants, and the recordings of a real one."""

from __future__ import annotations

import asyncio
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client

SESSION = "tester:correct-horse"
RECORDINGS = Path(__file__).parents[4] / "shared" / "oned-recordings"


def _parse_request(body: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Return a call as (method, [(type, text), ...]); `int` and `i4` are the same type."""
    root = ElementTree.fromstring(body)
    parameters = [value[0] for value in root.iterfind("params/param/value")]
    return root.findtext("methodName") or "", [
        ("int" if parameter.tag == "i4" else parameter.tag, parameter.text or "") for parameter in parameters
    ]


Stream = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A scripted oned: one reply for each method, bytes (a body) or a coroutine function that writes the raw answer."""

    replies: dict[str, bytes | Stream] = field(default_factory=dict)
    requests: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections_max: int = 1000
    connections: int = 0
    connections_seen_max: int = 0
    endpoint: str = ""
    served: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.connections_max)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.connections_seen_max = max(self.connections_seen_max, self.connections)
        try:
            async with self._places:
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self.connections -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
        request = _parse_request(await reader.readexactly(length))
        self.requests.append(request)
        reply = self.replies[request[0]]
        if isinstance(reply, bytes):
            await http_reply(writer, reply)
        else:
            # a peer that hangs notices, like a real one, when the client closes the connection
            answer = asyncio.ensure_future(reply(writer))
            closed = asyncio.ensure_future(reader.read())
            await asyncio.wait({answer, closed}, return_when=asyncio.FIRST_COMPLETED)
            for task in (answer, closed):
                task.cancel()
            await asyncio.gather(answer, closed, return_exceptions=True)
        self.served[request[0]] += 1


async def http_reply(writer: asyncio.StreamWriter, body: bytes, *, status: str = "200 OK", extra: str = "") -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{extra}"
    writer.write(head.encode() + b"\r\n" + body)
    await writer.drain()


async def _hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def hang() -> Stream:
    """An answer that never comes."""
    return _hang


@pytest.fixture
def raw_reply() -> Callable[..., Awaitable[None]]:
    return http_reply


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    """Start peers: `peer = await serve({"one.system.version": body})`."""
    servers: list[asyncio.Server] = []

    async def start(replies: dict[str, bytes | Stream] | None = None, *, connections_max: int = 1000) -> Peer:
        peer = Peer(replies=dict(replies or {}), connections_max=connections_max)
        server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
        servers.append(server)
        peer.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/RPC2"
        return peer

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture
def client_of() -> Callable[..., Client]:
    def build(peer: Peer, *, session: str = SESSION, **settings: float) -> Client:
        return Client(peer.endpoint, SecretStr(session), **settings)

    return build


def _reply(*values: str) -> bytes:
    data = "".join(f"<value>{value}</value>\n" for value in values)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<methodResponse>\n<params>\n<param><value><array><data>\n'
        f"{data}</data></array></value></param>\n</params>\n</methodResponse>\n"
    ).encode()


@pytest.fixture
def ok() -> Callable[[str | int], bytes]:
    """Build a success as oned words it: text payload or a number."""

    def build(payload: str | int) -> bytes:
        value = f"<i4>{payload}</i4>" if isinstance(payload, int) else f"<string>{escape(payload)}</string>"
        return _reply("<boolean>1</boolean>", value, "<i4>0</i4>")

    return build


@pytest.fixture
def failure() -> Callable[[int, str], bytes]:
    """Build a failure as oned words it."""

    def build(code: int, message: str) -> bytes:
        return _reply(
            "<boolean>0</boolean>",
            f"<string>{escape(message)}</string>",
            f"<i4>{code}</i4>",
            "<i4>-1</i4>",
            "<i8>-1</i8>",
        )

    return build


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until a condition holds; fail after five seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


@dataclass(frozen=True)
class Recording:
    name: str
    method: str
    request: bytes
    response: bytes

    def call(self) -> tuple[str, list[tuple[str, str]]] | None:
        """Return the recorded call, None when its body was broken on purpose."""
        try:
            return _parse_request(self.request)
        except ElementTree.ParseError:
            return None


@pytest.fixture(scope="session")
def recordings() -> dict[str, Recording]:
    """All recordings by number ("021")."""
    if not RECORDINGS.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the recordings in {RECORDINGS}")
        pytest.skip("the recordings of a real oned are not beside the project")
    found = {}
    for path in sorted(RECORDINGS.glob("*.request.xml")):
        number, method = path.name.split("-")[:2]
        response = path.with_name(path.name.replace(".request.", ".response."))
        found[number] = Recording(
            path.name.removesuffix(".request.xml"), method, path.read_bytes(), response.read_bytes()
        )
    return found
