"""Sessions of people at the page: a cookie that only our own page can use to change something.

Kept in memory, as hashes; a restart of the controller ends them all.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from ha_controller.adapters.http_api.access import SESSION_COOKIE, Caller

SESSIONS_MAX: Final = 1000
OF_ONE_MAX: Final = 10  #: of one person; the oldest ends


@dataclass(frozen=True, kw_only=True)
class _Session:
    caller: Caller
    ends_at: float


class Sessions:
    """Who is logged in."""

    def __init__(self, lasts_s: float, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._lasts_s = lasts_s
        self._now = now
        self._open: OrderedDict[str, _Session] = OrderedDict()

    def begin(self, caller: Caller) -> tuple[str, Caller]:
        """Log somebody in: the cookie's value, and the caller with what changes must carry."""
        self._forget_old()
        own = [digest for digest, known in self._open.items() if known.caller.name == caller.name]
        while len(own) >= OF_ONE_MAX:
            del self._open[own.pop(0)]
        if len(self._open) >= SESSIONS_MAX:
            self._open.popitem(last=False)
        value = secrets.token_urlsafe(32)
        digest = _digest(value)
        known = replace(caller, csrf=secrets.token_urlsafe(32), proof=digest)
        self._open[digest] = _Session(caller=known, ends_at=self._now() + self._lasts_s)
        return value, known

    def caller(self, request: web.Request) -> Caller | None:
        """Whose session a request shows; None: none that is open."""
        value = request.cookies.get(SESSION_COOKIE)
        known = None if value is None else self._open.get(_digest(value))
        return None if known is None or self._now() >= known.ends_at else known.caller

    def still_valid(self, caller: Caller) -> bool:
        """Whether it is open now."""
        known = self._open.get(caller.proof)
        return known is not None and self._now() < known.ends_at

    def end(self, caller: Caller) -> None:
        """Log somebody out."""
        self._open.pop(caller.proof, None)

    def _forget_old(self) -> None:
        for digest in [digest for digest, known in self._open.items() if self._now() >= known.ends_at]:
            del self._open[digest]


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
