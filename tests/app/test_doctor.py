"""What `doctor` says of the machine and of what is not protected."""

from __future__ import annotations

import resource
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import anyio
import pytest

from ha_controller.app import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total", "free", "ok"), [(100 * 2**30, 50 * 2**30, True), (100 * 2**30, 2**30, None), (2**30, 2**20, False)]
)
async def test_a_disk_that_fills_is_told_before_the_journal_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, total: int, free: int, ok: bool | None
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    assert (await doctor.disk(tmp_path))["ok"] is ok


async def test_a_disk_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    ends = anyio.Event()

    async def hangs(*_: object, **__: object) -> None:
        await ends.wait()

    monkeypatch.setattr(doctor.threads, "run_sync", hangs)
    monkeypatch.setattr(doctor, "LOOK_MAX_S", 0.01)
    found = await doctor.disk(tmp_path)
    assert (found["ok"], "does not answer" in found["text"]) == (False, True)


@pytest.mark.parametrize(
    ("script", "ok"),
    [("echo yes", True), ("echo no", False), ("echo ''", None), ("exit 1", None), ("exec sleep 60", None)],
)
async def test_a_clock_that_nobody_keeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, ok: bool | None):
    program = tmp_path / "timedatectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if "sleep" in script:
        monkeypatch.setattr(doctor, "LOOK_MAX_S", 0.2)
    assert (await doctor.clock())["ok"] is ok


def test_without_the_right_to_ping_it_says_which_setting_gives_it(monkeypatch: pytest.MonkeyPatch):
    def refuses(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuses)
    found = doctor.icmp()
    assert (found["ok"], "ping_group_range" in found["text"]) == (False, True)


def test_too_few_files_for_so_many_hosts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert doctor.files(100)["ok"] is False
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    assert doctor.files(100)["ok"] is True
