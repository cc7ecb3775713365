"""The embedded oned's door: places, idle connections, nonsense, login tokens, template text."""

from __future__ import annotations

import asyncio
import time
import xmlrpc.client

import pytest

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_server import OnedServer
from ha_controller.sim.oned_template import TemplateError, parse

CALL = xmlrpc.client.dumps(("oneadmin:embedded-cloud",), "one.system.version").encode()
REQUEST = b"POST /RPC2 HTTP/1.1\r\nHost: oned\r\nContent-Length: %d\r\n\r\n%s"


@pytest.fixture
async def address():
    cloud = EmbeddedCloud(hosts=2, vms_per_host=1, network=19)
    server = OnedServer(cloud.oned, session=cloud.session, clock=time.time, max_conn=3, idle_s=0.6)
    port = await server.start("127.0.0.1", 0)
    yield "127.0.0.1", port
    server.close()


async def ask(address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_idle_connections_block_every_call_until_they_are_dropped(address):
    """As on the real one, with 15 places and 15 s."""
    idle = [await asyncio.open_connection(*address) for _ in range(3)]
    began = time.monotonic()
    answer = await ask(address, REQUEST % (len(CALL), CALL))
    assert b"7.4.0" in answer
    assert 0.4 < time.monotonic() - began < 3
    for reader, writer in idle:
        assert await reader.read() == b""
        writer.close()


async def test_every_answer_closes_the_connection(address):
    head, _, body = (await ask(address, REQUEST % (len(CALL), CALL))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in head
    assert b"<boolean>1</boolean>" in body


@pytest.mark.parametrize(
    "request_",
    [b"\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"x" * 70_000, REQUEST % (1 << 30, b"")],
    ids=["empty", "negative length", "endless head", "huge length"],
)
async def test_nonsense_harms_nobody_else(address, request_):
    await ask(address, request_)
    assert b"7.4.0" in await ask(address, REQUEST % (len(CALL), CALL))


def test_login_tokens_are_given_revoked_one_by_one_and_all_at_once():
    """Recordings 207 to 210, and section 1b of what was observed."""
    cloud = EmbeddedCloud(hosts=1, vms_per_host=1, network=19, clock=lambda: 1000.0)

    def call(session: str, method: str, *arguments: object) -> list[object]:
        answer = cloud.server.answer(xmlrpc.client.dumps((session, *arguments), method).encode())
        return xmlrpc.client.loads(answer)[0][0]

    first, second = (call(cloud.session, "one.user.login", "oneadmin", "", 600, -1)[1] for _ in range(2))
    assert call(f"oneadmin:{first}", "one.system.version")[0]
    assert call(f"oneadmin:{second}", "one.user.login", "oneadmin", first, 0, -1)[:2] == [True, ""]
    assert call(f"oneadmin:{first}", "one.system.version")[2] == 256
    assert call(cloud.session, "one.user.login", "oneadmin", "", 0, -1)[0]
    assert call(f"oneadmin:{second}", "one.system.version")[2] == 256


def test_template_text_is_read_as_oned_reads_it():
    """Recordings 028, 029 and 170."""
    assert parse('HA_NOTE="checked"\nHA_FENCE=[METHOD="ipmi",ADDRESS="192.0.2.11"]\nN=1') == {
        "HA_NOTE": "checked",
        "HA_FENCE": {"METHOD": "ipmi", "ADDRESS": "192.0.2.11"},
        "N": "1",
    }
    assert parse('HA_NOTE="checked') == {"HA_NOTE": '"checked'}
    assert parse('A="say \\"so\\""') == {"A": 'say "so"'}
    with pytest.raises(TemplateError):
        parse('A=[B="1"')
