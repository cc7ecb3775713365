"""The API over real sockets: this machine's own, and TCP if that is wanted. Decides nothing.

What a request costs is bounded: its head must come in time, its body has a size and a time, an answer that is not read
is given up, and connections are counted. Whatever goes wrong in a handler becomes a problem and a logged traceback.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
from aiohttp import web

from ha_controller import __version__
from ha_controller.adapters.commander import Commander
from ha_controller.adapters.connections import HANDSHAKE_MAX_S, IDLE_MAX_S, bounded
from ha_controller.adapters.http_api import page
from ha_controller.adapters.http_api.access import (
    NOBODY,
    SAFE_METHODS,
    Caller,
    require,
    require_own_page,
)
from ha_controller.adapters.http_api.acts import Acts
from ha_controller.adapters.http_api.doorkeeper import Doorkeeper
from ha_controller.adapters.http_api.feed import Feed
from ha_controller.adapters.http_api.looks import Looks
from ha_controller.adapters.http_api.openapi import document
from ha_controller.adapters.http_api.operations import Call, Operation, body_of, path_of, query_of
from ha_controller.adapters.http_api.people import People
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.http_api.repeats import KEY_HEADER, Repeats
from ha_controller.adapters.http_api.sources import Sources
from ha_controller.adapters.http_api.tokens import without_tokens

log = structlog.get_logger(__name__)

BODY_BYTES_MAX: Final = 1 << 20
LINE_BYTES_MAX: Final = 1 << 16  #: the first line of a request: it names many hosts
BODY_MAX_S: Final = 20.0
SEND_MAX_S: Final = 60.0
CONNECTIONS_MAX: Final = 200  #: of each socket
END_MAX_S: Final = 5.0
#: for every answer; the page sets its own
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Json = Any
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Tcp:
    """Where to listen beside the Unix socket."""

    address: str
    port: int
    tls: ssl.SSLContext | None = None


def all_operations(looks: Looks, acts: Acts, people: People) -> list[Operation]:
    """All that the API can do."""
    return [*looks.operations(), *acts.operations(), *people.operations()]


class HttpApi:
    """Serves the API."""

    def __init__(
        self,
        socket_path: Path,
        sources: Sources,
        commander: Commander,
        *,
        doorkeeper: Doorkeeper,
        people: People,
        tcp: Tcp | None = None,
    ) -> None:
        """Nothing is opened yet."""
        self._socket_path = socket_path
        self._doorkeeper = doorkeeper
        self._sources = sources
        self._tcp = tcp
        self._feed = Feed(sources)
        self._repeats = Repeats(anyio.current_time)
        self._page = page.files()
        doc: dict[str, Any] = {}
        self._looks = Looks(sources, self._feed, doc)
        self.operations = all_operations(self._looks, Acts(sources, commander), people)
        doc.update(document(self.operations, __version__))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve while the context is open.

        Raises:
            OSError: a socket cannot be made.
        """
        await self._doorkeeper.tokens.load()
        application = web.Application(middlewares=[_errors_are_values], client_max_size=BODY_BYTES_MAX)
        application.on_response_prepare.append(_safe_headers)
        application.add_routes(self._routes())
        runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=IDLE_MAX_S,
            shutdown_timeout=2.0,
            max_line_size=LINE_BYTES_MAX,
        )
        await runner.setup()
        try:
            async with self._sockets(runner):
                yield
        finally:
            self._feed.end()
            with anyio.CancelScope(shield=True), anyio.move_on_after(END_MAX_S):
                await runner.cleanup()

    @asynccontextmanager
    async def _sockets(self, runner: web.AppRunner) -> AsyncIterator[None]:
        loop, path = asyncio.get_running_loop(), self._socket_path
        async with AsyncExitStack() as stack:
            _clear(path)
            local = await loop.create_unix_server(bounded(runner, CONNECTIONS_MAX), str(path))
            stack.callback(path.unlink, missing_ok=True)
            stack.callback(local.close)
            path.chmod(0o660)
            if (tcp := self._tcp) is not None:
                handshake_s = None if tcp.tls is None else HANDSHAKE_MAX_S
                far = await loop.create_server(
                    bounded(runner, CONNECTIONS_MAX),
                    tcp.address,
                    tcp.port,
                    ssl=tcp.tls,
                    ssl_handshake_timeout=handshake_s,
                )
                stack.callback(far.close)
                log.info("the API is served", address=tcp.address, port=tcp.port, tls=tcp.tls is not None)
            yield

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._front_door()),
            web.get(f"{page.BASE}/{{name}}", self._page_file),
        ] + [
            web.get(each.path, self._served(each)) if each.method == "GET"
            else web.route(each.method, each.path, self._served(each))
            for each in self.operations
        ]  # fmt: skip

    def _front_door(self) -> _Handler:
        """The page for a browser; for curl the same as `ha-controller status`, if it may look."""
        text = self._served(Operation(method="GET", path="/", handler=self._looks.status_text, media="text/plain"))

        async def handler(request: web.Request) -> web.StreamResponse:
            return self._page["index.html"].response(request) if page.is_wanted(request) else await text(request)

        return handler

    async def _page_file(self, request: web.Request) -> web.Response:
        known = self._page.get(request.match_info["name"])
        if known is None:
            raise Problem(404, "The page has no such file.")
        return known.response(request)

    def _served(self, operation: Operation) -> _Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            caller = await self._admitted(operation, request)
            path, query = path_of(operation, request), query_of(operation, request)
            raw = b"" if operation.body is None else await _body(request)
            body = body_of(operation, request, raw)

            def still_welcome() -> None:
                if not self._doorkeeper.still_valid(caller):
                    raise Problem(401, "What was shown is not valid any more.")

            call = Call(request=request, caller=caller, path=path, query=query, body=body, still_welcome=still_welcome)
            try:
                still_welcome()  # a body may take its time, and what was shown was revoked meanwhile
                answer = await self._carried_out(operation, call, raw)
            except Problem as problem:
                if operation.method not in SAFE_METHODS:
                    await self._note(request, caller, getattr(body, "reason", ""), problem)
                raise
            return answer if isinstance(answer, web.StreamResponse) else _json(answer, operation.status)

        return handler

    async def _admitted(self, operation: Operation, request: web.Request) -> Caller:
        """Who is asking, if they may. What is refused is noted: not every look of somebody who has yet to log in."""
        caller = NOBODY
        try:
            caller = await self._doorkeeper.identify(request)
            require(caller, operation.role)
            require_own_page(request, caller)
        except Problem as problem:
            has_shown_something = caller is not NOBODY or "Authorization" in request.headers
            if has_shown_something or request.method not in SAFE_METHODS:
                await self._note(request, caller, "", problem)
            raise
        return caller

    async def _note(self, request: web.Request, caller: Caller, reason: str, problem: Problem) -> None:
        """Put an act that was refused on the audit trail, unless the core has done so."""
        origin = caller.origin if caller.via else self._doorkeeper.address(request) or "local socket"
        what, result = without_tokens(f"{request.method} {request.path}"), without_tokens(problem.detail)
        if not problem.on_record:
            await self._sources.note(
                who=caller.who, origin=origin, what=what, reason=reason, code=problem.code, result=result
            )

    async def _carried_out(self, operation: Operation, call: Call, raw: bytes) -> Json:
        if not operation.ordered:
            return await operation.handler(call)
        request = call.request
        order = f"{request.method} {request.path_qs}\n".encode() + raw
        return await self._repeats.once(
            call.caller.who, request.headers.get(KEY_HEADER), order, lambda: operation.handler(call)
        )


async def _body(request: web.Request) -> bytes:
    try:
        with anyio.fail_after(BODY_MAX_S):
            return await request.read()
    except TimeoutError:
        raise Problem(408, f"The body did not come within {BODY_MAX_S:g} s.") from None


def _json(answer: Json, status: int) -> web.Response:
    if status == 204:
        return web.Response(status=204)
    return web.Response(text=json.dumps(answer), status=status, content_type="application/json")


@web.middleware
async def _errors_are_values(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The border: an exception in a handler becomes an answer, its traceback goes to the log."""
    response = await _answer(request, handler)
    if not response.prepared:
        with anyio.move_on_after(SEND_MAX_S) as sending, suppress(ConnectionError):  # nobody waits for it any more
            await response.prepare(request)
            await response.write_eof()
        if sending.cancelled_caught and request.transport is not None:
            request.transport.abort()
    return response


async def _answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        kept = {name: value for name, value in error.headers.items() if name == "Allow"}
        return Problem(error.status, error.reason, headers=kept).response()
    except TimeoutError:
        return Problem(504, "No answer yet; look again with: ha-controller status").response()
    except ConnectionError:
        return Problem(408, "The other end went away.").response()
    except Exception:  # the border to a handler: a bug costs one answer
        log.exception("a request failed", path=request.path)
        return Problem(500, "Internal error; the controller's log has the details.").response()


async def _safe_headers(request: web.Request, response: web.StreamResponse) -> None:
    del request
    for name, value in SAFE_HEADERS.items():
        response.headers.setdefault(name, value)


def _clear(path: Path) -> None:
    """Remove the socket of a dead process; a file that is no socket stays and makes the start fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
