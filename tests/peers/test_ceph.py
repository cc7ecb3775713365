"""The Ceph agent against a real monitor, with the real `ceph` command."""

from __future__ import annotations

import json
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from ha_controller_ceph import CephAgent, CephConfig

from ha_controller import process
from ha_controller.adapters.fencer import Device
from ha_controller.adapters.fencer.switch import Switch
from ha_controller.plugin import AccessDenied, FenceAgent, FenceError, PowerState, Rejected, Unreachable
from ha_controller.testing import CHECKS, Check, Fault, Rig
from tests.peers.ceph_mon import FENCER, READER, CephMonitor
from tests.peers.conftest import fenced

pytestmark = pytest.mark.peer
HOST = "10.99.0.5"


@pytest.fixture
def monitor(require_peer: Callable[[str], str], tmp_path: Path) -> Iterator[CephMonitor]:
    for program in ("ceph", "ceph-mon", "ceph-authtool", "monmaptool"):
        require_peer(program)
    folder = tmp_path / "ceph"
    folder.mkdir()
    made = CephMonitor(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def agent_for(monitor: CephMonitor, user: str = FENCER, **settings: Any) -> CephAgent:
    written = {
        "addresses": HOST, "datastores": [100], "user": user, "conf": monitor.conf, "keyring": monitor.keyring(user),
    }  # fmt: skip
    return CephAgent(CephConfig.model_validate(written | settings))


# --- the conformance suite --------------------------------------------------------------------------------------------


class CephRig:
    """Implements `ha_controller.testing.Rig` with one monitor; "on" is: the host is not on the blocklist.

    A monitor never acknowledges and forgets, nor refuses a well-formed order: there the `ceph` command is a script.
    """

    agent_class: type[FenceAgent[Any]] = CephAgent
    system_uuid: str | None = None

    def __init__(self, monitor: CephMonitor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monitor = monitor
        self._folder, self._monkeypatch = folder, monkeypatch
        self._real = shutil.which("ceph", path=process.PATH)
        self._path = process.PATH
        self._fault: Fault | None = None
        self._orders = folder / "orders"
        wrong = monitor.keyring(READER).read_text().replace(READER, FENCER)
        self._wrong = folder / "wrong.keyring"
        self._wrong.write_text(wrong)
        self._elsewhere = folder / "elsewhere.conf"
        monitor.write_conf(self._elsewhere, 1, "00000000-0000-0000-0000-000000000001")
        self.secrets: Sequence[str] = (monitor.key(FENCER), monitor.key(READER))

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        keyring = self._wrong if wrong_password else self.monitor.keyring(FENCER)
        conf = self._elsewhere if self._fault is Fault.NONSENSE else self.monitor.conf
        return agent_for(self.monitor, keyring=keyring, conf=conf)

    async def host_is_on(self) -> bool:
        listed = await anyio.to_thread.run_sync(self.monitor.blocklist)
        return f"{HOST}:0/0" not in listed

    def _carry_out_slowly(self) -> None:
        """In a thread: a second after the order was acknowledged, it is carried out."""
        for _ in range(200):
            if self._orders.exists():
                time.sleep(1)
                self.monitor.admin("osd", "blocklist", "add", HOST, "3600")
                return
            time.sleep(0.05)

    async def set_host_power(self, on: bool) -> None:
        words = ("rm", HOST) if on else ("add", HOST, "3600")
        await anyio.to_thread.run_sync(self.monitor.admin, "osd", "blocklist", *words)

    async def set_fault(self, fault: Fault | None) -> None:
        if self._fault is Fault.HANGS:
            await anyio.to_thread.run_sync(self.monitor.restart)
        self._fault = fault
        self._monkeypatch.setattr(process, "PATH", self._path)
        instead = {
            Fault.STAYS_ON: "exit 0",
            Fault.SLOW: f"echo add > {self._orders}; exit 0",
            Fault.REFUSES: "echo 'Error EINVAL: invalid command' >&2; exit 22",
        }
        if fault is Fault.SLOW:
            threading.Thread(target=self._carry_out_slowly, daemon=True).start()
        if fault is Fault.HANGS:
            self.monitor.freeze()
        elif fault in instead:
            script = self._folder / "bin/ceph"
            script.parent.mkdir(exist_ok=True)
            script.write_text(
                f'#!/bin/sh\ncase "$*" in *"blocklist add"*) {instead[fault]};; esac\nexec {self._real} "$@"\n'
            )
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            self._monkeypatch.setattr(process, "PATH", f"{script.parent}:{self._path}")


@pytest.fixture
def ceph_rig(monitor: CephMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CephRig:
    return CephRig(monitor, tmp_path, monkeypatch)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_agent_conforms(check: Check, ceph_rig: Rig) -> None:
    await check(ceph_rig)


async def nothing() -> str:
    """Says that nothing speaks against an order."""
    return ""


# --- one cluster ------------------------------------------------------------------------------------------------------


async def test_whole_addresses_are_listed_with_an_end(monitor: CephMonitor) -> None:
    await agent_for(monitor, addresses=f"{HOST} fd00::5", expires="2h").power_off()
    listed = monitor.blocklist()
    assert set(listed) == {f"{HOST}:0/0", "[fd00::5]:0/0"}
    for until in listed.values():
        left = datetime.strptime(until, "%Y-%m-%dT%H:%M:%S.%f%z") - datetime.now(UTC)
        assert timedelta(minutes=115) < left <= timedelta(minutes=121)


async def test_with_one_address_of_two_the_host_is_not_cut_off(monitor: CephMonitor) -> None:
    await agent_for(monitor).power_off()
    assert await agent_for(monitor, addresses=f"{HOST} 10.99.0.6").power_state() is PowerState.UNKNOWN


async def test_a_single_client_on_the_list_is_not_the_host(monitor: CephMonitor) -> None:
    monitor.admin("osd", "blocklist", "add", f"{HOST}:0/123456")
    assert await agent_for(monitor).power_state() is PowerState.ON


async def test_adding_an_entry_anew_is_acknowledged_and_changes_nothing(monitor: CephMonitor) -> None:
    """Why the agent does more than that. If this fails, Ceph has changed, and the agent may become simpler."""
    monitor.admin("osd", "blocklist", "add", HOST, "3600")
    before = monitor.blocklist()
    assert "(86400 sec)" in monitor.admin("osd", "blocklist", "add", HOST, "86400").stderr
    assert monitor.blocklist() == before


@pytest.mark.parametrize("address", [HOST, "fd00::5"])
async def test_repeating_the_order_lets_it_last_longer(monitor: CephMonitor, address: str) -> None:
    await agent_for(monitor, addresses=address, expires="1h").power_off()
    [before] = monitor.blocklist().values()
    await agent_for(monitor, addresses=address, expires="24h").power_off()
    [after] = monitor.blocklist().values()
    assert after > before
    assert monitor.ranges() == {}


async def test_an_entry_with_most_of_its_time_left_is_not_touched(monitor: CephMonitor) -> None:
    agent = agent_for(monitor)
    await agent.power_off()
    before = monitor.blocklist()
    await agent.power_off()
    assert monitor.blocklist() == before


async def test_the_host_is_cut_off_at_every_moment_of_a_renewal(
    monitor: CephMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor.admin("osd", "blocklist", "add", HOST, "3600")
    agent, real = agent_for(monitor), CephAgent._ceph
    seen: list[bool] = []

    async def watched(self: CephAgent, *words: str) -> process.Ended:
        ended = await real(self, *words)
        seen.append(f"{HOST}:0/0" in monitor.blocklist() or any(HOST in name for name in monitor.ranges()))
        return ended

    monkeypatch.setattr(CephAgent, "_ceph", watched)
    await agent.power_off()
    assert len(seen) == 5  # the list, and four orders
    assert all(seen)


async def test_a_renewal_that_broke_off_still_holds_and_is_lifted_whole(monitor: CephMonitor) -> None:
    monitor.admin("osd", "blocklist", "range", "add", f"{HOST}/32", "3600")
    agent = agent_for(monitor)
    assert await agent.power_state() is PowerState.OFF
    await agent.power_on()
    assert await agent.power_state() is PowerState.ON
    assert monitor.ranges() == {}


async def test_it_is_lifted_and_seen_lifted(monitor: CephMonitor) -> None:
    agent = agent_for(monitor, addresses=f"{HOST} fd00::5")
    await agent.power_off()
    device = Device(name="ceph", agent=agent, timeout_s=15)
    assert await Switch(anyio.current_time).lift(device, nothing) == ""
    assert monitor.blocklist() == {}


async def test_only_what_is_in_force_is_renewed(monitor: CephMonitor) -> None:
    device, switch = Device(name="ceph", agent=agent_for(monitor), timeout_s=15), Switch(anyio.current_time)
    assert await switch.renew(device, nothing) == "it is not in force any more"
    assert monitor.blocklist() == {}
    await device.agent.power_off()
    assert await switch.renew(device, nothing) == ""


async def test_a_level_of_it_alone_is_read_back(monitor: CephMonitor) -> None:
    report = await fenced(agent_for(monitor))
    assert report.off_read_at is not None  # isolated; that this proves no power is the core's to know


async def test_an_account_that_may_only_read_is_found_by_the_check_and_does_nothing(monitor: CephMonitor) -> None:
    agent = agent_for(monitor, user=READER)
    with pytest.raises(AccessDenied, match=READER):
        await agent.check()
    with pytest.raises(AccessDenied):
        await agent.power_off()
    assert monitor.blocklist() == {}


async def test_a_right_that_is_lost_half_way_leaves_the_outcome_open(
    monitor: CephMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin/ceph"
    script.parent.mkdir()
    denies = "echo 'Error EACCES: access denied' >&2; exit 13"
    real = shutil.which("ceph", path=process.PATH)
    script.write_text(f'#!/bin/sh\ncase "$*" in *"blocklist add 10.99.0.6"*) {denies};; esac\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(process, "PATH", f"{script.parent}:{process.PATH}")
    with pytest.raises(FenceError, match=r"done before that: add 10\.99\.0\.5") as caught:
        await agent_for(monitor, addresses=f"{HOST} 10.99.0.6").power_off()
    assert type(caught.value) is FenceError


async def test_a_right_that_is_lost_in_the_middle_of_a_renewal_leaves_the_outcome_open(
    monitor: CephMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor.admin("osd", "blocklist", "add", HOST, "3600")
    real = CephAgent._ceph

    async def denied(self: CephAgent, *words: str) -> process.Ended:
        if words[1] == "rm":
            raise AccessDenied("access denied")
        return await real(self, *words)

    monkeypatch.setattr(CephAgent, "_ceph", denied)
    with pytest.raises(FenceError, match="done before that: range add") as caught:
        await agent_for(monitor).power_off()
    assert type(caught.value) is FenceError


def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the `ceph` command print this, whatever it is asked."""
    (tmp_path / "said").write_text(text)
    script = tmp_path / "bin/ceph"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\n")
    script.chmod(0o755)
    monkeypatch.setattr(process, "PATH", f"{script.parent}:{process.PATH}")


async def test_a_list_of_thousands_is_read(
    monitor: CephMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lock that is broken adds an entry: in an outage the list is long."""
    until = "2030-01-01T00:00:00.000000+0000"
    entries = [{"addr": f"10.1.{n // 250}.{n % 250}:0/{n}", "until": until} for n in range(5000)]
    say(tmp_path, monkeypatch, json.dumps(entries) + "[]")
    assert await agent_for(monitor).power_state() is PowerState.ON


async def test_nonsense_in_place_of_the_list_is_no_off(
    monitor: CephMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(tmp_path, monkeypatch, "listed 1 entries")
    with pytest.raises(FenceError, match="cannot be understood"):
        await agent_for(monitor).power_state()


async def test_without_a_key_the_login_is_refused(monitor: CephMonitor, tmp_path: Path) -> None:
    empty = tmp_path / "empty.keyring"
    empty.write_text("")
    with pytest.raises(AccessDenied, match=FENCER):
        await agent_for(monitor, keyring=empty).check()


async def test_a_monitor_that_hangs_is_unreachable(monitor: CephMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ha_controller_ceph.agent.CONNECT_WITHIN_S", 1)
    monitor.freeze()
    with anyio.fail_after(5), pytest.raises(Unreachable, match="no monitor answers"):
        await agent_for(monitor).power_state()


async def test_no_key_is_on_the_command_line(monitor: CephMonitor) -> None:
    seen: list[str] = []
    monitor.freeze()
    async with anyio.create_task_group() as group:
        group.start_soon(agent_for(monitor).power_state)
        with anyio.fail_after(5):
            while not (
                seen := [line for line in command_lines() if "blocklist ls" in line and str(monitor.conf) in line]
            ):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    assert monitor.key(FENCER) not in " ".join(seen)
    with anyio.fail_after(2):
        while any(str(monitor.conf) in line and "blocklist" in line for line in command_lines()):
            await anyio.sleep(0.02)


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


async def test_without_the_program_nothing_was_done(monitor: CephMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATH", "/nonexistent")
    with pytest.raises(Rejected, match="apt install ceph-common"):
        await agent_for(monitor).power_off()
