"""Deadlines that are fair to whoever is asked: time in which this very process stood still is not theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

STOOD_STILL_S = 1.0  #: who notices so late that a time has passed has stood still


async def fairly_within(seconds: float, ask: Callable[[], Awaitable[T]], *, stood_still_s: float = STOOD_STILL_S) -> T:
    """Await an answer. After a pause of the process (SIGSTOP, a paused VM) it is asked for anew, with all its time.

    Else every answer under way looks late at the moment of waking up: timers are due before anything is read. When half
    of the time has passed is looked at, too: a pause may end right behind the whole.

    Raises:
        TimeoutError: no answer, and it had its time.
    """
    loop = asyncio.get_running_loop()

    def note(late_s: list[float], due_at: float) -> None:
        late_s.append(loop.time() - due_at)

    while True:
        began, late_s = loop.time(), list[float]()
        half = loop.call_at(began + seconds / 2, note, late_s, began + seconds / 2)
        try:
            with anyio.fail_after(seconds):
                return await ask()
        except TimeoutError:
            note(late_s, began + seconds)
            if max(late_s) < stood_still_s:
                raise
        finally:
            half.cancel()
