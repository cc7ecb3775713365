"""The state directory: one process uses it, ends when it is lost, and is known by an id that lasts."""

from __future__ import annotations

import errno
import os
import re
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


def test_a_state_directory_keeps_its_id(tmp_path: Path):
    ids = {directory(tmp_path).context.instance for _ in range(2)}
    assert len(ids) == 1
    assert re.fullmatch("[0-9a-f]{12}", ids.pop())
    assert {path.name for path in tmp_path.iterdir()} == {"instance"}


@pytest.mark.parametrize("text", ["", "\n", "0123456789a", "../../leader12"])
def test_an_id_that_is_none_is_refused_with_a_remedy(tmp_path: Path, text: str):
    """Two controllers with the same empty id would take each other for themselves."""
    (tmp_path / "instance").write_text(text)
    with pytest.raises(OSError, match=r"instance holds no id.*[Rr]emove it"):
        directory(tmp_path)


def test_a_crash_while_the_id_is_written_leaves_none_or_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def crash(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="No space"):
            directory(tmp_path)
    assert not (tmp_path / "instance").exists()
    assert re.fullmatch("[0-9a-f]{12}", directory(tmp_path).context.instance)
