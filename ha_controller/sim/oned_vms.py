"""The life of VMs in the embedded oned: what migrate, actions, recover and its scheduler make of them.

What oned believes, not what is true: its drivers ask the pretended hardware, and fail on a dead host after the time
that ssh takes. States, codes and texts are those of a running oned 7.4.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ha_controller.sim import oned_model as one
from ha_controller.sim.hardware import Hardware
from ha_controller.sim.oned_model import Datastore, History, OnedHost, OnedRefusal, OnedVm, Timings

_Then = Callable[[OnedVm, float], None]
_FAILURE, _SUCCESS, _RETRY, _DELETE, _RECREATE, _DELETE_DB = range(6)


@dataclass(order=True)
class _Due:
    at: float
    number: int
    vm: int = field(compare=False)
    then: _Then = field(compare=False)


class VmLifecycle:
    """All VMs of an embedded oned."""

    def __init__(
        self,
        hardware: Hardware,
        timings: Timings,
        hosts: Mapping[int, OnedHost],
        datastores: Mapping[int, Datastore],
        now: float,
    ) -> None:
        """No VM yet."""
        self.vms: dict[int, OnedVm] = {}
        self._hardware, self._timings, self._hosts, self._datastores = hardware, timings, hosts, datastores
        self._due: list[_Due] = []
        self._counter = 0
        self._scheduler_at = now + timings.scheduler_s
        self._actions: dict[str, tuple[Callable[[OnedVm], bool], _Then]] = {
            "resume": (_is(one.POWEROFF, one.SUSPENDED), self._resume),
            "poweroff-hard": (_can_be_stopped, lambda vm, now: self._end(vm, now, one.SHUTDOWN_POWEROFF, one.POWEROFF)),
            "suspend": (_runs, lambda vm, now: self._end(vm, now, one.SAVE_SUSPEND, one.SUSPENDED)),
            "terminate-hard": (_can_be_terminated, self._terminate),
            "resched": (_can_be_rescheduled, lambda vm, _: setattr(vm, "resched", True)),
            "unresched": (_can_be_rescheduled, lambda vm, _: setattr(vm, "resched", False)),
        }

    # --- time ---

    def advance(self, now: float) -> None:
        """Let drivers and scheduler do what is due."""
        while self._due and min(self._due).at <= now:
            due = min(self._due)
            self._due.remove(due)
            due.then(self.vms[due.vm], due.at)
        if self._scheduler_at <= now:
            self._scheduler_at = now + self._timings.scheduler_s
            self._schedule(now)

    def _later(self, vm: OnedVm, at: float, then: _Then) -> None:
        self._counter += 1
        self._due.append(_Due(at, self._counter, vm.id, then))

    def _driver(self, vm: OnedVm, now: float, wait_s: float, then: _Then, failed: _Then) -> None:
        """An action of the driver on the VM's host."""
        if self._hardware.answers(vm.host):
            self._later(vm, now + wait_s, then)
        else:
            self._later(vm, now + self._timings.ssh_timeout_s, failed)

    def on_host(self, host: int) -> list[OnedVm]:
        """The VMs that hold capacity there."""
        return [vm for vm in self.vms.values() if vm.holds_capacity() and vm.host == host]

    def usage(self, host: int) -> tuple[int, int]:
        """CPU (hundredths) and memory (KB) promised on a host."""
        vms = self.on_host(host)
        return sum(vm.cpu for vm in vms), sum(vm.memory_mb for vm in vms) * 1024

    def known(self, call: str, vm: int) -> OnedVm:
        """A VM; raises OnedRefusal NO_EXISTS."""
        if vm not in self.vms:
            raise OnedRefusal(one.NO_EXISTS, f"[{call}] Error getting virtual machine [{vm}].", vm)
        return self.vms[vm]

    # --- one.vm.migrate ---

    def migrate(self, vm_id: int, host: OnedHost, *, live: bool, enforce: bool, datastore: int, now: float) -> int:
        """one.vm.migrate: accepted or refused; what becomes of it shows later."""
        call, vm = "one.vm.migrate", self.known("one.vm.migrate", vm_id)
        if vm.locked:
            raise OnedRefusal(one.NOT_AUTHORIZED, f"[{call}] User [0] : VM is locked. [{vm_id}].")
        if host.state == one.OFFLINE:
            raise OnedRefusal(one.ACTION, f"[{call}] Host is offline, cannot use it to deploy VM")
        self._refuse_datastore(call, datastore)
        if not (_is(one.POWEROFF, one.SUSPENDED)(vm) or _runs(vm) or _is_unknown(vm)):
            raise OnedRefusal(one.ACTION, f"[{call}] Migrate action is not available for state {vm.label}")
        if vm.host == host.id:
            text = f"[{call}] VM is already running on host [{host.id}] and datastore [{vm.datastore}]"
            raise OnedRefusal(one.ACTION, text)
        self._refuse_other_cluster(call, vm, host)
        if enforce:
            self._refuse_overcommitment(call, vm, host)
        self._start_move(vm, host.id, live, now)
        return vm_id

    def _refuse_datastore(self, call: str, datastore: int) -> None:
        if datastore == -1:
            return
        if datastore not in self._datastores:
            raise OnedRefusal(one.NO_EXISTS, f"[{call}] Error getting datastore [{datastore}].", datastore)
        if self._datastores[datastore].type != 1:
            text = f"Trying to use datastore [{datastore}] to deploy the VM, but it is not of type system datastore."
            raise OnedRefusal(one.INTERNAL, f"[{call}] {text}")

    def _refuse_other_cluster(self, call: str, vm: OnedVm, host: OnedHost) -> None:
        at = self._hosts[vm.host].cluster
        if host.cluster != at:
            text = f"Host is in cluster [{host.cluster}], and VM requires to be placed on cluster [{at}]"
            raise OnedRefusal(one.ACTION, f"[{call}] Cannot migrate  VM [{vm.id}] to host [{host.id}]. {text}")

    def _refuse_overcommitment(self, call: str, vm: OnedVm, host: OnedHost) -> None:
        cpu, mem_kb = self.usage(host.id)
        text = f"[{call}] virtual machine [{vm.id}] does not fit in host [{host.id}]. Not enough"
        if vm.cpu > host.total_cpu - cpu:
            raise OnedRefusal(one.ACTION, f"{text} CPU: {vm.cpu}/{host.total_cpu - cpu}")
        if vm.memory_mb * 1024 > host.total_mem_kb - mem_kb:
            raise OnedRefusal(one.ACTION, f"{text} memory: {vm.memory_mb * 1024}/{host.total_mem_kb - mem_kb}")

    def _start_move(self, vm: OnedVm, host: int, live: bool, now: float) -> None:
        if not _runs(vm):
            self._move_files(vm, host, now)
            return
        vm.lcm_state = one.MIGRATE if live else one.SAVE_MIGRATE

        def saved(vm: OnedVm, now: float) -> None:
            self._hardware.stop_vm(vm.host, vm.id)
            self._move_files(vm, host, now)

        self._driver(vm, now, self._timings.prolog_s, saved, _back_to_running)

    def _move_files(self, vm: OnedVm, host: int, now: float) -> None:
        """The store is shared: nothing is copied, and the old host is not asked."""
        before = vm.state
        vm.resched = False
        self._place(vm, host, now)
        if before == one.ACTIVE:
            vm.lcm_state = one.PROLOG_MIGRATE_UNKNOWN
            self._later(vm, now + self._timings.prolog_s, self._boot)
        else:
            moving = one.PROLOG_MIGRATE_POWEROFF if before == one.POWEROFF else one.PROLOG_MIGRATE_SUSPEND
            vm.become(one.ACTIVE, moving)
            self._later(vm, now + self._timings.prolog_s, lambda vm, _: vm.become(before))

    @staticmethod
    def _place(vm: OnedVm, host: int, now: float) -> None:
        vm.history[-1].ended_at = now
        vm.history.append(History(seq=len(vm.history), host=host, started_at=now))

    def _boot(self, vm: OnedVm, now: float) -> None:
        vm.become(one.ACTIVE, one.BOOT)
        self._driver(vm, now, self._timings.boot_s, self._booted, lambda vm, _: vm.become(one.ACTIVE, one.BOOT_FAILURE))

    def _booted(self, vm: OnedVm, now: float) -> None:
        del now
        vm.become(one.ACTIVE, one.RUNNING if self._hardware.start_vm(vm.host, vm.id) else one.BOOT_FAILURE)

    # --- one.vm.action ---

    def action(self, vm_id: int, name: str, now: float) -> int:
        """one.vm.action."""
        call, vm = "one.vm.action", self.known("one.vm.action", vm_id)
        if name not in self._actions:
            raise OnedRefusal(one.ACTION, f'[{call}] Action "{name}" is not supported')
        allowed, act = self._actions[name]
        if not allowed(vm):
            text = f'[{call}] Error performing action "{name}": This action is not available for state {vm.label}'
            raise OnedRefusal(one.ACTION, text)
        act(vm, now)
        return vm_id

    def _resume(self, vm: OnedVm, now: float) -> None:
        vm.become(one.ACTIVE, one.BOOT_POWEROFF)
        vm.history[-1].found_missing_at = 0.0
        self._driver(vm, now, self._timings.boot_s, self._booted, lambda vm, _: vm.become(one.POWEROFF))

    def _end(self, vm: OnedVm, now: float, through: int, state: int) -> None:
        """Stop the VM's process; on a dead host oned falls back to RUNNING, which is false."""
        vm.lcm_state = through

        def ended(vm: OnedVm, now: float) -> None:
            del now
            self._hardware.stop_vm(vm.host, vm.id)
            vm.become(state)

        self._driver(vm, now, self._timings.prolog_s, ended, _back_to_running)

    def _terminate(self, vm: OnedVm, now: float) -> None:
        self._end(vm, now, one.SHUTDOWN, one.DONE)

    # --- one.vm.recover ---

    def recover(self, vm_id: int, operation: int, now: float) -> int:
        """one.vm.recover: what has no effect is accepted, too."""
        call, vm = "one.vm.recover", self.known("one.vm.recover", vm_id)
        if operation not in range(6):
            raise OnedRefusal(one.ACTION, f"[{call}] Wrong recovery operation code")
        if vm.state == one.DONE:
            what = {_RECREATE: "delete-recreate a VM", _DELETE: "delete a VM"}.get(operation, "recover a VM")
            raise OnedRefusal(one.ACTION, f"[{call}] Cannot {what} already in DONE state")
        if operation == _RECREATE:
            vm.become(one.ACTIVE, one.CLEANUP_RESUBMIT)
            self._driver(vm, now, self._timings.prolog_s, _pending, _pending)
        elif operation in (_DELETE, _DELETE_DB):
            self._hardware.stop_vm(vm.host, vm.id)
            vm.become(one.DONE)
        elif vm.state == one.ACTIVE:
            self._recover_active(vm, operation, now)
        return vm_id

    def _recover_active(self, vm: OnedVm, operation: int, now: float) -> None:
        """Every row was seen; oned-observed.md section 4. What a state does not know is accepted and does nothing."""
        match operation, vm.lcm_state:
            case (0 | 1, one.UNKNOWN) | (1, one.BOOT_FAILURE):
                vm.lcm_state = one.RUNNING  # in the database only
            case 0, one.SAVE_SUSPEND | one.SAVE_STOP | one.SAVE_MIGRATE | one.MIGRATE:
                vm.lcm_state = one.RUNNING
            case 0, one.PROLOG:
                vm.lcm_state = one.PROLOG_FAILURE
            case 0, one.BOOT:
                vm.lcm_state = one.BOOT_FAILURE
            case 0, one.PROLOG_MIGRATE_UNKNOWN_FAILURE | one.PROLOG_MIGRATE_FAILURE:
                self._place(vm, vm.history[-2].host, now)
                self._boot(vm, now)
            case (1, one.PROLOG_MIGRATE_UNKNOWN_FAILURE) | (2, one.BOOT_FAILURE):
                self._boot(vm, now)
            case 2, one.PROLOG_MIGRATE_UNKNOWN_FAILURE:
                vm.lcm_state = one.PROLOG_MIGRATE_UNKNOWN
                self._later(vm, now + self._timings.prolog_s, self._boot)
            case 1, one.SHUTDOWN_POWEROFF:
                vm.become(one.POWEROFF)
            case 1, one.SHUTDOWN:
                vm.lcm_state = one.EPILOG
                gone, failed = _becomes(one.DONE), _becomes(one.ACTIVE, one.EPILOG_FAILURE)
                self._driver(vm, now, self._timings.prolog_s, gone, failed)
            case 1, one.SHUTDOWN_UNDEPLOY:
                vm.lcm_state = one.EPILOG_UNDEPLOY
                self._later(vm, now + self._timings.prolog_s, _becomes(one.UNDEPLOYED))
            case 1, one.EPILOG_FAILURE:
                vm.become(one.DONE)
            case 1, one.CLEANUP_RESUBMIT:
                vm.become(one.PENDING)

    # --- the scheduler ---

    def _schedule(self, now: float) -> None:
        """Place what is PENDING or to be rescheduled on the emptiest host of its cluster."""
        for vm in sorted(self.vms.values(), key=lambda vm: vm.id):
            waits = vm.state == one.PENDING or (vm.resched and _can_be_rescheduled(vm))
            places = [host for host in self._hosts.values() if host.state == one.MONITORED and host.id != vm.host]
            places = [host for host in places if host.cluster == self._hosts[vm.host].cluster]
            if not waits or not places:
                continue
            host = min(places, key=lambda host: (len(self.on_host(host.id)), host.id))
            if vm.state == one.PENDING:
                self._place(vm, host.id, now)
                vm.become(one.ACTIVE, one.PROLOG)
                self._driver(vm, now, self._timings.prolog_s, self._boot, _becomes(one.ACTIVE, one.PROLOG_FAILURE))
            else:
                self._start_move(vm, host.id, False, now)


def _is(*states: int) -> Callable[[OnedVm], bool]:
    return lambda vm: vm.state in states


def _runs(vm: OnedVm) -> bool:
    return vm.state == one.ACTIVE and vm.lcm_state == one.RUNNING


def _is_unknown(vm: OnedVm) -> bool:
    return vm.state == one.ACTIVE and vm.lcm_state == one.UNKNOWN


def _can_be_stopped(vm: OnedVm) -> bool:
    return _runs(vm) or _is_unknown(vm)


def _can_be_rescheduled(vm: OnedVm) -> bool:
    return vm.state == one.POWEROFF or _runs(vm) or _is_unknown(vm)


def _can_be_terminated(vm: OnedVm) -> bool:
    return _can_be_stopped(vm) or vm.state in (one.POWEROFF, one.SUSPENDED, one.PENDING)


def _becomes(state: int, lcm_state: int = 0) -> _Then:
    return lambda vm, _: vm.become(state, lcm_state)


_back_to_running = _becomes(one.ACTIVE, one.RUNNING)
_pending = _becomes(one.PENDING)
