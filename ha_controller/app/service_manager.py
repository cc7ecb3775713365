"""Talks to systemd: when the controller is ready, that it still decides, and that it ends (sd_notify(3)).

The watchdog is fed by the decision loop: only when it has finished a round since the last feeding. A controller that
hangs is started anew by systemd, and continues from its journal. Without systemd nothing happens here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio

FED_PER_TIMEOUT = 4  #: systemd's own advice is two; one may be late


class ServiceManager:
    """The socket of the manager that has started us."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read where it is, and how soon it wants to hear of us. No I/O."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "") if is_ours else ""
        self.timeout_s = int(microseconds) / 1e6 if microseconds.isdigit() else 0.0

    def ready(self) -> None:
        """Everything runs."""
        self._say("READY=1")

    def stopping(self) -> None:
        """We end."""
        self._say("STOPPING=1")

    async def feed(self, last_round_at: Callable[[], float]) -> None:
        """Feed the watchdog as long as rounds are finished; runs until cancelled, or at once if nobody waits for it."""
        fed_at = float("-inf")
        while self._address and self.timeout_s:
            if (round_at := last_round_at()) > fed_at:
                fed_at = round_at
                self._say("WATCHDOG=1")
            await anyio.sleep(self.timeout_s / FED_PER_TIMEOUT)

    def _say(self, words: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)  # a manager that does not read must not hold us up
            out.sendto(words.encode(), address)
