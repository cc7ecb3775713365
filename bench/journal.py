"""journal: a hundred intents at once, each durable before anybody goes on, beside aiosqlite and etcd."""

from __future__ import annotations

import asyncio
import base64
import gc
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench.harness import (
    ROOT,
    Cpu,
    Figure,
    Missing,
    Options,
    Rounds,
    Sample,
    Wrong,
    alternate,
    need_peers_python,
    run_side,
    unmeasured,
)

WRITERS, EACH = 100, 20
TEXT = "x" * 150
_ETCD_PORT = 23799


def journal(options: Options) -> list[Figure]:
    """Commits per second and the slowest of a hundred, of the same disk in the same run."""
    each = 8 if options.short else EACH
    figures = []
    for name, peer in (("aiosqlite", _aiosqlite), ("etcd", _etcd)):
        if options.short and name == "etcd":
            continue
        try:
            rounds = alternate(lambda: _measure("bench.journal:ours", each), peer(each), options.rounds or 3)
        except Missing as missing:
            figures.append(unmeasured(f"journal: {name}, commits", ">= 10x", f"{missing} is missing"))
            continue
        figures += _figures(name, rounds, short=options.short)
    return figures


def _figures(name: str, rounds: Rounds, *, short: bool) -> list[Figure]:
    note = f"{WRITERS} writers at once, every commit on disk before it counts"
    if short:  # how fast a disk syncs while others use it says nothing about us; how many commits share a sync does
        shared = rounds.figure(
            f"journal: {name}, commits a sync", 10, at_least=True, of=lambda sample: sample["right"] / sample["syncs"],
            unit="commits", note=note,
        )  # fmt: skip
        return [shared]
    rate = rounds.figure(
        f"journal: {name}, commits", 10, at_least=True, of=lambda sample: sample["right"] / sample["wall_s"],
        unit="commits/s", note=note,
    )  # fmt: skip
    slow = rounds.figure(f"journal: {name}, p99", 0.2, of=lambda sample: float(sample["p99_s"]), unit="ms", scale=1000)
    return [rate, slow]


def _aiosqlite(each: int):  # type: ignore[no-untyped-def]
    python = need_peers_python()
    return lambda: _measure("bench.peer_aiosqlite:commits", each, python=python)


def _etcd(each: int):  # type: ignore[no-untyped-def]
    if shutil.which("etcd") is None:
        raise Missing("etcd (Debian: etcd-server)")
    return lambda: _measure("bench.journal:etcd", each)


def _measure(what: str, each: int, **how: Path) -> Sample:
    with _on_disk() as folder:
        sample = run_side(what, folder=folder, writers=WRITERS, each=each, **how)
    if sample["right"] != WRITERS * each:
        raise Wrong(f"{sample['right']} of {WRITERS * each} commits are there")
    return sample


@contextmanager
def _on_disk() -> Iterator[str]:
    """Beside the project: the system's folder for temporary files may be memory, where nothing is ever durable."""
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench") as folder:
        yield folder


async def ours(folder: str, writers: int, each: int) -> Sample:
    """The controller's journal: one record and one line of the trail for each intent."""
    from ha_controller.adapters.journal import Entry, Journal

    journal = Journal.open(Path(folder) / "journal.db")
    took: list[float] = []

    async def writer(number: int) -> None:
        for turn in range(each):
            entry = Entry(at=float(turn), kind="intent", host=number, incident=number, text=TEXT, data={})
            began = time.monotonic()
            await journal.commit({f"incident/{number}": TEXT}, [entry])
            took.append(time.monotonic() - began)

    gc.freeze()
    cpu = Cpu()
    async with asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(writer(number))
    sample = cpu.sample(syncs=journal.transactions)
    right = len(await journal.entries(limit=writers * each + 1))
    await journal.close()
    return {**sample, "right": right, "p99_s": sorted(took)[int(0.99 * len(took))]}


async def etcd(folder: str, writers: int, each: int) -> Sample:
    """One node, by its JSON gateway, as `leader.kind = "etcd"` uses it: record and line in one transaction."""
    import aiohttp

    took: list[float] = []
    async with _etcd_running(folder) as endpoint, aiohttp.ClientSession() as http:

        async def call(path: str, body: object) -> dict[str, str]:
            async with http.post(f"{endpoint}/v3/{path}", json=body) as answer:
                answer.raise_for_status()
                found: dict[str, str] = await answer.json()
                return found

        async def writer(number: int) -> None:
            for turn in range(each):
                puts = [(f"records/{number}", TEXT), (f"entries/{number:03}/{turn:03}", TEXT)]
                body = {"success": [{"requestPut": {"key": _coded(key), "value": _coded(text)}} for key, text in puts]}
                began = time.monotonic()
                await call("kv/txn", body)
                took.append(time.monotonic() - began)

        cpu = Cpu()
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(writer(number))
        sample = cpu.sample()
        span = {"key": _coded("entries/"), "range_end": _coded("entries0"), "count_only": True}
        right = int((await call("kv/range", span))["count"])
    return {**sample, "right": right, "p99_s": sorted(took)[int(0.99 * len(took))]}


@asynccontextmanager
async def _etcd_running(folder: str) -> AsyncIterator[str]:
    endpoint = f"http://127.0.0.1:{_ETCD_PORT}"
    peers = f"http://127.0.0.1:{_ETCD_PORT + 1}"
    urls = {
        "listen-client": endpoint,
        "advertise-client": endpoint,
        "listen-peer": peers,
        "initial-advertise-peer": peers,
    }
    words = [word for name, url in urls.items() for word in (f"--{name}-urls", url)]
    process = subprocess.Popen(
        ["etcd", "--data-dir", f"{folder}/etcd", "--initial-cluster", f"default={peers}", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await _answers(endpoint)
        yield endpoint
    finally:
        process.kill()
        process.wait()


async def _answers(endpoint: str) -> None:
    import aiohttp

    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.post(f"{endpoint}/v3/kv/range", json={"key": _coded("ready")}) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
