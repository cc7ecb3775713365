"""What viewers ask for is made on the event loop, which decides about hosts: in a share of its time, however often.

Whoever asks for the same while it waits for its turn gets the same answer, which is never older than the question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from ha_controller.adapters.http_api.problems import Problem

SHARE_MAX: Final = 0.05  #: of the time of the event loop
WAIT_MAX_S: Final = 10.0


class _Turn:
    """One answer to be made, and who waits for it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.answer: str | None = None  #: None when it is over: whoever was to make it could not


class Paced:
    """Makes answers, one after the other."""

    def __init__(self, now: Callable[[], float] = anyio.current_time) -> None:
        """`now` gives monotonic seconds."""
        self._now = now
        self._one = anyio.Lock()
        self._not_before = float("-inf")
        self._turns: dict[str, _Turn] = {}

    async def answer(self, question: str, make: Callable[[], str]) -> str:
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
                return await self._made(question, make)
        except TimeoutError:
            text = "Too much is asked of this controller. Ask again, or less often."
            raise Problem(503, text, headers={"Retry-After": "10"}) from None

    async def _made(self, question: str, make: Callable[[], str]) -> str:
        turn = self._turns[question] = _Turn()
        try:
            async with self._one:
                await anyio.sleep(max(0.0, self._not_before - self._now()))
                began_at = self._now()
                try:
                    turn.answer = make()
                finally:
                    self._not_before = began_at + (self._now() - began_at) / SHARE_MAX
                return turn.answer
        finally:
            del self._turns[question]
            turn.over.set()
