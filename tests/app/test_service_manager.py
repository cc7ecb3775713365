"""What systemd is told, and that its units are sound."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from ha_controller.app.service_manager import ServiceManager

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
EXPOSURE_MAX = 2.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def told(manager: socket.socket) -> list[str]:
    words = []
    while True:
        try:
            words.append(manager.recv(100).decode())
        except BlockingIOError:
            return words


def of(manager: socket.socket, **more: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": manager.getsockname(), **more})


def test_ready_and_stopping_are_told(manager):
    ours = of(manager)
    ours.ready()
    ours.stopping()
    assert told(manager) == ["READY=1", "STOPPING=1"]


async def test_the_watchdog_is_fed_only_after_another_round_of_the_decision_loop(manager):
    ours, rounds = of(manager, WATCHDOG_USEC="40000"), 0.0
    assert ours.timeout_s == pytest.approx(0.04)
    async with anyio.create_task_group() as group:
        group.start_soon(ours.feed, lambda: rounds)
        await anyio.sleep(0.1)
        assert told(manager) == ["WATCHDOG=1"]
        await anyio.sleep(0.1)
        assert told(manager) == []  # the loop hangs: systemd starts us anew
        rounds = 1.0
        await anyio.sleep(0.1)
        assert told(manager) == ["WATCHDOG=1"]
        group.cancel_scope.cancel()


async def test_without_systemd_nothing_happens():
    ours = ServiceManager({})
    ours.ready()
    ours.stopping()
    with anyio.fail_after(1):
        await ours.feed(lambda: 0.0)


async def test_the_watchdog_of_another_process_is_not_ours(manager):
    assert of(manager, WATCHDOG_USEC="40000", WATCHDOG_PID="1").timeout_s == 0.0
    assert of(manager, WATCHDOG_USEC="40000", WATCHDOG_PID=str(os.getpid())).timeout_s > 0


def test_a_manager_that_does_not_read_holds_nobody_up(manager):
    ours = of(manager)
    for _ in range(10_000):
        ours.ready()


@pytest.mark.peer
def test_the_unit_is_sound_and_hardened(tmp_path: Path, require_peer: Callable[[str], str]):
    analyze = require_peer("systemd-analyze")
    unit = tmp_path / "ha-controller.service"
    shutil.copy(UNITS / unit.name, unit)
    text = unit.read_text().replace("/opt/ha-controller/bin/ha-controller", "/bin/true")
    unit.write_text(text)  # verify looks whether the program is there
    verified = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    ours = [line for line in verified.stderr.splitlines() if "ha-controller" in line]
    assert not ours
    shown = subprocess.run(
        [analyze, "security", "--offline=true", str(unit)], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", shown)
    assert found is not None, shown
    assert float(found[1]) <= EXPOSURE_MAX, shown
