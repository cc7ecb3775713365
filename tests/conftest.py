"""For all tests."""

from __future__ import annotations

import asyncio

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A loop that pytest-asyncio finds here and never closes would be a warning, and warnings are errors."""
    del config
    asyncio.set_event_loop(None)
