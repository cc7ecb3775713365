"""The watchdog agent with the host's own program in processes that really end; only the device is a stand-in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from ha_controller_watchdog import WatchdogAgent, WatchdogConfig
from ha_controller_watchdog.agent import MOVED_WITHIN_S

from ha_controller.adapters.fencer import Device
from ha_controller.adapters.fencer.switch import Switch
from ha_controller.core.events import FenceResult
from ha_controller.plugin import FenceAgent, FenceError, PowerState, Rejected, Unreachable
from ha_controller.testing import CHECKS, Check, Fault, Rig
from tests.peers.conftest import fenced

WATCHDOG_S, LEASE_S = 0.6, 0.4
PROGRAM = Path(__file__).with_name("watchdog_host.py")


class WatchdogHost:
    """One pretended host."""

    def __init__(self, folder: Path, identity: str = "iTCO_wdt") -> None:
        self.leases, self.disk, self.identity = folder / "leases", folder / "disk", identity
        self.leases.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        """Boot, and wait for the first lease of this boot."""
        self.stop()
        file = self.leases / "kvm-01.lease"
        before = file.read_bytes() if file.exists() else b""
        arguments = [self.leases, "kvm-01", str(WATCHDOG_S), str(LEASE_S), self.disk, self.identity, *words]
        self._process = subprocess.Popen([sys.executable, PROGRAM, *arguments], start_new_session=True)
        deadline = time.monotonic() + 10
        while not file.exists() or file.read_bytes() == before or b'"armed": true' not in file.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def is_on(self) -> bool:
        """Whether the inner process lives: the outer one waits for its end, and ends.

        A disk that is not written to for a moment would not say so: on a busy machine a host that lives does not write.
        """
        return self._process is not None and self._process.poll() is None

    def order(self, word: str) -> None:
        (self.leases / "kvm-01.order").write_text(word)

    def ask_to_end(self) -> None:
        """What `systemctl stop` does."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def freeze(self, frozen: bool) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self) -> None:
        """Pull the cord."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WatchdogHost]:
    made = WatchdogHost(tmp_path)
    made.start()
    yield made
    made.stop()


def agent_for(folder: Path, **settings: Any) -> WatchdogAgent:
    written = {"folder": folder, "lease_name": "kvm-01", "watchdog_timeout": "600ms", "lease": "400ms"}
    return WatchdogAgent(WatchdogConfig.model_validate(written | settings))


# --- the conformance suite --------------------------------------------------------------------------------------------


class WatchdogRig:
    """Implements `ha_controller.testing.Rig` with one pretended host. A wrong folder stands in for a wrong password.

    A host that was reset boots by itself as soon as its order allows it to live: one that was switched off here, and
    one that a busy machine did not let feed its watchdog in time, which no agent had to do with.
    """

    agent_class: type[FenceAgent[Any]] = WatchdogAgent
    secrets: Sequence[str] = ()
    system_uuid: str | None = None
    tells_denials = False

    def __init__(self, machine: WatchdogHost) -> None:
        self.machine = machine
        self._fault: Fault | None = None

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        return agent_for(self.machine.leases.with_name("elsewhere") if wrong_password else self._folder)

    @property
    def _folder(self) -> Path:
        elsewhere = self._fault in (Fault.HANGS, Fault.NONSENSE)
        return self.machine.leases.with_name("broken") if elsewhere else self.machine.leases

    async def host_is_on(self) -> bool:
        order = self.machine.leases / "kvm-01.order"
        if not self.machine.is_on() and order.is_file() and order.read_text().strip() == "run":
            await anyio.to_thread.run_sync(self.machine.start)
        return self.machine.is_on()

    async def set_host_power(self, on: bool) -> None:
        self.machine.order("run" if on else "revoked")
        if not on:
            self.machine.stop()
        elif not self.machine.is_on():
            await anyio.to_thread.run_sync(self.machine.start)

    async def set_fault(self, fault: Fault | None) -> None:
        self._fault = fault
        broken = self.machine.leases.with_name("broken")
        shutil.rmtree(broken, ignore_errors=True)
        if fault is Fault.STAYS_ON:
            self.machine.start("deaf")
        elif fault is Fault.REFUSES:
            order = self.machine.leases / "kvm-01.order"
            order.unlink()
            order.mkdir()
        elif fault is Fault.HANGS:
            broken.mkdir()
            os.mkfifo(broken / "kvm-01.lease")
            os.mkfifo(broken / "kvm-01.order")
        elif fault is Fault.NONSENSE:
            broken.mkdir()
            (broken / "kvm-01.lease").write_bytes(bytes(range(256)))


@pytest.fixture
def watchdog_rig(machine: WatchdogHost) -> WatchdogRig:
    return WatchdogRig(machine)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_agent_conforms(check: Check, watchdog_rig: Rig) -> None:
    await check(watchdog_rig)


# --- one host ---------------------------------------------------------------------------------------------------------


async def acquainted(machine: WatchdogHost, **settings: Any) -> WatchdogAgent:
    """An agent that has seen the host's lease move."""
    agent = agent_for(machine.leases, **settings)
    assert await agent.power_state() is PowerState.ON
    return agent


async def reads_off(agent: WatchdogAgent, within_s: float = 8.0) -> bool:
    with anyio.move_on_after(within_s):
        while await agent.power_state() is not PowerState.OFF:
            await anyio.sleep(0.05)
        return True
    return False


async def test_a_revoked_host_is_dead_before_its_lease_reads_off(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    await agent.power_off()
    assert await reads_off(agent)
    assert time.time() - machine.disk.stat().st_mtime > WATCHDOG_S  # nothing written for so long
    assert not machine.is_on()


async def test_a_fence_is_read_back_like_any_other(machine: WatchdogHost) -> None:
    report = await fenced(await acquainted(machine))
    assert report.result is FenceResult.OFF_READ
    assert not machine.is_on()


async def test_a_host_that_lost_its_power_reads_off_and_not_one_moment_too_early(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    machine.stop()
    began = time.monotonic()
    assert await reads_off(agent)
    assert time.monotonic() - began >= 2 * WATCHDOG_S  # and its lease, less what had passed of it


async def test_a_host_that_lost_its_storage_is_reset_without_any_order(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    shutil.move(machine.leases, machine.leases.with_name("lost"))  # its storage is gone
    with anyio.fail_after(5):
        while machine.is_on():
            await anyio.sleep(0.05)
    shutil.move(machine.leases.with_name("lost"), machine.leases)
    assert await reads_off(agent)


async def test_a_lease_that_was_never_seen_moving_proves_nothing(machine: WatchdogHost) -> None:
    """That of a former boot: the host may run, and its unit did not start again."""
    machine.stop()
    assert not await reads_off(agent_for(machine.leases), within_s=5.0)


async def test_a_host_that_runs_again_without_its_unit_is_not_off(machine: WatchdogHost) -> None:
    """It was seen moving in the boot before; that says nothing about this one for ever."""
    agent = await acquainted(machine)
    machine.stop()
    seen = agent._seen
    assert seen is not None
    agent._seen = replace(seen, moved_at=time.monotonic() - MOVED_WITHIN_S)
    assert not await reads_off(agent, within_s=4.0)


async def test_a_unit_that_was_restarted_is_another_run(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    machine.start()
    machine.stop()
    assert not await reads_off(agent, within_s=4.0)


async def test_what_was_seen_is_kept_when_a_look_is_cut_off(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    machine.stop()
    power = PowerState.UNKNOWN
    with anyio.fail_after(30):  # a look that gets nowhere within 0.3 s, on a busy machine, keeps nothing
        while power is PowerState.UNKNOWN:
            with anyio.move_on_after(0.3):
                power = await agent.power_state()
    assert power is PowerState.OFF


async def test_an_undecided_lease_is_told_at_once(machine: WatchdogHost) -> None:
    """A proof by another device is read again beside it, and must not grow old meanwhile."""
    agent = await acquainted(machine)
    machine.stop()
    with anyio.fail_after(1):
        assert await agent.power_state() is PowerState.UNKNOWN


async def test_a_datastore_that_hangs_does_not_eat_the_time_for_reading_back(
    machine: WatchdogHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ha_controller_watchdog.agent.ORDER_WITHIN_S", 0.5)
    agent = await acquainted(machine)
    machine.stop()
    order = machine.leases / "kvm-01.order"
    order.unlink()
    os.mkfifo(order)  # whoever opens it waits
    with anyio.fail_after(2), pytest.raises(Unreachable, match=r"not written within 0\.5 s"):
        await agent.power_off()
    assert await reads_off(agent)


async def test_an_order_that_was_cut_off_is_not_written_when_the_datastore_is_back(
    machine: WatchdogHost, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(machine.leases / "kvm-01.lease", broken)
    os.mkfifo(broken / "kvm-01.order")  # whoever opens it waits
    agent = agent_for(broken)
    async with anyio.create_task_group() as group:
        group.start_soon(agent.power_off)
        with anyio.fail_after(10):
            while not writers_of(broken / "kvm-01.order"):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    reader = os.open(broken / "kvm-01.order", os.O_RDONLY | os.O_NONBLOCK)  # the datastore is back
    try:
        ends_at = time.monotonic() + 1.0
        while time.monotonic() < ends_at:
            with contextlib.suppress(BlockingIOError):
                assert os.read(reader, 100) == b""
            await anyio.sleep(0.02)
    finally:
        os.close(reader)
    assert writers_of(broken / "kvm-01.order") == []


def writers_of(order: Path) -> list[str]:
    """The processes that were started to write an order."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"of={order}".encode() in each.read_bytes().split(b"\0"):
                found.append(each.parent.name)
    return found


async def test_a_host_whose_unit_was_stopped_is_never_off(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    machine.ask_to_end()
    ends_at = time.monotonic() + LEASE_S + 3 * WATCHDOG_S
    while time.monotonic() < ends_at:
        with pytest.raises(FenceError, match="not armed"):
            await agent.power_state()


@pytest.mark.parametrize(("identity", "words"), [("Software Watchdog", "no hardware"), ("none", "heartbeat only")])
async def test_what_does_not_fire_proves_nothing_and_is_not_revoked(tmp_path: Path, identity: str, words: str) -> None:
    soft = WatchdogHost(tmp_path, identity=identity)
    soft.start()
    try:
        agent = agent_for(soft.leases)
        for call in (agent.check, agent.power_state, agent.power_off):
            with pytest.raises(FenceError, match=words):
                await call()
        assert (soft.leases / "kvm-01.order").read_text().strip() == "run"
    finally:
        soft.stop()


@pytest.mark.parametrize("shorter", [{"watchdog_timeout": "500ms"}, {"lease": "300ms"}])
async def test_a_host_that_takes_longer_than_configured_proves_nothing(
    machine: WatchdogHost, shorter: dict[str, str]
) -> None:
    with pytest.raises(FenceError, match=r"the host uses 0\.6 s"):
        await agent_for(machine.leases, **shorter).power_state()


async def test_anothers_lease_proves_nothing(machine: WatchdogHost) -> None:
    shutil.copy(machine.leases / "kvm-01.lease", machine.leases / "kvm-02.lease")
    with pytest.raises(FenceError, match="lease of kvm-01"):
        await agent_for(machine.leases, lease_name="kvm-02").power_state()


async def test_without_a_lease_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="No such file"):
        await agent_for(tmp_path).power_off()
    assert list(tmp_path.iterdir()) == []


async def test_a_lease_that_stands_still_is_found_by_the_check_however_long_it_does(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    machine.stop()
    for _ in range(2):
        report = await agent.check()
        assert not report.ok
        assert "not renewed (order: run)" in report.summary
        assert await reads_off(agent)


async def nothing() -> str:
    """Says that nothing speaks against an order."""
    return ""


async def test_a_lifted_host_lives_again_after_its_boot(machine: WatchdogHost) -> None:
    agent = await acquainted(machine)
    before = await agent.boot_id()
    await agent.power_off()
    device = Device(name="watchdog", agent=agent, timeout_s=15)
    with anyio.fail_after(10):
        while machine.is_on():
            await anyio.sleep(0.05)

    async def boot() -> None:
        await anyio.sleep(1)
        await anyio.to_thread.run_sync(machine.start)

    async with anyio.create_task_group() as group:
        group.start_soon(boot)
        assert await Switch(time.monotonic).lift(device, nothing) == ""
    assert machine.is_on()
    assert await agent.boot_id() == before  # a process is reset here, not the machine
