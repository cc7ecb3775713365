"""What becomes of each VM of a fenced host, and where.

Pure rules: what a VM *was* is in its record and was written down when the incident was opened; what it *is* was just
read from OpenNebula. The facts behind the rules are observed on a running oned 7.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.model import Host, HostState, LcmState, OnedHostState, Vm, VmState

#: LCM states in which oned itself says that a start at the destination went wrong: 36 BOOT_FAILURE,
#: 37 BOOT_MIGRATE_FAILURE, 61 PROLOG_MIGRATE_UNKNOWN_FAILURE, 44 and 46 the same for POWEROFF and SUSPENDED.
START_FAILURES = frozenset({36, 37, 44, 46, 61})


class Step(StrEnum):
    """What to do next for one VM."""

    MOVE = "move"
    RESUME = "resume"
    WAIT = "wait"  #: OpenNebula is at work, or has to notice first
    RUNNING = "running"  #: outcome
    LEAVE = "leave"  #: outcome, with the reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    """A step and why."""

    step: Step
    reason: str = ""


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


def next_step(record: VmRecord, vm: Vm | None, source: int) -> Next:
    """What to do with a VM of the fenced host `source`. `vm` is None when OpenNebula no longer knows it."""
    if not was_running(record):
        return Next(step=Step.LEAVE, reason=_why_left(record))
    if vm is None or vm.state == VmState.DONE:
        return Next(step=Step.LEAVE, reason="it no longer exists in OpenNebula")
    if vm.host == source:
        return _still_at_source(vm)
    if record.destination is None or vm.host != record.destination:
        return Next(step=Step.LEAVE, reason=f"somebody else moved it to host {vm.host}: {vm.label}")
    return _at_destination(vm)


def _why_left(record: VmRecord) -> str:
    if record.was_state in (VmState.POWEROFF, VmState.SUSPENDED):
        return f"it was {record.was_label} before the host failed and stays so"
    return f"it was {record.was_label} when the host failed; look at it: its disks may be in the middle of something"


def _still_at_source(vm: Vm) -> Next:
    if vm.obstacle:
        return Next(step=Step.LEAVE, reason=vm.obstacle)
    if is_unknown(vm) or vm.state == VmState.POWEROFF:
        return Next(step=Step.MOVE)
    if claims_running(vm):
        return Next(step=Step.WAIT, reason="OpenNebula still shows it RUNNING on the dead host")
    if vm.state == VmState.ACTIVE:
        return Next(step=Step.WAIT, reason=f"OpenNebula is at work on it: {vm.label}")
    return Next(step=Step.LEAVE, reason=f"it became {vm.label} meanwhile")


def _at_destination(vm: Vm) -> Next:
    if claims_running(vm):
        return Next(step=Step.RUNNING)
    if vm.state == VmState.POWEROFF:
        return Next(step=Step.RESUME)
    if vm.state == VmState.ACTIVE and vm.lcm_state in START_FAILURES:
        return Next(step=Step.LEAVE, reason=f"its start failed: {vm.label} on host {vm.host}")
    if vm.state == VmState.ACTIVE:
        return Next(step=Step.WAIT, reason=f"OpenNebula starts it: {vm.label}")
    return Next(step=Step.LEAVE, reason=f"it became {vm.label} on host {vm.host}")


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
