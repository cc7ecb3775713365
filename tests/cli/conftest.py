"""A pretended controller, and commands that ask it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.pretended import Commands, Pretended, failing_cloud


@pytest.fixture
def pretended() -> Iterator[Pretended]:
    with tempfile.TemporaryDirectory() as folder:  # paths of sockets are short
        found = Pretended.of(Path(folder, "socket"), failing_cloud())
        with found.serving():
            yield found


@pytest.fixture
def commands(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("NO_COLOR", "1")
    return Commands(pretended, monkeypatch)
