"""What a plan is made of, and what it says. Plain frozen values: a plan can be shown, recorded and made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from ha_controller.core.model import Host, HostState, Vm
from ha_controller.core.resources import VmGroup


class Rule(StrEnum):
    """Why a host does not take a VM: the first of these, in this order."""

    NOT_OK = "not ok"
    NOT_SEEN = "not seen"
    NOT_ENABLED = "not enabled"
    OUT_OF_SCOPE = "out of scope"
    FAILED_BEFORE = "failed before"
    DRIVER = "driver"
    CLUSTER = "cluster"
    AUTOMATIC_REQUIREMENTS = "automatic requirements"
    REQUIREMENTS = "requirements"
    HOST_AFFINITY = "host affinity"
    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    CPU = "cpu"
    MEMORY = "memory"
    PCI = "pci"
    NUMA = "numa"


#: For people: of one host, of several.
PHRASES: Mapping[Rule, tuple[str, str]] = MappingProxyType(
    {
        Rule.NOT_OK: ("is not OK", "are not OK"),
        Rule.NOT_SEEN: ("has not shown life just now", "have not shown life just now"),
        Rule.NOT_ENABLED: ("is not enabled in OpenNebula", "are not enabled in OpenNebula"),
        Rule.OUT_OF_SCOPE: ("is out of scope", "are out of scope"),
        Rule.FAILED_BEFORE: ("could not start it before", "could not start it before"),
        Rule.DRIVER: ("has another hypervisor", "have another hypervisor"),
        Rule.CLUSTER: ("is in another cluster", "are in other clusters"),
        Rule.AUTOMATIC_REQUIREMENTS: (
            "does not meet AUTOMATIC_REQUIREMENTS",
            "do not meet AUTOMATIC_REQUIREMENTS",
        ),
        Rule.REQUIREMENTS: ("does not meet SCHED_REQUIREMENTS", "do not meet SCHED_REQUIREMENTS"),
        Rule.HOST_AFFINITY: ("is not for its role in the VM group", "are not for its role in the VM group"),
        Rule.AFFINITY: ("is not where the VMs of its group are", "are not where the VMs of its group are"),
        Rule.ANTI_AFFINITY: ("has a VM it must be apart from", "have VMs it must be apart from"),
        Rule.CPU: ("lacks CPU", "lack CPU"),
        Rule.MEMORY: ("lacks memory", "lack memory"),
        Rule.PCI: ("lacks a PCI device", "lack a PCI device"),
        Rule.NUMA: ("cannot hold its NUMA topology", "cannot hold its NUMA topology"),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A host that may take VMs, by our own evidence."""

    host: Host
    state: HostState
    seen_s: float  #: seconds since it last showed life


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A VM that needs a place."""

    vm: Vm
    priority: int = 0  #: higher ones are placed first
    failed_on: tuple[int, ...] = ()  #: hosts on which it did not start: not chosen again
    refused_on: tuple[int, ...] = ()  #: hosts that OpenNebula refused to move it to: the last resort


@dataclass(frozen=True, kw_only=True, slots=True)
class Underway:
    """A VM that was ordered to a host, where OpenNebula may not count it yet."""

    vm: Vm
    destination: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Everything that a plan depends on: the same problem always gives the same plan."""

    tasks: tuple[Task, ...]
    candidates: tuple[Candidate, ...]
    underway: tuple[Underway, ...] = ()
    groups: tuple[VmGroup, ...] | None = None  #: None: they could not be read
    seen_max_s: float = 3.0  #: a destination must have shown life this recently
    soften: bool = False  #: a VM that fits nowhere else may share a host with VMs it should be apart from


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where one VM goes, or why it fits nowhere."""

    vm: int
    name: str
    destination: int | None = None
    softened: bool = False  #: only because anti-affinity was softened
    reason: str = ""  #: of a VM that fits nowhere
    refusals: tuple[tuple[Rule, int], ...] = ()  #: how many hosts each rule kept away


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Where all VMs go, by their ids."""

    placements: tuple[Placement, ...] = ()

    def of(self, vm: int) -> Placement | None:
        """The place of one VM."""
        return next((each for each in self.placements if each.vm == vm), None)

    @property
    def left_out(self) -> tuple[Placement, ...]:
        """The VMs that fit nowhere."""
        return tuple(each for each in self.placements if each.destination is None)

    @property
    def placed(self) -> dict[int, int]:
        """VM -> destination."""
        return {each.vm: each.destination for each in self.placements if each.destination is not None}


def in_words(refusals: tuple[tuple[Rule, int], ...]) -> str:
    """Like "3 hosts lack memory, 1 is in another cluster"; the most frequent first."""
    parts: list[str] = []
    for rule, count in sorted(refusals, key=lambda refusal: -refusal[1]):
        hosts = "" if parts else (" host" if count == 1 else " hosts")
        parts.append(f"{count}{hosts} {PHRASES[rule][count != 1]}")
    return ", ".join(parts) or "there is no other host"
