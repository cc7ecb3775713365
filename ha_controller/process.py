"""For plugins that use programs: runs one as a process, and leaves nothing of it behind.

Secrets go in on standard input or in files, never on the command line. A call that is cancelled stops the program with
all its descendants, and then kills them: an `ipmitool` left over would switch later. Descendants are known by their
parents, and by a mark in their environment when they have cut themselves loose.

Starting a process stops the event loop and costs CPU, so processes are started from threads and a few at a time; once
started they do not wait for each other, so that a hung one delays nobody.
"""

from __future__ import annotations

import os
import secrets
import select
import selectors
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

STARTS_AT_ONCE: Final = 4
ENDS_WITHIN_S: Final = 0.5  #: one that hangs in the kernel is not waited for
START_S: Final = 0.5  #: so long a new process counts as starting
RUNNING_MAX: Final = 400
OUTPUT_BYTES_MAX: Final = 65_536
PIECE_BYTES: Final = 16_384
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MARK: Final = "HA_CONTROLLER_RUN"  #: the variable that marks a process and its descendants

#: program -> threads that wait for it, and starts of it
_limits: RunVar[dict[str, tuple[anyio.CapacityLimiter, anyio.Semaphore]]] = RunVar("limits of programs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a program ended."""

    status: int  #: exit status; negative: the signal
    output: str
    errors: str


def find(program: str) -> str | None:
    """Return the path of an installed program, wherever this machine's are; None if it is not there."""
    return shutil.which(program, path=PATH)


def environment() -> Mapping[str, str]:
    """Return the little that a program needs; nothing of ours, which may hold secrets."""
    return {"PATH": PATH, "LC_ALL": "C", "HOME": "/", "PYTHONWARNINGS": "ignore"}


async def run(command: Sequence[str], given: str = "", *, output_bytes_max: int = OUTPUT_BYTES_MAX) -> Ended:
    """Run a program (its path and arguments) with this text on its standard input, to its end.

    Each program has its own limit of starts, so that one kind that hangs does not delay another.

    Raises:
        OSError: it cannot be started.
    """
    threads, starts = _shared(command[0])
    process = _Process(command, given, output_bytes_max)
    await starts.acquire()
    started = False
    ended: Ended | OSError

    async def allow_the_next() -> None:
        nonlocal started
        await anyio.sleep(START_S)
        started = True
        starts.release()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(allow_the_next)
            try:
                ended = await _waited_for(process, threads)
            except OSError as error:
                ended = error  # raised outside, or the group would wrap it
            group.cancel_scope.cancel()
    finally:
        if not started:
            starts.release()
    if isinstance(ended, OSError):
        raise ended
    return ended


async def _waited_for(process: _Process, threads: anyio.CapacityLimiter) -> Ended:
    try:
        return await anyio.to_thread.run_sync(process.run, abandon_on_cancel=True, limiter=threads)
    except BaseException:  # whatever ends the wait, also a cancellation: no program may be left behind
        with anyio.CancelScope(shield=True):
            # milliseconds: it only sends signals; a thread of its own, since the shared ones may all wait for DNS
            await anyio.to_thread.run_sync(process.end, limiter=anyio.CapacityLimiter(1))
        raise


def _shared(path: str) -> tuple[anyio.CapacityLimiter, anyio.Semaphore]:
    limiters, program = _limits.get({}), Path(path).name
    _limits.set(limiters)
    if program not in limiters:
        limiters[program] = (anyio.CapacityLimiter(RUNNING_MAX), anyio.Semaphore(STARTS_AT_ONCE))
    return limiters[program]


class _Process:
    """One run, watched by a thread and ended by another."""

    def __init__(self, command: Sequence[str], given: str, output_bytes_max: int) -> None:
        self._command = list(command)
        self._output_bytes_max = output_bytes_max
        self._given = given
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._unwanted = False
        self._mark = secrets.token_hex(8)

    def run(self) -> Ended:
        """Start it and wait for its end. Of its output only the beginning is kept; the rest is read and dropped."""
        with self._lock:
            if self._unwanted:
                return Ended(status=-signal.SIGKILL, output="", errors="")
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environment(), MARK: self._mark},
                cwd="/",
                start_new_session=True,
            )
        with self._popen as popen:
            output, errors = self._talked(popen)
        _kill_group(popen.pid)  # what it left running in its session
        return Ended(status=popen.returncode, output=output, errors=errors)

    def _talked(self, popen: subprocess.Popen[bytes]) -> tuple[str, str]:
        """Give it what it is given, and listen to both its outputs until they end; returns their beginnings."""
        assert popen.stdin is not None and popen.stdout is not None and popen.stderr is not None
        heard: dict[IO[bytes], bytearray] = {popen.stdout: bytearray(), popen.stderr: bytearray()}
        given = memoryview(self._given.encode())
        with selectors.DefaultSelector() as selector:
            for pipe in heard:
                selector.register(pipe, selectors.EVENT_READ)
            selector.register(popen.stdin, selectors.EVENT_WRITE)
            while selector.get_map():
                for key, _ in selector.select():
                    pipe = cast("IO[bytes]", key.fileobj)
                    if pipe is popen.stdin:
                        given = _written(pipe, given)
                        ended = not given
                    else:
                        piece = os.read(pipe.fileno(), PIECE_BYTES)
                        kept = heard[pipe]
                        kept += piece[: max(0, self._output_bytes_max - len(kept))]
                        ended = not piece
                    if ended:
                        selector.unregister(pipe)
                        with suppress(BrokenPipeError):
                            pipe.close()
        popen.wait()
        output, errors = (bytes(kept).decode("utf-8", "replace") for kept in heard.values())
        return output, errors

    def end(self) -> None:
        """Kill it with all its descendants; returns when the signals are sent."""
        with self._lock:
            self._unwanted = True
            popen = self._popen
        if popen is not None and popen.returncode is None:
            _kill_tree(popen.pid, f"{MARK}={self._mark}".encode())
            with suppress(subprocess.TimeoutExpired):
                popen.wait(ENDS_WITHIN_S)


def _written(pipe: IO[bytes], given: memoryview) -> memoryview:
    """What is left to give; nothing when nobody listens. A pipe that is ready takes PIPE_BUF bytes without waiting."""
    try:
        return given[os.write(pipe.fileno(), given[: select.PIPE_BUF]) :] if given else given
    except BrokenPipeError:
        return given[:0]


def _kill_tree(root: int, mark: bytes) -> None:
    """Stop a process and its descendants one after the other, then kill them: what is stopped starts nothing new."""
    stopped: set[int] = set()
    while new := [pid for pid in ({root} | _descendants(root, mark)) if pid not in stopped]:
        for pid in new:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
            stopped.add(pid)
    _kill_group(root)
    for pid in stopped:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _descendants(root: int, mark: bytes) -> set[int]:
    """Return the living processes below `root` and those with the mark, from /proc."""
    children: dict[int, list[int]] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                # proc(5): the name, in parentheses, may contain blanks; state and parent follow it
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    children.setdefault(int(parent), []).append(int(entry.name))
                    if mark in (entry / "environ").read_bytes():
                        found.add(int(entry.name))
    todo = [root, *found]
    while todo:
        below = [pid for pid in children.get(todo.pop(), []) if pid not in found]
        found.update(below)
        todo += below
    return found
