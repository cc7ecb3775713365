"""Tells people: takes messages without delay, hands each to every notifier in its own time.

It must never delay its caller, never let one notifier hold up another, and never fail because one does. What is told
here is in the journal as well: a message that is lost is lost to the reader's pocket, not to the record.
Messages come from whoever carries out the core's `Tell`; they go to the log, and to whatever implements `Notifier`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import anyio
import structlog

log = structlog.get_logger(__name__)

WAITING_MAX = 200
TIMEOUT_S = 20.0
LEVELS = MappingProxyType({"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL})


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What people are told. Holds no secret."""

    at: float  #: the controller's clock, unix seconds
    severity: str  #: "info", "warning" or "critical"
    host: str | None  #: its name
    incident: int | None
    text: str
    next_step: str  #: what happens next, and what the reader must do ("nothing" is an answer)


class Notifier(Protocol):
    """A way to reach people."""

    async def tell(self, message: Message) -> None:
        """Deliver one message, or raise. Must be safe to cancel and must not block the event loop."""


class LogNotifier:
    """Tells the log."""

    async def tell(self, message: Message) -> None:
        """Write one line, as loud as the message."""
        log.log(
            _level(message),
            message.text,
            next_step=message.next_step,
            host=message.host,
            incident=message.incident,
        )


class NotifierQueue:
    """One bounded queue and one worker for each notifier."""

    def __init__(
        self, notifiers: Sequence[Notifier], *, waiting_max: int = WAITING_MAX, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`waiting_max` messages may wait for each notifier; each delivery may take `timeout_s`."""
        self._outboxes = [_Outbox(notifier, waiting_max, timeout_s) for notifier in notifiers]

    @property
    def dropped(self) -> int:
        """How many messages were dropped because a queue was full, over all notifiers."""
        return sum(outbox.dropped for outbox in self._outboxes)

    def post(self, message: Message) -> None:
        """Hand in a message, from the event loop's thread; returns at once.

        When a queue is full, the oldest of its least severe messages is dropped; that may be this one.
        """
        for outbox in self._outboxes:
            outbox.put(message)

    async def run(self) -> None:
        """Deliver until cancelled. What waits then is not delivered."""
        async with anyio.create_task_group() as group:
            for outbox in self._outboxes:
                group.start_soon(outbox.run)


class _Outbox:
    """What waits for one notifier."""

    def __init__(self, notifier: Notifier, waiting_max: int, timeout_s: float) -> None:
        self.dropped = 0
        self._notifier = notifier
        self._waiting_max = waiting_max
        self._timeout_s = timeout_s
        self._waiting: list[Message] = []
        self._bell = anyio.Event()

    def put(self, message: Message) -> None:
        self._waiting.append(message)
        if len(self._waiting) > self._waiting_max:
            victim = min(range(len(self._waiting)), key=lambda place: _level(self._waiting[place]))
            self._complain("a message was dropped: too many wait", self._waiting.pop(victim))
            self.dropped += 1
        self._bell.set()

    async def run(self) -> None:
        while True:
            while self._waiting:
                await self._deliver(self._waiting.pop(0))
            self._bell = anyio.Event()
            await self._bell.wait()

    async def _deliver(self, message: Message) -> None:
        """The border to a notifier: whatever it does becomes a line in the log."""
        try:
            with anyio.fail_after(self._timeout_s):
                await self._notifier.tell(message)
        except TimeoutError:
            self._complain(f"a message was not delivered within {self._timeout_s:g} s", message)
        except Exception:  # the border to a notifier: the next message goes out
            self._complain("a message was not delivered", message, exc_info=True)

    def _complain(self, problem: str, message: Message, *, exc_info: bool = False) -> None:
        kind = type(self._notifier).__name__
        log.warning(problem, notifier=kind, severity=message.severity, incident=message.incident, exc_info=exc_info)


def _level(message: Message) -> int:
    """How loud the message is. A severity that is not known counts as the loudest, lest it be lost."""
    return LEVELS.get(message.severity, logging.CRITICAL)
