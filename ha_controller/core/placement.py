"""Where the VMs of a fenced host go.

OpenNebula checks neither the state of a destination nor whether it is alive: both are our job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ha_controller.core.model import Host, HostState, OnedHostState, Vm


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A host that may take VMs, by our own evidence."""

    host: Host
    state: HostState
    seen_s: float  #: seconds since it last showed life


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What VMs on their way to a host will take of it."""

    cpu: int = 0
    memory_mb: int = 0


def place(vm: Vm, candidates: Iterable[Candidate], taken: Mapping[int, Room], *, seen_max_s: float) -> int | None:
    """The host with the most free memory that may take the VM; None when it fits nowhere.

    OpenNebula checks neither the state of the destination nor whether it is alive: both are our job.
    """
    fitting = [
        (candidate.host.free_memory_mb - taken.get(candidate.host.id, Room()).memory_mb, -candidate.host.id)
        for candidate in candidates
        if _may_take(vm, candidate, seen_max_s) and _fits(vm, candidate.host, taken.get(candidate.host.id, Room()))
    ]
    return -max(fitting)[1] if fitting else None


def may_take(vm: Vm, destination: int, candidates: Iterable[Candidate], *, seen_max_s: float) -> bool:
    """Whether a host that was chosen earlier may still take the VM."""
    return any(known.host.id == destination and _may_take(vm, known, seen_max_s) for known in candidates)


def _may_take(vm: Vm, candidate: Candidate, seen_max_s: float) -> bool:
    host = candidate.host
    return (
        candidate.state is HostState.OK
        and candidate.seen_s <= seen_max_s
        and host.one_state == OnedHostState.MONITORED
        and not host.excluded
        and host.id != vm.host
        and host.cluster == vm.cluster
        and host.vm_mad == vm.vm_mad
    )


def _fits(vm: Vm, host: Host, taken: Room) -> bool:
    return vm.cpu <= host.free_cpu - taken.cpu and vm.memory_mb <= host.free_memory_mb - taken.memory_mb
