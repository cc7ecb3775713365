"""For all tests."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.peers.etcd import Etcd


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option for all that is written down and compared."""
    parser.addoption("--accept", action="store_true", help="write logs and pages anew: look at the difference")


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> bool:
    """Whether what is written down is to be written anew."""
    return bool(request.config.getoption("--accept"))


TAKES_MINUTES = {"ship", "whole", "page", "peers", "chaos", "test_zone_faults.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes, most of it by waiting, begins first: many quick tests fill the rest of all workers' time."""
    items.sort(key=lambda item: TAKES_MINUTES.isdisjoint(item.path.parts))


def pytest_configure(config: pytest.Config) -> None:
    """A loop that pytest-asyncio finds here and never closes would be a warning, and warnings are errors."""
    del config
    asyncio.set_event_loop(None)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What the controller logs, one dictionary a line."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def require_peer() -> Callable[[str], str]:
    """Find a peer's program and return its path; without it, skip the test, or fail it in CI."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is not None:
            return path
        reason = f"{program} is not installed: this test needs the real peer"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find


@pytest.fixture
def etcd(require_peer: Callable[[str], str], tmp_path: Path) -> Iterator[Etcd]:
    """A real one of three members, which may be broken."""
    require_peer("etcd")
    cluster = Etcd(tmp_path / "etcd")
    try:
        yield cluster.start()
    finally:
        cluster.stop()
