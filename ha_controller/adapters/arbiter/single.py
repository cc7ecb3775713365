"""One controller on one machine: a lock on the state directory, and a term that grows with every taking of it.

The kernel takes the lock back when the process dies. It cannot see a controller on another machine. Whatever the kind
of arbiter, this lock is taken first: a journal has one writer.

It must never report a lead that it does not hold; when it cannot tell, it does not hold it. Data comes from the state
directory (`lock`, `term`) and goes to the leadership.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import anyio

from ha_controller import threads
from ha_controller.deadlines import fairly_within
from ha_controller.plugin import Arbiter, ArbiterConfig, ArbiterContext, ArbiterUnreachable, Member, NotLeading

DISK_TIMEOUT_S = 5.0
THREADS_MAX = 2


class StateDirectoryUnusable(ArbiterUnreachable, OSError):
    """The lock or the term cannot be read or written. The text says what helps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lead:
    """The lead that is held: the open lock file and the term."""

    descriptor: int
    term: int


class _HandOver:
    """Passes a lead from a worker thread to the task that waits; what the task does not claim is unlocked again."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._over = False
        self._lead: _Lead | None = None

    def give(self, lead: _Lead) -> None:
        """From the thread."""
        with self._mutex:
            if self._over:
                os.close(lead.descriptor)
            else:
                self._lead = lead

    def claim(self) -> _Lead | None:
        with self._mutex:
            lead, self._lead = self._lead, None
            return lead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        with self._mutex:
            self._over = True
            if self._lead is not None:
                os.close(self._lead.descriptor)


class SingleConfig(ArbiterConfig):
    """Nothing to set."""


class SingleArbiter(Arbiter[SingleConfig]):
    """Leads while it holds an flock on `lock` in the state directory.

    The descriptor is not inherited by programs that are started. A bare fork would share it and keep the lock alive
    after our death: children of the controller must be started, never forked.
    """

    kind: ClassVar[str] = "single"
    config_model: ClassVar[type[ArbiterConfig]] = SingleConfig
    regains: ClassVar[bool] = False  #: whoever took the lock may have written into the journal that we hold in memory

    def __init__(self, config: SingleConfig, context: ArbiterContext) -> None:
        """No I/O here. The directory must exist and be on a local disk."""
        super().__init__(config, context)
        state_dir = context.state_dir
        self.refusal = ""  #: why the last `acquire` got nothing; names the holder
        self._lock_path = state_dir / "lock"
        self._term_path = state_dir / "term"
        self._name = context.name
        self._holder: str | None = None
        self._lead: _Lead | None = None
        self._acquiring = anyio.Lock()
        self._threads = anyio.CapacityLimiter(THREADS_MAX)

    async def acquire(self) -> int | None:
        """Take the lock and a new term; the term held already when we lead; None when another process has the lock.

        A term held already that is older than the record's (another kind of arbiter led before) is counted up.

        Raises:
            StateDirectoryUnusable: neither lock nor term is taken.
        """
        async with self._acquiring:
            if self._lead is None:
                await self._take()
            elif self._lead.term < self.context.last_term():
                await self._count_up(self._lead)
        if self._lead is None:
            self.refusal = f"another controller ({self._holder}) holds {self._lock_path}"
            return None
        self.refusal = ""
        return self._lead.term

    async def renew(self, term: int) -> None:
        """Look whether the lock file is still the one we locked. The lock itself cannot run out."""
        await self.prove(term)

    async def release(self, term: int) -> None:
        """Give the lock back, at once and even when cancelled."""
        if self._lead is not None and self._lead.term == term:
            self._drop()

    async def prove(self, term: int) -> None:
        """Look whether the lock file is still the one we locked; if not, the lead is given up.

        Raises:
            NotLeading: we do not hold this term, somebody replaced the file, or the disk does not answer.
        """
        lead = self._lead
        if lead is None or lead.term != term:
            raise NotLeading(f"the lead of term {term} is not held. {self.refusal}".rstrip())
        in_place = False
        with suppress(TimeoutError):
            in_place = await fairly_within(DISK_TIMEOUT_S, lambda: self._look(lead))
        if self._lead is not lead:
            raise NotLeading(f"the lead of term {term} was given back meanwhile")
        if not in_place:
            # whoever removed the file let the next controller lock a new one: we may not be alone
            self._drop()
            raise NotLeading(f"{self._lock_path} is not the file that was locked, or cannot be read: lead given up")

    async def _look(self, lead: _Lead) -> bool:
        return await threads.run_sync(
            _is_in_place, lead.descriptor, self._lock_path, abandon_on_cancel=True, limiter=self._threads
        )

    async def members(self) -> list[Member]:
        """This controller when it leads, else the one that was seen to hold the lock. Others are not known."""
        if self._lead is not None:
            return [Member(name=self._name, instance=self.context.instance, leads=True, term=self._lead.term)]
        return [] if self._holder is None else [Member(name=self._holder, leads=True)]

    def led_meanwhile(self) -> str:
        """Nobody: whoever leads by this lock writes into this very record."""
        return ""

    def _drop(self) -> None:
        lead, self._lead = self._lead, None
        if lead is not None:
            os.close(lead.descriptor)

    async def _take(self) -> None:
        """Set the lead if the lock is free. A lock that is got after a cancellation or too late is given back."""
        with _HandOver() as hand_over:
            try:
                with anyio.fail_after(DISK_TIMEOUT_S):
                    await threads.run_sync(self._lock, hand_over, abandon_on_cancel=True, limiter=self._threads)
            except TimeoutError:
                raise StateDirectoryUnusable(f"{self._lock_path}: no answer within {DISK_TIMEOUT_S:g} s") from None
            self._lead = hand_over.claim()

    async def _count_up(self, lead: _Lead) -> None:
        try:
            with anyio.fail_after(DISK_TIMEOUT_S):
                term = await threads.run_sync(
                    _next_term, self._term_path, self.context.last_term(), abandon_on_cancel=True, limiter=self._threads
                )
        except StateDirectoryUnusable:
            raise
        except OSError as error:  # TimeoutError, too
            raise StateDirectoryUnusable(f"{self._term_path} cannot be written: {error}") from error
        if self._lead is lead:
            self._lead = replace(lead, term=term)

    def _lock(self, hand_over: _HandOver) -> None:
        """In a worker thread: lock, write who we are, take the next term."""
        try:
            with ExitStack() as undo:
                descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                undo.callback(os.close, descriptor)
                if not _try_lock(descriptor) or not _is_in_place(descriptor, self._lock_path):
                    self._holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "pid unknown"
                    return
                os.ftruncate(descriptor, 0)
                last_term = self.context.last_term()
                os.pwrite(descriptor, f"{self._name}\n".encode(), 0)
                lead = _Lead(descriptor=descriptor, term=_next_term(self._term_path, last_term))
                undo.pop_all()
        except StateDirectoryUnusable:
            raise
        except OSError as error:
            remedy = "must exist, be writable for the controller's user, and have free space"
            raise StateDirectoryUnusable(f"{error}. The directory {self._lock_path.parent} {remedy}.") from error
        hand_over.give(lead)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_in_place(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _next_term(path: Path, last_term: int) -> int:
    """Count the term up, on disk before it is used: no two leads ever share a term, not even across a power cut."""
    try:
        term = max(int(path.read_text(encoding="ascii")), last_term) + 1
    except FileNotFoundError:
        term = last_term + 1
    except ValueError:
        # starting again from 1 would let an old leader's orders pass for new ones
        remedy = "Write a number into it that is higher than every term in the log, then start again"
        raise StateDirectoryUnusable(f"{path} holds no number, and terms must never go back. {remedy}.") from None
    write_whole(path, f"{term}\n")
    return term


def write_whole(path: Path, text: str) -> None:
    """Put a small file at that path, on disk; a crash leaves all of it or nothing. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
