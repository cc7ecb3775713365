"""The embedded oned as the controller sees it: readings in the core's words, and its orders carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ha_controller.core.effects import HostStep, LockVm, MoveVm, OrderHost, RecoverVm, ResumeVm
from ha_controller.core.events import HostRead, InventoryRead, OnedReadFailed
from ha_controller.core.model import Host, OnedHostState, Vm
from ha_controller.core.vm_table import is_forbidden, row_of
from ha_controller.sim import oned_model as one
from ha_controller.sim.oned_model import OnedHost, OnedRefusal, OnedVm

if TYPE_CHECKING:
    from ha_controller.sim.core_level.process import Process
    from ha_controller.sim.core_level.world import World

RESTORED_BY = {OnedHostState.DISABLED: 1, OnedHostState.OFFLINE: 2}  #: one.host.status
VmOrder = MoveVm | ResumeVm | RecoverVm | LockVm
MARK = "HA_STATE"
ALL_LOCKED = 4  #: onevm lock --all
WATCHED_S, MISSING_S = 600.0, 86400.0


def _tried_on(vm: OnedVm, host: OnedHost) -> tuple[int, ...]:
    """Where a migration led that was taken back, too lately for oned to have missed the VM on its host."""
    missing = vm.history[-1].found_missing_at
    known_at = missing or host.monitored_at
    times = [(stay, MISSING_S if missing and not stay.ran else WATCHED_S) for stay in vm.history[1:-1]]
    lately = [stay for stay, within_s in times if stay.ended_at >= known_at - within_s]
    return tuple(sorted({stay.host for stay in lately} - {host.id})) if vm.host == host.id else ()


class Inventory:
    """Reads oned and gives it orders, without I/O."""

    def __init__(self, world: World) -> None:
        """Nothing was read."""
        self.world = world

    def read(self, process: Process) -> None:
        """All hosts for one controller, if oned answers."""
        world = self.world
        if world.trouble.oned_down:
            process.post(OnedReadFailed(detail="oned does not answer"))
            return
        vms_of: dict[int, list[OnedVm]] = {host: [] for host in range(world.layout.hosts)}
        for vm in world.oned.vms.values():
            for host in vm.hosts if vm.holds_capacity() else ():
                vms_of[host].append(vm)
        hosts = tuple(self._host(host, vms_of[host]) for host in vms_of)
        process.post(InventoryRead(hosts=hosts))
        process.probing.hear_oned()

    def _host(self, host: int, vms: list[OnedVm]) -> Host:
        world = self.world
        known = world.oned.hosts[host]
        return Host(
            id=host,
            name=known.name,
            cluster=0,
            cluster_name="default",
            one_state=known.state,
            vm_mad="kvm",
            free_cpu=6400 - sum(vm.cpu for vm in vms),
            free_memory_mb=world.memory_mb - sum(vm.memory_mb for vm in vms),
            vms=tuple(vm.id for vm in vms),
            places=(("HA_RACK", world.layout.racks[host]),),
            marked=str(known.attributes.get(MARK, "")).startswith("FENCED"),
            levels=world.layout.levels[host],
            excluded="in maintenance" if host in world.trouble.maintained else "",
            maintenance=host in world.trouble.maintained,
        )

    def host_read(self, host: int, wanted: tuple[int, ...], asked_at: float) -> HostRead:
        """One host with its VMs, and others by their ids."""
        known, oned = self.world.oned.hosts[host], self.world.oned
        ids = sorted({vm.id for vm in oned.lifecycle.on_host(host)} | {vm for vm in wanted if vm in oned.vms})
        return HostRead(
            host=host,
            asked_at=asked_at,
            one_state=known.state,
            monitored_at=self.world.wall(known.monitored_at),
            marked=str(known.attributes.get(MARK, "")).startswith("FENCED"),
            vms=tuple(self.vm(oned.vms[vm], known) for vm in ids),
        )

    def vm(self, vm: OnedVm, host: OnedHost) -> Vm:
        """A VM in the core's words, as one reads it who asks for this host."""
        missing = vm.history[-1].found_missing_at
        travels = row_of(vm.state, vm.lcm_state).travels and len(vm.history) > 1
        return Vm(
            id=vm.id,
            name=vm.name,
            state=vm.state,
            lcm_state=vm.lcm_state,
            host=vm.host,
            cluster=0,
            vm_mad="kvm",
            cpu=vm.cpu,
            memory_mb=vm.memory_mb,
            found_missing_at=self.world.wall(missing) if missing else 0.0,
            previous_host=vm.history[-2].host if travels else None,
            tried_on=_tried_on(vm, host),
            label=vm.label,
            datastores=(100,),
            lock_level=ALL_LOCKED if vm.locked else 0,
        )

    # --- orders ---

    def host_order(self, order: OrderHost) -> None:
        """Carry one out; nothing of it is ever refused here."""
        oned, now, host = self.world.oned, self.world.now, self.world.oned.hosts[order.host]
        match order.step:
            case HostStep.OFFLINE:
                oned.set_status(order.host, 2, now)
            case HostStep.ENABLE:
                oned.set_status(order.host, 0, now)
            case HostStep.DISABLE:
                host.attributes[MARK] = f"FENCED {order.incident}"
                oned.set_status(order.host, 1, now)
            case HostStep.RESTORE:
                self.world.judge.given_back(order.host)
                oned.set_status(order.host, RESTORED_BY.get(order.state_before, 0), now)
                host.attributes.pop(MARK, None)

    def restart_monitoring(self, host: int) -> str:
        """OFFLINE and ENABLE for a host in ERROR; returns why not."""
        if self.world.oned.hosts[host].state != one.ERROR:
            return "its state is another one by now"
        self.world.oned.set_status(host, 2, self.world.now)
        self.world.oned.set_status(host, 0, self.world.now)
        return ""

    def not_as_decided(self, order: VmOrder) -> str:
        """What has changed since the decision; empty if nothing has."""
        vm = self.world.oned.vms[order.vm]
        is_as_decided = True
        match order:
            case MoveVm():
                movable = vm.state in (one.POWEROFF, one.SUSPENDED) or (vm.state, vm.lcm_state) == (3, one.UNKNOWN)
                is_as_decided = movable and vm.host == order.source
            case ResumeVm():
                is_as_decided = (vm.state, vm.host) == (order.from_state, order.host)
            case RecoverVm():
                same = (vm.state, vm.lcm_state, vm.host) == (one.ACTIVE, order.lcm_state, order.host)
                is_as_decided = same and not is_forbidden(vm.state, vm.lcm_state, order.operation)
        return "" if is_as_decided else f"it is {vm.label} on host {vm.host}"

    def vm_order_late(self, order: VmOrder, delay_s: float) -> None:
        """It has been sent, and nobody waits for its answer any more."""

        def land() -> None:
            self.vm_order(order)

        self.world.agenda.later(delay_s, land)

    def vm_order(self, order: VmOrder) -> str:
        """Carry one out; returns why oned refuses it."""
        lifecycle, now = self.world.oned.lifecycle, self.world.now
        if not isinstance(order, LockVm) and order.unlock:
            self.world.oned.vms[order.vm].locked = False
        try:
            match order:
                case MoveVm():
                    goal = self.world.oned.hosts[order.destination]
                    came_from = self.world.oned.vms[order.vm].host
                    lifecycle.migrate(order.vm, goal, live=False, enforce=True, datastore=-1, now=now)
                    self.world.judge.move_accepted(order.vm, came_from, order.destination)
                    self.world.trouble.move_accepted(order.destination)
                case ResumeVm():
                    lifecycle.action(order.vm, "resume", now)
                    self.world.judge.resume_accepted(order.vm)
                case RecoverVm():
                    lifecycle.recover(order.vm, order.operation, now)
                case LockVm():
                    self.world.oned.vms[order.vm].locked = True
        except OnedRefusal as refused:
            return refused.text
        return ""
