"""The life of VMs in the embedded oned: what migrate, actions, recover and its scheduler make of them.

What oned believes, not what is true: its drivers ask the pretended hardware, and fail on a dead host after the time
that ssh takes. States, codes and texts are those of a running oned 7.4.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field

from ha_controller.sim import oned_model as one
from ha_controller.sim import oned_recover
from ha_controller.sim.hardware import Hardware
from ha_controller.sim.oned_model import Datastore, History, OnedHost, OnedRefusal, OnedVm, Timings
from ha_controller.sim.oned_recover import DELETE, DELETE_DB, RECREATE, Then

_Then = Callable[[OnedVm, float], None]


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
        self.files_fail: set[int] = set()  #: VMs whose disks cannot be moved
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

    def snapshot(self, hosts: Mapping[int, OnedHost]) -> VmLifecycle:
        """A copy to be read; nothing is ordered there."""
        taken = copy(self)
        taken.vms, taken._hosts = {number: vm.snapshot() for number, vm in self.vms.items()}, hosts
        return taken

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

    def _driver(
        self, vm: OnedVm, now: float, wait_s: float, then: _Then, failed: _Then, host: int | None = None
    ) -> None:
        """An action of the driver on the VM's host. Its result counts if the VM is still in the state that it is in."""
        answers = self._hardware.answers(vm.host if host is None else host)
        state, ends = (vm.state, vm.lcm_state), then if answers else failed

        def ended(vm: OnedVm, at: float) -> None:
            if (vm.state, vm.lcm_state) == state:
                ends(vm, at)

        self._later(vm, now + (wait_s if answers else self._timings.ssh_timeout_s), ended)

    @property
    def busy(self) -> bool:
        """Whether a driver has yet to answer."""
        return bool(self._due)

    def forget_drivers(self) -> None:
        """oned was restarted: what its drivers were doing has no answer any more."""
        self._due.clear()

    def on_host(self, host: int) -> list[OnedVm]:
        """The VMs that hold capacity there: one that migrates does on both hosts."""
        return [vm for vm in self.vms.values() if vm.holds_capacity() and host in vm.hosts]

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
        source, vm.resched = vm.host, False
        vm.lcm_state = one.MIGRATE if live else one.SAVE_MIGRATE
        self._place(vm, host, now)

        def saved(vm: OnedVm, now: float) -> None:
            self._hardware.stop_vm(source, vm.id)
            if live:
                self._booted(vm, now)
            else:
                self._files(vm, now, one.PROLOG_MIGRATE)

        self._driver(vm, now, self._timings.prolog_s, saved, self._back_to_running, source)

    def _back_to_running(self, vm: OnedVm, now: float) -> None:
        """The VM is said to run where it was before: a new record names that host again."""
        self._place(vm, vm.history[-2].host if len(vm.history) > 1 else vm.host, now)
        vm.become(one.ACTIVE, one.RUNNING)

    def _move_files(self, vm: OnedVm, host: int, now: float) -> None:
        """The store is shared: nothing is copied, and the old host is not asked."""
        moving = {one.POWEROFF: one.PROLOG_MIGRATE_POWEROFF, one.SUSPENDED: one.PROLOG_MIGRATE_SUSPEND}
        vm.resched = False
        self._place(vm, host, now)
        self._files(vm, now, moving.get(vm.state, one.PROLOG_MIGRATE_UNKNOWN))

    def _files(self, vm: OnedVm, now: float, lcm_state: int) -> None:
        """Move the disks, or make them. A shared store needs neither host, except for new disks."""
        vm.become(one.ACTIVE, lcm_state)
        failed = _becomes(one.ACTIVE, oned_recover.FILES_FAIL[lcm_state])
        if vm.id in self.files_fail:
            self._driver(vm, now, self._timings.prolog_s, failed, failed)
        elif lcm_state == one.PROLOG:
            self._driver(vm, now, self._timings.prolog_s, self._files_ready, failed)
        else:
            self._driver(vm, now, self._timings.prolog_s, self._files_ready, self._files_ready)

    def _files_ready(self, vm: OnedVm, now: float) -> None:
        state = oned_recover.FILES_END[vm.lcm_state]
        if state[0] == one.ACTIVE:
            self._boot(vm, now, state[1])
        else:
            vm.become(*state)

    @staticmethod
    def _place(vm: OnedVm, host: int, now: float) -> None:
        vm.history[-1].ended_at = now
        vm.history.append(History(seq=len(vm.history), host=host, started_at=now, ran=False))

    def _boot(self, vm: OnedVm, now: float, lcm_state: int = one.BOOT) -> None:
        vm.become(one.ACTIVE, lcm_state)
        self._driver(vm, now, self._timings.boot_s, self._booted, _becomes(*oned_recover.BOOT_FAILS[lcm_state]))

    def _booted(self, vm: OnedVm, now: float) -> None:
        del now
        if self._hardware.start_vm(vm.host, vm.id):
            vm.become(one.ACTIVE, one.RUNNING)
        else:
            vm.become(*oned_recover.BOOT_FAILS.get(vm.lcm_state, (one.ACTIVE, one.BOOT_FAILURE)))

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
        vm.history[-1].found_missing_at = 0.0
        self._boot(vm, now, one.BOOT_POWEROFF if vm.state == one.POWEROFF else one.BOOT_SUSPENDED)

    def _end(self, vm: OnedVm, now: float, through: int, state: int) -> None:
        """Stop the VM's process; on a dead host oned falls back to RUNNING, which is false."""
        vm.lcm_state = through

        def ended(vm: OnedVm, now: float) -> None:
            del now
            self._hardware.stop_vm(vm.host, vm.id)
            vm.become(state)

        self._driver(vm, now, self._timings.prolog_s, ended, _becomes(one.ACTIVE, one.RUNNING))

    def _terminate(self, vm: OnedVm, now: float) -> None:
        self._end(vm, now, one.SHUTDOWN, one.DONE)

    # --- one.vm.lock, one.vm.unlock ---

    def lock(self, call: str, vm_id: int, level: int) -> int:
        """Lock a VM at any level, which here is always "all", or with 0 unlock it."""
        self.known(call, vm_id).locked = level > 0
        return vm_id

    def update(self, vm_id: int, attributes: dict[str, str | dict[str, str]], append: int) -> int:
        """one.vm.update: the user template."""
        vm = self.known("one.vm.update", vm_id)
        if vm.locked:
            raise OnedRefusal(one.NOT_AUTHORIZED, f"[one.vm.update] User [0] : VM is locked. [{vm_id}].")
        if not append:
            vm.attributes.clear()
        vm.attributes.update(attributes)
        return vm_id

    # --- one.vm.recover ---

    def recover(self, vm_id: int, operation: int, now: float) -> int:
        """one.vm.recover: what has no effect is accepted, too."""
        call, vm = "one.vm.recover", self.known("one.vm.recover", vm_id)
        if operation not in range(6):
            raise OnedRefusal(one.ACTION, f"[{call}] Wrong recovery operation code")
        if vm.locked:
            raise OnedRefusal(one.NOT_AUTHORIZED, f"[{call}] User [0] : VM is locked. [{vm_id}].")
        if vm.state == one.DONE:
            what = {RECREATE: "delete-recreate a VM", DELETE: "delete a VM"}.get(operation, "recover a VM")
            raise OnedRefusal(one.ACTION, f"[{call}] Cannot {what} already in DONE state")
        if operation == RECREATE:
            vm.become(one.ACTIVE, one.CLEANUP_RESUBMIT)
            self._driver(vm, now, self._timings.prolog_s, _pending, _pending)
        elif operation in (DELETE, DELETE_DB):
            self._hardware.stop_vm(vm.host, vm.id)
            vm.become(one.DONE)
        elif vm.state == one.ACTIVE:
            self._recover_active(vm, operation, now)
        return vm_id

    def _recover_active(self, vm: OnedVm, operation: int, now: float) -> None:
        """What a state does not know is accepted and does nothing."""
        change = oned_recover.change(vm.lcm_state, operation)
        if change is None:
            return
        files = {failed: lcm for lcm, failed in oned_recover.FILES_FAIL.items()}.get(vm.lcm_state, vm.lcm_state)
        if change.back:
            self._place(vm, vm.history[-2].host if len(vm.history) > 1 else vm.host, now)
        vm.become(*change.state)
        match change.then:
            case Then.BOOT:
                self._boot(vm, now, vm.lcm_state)
            case Then.FILES:
                self._files(vm, now, files if files in oned_recover.FILES_FAIL else vm.lcm_state)
            case Then.FILES_READY | Then.BACK:
                self._files_ready(vm, now)
            case Then.EPILOG:
                gone = _becomes(*oned_recover.EPILOG_END[vm.lcm_state])
                failed = _becomes(one.ACTIVE, oned_recover.EPILOG_FAIL[vm.lcm_state])
                needs_host = vm.lcm_state == one.EPILOG  # the others leave the disks where they are
                self._driver(vm, now, self._timings.prolog_s, gone, failed if needs_host else gone)
            case Then.NOTHING:
                pass

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
                self._files(vm, now, one.PROLOG)
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


_pending = _becomes(one.PENDING)
