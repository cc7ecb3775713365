"""Clouds of namespaces all use the same addresses: one at a time on a machine."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TURN_COMES_WITHIN_S = 900.0  #: whole files of tests may come first


@contextmanager
def alone() -> Iterator[None]:
    """Wait for the turn, and keep it.

    Raises:
        TimeoutError: it did not come; who has it already in this process waits for itself.
    """
    with Path(tempfile.gettempdir(), "ha-controller-netns.lock").open("w") as file:
        deadline = time.monotonic() + TURN_COMES_WITHIN_S
        while not _taken(file.fileno()):
            if time.monotonic() > deadline:
                raise TimeoutError("another cloud of namespaces runs on this machine, or in this very test")
            time.sleep(0.1)
        yield


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
