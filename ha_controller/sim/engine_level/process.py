"""A process of the pretended world: it starts, stands still, blocks, is killed, and is started again.

Each start is a life with an event loop of its own. What the controller wants of the world goes through its life: a life
that is over gets nothing done any more. Nothing of a killed one runs, not even a `finally`; at the end of all the dead
are buried, so that nothing of them wakes when Python clears up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from ha_controller import threads
from ha_controller.core.controller import Controller
from ha_controller.core.events import Event, EvidenceTaken
from ha_controller.core.settings import Settings
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.journal import Record
from ha_controller.sim.core_level.judge import Ledger
from ha_controller.sim.engine_level.loop import PretendedLoop

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.world import World

THREAD_S = 0.0005
RESTART_S = 5.0  #: the service manager starts it again
BURIAL_TURNS, BURIAL_S = 20_000, 120.0


class Killed(BaseException):
    """Whoever asks does not live any more."""


class Executing:
    """Hosts whose devices are in use."""

    def __init__(self) -> None:
        self.fencing: dict[int, int] = {}


class Asking:
    """The channels that are asked."""

    def __init__(self, settings: Settings) -> None:
        self.channels = {channel.name for channel in settings.channels}


class Running(Protocol):
    """A controller, as its process knows it."""

    @property
    def controller(self) -> Controller:
        """Its core."""

    def post(self, event: Event) -> None:
        """Hand it an event."""

    async def run(self) -> None:
        """Run until cancelled."""

    def lapse(self) -> None:
        """The loop has woken."""

    def reload(self) -> None:
        """Its configuration was changed: read it again."""

    def release(self) -> None:
        """What the kernel takes back from a process that is gone: locks and open files."""

    def is_expected(self, error: BaseException) -> bool:
        """Whether it ends by that in words, and not by a bug."""


class Life:
    """One start of a process."""

    def __init__(self, process: Process) -> None:
        """Begin. Building the controller may fail like its run."""
        self.process, self.world = process, process.world
        self.alive = True
        self.loop = PretendedLoop(self._now, self.world.dice, self._woken)  # type: ignore[abstract]  # what is left out is I/O
        self.running = process.assemble(self)
        with threads.done_by(self._work):
            self.root = self.loop.begin(self.running.run())
        self.root.add_done_callback(self._ended)
        self._buried_at: float | None = None

    def _now(self) -> float:
        return self.world.now if self.alive else self._grave_s()

    def _grave_s(self) -> float:
        return self.world.now if self._buried_at is None else self._buried_at

    def _woken(self) -> None:
        self.running.lapse()

    async def _work(
        self,
        work: Callable[..., Any],
        /,
        *arguments: Any,
        abandon_on_cancel: bool = False,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> Any:
        """Work of threads is done at once, a little later."""
        del abandon_on_cancel, limiter
        await asyncio.sleep(THREAD_S)
        return work(*arguments)

    # --- for what is pretended ---

    def here(self) -> None:
        """Raise Killed if this life is over."""
        if not self.alive and self._buried_at is None:
            raise Killed

    async def takes(self, seconds: float) -> None:
        """Time passes."""
        self.here()
        await asyncio.sleep(seconds)
        self.here()

    async def never(self) -> None:
        """No answer ever comes: whoever asks has to give up by itself."""
        self.here()
        if self.alive:
            await self.loop.create_future()

    async def risk(self, what: str, *, may_pause: bool = True) -> None:
        """A moment that a rule protects: the process may be killed or frozen right here."""
        self.here()
        trouble = self.world.trouble
        if self.alive and trouble.strikes("crash-in-an-order"):
            self.process.kill(trouble.down_s(), what)
            await self.loop.create_future()
        if self.alive and may_pause and trouble.strikes("pause-in-an-order"):
            self.process.pause(trouble.dice.uniform(1, 30))
            await asyncio.sleep(0)

    async def at_the_packet(self) -> None:
        """The last moment before an order leaves: whoever stands still here cannot look again."""
        trouble = self.world.trouble
        if self.alive and trouble.rates.of("pause-at-the-packet") and trouble.strikes("pause-at-the-packet"):
            self.process.pause(trouble.dice.uniform(2, 30))
            await asyncio.sleep(0)

    def block(self, seconds: float) -> None:
        """Something in this process does not give the loop back for so long; the world goes on."""
        self.here()
        self.process.blocked_until = self.process.paused_until = self.world.now + seconds
        self.world.story(f"{self.process.name}: its loop is blocked for {seconds:.0f} s")
        self.world.drive(self.world.now + seconds, but=self.process)
        self.here()

    # --- its end ---

    def _ended(self, root: asyncio.Task[Any]) -> None:
        if not self.alive or root.cancelled():
            return
        error = root.exception()
        if error is not None and not self.running.is_expected(error):
            self.world.broken(error)
        self.process.kill(RESTART_S, f"it ended by itself: {_first(error)}")

    def end(self) -> None:
        """Nothing of it runs after this."""
        self.alive, self.loop.ended = False, True
        self.running.release()

    def bury(self) -> str:
        """Let it end in an orderly way, in a time of its own; returns what was wrong with that."""
        began = self._buried_at = self.world.now
        self.alive, self.loop.ended, self.loop.held_until = False, False, 0.0
        self.root.cancel()
        for _ in range(BURIAL_TURNS):
            if self.root.done():
                self.loop.ended = True
                return ""
            self.loop.turn()
            self._buried_at = max(self._buried_at, min(self.loop.due(), self._buried_at + 10.0))
            if self._buried_at - began > BURIAL_S:
                break
        self.loop.ended = True
        return f"{self.process.name} was told to end, and did not within {self._buried_at - began:.0f} s"


class Process:
    """One controller's process, through all its lives."""

    def __init__(self, world: World, index: int, assemble: Callable[[Life], Running]) -> None:
        """Not started."""
        self.world, self.index, self.assemble = world, index, assemble
        self.name, self.settings = f"controller-{'abc'[index]}", world.layout.settings
        self.record, self.ledger = Record(), Ledger()
        self.executor, self.probing = Executing(), Asking(world.layout.settings)
        self.life: Life | None = None
        self.lives = 0
        self.started_at = 0.0
        self.offset_s = 0.0  #: of its clock, against the world's
        self.paused_until = self.blocked_until = 0.0
        self.dead: list[Life] = []

    @property
    def controller(self) -> Controller | None:
        """Its core, if there is a process."""
        return None if self.life is None else self.life.running.controller

    @property
    def is_up(self) -> bool:
        """Whether there is a process, even one that stands still."""
        return self.life is not None

    @property
    def runs(self) -> bool:
        """Whether it does anything at this moment."""
        return self.life is not None and self.world.now >= max(self.paused_until, self.blocked_until)

    def clock(self) -> float:
        """The controller's seconds."""
        return self.world.now + self.offset_s

    def due(self) -> float:
        """When it wants its next turn."""
        if self.life is None:
            return float("inf")
        due = self.life.loop.due()
        return due if due == float("inf") else max(due, self.paused_until)

    def turn(self) -> None:
        """Its turn."""
        if self.life is not None and self.world.now >= self.paused_until:
            self.life.loop.turn()
            if self.life is not None and self.life.loop.faults:
                self.world.broken_by(self.life.loop.faults)

    # --- life ---

    def start(self) -> None:
        """Start it, if it is not running."""
        if self.life is not None:
            return
        self.lives, self.started_at, self.offset_s = self.lives + 1, self.world.now, self.world.wall_offset_s
        self.paused_until = self.blocked_until = 0.0
        self.world.story(f"{self.name} starts")
        self.ledger.started(self.clock())
        self.world.judge.started(self)
        self.life = Life(self)

    def kill(self, down_s: float, why: str) -> None:
        """End it here and now; it is started again later."""
        if self.life is None:
            return
        self.world.story(f"{self.name} is killed: {why}")
        life, self.life = self.life, None
        life.end()
        self.dead.append(life)
        self.world.ended(self)
        self.world.agenda.later(down_s, self.start)

    def pause(self, for_s: float) -> None:
        """Let it stand still, as by SIGSTOP."""
        self.world.story(f"{self.name} stands still for {for_s:.0f} s")
        if self.world.zone is not None:
            self.world.zone.stands_still(self)
        self.sleep_until(self.world.now + for_s)

    def sleep_until(self, moment: float) -> None:
        """The same, until a moment."""
        self.paused_until = max(self.paused_until, moment)
        if self.life is not None:
            self.life.loop.held_until = self.paused_until

    def wake(self) -> None:
        """End its sleep."""
        self.paused_until = self.world.now
        if self.life is not None:
            self.life.loop.held_until = 0.0

    def after(self, delay_s: float, act: Act) -> None:
        """Do something later, if it still lives then."""
        mine = self.life

        def due() -> None:
            if self.life is mine and mine is not None:
                act()

        self.world.agenda.later(delay_s, due)

    def check_devices(self) -> None:
        """The controller checks by itself what failed before."""

    def post(self, event: Event) -> None:
        """Hand in an event, as a person's order comes in."""
        if self.life is not None and not isinstance(event, EvidenceTaken):
            self.life.running.post(event)

    def bury(self) -> list[str]:
        """The end of the world: the living one ends in an orderly way, then nothing is left of the dead."""
        lives = [*self.dead, *([] if self.life is None else [self.life])]
        problems = [problem for life in lives if (problem := life.bury())]
        self.life = None
        return problems


def _first(error: BaseException | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
