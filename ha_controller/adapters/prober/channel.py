"""What channels have in common: usable addresses, questions under way, and a base for channels that must wait.

Nothing here touches the network. Targets come from the prober, readings go back to it; a question never gets lost: it
is answered, or it expires.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import anyio
import structlog
from pydantic import Field

from ha_controller.plugin import (
    Duration,
    FenceError,
    Probe,
    ProbeConfig,
    ProbeContext,
    Reading,
    Signal,
    Target,
    duration_field,
)

log = structlog.get_logger(__name__)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # /proc/sys/kernel/random/boot_id


def usable_address(address: str) -> str:
    """The canonical form of a literal IPv4 or IPv6 address; empty when it is none, or none that means one host.

    A name is refused because looking it up would block every host behind one DNS server. 0.0.0.0 and :: are refused
    because Linux takes them for the machine itself: a dead host would look alive for ever.
    """
    try:
        literal = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped is not None:
        literal = literal.ipv4_mapped
    return "" if literal.is_unspecified or literal.is_multicast else str(literal)


def boot_id_in(text: str) -> str:
    """The boot id that a text consists of, in lower case; empty when it is none."""
    return text.strip().lower() if _UUID.fullmatch(text.strip()) else ""


# --- questions under way ----------------------------------------------------------------------------------------------


class Question(Protocol):
    """What `Pending` must know of a question."""

    @property
    def sent_at(self) -> float:
        """When it left, on the clock of `Probe.launch`."""


KeyT = TypeVar("KeyT")
QuestionT = TypeVar("QuestionT", bound=Question)


class Pending(Generic[KeyT, QuestionT]):
    """Questions under way, in the order in which they left. All live equally long, so the first to leave expires first
    and looking for expired ones costs nothing while there are none."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._questions: dict[KeyT, QuestionT] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._questions)

    def add(self, key: KeyT, question: QuestionT) -> None:
        """Remember a question that leaves now."""
        self._questions[key] = question

    def get(self, key: KeyT) -> QuestionT | None:
        """Look at a question without ending it."""
        return self._questions.get(key)

    def take(self, key: KeyT) -> QuestionT | None:
        """End a question; None when it is not under way (any more)."""
        return self._questions.pop(key, None)

    def take_expired(self, now: float) -> list[QuestionT]:
        """End all questions that left at least `timeout_s` ago."""
        expired = []
        for key, question in self._questions.items():
            if now - question.sent_at < self._timeout_s:
                break
            expired.append(key)
        return [self._questions.pop(key) for key in expired]

    def take_all(self) -> list[QuestionT]:
        """End every question."""
        questions = list(self._questions.values())
        self._questions.clear()
        return questions


# --- channels that must wait ------------------------------------------------------------------------------------------


class AsyncProbeConfig(ProbeConfig):
    """Settings of a channel whose questions are coroutines."""

    timeout_s: Duration = duration_field("5s", key="timeout", longest="60s")
    at_once: int = Field(default=64, ge=1, le=1024)  #: questions under way, one per host; suspects have as many on top


AsyncConfigT = TypeVar("AsyncConfigT", bound=AsyncProbeConfig)


class _Line:
    """Who waits to be asked: first come, first served; each host at most once."""

    def __init__(self, per_s: float) -> None:
        self._waiting: dict[int, Target] = {}
        self._came = asyncio.Event()
        self._one_by_one = anyio.Lock()
        self._spacing_s = 1.0 / per_s
        self._free_at = 0.0

    def add(self, target: Target) -> None:
        """Put a target at the end."""
        self._waiting[target.host] = target
        self._came.set()

    def remove(self, host: int) -> Target | None:
        """Take a host out of the line; None when it does not wait in it."""
        return self._waiting.pop(host, None)

    def clear(self) -> None:
        """Send everybody away."""
        self._waiting.clear()

    async def next(self) -> Target:
        """Wait for the next target, and for the pace: the host that is told has left the line then."""
        async with self._one_by_one:
            loop = asyncio.get_running_loop()
            await anyio.sleep(max(0.0, self._free_at - loop.time()))
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            self._free_at = loop.time() + self._spacing_s
            return self._waiting.pop(next(iter(self._waiting)))


class AsyncProbe(Probe[AsyncConfigT]):
    """Base of channels that ask by `await`: implement `ask`, and nothing else.

    Hosts wait in two lines that hold each host at most once, suspects in one of their own: they never wait behind the
    others. A question gets `timeout_s` from the moment it leaves its line; a host that hangs costs one of `at_once`
    places for that long and nothing else. A channel that costs much may limit how many questions `per_s` leave a line.
    """

    def __init__(self, config: AsyncConfigT, context: ProbeContext, *, per_s: float = float("inf")) -> None:
        super().__init__(config, context)
        self._steady, self._suspects = _Line(per_s), _Line(per_s)  # bounded by _under_way: one entry per host
        self._under_way: set[int] = set()
        self._readings: list[Reading] = []
        self._clock_offset_s = 0.0

    @abstractmethod
    async def ask(self, target: Target, now: float) -> Reading:
        """Look at one host. `now` is the moment for `Reading.sent_at`.

        Cancelled at `timeout_s`. A `FenceError`, a time-out or any other exception becomes UNKNOWN; a channel for which
        one of them means silence says so in a reading.
        """

    async def open(self) -> str:
        """Nothing to open by default."""
        return f"at most {self.config.at_once} hosts at once, plus as many suspects, {self.config.timeout_s:g} s each"

    async def close(self) -> None:
        """Forget who waits, and what was under way when `serve` was cancelled."""
        self._steady.clear()
        self._suspects.clear()
        self._under_way.clear()
        self._readings.clear()

    async def serve(self) -> None:
        """Ask those in line, until cancelled."""
        async with anyio.create_task_group() as group:
            for _ in range(self.config.at_once):
                group.start_soon(self._work, self._steady)
                group.start_soon(self._work, self._suspects)

    def launch(self, targets: Sequence[Target], now: float) -> None:
        """Put the targets in line that are not in line or asked already; one that became a suspect changes lines."""
        self._clock_offset_s = now - asyncio.get_running_loop().time()
        for target in targets:
            line = self._suspects if target.close_watch else self._steady
            if target.host not in self._under_way or (target.close_watch and self._steady.remove(target.host)):
                self._under_way.add(target.host)
                line.add(target)

    def collect(self, now: float) -> list[Reading]:
        """Hand over what was answered since the last call."""
        readings, self._readings = self._readings, []
        return readings

    async def _work(self, line: _Line) -> None:
        while True:
            target = await line.next()
            reading = await self._ask_safely(target)
            self._readings.append(reading)
            self._under_way.discard(target.host)

    async def _ask_safely(self, target: Target) -> Reading:
        now = asyncio.get_running_loop().time() + self._clock_offset_s
        detail = f"no answer within {self.config.timeout_s:g} s"
        try:
            with anyio.move_on_after(self.config.timeout_s):
                return await self.ask(target, now)
        except FenceError as error:
            detail = str(error)
        except Exception:  # a border: a fault of one channel must not end the others
            log.exception("a channel failed; its reading counts as unknown", channel=self.kind, host=target.name)
            detail = f"the channel {self.kind} failed, see the log"
        return Reading(host=target.host, signal=Signal.UNKNOWN, sent_at=now, detail=detail)
