"""The peer `blackbox_exporter`: started in the namespace of the side that uses it, asked over its HTTP interface."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.harness import Missing, Wrong, cpu_of

PORT, CONNECTIONS = 9115, 32
_MODULES = """
modules:
  banner:
    prober: tcp
    timeout: 2s
    tcp: {preferred_ip_protocol: ip4, query_response: [{expect: "^SSH-2.0-"}]}
  icmp:
    prober: icmp
    timeout: 2s
    icmp: {preferred_ip_protocol: ip4}
"""
_DEADLINE_S = 120.0


def program() -> str:
    """Raises Missing: it is not installed."""
    found = shutil.which("prometheus-blackbox-exporter") or shutil.which("blackbox_exporter")
    if found is None:
        raise Missing("blackbox_exporter (Debian: prometheus-blackbox-exporter)")
    return found


@asynccontextmanager
async def running() -> AsyncIterator[int]:
    """It runs, and answers; yields its process id."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "blackbox.yml"
        config.write_text(_MODULES)
        process = subprocess.Popen(
            [program(), f"--config.file={config}", f"--web.listen-address=127.0.0.1:{PORT}", "--log.level=error"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", PORT)
                        writer.close()
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
            yield process.pid
        finally:
            process.kill()
            process.wait()


async def probe(process: int, module: str, targets: Sequence[str]) -> dict[str, float]:
    """Have it ask each target once, 32 at a time; returns its own CPU time, and for how many it said success."""
    waiting, right = iter(targets), 0
    cpu, wall = cpu_of(process), time.monotonic()

    async def connection() -> None:
        nonlocal right
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        for target in waiting:
            request = f"GET /probe?module={module}&target={target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            writer.write(request.encode())
            answer = await _answer(reader)
            right += b"\nprobe_success 1\n" in answer
        writer.close()

    async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(connection())
    return {"cpu_s": cpu_of(process) - cpu, "wall_s": time.monotonic() - wall, "right": right}


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length:" in head:
        return await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    if b"chunked" not in head:
        raise Wrong("blackbox_exporter answers neither with a length nor in chunks")
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body
