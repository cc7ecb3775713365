"""Whether PCI devices and NUMA nodes suffice, and what is left of them: as OpenNebula itself would give them away.

It gives them away greedily (src/host/HostSharePCI.cc and HostShareNUMA.cc of 7.x) and refuses a migrate when that
fails, so a cleverer assignment would be of no use. Each function returns what is left, or None if it does not suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ha_controller.core.resources import Core, HugePages, NumaNode, NumaRequest, PciDevice, PciRequest


def without_devices(free: tuple[PciDevice, ...], requests: Sequence[PciRequest]) -> tuple[PciDevice, ...] | None:
    """The PCI devices that are left: first the certain ones are taken, then the first of each kind."""
    left = list(free)
    by_kind = [each for each in requests if not _names_one(each)]
    for request in [*(each for each in requests if _names_one(each)), *by_kind]:
        found = next((device for device in left if _suits(device, request)), None)
        if found is None:
            return None
        left.remove(found)
    return tuple(left)


def _names_one(request: PciRequest) -> bool:
    return bool(request.short_address) and (request.vendor, request.device, request.kind) == (None, None, None)


def _suits(device: PciDevice, request: PciRequest) -> bool:
    if request.profile and device.profiles and request.profile not in device.profiles:
        return False
    if _names_one(request):
        return device.short_address == request.short_address
    wanted = ((request.vendor, device.vendor), (request.device, device.device), (request.kind, device.kind))
    asked = [(want, have) for want, have in wanted if want is not None]
    return bool(asked) and all(want == have for want, have in asked)


# --- NUMA -------------------------------------------------------------------------------------------------------------


def without_topology(nodes: tuple[NumaNode, ...], request: NumaRequest) -> tuple[NumaNode, ...] | None:
    """The NUMA nodes after a topology was given its cores, memory and huge pages."""
    if request.node is not None:
        return _on_one_node([node for node in nodes if node.id == request.node], nodes, request)
    if not request.pinned:
        return _on_one_node(nodes, nodes, request)
    for threads in _threads(nodes, request):
        left: tuple[NumaNode, ...] | None = nodes
        for cpus, memory_kb in request.nodes:
            left = None if left is None else _without_node(left, cpus, memory_kb, threads, request)
        if left is not None:
            return left
    return None


def _on_one_node(
    suitable: Sequence[NumaNode], nodes: tuple[NumaNode, ...], request: NumaRequest
) -> tuple[NumaNode, ...] | None:
    """Memory and pages of one node, the one with the most free pages; the cores are shared."""
    enough = [node for node in suitable if _has_memory(node, request.memory_kb, request.page_kb)]
    if not enough:
        return None
    best = max(enough, key=lambda node: (_free_pages(node, request.page_kb), -node.id))
    after = _without_memory(best, request.memory_kb, request.page_kb)
    return tuple(after if node is best else node for node in nodes)


def _threads(nodes: tuple[NumaNode, ...], request: NumaRequest) -> list[int]:
    """How many threads of a core the VM may have, the most first: powers of 2 by which each virtual node can be cut."""
    if request.dedicated or not nodes:
        return [1]
    per_core = nodes[0].threads_per_core
    most = min(request.threads or per_core, per_core)
    powers = [1 << power for power in range(most.bit_length())]
    valid = [count for count in reversed(powers) if all(cpus % count == 0 for cpus, _ in request.nodes)]
    return [count for count in valid if not request.threads or count == request.threads]


def _without_node(
    nodes: tuple[NumaNode, ...], cpus: int, memory_kb: int, threads: int, request: NumaRequest
) -> tuple[NumaNode, ...] | None:
    """Cores from the emptiest node that has enough, memory from a node as near as possible."""
    by_id = {node.id: node for node in nodes}
    groups = {node.id: _core_groups(node, threads, request.dedicated) for node in nodes}
    have_cores = sorted(
        (node for node in nodes if groups[node.id] * threads >= cpus), key=lambda node: (-groups[node.id], -node.id)
    )
    have_memory = {node.id for node in nodes if _has_memory(node, memory_kb, request.page_kb)}
    for hop in range(len(nodes)):
        for node in have_cores:
            near = node.nearest or (node.id, *(other for other in sorted(by_id) if other != node.id))
            if hop < len(near) and near[hop] in have_memory:
                by_id[node.id] = _without_cores(node, cpus, threads, dedicated=request.dedicated)
                by_id[near[hop]] = _without_memory(by_id[near[hop]], memory_kb, request.page_kb)
                return tuple(by_id[each.id] for each in nodes)
    return None


def _core_groups(node: NumaNode, threads: int, dedicated: bool) -> int:
    return sum(core.idle if dedicated else core.free // threads for core in node.cores)


def _without_cores(node: NumaNode, cpus: int, threads: int, *, dedicated: bool) -> NumaNode:
    cores = []
    for core in node.cores:
        if dedicated:
            taken = 1 if core.idle and cpus else 0
            cores.append(Core(free=0, idle=False) if taken else core)
        else:
            taken = min(cpus, core.free // threads * threads)
            cores.append(Core(free=core.free - taken, idle=False) if taken else core)
        cpus -= taken
    return replace(node, cores=tuple(cores))


def _free_pages(node: NumaNode, page_kb: int) -> int:
    return next((pages.free for pages in node.pages if pages.size_kb == page_kb), 0)


def _has_memory(node: NumaNode, memory_kb: int, page_kb: int) -> bool:
    if node.free_memory_kb < memory_kb:
        return False
    free = _free_pages(node, page_kb)
    return not page_kb or (free > 0 and free >= memory_kb // page_kb)


def _without_memory(node: NumaNode, memory_kb: int, page_kb: int) -> NumaNode:
    pages = tuple(
        HugePages(size_kb=each.size_kb, free=each.free - (memory_kb // page_kb if each.size_kb == page_kb else 0))
        for each in node.pages
    )
    return replace(node, free_memory_kb=node.free_memory_kb - memory_kb, pages=pages)
