"""Clouds for the tests of the core."""

from __future__ import annotations

import pytest
from world import SETTINGS, Cloud

from ha_controller.core.settings import Settings


@pytest.fixture
def cloud() -> Cloud:
    """Eight healthy hosts, two VMs each, settled."""
    made = Cloud()
    made.run(6)
    return made


@pytest.fixture
def make_cloud() -> type[Cloud]:
    """For tests that need other settings."""
    return Cloud


@pytest.fixture
def settings() -> Settings:
    return SETTINGS
