"""For all tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs


def pytest_configure(config: pytest.Config) -> None:
    """A loop that pytest-asyncio finds here and never closes would be a warning, and warnings are errors."""
    del config
    asyncio.set_event_loop(None)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What the controller logs, one dictionary a line."""
    with capture_logs() as lines:
        yield lines
