"""What is read off a VM, what is looked at once more right before an order about it is sent, and what came of that."""

from __future__ import annotations

from ha_controller.adapters.opennebula import (
    NoAnswer,
    NoSuchObject,
    OnedVm,
    OpenNebulaError,
    Unauthenticated,
    Withheld,
    vm_state_name,
)
from ha_controller.adapters.recoverer.scope import POLICY
from ha_controller.core.effects import LockVm, MoveVm, RecoverVm, ResumeVm
from ha_controller.core.events import OrderResult
from ha_controller.core.model import LcmState, VmPolicy, VmState
from ha_controller.core.vm_table import is_forbidden, row_of
from ha_controller.plugin import one_line

VmOrder = MoveVm | ResumeVm | RecoverVm | LockVm


def travels(vm: OnedVm) -> bool:
    """Whether a migration is under way, so that it matters where it comes from."""
    return row_of(vm.state, vm.lcm_state).travels


def why_untouched(vm: OnedVm) -> str:
    """Why a VM must not be touched, whatever its state."""
    written = vm.attributes.get(POLICY, "")
    if written and policy_of(vm) is None:
        return f"{POLICY}={one_line(written)} on the VM is not known: restart, recreate, leave or poweroff"
    return ""


def policy_of(vm: OnedVm) -> VmPolicy | None:
    """What its owner or the operator wrote on the VM; None: nothing that is known."""
    written = vm.attributes.get(POLICY, "").strip().lower()
    return VmPolicy(written) if written in [each.value for each in VmPolicy] else None


def not_as_decided(vm: OnedVm, order: VmOrder) -> str:
    """What has changed since the decision; empty if nothing has."""
    label = f"{vm_state_name(vm.state, vm.lcm_state)} on host {vm.host_id}"
    if vm.locked and (isinstance(order, LockVm) or not order.unlock):
        return "it is locked in OpenNebula"
    match order:
        case MoveVm():
            unknown = vm.state == VmState.ACTIVE and vm.lcm_state == LcmState.UNKNOWN
            still = unknown or vm.state in (VmState.POWEROFF, VmState.SUSPENDED)
            return "" if still and vm.host_id == order.source else f"not moved: it is {label}"
        case ResumeVm():
            return "" if (vm.state, vm.host_id) == (order.from_state, order.host) else f"not resumed: it is {label}"
        case RecoverVm():
            if is_forbidden(vm.state, vm.lcm_state, order.operation):
                return f"not recovered: recover {order.operation.value} is never used on {label}"
            same = (vm.state, vm.lcm_state, vm.host_id) == (VmState.ACTIVE, order.lcm_state, order.host)
            return "" if same else f"not recovered: it is {label}"
        case LockVm():
            return ""


def result_of(error: OpenNebulaError) -> OrderResult:
    """oned's own refusals did nothing; a lost answer or an internal failure may have done it all the same.

    An expired login, a follower that does not know the object yet, and no connection in time pass by themselves.
    """
    if isinstance(error, Withheld | Unauthenticated | NoSuchObject) or (isinstance(error, NoAnswer) and not error.sent):
        return OrderResult.NOT_NOW
    return OrderResult.UNKNOWN if error.outcome_unknown else OrderResult.REFUSED
