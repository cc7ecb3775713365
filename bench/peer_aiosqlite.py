"""A peer of the journal measurement; runs in the peers' environment, which has nothing of the controller."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from bench.harness import Cpu

TEXT = "x" * 150


async def commits(folder: str, writers: int, each: int) -> dict[str, Any]:
    """As many writers as intents at once. An intent is a record and a line of the trail: nobody else's may mix with it,
    so a lock holds the transaction together, as with any one connection."""
    import aiosqlite

    took: list[float] = []
    async with aiosqlite.connect(Path(folder) / "aiosqlite.db", isolation_level=None) as db:
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute("CREATE TABLE records (key TEXT PRIMARY KEY, text TEXT)")
        await db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, text TEXT)")
        lock = asyncio.Lock()

        async def writer(number: int) -> None:
            for turn in range(each):
                began = time.monotonic()
                async with lock:
                    await db.execute("BEGIN IMMEDIATE")
                    await db.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (f"incident/{number}", TEXT))
                    await db.execute("INSERT INTO entries (at, text) VALUES (?, ?)", (float(turn), TEXT))
                    await db.execute("COMMIT")
                took.append(time.monotonic() - began)

        cpu = Cpu()
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(writer(number))
        sample = cpu.sample()
        async with db.execute("SELECT count(*) FROM entries") as rows:
            [right] = await rows.fetchone()
    return {**sample, "right": right, "syncs": right, "p99_s": sorted(took)[int(0.99 * len(took))]}
