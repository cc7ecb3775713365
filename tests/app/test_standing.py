"""The state directory: one process uses it, ends when it is lost, and is known by an id that lasts."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from ha_controller.app import standing
from ha_controller.app.standing import StateDirectory
from ha_controller.plugin import NotLeading


def directory(path: Path) -> StateDirectory:
    return StateDirectory(path, lambda: 0)


async def test_a_process_that_lost_its_state_directory_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It says so first, then its task group ends: the journal belongs to whoever locks the directory next."""
    monkeypatch.setattr(standing, "LOOK_AT_LOCK_EVERY_S", 0.01)
    ours, told = directory(tmp_path), list[str]()
    await ours.lock()
    (tmp_path / "lock").unlink()
    with anyio.fail_after(5), pytest.raises(NotLeading, match="not the file that was locked"):
        await ours.watch(told.append)
    assert len(told) == 1
    await directory(tmp_path).lock()
