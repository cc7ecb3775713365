"""The clock of one run: every time in the core, the journal and the flight records is on it."""

from __future__ import annotations

import time


class ControllerClock:
    """Wall time at the start plus monotonic time since: never jumps, and a person can read it."""

    def __init__(self) -> None:
        """Starts now."""
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Seconds."""
        return self._offset + time.monotonic()
