"""The whole controller against the embedded cloud."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(autouse=True)
def _sockets_of_killed_controllers():
    """A controller that is killed closes nothing; that is the point."""
    warnings.simplefilter("ignore", ResourceWarning)
