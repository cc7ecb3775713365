"""The live stream, over a real socket: what comes first, what changes, resume, and listeners that do not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ha_controller.adapters import connections
from ha_controller.adapters.http_api import feed as feeds
from ha_controller.adapters.http_api import server
from ha_controller.adapters.http_api.feed import CutOff, Feed
from tests.app.api_door import Clock, Door, Sources, opened


@pytest_asyncio.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(feeds, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(feeds, "WAKE_EVERY_S", 0.01)
    async with opened(tmp_path) as door:
        yield door


class Listener:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self) -> tuple[str, Any, str]:
        """The next event: its kind, its data, its number."""
        told = {"event": "", "data": "null", "id": ""}
        async with asyncio.timeout(20):
            while (line := (await self._response.content.readline()).decode()) != "\n" or not told["event"]:
                assert line, "the stream ended"
                name, _, value = line.rstrip("\n").partition(": ")
                told[name] = value
        return told["event"], json.loads(told["data"]), told["id"]

    async def until(self, kind: str) -> tuple[Any, str]:
        while True:
            found, data, number = await self.next()
            if found == kind:
                return data, number


@asynccontextmanager
async def listening(door: Door, role: str = "viewer", **headers: str) -> AsyncIterator[Listener]:
    given = {"Authorization": f"Bearer {door.tokens[role]}", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{door.port}/api/v1/events/stream", headers=given) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield Listener(response)


async def test_first_comes_the_whole_state_and_then_what_changes(door: Door) -> None:
    async with listening(door) as listener:
        assert (await listener.next())[:2] == ("status", {"verdict": "All hosts are well.", "settling_s": 0})
        assert (await listener.next())[0] == "hosts"
        door.sources.rows[0]["for_s"] = 99.0  # an age changes by itself, and is no news
        door.sources.rows.append({"id": 8, "name": "kvm-08", "state": "suspect", "for_s": 0.0})
        assert (await listener.next())[:2] == ("host", door.sources.rows[1])
        del door.sources.rows[0]
        assert (await listener.next())[:2] == ("gone", {"id": 7})
        door.sources.verdict = "kvm-08 is silent."
        assert (await listener.until("status"))[0]["verdict"] == "kvm-08 is silent."
        door.sources.write("a line")
        assert await listener.until("trail") == ({"id": 1, "text": "a line"}, "1")


async def test_a_listener_that_comes_back_gets_each_missed_line_once(door: Door) -> None:
    for number in range(1200):
        door.sources.write(f"line {number + 1}")
    async with listening(door, **{"Last-Event-ID": "3"}) as listener:
        got = [(await listener.until("trail"))[1] for _ in range(1197)]
        assert got == [str(number) for number in range(4, 1201)]
        door.sources.write("one more")
        assert (await listener.until("trail"))[1] == "1201"


async def test_too_much_missed_or_a_number_of_another_trail_is_told(door: Door, monkeypatch: Any) -> None:
    monkeypatch.setattr(feeds, "MISSED_MAX", 5)
    for number in range(10):
        door.sources.write(f"line {number + 1}")
    for number in ("1", "4711"):
        async with listening(door, **{"Last-Event-ID": number}) as listener:
            assert await listener.until("gap") == ({"after": int(number), "to": 10}, "")


async def test_a_revoked_token_ends_its_stream(door: Door) -> None:
    async with listening(door) as listener:
        await listener.until("hosts")
        assert (await door.ask("DELETE", "/api/v1/tokens/viewer", role="admin"))[0] == 204
        door.sources.write("not for you, but what was under way may come")
        with pytest.raises((AssertionError, aiohttp.ClientError)):
            while True:
                door.sources.write("still there?")
                await listener.next()


async def test_a_listener_that_does_not_take_what_waits_is_cut_off_and_nobody_else(monkeypatch: Any) -> None:
    monkeypatch.setattr(feeds, "WAITING_MAX", 10)
    monkeypatch.setattr(feeds, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(feeds, "WAKE_EVERY_S", 0.0)
    sources, clock = Sources(), Clock()
    feed = Feed(sources, clock)
    slow, quick = feed.frames(None), feed.frames(None)
    await anext(slow)
    await anext(quick)
    for number in range(11):
        sources.write(f"line {number}")
        clock.at += 1.0
        assert b"event: trail" in await anext(quick)
    with pytest.raises(CutOff):
        await anext(slow)
    assert feed.listeners == 1
    await quick.aclose()
    assert feed.listeners == 0


async def test_no_more_listen_than_are_allowed(door: Door, monkeypatch: Any) -> None:
    monkeypatch.setattr(feeds, "LISTENERS_MAX", 1)
    async with listening(door) as listener:
        await listener.next()
        assert (await door.ask("GET", "/api/v1/events/stream", role="viewer"))[0] == 503


async def test_a_head_and_a_body_that_do_not_come_hold_nothing_up(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(server, "IDLE_MAX_S", 0.3)
    monkeypatch.setattr(server, "BODY_MAX_S", 0.3)
    assert connections.IDLE_MAX_S <= 30
    async with opened(tmp_path) as door:
        for begun in (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(begun)
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        token = door.tokens["admin"]
        writer.write(
            f"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{".encode()
        )
        async with asyncio.timeout(20):
            assert b" 408 " in await reader.readline()
        writer.close()
        assert door.sources.ordered == []


async def test_a_silent_stream_says_that_it_is_alive_where_a_page_can_see_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is told of events, and of comments never: it would take a dead connection for a calm night."""
    monkeypatch.setattr(feeds, "ALIVE_EVERY_S", 0.05)
    async with listening(door) as listener:
        assert await listener.until("alive") == ({}, "")
