"""Words about the states of VMs. What is done with each is in `outcome`, where it goes in `placement`."""

from __future__ import annotations

from ha_controller.core.incident import VmRecord
from ha_controller.core.model import LcmState, Vm, VmState

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
