"""The `storage` channel: whether a host goes on to write its heartbeat to a shared datastore.

Every host writes a counter once a second (the unit in plugins/watchdog, with or without a watchdog). Only its progress
counts: a time stamp would need equal clocks, and an old file would look alive for ever. When no host's counter moves,
it is the storage or our view of it, and nothing is known of anybody.

Network file systems hang, so a child process reads the files; it is killed and started anew when it does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
from pydantic import field_validator

from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig
from ha_controller.plugin import (
    Domain,
    Duration,
    ProbeContext,
    ProbeUnavailable,
    Reading,
    Signal,
    Target,
    duration_field,
)

ENDS_WITHIN_S = 0.5
BYTES = 512  #: size of a heartbeat file
#: Reads one file after the other, as their names come in: "NUMBER PATH" in, "NUMBER CONTENT" out, one line each.
READER = f"""
import sys
for line in sys.stdin:
    number, path = line.rstrip("\\n").split(" ", 1)
    try:
        with open(path, errors="replace") as file:
            text = " ".join(file.read({BYTES}).split())
    except OSError as error:
        text = "- " + (error.strerror or "cannot be read")
    print(number, text, flush=True)
"""


class StorageConfig(AsyncProbeConfig):
    """Settings of `[channel.storage]`."""

    folder: Path  #: on the shared datastore, as the controller sees it; the same that the hosts write to
    silent_after_s: Duration = duration_field("5s", key="silent_after")  #: no progress for this long is silence

    @field_validator("folder")
    @classmethod
    def _is_absolute(cls, folder: Path) -> Path:
        if not folder.is_absolute():
            raise ValueError("must be an absolute path")
        return folder


class StorageProbe(AsyncProbe[StorageConfig]):
    """Watches the counters that hosts write to a shared datastore."""

    kind = "storage"
    config_model = StorageConfig
    domain = Domain.STORAGE

    def __init__(self, config: StorageConfig, context: ProbeContext) -> None:
        super().__init__(config, context)
        self._reader = _Reader()
        self._marks: dict[int, tuple[str, float, float]] = {}  # host -> (mark, last progress, last look)
        self._progress_at: float | None = None  # of any host
        self._begun_at: float | None = None

    async def open(self) -> str:
        """Start the child.

        Raises:
            ProbeUnavailable: it cannot be started.
        """
        try:
            await self._reader.start()
        except OSError as error:
            raise ProbeUnavailable(f"the reader of heartbeats cannot be started: {error.strerror}") from error
        return f"heartbeats in {self.config.folder}, silent after {self.config.silent_after_s:g} s"

    async def close(self) -> None:
        """End the child."""
        await super().close()
        await self._reader.stop()

    async def ask(self, target: Target, now: float) -> Reading:
        """Look at one host's counter."""
        if "/" in target.name or target.name.startswith("."):
            return self._unknown(target, now, "its name is no file name")
        try:
            with anyio.fail_after(self.config.timeout_s / 2):
                text = await self._reader.read(self.config.folder / f"{target.name}.lease")
        except (TimeoutError, OSError):
            return self._unknown(target, now, "the datastore does not answer us")
        if text.startswith("- "):
            return self._unknown(target, now, f"no heartbeat: {text[2:]}")
        return self._judge(target, now, text)

    def _judge(self, target: Target, now: float, text: str) -> Reading:
        mark = _mark(text)
        if mark is None:
            return self._unknown(target, now, "this is no heartbeat")
        self._begun_at = now if self._begun_at is None else self._begun_at
        known = self._marks.get(target.host)
        if known is None or known[0] != mark:
            self._marks[target.host] = (mark, now, now)
            if known is None:
                return self._unknown(target, now, "no earlier look to compare")
            self._progress_at = now
            # the life lies after the look that did not show it yet: too early is the safe side
            return Reading(host=target.host, signal=Signal.ALIVE, sent_at=known[2], detail="its counter moves")
        self._marks[target.host] = (mark, known[1], now)
        still_s = now - known[1]
        if still_s < self.config.silent_after_s:
            return self._unknown(target, now, "no new beat yet")
        if now - (self._progress_at or self._begun_at) >= self.config.silent_after_s:
            return self._unknown(target, now, "no host's counter moves: the storage, or our view of it")
        return Reading(host=target.host, signal=Signal.SILENT, sent_at=now, detail=f"no beat for {still_s:.0f} s")

    def _unknown(self, target: Target, now: float, detail: str) -> Reading:
        return Reading(host=target.host, signal=Signal.UNKNOWN, sent_at=now, detail=detail)


def _mark(text: str) -> str | None:
    """Return what changes with every beat: the boot and the counter; None when this is no heartbeat."""
    try:
        words: Any = json.loads(text)
        return f"{words['boot_id']} {int(words['counter'])}"
    except (ValueError, TypeError, KeyError):
        return None


class _Reader:
    """A child that reads files, one question after the other."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._numbers = itertools.count(1)
        self._one_question = anyio.Lock()

    async def start(self) -> None:
        """Start it. Raises OSError."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", READER,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip

    async def stop(self) -> None:
        """Kill it. One that hangs in the kernel ends when the storage comes back; nobody waits for that."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with anyio.move_on_after(ENDS_WITHIN_S, shield=True):
            await process.wait()

    async def read(self, path: Path) -> str:
        """Read one file as one line; the caller sets the deadline, and one that is cut off costs the child.

        Raises:
            OSError: there is no child, or it has ended.
        """
        async with self._one_question:
            process = self._process
            if process is None or process.stdin is None or process.stdout is None:
                raise OSError("no reader")
            number, answered, text = next(self._numbers), "", ""
            try:
                process.stdin.write(f"{number} {path}\n".encode())
                answered, _, text = (await process.stdout.readline()).decode().rstrip("\n").partition(" ")
            finally:
                if answered != str(number):  # cut off, or it has ended: a late answer would be taken for another's
                    with anyio.CancelScope(shield=True):
                        await self.stop()
                        await self.start()
            if answered != str(number):
                raise OSError("the reader has ended")
            return text
