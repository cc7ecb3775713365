"""The VMs of a host that was powered off and is given back: nobody else goes on with those that have no outcome.

What could not be moved waits on its host, POWEROFF as OpenNebula found it, and what was on its way when the host
answered too early stands where its way ended. Both are decided anew, as after a reboot, in an incident of their own: by
what OpenNebula shows then, and never without the word of every host on which the VM may be.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import lost_vms, reboot
from ha_controller.core.effects import Severity
from ha_controller.core.incident import Incident, VmRecord
from ha_controller.core.model import Host, Vm, VmState
from ha_controller.core.outcome import is_made_anew, wants_running
from ha_controller.core.recovery import claims_running, is_unknown, was_running
from ha_controller.core.state import NewBoot, State


def readmitted(state: State, incident: Incident, now: float) -> None:
    """A host was given back. What a power-off ended is accounted for; what an earlier reboot lost goes on."""
    view, host = state.view(incident.host), state.hosts.get(incident.host)
    if incident.fenced_at is not None:
        if (boot := view.new_boot) is not None:
            reboot.account_for(state, incident.host, boot)
        if host is not None and (left := _left(state, host, incident)):
            number = boot.boot_id if boot is not None else f"after incident {incident.id}"
            since = NewBoot(boot_id=number, noticed_at=now, lost_since=incident.opened_at)
            reboot.open_incident(state, host, since, left, incident.foreign, now, returned=True)
        return
    unsettled = tuple(record.anew() for record in incident.vms if not record.settled)
    if incident.rebooted and unsettled and host is not None:
        boot = view.new_boot or NewBoot(boot_id=incident.rebooted, noticed_at=now, lost_since=incident.lost_since)
        since = replace(boot, lost_since=incident.lost_since)
        reboot.open_incident(state, host, since, unsettled, incident.foreign, now)


def _left(state: State, host: Host, incident: Incident) -> tuple[VmRecord, ...]:
    """The VMs of the next incident: those without an outcome, wherever they are, and those that stayed."""
    vms, left = state.view(host.id).vms, []
    for record in incident.vms:
        vm = vms.get(record.id)
        if not record.settled and wants_running(record):
            if is_made_anew(record):
                _tell_made_anew(state, incident, record)
            else:
                left.append(record.anew())
        elif record.settled and vm is not None and vm.host == host.id and _stayed(state, host, incident, record, vm):
            left.append(record.anew())
    return tuple(left)


def _stayed(state: State, host: Host, incident: Incident, record: VmRecord, vm: Vm) -> bool:
    """Whether a VM that ran when the host failed is still there, and ended with the host."""
    waits = vm.state == VmState.POWEROFF and lost_vms.ended_with_it(vm, incident.opened_at)
    is_there = waits or is_unknown(vm) or claims_running(vm)
    ran = was_running(record) or lost_vms.was_travelling(record)
    return ran and is_there and not lost_vms.policy_against(state, host, record, vm)


def _tell_made_anew(state: State, incident: Incident, record: VmRecord) -> None:
    text = (
        f"{record.name} was being made anew when {incident.host_name} was given back: OpenNebula's scheduler places it"
    )
    state.tell_of(incident, Severity.WARNING, text, f"See that it runs: onevm show {record.id}")
