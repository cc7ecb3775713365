"""A cloud as a process of its own, in namespaces for network, mounts and processes; it tells in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

LINE_MAX = 1 << 24
#: Everything below one process that ends with it, and it with us, even if we are killed. Its child is process 1 there,
#: which takes in who loses its parent.
_APART = [
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"),
    *("--mount-proc", "--propagation", "private"),
]
_FIRST = 'mkdir -p /run/netns; mount -t tmpfs chaos /run/netns && ip link set lo up && "$@"; exit $?'

Say = Callable[[dict[str, Any]], None]


def apart_from_logs() -> Say:
    """Standard output is for lines of JSON; whatever else is printed in this process goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(document: dict[str, Any]) -> None:
        out.write(json.dumps(document) + "\n")
        out.flush()

    return say


async def run_apart(module: str, words: Sequence[str], folder: Path, hear: Callable[[dict[str, Any]], None]) -> str:
    """Run a module of the tests there, and hear what it says; returns why it broke down, empty if it did not."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (folder / "stderr").open("wb") as errors:
        process = await anyio.open_process(
            [*_APART, "sh", "-c", _FIRST, "sh", sys.executable, "-m", module, *words],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
        )
    ended = False
    async with process:  # what runs there is killed with it, by the kernel
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)
        with suppress(anyio.EndOfStream, anyio.IncompleteRead):
            while True:
                document = json.loads(await lines.receive_until(b"\n", LINE_MAX))
                ended |= "end" in document
                hear(document)
    if process.returncode == 0 and ended:
        return ""
    return (folder / "stderr").read_text()[-2000:] or "it ended too early"
