"""Where the VMs of a fenced host go, and words about their states. What is done with each is in `outcome`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.model import Host, HostState, LcmState, OnedHostState, Vm, VmState

#: LCM states in which oned itself says that a start at the destination went wrong: 36 BOOT_FAILURE,
#: 37 BOOT_MIGRATE_FAILURE, 61 PROLOG_MIGRATE_UNKNOWN_FAILURE, 44 and 46 the same for POWEROFF and SUSPENDED.
START_FAILURES = frozenset({36, 37, 44, 46, 61})


def was_running(record: VmRecord) -> bool:
    """Whether the VM was running when the host failed. UNKNOWN then means: oned noticed before we did."""
    running = (LcmState.RUNNING, LcmState.UNKNOWN)
    return record.was_state == VmState.ACTIVE and record.was_lcm_state in running


def claims_running(vm: Vm) -> bool:
    """Whether oned shows the VM as RUNNING."""
    return vm.state == VmState.ACTIVE and vm.lcm_state == LcmState.RUNNING


def is_unknown(vm: Vm) -> bool:
    """Whether oned shows the VM as UNKNOWN, from where a migrate works at once."""
    return vm.state == VmState.ACTIVE and vm.lcm_state == LcmState.UNKNOWN


# --- placement --------------------------------------------------------------------------------------------------------


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


def on_its_way(record: VmRecord, source: int, vm: Vm | None) -> bool:
    """Whether a VM takes room at its destination that OpenNebula may not count there yet."""
    return record.stage is VmStage.MOVING and (vm is None or vm.host == source)
