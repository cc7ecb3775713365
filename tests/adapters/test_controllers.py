"""Other controllers are asked what they see, over real sockets: words become moments of ours, and no peer delays us."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from ha_controller.adapters.controllers import ANSWER_BYTES_MAX, Controllers, Dating, Other, Sight
from ha_controller.core.events import SightTold
from tests.adapters.test_hostile_peers import Say, answer, peer
from tests.app.api_door import opened
from tests.peers.certificates import self_signed

TOKEN = "hac_not-for-eyes"
OFFSET_S = 1_000_000.0  #: between the clock of a peer and ours


class Teller:
    """What a controller would say, on its own clock."""

    def __init__(self) -> None:
        self.lives: dict[int, dict[str, float]] = {}  #: host -> channel -> when, on its clock
        self.run, self.leads, self.why_unfit = "run-1", False, []
        self.runs_on: list[int] | None = None  #: None: an older version, which does not say
        self.stopped_at: float | None = None

    def clock(self) -> float:
        return OFFSET_S + (time.monotonic() if self.stopped_at is None else self.stopped_at)

    def said(self) -> dict[str, Any]:
        now = self.clock()
        hosts = [
            {"host": host, "alive_s_ago": {name: now - at for name, at in lives.items()}}
            for host, lives in self.lives.items()
        ]
        more = {"leads": self.leads, "why_unfit": self.why_unfit, "hosts": hosts, "of a newer version": 1}
        more |= {} if self.runs_on is None else {"runs_on": self.runs_on}
        return {"run": self.run, "instance": "abc", "clock_s": now, **more}

    def sees(self, host: int, channel: str = "icmp") -> None:
        self.lives.setdefault(host, {})[channel] = self.clock()


def saying(teller: Teller) -> Say:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(teller.said()).encode()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return say


class Asked:
    """Controllers that are being asked, and what was told of them."""

    def __init__(
        self, ports: dict[str, int], tls: dict[str, Any] | None = None, ours: tuple[str, str] = ("ours", "abc")
    ) -> None:
        self.told: list[SightTold] = []
        tls = tls or {}
        self.controllers = Controllers(
            [
                Other(
                    name=name,
                    url=f"http{'s' if name in tls else ''}://127.0.0.1:{port}",
                    token=SecretStr(TOKEN),
                    tls=tls.get(name),
                )
                for name, port in ports.items()
            ],
            report=self.told.append,
            clock=time.monotonic,
            ours=ours,
        )

    def sight(self, name: str) -> Sight:
        return self.controllers.sights[name]

    def answers(self, name: str) -> int:
        return sum(told.controller == name for told in self.told)

    async def becomes(self, holds: Any, within_s: float = 8.0) -> None:
        with anyio.fail_after(within_s):
            while not holds():
                await anyio.sleep(0.01)


@asynccontextmanager
async def asked(
    ports: dict[str, int], tls: dict[str, Any] | None = None, **more: tuple[str, str]
) -> AsyncIterator[Asked]:
    made = Asked(ports, tls, **more)
    async with anyio.create_task_group() as group:
        group.start_soon(made.controllers.run)
        yield made
        group.cancel_scope.cancel()


# --- dating -----------------------------------------------------------------------------------------------------------


def test_life_is_dated_by_the_age_and_by_the_moment_of_asking_and_never_too_late():
    dating = Dating()
    dating.take("run", 500.0, sent_at=10.0)
    assert dating.moment(0.5) is None  # it was before we knew its clock
    dating.take("run", 501.0, sent_at=11.2)  # this answer came faster
    assert dating.moment(0.4) == pytest.approx(10.6)  # in truth between 10.6 and 10.8
    assert dating.moment(0.0) == pytest.approx(11.2)


def test_an_age_by_a_clock_that_stood_still_is_longer_than_it_says():
    dating = Dating()
    dating.take("run", 500.0, sent_at=10.0)
    dating.take("run", 501.0, sent_at=3611.0)  # paused for an hour in between
    assert dating.moment(0.4) == pytest.approx(10.6)
    dating.take("run", 502.0, sent_at=3612.0)
    assert dating.moment(0.4) == pytest.approx(3611.6)


def test_our_own_pause_makes_nothing_younger():
    dating = Dating()
    dating.take("run", 500.0, sent_at=10.0)
    dating.take("run", 4101.0, sent_at=11.0)  # ours stood still for an hour
    assert dating.moment(3600.5) == pytest.approx(11.0 - 3600.5)


def test_what_is_repeated_by_a_clock_that_does_not_go_on_is_no_news():
    dating = Dating()
    dating.take("run", 500.0, sent_at=10.0)
    dating.take("run", 501.0, sent_at=11.0)
    first = dating.moment(0.5)
    for sent_at in range(12, 100):
        dating.take("run", 501.0, sent_at=float(sent_at))
        assert dating.moment(0.5) == first


@pytest.mark.parametrize(("run", "clock_s"), [("another", 900.0), ("run", 400.0)])
def test_another_process_and_a_clock_that_went_back_begin_anew(run, clock_s):
    dating = Dating()
    dating.take("run", 500.0, sent_at=10.0)
    dating.take(run, clock_s, sent_at=11.0)
    assert dating.moment(0.5) is None
    dating.take(run, clock_s + 1.0, sent_at=12.0)
    assert dating.moment(0.5) == pytest.approx(11.5)


# --- asking -----------------------------------------------------------------------------------------------------------


async def test_life_that_another_one_sees_is_told_as_a_moment_of_our_clock():
    teller = Teller()
    async with peer(saying(teller)) as (port, heads), asked({"one-2": port}) as ours:
        await ours.becomes(lambda: ours.answers("one-2") == 1)
        teller.sees(7)
        seen_at = time.monotonic()
        await ours.becomes(lambda: ours.told[-1].alive)
        (seen,) = ours.told[-1].alive
        assert (seen.host, seen.channel) == (7, "icmp")
        assert seen_at - 0.3 <= seen.at <= seen_at + 0.01
        sight = ours.sight("one-2")
        assert (sight.alive, sight.instance, sight.trouble) == ({7}, "abc", "")
        assert sight.is_fit(time.monotonic())
        assert f"Authorization: Bearer {TOKEN}".encode() in heads[0]
        assert heads[0].startswith(b"GET /api/v1/sight ")


async def test_one_that_is_unfit_tells_life_all_the_same_and_is_not_fit():
    teller = Teller()
    teller.why_unfit = ["self-check: 0 of 3 witnesses answer\n"]
    async with peer(saying(teller)) as (port, _), asked({"one-2": port}) as ours:
        await ours.becomes(lambda: ours.answers("one-2") == 1)
        teller.sees(7)
        await ours.becomes(lambda: ours.told[-1].alive)
        assert not ours.sight("one-2").is_fit(time.monotonic())
        assert ours.sight("one-2").why_unfit == ("self-check: 0 of 3 witnesses answer",)


@pytest.mark.parametrize(("runs_on", "known"), [([3, 4], {3, 4}), ([], set()), (None, set())])
async def test_it_says_on_which_hosts_it_runs(runs_on, known):
    teller = Teller()
    teller.runs_on = runs_on
    async with peer(saying(teller)) as (port, _), asked({"one-2": port}) as ours:
        await ours.becomes(lambda: ours.answers("one-2") == 1)
        assert ours.sight("one-2").runs_on == known


async def test_one_whose_clock_stands_still_keeps_nothing_alive():
    teller = Teller()
    async with peer(saying(teller)) as (port, _), asked({"one-2": port}) as ours:
        await ours.becomes(lambda: ours.answers("one-2") == 1)
        teller.sees(7)
        teller.stopped_at = time.monotonic()
        await ours.becomes(lambda: ours.told[-1].alive)
        first = ours.told[-1].alive[0].at
        answered = ours.answers("one-2")
        await ours.becomes(lambda: ours.answers("one-2") == answered + 2)
        assert ours.told[-1].alive[0].at == pytest.approx(first, abs=1e-6)


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"run": "')
    with suppress(ConnectionError):
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()


async def _a_byte_a_moment(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    with suppress(ConnectionError):
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)


def _saying(**changes: Any) -> Say:
    return answer(json.dumps({**Teller().said(), **changes}).encode())


MANY = [{"host": host, "alive_s_ago": {str(number): 0 for number in range(60)}} for host in range(1000)]


BAD: list[tuple[Say, str]] = [
    (_silence, "no answer within 1 s"),
    (_a_byte_a_moment, "no answer within 1 s"),
    (_endless, "its answer is too long"),
    (answer(b"x" * ANSWER_BYTES_MAX), "its answer is none"),
    (answer(b"[" * 100_000), "its answer is none"),
    (answer(b"null"), "its answer is none"),
    (answer(b"{}", status="401 Unauthorized"), "HTTP 401"),
    (answer(b"", status="302 Found", more="Location: http://127.0.0.1:1/\r\n"), "HTTP 302"),
    (_saying(clock_s=float("nan")), "its answer is none"),
    (_saying(clock_s="1"), "its answer is none"),
    (_saying(hosts=[{"host": 7, "alive_s_ago": {"icmp": -1.0}}]), "its answer is none"),
    (_saying(hosts=[{"host": 7, "alive_s_ago": {"icmp": float("inf")}}]), "its answer is none"),
    (_saying(hosts=MANY), "its answer is none"),
    (_saying(hosts=[{"host": True, "alive_s_ago": {}}]), "its answer is none"),
]


async def test_those_that_hang_flood_or_talk_nonsense_are_unknown_and_delay_nobody():
    teller = Teller()
    async with AsyncExitStack() as stack:
        ports = {"good": (await stack.enter_async_context(peer(saying(teller))))[0]}
        for number, (say, _) in enumerate(BAD):
            ports[f"bad-{number}"] = (await stack.enter_async_context(peer(say)))[0]
        ours = await stack.enter_async_context(asked(ports))
        bad = {name: sight for name, sight in ours.controllers.sights.items() if name != "good"}
        await ours.becomes(lambda: all(sight.trouble != "not asked yet" for sight in bad.values()))
        assert [sight.trouble for sight in bad.values()] == [trouble for _, trouble in BAD]
        assert {told.controller for told in ours.told} == {"good"}
        assert not any(sight.is_fit(time.monotonic()) for sight in bad.values())
        answered = ours.answers("good")
        await ours.becomes(lambda: ours.answers("good") >= answered + 2, within_s=4)


async def test_an_address_of_our_own_is_told_and_what_it_says_counts_for_nothing():
    teller = Teller()
    teller.leads = True
    teller.sees(7)
    async with peer(saying(teller)) as (port, _), asked({"one-2": port}, ours=(teller.run, "abc")) as ours:
        await ours.becomes(lambda: ours.sight("one-2").trouble != "not asked yet")
        assert ours.sight("one-2").trouble == (
            f"http://127.0.0.1:{port} is this very controller. Give the address of one-2, or take its table out"
        )
        assert ours.told == []
        assert not ours.sight("one-2").leads


async def test_one_that_comes_back_is_known_again():
    teller = Teller()
    async with peer(saying(teller)) as (port, _):
        pass
    async with asked({"one-2": port}) as ours:
        await ours.becomes(lambda: "Cannot connect" in ours.sight("one-2").trouble)
        server = await asyncio.start_server(_served(teller), "127.0.0.1", port)
        try:
            await ours.becomes(lambda: not ours.sight("one-2").trouble)
        finally:
            server.close()


def _served(teller: Teller) -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await saying(teller)(reader, writer)
        writer.close()

    return handle


async def test_one_with_another_certificate_gets_no_token(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    real, false = self_signed(tmp_path / "a"), self_signed(tmp_path / "b")
    teller = Teller()
    async with (
        peer(saying(teller), tls=false.server_context()) as (bad, heads),
        peer(saying(teller), tls=real.server_context()) as (good, _),
    ):
        tls = dict.fromkeys(("bad", "good"), ssl.create_default_context(cafile=str(real.cert)))
        async with asked({"bad": bad, "good": good}, tls) as ours:
            await ours.becomes(lambda: ours.answers("good") == 1)
            await ours.becomes(lambda: "certificate" in ours.sight("bad").trouble.lower())
            assert heads == []
            assert TOKEN not in ours.sight("bad").trouble


async def test_the_api_of_a_controller_asks_for_a_token(tmp_path: Path):
    async with opened(tmp_path) as door, asked({"one-2": door.port}) as ours:
        await ours.becomes(lambda: ours.sight("one-2").trouble != "not asked yet")
        assert ours.sight("one-2").trouble == "HTTP 401"
