"""The pretended hardware: the truth about power, networks and VM processes, and a log of it that is only added to.

A VM process runs if it was started on a machine and the machine has had power since. OpenNebula and the controller only
know what they are told; the checker knows this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """How a machine breaks."""

    POWER_LOSS = "power-loss"  #: the chassis is off, its BMC lives on standby power
    CORD_PULLED = "cord-pulled"  #: chassis and BMC are without power
    HANG = "hang"  #: kernel and userland are mute, the power is on, the disks are still held
    FREEZE = "freeze"  #: every process stands still, the kernel still answers pings
    PARTITION = "partition"  #: alive, its VMs write on, nobody reaches it
    BMC_DEAD = "bmc-dead"  #: the BMC died before; now the chassis loses its power


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One line of the truth."""

    at: float
    machine: int
    what: str  #: "fault ...", "healed", "power off", "power on", "ordered off", "ordered on", "vm start", "vm stop"
    vm: int | None = None


@dataclass(kw_only=True)
class Machine:
    """One physical host."""

    id: int
    powered: bool = True
    mute: bool = False  #: kernel and userland answer nothing
    frozen: bool = False  #: userland answers nothing
    cut_off: bool = False  #: alive, unreachable
    bmc_dead: bool = False
    bmc_stuck: bool = False  #: acknowledges and does nothing
    bmc_stale: str = ""  #: "off" or "on": what it says whatever is true
    broken: bool = False  #: a fault has hit it
    boots: int = 1
    vms: set[int] = field(default_factory=set)
    refuses: set[int] = field(default_factory=set)  #: VMs that do not start here


class Hardware:
    """All machines."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds; only differences matter."""
        self.log: list[Happening] = []
        self.machines: dict[int, Machine] = {}
        self.watchers: list[Callable[[int], None]] = []  #: told of every machine whose hardware changed
        self._clock = clock

    def add(self, machine: int) -> Machine:
        """Put up a healthy machine."""
        return self.machines.setdefault(machine, Machine(id=machine))

    def kernel_answers(self, machine: int) -> bool:
        """Whether anything on the machine can be reached over the network."""
        known = self.machines[machine]
        return known.powered and not known.mute and not known.cut_off

    def answers(self, machine: int) -> bool:
        """Whether its programs can be reached over the network."""
        return self.kernel_answers(machine) and not self.machines[machine].frozen

    def heard(self, machine: int) -> bool:
        """Whether what its programs send by themselves arrives."""
        return self.answers(machine)

    def power(self, machine: int, on: bool) -> None:
        """Change the power for real. Without power every VM process of the machine is gone."""
        known = self.machines[machine]
        if known.powered is on:
            return
        known.powered = on
        known.mute = known.frozen = False
        known.boots += on
        self._note(machine, "power on" if on else "power off")
        if not on:
            for vm in sorted(known.vms):
                self.stop_vm(machine, vm)
        self._changed(machine)

    def reboot(self, machine: int) -> None:
        """The machine reboots by itself, faster than anybody can see; its VM processes are gone."""
        known = self.machines[machine]
        self._note(machine, "reboot")
        for vm in sorted(known.vms):
            self.stop_vm(machine, vm)
        known.boots += 1
        self._changed(machine)

    def start_vm(self, machine: int, vm: int) -> bool:
        """Start a VM process; False when the machine cannot."""
        if not self.answers(machine) or vm in self.machines[machine].refuses:
            return False
        self.machines[machine].vms.add(vm)
        self._note(machine, "vm start", vm)
        return True

    def stop_vm(self, machine: int, vm: int) -> None:
        """End a VM process."""
        if vm in self.machines[machine].vms:
            self.machines[machine].vms.discard(vm)
            self._note(machine, "vm stop", vm)

    def break_machine(self, machine: int, fault: Fault) -> None:
        """Let a fault hit a machine."""
        known = self.machines[machine]
        known.broken = True
        self._note(machine, f"fault {fault.value}")
        match fault:
            case Fault.POWER_LOSS:
                self.power(machine, False)
            case Fault.CORD_PULLED | Fault.BMC_DEAD:
                known.bmc_dead = True
                self.power(machine, False)
            case Fault.HANG:
                known.mute = True
            case Fault.FREEZE:
                known.frozen = True
            case Fault.PARTITION:
                known.cut_off = True
        self._changed(machine)

    def heal(self, machine: int) -> None:
        """What does not need power or another BMC is as before: the machine goes on where it stood."""
        known = self.machines[machine]
        known.mute = known.frozen = known.cut_off = False
        self._note(machine, "healed")
        self._changed(machine)

    def ordered(self, machine: int, on: bool) -> None:
        """An order reached the machine's BMC."""
        self._note(machine, "ordered on" if on else "ordered off")
        if not self.machines[machine].bmc_stuck:
            self.power(machine, on)

    def _changed(self, machine: int) -> None:
        for watcher in self.watchers:
            watcher(machine)

    def _note(self, machine: int, what: str, vm: int | None = None) -> None:
        self.log.append(Happening(at=self._clock(), machine=machine, what=what, vm=vm))


@dataclass
class MachineChassis:
    """What a BMC sees of its machine."""

    hardware: Hardware
    machine: int

    @property
    def bmc_answers(self) -> bool:
        """Whether the BMC lives."""
        return not self.hardware.machines[self.machine].bmc_dead

    def power_is_on(self) -> bool:
        """What the BMC says, which may be a lie."""
        known = self.hardware.machines[self.machine]
        return known.powered if not known.bmc_stale else known.bmc_stale == "on"

    def order_power(self, on: bool) -> None:
        """Chassis control."""
        self.hardware.ordered(self.machine, on)
