"""Clouds of namespaces all use the same addresses: one at a time on a machine."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone() -> Iterator[None]:
    """Wait for the turn, and keep it."""
    with Path(tempfile.gettempdir(), "ha-controller-netns.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
