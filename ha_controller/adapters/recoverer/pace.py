"""When the inventory is read next: at its own pace, or sooner if there is a reason, but never without a rest."""

from __future__ import annotations

import anyio

REST_S = 1.0  #: between two readings, however many reasons there are
REST_SHARE = 4  #: and so many times as long as the last one took: reading sooner costs OpenNebula a fifth at most


class Pace:
    """Asked by one reader for its next turn; whoever has a reason only rings."""

    def __init__(self, poll_s: float) -> None:
        """Without a reason there is a turn every `poll_s`."""
        self._poll_s = poll_s
        self._bell = anyio.Event()

    def sooner(self) -> None:
        """There is a reason to look. Many at once are one; one that comes during a reading leads to another one."""
        self._bell.set()

    async def next(self, took_s: float) -> None:
        """Wait for the next turn, after a reading that took so long."""
        rest_s = min(self._poll_s, max(REST_S, REST_SHARE * took_s))
        await anyio.sleep(rest_s)
        with anyio.move_on_after(self._poll_s - rest_s):
            await self._bell.wait()
        self._bell = anyio.Event()
