"""What viewers ask for is made on the event loop, which decides about hosts: in a share of its time, however often.

Whoever asks for the same while it waits for its turn gets the same answer, which is never older than the question.
It must never let what waits grow without bound, nor go on for longer than anybody waits for an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio

from ha_controller.adapters.http_api.problems import Problem

SHARE_MAX: Final = 0.05  #: of the time of the event loop
PAUSE_MAX_S: Final = 2.0  #: behind one answer, however long it took
WAIT_MAX_S: Final = 5.0  #: the page waits for eight
TURNS_MAX: Final = 32  #: different questions that wait


class _Turn:
    """One answer to be made, and who waits for it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.answer: bytes | None = None  #: None when it is over: whoever was to make it could not


class Paced:
    """Makes answers, one after the other."""

    def __init__(self, cpu: Callable[[], float] = time.thread_time) -> None:
        """`cpu` gives the seconds of a processor that this thread has used."""
        self._cpu = cpu
        self._one = anyio.Lock()
        self._not_before = float("-inf")
        self._turns: dict[str, _Turn] = {}

    async def answer(self, question: str, make: Callable[[], bytes]) -> bytes:
        """What `make` returns; it is called for all at once who wait with the same question.

        Raises:
            Problem: others ask too much. And whatever `make` raises.
        """
        try:
            with anyio.fail_after(WAIT_MAX_S):
                while (turn := self._turns.get(question)) is not None:
                    await turn.over.wait()
                    if turn.answer is not None:
                        return turn.answer
                if len(self._turns) >= TURNS_MAX:
                    raise too_much()
                return await self._made(question, make)
        except TimeoutError:
            raise too_much() from None

    async def _made(self, question: str, make: Callable[[], bytes]) -> bytes:
        turn = self._turns[question] = _Turn()
        try:
            async with self._one:
                await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))
                before = self._cpu()
                try:
                    turn.answer = make()
                finally:
                    pause_s = min((self._cpu() - before) / SHARE_MAX, PAUSE_MAX_S)
                    self._not_before = anyio.current_time() + pause_s
                return turn.answer
        finally:
            del self._turns[question]
            turn.over.set()


def too_much() -> Problem:
    """Others ask too much."""
    text = "Too much is asked of this controller. Ask again, or less often."
    return Problem(503, text, headers={"Retry-After": "5"})
