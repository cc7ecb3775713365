"""The local door for people and programs: JSON over a Unix socket, for the command line and scrapers.

Reads the core's state through functions it was given and posts operators' commands as events; decides nothing. Who is
at the other end is what the kernel says (SO_PEERCRED): root, the controller's own user and oneadmin may come in.
"""

from __future__ import annotations

import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import anyio
import structlog
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ha_controller.adapters import open_pages
from ha_controller.adapters.commander import Commander
from ha_controller.adapters.opennebula import OpenNebulaError
from ha_controller.core.events import Verb
from ha_controller.showable import one_line

log = structlog.get_logger(__name__)

Json = Any
HTTP_OF_CODE = {0: 200, 3: 404, 4: 409, 6: 503, 9: 421}
TRUSTED_USERS = ("root", "oneadmin")


class Sources(open_pages.Shown, Protocol):
    """Where answers come from."""

    def status(self) -> Json:
        """The cloud in one sentence, and counts."""

    def hosts(self) -> Json:
        """One row for each host."""

    def explain(self, host: str) -> Json:
        """Why a host is in its state; None if there is no such host."""

    def host_id(self, host: str) -> int | None:
        """The id of a host by id or name."""

    def drills(self) -> Json:
        """When each fence device is due for a drill."""

    def pending(self) -> Json:
        """Decisions that wait for a person."""

    async def incidents(self) -> Json:
        """All incidents on record, newest first."""

    async def flight(self, incident: int) -> bytes | None:
        """The flight record of an incident as text; None if there is none."""

    async def events(self, query: Mapping[str, str]) -> Json:
        """Lines of the trail."""

    async def leader(self) -> Json:
        """Who leads, and who could."""

    async def note(
        self, *, who: str, origin: str, what: str, reason: str = "", host: int | None = None, code: int, result: str
    ) -> None:
        """Put on the audit trail what the core does not see: an act of another kind, or one that was refused here."""

    def trail_head(self) -> Json:
        """The last entry of the trail: its number and its seal."""

    async def step_down(self, *, who: str, origin: str, reason: str, force: bool) -> tuple[int, str]:
        """Give the lead away; returns an exit code and a sentence."""

    async def check_devices(self, host: int | None) -> Json:
        """Check fence devices now; returns the rows of the hosts."""

    async def doctor(self) -> Json:
        """Live checks."""

    def notifiers(self) -> Json:
        """The ways to reach people, and how their messages ended."""

    async def test_notifiers(self, names: Sequence[str], *, who: str) -> Json:
        """Send a test through these now; one row each, with why it failed."""

    async def simulate_fail(self, hosts: Sequence[int]) -> Json:
        """Where the VMs of these hosts would go; raises OpenNebulaError."""

    async def simulate_capacity(self) -> Json:
        """How many hosts may fail; raises OpenNebulaError."""


#: it goes into the trail and into logs
Reason = Annotated[str, Field(max_length=500), AfterValidator(partial(one_line, characters_max=500))]


class CommandBody(BaseModel):
    """What a command looks like on the wire."""

    model_config = ConfigDict(extra="forbid")

    verb: Verb
    host: str | None = None
    incident: int | None = Field(default=None, ge=1, lt=2**63)
    reason: Reason = ""
    for_s: float | None = Field(default=None, gt=0, le=366 * 86400)
    force: bool = False
    repaired: bool = False


class StepDownBody(BaseModel):
    """What the order to step down looks like on the wire."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = ""
    force: bool = False


class HttpApi:
    """Serves the Unix socket."""

    def __init__(self, socket_path: Path, sources: Sources, commander: Commander) -> None:
        """Nothing is opened yet."""
        self._socket_path = socket_path
        self._sources = sources
        self._commander = commander

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve while the context is open.

        Raises:
            OSError: the socket cannot be made.
        """
        application = web.Application(middlewares=[self._only_trusted, _errors_are_values])
        application.add_routes(self._routes())
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            _clear(self._socket_path)
            await web.UnixSite(runner, str(self._socket_path)).start()
            self._socket_path.chmod(0o660)
            yield
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await runner.cleanup()
            self._socket_path.unlink(missing_ok=True)

    def _routes(self) -> list[web.RouteDef]:
        sources = self._sources
        return [
            *open_pages.routes(sources),
            web.get("/api/v1/status", _reads(sources.status)),
            web.get("/api/v1/hosts", _reads(sources.hosts)),
            web.get("/api/v1/hosts/{host}/explain", self._explain),
            web.get("/api/v1/drills", _reads(sources.drills)),
            web.get("/api/v1/pending", _reads(sources.pending)),
            web.get("/api/v1/incidents", self._incidents),
            web.get(r"/api/v1/incidents/{number:\d{1,18}}/flight", self._flight),
            web.get("/api/v1/events", self._events),
            web.get("/api/v1/audit/head", _reads(sources.trail_head)),
            web.get("/api/v1/doctor", self._doctor),
            web.get("/api/v1/notifiers", _reads(sources.notifiers)),
            web.post("/api/v1/notifiers/test", self._test_notifiers),
            web.get("/api/v1/leader", self._leader),
            web.post("/api/v1/leader/step-down", self._step_down),
            web.get("/api/v1/simulate/fail", self._simulate_fail),
            web.get("/api/v1/simulate/capacity", self._simulate_capacity),
            web.post("/api/v1/fencing/check", self._fencing_check),
            web.post("/api/v1/commands", self._command),
        ]

    async def _leader(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(await self._sources.leader())

    async def _step_down(self, request: web.Request) -> web.Response:
        try:
            body = StepDownBody.model_validate_json(await request.read())
        except ValidationError as error:
            return _bad_body(error)
        code, text = await self._sources.step_down(
            who=_peer_name(request), origin=_origin(request), reason=body.reason, force=body.force
        )
        return web.json_response({"code": code, "text": text}, status=HTTP_OF_CODE.get(code, 500))

    async def _explain(self, request: web.Request) -> web.Response:
        found = self._sources.explain(request.match_info["host"])
        return _no_such_host() if found is None else web.json_response(found)

    async def _incidents(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(await self._sources.incidents())

    async def _flight(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        found = await self._sources.flight(int(number))
        if found is None:
            return _problem(
                404, 3, f"There is no flight record of incident {number}. See docs/replay.md: what is kept."
            )
        return web.Response(body=found, content_type="application/jsonl")

    async def _events(self, request: web.Request) -> web.Response:
        return web.json_response(await self._sources.events(request.query))

    async def _doctor(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(await self._sources.doctor())

    async def _test_notifiers(self, request: web.Request) -> web.Response:
        """Send a test message through one notifier (`?name=`) or through all."""
        known = [row["name"] for row in self._sources.notifiers()]
        names = request.query.getall("name", known)
        if unknown := sorted(set(names) - set(known)):
            return _problem(404, 3, f"There is no notifier {', '.join(unknown)}. See: ha-controller notify list")
        rows = await self._sources.test_notifiers(names, who=_peer_name(request))
        said = ", ".join(f"{row['name']} {'ok' if row['ok'] else 'failed'}" for row in rows)
        await self._note(request, f"notify test {' '.join(names)}", result=said)
        return web.json_response(rows)

    async def _simulate_fail(self, request: web.Request) -> web.Response:
        hosts: list[int] = []
        for name in request.query.getall("host", []):
            number = self._sources.host_id(name)
            if number is None:
                return _no_such_host()
            hosts.append(number)
        return await _of_opennebula(self._sources.simulate_fail(hosts))

    async def _simulate_capacity(self, request: web.Request) -> web.Response:
        del request
        return await _of_opennebula(self._sources.simulate_capacity())

    async def _fencing_check(self, request: web.Request) -> web.Response:
        """Check the devices of one host (`?host=`) or of all, now."""
        host = request.query.get("host")
        number = None if host is None else self._sources.host_id(host)
        if host is not None and number is None:
            return _no_such_host()
        return web.json_response(await self._sources.check_devices(number))

    async def _command(self, request: web.Request) -> web.Response:
        try:
            body = CommandBody.model_validate_json(await request.read())
        except ValidationError as error:
            return _bad_body(error)
        host = None if body.host is None else self._sources.host_id(body.host)
        if body.host is not None and host is None:
            await self._note(request, f"{body.verb} {body.host}", body.reason, code=3, result="There is no such host.")
            return _no_such_host()
        answer = await self._commander.order(
            body.verb,
            who=_peer_name(request),
            origin=_origin(request),
            reason=body.reason,
            host=host,
            incident=body.incident,
            for_s=body.for_s,
            force=body.force,
            repaired=body.repaired,
        )
        if not answer.request:  # one too many: the core has not seen it
            await self._note(request, body.verb, body.reason, host=host, code=answer.code, result=answer.text)
        status = HTTP_OF_CODE.get(answer.code, 500)
        return web.json_response({"code": answer.code, "text": answer.text}, status=status)

    async def _note(
        self, request: web.Request, what: str, reason: str = "", *, host: int | None = None, code: int = 0, result: str
    ) -> None:
        who, origin = _peer_name(request), _origin(request)
        await self._sources.note(who=who, origin=origin, what=what, reason=reason, host=host, code=code, result=result)

    @web.middleware
    async def _only_trusted(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if _peer_uid(request) != os.getuid() and _peer_name(request) not in TRUSTED_USERS:
            log.warning("refused at the local socket", user=_peer_name(request), path=request.path)
            text = "Only root, oneadmin and the controller's own user may use this socket."
            await self._note(request, f"{request.method} {request.path}", code=8, result=text)
            return _problem(403, 8, text)
        return await handler(request)


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _reads(source: Callable[[], Json]) -> _Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        return web.json_response(source())

    return handler


async def _of_opennebula(answer: Awaitable[Json]) -> web.Response:
    try:
        return web.json_response(await answer)
    except OpenNebulaError as error:
        return _problem(503, 7, f"OpenNebula does not tell what is needed: {error}")


def _problem(status: int, code: int, text: str) -> web.Response:
    return web.json_response({"code": code, "text": text}, status=status, content_type="application/problem+json")


def _bad_body(error: ValidationError) -> web.Response:
    return _problem(400, 2, "; ".join(f"{each['loc']}: {each['msg']}" for each in error.errors(include_input=False)))


def _no_such_host() -> web.Response:
    return _problem(404, 3, "There is no such host in OpenNebula.")


def _peer_uid(request: web.Request) -> int:
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return -1
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", packed)[1]
    return uid


def _peer_name(request: web.Request) -> str:
    uid = _peer_uid(request)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _origin(request: web.Request) -> str:
    return f"local socket, uid {_peer_uid(request)}"


@web.middleware
async def _errors_are_values(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The border: an exception in a handler becomes an answer, its traceback goes to the log."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _problem(error.status, 1, error.reason)
    except TimeoutError:
        return _problem(504, 6, "No answer yet; look again with: ha-controller status")
    except Exception:  # the border to a handler: a bug costs one answer
        log.exception("a request failed", path=request.path)
        return _problem(500, 1, "Internal error; the controller's log has the details.")


def _clear(path: Path) -> None:
    """Remove the socket of a dead process; a file that is no socket stays and makes the start fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
