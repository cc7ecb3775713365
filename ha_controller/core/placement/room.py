"""What is left of a host while a plan is made."""

from __future__ import annotations

from ha_controller.core.model import Host, Vm
from ha_controller.core.placement.devices import without_devices, without_topology
from ha_controller.core.placement.expression import Expression
from ha_controller.core.placement.values import Rule


class Room:
    """What VMs may still take of one host. Changed while planning, never kept."""

    __slots__ = ("_guests", "_numa", "_pci", "_vms", "cpu", "host", "memory_mb", "watchers")

    def __init__(self, host: Host) -> None:
        """As OpenNebula shows it."""
        self.host = host
        self.cpu, self.memory_mb = host.free_cpu, host.free_memory_mb
        self._vms: set[int] | None = None
        self.watchers: dict[int, tuple[Expression, ...]] = {}  #: guests whose requirements look at the VMs here
        self._pci, self._numa = host.pci, host.numa
        self._guests: list[Vm] = []  #: those who took devices or nodes

    @property
    def vms(self) -> set[int]:
        """The VMs that are there, or will be. Made when first asked for: most plans never look at most hosts' VMs."""
        if self._vms is None:
            self._vms = set(self.host.vms)
        return self._vms

    def lacks(self, vm: Vm) -> Rule | None:
        """What is missing for a VM."""
        if vm.cpu > self.cpu:
            return Rule.CPU
        if vm.memory_mb > self.memory_mb:
            return Rule.MEMORY
        if vm.pci and without_devices(self._pci, vm.pci) is None:
            return Rule.PCI
        if vm.numa is not None and without_topology(self._numa, vm.numa) is None:
            return Rule.NUMA
        return None

    def take(self, vm: Vm) -> None:
        """Take a VM in; it need not fit: one that is under way comes anyway."""
        self.cpu -= vm.cpu
        self.memory_mb -= vm.memory_mb
        self.vms.add(vm.id)
        if vm.pci or vm.numa is not None:
            self._guests.append(vm)
            self._seat(vm)

    def release(self, vm: Vm) -> None:
        """Undo `take`."""
        self.cpu += vm.cpu
        self.memory_mb += vm.memory_mb
        self.vms.discard(vm.id)
        if vm.pci or vm.numa is not None:
            self._guests.remove(vm)
            self._pci, self._numa = self.host.pci, self.host.numa
            for guest in self._guests:
                self._seat(guest)

    def _seat(self, vm: Vm) -> None:
        devices = without_devices(self._pci, vm.pci)
        self._pci = () if devices is None else devices
        if vm.numa is not None:
            nodes = without_topology(self._numa, vm.numa)
            self._numa = () if nodes is None else nodes
