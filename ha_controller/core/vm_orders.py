"""What is put on record for an order about a VM, and the order itself. Builds values; saves and decides nothing."""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core.effects import LockVm, RecoverVm
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import Vm
from ha_controller.core.outcome import BOOT_FAILURE
from ha_controller.core.vm_table import Recover


def note_order(record: VmRecord, stage: VmStage, now: float, destination: int | None) -> VmRecord:
    """A VM's record with one more order in it."""
    return replace(
        record,
        stage=stage,
        destination=destination,
        ordered_at=now,
        first_ordered_at=record.first_ordered_at or now,
        answered=False,
        tries=record.tries + 1 if record.stage in (stage, VmStage.WAITING) else 1,
        order=record.order + 1,
        maybe_done=record.maybe_done and record.stage is stage,
    )


def note_destination(record: VmRecord, destination: int) -> VmRecord:
    """Remember where a VM is ordered to: should that order be lost, it may come to its effect late."""
    if destination not in record.ordered_to:
        record = replace(record, ordered_to=tuple(sorted((*record.ordered_to, destination))))
        record = replace(record, presumed_by=record.order + 1)
    return replace(record, boots=0, doubted=False)


def where_it_went(record: VmRecord, vm: Vm | None) -> VmRecord:
    """The record of a VM that is at a destination of before: an order that was lost was carried out after all.

    Whatever is ordered from now on is for there. Another order that is still on its way can only move it on from
    there: OpenNebula has the VM in one place at a time. A host on which it did not start stays one.
    """
    if vm is None or vm.host in (record.destination, *record.failed_on) or vm.host not in record.ordered_to:
        return record
    return replace(record, destination=vm.host, boots=0, doubted=False)


def note_lock(record: VmRecord, vm: Vm) -> VmRecord:
    """Remember the lock that an order takes away, so that the VM gets it back."""
    return replace(record, relock=vm.lock_level or record.relock)


def recover(
    incident: Incident, record: VmRecord, vm: Vm, call: Recover, *, second_start: bool, not_after: float, now: float
) -> tuple[VmRecord, RecoverVm]:
    """End a state that OpenNebula does not leave by itself. `second_start`: or have it begin once more what it does."""
    at = incident.host if vm.host is None else vm.host
    away = at != incident.host
    recreated = record.recreated or call is Recover.RECREATE
    doubted = record.doubted or (away and vm.lcm_state == BOOT_FAILURE and call is Recover.SUCCESS)
    is_news = second_start or (recreated, doubted) != (record.recreated, record.doubted)
    begins = away or call is Recover.RECREATE  # from here on it is on its way to RUNNING, and its time runs
    ordered = replace(
        note_lock(record, vm),
        stage=VmStage.RECOVERING,
        ordered_at=now,
        first_ordered_at=record.first_ordered_at or (now if begins else 0.0),
        answered=False,
        order=record.order + 1,
        recovers=record.recovers + 1,
        boots=record.boots + (away and not second_start),
        second_starts=record.second_starts + second_start,
        doubted=doubted,
        recreated=recreated,
        presumed_by=record.order + 1 if is_news else record.presumed_by,
    )
    return ordered, RecoverVm(
        vm=record.id,
        incident=incident.id,
        attempt=ordered.order,
        host=at,
        lcm_state=vm.lcm_state,
        operation=call,
        not_after=not_after,
        unlock=ordered.relock > 0,
    )


def lock(incident: Incident, record: VmRecord, vm: Vm, *, not_after: float, now: float) -> tuple[VmRecord, LockVm]:
    """Give a VM its lock back."""
    ordered = note_order(record, VmStage.LOCKING, now, record.destination)
    return ordered, LockVm(
        vm=record.id,
        incident=incident.id,
        attempt=ordered.order,
        host=incident.host if vm.host is None else vm.host,
        level=record.relock,
        not_after=not_after,
    )
