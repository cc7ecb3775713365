"""Two whole controllers before one embedded cloud, each with a network of its own to the hosts.

A host that only the other one reaches is not powered off; when its life ends there, too, it is.
"""

from __future__ import annotations

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

    async def eventually(self, what: Callable[[], Awaitable[bool]], within_s: float = 40.0) -> None:
        with anyio.fail_after(within_s):
            while not await what():
                await anyio.sleep(0.2)

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
async def pair(folder: Path) -> AsyncIterator[Pair]:
    async with EmbeddedCloud(hosts=4, vms_per_host=2, timings=FAST) as cloud:
        way = OtherNetwork(cloud.hardware)
        ports = {"ssh_port": cloud.ssh_port + 1, "echo_port": cloud.echo_port + 1}
        network = HostNetwork(way, {host.id: host.address for host in cloud.hosts}, **ports)
        await network.start()
        port = _free_port()
        looks = _configure(folder / "looks", cloud, f'listen = "127.0.0.1:{port}"\n', **{'mode = "auto"': ""})
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
            acts = _configure(folder / "acts", cloud, asks, **edits)
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
