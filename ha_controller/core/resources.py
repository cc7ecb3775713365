"""What hosts have and VMs ask for beside CPU and memory: PCI devices, NUMA nodes, huge pages; and groups of VMs.

Plain frozen values in OpenNebula's own units. How they are matched is told in `placement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, kw_only=True, slots=True)
class PciDevice:
    """A PCI device of a host that no VM has."""

    address: str  #: OpenNebula takes the first that fits, in the order of their addresses
    short_address: str = ""
    vendor: int = 0
    device: int = 0
    kind: int = 0  #: CLASS
    profiles: tuple[str, ...] = ()  #: of virtual GPUs; empty: not told


@dataclass(frozen=True, kw_only=True, slots=True)
class PciRequest:
    """A PCI device that a VM needs: a certain one, or any of this vendor, device and class."""

    short_address: str = ""  #: used only when none of the three is given: a moved VM keeps its former address here
    vendor: int | None = None
    device: int | None = None
    kind: int | None = None
    profile: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Core:
    """A physical core."""

    free: int  #: threads that can be given away; several to one hardware thread if the host shares them
    idle: bool  #: no VM is pinned to it, and not all of it is reserved


@dataclass(frozen=True, kw_only=True, slots=True)
class HugePages:
    """Huge pages of one size on one node."""

    size_kb: int
    free: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NumaNode:
    """A NUMA node of a host."""

    id: int
    cores: tuple[Core, ...] = ()
    threads_per_core: int = 1
    free_memory_kb: int = 0
    pages: tuple[HugePages, ...] = ()
    nearest: tuple[int, ...] = ()  #: ids of nodes by distance, itself first


@dataclass(frozen=True, kw_only=True, slots=True)
class NumaRequest:
    """A topology that is tied to the nodes of a host. A VM that is neither pinned nor tied otherwise has none."""

    nodes: tuple[tuple[int, int], ...]  #: (CPUs, memory in KB) of each virtual node
    dedicated: bool = False  #: PIN_POLICY=CORE: a core for each virtual CPU
    pinned: bool = False
    threads: int = 0  #: threads for each core that the VM insists on; 0: any
    page_kb: int = 0  #: 0: no huge pages
    node: int | None = None  #: NODE_AFFINITY: all of it on this node

    @property
    def memory_kb(self) -> int:
        """Of all virtual nodes."""
        return sum(memory_kb for _, memory_kb in self.nodes)


class ReadyBy(StrEnum):
    """What shows that a VM that runs is ready."""

    TCP = "tcp"  #: a port of its answers
    AGENT = "agent"  #: its guest agent answers


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyGate:
    """HA_READY of a VM: what is asked until it answers."""

    by: ReadyBy
    port: int = 0  #: of TCP
    address: str = ""  #: of TCP; empty: OpenNebula knows no address of the VM

    def __str__(self) -> str:
        """For people: "port 5432 of 192.0.2.7"."""
        if self.by is ReadyBy.AGENT:
            return "guest agent"
        return f"port {self.port}{f' of {self.address}' if self.address else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Startup:
    """What is written on a VM about the order in which it starts."""

    priority: int | None = None  #: HA_PRIORITY, higher ones first; None: nothing, or no number
    after: tuple[
        str, ...
    ] = ()  #: HA_AFTER: ids, names, "group:NAME", "group:NAME/ROLE", "service:ID/ROLE", "role:ROLE"
    ready_delay_s: float | None = None  #: HA_READY_DELAY: ready so long after it was seen RUNNING
    ready: ReadyGate | None = None  #: HA_READY; None: seen RUNNING is enough
    service: int | None = None  #: the OneFlow service that it belongs to
    role: str = ""  #: and its role there
    wrong: tuple[str, ...] = ()  #: what of it cannot be read, in words


NOTHING_WRITTEN = Startup()


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A role of a group of VMs."""

    name: str
    vms: tuple[int, ...] = ()
    policy: str = ""  #: "AFFINED", "ANTI_AFFINED" or empty, among the VMs of the role
    hosts: tuple[int, ...] = ()  #: HOST_AFFINED: on these hosts only
    not_hosts: tuple[int, ...] = ()  #: HOST_ANTI_AFFINED


@dataclass(frozen=True, kw_only=True, slots=True)
class VmGroup:
    """A VM group of OpenNebula."""

    id: int
    name: str
    roles: tuple[Role, ...]
    affined: tuple[tuple[str, ...], ...] = ()  #: roles whose VMs share a host
    anti_affined: tuple[tuple[str, ...], ...] = ()  #: roles whose VMs share no host
