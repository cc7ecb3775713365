"""Work that blocks, done beside the event loop: in a worker thread, or wherever whoever runs the loop wants it.

The simulator has it done at once, at a pretended moment: threads that end when they like would make two runs of one
seed differ.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Workers(Protocol):
    """Who does the work; as `anyio.to_thread.run_sync`."""

    def __call__(
        self,
        work: Callable[..., Any],
        /,
        *arguments: Any,
        abandon_on_cancel: bool = False,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> Awaitable[Any]:
        """Do it, and return what it returns."""


_workers: ContextVar[Workers] = ContextVar("workers", default=anyio.to_thread.run_sync)


async def run_sync(
    work: Callable[[*Ts], T],
    *arguments: *Ts,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Do it beside the event loop; arguments and errors as those of `anyio.to_thread.run_sync`."""
    done: T = await _workers.get()(work, *arguments, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
    return done


def rest(seconds: float) -> None:
    """Within such work: stand back, so that the event loop has the interpreter. Not where nothing runs beside it."""
    if _workers.get() is anyio.to_thread.run_sync:
        time.sleep(seconds)


@contextmanager
def done_by(workers: Workers) -> Iterator[None]:
    """Whatever is started within this has its work done by these."""
    token = _workers.set(workers)
    try:
        yield
    finally:
        _workers.reset(token)
