"""The API over real sockets, before sources that answer little and a core that always says yes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from multidict import CIMultiDict

from ha_controller.adapters.commander import Commander
from ha_controller.adapters.http_api import Doorkeeper, HttpApi, People, Proxies, Role, Tcp
from ha_controller.adapters.journal_schema import JournalError
from ha_controller.adapters.opennebula import NoAnswer
from ha_controller.core.effects import Answer
from ha_controller.core.events import OperatorCommanded

Json = Any


@dataclass
class Clock:
    """Seconds that a test moves."""

    at: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Sources:
    """A cloud of one host, kvm-07."""

    lines: list[Json] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)
    acts: list[dict[str, Any]] = field(default_factory=list)
    ordered: list[OperatorCommanded] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: Answer(request=0, code=0, text="done"))
    answers_at: anyio.Event | None = None  #: the core answers then
    verdict: str = "All hosts are well."
    rows: list[Json] = field(default_factory=lambda: [{"id": 7, "name": "kvm-07", "state": "ok", "for_s": 1.0}])
    asked: list[str] = field(default_factory=list)  #: users that OpenNebula was asked for
    oned_is_down: bool = False
    hosts_were_read: bool = True
    disk_is_full: bool = False

    def status(self) -> Json:
        return {"verdict": self.verdict, "settling_s": len(self.acts)}

    def hosts(self) -> Json:
        return [dict(row) for row in self.rows]

    def knows_hosts(self) -> bool:
        return self.hosts_were_read

    def host_id(self, host: str) -> int | None:
        return 7 if self.hosts_were_read and host in ("kvm-07", "7") else None

    def explain(self, host: str) -> Json:
        return {"name": host} if self.host_id(host) is not None else None

    async def trail(self, *, after: int, limit: int) -> list[Json]:
        return [line for line in self.lines if line["id"] > after][:limit]

    async def trail_end(self) -> int:
        return self.lines[-1]["id"] if self.lines else 0

    def write(self, text: str) -> None:
        self.lines.append({"id": len(self.lines) + 1, "text": text})

    async def incidents(self, newest: int | None = None) -> list[str]:
        return []

    async def incident(self, number: int) -> Json:
        return None

    async def flight(self, incident: int) -> bytes | None:
        return None

    async def events(self, **_: Any) -> Json:
        return self.lines

    async def leader(self) -> Json:
        return {"leads": True}

    async def doctor(self) -> Json:
        return []

    async def check_devices(self, host: int | None) -> Json:
        return self.hosts()

    async def test_notifiers(self, names: Any, *, who: str) -> Json:
        return []

    async def simulate_fail(self, hosts: Any) -> Json:
        return {"hosts": list(hosts)}

    async def simulate_capacity(self) -> Json:
        return {}

    async def vms_called(self, word: str) -> list[int]:
        return []

    async def explain_vm(self, number: int) -> Any:
        return None

    def config(self) -> Any:
        return {"schema": "ha-controller/v1", "path": None, "values": []}

    async def reload(self, **_: Any) -> Any:
        return {"schema": "ha-controller/v1", "code": 0, "text": "", "problems": [], "changes": []}

    async def step_down(self, **_: Any) -> tuple[int, str]:
        return 9, "This controller does not lead."

    async def note(self, **act: Any) -> None:
        self.acts.append(act)

    async def kept(self, prefix: str) -> dict[str, str]:
        return {key: text for key, text in self.records.items() if key.startswith(prefix)}

    async def keep(self, key: str, text: str | None, **act: Any) -> None:
        if self.disk_is_full:
            raise JournalError("the disk is full")
        self.acts.append(act)
        self.records.pop(key, None)
        if text is not None:
            self.records[key] = text

    async def groups_of(self, user: str, password: str) -> frozenset[str] | None:
        self.asked.append(user)
        if self.oned_is_down:
            raise NoAnswer("one.user.info", "time is up")
        return frozenset({user, "1"}) if password == f"{user}-secret" else None

    async def metrics(self) -> str:
        return "ha_controller_leader 1\n"

    def leads(self) -> bool:
        return True

    def round_age_s(self) -> float:
        return 0.5

    def why_not_ready(self) -> list[str]:
        return []

    def why_unfit(self) -> list[str]:
        return []

    def sight(self) -> Json:
        return {}

    def trail_head(self) -> Json:
        return {"id": 0, "seal": ""}

    def drills(self) -> Json:
        return []

    def pending(self) -> Json:
        return []

    def notifiers(self) -> Json:
        return []


@dataclass
class Door:
    """An open door, and a browser or program before it."""

    api: HttpApi
    sources: Sources
    doorkeeper: Doorkeeper
    clock: Clock
    port: int
    path: Path
    tokens: dict[str, str]  #: role -> token

    async def ask(
        self, method: str, path: str, *, role: str = "", local: bool = False, headers: Any = None, **more: Any
    ) -> tuple[int, Json, Any]:
        """Ask as somebody with a role; the status, what was answered, and the headers."""
        given = CIMultiDict(headers or {})
        if role:
            given.add("Authorization", f"Bearer {self.tokens[role]}")
        connector = aiohttp.UnixConnector(str(self.path)) if local else aiohttp.TCPConnector()
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://127.0.0.1:{self.port}{path}"
            async with session.request(method, url, headers=given, **more) as response:
                raw = await response.read()
                is_json = "json" in response.headers.get("Content-Type", "") and "jsonl" not in response.content_type
                answer = await response.json(content_type=None) if is_json else raw
                return response.status, answer, response.headers


@contextlib.asynccontextmanager
async def opened(
    folder: Path, *, proxies: Proxies | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Door]:
    """A door on a port of its own, with a token for each role."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    sources, clock = Sources(), Clock()

    def post(event: OperatorCommanded) -> None:
        sources.ordered.append(event)

        async def answered() -> None:
            if sources.answers_at is not None:
                await sources.answers_at.wait()
            answer = sources.answer
            commander.answered(Answer(request=event.request, code=answer.code, text=answer.text))

        running.add(asyncio.get_running_loop().create_task(answered()))

    running: set[asyncio.Task[None]] = set()
    commander = Commander(post)
    doorkeeper = Doorkeeper(sources, clock=clock, proxies=proxies, session_s=3600, now=clock)
    roles = {"anna": Role.ADMIN, "otto": Role.OPERATOR, "vera": Role.VIEWER}
    people = People(doorkeeper, sources, ask=sources.groups_of, roles=roles, now=clock)
    path = folder / "socket"
    api = HttpApi(
        path, sources, commander, doorkeeper=doorkeeper, people=people, tcp=Tcp(address="127.0.0.1", port=port, tls=tls)
    )
    async with api.serve():
        door = Door(api, sources, doorkeeper, clock, port, path, {})
        for role in ("viewer", "operator", "admin"):
            _, made, _ = await door.ask("POST", "/api/v1/tokens", local=True, json={"name": role, "role": role})
            door.tokens[role] = made["token"]
        sources.acts.clear()
        yield door
