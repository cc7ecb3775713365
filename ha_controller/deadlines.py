"""Deadlines that are fair to whoever is asked: time in which this very process stood still is not theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

STOOD_STILL_S = 1.0  #: a deadline that is noticed so late was missed by us


async def fairly_within(seconds: float, ask: Callable[[], Awaitable[T]], *, stood_still_s: float = STOOD_STILL_S) -> T:
    """Await an answer. After a pause of the process (SIGSTOP, a paused VM) it is asked for anew, with all its time.

    Else every answer under way looks late at the moment of waking up: timers are due before anything is read.

    Raises:
        TimeoutError: no answer, and it had its time.
    """
    while True:
        began = anyio.current_time()
        try:
            with anyio.fail_after(seconds):
                return await ask()
        except TimeoutError:
            if anyio.current_time() - began < seconds + stood_still_s:
                raise
