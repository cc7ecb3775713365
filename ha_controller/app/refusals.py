"""Watches for refused logins: whoever has one looks at it then, and never more often than every few seconds."""

from __future__ import annotations

from abc import ABC, abstractmethod

import anyio

LOOK_EVERY_S = 5.0


class LooksWhenRefused(ABC):
    """Looks once each time that OpenNebula has refused a login."""

    def __init__(self) -> None:
        """Nothing was refused yet."""
        self._refused = anyio.Event()

    def called(self, method: str, result: str) -> None:
        """A call of oned ended. `one.user.info` is also how logins of people are tried."""
        if result == "unauthenticated" and method != "one.user.info":
            self.look_soon()

    def look_soon(self) -> None:
        """Look as if a login had been refused."""
        self._refused.set()

    async def run(self) -> None:
        """Look each time when one was refused, until cancelled."""
        while True:
            await self._refused.wait()
            self._refused = anyio.Event()
            await self._look()
            await anyio.sleep(LOOK_EVERY_S)

    @abstractmethod
    async def _look(self) -> None:
        """See what is so now. It raises nothing."""
