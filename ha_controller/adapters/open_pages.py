"""What machines may read without a login: /livez, /leader and /metrics, for load balancers and Prometheus.

Reads only; a request changes nothing. Over TCP it is bound to loopback unless the operator says otherwise: names of
hosts, and how they are, are in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import structlog
from aiohttp import web

from ha_controller.adapters.connections import IDLE_MAX_S, bounded

log = structlog.get_logger(__name__)

ALIVE_WITHIN_S = 10.0
CONNECTIONS_MAX = 64  #: whoever opens more, or keeps them open, costs others the pages and the controller nothing
METRICS_TYPE = "text/plain; version=0.0.4"


class Shown(Protocol):
    """Where the answers come from."""

    def leads(self) -> bool:
        """Whether this controller leads now."""

    async def metrics(self) -> str:
        """Prometheus text."""

    def round_age_s(self) -> float:
        """How long ago the decision loop finished a round."""


def livez(shown: Shown) -> web.Response:
    """200 while the decision loop turns."""
    age_s = shown.round_age_s()
    return web.json_response({"round_age_s": round(age_s, 3)}, status=200 if age_s < ALIVE_WITHIN_S else 503)


def leader(shown: Shown) -> web.Response:
    """200 on the leader alone."""
    leads = shown.leads()
    return web.json_response({"leads": leads}, status=200 if leads else 503)


async def metrics(shown: Shown) -> web.Response:
    """What Prometheus reads."""
    return web.Response(
        body=(await shown.metrics()).encode(), headers={"Content-Type": f"{METRICS_TYPE}; charset=utf-8"}
    )


_Page = Callable[["Shown"], web.Response | Awaitable[web.Response]]


def _routes(shown: Shown) -> list[web.RouteDef]:
    def page(answer: _Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            del request
            answered = answer(shown)
            return answered if isinstance(answered, web.Response) else await answered

        return handler

    return [web.get("/livez", page(livez)), web.get("/leader", page(leader)), web.get("/metrics", page(metrics))]


@asynccontextmanager
async def serve(address: str, port: int, shown: Shown) -> AsyncIterator[None]:
    """Serve them over TCP while the context is open.

    Raises:
        OSError: the address cannot be used.
    """
    application = web.Application(client_max_size=0)
    application.add_routes(_routes(shown))
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=IDLE_MAX_S)
    await runner.setup()
    try:
        server = await asyncio.get_running_loop().create_server(bounded(runner, CONNECTIONS_MAX), address, port)
        log.info("metrics are served", address=address, port=port)
        try:
            yield
        finally:
            server.close()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await runner.cleanup()
