"""A cloud of real processes: living hosts, real BMCs, and the embedded OpenNebula, whose driver starts real VMs.

It lives in namespaces of its own (see `campaign`), so that several can run beside each other and nothing is left over.
The truth is what runs, what the power supplies have done, and what the VMs have written; OpenNebula's model follows it.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from ha_controller.sim import netns
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault, Hardware
from ha_controller.sim.netns import NetnsNetwork
from ha_controller.sim.oned_model import BOOT, DONE, History, OnedVm, Timings
from tests.chaos.disks import Disks
from tests.chaos.host import LivingHost
from tests.peers.ipmi_sim import OPERATOR, IpmiSim, IpmiSimFarm
from tests.peers.ipmi_sim import Fault as BmcFault

FOLLOW_EVERY_S = 0.05
LOOK_AT_DISKS_EVERY_S = 0.25
#: OpenNebula is made fast: its silence counts as early as the others', and it finds hosts that are back.
TIMINGS = Timings(
    ssh_timeout_s=0.5, boot_s=0.2, monitor_host_s=1.0, monitoring_interval_s=8.0, manager_timer_s=1.0, scheduler_s=5.0
)


class LivingHardware(Hardware):
    """Hardware whose VMs are processes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """No host is up yet; what is started before that starts with its host."""
        super().__init__(clock)
        self.hosts: dict[int, LivingHost] = {}
        self.disks: Path | None = None

    def start_vm(self, machine: int, vm: int) -> bool:
        """Start the process; False when that cannot be."""
        host = self.hosts.get(machine)
        if host is None:
            return super().start_vm(machine, vm)
        assert self.disks is not None
        return self.answers(machine) and host.start_vm(vm, self.disks) and super().start_vm(machine, vm)

    def stop_vm(self, machine: int, vm: int) -> None:
        """End the process."""
        if machine in self.hosts:
            self.hosts[machine].stop_vm(vm)
        super().stop_vm(machine, vm)

    def follow(self, machine: int) -> None:
        """VMs whose process has ended run no more, whoever ended it."""
        for vm in sorted(self.machines[machine].vms - self.hosts[machine].running()):
            super().stop_vm(machine, vm)


class LivingNetwork:
    """Namespaces for the hosts and for the witness; ends with the namespaces that all of this lives in."""

    def __init__(self, hardware: LivingHardware, names: dict[int, str], folder: Path) -> None:
        """Nothing is made yet."""
        self._hardware, self._names, self._folder = hardware, names, folder

    async def start(self) -> None:
        """Make everything, boot every host and start its VMs."""
        leases, key = self._folder / "leases", self._folder / "host-key"
        leases.mkdir()
        Path("/run/sshd").mkdir(exist_ok=True)
        netns._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        for number in (-1, *self._names):
            NetnsNetwork._wire(number)
        for number, name in self._names.items():
            place = self._folder / f"host-{number}"
            host = LivingHost(number=number, name=name, folder=place, leases=leases, host_key=key)
            self._hardware.hosts[number] = host
            host.switch("1")
        assert self._hardware.disks is not None
        for number, host in self._hardware.hosts.items():
            with anyio.fail_after(netns.SSHD_STARTS_MAX_S):
                await netns._banner(netns.address_of(number))
            for vm in sorted(self._hardware.machines[number].vms):
                host.start_vm(vm, self._hardware.disks)

    def close(self) -> None:
        """Cut the power."""
        for host in self._hardware.hosts.values():
            host.signal_all(signal.SIGKILL)


class LivingCloud(EmbeddedCloud):
    """The embedded cloud with everything real but OpenNebula."""

    def __init__(self, folder: Path, *, hosts: int, vms_per_host: int, timings: Timings = TIMINGS) -> None:
        """Nothing is started yet."""
        self.folder = folder
        datastore = folder / "datastore"
        datastore.mkdir()
        self.disks = Disks(datastore)
        super().__init__(
            hosts=hosts,
            vms_per_host=vms_per_host,
            timings=timings,
            namespaces=True,
            bmcs=False,
            hardware=LivingHardware,
        )
        for vm in self.oned.vms:
            self.disks.add(vm)
        self.bmc_user, self.bmc_password = OPERATOR.name, OPERATOR.password
        self.bmcs: list[IpmiSim] = []
        self.doomed: set[int] = set()  #: hosts that are as good as dead: whose power may be cut
        self.shots: list[int] = []  #: every power-off that reached a BMC, of any host
        self.innocent: list[str] = []  #: those that reached the BMC of a host that was well
        self.lost_answers = 0  #: calls to OpenNebula whose answers will be lost
        self._farm = IpmiSimFarm(folder)
        self._orders_seen = [0] * hosts
        self._supplies_seen = [0] * hosts

    def _hosts_network(self) -> LivingNetwork:  # type: ignore[override]
        assert isinstance(self.hardware, LivingHardware)
        self.hardware.disks = self.disks.folder
        return LivingNetwork(self.hardware, {host.id: host.name for host in self.hosts}, self.folder)

    @property
    def living(self) -> dict[int, LivingHost]:
        """The hosts."""
        assert isinstance(self.hardware, LivingHardware)
        return self.hardware.hosts

    @contextmanager
    def running(self) -> Iterator[None]:
        """BMCs are there, and what really happens is followed; the hosts must be up."""
        places = {(host.bmc_address, self.bmc_port): self.living[host.id].power_supply for host in self.hosts}
        self.bmcs = self._farm.start_at(places)
        self._supplies_seen = [len(self.living[host.id].done()) for host in self.hosts]
        self.server.answer = self._answer(self.server.answer)  # type: ignore[method-assign]
        ended = False

        def again(what: Callable[[], None], every_s: float) -> None:
            if not ended:
                what()
                asyncio.get_running_loop().call_later(every_s, again, what, every_s)

        again(self.follow, FOLLOW_EVERY_S)
        again(self.disks.look, LOOK_AT_DISKS_EVERY_S)
        try:
            yield
        finally:
            ended = True
            self._farm.stop()

    def follow(self) -> None:
        """What BMCs were ordered, and what power supplies did, is what the pretended hardware knows."""
        assert isinstance(self.hardware, LivingHardware)
        for number, bmc in enumerate(self.bmcs):
            orders, done = bmc.orders(), self.living[number].done()
            for order in orders[self._orders_seen[number] :]:
                if order == "power 0":
                    self.shots.append(number)
                    if number not in self.doomed:
                        self.innocent.append(f"{self.hosts[number].name} was well and was ordered off")
            for what in done[self._supplies_seen[number] :]:
                match what:
                    case "off":
                        self.hardware.power(number, False)
                    case "on":
                        self.hardware.power(number, True)
                        self.doomed.discard(number)
                    case "reboot":
                        self.hardware.reboot(number)
            self._orders_seen[number], self._supplies_seen[number] = len(orders), len(done)
            self.hardware.follow(number)

    def _answer(self, answer: Callable[[bytes], str]) -> Callable[[bytes], str]:
        """As before, but some answers are lost after the call was carried out."""

        def maybe_lost(body: bytes) -> str:
            text = answer(body)
            if self.lost_answers and b"one.vm.migrate" in body:
                self.lost_answers -= 1
                raise ConnectionResetError
            return text

        return maybe_lost

    def oned_now(self) -> float:
        """The time on OpenNebula's clock."""
        return self._clock()

    @property
    def vms(self) -> list[int]:
        """Those that should run."""
        return sorted(vm.id for vm in self.oned.vms.values() if not vm.is_done())

    def replace_vm(self, old: int) -> None:
        """A user terminates it and makes another one, which starts on the emptiest host."""
        gone = self.oned.vms[old]
        self.hardware.stop_vm(gone.host, old)
        gone.become(DONE)
        host = min(self.hardware.machines.values(), key=lambda machine: (len(machine.vms), machine.id)).id
        number = max(self.oned.vms) + 1
        record = History(seq=0, host=host, started_at=self._clock())
        self.oned.vms[number] = OnedVm(id=number, name=f"vm-{number:03}", history=[record])
        self.disks.add(number)
        self.hardware.start_vm(host, number)

    # --- what kills a host ---

    def lose_power(self, host: int) -> None:
        """By nobody's order; the BMC lives on standby."""
        self.doomed.add(host)
        self.bmcs[host].set_power(False)
        self.living[host].switch("0")

    def crash(self, host: int) -> None:
        """The kernel is gone, and with it every process; the power is on."""
        self.hang(host)
        self.living[host].signal_all(signal.SIGKILL)

    def hang(self, host: int) -> None:
        """All of it stands still, its kernel included; its VMs still hold their disks."""
        self.doomed.add(host)
        self.hardware.break_machine(host, Fault.HANG)
        self.living[host].link(False)
        self.living[host].signal_all(signal.SIGSTOP)

    def freeze(self, host: int) -> None:
        """Every process of it stands still, its kernel answers."""
        self.doomed.add(host)
        self.hardware.break_machine(host, Fault.FREEZE)
        self.living[host].signal_all(signal.SIGSTOP)

    def sever(self, host: int) -> None:
        """Nobody reaches it and its heartbeat reaches nobody, but its VMs write on: what fencing is for."""
        self.doomed.add(host)
        self.hardware.break_machine(host, Fault.PARTITION)
        self.living[host].lose(requests=True, answers=True)
        self.living[host].stall_storage()

    def mend(self, host: int) -> None:
        """The network of a host is repaired. What else befell it ends with its power."""
        if self.hardware.machines[host].cut_off:
            self.hardware.heal(host)
        self.living[host].lose(requests=False, answers=False)

    def press_power_button(self, host: int) -> None:
        """Switch it on."""
        self.bmcs[host].set_power(True)
        self.living[host].switch("1")

    # --- what a host outlives ---

    async def stand_still(self, host: int, seconds: float) -> None:
        """A host freezes and thaws."""
        self.hardware.break_machine(host, Fault.FREEZE)
        self.living[host].signal_all(signal.SIGSTOP)
        await anyio.sleep(seconds)
        self.hardware.heal(host)
        self.living[host].signal_all(signal.SIGCONT)

    async def restart_oned(self, seconds: float, *, lose: int, finish: bool) -> None:
        """Its drivers' work is forgotten. `finish`: VMs that were being started do start, unheard of."""
        port = int(self.endpoint.rpartition(":")[2].partition("/")[0])
        self.lost_answers = lose
        while self.lost_answers and seconds > 0:  # until a call was carried out whose answer nobody gets
            await anyio.sleep(FOLLOW_EVERY_S)
            seconds -= FOLLOW_EVERY_S
        self.lost_answers = 0
        self.server.close()
        if finish:
            for vm in [vm for vm in self.oned.vms.values() if vm.lcm_state == BOOT]:
                self.hardware.start_vm(vm.host, vm.id)
        self.oned.lifecycle.forget_drivers()
        await anyio.sleep(max(seconds, 0.5))
        await self.server.start("127.0.0.1", port)

    async def break_bmc(self, host: int, seconds: float, *, thaw: bool) -> None:
        """It answers nothing. `thaw`: then it reads all that was sent to it meanwhile, else it boots anew."""
        bmc = self.bmcs[host]
        bmc.freeze()
        await anyio.sleep(seconds)
        assert bmc.process is not None
        if thaw:
            bmc.process.send_signal(signal.SIGCONT)
        else:
            await anyio.to_thread.run_sync(bmc.restart)

    async def stick_bmc(self, host: int, seconds: float) -> None:
        """It acknowledges power-offs and ignores them."""
        self.bmcs[host].break_with(BmcFault.STUCK)
        await anyio.sleep(seconds)
        self.bmcs[host].repair(BmcFault.STUCK)


def small_disk(folder: Path, megabytes: int) -> None:
    """A disk of its own for a folder; it goes with the namespace of mounts."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "chaos", folder], check=True, timeout=10
    )


async def fill_disk(folder: Path, seconds: float) -> None:
    """No byte is free there for some time."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 12, 1 << 9):
            try:
                while True:
                    file.write(bytes(piece))
            except OSError:
                continue
    full = shutil.disk_usage(folder).free == 0
    await anyio.sleep(seconds)
    ballast.unlink()
    assert full, "the disk was not full"
