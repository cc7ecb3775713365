"""Takes operators' commands to the engine as events, and the core's answers back to whoever waits."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio

from ha_controller.core.effects import Answer
from ha_controller.core.events import OperatorCommanded, Verb

ANSWER_MAX_S = 40.0
DRILL_ANSWER_MAX_S = 1500.0  #: a host has to boot between two devices
COMMANDS_MAX = 100  #: that may wait for their answers; more are refused, and nothing is done


class Commander:
    """Posts operators' commands and hands their answers back."""

    def __init__(self, post: Callable[[OperatorCommanded], None]) -> None:
        """`post` hands the event to the engine."""
        self._post = post
        self.refused = 0  #: commands that were one too many
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[anyio.Event, list[Answer]]] = {}

    def answered(self, answer: Answer) -> None:
        """Take in the core's answer; nobody may wait for it any more."""
        if waiting := self._waiting.get(answer.request):
            waiting[1].append(answer)
            waiting[0].set()

    async def order(
        self,
        verb: Verb,
        *,
        who: str,
        origin: str,
        reason: str,
        host: int | None,
        incident: int | None,
        for_s: float | None = None,
        force: bool = False,
        repaired: bool = False,
        here: bool = False,
    ) -> Answer:
        """Order something and wait for the answer. When too many wait, one that says so comes at once.

        Raises:
            TimeoutError: the core did not answer.
        """
        if len(self._waiting) >= COMMANDS_MAX:
            self.refused += 1
            text = f"{COMMANDS_MAX} commands wait for their answers already. Nothing was done; try again later"
            return Answer(request=0, code=6, text=text)
        number, bell, answers = next(self._numbers), anyio.Event(), list[Answer]()
        self._waiting[number] = (bell, answers)
        try:
            self._post(
                OperatorCommanded(
                    request=number,
                    verb=verb,
                    who=who,
                    origin=origin,
                    reason=reason,
                    host=host,
                    incident=incident,
                    for_s=for_s,
                    force=force,
                    repaired=repaired,
                    here=here,
                )
            )
            with anyio.fail_after(DRILL_ANSWER_MAX_S if verb is Verb.DRILL else ANSWER_MAX_S):
                await bell.wait()
            return answers[0]
        finally:
            del self._waiting[number]
