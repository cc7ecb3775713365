"""PCI devices and NUMA nodes in OpenNebula's documents: what is free on a host, what a VM asks for.

Attribute names and units: include/HostSharePCI.h, HostShareNUMA.h and VirtualMachine.cc of OpenNebula 7.x.
"""

from __future__ import annotations

import re

from ha_controller.adapters.opennebula.reader import Fields
from ha_controller.core.resources import Core, HugePages, NumaNode, NumaRequest, PciDevice, PciRequest

_NOWHERE = 2**31 - 1  #: a wish that cannot be read: no host has such a node or page
_NEVER = -1  #: a number that cannot be read suits no device
_PINNED = frozenset({"CORE", "THREAD", "SHARED"})
RESERVED = -2


def free_devices(share: Fields) -> tuple[PciDevice, ...]:
    """The PCI devices of a host that no VM has, by address, as OpenNebula itself goes through them."""
    found = [
        PciDevice(
            address=device.line("ADDRESS"),
            short_address=device.line("SHORT_ADDRESS"),
            vendor=_hex(device.text("VENDOR")) or 0,
            device=_hex(device.text("DEVICE")) or 0,
            kind=_hex(device.text("CLASS")) or 0,
            profiles=tuple(re.findall(r"(?:^|,)\s*([^\s,(]+)", device.line("PROFILES"))),
        )
        for device in share.below("PCI_DEVICES").every("PCI")
        if device.integer("VMID", -1) < 0
    ]
    return tuple(sorted(found, key=lambda device: device.address))


def asked_devices(template: Fields) -> tuple[PciRequest, ...]:
    """The PCI devices that a VM asks for."""
    return tuple(
        PciRequest(
            short_address=device.line("SHORT_ADDRESS"),
            vendor=_hex(device.text("VENDOR")),
            device=_hex(device.text("DEVICE")),
            kind=_hex(device.text("CLASS")),
            profile=device.line("PROFILE"),
        )
        for device in template.every("PCI")
    )


def _hex(text: str) -> int | None:
    if not text:
        return None
    return int(text, 16) if re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,8}", text) else _NEVER


def numa_nodes(share: Fields, *, pinned: bool) -> tuple[NumaNode, ...]:
    """The NUMA nodes of a host. Cores are read of hosts for pinned VMs only: there are many, and no other VM asks."""
    return tuple(_node(node, pinned) for node in share.below("NUMA_NODES").every("NODE", "NODE_ID", "MEMORY"))


def _node(node: Fields, pinned: bool) -> NumaNode:
    memory = node.below("MEMORY")
    cores = node.every("CORE") if pinned else []
    return NumaNode(
        id=node.integer("NODE_ID", -1),
        cores=tuple(_core(core) for core in cores),
        threads_per_core=max(1, len({cpu for cpu, _ in _cpus(cores[0])})) if cores else 1,
        free_memory_kb=memory.integer("TOTAL", 0) - memory.integer("USAGE", 0),
        pages=tuple(
            HugePages(size_kb=pages.integer("SIZE", 0), free=pages.integer("PAGES", 0) - pages.integer("USAGE", 0))
            for pages in node.every("HUGEPAGE")
        ),
        nearest=tuple(int(number) for number in re.findall(r"\d{1,6}", memory.text("DISTANCE"))),
    )


def _core(core: Fields) -> Core:
    cpus = _cpus(core)
    dedicated = core.text("DEDICATED").upper() in ("YES", "1", "TRUE")
    reserved = {cpu for cpu, vm in cpus if vm == RESERVED}
    used = dedicated or any(vm >= 0 for _, vm in cpus)
    return Core(
        free=0 if dedicated else core.integer("FREE", 0),
        idle=not used and len(reserved) < len({cpu for cpu, _ in cpus}),
    )


def _cpus(core: Fields) -> list[tuple[int, int]]:
    """(CPU, VM) of each thread; -1: nobody has it, -2: reserved."""
    found = re.findall(r"(\d{1,6})(?::(-?\d{1,9}))?", core.text("CPUS"))
    return [(int(cpu), int(vm or "-1")) for cpu, vm in found]


def asked_topology(template: Fields) -> NumaRequest | None:
    """The NUMA topology of a VM, if it is tied to the nodes of a host: pinned, with huge pages, or to a node."""
    topology = template.below("TOPOLOGY")
    policy = topology.text("PIN_POLICY").upper()
    page_mb = topology.wished("HUGEPAGE_SIZE", 0, _NOWHERE)
    node = topology.wished("NODE_AFFINITY", -1, _NOWHERE)
    nodes = tuple((each.integer("TOTAL_CPUS", 0), each.integer("MEMORY", 0)) for each in template.every("NUMA_NODE"))
    if not nodes or not (policy in _PINNED or page_mb or node >= 0):
        return None
    return NumaRequest(
        nodes=nodes,
        dedicated=policy == "CORE",
        pinned=policy in _PINNED,
        threads=topology.wished("THREADS", 0, _NOWHERE),
        page_kb=page_mb * 1024,
        node=node if node >= 0 else None,
    )
