"""What the checks need: calls with deadlines, cancellation at a certain await, what is left behind."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio

from ha_controller.plugin import Capability, FenceError, PowerState
from ha_controller.testing.rig import Agent, ConformanceFailure, Rig

T = TypeVar("T")
Operation = Callable[[], Awaitable[object]]

CALL_WITHIN_S: Final = 10.0  #: longest time for a call to a healthy device, and for a slow one to be off
HANG_DEADLINE_S: Final = 0.5  #: the deadline that is set on calls to a device that hangs
CANCEL_WITHIN_S: Final = 0.3  #: a cancelled call must be over after this time
WATCH_S: Final = 1.0  #: how long a host is watched for an order that comes too late
LOOP_PAUSE_MAX_S: Final = 0.1
_POLL_S: Final = 0.02


def require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ConformanceFailure(complaint)


def require_no_secret(rig: Rig, complaint: str, *texts: str) -> None:
    require(not any(secret in text for secret in rig.secrets for text in texts), complaint)


def operations(agent: Agent) -> tuple[Operation, ...]:
    reads = Capability.READ_POWER in agent.capabilities
    return (*((agent.power_state,) if reads else ()), agent.check, agent.power_off)


def readings(agent: Agent) -> tuple[PowerState, PowerState]:
    """What a running host and one that is off must read: UNKNOWN without READ_POWER."""
    if Capability.READ_POWER in agent.capabilities:
        return PowerState.ON, PowerState.OFF
    return PowerState.UNKNOWN, PowerState.UNKNOWN


def name(operation: Operation) -> str:
    return str(getattr(operation, "__name__", operation))


async def call(operation: Callable[[], Awaitable[T]]) -> T:
    """Await a call that should succeed; whatever else happens is a failure."""
    try:
        return await contained(operation)
    except FenceError as error:
        raise ConformanceFailure(f"{name(operation)} raised {error!r}") from error


async def error_of(operation: Operation) -> FenceError | None:
    try:
        await contained(operation)
    except FenceError as error:
        return error
    return None


async def fruitless(operation: Operation) -> FenceError | None:
    """Await a call that cannot succeed, with a short deadline; return its error, None when the deadline cut it."""
    with anyio.move_on_after(HANG_DEADLINE_S):
        error = await error_of(operation)
        require(error is not None, f"{name(operation)} claims success, and the device gave no answer")
        return error
    return None


async def contained(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        with anyio.move_on_after(CALL_WITHIN_S):
            return await operation()
    except FenceError:
        raise
    except Exception as error:  # the border to the agent under test: its bug becomes our complaint
        raise ConformanceFailure(f"{name(operation)} raised {error!r}; only FenceError is allowed") from error
    raise ConformanceFailure(f"{name(operation)} was not done after {CALL_WITHIN_S} s")


async def becomes_true(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    with anyio.move_on_after(within_s):
        while True:
            if await condition():
                return True
            await anyio.sleep(_POLL_S)
    return False


@contextmanager
def captured_log() -> Iterator[BufferingHandler]:
    tap, root = BufferingHandler(capacity=1_000_000), logging.getLogger()
    level = root.level
    root.addHandler(tap)
    root.setLevel(logging.DEBUG)
    try:
        yield tap
    finally:
        root.removeHandler(tap)
        root.setLevel(level)


async def longest_pause_s(rig: Rig) -> float:
    async def call_everything() -> None:
        for operation in operations(rig.make_agent()):
            with suppress(FenceError, ConformanceFailure):  # failing is another check's matter
                await contained(operation)

    return await longest_pause_of(call_everything)


async def longest_pause_of(work: Callable[[], Awaitable[None]]) -> float:
    """How long the event loop stood still at worst while this ran, in seconds."""
    longest_s, last = 0.0, anyio.current_time()

    async def beat() -> None:
        nonlocal longest_s, last
        while True:
            await anyio.sleep(_POLL_S)
            longest_s, last = max(longest_s, anyio.current_time() - last - _POLL_S), anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await work()
        await anyio.sleep(2 * _POLL_S)  # let the beat see the end of it
        tasks.cancel_scope.cancel()
    return longest_s


@asynccontextmanager
async def nothing_left_behind(culprit: str) -> AsyncIterator[None]:
    tasks, files = set(anyio.get_running_tasks()), open_files()
    yield

    async def is_clean() -> bool:
        return tasks.issuperset(anyio.get_running_tasks()) and open_files() <= files

    require(await becomes_true(is_clean, CANCEL_WITHIN_S), f"{culprit} left a task running or a file open")


def open_files() -> int:
    folder = Path("/proc/self/fd")  # Linux only; elsewhere files go unchecked
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


async def cancel_at(operation: Operation, step: int) -> bool:
    """Run a call and cancel it when it suspends for the `step`-th time; tell whether it finished before that."""
    with anyio.CancelScope() as scope:
        try:
            await CancelledAt(operation(), step, scope)
        except Exception as error:  # the border to the agent under test, again
            complaint = f"{name(operation)} raised {error!r} when it was cancelled at await {step}"
            raise ConformanceFailure(complaint) from error
    return not scope.cancel_called


class CancelledAt(Generator[Any, Any, object]):
    """Awaits something, and cancels a scope when it suspends for the n-th time."""

    def __init__(self, inner: Awaitable[object], step: int, scope: anyio.CancelScope) -> None:
        self._inner = inner.__await__()
        self._steps_left = step
        self._scope = scope

    def __await__(self) -> CancelledAt:
        return self

    def send(self, value: Any) -> Any:
        suspended_on = self._inner.send(value)
        self._steps_left -= 1
        if self._steps_left == 0:
            self._scope.cancel()
        return suspended_on

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)
