"""In which order VMs start: tiers by HA_PRIORITY, and what each waits for by HA_AFTER.

Pure: from what is written on the VMs to an answer about all of them. A VM that another waits for is in a tier at least
as high as that one, so that no tier waits for a lower one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ha_controller.core.incident import VmRecord
from ha_controller.core.resources import VmGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The order of all VMs that are being recovered."""

    tiers: Mapping[int, int] = field(default_factory=dict)  #: VM -> tier, higher ones first
    after: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  #: VM -> VMs that it waits for, without cycles
    cut: tuple[tuple[int, int], ...] = ()  #: (VM, VM that it does not wait for): each closed a cycle


def order_of(records: Iterable[VmRecord], groups: Sequence[VmGroup] | None, default: int) -> Order:
    """Find it for these VMs. What is written about others asks nothing: they run, or nobody is starting them.

    Args:
        records: the VMs that are to run.
        groups: the VM groups; None: not known, so nobody waits for one.
        default: the priority of VMs without HA_PRIORITY.
    """
    vms = {record.id: record for record in sorted(records, key=lambda record: record.id)}
    tiers = {
        number: default if record.startup.priority is None else record.startup.priority
        for number, record in vms.items()
    }
    wanted = _named(vms, groups or ())
    if not wanted:
        return Order(tiers=tiers)
    finished, cut = _walk(wanted)
    after = {vm: tuple(other for other in others if (vm, other) not in cut) for vm, others in wanted.items()}
    for vm in reversed(finished):  # who waits comes before those that it waits for
        for other in after.get(vm, ()):
            tiers[other] = max(tiers[other], tiers[vm])
    return Order(tiers=tiers, after=after, cut=tuple(sorted(cut)))


def _named(vms: Mapping[int, VmRecord], groups: Sequence[VmGroup]) -> dict[int, tuple[int, ...]]:
    """Which of the VMs each one names."""
    if not any(record.startup.after for record in vms.values()):
        return {}
    known: dict[str, set[int]] = {}
    for record in vms.values():
        for name in (str(record.id), record.name):
            known.setdefault(name, set()).add(record.id)
        if record.startup.service is not None:
            known.setdefault(f"service:{record.startup.service}/{record.startup.role}", set()).add(record.id)
    for group in groups:
        for role in group.roles:
            for name in (f"group:{group.name}", f"group:{group.name}/{role.name}"):
                known.setdefault(name, set()).update(vm for vm in role.vms if vm in vms)
    found = {}
    for record in vms.values():
        mine = f"service:{record.startup.service}/"
        names = [name.replace("role:", mine, 1) if name.startswith("role:") else name for name in record.startup.after]
        if others := {vm for name in names for vm in known.get(name, ())} - {record.id}:
            found[record.id] = tuple(sorted(others))
    return found


def _walk(wanted: Mapping[int, tuple[int, ...]]) -> tuple[list[int], set[tuple[int, int]]]:
    """Go through all of them from the lowest id, depth first: VMs after those that they wait for, and what is cut.

    What leads back to a VM that is on the way closes a cycle. Not recursive: chains may be long.
    """
    finished: list[int] = []
    cut: set[tuple[int, int]] = set()
    seen: set[int] = set()
    for first in wanted:
        if first in seen:
            continue
        seen.add(first)
        way = {first: iter(wanted[first])}
        while way:
            vm = next(reversed(way))
            other = next(way[vm], None)
            if other is None:
                del way[vm]
                finished.append(vm)
            elif other in way:
                cut.add((vm, other))
            elif other not in seen:
                seen.add(other)
                way[other] = iter(wanted.get(other, ()))
    return finished, cut
