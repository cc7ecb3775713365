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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from pydantic import field_validator

from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig, boot_id_in
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
UP_MAX_S = 1e10  #: longer than any host can be up
#: Reads one file after the other, as their names come in: "NUMBER PATH" in, "NUMBER CONTENT" out, one line each.
READER = f"""
import sys
sys.stdout.reconfigure(encoding="utf-8", errors="replace")
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
        self._seen: dict[int, _Seen] = {}
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
        if "/" in target.name or target.name.startswith(".") or not target.name.isprintable():
            return self._unknown(target, now, "its name is no file name")
        try:
            with anyio.fail_after(self.config.timeout_s / 2):
                text = await self._reader.read(self.config.folder / f"{target.name}.lease")
        except TimeoutError:
            return self._unknown(target, now, "the datastore does not answer us")
        except OSError as error:
            return self._unknown(target, now, f"our own reader failed: {error.strerror or error}")
        if text.startswith("- "):
            return self._unknown(target, now, f"no heartbeat: {text[2:]}")
        return self._judge(target, now, text)

    def _judge(self, target: Target, now: float, text: str) -> Reading:
        """Only a counter that we saw moving, in this run of the host's unit, can fall silent."""
        beat = _Beat.of(text)
        if beat is None or beat.host != target.name:
            return self._unknown(target, now, "this is no heartbeat of it")
        self._begun_at = now if self._begun_at is None else self._begun_at
        seen = self._seen.get(target.host)
        if seen is None or seen.beat.run != beat.run:
            self._seen[target.host] = _Seen(beat=beat, since=now, looked_at=now, moved=False)
            if seen is None:
                return self._unknown(target, now, "no earlier look to compare")
            self._progress_at = now
            return Reading(host=target.host, signal=Signal.ALIVE, sent_at=seen.looked_at, detail="its unit was started")
        if beat.counter < seen.beat.counter:  # such as a copy that a file system kept
            return self._unknown(target, now, "this is an older beat than the last one")
        if seen.beat != beat:
            self._seen[target.host] = _Seen(beat=beat, since=now, looked_at=now, moved=True)
            self._progress_at = now
            # the life lies after the look that did not show it yet: too early is the safe side
            return Reading(
                host=target.host,
                signal=Signal.ALIVE,
                sent_at=seen.looked_at,
                detail="its counter moves",
                boot_id=boot_id_in(beat.run[0]),
                booted_at=seen.looked_at - beat.up_s if beat.up_s else 0.0,
            )
        self._seen[target.host] = replace(seen, looked_at=now)
        return self._judge_stillness(target, now, seen)

    def _judge_stillness(self, target: Target, now: float, seen: _Seen) -> Reading:
        still_s = now - seen.since
        if seen.beat.leaving:
            detail = "it said that it is being shut down or rebooted"
            return Reading(host=target.host, signal=Signal.LEAVING, sent_at=now, detail=detail)
        if seen.beat.ended:
            return self._unknown(target, now, "its unit was stopped")
        if not seen.moved:
            return self._unknown(target, now, "its counter was never seen moving")
        if still_s < self.config.silent_after_s:
            return self._unknown(target, now, "no new beat yet")
        if now - (self._progress_at or self._begun_at or now) >= self.config.silent_after_s:
            return self._unknown(target, now, "no host's counter moves: the storage, or our view of it")
        return Reading(host=target.host, signal=Signal.SILENT, sent_at=now, detail=f"no beat for {still_s:.0f} s")

    def _unknown(self, target: Target, now: float, detail: str) -> Reading:
        return Reading(host=target.host, signal=Signal.UNKNOWN, sent_at=now, detail=detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beat:
    """What a host wrote."""

    host: str
    run: tuple[str, str]  #: of which boot, and of which run of the host's unit
    counter: int
    ended: bool  #: the unit was stopped, and says so
    leaving: bool  #: because the whole host is being shut down or rebooted
    up_s: float  #: how long the host was up then; 0: not told, as by older units

    @classmethod
    def of(cls, text: str) -> _Beat | None:
        """Read it; None when this is no heartbeat."""
        try:
            words: Any = json.loads(text)
            counter, up_s = words["counter"], float(words.get("up_s", 0.0))
            if type(counter) is not int or not 0.0 <= up_s < UP_MAX_S:
                return None
            return cls(
                host=str(words["host"]),
                run=(str(words["boot_id"]), str(words["run_id"])),
                counter=counter,
                ended=words["armed"] is False,
                leaving=words["armed"] is False and words.get("leaving") is True,
                up_s=up_s,
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was seen of a heartbeat."""

    beat: _Beat
    since: float  #: when this counter was first seen
    looked_at: float
    moved: bool  #: the counter was seen to move in this run


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
            await process.wait()  # its pipes are closed then

    async def read(self, path: Path) -> str:
        """Read one file as one line; the caller sets the deadline, and one that is cut off costs the child.

        Raises:
            OSError: there is no child, or it has ended.
        """
        async with self._one_question:
            process = self._process
            if process is None or process.returncode is not None:
                await self._start_anew()
                process = self._process
            if process is None or process.stdin is None or process.stdout is None:
                raise OSError("it is not running")
            number, answered, text = next(self._numbers), "", ""
            try:
                process.stdin.write(f"{number} {path}\n".encode())
                answered, _, text = (
                    (await process.stdout.readline()).decode("utf-8", "replace").rstrip("\n").partition(" ")
                )
            finally:
                if answered != str(number):  # cut off, or it has ended: a late answer would be taken for another's
                    await self.stop()
            if answered != str(number):
                raise OSError("it has ended")
            return text

    async def _start_anew(self) -> None:
        """A failed start is no end: the next question tries again."""
        await self.stop()
        await self.start()
