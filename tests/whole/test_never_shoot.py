"""A whole controller and hosts with kernels and sshd of their own: who must not be powered off, and who must.

The hosts are network namespaces; their heartbeats on the "shared datastore" are written here as the host's unit writes
them, for as long as a machine lives. BMCs and OpenNebula are the embedded ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ha_controller.demo import demo_config
from ha_controller.sim import netns
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from tests.whole.test_serve import FAST, Served

pytestmark = pytest.mark.peer
BEAT_S = 0.5


@pytest.fixture(autouse=True)
def _needs(require_peer: Callable[[str], str], alone_in_the_network: None) -> None:
    for program in ("ip", "sshd", "ssh-keygen"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")


class Lab:
    """A controller, and a cloud whose faults can be taken back."""

    def __init__(self, controller: Served, cloud: EmbeddedCloud, leases: Path) -> None:
        self.controller, self.cloud, self.leases = controller, cloud, leases
        self.frozen: set[int] = set()

    async def beat(self) -> None:
        """Every machine that lives writes its counter."""
        counter = 0
        while True:
            counter += 1
            for number, host in enumerate(self.cloud.hosts):
                machine = self.cloud.hardware.machines[number]
                if machine.powered and not machine.mute and number not in self.frozen:
                    words = {
                        "host": host.name,
                        "boot_id": f"boot-{machine.boots}",
                        "run_id": "run-1",
                        "counter": counter,
                        "armed": True,
                    }
                    (self.leases / f"{host.name}.lease").write_text(json.dumps(words))
            await anyio.sleep(BEAT_S)

    def cut_off(self, *machines: int) -> None:
        """These machines live, and nothing of them is reached from the controller."""
        for machine in machines:
            self.cloud.hardware.break_machine(machine, Fault.PARTITION)

    def reconnect(self, *machines: int) -> None:
        for machine in machines:
            known = self.cloud.hardware.machines[machine]
            known.cut_off = known.mute = False
            self.cloud.hardware._changed(machine)

    def ordered_off(self) -> list[int]:
        return [line.machine for line in self.cloud.hardware.log if line.what == "ordered off"]

    async def shows(self, word: str, *command: str, within_s: float = 60.0) -> str:
        with anyio.fail_after(within_s):
            while word not in (shown := (await self.controller.cli(*command))[1]):
                await anyio.sleep(0.3)
        return shown

    async def states(self) -> dict[str, str]:
        code, shown = await self.controller.cli("hosts", "-o", "json")
        assert code == 0
        return {row["name"]: row["state"] for row in json.loads(shown)}


@asynccontextmanager
async def lab(folder: Path, hosts: int = 4) -> AsyncIterator[Lab]:
    leases = folder / "leases"
    leases.mkdir()
    async with EmbeddedCloud(hosts=hosts, vms_per_host=1, timings=FAST, namespaces=True) as cloud:
        demo_config(folder, cloud)
        path = folder / "config.toml"
        text = path.read_text().replace('"oned"]', '"oned", "storage"]')
        path.write_text(f'{text}\n[channel.storage]\nfolder = "{leases}"\nsilent_after = "2s"\n')
        controller = Served(folder)
        await controller.start()
        made = Lab(controller, cloud, leases)
        async with anyio.create_task_group() as group:
            group.start_soon(made.beat)
            try:
                await controller.ready()
                await made.shows(f"{hosts} ok", "status")
                await made.shows(f"{hosts} of {hosts} devices ready", "fencing", "status")
                yield made
            finally:
                await controller.kill()
                group.cancel_scope.cancel()


async def test_a_host_that_is_cut_off_and_writes_its_heartbeat_is_isolated_and_not_shot(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.cut_off(1)
        await here.shows("kvm-02 is isolated: no answer here, but storage shows life", "events")
        await anyio.sleep(15)  # longer than two kinds of silence need
        assert here.ordered_off() == []
        assert "isolated" in (await here.controller.cli("explain", "kvm-02"))[1]
        here.reconnect(1)
        await here.shows("4 ok", "status")
        assert here.ordered_off() == []


async def test_a_controller_that_is_cut_off_from_half_of_the_hosts_shoots_none(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.cut_off(0, 1)
        await here.shows("2 ok", "status")
        await anyio.sleep(14)
        assert here.ordered_off() == []
        assert sorted((await here.states()).values()) == ["ok", "ok", "suspect", "suspect"]


async def test_a_controller_that_is_cut_off_from_everything_shoots_nobody(tmp_path: Path):
    """Its witness is gone, too, and so is the datastore."""
    async with lab(tmp_path) as here:
        here.frozen.update(range(4))  # nobody's heartbeat is seen any more
        netns._run("ip", "link", "set", netns._link(-1), "down")
        here.cut_off(0, 1, 2, 3)
        await here.shows("0 of 1 witnesses answer", "explain", "kvm-02")
        await anyio.sleep(14)
        assert here.ordered_off() == []
        assert set((await here.states()).values()) == {"suspect"}


async def test_a_host_without_power_is_condemned_at_once_by_its_bmc(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.cloud.hardware.break_machine(1, Fault.POWER_LOSS)
        shown = await here.shows("RECOVERED", "explain", "kvm-02", "--last", "20")
        assert "condemned as powered off" in shown
        assert set(here.ordered_off()) == {1}


async def test_a_host_that_is_dead_everywhere_is_shot_by_two_kinds_of_silence(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.cloud.hardware.break_machine(1, Fault.HANG)
        shown = await here.shows("RECOVERED", "explain", "kvm-02", "--last", "20")
        assert "condemned as dead: it is powered off: management and storage silent" in shown
        assert set(here.ordered_off()) == {1}


async def test_a_host_that_freezes_and_thaws_in_time_is_left_alone(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.cloud.hardware.break_machine(1, Fault.HANG)
        await here.shows("1 suspect", "status")
        await anyio.sleep(4)
        here.reconnect(1)
        await here.shows("4 ok", "status")
        await anyio.sleep(12)
        assert here.ordered_off() == []


async def test_a_datastore_that_is_down_for_all_shoots_nobody(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.frozen.update(range(4))
        await anyio.sleep(14)
        assert here.ordered_off() == []
        assert set((await here.states()).values()) == {"ok"}


async def test_a_host_that_lost_its_datastore_is_told_and_not_shot(tmp_path: Path):
    async with lab(tmp_path) as here:
        here.frozen.add(1)
        await here.shows("kvm-02: storage lost", "events")
        await anyio.sleep(5)
        assert here.ordered_off() == []
        assert set((await here.states()).values()) == {"ok"}
