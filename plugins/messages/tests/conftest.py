"""A receiver over a real socket: keeps what it gets, and can refuse, be slow, or be gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from aiohttp import web


@dataclass
class Receiver:
    url: str = ""
    status: int = 200
    answer: Any = None
    wait_s: float = 0.0
    got: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        await anyio.sleep(self.wait_s)
        self.got.append(await request.json())
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        more = {"Location": "http://127.0.0.1:1/"} if self.status in (301, 302, 307) else {}
        return web.json_response(self.answer, status=self.status, headers=more)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    application = web.Application()
    application.router.add_post("/{path:.*}", found.take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    found.url = f"http://{host}:{port}"
    yield found
    await runner.cleanup()
