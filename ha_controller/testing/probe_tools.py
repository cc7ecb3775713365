"""What the checks of channels need: a channel that is asked as the prober asks, and a look at what it leaves behind."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio

from ha_controller.plugin import Probe, ProbeUnavailable, Reading, Signal, Target
from ha_controller.testing.probe_rig import ProbeRig
from ha_controller.testing.rig import ConformanceFailure
from ha_controller.testing.tools import require

T = TypeVar("T")

CLOCK_AHEAD_S: Final = 5000.0  #: the controller's clock is not the loop's
OPEN_WITHIN_S: Final = 10.0
CLOSE_WITHIN_S: Final = 1.0
LATE_S: Final = 1.0  #: an answer may be so late after the time-out: machines have bad moments
SHOWS_WITHIN_S: Final = 15.0  #: life or death of a host
TICK_S: Final = 0.01


class Asking:
    """An open channel, asked as the prober does. What it raises is a failure of the check."""

    def __init__(self, probe: Probe[Any]) -> None:
        self.probe = probe
        self.launch_took_s = 0.0
        self.collect_took_s = 0.0

    @property
    def timeout_s(self) -> float:
        """How long a question may take; 0 for a channel without a time-out, which answers at once."""
        return float(getattr(self.probe.config, "timeout_s", 0.0))

    def launch(self, targets: Sequence[Target]) -> float:
        """Ask; returns when."""
        before, now = anyio.current_time(), clock()
        closely = [replace(target, close_watch=self.probe.suspects_only) for target in targets]
        contained("launch", lambda: self.probe.launch(closely, now))
        self.launch_took_s = anyio.current_time() - before
        return now

    def collect(self) -> list[Reading]:
        """Take what has come."""
        before = anyio.current_time()
        readings = contained("collect", lambda: self.probe.collect(clock()))
        self.collect_took_s = max(self.collect_took_s, anyio.current_time() - before)
        require(all(isinstance(reading, Reading) for reading in readings), "collect returned something but readings")
        return readings

    async def collect_for(self, seconds: float, enough: Callable[[list[Reading]], bool]) -> list[Reading]:
        """Collect until it is enough, or the time is over."""
        readings: list[Reading] = []
        with anyio.move_on_after(seconds):
            while not enough(readings):
                readings += self.collect()
                await anyio.sleep(TICK_S)
        return readings

    async def ask(self, targets: Sequence[Target]) -> list[Reading]:
        """Ask, and wait until everybody has answered or should have."""
        self.launch(targets)
        asked = {target.host for target in targets}
        return await self.collect_for(self.timeout_s + LATE_S, lambda heard: asked <= {each.host for each in heard})

    async def until_shown(self, target: Target, signal: Signal, *, among: Sequence[Target] = ()) -> list[Reading]:
        """Ask about one host again and again, and about the others, until the channel says this of it.

        Returns all that it said of this host, or of anybody when there are no others.
        """
        said: list[Reading] = []
        with anyio.move_on_after(SHOWS_WITHIN_S):
            while not any(reading.signal is signal for reading in said):
                heard = await self.ask(among or [target])
                said += [reading for reading in heard if reading.host == target.host or not among]
                await anyio.sleep(TICK_S)
        told = sorted({f"{reading.signal} ({reading.detail})" for reading in said}) or ["nothing"]
        shown = any(reading.signal is signal for reading in said)
        require(shown, f"of {target.name} the channel should have said {signal}, and said {', '.join(told)}")
        return said


@asynccontextmanager
async def asking(rig: ProbeRig, probe: Probe[Any] | None = None) -> AsyncIterator[Asking]:
    """A channel of the rig, open and served; closed at the end. Raises ProbeUnavailable."""
    probe = probe or rig.make_probe()
    failures: list[Exception] = []  # raised at the end: a task group would wrap them up
    await opened(probe)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(served, probe, failures)
        try:
            yield Asking(probe)
        except Exception as error:  # a border: it is raised below
            failures.append(error)
        finally:
            tasks.cancel_scope.cancel()
    await closed(probe)
    if failures:
        raise failures[0]


async def opened(probe: Probe[Any]) -> str:
    try:
        with anyio.fail_after(OPEN_WITHIN_S):
            return await probe.open()
    except ProbeUnavailable:
        raise
    except Exception as error:  # the border to the channel under test: its bug becomes our complaint
        raise ConformanceFailure(f"open raised {error!r}; only ProbeUnavailable is allowed") from error


async def served(probe: Probe[Any], failures: list[Exception]) -> None:
    try:
        await probe.serve()
    except Exception as error:  # the border to the channel under test, again
        failures.append(ConformanceFailure(f"serve raised {error!r}"))


async def closed(probe: Probe[Any]) -> None:
    try:
        with anyio.fail_after(CLOSE_WITHIN_S, shield=True):
            await probe.close()
    except Exception as error:  # the border to the channel under test, again
        raise ConformanceFailure(f"close raised {error!r}") from error


def contained(name: str, call: Callable[[], T]) -> T:
    try:
        returned = call()
    except Exception as error:  # the border to the channel under test, again
        raise ConformanceFailure(f"{name} raised {error!r}; nothing may leave it") from error
    require(not inspect.isawaitable(returned), f"{name} must not be a coroutine")
    return returned


def clock() -> float:
    """The clock on which the checks ask: seconds, at the pace of the loop's clock and not that."""
    return anyio.current_time() + CLOCK_AHEAD_S


def children() -> int:
    """Processes that this one has started and that have not ended."""
    tasks = Path("/proc/self/task")  # Linux only; elsewhere they go unchecked
    lists = [task / "children" for task in tasks.iterdir()] if tasks.is_dir() else []
    return sum(len(each.read_text().split()) for each in lists if each.exists())
