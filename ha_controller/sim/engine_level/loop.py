"""An event loop in pretended time. No file descriptors, no threads: only timers and what is ready.

It is driven from outside, by the world: `due` says when it wants to run, `turn` lets it run. A loop that was ended runs
nothing any more, whatever waits in it: that is how a process is killed. One whose turn does not come stands still.

Where several tasks become ready by one and the same happening, the seed decides which goes first; asyncio promises no
order between tasks, and sets of tasks have none. Timers fire up to a millisecond late.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

LATE_MAX_S = 0.001
SPINS_MAX = 50  #: rounds of callbacks at one moment; for more of them time has to pass
SPIN_S = 0.0005

Callback = Callable[..., object]
_Context = Context | None
_Timer = asyncio.TimerHandle


class _Task(asyncio.Task[Any]):
    """A task with its place among those that become ready together."""

    place = 0.0


class PretendedLoop(asyncio.AbstractEventLoop):
    """The loop of one process."""

    def __init__(self, clock: Callable[[], float], dice: random.Random, woken: Callable[[], None]) -> None:
        """`clock` gives the world's seconds; `woken` is called before anything runs after a wait."""
        self.woken = woken
        self.ended = False
        self.held_until = 0.0  #: it stands still until then
        self.faults: list[dict[str, Any]] = []  #: what nobody caught
        self._clock, self._dice = clock, dice
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = self._cancelled = 0
        self._runs = False
        self._spun_at = float("-inf")

    # --- for the world ---

    def due(self) -> float:
        """When something is to be done; infinity when nothing is."""
        if self.ended:
            return float("inf")
        if self._ready:
            return self._spun_at + SPIN_S
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0][0] if self._timers else float("inf")

    def turn(self) -> None:
        """Do what is due now."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        asyncio._set_running_loop(self)
        self._runs = True
        try:
            self.woken()
            self._take_timers()
            for _ in range(SPINS_MAX):
                if not self._ready or self._is_over():
                    return
                self._run_ready()
            self._spun_at = self._clock()
        finally:
            self._runs = False
            asyncio._set_running_loop(before)

    def _take_timers(self) -> None:
        now, timers = self._clock(), self._timers
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if handle.cancelled():
                self._cancelled -= 1
            else:
                self._ready.append(handle)

    def _run_ready(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            before = len(ready)
            handle._run()
            if self._is_over():
                return
            if len(ready) > before + 1:
                self._mix(len(ready) - before)

    def _is_over(self) -> bool:
        return self.ended or self._clock() < self.held_until

    def _mix(self, count: int) -> None:
        """Tasks that became ready together change places among themselves."""
        new = [self._ready.pop() for _ in range(count)][::-1]
        places = [_place(handle) for handle in new]
        mixed = iter(sorted((place, index) for index, place in enumerate(places) if place))
        self._ready.extend(new[next(mixed)[1]] if place else handle for handle, place in zip(new, places, strict=True))

    # --- for asyncio ---

    def time(self) -> float:
        """The world's seconds."""
        return self._clock()

    def call_soon(self, callback: Callback, *args: Any, context: _Context = None) -> asyncio.Handle:  # type: ignore[override]
        """At the next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Callback, *args: Any, context: _Context = None) -> _Timer:  # type: ignore[override]
        """In so many seconds."""
        return self.call_at(self._clock() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callback, *args: Any, context: _Context = None) -> _Timer:  # type: ignore[override]
        """At a moment, or a little later."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when + self._dice.random() * LATE_MAX_S, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += 1
        if self._cancelled > 100 and self._cancelled > len(self._timers) // 2:
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        """A task of this loop."""
        return self.begin(coro, name=name, context=context)

    def begin(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        """The same, for the world that begins a process."""
        task = _Task(coro, loop=self, name=None if name is None else str(name), context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # whoever is killed leaves its tasks behind
        task.place = self._dice.random() + 1.0
        return task

    def get_task_factory(self) -> None:
        """There is none."""

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Whether it has its turn."""
        return self._runs

    def is_closed(self) -> bool:
        """Never: what is left of a killed process only rests."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nobody caught it: the world looks at it."""
        self.faults.append(context)


def _place(handle: asyncio.Handle) -> float:
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return task.place if isinstance(task, _Task) else 0.0
