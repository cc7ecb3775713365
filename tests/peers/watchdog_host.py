"""A pretended host with a watchdog: the host's own program in a process, and what resets it in another.

No watchdog device can be had here, so a pipe stands in for it: the outer process kills the inner one, as hard as a
reset does, when nothing came through the pipe for the time-out. The inner one runs the program that real hosts run, and
a second thread that writes to a "disk" as long as the host lives.

Usage: watchdog_host.py FOLDER NAME TIMEOUT_S LEASE_S DISK IDENTITY [deaf]
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

from ha_controller_watchdog import host

TICK_S = 0.02


class Pipe:
    """The inner end of the stand-in; implements `host.Watchdog`."""

    def __init__(self, handle: int, timeout_s: float, identity: str) -> None:
        """Armed from now on."""
        self._handle = handle
        self.timeout_s, self.identity = timeout_s, identity
        self.feed()

    def feed(self) -> None:
        """Start the time anew."""
        os.write(self._handle, b".")

    def disarm(self) -> None:
        """Let the host live without it."""
        os.write(self._handle, b"V")


def run_inside(handle: int) -> None:
    """Be the host."""
    folder, name, timeout_s, lease_s, disk, identity, *deaf = sys.argv[1:]
    host.RENEW_EVERY_S = 0.1
    if deaf:
        host.Lease.is_revoked = lambda self: False  # type: ignore[method-assign]

    def tick() -> None:
        while True:
            Path(disk).write_text(str(time.monotonic()))
            time.sleep(TICK_S)

    threading.Thread(target=tick, daemon=True).start()
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    lease = host.Lease(Path(folder), name, float(lease_s))
    host.keep(lease, lambda: Pipe(handle, float(timeout_s), identity), float(lease_s), lambda: bool(asked))


def watch(handle: int, inside: int, timeout_s: float) -> None:
    """Be the hardware: nothing until it is armed, then a reset when it is not fed in time."""
    armed = False
    while True:
        ready, _, _ = select.select([handle], [], [], timeout_s if armed else None)
        said = os.read(handle, 100) if ready else b""
        if not ready or not said:
            os.kill(inside, signal.SIGKILL)
            os.waitpid(inside, 0)
            return
        armed = not said.endswith(b"V")


def main() -> None:
    """Start both."""
    out, into = os.pipe()
    inside = os.fork()
    if inside == 0:
        os.close(out)
        run_inside(into)
        os._exit(0)
    os.close(into)
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(inside, number))
    watch(out, inside, float(sys.argv[3]))


if __name__ == "__main__":
    main()
