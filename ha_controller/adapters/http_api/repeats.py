"""Orders that carry an Idempotency-Key are carried out once: whoever repeats one gets the answer of the first.

Kept in memory: after a restart of the controller a repeated order is a new one, which the core judges anew.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from ha_controller.adapters.http_api.problems import Problem

KEY_HEADER: Final = "Idempotency-Key"
KEY_PATTERN: Final = "^[A-Za-z0-9_.:-]{1,100}$"
KEPT_MAX: Final = 1000
KEPT_S: Final = 24 * 3600.0
WAIT_MAX_S: Final = 1530.0  #: a drill takes minutes
KEPT_OF_EACH: Final = 200
FORGOTTEN: Final = (404, 421, 503, 504)
"""Not kept: nothing was done, or it is not known, and a repetition must ask the core again."""

Json = Any


@dataclass
class _Order:
    of: bytes  #: what was ordered
    began_at: float
    done: anyio.Event = field(default_factory=anyio.Event)
    answer: Json = None
    problem: Problem | None = None

    def told_again(self) -> Problem | None:
        """The problem anew: one that is raised again and again would keep what was there each time."""
        known = self.problem
        if known is None:
            return None
        again = Problem(known.status, known.detail, code=known.code, headers=known.headers)
        again.on_record = known.on_record
        return again


class Repeats:
    """Remembers orders by who gave them and the key they carried."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._now = now
        self._orders: OrderedDict[tuple[str, str], _Order] = OrderedDict()

    async def once(self, who: str, key: str | None, order: bytes, carry_out: Callable[[], Awaitable[Json]]) -> Json:
        """Carry an order out, or answer as it was answered before.

        Raises:
            Problem: as the order itself; or the key is malformed, or was used for another order.
        """
        if key is None:
            return await carry_out()
        if not re.fullmatch(KEY_PATTERN, key):
            raise Problem(400, f"{KEY_HEADER} must be 1 to 100 letters, digits, or one of _ . : -")
        self._forget_old(who)
        content = hashlib.sha256(order).digest()
        known = self._orders.get((who, key))
        if known is not None and known.of != content:
            raise Problem(422, f"This {KEY_HEADER} was used for another request.")
        if known is not None:
            return await _answer_of(known)
        if len(self._orders) >= KEPT_MAX:
            raise Problem(503, f"{KEPT_MAX} orders are under way. Nothing was done; try again later.")
        return await self._carry_out((who, key), _Order(of=content, began_at=self._now()), carry_out)

    async def _carry_out(self, name: tuple[str, str], order: _Order, carry_out: Callable[[], Awaitable[Json]]) -> Json:
        self._orders[name] = order
        keep = False
        try:
            order.answer = await carry_out()
            keep = True
        except Problem as problem:
            order.problem = problem
            order.problem = order.told_again()  # without its traceback
            keep = problem.status not in FORGOTTEN
            raise
        finally:
            if not keep:
                del self._orders[name]
            order.done.set()
        return order.answer

    def _forget_old(self, who: str) -> None:
        """What is older than a day; and of somebody who has too many, the oldest, so that nobody else pays for it."""
        ended = [name for name, order in self._orders.items() if order.done.is_set()]
        for name in ended:
            if self._now() - self._orders[name].began_at > KEPT_S:
                del self._orders[name]
        own = [name for name in ended if name[0] == who and name in self._orders]
        for name in own[: max(0, len(own) - KEPT_OF_EACH + 1)]:
            del self._orders[name]


async def _answer_of(order: _Order) -> Json:
    with anyio.fail_after(WAIT_MAX_S):
        await order.done.wait()
    if (problem := order.told_again()) is not None:
        raise problem
    if order.answer is None:
        raise Problem(504, "The order ended without an answer. Look, before it is ordered again.")
    return order.answer
