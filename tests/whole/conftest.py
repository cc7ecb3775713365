"""The whole controller against the embedded cloud."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.whole.turns import alone


@pytest.fixture(autouse=True)
def _sockets_of_killed_controllers():
    """A controller that is killed closes nothing; that is the point."""
    warnings.simplefilter("ignore", ResourceWarning)


@pytest.fixture
def alone_in_the_network() -> Iterator[None]:
    """No other cloud of namespaces runs meanwhile."""
    with alone():
        yield
