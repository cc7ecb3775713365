"""An event loop that looks at the clock before it runs anything, each time it wakes.

A process that was frozen (SIGSTOP, a paused virtual machine) finds the answers that arrived meanwhile. Without this, a
task that waited for one would go on with it before its deadline, which has long passed, is noticed.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable


class _WakefulSelector(selectors.DefaultSelector):
    """Calls a function after each wait, before the loop hands out what arrived."""

    def __init__(self, woken: Callable[[], None]) -> None:
        super().__init__()
        self._woken = woken

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        self._woken()
        return ready


def wakeful_loop(woken: Callable[[], None]) -> asyncio.AbstractEventLoop:
    """A new loop that calls `woken` each time it wakes. It must be quick and must not raise."""
    return asyncio.SelectorEventLoop(_WakefulSelector(woken))
