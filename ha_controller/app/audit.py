"""What people and services do beside the core's commands, and what was refused at the door, on the audit trail.

The core's commands and their answers are written by the engine. Here stands the rest: start, stop, a configuration
that was read again, the lead given away, a login that was refused. Whoever floods the door fills no disk: of what is
refused, so many a minute are written, the others are counted.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ha_controller.adapters.journal import Entry, JournalError
from ha_controller.app.ledger import Ledger
from ha_controller.showable import one_line

log = structlog.get_logger(__name__)

REFUSALS_PER_MINUTE = 20
TEXT_MAX = 500


class Audit:
    """Notes acts with who, from where, what, why and the outcome."""

    def __init__(self, ledger: Callable[[], Ledger | None], clock: Callable[[], float]) -> None:
        """`ledger`: None before the journal is open."""
        self._ledger, self._clock = ledger, clock
        self._minute, self._refused, self._unwritten = 0, 0, 0

    async def note(
        self,
        *,
        who: str,
        origin: str,
        what: str,
        reason: str = "",
        host: int | None = None,
        code: int = 0,
        result: str = "",
    ) -> bool:
        """Write it down; whether it is on record. Never raises for a disk that fails."""
        now, ledger = self._clock(), self._ledger()
        if ledger is None or (code and self._too_many(now)):
            return False
        unwritten, self._unwritten = self._unwritten, 0
        more = f" ({unwritten} more refusals were not written down)" if unwritten else ""
        texts = {"who": who, "origin": origin, "verb": what, "reason": reason, "result": f"{result}{more}"}
        texts = {name: one_line(text, characters_max=TEXT_MAX) for name, text in texts.items()}
        act = f"{texts['who']} {'was refused' if code else 'orders'} {texts['verb']}"
        text = ": ".join(part for part in (act, texts["reason"], texts["result"]) if part)
        entry = Entry(at=now, kind="operator", host=host, incident=None, text=text, data={**texts, "code": code})
        try:
            await ledger.note(entry)
        except JournalError as error:
            log.error("an act is not on the trail", who=texts["who"], what=texts["verb"], error=str(error))
            return False
        return True

    def _too_many(self, now: float) -> bool:
        """Count a refusal, and say whether it is one too many of this minute."""
        if int(now // 60) != self._minute:
            self._minute, self._refused = int(now // 60), 0
        self._refused += 1
        too_many = self._refused > REFUSALS_PER_MINUTE
        self._unwritten += too_many
        return too_many
