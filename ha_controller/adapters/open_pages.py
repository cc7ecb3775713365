"""What machines may read without a login: /livez, /leader and /metrics, for load balancers and Prometheus.

Reads only; a request changes nothing. Over TCP it is bound to loopback unless the operator says otherwise: names of
hosts, and how they are, are in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

ALIVE_WITHIN_S = 10.0
CONNECTIONS_MAX = 64  #: whoever opens more, or keeps them open, costs others the pages and the controller nothing
METRICS_TYPE = "text/plain; version=0.0.4"


class Shown(Protocol):
    """Where the answers come from."""

    def leads(self) -> bool:
        """Whether this controller leads now."""

    def metrics(self) -> str:
        """Prometheus text."""

    def round_age_s(self) -> float:
        """How long ago the decision loop finished a round."""


def routes(shown: Shown) -> list[web.RouteDef]:
    """The pages."""

    async def livez(request: web.Request) -> web.Response:
        del request
        age_s = shown.round_age_s()
        return web.json_response({"round_age_s": round(age_s, 3)}, status=200 if age_s < ALIVE_WITHIN_S else 503)

    async def leader(request: web.Request) -> web.Response:
        """200 on the leader alone."""
        del request
        leads = shown.leads()
        return web.json_response({"leads": leads}, status=200 if leads else 503)

    async def metrics(request: web.Request) -> web.Response:
        del request
        return web.Response(body=shown.metrics().encode(), headers={"Content-Type": f"{METRICS_TYPE}; charset=utf-8"})

    return [web.get("/livez", livez), web.get("/leader", leader), web.get("/metrics", metrics)]


@asynccontextmanager
async def serve(address: str, port: int, shown: Shown) -> AsyncIterator[None]:
    """Serve them over TCP while the context is open.

    Raises:
        OSError: the address cannot be used.
    """
    application = web.Application(client_max_size=0)
    application.add_routes(routes(shown))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        server = await asyncio.get_running_loop().create_server(_bounded(runner), address, port)
        log.info("metrics are served", address=address, port=port)
        try:
            yield
        finally:
            server.close()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await runner.cleanup()


def _bounded(runner: web.AppRunner) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol for each connection; one beyond the bound is closed at once."""

    def make() -> asyncio.BaseProtocol:
        server = runner.server
        if server is None or len(server.connections) >= CONNECTIONS_MAX:
            return _Refusal()
        return server()

    return make


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
