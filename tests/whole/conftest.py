"""The whole controller against the embedded cloud."""

from __future__ import annotations

import fcntl
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _sockets_of_killed_controllers():
    """A controller that is killed closes nothing; that is the point."""
    warnings.simplefilter("ignore", ResourceWarning)


@pytest.fixture
def alone_in_the_network() -> Iterator[None]:
    """Clouds of namespaces all use the same addresses: one at a time on a machine."""
    with Path(tempfile.gettempdir(), "ha-controller-netns.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
