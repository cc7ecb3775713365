"""Tells people: takes messages without delay, hands each to every notifier in its own time.

It must never delay its caller, never let one notifier hold up another, and never fail because one does. What is told
here is in the journal as well: a message that is lost is lost to the reader's pocket, not to the record.
Messages come from whoever carries out the core's `Tell`; they go to the log, and to whatever implements `Notifier`.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import anyio
import structlog

from ha_controller.plugin import Message, NotDelivered, Notifier, NotifierConfig

log = structlog.get_logger(__name__)

WAITING_MAX = 200
TIMEOUT_S = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
GIVE_UP_S = 900.0
GROUP_FROM = 5  #: so many that wait go out as one
GROUP_LINES_MAX = 30
STORIES_MAX = 1000
CLOSE_S = 2.0
LEVELS = MappingProxyType({"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL})


class LogNotifier(Notifier[NotifierConfig]):
    """Tells the log."""

    kind = "log"
    config_model = NotifierConfig
    groups = False

    async def tell(self, message: Message) -> None:
        """Write one line, as loud as the message."""
        log.log(
            _level(message),
            message.text,
            next_step=message.next_step,
            host=message.host,
            incident=message.incident,
            trail=message.trail,
        )


@dataclass(frozen=True, kw_only=True)
class Sink:
    """A notifier as it is configured."""

    name: str
    notifier: Notifier[Any]
    severity: str = "info"  #: the quietest that it is told; the end of a story that it was told is told always


class NotifierQueue:
    """One bounded queue and one worker for each notifier."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        waiting_max: int = WAITING_MAX,
        timeout_s: float = TIMEOUT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        """`waiting_max` messages may wait for each notifier; each delivery may take `timeout_s`.

        One that failed is repeated after `first_pause_s`, then after twice as long and so on, for `give_up_s`.
        """
        self._outboxes = [_Outbox(sink, _Patience(waiting_max, timeout_s, first_pause_s, give_up_s)) for sink in sinks]

    @property
    def results(self) -> dict[str, Counter[str]]:
        """Sink -> how many messages were sent, repeated, given up, dropped."""
        return {outbox.name: outbox.results for outbox in self._outboxes}

    @property
    def troubles(self) -> dict[str, str]:
        """Sink -> why its last delivery failed; those that work are not in it."""
        return {outbox.name: outbox.trouble for outbox in self._outboxes if outbox.trouble}

    @property
    def names(self) -> list[str]:
        """The sinks."""
        return [outbox.name for outbox in self._outboxes]

    def post(self, message: Message) -> None:
        """Hand in a message, from the event loop's thread; returns at once.

        When a queue is full, the oldest of its least severe messages is dropped; that may be this one.
        """
        for outbox in self._outboxes:
            outbox.put(message)

    async def test(self, message: Message, names: Sequence[str]) -> dict[str, str]:
        """Send a message through these sinks now, once, past their queues: sink -> why not; empty: it went out."""
        found: dict[str, str] = {}

        async def ask(outbox: _Outbox) -> None:
            found[outbox.name] = str(await outbox.attempt(message) or "")

        async with anyio.create_task_group() as group:
            for outbox in self._outboxes:
                if outbox.name in names:
                    group.start_soon(ask, outbox)
        return found

    async def run(self) -> None:
        """Deliver until cancelled. What waits then is not delivered."""
        async with anyio.create_task_group() as group:
            for outbox in self._outboxes:
                group.start_soon(outbox.run)


@dataclass(frozen=True)
class _Problem:
    """Why a message did not go out."""

    text: str
    final: bool = False  #: to repeat it cannot help

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class _Patience:
    waiting_max: int
    timeout_s: float
    first_pause_s: float
    give_up_s: float


class _Outbox:
    """What waits for one notifier."""

    def __init__(self, sink: Sink, patience: _Patience) -> None:
        self.name = sink.name
        self.results: Counter[str] = Counter(sent=0, repeated=0, given_up=0, dropped=0)
        self.trouble = ""
        self._sink = sink
        self._patience = patience
        self._waiting: list[Message] = []
        self._stories: OrderedDict[int, None] = OrderedDict()  #: incidents that it was told of, and not yet the end
        self._bell = anyio.Event()

    def put(self, message: Message) -> None:
        if not self._wants(message):
            return
        self._waiting.append(message)
        if len(self._waiting) > self._patience.waiting_max:
            victim = min(range(len(self._waiting)), key=lambda place: _level(self._waiting[place]))
            self._complain("a message was dropped: too many wait", self._waiting.pop(victim))
            self.results["dropped"] += 1
        self._bell.set()

    def _wants(self, message: Message) -> bool:
        told = message.incident in self._stories
        loud = _level(message) >= LEVELS[self._sink.severity]
        if message.incident is not None and message.ends:
            self._stories.pop(message.incident, None)
            return loud or told
        if message.incident is not None and loud:
            self._stories[message.incident] = None
            if len(self._stories) > STORIES_MAX:
                self._stories.popitem(last=False)
        return loud

    async def run(self) -> None:
        try:
            while True:
                while self._waiting:
                    await self._deliver(self._next())
                self._bell = anyio.Event()
                await self._bell.wait()
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S):
                await self._sink.notifier.close()

    def _next(self) -> Message:
        """The oldest that waits, or all of them as one when there are many."""
        if self._sink.notifier.groups and len(self._waiting) >= GROUP_FROM:
            waiting, self._waiting = self._waiting, []
            return _grouped(waiting)
        return self._waiting.pop(0)

    async def _deliver(self, message: Message) -> None:
        """Until it went out, is refused, or has waited for too long."""
        began, pause_s = anyio.current_time(), self._patience.first_pause_s
        while (problem := await self.attempt(message)) is not None:
            over = anyio.current_time() + pause_s - began > self._patience.give_up_s
            if problem.final or over:
                self._complain(f"a message was not delivered and is given up: {problem}", message)
                self.results["given_up"] += 1
                return
            self._complain(f"a message was not delivered; again in {pause_s:g} s: {problem}", message)
            self.results["repeated"] += 1
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def attempt(self, message: Message) -> _Problem | None:
        """The border to a notifier: whatever it does becomes a text; None if the message went out."""
        problem = await self._try(message)
        self.trouble = str(problem or "")
        self.results["sent"] += problem is None
        return problem

    async def _try(self, message: Message) -> _Problem | None:
        try:
            with anyio.fail_after(self._patience.timeout_s):
                await self._sink.notifier.tell(message)
        except TimeoutError:
            return _Problem(f"no end within {self._patience.timeout_s:g} s")
        except NotDelivered as error:
            return _Problem(str(error), final=not error.retryable)
        except Exception as error:  # the border to a notifier: the next message goes out
            # no text: it may quote a secret
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("bug in a notifier", sink=self.name, error=type(error).__name__, frames=frames)
            return _Problem(f"bug in the notifier ({type(error).__name__}); the log has the traceback", final=True)
        return None

    def _complain(self, problem: str, message: Message) -> None:
        log.warning(problem, sink=self.name, severity=message.severity, incident=message.incident)


def _grouped(messages: Sequence[Message]) -> Message:
    """Many messages as one, the loudest first."""
    ordered = sorted(messages, key=_level, reverse=True)
    lines = [f"{each.severity.upper()} {each.text} {each.next_step}" for each in ordered[:GROUP_LINES_MAX]]
    if len(ordered) > GROUP_LINES_MAX:
        lines.append(f"and {len(ordered) - GROUP_LINES_MAX} more: ha-controller events")
    return Message(
        at=messages[0].at,
        severity=ordered[0].severity,
        host=None,
        incident=None,
        text="\n".join([f"{len(messages)} messages at once:", *lines]),
        next_step="What goes on now: ha-controller status",
    )


def _level(message: Message) -> int:
    """How loud the message is. A severity that is not known counts as the loudest, lest it be lost."""
    return LEVELS.get(message.severity, logging.CRITICAL)
