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
HOST_UNITS = Path(__file__).parents[2] / "plugins" / "watchdog" / "ha_controller_watchdog"
EXPOSURE_MAX, HOST_EXPOSURE_MAX = 2.0, 3.0


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


def exposure_of(analyze: str, unit: Path) -> float:
    """What systemd's own measure says: 0 is locked in, 10 may do everything. Fails if the unit is not sound."""
    programs = re.findall(r"^ExecStart=(\S+)", unit.read_text(), re.MULTILINE)
    for program in programs:  # verify looks whether the program is there
        unit.write_text(unit.read_text().replace(f"={program} ", "=/bin/true "))
    verified = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    ours = [line for line in verified.stderr.splitlines() if "ha-controller" in line]
    assert not ours
    shown = subprocess.run(
        [analyze, "security", "--offline=true", str(unit)], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", shown)
    assert found is not None, shown
    return float(found[1])


@pytest.mark.peer
def test_the_unit_is_sound_and_hardened(tmp_path: Path, require_peer: Callable[[str], str]):
    analyze = require_peer("systemd-analyze")
    unit = Path(shutil.copy(UNITS / "ha-controller.service", tmp_path))
    assert exposure_of(analyze, unit) <= EXPOSURE_MAX


@pytest.mark.peer
def test_the_unit_stays_sound_with_secrets_as_credentials(tmp_path: Path, require_peer: Callable[[str], str]):
    analyze = require_peer("systemd-analyze")
    unit = Path(shutil.copy(UNITS / "ha-controller.service", tmp_path))
    drop_in = tmp_path / "ha-controller.service.d"
    drop_in.mkdir()
    shutil.copy(UNITS / "credentials.conf", drop_in)
    assert exposure_of(analyze, unit) <= EXPOSURE_MAX


@pytest.mark.peer
def test_the_unit_of_the_hosts_is_sound_and_libvirt_waits_for_it(tmp_path: Path, require_peer: Callable[[str], str]):
    analyze = require_peer("systemd-analyze")
    unit = Path(shutil.copy(HOST_UNITS / "ha-controller-watchdog.service", tmp_path))
    libvirt = tmp_path / "libvirtd.service"
    libvirt.write_text("[Service]\nExecStart=/bin/true x\n")
    drop_in = tmp_path / "libvirtd.service.d"
    drop_in.mkdir()
    shutil.copy(HOST_UNITS / "libvirtd-needs-watchdog.conf", drop_in)
    # it is root and realtime, and has the watchdog's device: it cannot be locked in like the controller
    assert exposure_of(analyze, unit) <= HOST_EXPOSURE_MAX
    exposure_of(analyze, libvirt)


@pytest.mark.peer
def test_the_user_and_the_folders_are_made(tmp_path: Path, require_peer: Callable[[str], str]):
    sysusers, tmpfiles = require_peer("systemd-sysusers"), require_peer("systemd-tmpfiles")
    for name in ("etc", "var/lib"):
        (tmp_path / name).mkdir(parents=True)
    root = f"--root={tmp_path}"
    subprocess.run([sysusers, root, UNITS / "ha-controller.sysusers"], check=True, capture_output=True)
    subprocess.run([tmpfiles, root, "--create", UNITS / "ha-controller.tmpfiles"], check=True, capture_output=True)
    [user] = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert (user[0], user[-1]) == ("ha-controller", "/usr/sbin/nologin")
    folder = tmp_path / "etc/ha-controller"
    assert {each.name for each in folder.iterdir()} == {"secrets", "conf.d"}
    for each in (folder, *folder.iterdir()):
        found = each.stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o750, 0, int(user[3]))
