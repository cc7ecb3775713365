"""Whatever is said to the API is answered with JSON and a status, and never with an internal error."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ha_controller.adapters.commander import Commander
from ha_controller.adapters.http_api import Doorkeeper, HttpApi, People, Role
from ha_controller.adapters.journal import Journal
from ha_controller.app.sources import ControllerSources
from ha_controller.core.effects import Answer
from ha_controller.core.events import OperatorCommanded


class FewSources:
    """Answers little; the trail is a real journal's."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.ordered: list[OperatorCommanded] = []
        self.noted: list[dict[str, Any]] = []

    events = ControllerSources.events

    def knows_hosts(self) -> bool:
        return True

    def host_id(self, host: str) -> int | None:
        return 7 if host == "kvm-07" else None

    def explain(self, host: str) -> Any:
        return {"host": host} if host == "kvm-07" else None

    async def flight(self, incident: int) -> bytes | None:
        return None

    async def check_devices(self, host: int | None) -> Any:
        return []

    async def simulate_fail(self, hosts: Any) -> Any:
        return {"hosts": list(hosts)}

    async def note(self, **act: Any) -> None:
        self.noted.append(act)

    async def vms_called(self, word: str) -> list[int]:
        return []

    async def explain_vm(self, number: int) -> Any:
        return None

    def config(self) -> Any:
        return {"schema": "ha-controller/v1", "path": None, "values": []}

    async def reload(self, **_: Any) -> Any:
        return {"schema": "ha-controller/v1", "code": 0, "text": "", "problems": [], "changes": []}

    async def step_down(self, *, who: str, origin: str, reason: str, force: bool) -> tuple[int, str]:
        return 9, "no"

    async def kept(self, prefix: str) -> dict[str, str]:
        return {}

    async def keep(self, key: str, text: str | None, **act: Any) -> None:
        self.noted.append(act)

    async def groups_of(self, user: str, password: str) -> frozenset[str] | None:
        return None

    def __getattr__(self, name: str) -> Any:
        return dict


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, FewSources]]:
    journal = Journal.open(folder / "journal.db")
    try:
        sources = FewSources(journal)

        def post(event: OperatorCommanded) -> None:
            sources.ordered.append(event)
            commander.answered(Answer(request=event.request, code=0, text="done"))

        commander = Commander(post)
        path = folder / "socket"
        connector = aiohttp.UnixConnector(str(path))
        doorkeeper = Doorkeeper(sources, clock=time.time)
        people = People(doorkeeper, sources, ask=sources.groups_of, roles={"oneadmin": Role.ADMIN})
        api = HttpApi(path, sources, commander, doorkeeper=doorkeeper, people=people)
        async with api.serve(), aiohttp.ClientSession(connector=connector) as session:
            yield session, sources
    finally:
        await journal.close()


@pytest.fixture
def ask(tmp_path):
    """Ask one thing; the status and what was answered."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        session, sources = runner.run(stack.enter_async_context(served(tmp_path)))

        headers = {"Content-Type": "application/json"}

        async def asked(method: str, path: str, body: bytes | None) -> tuple[int, Any]:
            async with session.request(
                method, f"http://localhost{path}", data=io.BytesIO(body or b""), headers=headers
            ) as response:
                raw = await response.read()
                return response.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw

        def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
            return runner.run(asked(method, path, body))

        ask.sources = sources
        yield ask
        runner.run(stack.aclose())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COMMANDS = st.fixed_dictionaries(
    {"reason": st.text(max_size=600) | JSON},
    optional={
        "for_s": st.floats() | JSON,
        "force": JSON,
        "repaired": JSON,
        "other": JSON,
    },
)
BODIES = COMMANDS.map(lambda value: json.dumps(value).encode()) | JSON.map(
    lambda value: json.dumps(value).encode()
) | st.binary(max_size=100)  # fmt: skip

PLACES = (
    "pause", "resume", "leader/step-down", "incidents/3/approve", "incidents/0/reject",
    *(f"hosts/{host}/{act}" for host in ("kvm-07", "kvm-08", "..%2Fx")
      for act in ("maintenance/on", "unfence", "fence")),
)  # fmt: skip


def test_any_command_is_carried_out_or_refused(ask):
    @settings(max_examples=150, deadline=None)
    @given(BODIES, st.sampled_from(PLACES))
    def check(body: bytes, place: str) -> None:
        count = len(ask.sources.ordered)
        status, answer = ask("POST", f"/api/v1/{place}", body)
        assert status in (200, 400, 404, 421)
        assert set(answer) == ({"code", "text"} if status == 200 else {"code", "detail", "status", "title", "type"})
        for order in ask.sources.ordered[count:]:
            assert order.host in (None, 7)
            assert order.reason.isprintable()
            assert order.for_s is None or 0 < order.for_s <= 366 * 86400

    check()


def test_any_question_is_answered_or_refused(ask):
    words = st.text(max_size=20) | st.integers().map(str) | st.sampled_from(["²", "nan", "inf", "1e999", "9" * 400])
    keys = ("after", "host", "kind", "before", "incident", "limit", "newest")

    @settings(max_examples=150, deadline=None)
    @given(st.dictionaries(st.sampled_from(keys), words))
    def check(query: Mapping[str, str]) -> None:
        status, answer = ask("GET", f"/api/v1/events?{_encoded(query)}")
        assert status in (200, 400, 404)
        assert status != 200 or answer == []

    check()


def _encoded(query: Mapping[str, str]) -> str:
    from urllib.parse import quote

    return "&".join(f"{key}={quote(value.encode('utf-8', 'replace'))}" for key, value in query.items())


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/pause", b"[" * 200_000, 400),
        ("POST", "/api/v1/pause", b'{"reason":' + b"[" * 10_000, 400),
        ("POST", "/api/v1/pause", b'{"reason":"' + b"a" * 3_000_000 + b'"}', 413),
        ("POST", "/api/v1/pause", b"\xff\xfe", 400),
        ("GET", "/api/v1/incidents/" + "9" * 18 + "/flight", None, 404),
        ("GET", "/api/v1/incidents/" + "9" * 400 + "/flight", None, 400),
        ("GET", "/api/v1/incidents/..%2f..%2fetc%2fpasswd/flight", None, 400),
        ("GET", "/api/v1/hosts/..%2f..%2fetc/explain", None, 404),
        ("GET", "/api/v1/simulate/fail?host=%00", None, 400),
        ("DELETE", "/api/v1/hosts", None, 405),
    ],
)
def test_a_request_that_is_none_is_refused(ask, method, path, body, status):
    assert ask(method, path, body)[0] == status
    assert ask("GET", "/api/v1/status")[0] == 200
