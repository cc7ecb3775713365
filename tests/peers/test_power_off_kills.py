"""A real BMC whose power-off really kills a real host: an sshd in a network namespace that writes to shared storage."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ha_controller_ipmi import IpmiAgent, IpmiConfig
from leads import always

from ha_controller.adapters.fencer import Device, Fencer
from ha_controller.core.effects import Fence
from ha_controller.core.events import Event, FenceReported, FenceResult
from tests.peers.ipmi_sim import OPERATOR, Fault, IpmiSim, IpmiSimFarm

pytestmark = pytest.mark.peer

ADDRESS, CONTROLLER = "10.62.0.10", "10.62.0.1"

#: PID 1 of the host: serves SSH and writes on a disk that others can see, as a VM would.
_INIT = """\
#!/bin/sh
/usr/sbin/sshd -D -f /dev/null -o HostKey=KEY -o PidFile=none -o UsePAM=no -o UseDNS=no &
while :; do date +%s%N >FOLDER/disk; sleep 0.05; done
"""


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


class Host:
    """A namespace of its own for network and processes. SIGKILL to its root process is the power cord."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"hap{os.getpid()}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.name, "type", "veth", "peer", "eth0", "netns", self.name)
        run("ip", "addr", "add", f"{CONTROLLER}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        run("ip", "-n", self.name, "addr", "add", f"{ADDRESS}/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
        Path("/run/sshd").mkdir(exist_ok=True)
        init = folder / "init"
        init.write_text(_INIT.replace("KEY", str(folder / "key")).replace("FOLDER", str(folder)))
        init.chmod(0o755)
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--kill-child=KILL", init]
        )

    @property
    def disk(self) -> str:
        path = self.folder / "disk"
        return path.read_text() if path.exists() else ""

    async def writes(self) -> bool:
        """Whether anything was written within a good while."""
        before = self.disk
        for _ in range(20):
            await asyncio.sleep(0.02)
            if self.disk != before:
                return True
        return False

    def cut_off(self) -> None:
        run("ip", "link", "set", self.name, "down")

    def hook(self) -> Path:
        """What the chassis does at a power change."""
        return self._script("hook", f'[ "$1" = 0 ] && kill -9 {self.process.pid}\nexit 0\n')

    def probe(self) -> Path:
        """What the chassis really is: a dead process may still be waited for, so the letter of its state counts."""
        state = f"$(cut -d' ' -f3 /proc/{self.process.pid}/stat 2>/dev/null)"
        return self._script("probe", f'case "{state}" in ""|Z) echo 0;; *) echo 1;; esac\n')

    def _script(self, name: str, body: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)
        return path

    def down(self) -> None:
        self.process.kill()
        self.process.wait(10)
        run("ip", "link", "del", self.name)  # the namespace goes later, and with it the name of its other end
        run("ip", "netns", "del", self.name)


@pytest.fixture
def host(tmp_path: Path, require_peer: Callable[[str], str]) -> Iterator[Host]:
    for program in ("ip", "unshare", "sshd", "ssh-keygen"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    made = Host(tmp_path)
    yield made
    made.down()


async def banner() -> bytes:
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_connection(ADDRESS, 22)
        try:
            return await reader.readline()
        finally:
            writer.close()


async def fence(bmc: IpmiSim, *, timeout_s: float = 12.0) -> FenceReported:
    """One order through the real fencer and the real agent."""
    events: list[Event] = []
    agent = IpmiAgent(
        IpmiConfig(address=bmc.address, port=bmc.port, username=OPERATOR.name, password=OPERATOR.password)
    )
    clock = asyncio.get_running_loop().time
    fencer = Fencer(report=events.append, may_act=always, clock=clock)
    fencer.equip(1, {"bmc": Device(name="bmc", agent=agent, timeout_s=timeout_s)})
    order = Fence(host=1, incident=1, attempt=1, devices=("bmc",), send=True, not_after=clock() + 3)
    await fencer.fence(order)
    (report,) = [event for event in events if isinstance(event, FenceReported)]
    return report


async def test_a_partitioned_host_that_still_writes_is_dead_when_off_was_read(host: Host, bmc_farm: IpmiSimFarm):
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await banner()).startswith(b"SSH-2.0")
                break
            except OSError:
                await asyncio.sleep(0.05)
    [bmc] = bmc_farm.start(1, hook=host.hook(), probe=host.probe())
    host.cut_off()
    with pytest.raises((OSError, TimeoutError)):
        await banner()
    assert await host.writes(), "cut off, and still writing: the split brain that fencing is for"
    report = await fence(bmc)
    assert report.result is FenceResult.OFF_READ
    assert not await host.writes()
    assert bmc.orders() == ["power 0"]


async def test_a_stuck_bmc_leaves_the_host_writing_and_is_never_taken_for_off(host: Host, bmc_farm: IpmiSimFarm):
    [bmc] = bmc_farm.start(1, hook=host.hook(), probe=host.probe())
    bmc.break_with(Fault.STUCK)
    report = await fence(bmc, timeout_s=6.0)
    assert report.result is FenceResult.UNVERIFIED
    assert await host.writes()


async def test_dead_bmcs_delay_nobody(bmc_farm: IpmiSimFarm):
    """Twenty at once, half of them frozen: the living ones are verified in their own time, the others end at theirs."""
    bmcs = bmc_farm.start(20)
    for bmc in bmcs[10:]:
        bmc.freeze()
    clock = asyncio.get_running_loop().time
    began, took = clock(), list[tuple[FenceResult, float]]()

    async def one(bmc: IpmiSim) -> None:
        report = await fence(bmc, timeout_s=9.0)
        took.append((report.result, clock() - began))

    async with asyncio.TaskGroup() as group:
        for bmc in bmcs:
            group.create_task(one(bmc))
    assert [result for result, _ in took].count(FenceResult.OFF_READ) == 10
    assert max(seconds for result, seconds in took if result is FenceResult.OFF_READ) < 8.0
    assert max(seconds for _, seconds in took) < 11.0
