"""The host's side of the watchdog: when it feeds, with real files and a stand-in for the device."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ha_controller_watchdog import host
from ha_controller_watchdog.host import Lease, keep

LEASE_S = 10.0


class StandIn:
    """A watchdog that counts."""

    identity = "iTCO_wdt"
    timeout_s = 15

    def __init__(self) -> None:
        self.fed, self.disarmed = 0, False

    def feed(self) -> None:
        self.fed += 1

    def disarm(self) -> None:
        self.disarmed = True


class Host:
    """The program with a clock that jumps from one round to the next."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now, self.rounds = folder, 0.0, 0
        self.watchdog = StandIn()
        self.armed = 0
        monkeypatch.setattr(host, "clock", lambda: self.now)
        monkeypatch.setattr(host.time, "sleep", self._sleep)
        self.before_round: Callable[[int], None] = lambda number: None

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _arm(self) -> StandIn:
        self.armed += 1
        return self.watchdog

    def run(self, rounds: int) -> None:
        def ended() -> bool:
            self.rounds += 1
            self.before_round(self.rounds)
            return self.rounds > rounds

        keep(Lease(self.folder, "kvm-01", LEASE_S), self._arm, LEASE_S, ended)

    def lease(self) -> dict[str, object]:
        return json.loads((self.folder / "kvm-01.lease").read_text())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def order(machine: Host, word: str) -> None:
    host.write(machine.folder / "kvm-01.order", word)


def test_each_feeding_follows_a_renewal(machine: Host):
    seen: list[tuple[int, object]] = []
    machine.before_round = lambda number: number > 1 and seen.append((machine.watchdog.fed, machine.lease()["counter"]))
    machine.run(3)
    assert seen == [(1, 2), (2, 3), (3, 4)]  # one more before arming


def test_a_revoked_host_is_not_fed_any_more(machine: Host):
    machine.before_round = lambda number: order(machine, "revoked") if number == 3 else None
    machine.run(10)
    assert machine.watchdog.fed == 2


def test_it_is_fed_again_when_the_order_is_lifted(machine: Host):
    words = {3: "revoked", 5: "run"}
    machine.before_round = lambda number: order(machine, words[number]) if number in words else None
    machine.run(6)
    assert machine.watchdog.fed == 4


def test_a_host_that_comes_up_revoked_is_not_armed(machine: Host):
    order(machine, "revoked")
    machine.run(5)
    assert machine.armed == 0
    assert not (machine.folder / "kvm-01.lease").exists()


def test_without_storage_it_is_not_armed_and_not_fed(machine: Host):
    machine.folder = machine.folder / "not-mounted"
    machine.run(5)
    assert machine.armed == 0


def test_storage_that_is_lost_ends_the_feeding(machine: Host):
    def lose(number: int) -> None:
        if number == 3:
            machine.folder.rename(machine.folder.with_name("gone"))
        if number == 8:
            machine.folder.with_name("gone").rename(machine.folder)

    machine.before_round = lose
    machine.run(7)
    assert machine.watchdog.fed == 2
    assert machine.watchdog.disarmed


def test_a_renewal_that_took_longer_than_the_lease_feeds_nothing(machine: Host, monkeypatch: pytest.MonkeyPatch):
    real = Lease.renew

    def slow(self: Lease, watchdog: StandIn | None, leaving: bool = False) -> None:
        machine.now += LEASE_S if machine.rounds == 2 else 0.0
        real(self, watchdog, leaving)

    monkeypatch.setattr(Lease, "renew", slow)
    machine.run(3)
    assert machine.watchdog.fed == 2


def test_the_end_is_said_in_the_lease_before_the_watchdog_is_disarmed(machine: Host):
    machine.run(2)
    assert machine.lease()["armed"] is False
    assert machine.watchdog.disarmed


@pytest.mark.parametrize(
    ("says", "leaving"), [("stopping", True), ("running", False), ("degraded", False), ("", False)]
)
def test_the_end_says_whether_the_whole_host_goes_down(
    machine: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, leaving: bool
):
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\n[ "$*" = is-system-running ] && echo "{says}"\nexit 1\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    machine.run(3)
    assert (machine.lease()["armed"], machine.lease()["leaving"]) == (False, leaving)


def test_while_it_lives_it_is_not_leaving(machine: Host):
    machine.before_round = lambda number: number < 3 or machine.lease()["leaving"] is False or pytest.fail("leaving")
    machine.run(5)


def test_an_end_that_cannot_be_said_leaves_the_watchdog_armed(machine: Host, monkeypatch: pytest.MonkeyPatch):
    def lose(number: int) -> None:
        if number == 3:
            monkeypatch.setattr(host, "write_all", broken)

    def broken(handle: int, text: str) -> None:
        raise OSError("Stale file handle")

    machine.before_round = lose
    with pytest.raises(OSError, match="Stale"):
        machine.run(2)
    assert not machine.watchdog.disarmed


def test_a_lease_that_was_removed_is_made_anew(machine: Host):
    machine.before_round = lambda number: number == 3 and (machine.folder / "kvm-01.lease").unlink()
    machine.run(5)
    assert machine.watchdog.fed == 4  # once not: what it wrote was nobody's
    assert machine.lease()["armed"] is False


def test_an_order_that_the_host_does_not_see_yet_is_not_overwritten(machine: Host, monkeypatch: pytest.MonkeyPatch):
    """A network file system may hide a new file for a minute."""
    order(machine, "revoked")

    def hidden(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", lambda self: hidden(self) if self.suffix == ".order" else "boot-1")
    machine.run(3)
    monkeypatch.undo()
    assert (machine.folder / "kvm-01.order").read_text().strip() == "revoked"
    assert machine.armed == 0


def test_the_kernels_interface_is_used_as_it_is_documented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No watchdog device is at hand: the answers of the two calls are those of the documentation."""
    asked: list[int] = []

    def ioctl(handle: int, request: int, argument: bytes) -> bytes:
        asked.append(request)
        if request == 0x80285700:  # WDIOC_GETSUPPORT
            return struct.pack("II32s", 0x8180, 0, b"iTCO_wdt")  # SETTIMEOUT, KEEPALIVEPING, MAGICCLOSE
        return struct.pack("i", 14)  # WDIOC_SETTIMEOUT: what the hardware can do

    monkeypatch.setattr(host.fcntl, "ioctl", ioctl)
    device = tmp_path / "watchdog"
    device.write_bytes(b"")
    made = host.KernelWatchdog(str(device), 15)
    assert (made.identity, made.timeout_s) == ("iTCO_wdt", 14)
    made.feed()
    assert device.read_bytes() == b"\0"
    made.disarm()
    assert device.read_bytes() == b"\0V"
    assert asked == [0x80285700, 0xC0045706]


@pytest.mark.parametrize("trouble", ["no magic close", "no time-out", "no answer"])
def test_a_device_that_cannot_do_it_is_disarmed_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str):
    """Left armed, it would reset a healthy host."""

    def ioctl(handle: int, request: int, argument: bytes) -> bytes:
        if trouble == "no answer" or (trouble == "no time-out" and request == 0xC0045706):
            raise OSError(95, "Operation not supported")
        return struct.pack("II32s", 0 if trouble == "no magic close" else 0x8180, 0, b"old_wdt")

    monkeypatch.setattr(host.fcntl, "ioctl", ioctl)
    device = tmp_path / "watchdog"
    device.write_bytes(b"")
    with pytest.raises(OSError, match=r"not supported|proves nothing"):
        host.KernelWatchdog(str(device), 15)
    assert device.read_bytes() == b"V"


def test_a_folder_on_a_disk_of_this_host_is_refused(tmp_path: Path):
    """The datastore is not mounted: a lease there would be seen by nobody."""
    words = [sys.executable, host.__file__, "--folder", str(tmp_path), "--name", "kvm-01", "--device", "none"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode == 1
    assert "the datastore is not mounted" in ended.stderr


def test_it_is_one_file_that_needs_nothing_else(tmp_path: Path):
    copied = tmp_path / "host.py"
    copied.write_text(Path(host.__file__).read_text())
    ended = subprocess.run(
        [sys.executable, "-I", copied, "--help"], capture_output=True, text=True, check=True, env={"PATH": os.defpath}
    )
    assert "--folder" in ended.stdout
