"""Pages without a login: what they say, and that many connections cost nobody anything but the pages."""

from __future__ import annotations

import asyncio
import socket

import pytest

from ha_controller.adapters import open_pages


class Shown:
    def __init__(self) -> None:
        self.leading, self.age_s = True, 0.5

    def leads(self) -> bool:
        return self.leading

    async def metrics(self) -> str:
        return "ha_controller_leader 1\n"

    def round_age_s(self) -> float:
        return self.age_s


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]) if answer else 0, answer


async def test_each_page_says_by_its_status_what_a_load_balancer_asks(port: int) -> None:
    shown = Shown()
    async with open_pages.serve("127.0.0.1", port, shown):
        assert [(await get(port, path))[0] for path in ("/livez", "/leader", "/metrics")] == [200, 200, 200]
        assert "version=0.0.4" in (await get(port, "/metrics"))[1]
        shown.leading, shown.age_s = False, 11.0
        assert [(await get(port, path))[0] for path in ("/livez", "/leader", "/api/v1/status")] == [503, 503, 404]


async def test_connections_are_bounded_and_come_free_again(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_pages, "CONNECTIONS_MAX", 3)
    async with open_pages.serve("127.0.0.1", port, Shown()):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await get(port, "/leader") == (0, "")
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5):
            while (await get(port, "/leader"))[0] != 200:
                await asyncio.sleep(0.01)
