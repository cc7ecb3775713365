"""In which order VMs start: tiers by HA_PRIORITY, and what each waits for by HA_AFTER.

Pure: from what is written on the VMs to an answer about all of them. A VM that another waits for is in a tier at least
as high as that one, so that no tier waits for a lower one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ha_controller.core.incident import VmRecord
from ha_controller.core.resources import Startup, VmGroup

GROUP, ROLE = "group:", "role:"
SHOWN_MAX = 5  #: names or lines in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The order of all VMs that are being recovered."""

    tiers: Mapping[int, int] = field(default_factory=dict)  #: VM -> tier, higher ones first
    after: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  #: VM -> VMs that it waits for, without cycles
    cut: tuple[tuple[int, int], ...] = ()  #: (VM, VM that it does not wait for): each closed a cycle
    #: VM -> (name in its HA_AFTER, as it is looked for): none of these VMs has it. Groups: those that do not exist
    strangers: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)


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
    wanted, strangers = _named(vms, groups)
    if not wanted:
        return Order(tiers=tiers, strangers=strangers)
    finished, cut = _walk(wanted)
    after = {vm: tuple(other for other in others if (vm, other) not in cut) for vm, others in wanted.items()}
    for vm in reversed(finished):  # who waits comes before those that it waits for
        for other in after.get(vm, ()):
            tiers[other] = max(tiers[other], tiers[vm])
    return Order(tiers=tiers, after=after, cut=tuple(sorted(cut)), strangers=strangers)


def names_of(vm: int, name: str, startup: Startup) -> tuple[str, ...]:
    """What HA_AFTER may call a VM, its VM group aside."""
    role = () if startup.service is None else (f"service:{startup.service}/{startup.role}",)
    return (str(vm), name, *role)


_Strangers = dict[int, tuple[tuple[str, str], ...]]


def _named(
    vms: Mapping[int, VmRecord], groups: Sequence[VmGroup] | None
) -> tuple[dict[int, tuple[int, ...]], _Strangers]:
    """Which of the VMs each one names, and which names none of them has."""
    if not any(record.startup.after for record in vms.values()):
        return {}, {}
    known: dict[str, set[int]] = {}
    for record in vms.values():
        for name in names_of(record.id, record.name, record.startup):
            known.setdefault(name, set()).add(record.id)
    for group in groups or ():
        known.setdefault(f"{GROUP}{group.name}", set())
        for role in group.roles:
            for name in (f"{GROUP}{group.name}", f"{GROUP}{group.name}/{role.name}"):
                known.setdefault(name, set()).update(vm for vm in role.vms if vm in vms)
    found: dict[int, tuple[int, ...]] = {}
    strangers: _Strangers = {}
    for record in vms.values():
        names = [(name, _looked_for(record.startup, name)) for name in record.startup.after]
        if others := {vm for _, name in names for vm in known.get(name, ())} - {record.id}:
            found[record.id] = tuple(sorted(others))
        unknown = (each for each in names if each[1] not in known)
        if told := tuple(each for each in unknown if groups is not None or not each[1].startswith(GROUP)):
            strangers[record.id] = told
    return found, strangers


def _looked_for(startup: Startup, name: str) -> str:
    """A role of its own OneFlow service by the service's number."""
    own = startup.service is not None and name.startswith(ROLE)
    return name.replace(ROLE, f"service:{startup.service}/", 1) if own else name


# --- in words ---------------------------------------------------------------------------------------------------------


def faults(
    records: Iterable[VmRecord], order: Order, missing: Container[str], names: Mapping[int, str]
) -> tuple[str, ...]:
    """What is written on these VMs about their order and is not followed, a line for each.

    Args:
        missing: names that nobody in the whole cloud has, as they are looked for.
        names: of all VMs in the order.
    """
    lines: list[str] = []
    for record in records:
        lines += [f"{record.name}: {wrong}" for wrong in record.startup.wrong]
        strangers = order.strangers.get(record.id, ())
        for names_of_nobody, what in (
            ([name for name, key in strangers if is_of_groups(key)], "there is no such VM group or role"),
            ([name for name, key in strangers if key in missing], "no VM and no OneFlow role has that name"),
        ):
            if names_of_nobody:
                lines.append(f"{record.name}: HA_AFTER names {some_of(names_of_nobody)}: {what}")
        circles = [names[other] for vm, other in order.cut if vm == record.id]
        if circles:
            what = f"it does not wait for {some_of(circles)}"
            lines.append(f"{record.name}: HA_AFTER leads in a circle, and {what}")
    return tuple(lines)


def some_of(texts: Sequence[str], separator: str = ", ") -> str:
    """The first few, and how many more there are: hundreds of VMs may be meant."""
    more = f" and {len(texts) - SHOWN_MAX} more" if len(texts) > SHOWN_MAX else ""
    return separator.join(texts[:SHOWN_MAX]) + more


def is_of_groups(key: str) -> bool:
    """Whether a name that none of the VMs has is known to be nobody's, without a look at all VMs."""
    return key.startswith((GROUP, ROLE))


def ready_when(startup: Startup, default_delay_s: float) -> str:
    """When a VM counts as ready, like "port 5432 of 192.0.2.7 answers, 20 s later"."""
    what = "RUNNING" if startup.ready is None else f"{startup.ready} answers"
    delay_s = default_delay_s if startup.ready_delay_s is None else startup.ready_delay_s
    return f"{what}, {delay_s:g} s later" if delay_s else what


def starts(order: Order, vms: Iterable[int]) -> list[int]:
    """In which order these VMs start, when each becomes ready: by tier, then after those that they wait for."""
    left = sorted(vms, key=lambda vm: (-order.tiers[vm], vm))
    found: list[int] = []
    while left:
        waiting, first = set(left), order.tiers[left[0]]
        begun = [vm for vm in left if order.tiers[vm] == first and waiting.isdisjoint(order.after.get(vm, ()))]
        assert begun  # no tier waits for a lower one, and nobody in a circle
        found += begun
        done = frozenset(begun)
        left = [vm for vm in left if vm not in done]
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
