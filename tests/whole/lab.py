"""A whole controller, and hosts that have everything of their own: a kernel, sshd, a heartbeat unit and a BMC.

Every host is a network namespace with OpenSSH and the unit of plugins/watchdog, which writes its heartbeat to a folder
in place of a shared datastore. Every BMC is an `ipmi_sim`; when it switches the power off, a script of its chassis
kills what runs in the namespace and takes its link. Only OpenNebula and the VMs are the embedded ones.

The methods named after a fault deliver it. Those named after a sign of life look at the host itself, not through the
controller: tests ask them, so that none passes because its fault never came.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from ha_controller_watchdog import host as heartbeat_unit

from ha_controller.demo import demo_config
from ha_controller.sim import netns
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from ha_controller.sim.oned_model import Timings
from tests.peers.ipmi_sim import OPERATOR, IpmiSim, IpmiSimFarm
from tests.whole.test_serve import Served
from tests.whole.turns import alone

SILENT_AFTER_S, FAIL_AFTER_S, HUNG_AFTER_S = 2.0, 3.0, 4.0
#: So long after a fault a host is condemned as dead, or found hung: several kinds of silence, noticed one after the
#: other. The tests of a dead and of a frozen host show that it is enough.
CONDEMNED_WITHIN_S, HUNG_WITHIN_S = 9.0, 11.0
SEEN_WITHIN_S = 3.0  #: how long ago a well host was seen on every channel; heartbeats are looked at every second
FOLLOW_EVERY_S = 0.02
STOPPED = "T"  #: the state of a process, proc(5)
PROGRAMS = ("ip", "sshd", "ssh-keygen", "ping", "ipmi_sim")

#: OpenNebula's own monitoring is made fast, so that its silence counts, too, and as early as the others'.
_TIMINGS = Timings(ssh_timeout_s=0.5, boot_s=0.2, monitor_host_s=1.0)
_OPENNEBULA_SILENT_AFTER_S = 3.0

#: What the power supply of a host does: it can only be taken from it. The file tells that it is done.
_POWER_SUPPLY = """\
#!/bin/sh
[ "$1" = 0 ] || exit 0
for process in $(ip netns pids {namespace}); do kill -9 "$process"; done
ip -n {namespace} link set eth0 down
echo off >>{done}
"""


class Lab:
    """A controller, and a cloud whose faults can be taken back."""

    def __init__(
        self,
        controller: Served,
        cloud: EmbeddedCloud,
        bmcs: Sequence[IpmiSim],
        leases: Path,
        units: Sequence[HeartbeatUnit],
    ) -> None:
        self.controller, self.cloud, self.bmcs = controller, cloud, bmcs
        self._leases, self._units = leases, units
        self._dead_bmcs: set[int] = set()
        self._switched = [0] * len(bmcs)
        self._fault_at = 0.0
        self.all = range(len(bmcs))

    # --- faults ---

    def cut_off(self, *hosts: int) -> None:
        """They live and write to their storage, and nothing of them is reached from here or from OpenNebula."""
        for host in hosts:
            self.cloud.hardware.break_machine(host, Fault.PARTITION)
        self._fault_at = anyio.current_time()

    def lose_storage(self, *hosts: int) -> None:
        """Nothing more of them comes to the datastore: their units hang, as a process does that waits for it."""
        for host in hosts:
            self._units[host].send_signal(signal.SIGSTOP)
        self._fault_at = anyio.current_time()

    def freeze(self, host: int) -> None:
        """Every process of it stands still; its kernel goes on."""
        self.cloud.hardware.break_machine(host, Fault.FREEZE)
        self._fault_at = anyio.current_time()

    def hang(self, host: int) -> None:
        """All of it stands still, its kernel included; the power is on."""
        self.cloud.hardware.break_machine(host, Fault.HANG)
        self._fault_at = anyio.current_time()

    async def crash(self, host: int) -> None:
        """Nothing is left of it but the power."""
        self.hang(host)
        for process in self.processes(host):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with anyio.fail_after(5):
            while self.processes(host):
                await anyio.sleep(0.01)

    def pull_power(self, host: int) -> None:
        """The chassis loses its power, by nobody's order; the BMC lives on."""
        self.cloud.hardware.break_machine(host, Fault.POWER_LOSS)
        self.bmcs[host].set_power(False)
        subprocess.run([self.bmcs[host].folder / "hook", "0"], check=True, timeout=10)
        self._switched[host] += 1

    def reboot(self, host: int) -> None:
        """It boots anew by itself, before anybody looks: what ran on it is gone, and its unit tells another boot."""
        self.cloud.hardware.reboot(host)
        self._units[host].reboot()

    def stop_sshd(self, host: int) -> None:
        """Its sshd stands still, and nothing else of it."""
        self._signal_sshd(host, signal.SIGSTOP)
        self._fault_at = anyio.current_time()

    def _signal_sshd(self, host: int, what: signal.Signals) -> None:
        for process in self.processes(host):
            with suppress(FileNotFoundError, ProcessLookupError):  # a child of it may have ended meanwhile
                if b"sshd" in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, what)

    async def cut_off_from_everything(self) -> None:
        """The controller reaches no host, no BMC, no witness and no datastore."""
        self.cut_off(*self.all)
        self.lose_storage(*self.all)
        netns._run("ip", "link", "set", netns.link_of(-1), "down")
        for host, bmc in enumerate(self.bmcs):
            bmc.freeze()
            self._dead_bmcs.add(host)

    async def heal(self) -> None:
        """Take every fault back, and wait until the controller sees all of it."""
        for host in self.all:
            self.come_back(host)
        netns._run("ip", "link", "set", netns.link_of(-1), "up")
        while self._dead_bmcs:
            await anyio.to_thread.run_sync(self.bmcs[self._dead_bmcs.pop()].restart)
        await self.all_well()

    def come_back(self, host: int) -> None:
        """Take back what befell the host itself; its BMC is left as it is."""
        machine = self.cloud.hardware.machines[host]
        if machine.cut_off or machine.mute or machine.frozen:
            self.cloud.hardware.heal(host)
        self._signal_sshd(host, signal.SIGCONT)
        self._units[host].send_signal(signal.SIGCONT)
        self._fault_at = anyio.current_time()

    # --- the truth ---

    async def each(self, sign: Callable[[int], Awaitable[bool]], *hosts: int) -> set[bool]:
        """What is seen of hosts, all looked at at the same time."""
        seen: set[bool] = set()

        async def look(host: int) -> None:
            seen.add(await sign(host))

        async with anyio.create_task_group() as group:
            for host in hosts:
                group.start_soon(look, host)
        return seen

    async def pings(self, host: int) -> bool:
        """Whether its kernel answers; -1 is the witness."""
        words = ["ping", "-c", "1", "-W", "1", "-q", netns.address_of(host)]
        return (await anyio.run_process(words, check=False)).returncode == 0

    async def greets(self, host: int) -> bool:
        """Whether its sshd says who it is, within a second."""
        with anyio.move_on_after(1):
            try:
                async with await anyio.connect_tcp(netns.address_of(host), 22) as stream:
                    return (await stream.receive()).startswith(b"SSH-2.0-OpenSSH")
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
                pass
        return False

    async def writes(self, host: int) -> bool:
        """Whether its heartbeat comes to the datastore; it is written every second."""
        file = self._leases / f"{self.cloud.hosts[host].name}.lease"
        before = file.read_bytes()
        for _ in range(50):
            await anyio.sleep(0.05)
            if file.read_bytes() != before:
                return True
        return False

    async def bmc_answers(self, host: int) -> bool:
        return await anyio.to_thread.run_sync(lambda: self.bmcs[host].answers(within_s=0.5))

    def processes(self, host: int) -> list[int]:
        return netns.processes_of(netns.namespace_of(host))

    def stands_still(self, host: int) -> bool:
        """Whether there are processes on it, and all are stopped."""
        states = [state_of(process) for process in self.processes(host)]
        return {*states} - {""} == {STOPPED}

    async def stops(self, host: int) -> None:
        """Wait until it stands still: its processes are stopped one after the other."""
        with anyio.fail_after(10):
            while not self.stands_still(host):
                await anyio.sleep(0.05)

    def ordered_off(self) -> list[int]:
        """The hosts whose BMCs were ordered to switch the power off, each once."""
        return [host for host, bmc in enumerate(self.bmcs) if "power 0" in bmc.orders()]

    def ordered_at(self, host: int) -> float:
        """The wall clock's time of the last order that its BMC took."""
        return (self.bmcs[host].folder / "orders").stat().st_mtime

    # --- the controller ---

    async def all_well(self) -> None:
        """Wait until every host is OK on every channel, and could be powered off."""
        with anyio.move_on_after(60):
            while unwell := await self._unwell():
                await anyio.sleep(0.1)
        assert not unwell, unwell

    async def _unwell(self) -> str:
        for row in await self.rows():
            if row["state"] != "ok" or row["incident"] is not None or not all(each["ready"] for each in row["fencing"]):
                return f"{row['name']}: {row['state']}, {row['note']}"
            evidence = "; ".join((await self.reads(f"hosts/{row['name']}/explain"))["evidence"])
            seen_s = re.findall(r"(icmp|ssh|oned|storage): [^;]* last good ([0-9.]+) s ago", evidence)
            if len(seen_s) < 4 or any(float(ago_s) > SEEN_WITHIN_S for _, ago_s in seen_s):
                return f"{row['name']}: {evidence}"
        status = await self.reads("status")
        return "" if len(await self.rows()) == len(self.all) else str(status)

    async def reads(self, what: str) -> Any:
        """Ask the controller's API."""
        connector = aiohttp.UnixConnector(str(self.controller.folder / "socket"))
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
            return await (await session.get(f"http://controller/api/v1/{what}")).json()

    async def rows(self) -> list[dict[str, Any]]:
        return sorted(await self.reads("hosts"), key=lambda row: int(row["id"]))

    async def states(self) -> list[str]:
        """Of all hosts, in their order."""
        return [row["state"] for row in await self.rows()]

    async def becomes(self, *states: str, within_s: float = 30.0) -> None:
        with anyio.fail_after(within_s):
            while await self.states() != [*states]:
                await anyio.sleep(0.1)

    async def shows(self, word: str, *command: str, within_s: float = 60.0) -> str:
        """What a command prints, as soon as a word is in it."""
        shown = ""
        with anyio.move_on_after(within_s):
            while word not in (shown := (await self.controller.cli(*command))[1]):
                await anyio.sleep(0.2)
        assert word in shown, shown
        return shown

    async def nobody_is_shot(self, within_s: float = CONDEMNED_WITHIN_S) -> None:
        """Look on until a dead host would long be powered off, counted from the last fault."""
        while anyio.current_time() < self._fault_at + within_s:
            assert self.ordered_off() == []
            await anyio.sleep(0.1)

    # --- the chassis ---

    def follow_chassis(self) -> None:
        """What was switched by the BMCs is what the pretended hardware knows: its VMs end with the power."""
        for host, bmc in enumerate(self.bmcs):
            done = bmc.folder / "done"
            switched = len(done.read_text().splitlines()) if done.exists() else 0
            while self._switched[host] < switched:
                self._switched[host] += 1
                self.cloud.hardware.ordered(host, False)


def state_of(process: int) -> str:
    """The letter of its state; empty if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@asynccontextmanager
async def lab(
    folder: Path, *, hosts: int = 4, racks: int = 2, fail_after_s: float = FAIL_AFTER_S, policy: str = ""
) -> AsyncIterator[Lab]:
    """Everything, well and watched. Hosts stand in racks by turns: 0 and 2 in the first of two."""
    with ExitStack() as stack:
        stack.enter_context(alone())
        cloud = EmbeddedCloud(hosts=hosts, vms_per_host=2, timings=_TIMINGS, namespaces=True, bmcs=False)
        cloud.bmc_user, cloud.bmc_password = OPERATOR.name, OPERATOR.password
        for host in cloud.hosts:
            cloud.oned.hosts[host.id].attributes["HA_RACK"] = f"r{host.id % racks + 1}"
        async with cloud:
            farm = IpmiSimFarm(folder)
            stack.callback(farm.stop)
            places = [(host.bmc_address, cloud.bmc_port) for host in cloud.hosts]
            bmcs = farm.start_at({place: _power_supply(folder, number) for number, place in enumerate(places)})
            leases = folder / "leases"
            leases.mkdir()
            units = [HeartbeatUnit(folder, leases, host.id, host.name) for host in cloud.hosts]
            for unit in units:
                stack.callback(unit.stop)
            _configure(folder, cloud, leases, fail_after_s, policy)
            controller = Served(folder)
            made = Lab(controller, cloud, bmcs, leases, units)
            stack.enter_context(_followed(made))
            await controller.start()
            try:
                await controller.ready()
                await made.all_well()
                yield made
            finally:
                if controller.process is not None and controller.process.returncode is None:
                    await controller.kill()


def _power_supply(folder: Path, host: int) -> Path:
    script = folder / f"power-supply-{host}"
    script.write_text(_POWER_SUPPLY.format(namespace=netns.namespace_of(host), done=folder / f"bmc{host}" / "done"))
    script.chmod(0o755)
    return script


class HeartbeatUnit:
    """The heartbeat unit of a host, which sees a boot id of its own."""

    def __init__(self, folder: Path, leases: Path, host: int, name: str) -> None:
        self._boot = folder / f"boot-id-{host}"
        self._command = [
            *("ip", "netns", "exec", netns.namespace_of(host)),  # with mounts of its own
            *("sh", "-c", f'mount --bind {self._boot} /proc/sys/kernel/random/boot_id && exec "$@"', "sh"),
            *(sys.executable, "-I", str(heartbeat_unit.__file__), "--folder", str(leases), "--name", name),
            *("--device", "none", "--local"),
        ]
        self._start()

    def _start(self) -> None:
        self._boot.write_text(f"{uuid.uuid4()}\n")
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdin=nothing, stdout=nothing, stderr=nothing)

    def send_signal(self, what: signal.Signals) -> None:
        self._process.send_signal(what)

    def reboot(self) -> None:
        """End it, and start it in another boot."""
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextmanager
def _followed(made: Lab) -> Iterator[None]:
    """The pretended hardware follows the chassis for as long as this lasts."""
    ended = False

    def follow() -> None:
        if not ended:
            made.follow_chassis()
            asyncio.get_running_loop().call_later(FOLLOW_EVERY_S, follow)

    follow()
    try:
        yield
    finally:
        ended = True


def _configure(folder: Path, cloud: EmbeddedCloud, leases: Path, fail_after_s: float, policy: str) -> None:
    demo_config(folder, cloud)
    hung_after_s = max(HUNG_AFTER_S, fail_after_s)  # shorter than fail_after is refused
    path = folder / "config.toml"
    text = path.read_text()
    edits = {
        '"oned"]': f'"oned", "storage"]\nfail_after = "{fail_after_s:g}s"\nhung_after = "{hung_after_s:g}s"',
        "single_domain_after": "# single_domain_after",
        'poll = "2s"': 'poll = "1s"',
        'max_failed_hosts = "34%"': 'max_failed_hosts = "50%"\nstorm_cooldown = "15s"',
    }
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    channels = (
        f'\n[channel.oned]\nsilent_after = "{_OPENNEBULA_SILENT_AFTER_S:g}s"\n'
        f'[channel.storage]\nfolder = "{leases}"\nsilent_after = "{SILENT_AFTER_S:g}s"\n'
    )
    path.write_text(f"{text}{channels}[policy]\n{policy}\n")
