"""oned's own state machine for hosts and VMs, clock-driven and without I/O, as observed on a running oned 7.4.0.

What oned believes, not what is true: it asks the pretended hardware only where the real one would (monitoring, starting
a VM). Errors have oned's codes and texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ha_controller.sim.hardware import Hardware

INIT, MONITORED, ERROR, DISABLED, OFFLINE = 0, 2, 3, 4, 8
ACTIVE, SUSPENDED, DONE, POWEROFF = 3, 5, 6, 8
BOOT, RUNNING, SAVE_MIGRATE, UNKNOWN = 2, 3, 7, 16
BOOT_POWEROFF, BOOT_FAILURE, PROLOG_MIGRATE_POWEROFF, PROLOG_MIGRATE_UNKNOWN = 20, 36, 43, 60
NOT_AUTHORIZED, NO_EXISTS, ACTION, INTERNAL = 512, 1024, 2048, 8192

STATE_NAMES = {0: "INIT", 1: "PENDING", 2: "HOLD", 4: "STOPPED", 5: "SUSPENDED", 6: "DONE", 8: "POWEROFF"}
LCM_NAMES = {
    2: "BOOT", 3: "RUNNING", 7: "SAVE_MIGRATE", 16: "UNKNOWN", 20: "BOOT_POWEROFF", 36: "BOOT_FAILURE",
    43: "PROLOG_MIGRATE_POWEROFF", 60: "PROLOG_MIGRATE_UNKNOWN",
}  # fmt: skip


class OnedRefusal(Exception):
    """An error answer of oned."""

    def __init__(self, code: int, text: str, object_id: int = -1) -> None:
        super().__init__(text)
        self.code, self.text, self.object_id = code, text, object_id


@dataclass(frozen=True, kw_only=True)
class Timings:
    """oned's intervals, in seconds; the defaults are the stock ones."""

    monitoring_interval_s: float = 180.0  #: MONITORING_INTERVAL_HOST
    manager_timer_s: float = 15.0  #: MANAGER_TIMER
    monitor_host_s: float = 120.0  #: MONITOR_HOST: how often a healthy host's timestamp moves
    ssh_timeout_s: float = 3.0  #: how long its ssh takes to give up on a dead host
    probe_s: float = 0.3  #: how long it takes with a living one
    prolog_s: float = 0.05
    boot_s: float = 0.5


@dataclass(kw_only=True)
class OnedHost:
    """A host as oned keeps it."""

    id: int
    name: str
    cluster: int
    cluster_name: str
    state: int = MONITORED
    total_cpu: int = 6400
    total_mem_kb: int = 256 * 1024 * 1024
    attributes: dict[str, str] = field(default_factory=dict)
    heard_at: float = 0.0  #: last beacon
    monitored_at: float = 0.0
    probe_due_at: float | None = None

    @property
    def capacity_known(self) -> bool:
        """OFFLINE zeroes the capacity until the host was monitored again."""
        return self.state in (MONITORED, DISABLED, ERROR)


@dataclass(kw_only=True)
class History:
    """One history record of a VM."""

    seq: int
    host: int
    started_at: float
    ended_at: float = 0.0


@dataclass(kw_only=True)
class OnedVm:
    """A VM as oned keeps it."""

    id: int
    name: str
    state: int = ACTIVE
    lcm_state: int = RUNNING
    cpu: int = 100  #: hundredths of a core
    memory_mb: int = 1024
    datastore: int = 100
    locked: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    history: list[History] = field(default_factory=list)

    @property
    def host(self) -> int:
        """HID of the last history record."""
        return self.history[-1].host

    @property
    def label(self) -> str:
        """Its state in oned's words."""
        return LCM_NAMES[self.lcm_state] if self.state == ACTIVE else STATE_NAMES[self.state]


@dataclass(order=True)
class _Due:
    at: float
    number: int
    vm: int = field(compare=False)
    then: Callable[[OnedVm, float], None] = field(compare=False)


class Oned:
    """What oned does, as time goes on and calls come in."""

    def __init__(self, hardware: Hardware, timings: Timings, now: float) -> None:
        """An empty OpenNebula."""
        self.hosts: dict[int, OnedHost] = {}
        self.vms: dict[int, OnedVm] = {}
        self.timings = timings
        self._hardware = hardware
        self._due: list[_Due] = []
        self._counter = 0
        self._timer_at = now + timings.manager_timer_s

    # --- time ---

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._hear(now)
        while self._timer_at <= now:
            self._timer_at += self.timings.manager_timer_s
            self._look_for_silence(now)
        for host in self.hosts.values():
            if host.probe_due_at is not None and host.probe_due_at <= now:
                host.probe_due_at = None
                self._probed(host, now)
        while self._due and min(self._due).at <= now:
            due = min(self._due)
            self._due.remove(due)
            due.then(self.vms[due.vm], now)

    def _hear(self, now: float) -> None:
        """Beacons of living hosts; OFFLINE hosts are not listened to."""
        for host in self.hosts.values():
            if host.state == OFFLINE or not self._hardware.answers(host.id):
                continue
            host.heard_at = now
            if host.state != ERROR and now - host.monitored_at >= self.timings.monitor_host_s:
                host.monitored_at = now

    def _look_for_silence(self, now: float) -> None:
        for host in self.hosts.values():
            silent_s = now - host.heard_at
            if host.state != OFFLINE and host.probe_due_at is None and silent_s > self.timings.monitoring_interval_s:
                self._probe(host, now)

    def _probe(self, host: OnedHost, now: float) -> None:
        """START_MONITOR: over SSH, so it takes as long as SSH takes."""
        alive = self._hardware.answers(host.id)
        host.probe_due_at = now + (self.timings.probe_s if alive else self.timings.ssh_timeout_s)

    def _probed(self, host: OnedHost, now: float) -> None:
        if host.state == OFFLINE:
            return
        if self._hardware.answers(host.id):
            host.heard_at = host.monitored_at = now
            if host.state in (INIT, ERROR):
                host.state = MONITORED
                self._host_is_back(host)
            return
        host.heard_at = now  # the next retry comes one interval later
        swept = host.state in (INIT, MONITORED, DISABLED)
        if host.state in (INIT, MONITORED):
            host.state = ERROR
        if swept:
            for vm in self._vms_on(host.id):
                if vm.state == ACTIVE and vm.lcm_state == RUNNING:
                    vm.lcm_state = UNKNOWN

    def _host_is_back(self, host: OnedHost) -> None:
        """VMs that the agent does not report become POWEROFF, the others RUNNING."""
        for vm in self._vms_on(host.id):
            if vm.state == ACTIVE and vm.lcm_state in (UNKNOWN, RUNNING):
                if vm.id in self._hardware.machines[host.id].vms:
                    vm.lcm_state = RUNNING
                else:
                    vm.state, vm.lcm_state = POWEROFF, 0

    def _vms_on(self, host: int) -> list[OnedVm]:
        return [vm for vm in self.vms.values() if vm.state != DONE and vm.host == host]

    def _later(self, vm: OnedVm, at: float, then: Callable[[OnedVm, float], None]) -> None:
        self._counter += 1
        self._due.append(_Due(at, self._counter, vm.id, then))

    # --- capacity ---

    def usage(self, host: int) -> tuple[int, int]:
        """CPU (hundredths) and memory (KB) promised on a host."""
        vms = self._vms_on(host)
        return sum(vm.cpu for vm in vms), sum(vm.memory_mb for vm in vms) * 1024

    # --- calls ---

    def set_status(self, host_id: int, status: int, now: float) -> int:
        """one.host.status."""
        host = self._host("one.host.status", host_id)
        if status not in (0, 1, 2):
            raise OnedRefusal(INTERNAL, "[one.host.status] Wrong status code")
        if status == 1:
            host.state = DISABLED
        elif status == 2:
            host.state, host.probe_due_at = OFFLINE, None
        elif host.state == DISABLED:
            host.state = MONITORED
        elif host.state == OFFLINE:
            host.state = INIT
            self._probe(host, now)
        elif host.state == ERROR:
            host.state = INIT
        return host_id

    def migrate(self, vm_id: int, host_id: int, enforce: bool, now: float) -> int:
        """one.vm.migrate, cold."""
        call = "one.vm.migrate"
        host, vm = self._host(call, host_id), self._vm(call, vm_id)
        if vm.locked:
            raise OnedRefusal(NOT_AUTHORIZED, f"[{call}] User [0] : VM is locked. [{vm_id}].", vm_id)
        if host.state == OFFLINE:
            raise OnedRefusal(ACTION, f"[{call}] Host is offline, cannot use it to deploy VM")
        movable = vm.state in (POWEROFF, SUSPENDED) or (vm.state == ACTIVE and vm.lcm_state in (RUNNING, UNKNOWN))
        if not movable:
            raise OnedRefusal(ACTION, f"[{call}] Migrate action is not available for state {vm.label}")
        if vm.host == host_id:
            text = f"[{call}] VM is already running on host [{host_id}] and datastore [{vm.datastore}]"
            raise OnedRefusal(ACTION, text)
        self._refuse_other_cluster(call, vm, host)
        if enforce:
            self._refuse_overcommitment(call, vm, host)
        self._start_move(vm, host_id, now)
        return vm_id

    def _refuse_other_cluster(self, call: str, vm: OnedVm, host: OnedHost) -> None:
        at = self.hosts[vm.host].cluster
        if host.cluster != at:
            raise OnedRefusal(
                ACTION,
                f"[{call}] Cannot migrate  VM [{vm.id}] to host [{host.id}]. Host is in cluster [{host.cluster}], and "
                f"VM requires to be placed on cluster [{at}]",
            )

    def _refuse_overcommitment(self, call: str, vm: OnedVm, host: OnedHost) -> None:
        cpu, mem_kb = self.usage(host.id)
        text = f"[{call}] virtual machine [{vm.id}] does not fit in host [{host.id}]. Not enough"
        if vm.cpu > host.total_cpu - cpu:
            raise OnedRefusal(ACTION, f"{text} CPU: {vm.cpu}/{host.total_cpu - cpu}")
        if vm.memory_mb * 1024 > host.total_mem_kb - mem_kb:
            raise OnedRefusal(ACTION, f"{text} memory: {vm.memory_mb * 1024}/{host.total_mem_kb - mem_kb}")

    def _start_move(self, vm: OnedVm, host_id: int, now: float) -> None:
        timings, source = self.timings, vm.host
        if vm.state == ACTIVE and vm.lcm_state == RUNNING and not self._hardware.answers(source):
            vm.lcm_state = SAVE_MIGRATE  # the driver cannot save on a dead host: falls back to RUNNING there
            self._later(vm, now + timings.ssh_timeout_s, self._save_failed)
            return
        if vm.state == ACTIVE and vm.lcm_state == RUNNING:
            self._hardware.stop_vm(source, vm.id)
        vm.history[-1].ended_at = now
        vm.history.append(History(seq=len(vm.history), host=host_id, started_at=now))
        if vm.state == ACTIVE:
            vm.lcm_state = PROLOG_MIGRATE_UNKNOWN
            self._later(vm, now + timings.prolog_s, self._boot)
        else:
            before = vm.state
            vm.state, vm.lcm_state = ACTIVE, PROLOG_MIGRATE_POWEROFF
            self._later(vm, now + timings.prolog_s, lambda vm, _: self._rest(vm, before))

    def _save_failed(self, vm: OnedVm, now: float) -> None:
        del now
        vm.lcm_state = RUNNING

    def _rest(self, vm: OnedVm, state: int) -> None:
        vm.state, vm.lcm_state = state, 0

    def _boot(self, vm: OnedVm, now: float) -> None:
        vm.lcm_state = BOOT
        wait_s = self.timings.boot_s if self._hardware.answers(vm.host) else self.timings.ssh_timeout_s
        self._later(vm, now + wait_s, self._booted)

    def _booted(self, vm: OnedVm, now: float) -> None:
        del now
        vm.lcm_state = RUNNING if self._hardware.start_vm(vm.host, vm.id) else BOOT_FAILURE

    def action(self, vm_id: int, name: str, now: float) -> int:
        """one.vm.action: the ones that a failover may use."""
        call = "one.vm.action"
        vm = self._vm(call, vm_id)
        if name not in ("resume", "poweroff-hard", "resched", "unresched"):
            raise OnedRefusal(ACTION, f'[{call}] Action "{name}" is not supported')
        if name == "resume" and vm.state == POWEROFF:
            vm.state, vm.lcm_state = ACTIVE, BOOT_POWEROFF
            self._later(vm, now + self.timings.boot_s, self._booted)
        elif name == "poweroff-hard" and vm.state == ACTIVE and vm.lcm_state == RUNNING:
            self._hardware.stop_vm(vm.host, vm.id)
            vm.state, vm.lcm_state = POWEROFF, 0
        elif name in ("resume", "poweroff-hard"):
            text = f'[{call}] Error performing action "{name}": This action is not available for state {vm.label}'
            raise OnedRefusal(ACTION, text)
        return vm_id

    def recover(self, vm_id: int, operation: int) -> int:
        """one.vm.recover: 0 and 1 on UNKNOWN only write RUNNING into the database; the rest is accepted here."""
        call = "one.vm.recover"
        vm = self._vm(call, vm_id)
        if operation not in range(6):
            raise OnedRefusal(ACTION, f"[{call}] Wrong recovery operation code")
        if operation in (0, 1) and vm.state == ACTIVE and vm.lcm_state == UNKNOWN:
            vm.lcm_state = RUNNING
        return vm_id

    def update_host(self, host_id: int, attributes: dict[str, str]) -> int:
        """one.host.update, append."""
        self._host("one.host.update", host_id).attributes.update(attributes)
        return host_id

    def _host(self, call: str, host_id: int) -> OnedHost:
        if host_id not in self.hosts:
            raise OnedRefusal(NO_EXISTS, f"[{call}] Error getting host [{host_id}].", host_id)
        return self.hosts[host_id]

    def _vm(self, call: str, vm_id: int) -> OnedVm:
        if vm_id not in self.vms:
            raise OnedRefusal(NO_EXISTS, f"[{call}] Error getting virtual machine [{vm_id}].", vm_id)
        return self.vms[vm_id]

    def info_host(self, host_id: int) -> OnedHost:
        """one.host.info."""
        return self._host("one.host.info", host_id)

    def info_vm(self, vm_id: int) -> OnedVm:
        """one.vm.info."""
        return self._vm("one.vm.info", vm_id)
