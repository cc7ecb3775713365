"""Two whole controllers before one embedded cloud, each with a network of its own to the hosts.

A host that only the other one reaches is not powered off; when its life ends there, too, it is. Of two that lead by a
real etcd, the one that sees less gives the lead away, and so does the one that would power itself off.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Hardware
from ha_controller.sim.hosts import HostNetwork
from tests.peers.etcd import Etcd
from tests.whole.test_serve import FAST, Served

pytestmark = pytest.mark.slow

SILENCE_S = 4.0  #: condemns


class OtherNetwork(Hardware):
    """The machines as they are reached by another way, which may be cut."""

    def __init__(self, real: Hardware) -> None:
        self.real = real
        self.cut: set[int] = set()

    def kernel_answers(self, machine: int) -> bool:
        return machine not in self.cut and self.real.kernel_answers(machine)

    def answers(self, machine: int) -> bool:
        return machine not in self.cut and self.real.answers(machine)


class Pair:
    """The one that acts, what it is reached by, and one that only looks."""

    def __init__(self, cloud: EmbeddedCloud, way: OtherNetwork, acts: Served, looks: Served) -> None:
        self.cloud, self.way, self.acts, self.looks = cloud, way, acts, looks

    def shots(self) -> int:
        return sum(line.what == "ordered off" for line in self.cloud.hardware.log)

    async def eventually(self, what: Callable[[], Awaitable[bool]], within_s: float = 40, every_s: float = 1.0) -> None:
        with anyio.fail_after(within_s):
            while not await what():
                await anyio.sleep(every_s)

    async def shows(self, word: str, *command: str) -> str:
        shown = ""

        async def is_there() -> bool:
            nonlocal shown
            shown = (await self.acts.cli(*command))[1]
            return word in shown

        try:
            await self.eventually(is_there, within_s=30)
        except TimeoutError:
            pytest.fail(f"no {word!r} in {shown}")
        return shown


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def _configure(folder: Path, cloud: EmbeddedCloud, more: str, **edits: str) -> Served:
    folder.mkdir()
    demo_config(folder, cloud)
    path = folder / "config.toml"
    durations = f'after = "{SILENCE_S:g}s"\nfail_after = "{SILENCE_S:g}s"'
    text = path.read_text().replace(', "oned"]', "]").replace('after = "10s"', durations)
    for old, new in edits.items():
        text = text.replace(old, new)
    path.write_text(f"{text}{more}")
    return Served(folder)


@asynccontextmanager
async def pair(
    folder: Path, lead: str = "", *, observes: bool = True, own_vm: int | None = None
) -> AsyncIterator[Pair]:
    """`lead`: the section of the configuration by which both lead; without it each leads alone.

    `observes`: the one that looks does nothing else. `own_vm`: where the one that acts runs.
    """
    async with EmbeddedCloud(hosts=4, vms_per_host=2, timings=FAST) as cloud:
        way = OtherNetwork(cloud.hardware)
        ports = {"ssh_port": cloud.ssh_port + 1, "echo_port": cloud.echo_port + 1}
        network = HostNetwork(way, {host.id: host.address for host in cloud.hosts}, **ports)
        await network.start()
        port = _free_port()
        only_looks = {'mode = "auto"': ""} if observes else {}
        looks = _configure(folder / "looks", cloud, f'listen = "127.0.0.1:{port}"\n{lead}', **only_looks)
        served = [looks]
        try:
            await looks.start()
            await looks.ready()
            code, token = await looks.cli("token", "create", "one-1", "--role", "viewer")
            assert code == 0, token
            (folder / "token").write_text(token.strip())
            (folder / "token").chmod(0o600)
            asks = f'\n[[controller]]\nname = "one-2"\nurl = "http://127.0.0.1:{port}"\n'
            asks += f'token = {{ file = "{folder}/token" }}\n'
            edits = {
                f"port = {cloud.echo_port}\n": f"port = {ports['echo_port']}\n",
                f"port = {cloud.ssh_port}\n": f"port = {ports['ssh_port']}\n",
            }
            if own_vm is not None:
                edits["[guard]\n"] = f"[guard]\nown_vm = {own_vm}\n"
            acts = _configure(folder / "acts", cloud, f"{lead}{asks}", **edits)
            served.append(acts)
            await acts.start()
            await acts.ready()
            both = Pair(cloud, way, acts, looks)
            await both.shows("All hosts are well", "status")
            await both.shows("one-2: sees 4 hosts alive", "leader", "show")
            await anyio.sleep(3)  # the settle time
            yield both
        finally:
            network.close()
            for each in served:
                if each.process is not None and each.process.returncode is None:
                    await each.kill()


async def test_a_host_that_only_the_other_one_reaches_lives_and_is_powered_off_when_it_dies(tmp_path: Path):
    async with pair(tmp_path) as both:
        both.way.cut.add(2)
        await both.shows("kvm-03: life: one-2 sees it alive", "events")
        explained = (await both.acts.cli("explain", "kvm-03"))[1]
        assert "from one-2: alive" in explained
        assert "✗ life: one-2 sees it alive" in explained
        await anyio.sleep(SILENCE_S)
        assert both.shots() == 0

        both.cloud.break_host(2, "hang")
        await both.shows("All VMs are cared for", "status")
        assert both.shots() == 1
        assert both.cloud.check(vms_must_wait=False) == []
        assert "Traceback" not in both.acts.log + both.looks.log
        assert (tmp_path / "token").read_text() not in both.acts.log + both.looks.log


async def leads(controller: Served) -> bool:
    return bool(json.loads((await controller.cli("leader", "show", "-o", "json"))[1])["leads"])


async def steps_down_for(both: Pair, leader: Served, other: Served) -> None:
    await both.eventually(lambda: knows_another(leader))  # to a controller that it does not know of it gives nothing
    code, text = await leader.cli("leader", "step-down")
    assert code == 0, text
    await both.eventually(lambda: leads(other))


@pytest.mark.peer
async def test_a_leader_that_sees_less_than_a_standby_gives_the_lead_away_over_a_real_etcd(etcd: Etcd, tmp_path: Path):
    lead = f'\n[leader]\nkind = "etcd"\nendpoints = {json.dumps(etcd.endpoints)}\nlease = "6s"\ntimeout = "500ms"\n'
    async with pair(tmp_path, lead) as both:
        acts, looks = both.acts, both.looks
        await steps_down_for(both, looks, acts)
        both.way.cut |= {1, 2, 3}
        await both.eventually(lambda: leads(looks), within_s=120, every_s=4.0)
        assert not await leads(acts)
        assert "one-2 sees 3 hosts alive that are silent for this controller" in (await acts.cli("audit", "list"))[1]
        assert "All hosts are well" in (await looks.cli("status"))[1]
        assert both.shots() == 0
        assert "Traceback" not in acts.log + looks.log


@pytest.mark.peer
async def test_a_leader_in_a_vm_on_the_host_that_dies_leaves_it_to_the_other_one(etcd: Etcd, tmp_path: Path):
    lead = f'\n[leader]\nkind = "etcd"\nendpoints = {json.dumps(etcd.endpoints)}\nlease = "6s"\ntimeout = "500ms"\n'
    async with pair(tmp_path, lead, observes=False, own_vm=4) as both:
        acts, looks = both.acts, both.looks
        await steps_down_for(both, looks, acts)
        assert "this controller runs in VM 4 on kvm-03. Should that host die" in (await acts.cli("doctor"))[1]
        both.cloud.break_host(2, "hang")
        await both.shows("kvm-03: own host: this controller would power itself off", "events")
        assert both.shots() == 0
        await both.eventually(lambda: leads(looks), within_s=120, every_s=4.0)
        await both.eventually(lambda: is_recovered(looks), within_s=60, every_s=1.0)
        assert both.shots() == 1
        assert both.cloud.check(vms_must_wait=False) == []
        assert "kvm-03 is to be powered off, and one-2 does not run there" in (await acts.cli("audit", "list"))[1]
        assert "Traceback" not in acts.log + looks.log


async def is_recovered(controller: Served) -> bool:
    return "All VMs are cared for" in (await controller.cli("status"))[1]


async def knows_another(controller: Served) -> bool:
    return len(json.loads((await controller.cli("leader", "show", "-o", "json"))[1])["members"]) > 1
