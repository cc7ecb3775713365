"""oned's hosts, clock-driven and without I/O, as observed on a running oned 7.4.0; its VMs are in `oned_vms`.

What oned believes, not what is true: it asks the pretended hardware only where the real one would (beacons, monitoring
over SSH). Errors have oned's codes and texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from ha_controller.sim import oned_model as one
from ha_controller.sim.hardware import Hardware
from ha_controller.sim.oned_model import Datastore, OnedHost, OnedRefusal, OnedVm, Timings, VmGroup
from ha_controller.sim.oned_vms import VmLifecycle

REPORTS_EVERY_S = 1.0
IGNORED_AFTER_A_CHANGE_S = 30.0  #: what an agent says of a VM counts so long after its state changed
START_FAILURES = frozenset({36, 37, 47, 48})


class Oned:
    """What oned does, as time goes on and calls come in."""

    def __init__(self, hardware: Hardware, timings: Timings, now: float, *, datastores: Sequence[Datastore]) -> None:
        """An OpenNebula without hosts."""
        self.hosts: dict[int, OnedHost] = {}
        self.groups: list[VmGroup] = []
        self.datastores = {store.id: store for store in datastores}
        self.lifecycle = VmLifecycle(hardware, timings, self.hosts, self.datastores, now)
        self.timings = timings
        self._hardware = hardware
        self._timer_at = now + timings.manager_timer_s
        self._reports_at = now

    @property
    def vms(self) -> dict[int, OnedVm]:
        """All VMs by id."""
        return self.lifecycle.vms

    def snapshot(self) -> Oned:
        """A copy to be read, in which time stands still: what a follower of a zone has."""
        taken = copy(self)
        taken.hosts = {number: host.snapshot() for number, host in self.hosts.items()}
        taken.groups = list(self.groups)
        taken.lifecycle = self.lifecycle.snapshot(taken.hosts)
        return taken

    # --- time ---

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._hear(now)
        if self._timer_at <= now:
            late_s = (now - self._timer_at) % self.timings.manager_timer_s
            self._timer_at = now + self.timings.manager_timer_s - late_s
            self._look_for_silence(now)
        for host in self.hosts.values():
            if host.probe_due_at is not None and host.probe_due_at <= now:
                host.probe_due_at = None
                self._probed(host, now)
        if self._reports_at <= now:
            self._reports_at = now + REPORTS_EVERY_S
            self._take_reports(now)
        self.lifecycle.advance(now)

    @property
    def is_behind(self) -> bool:
        """Whether it will notice by itself what it does not know yet: a VM that does not run on a host that lives."""
        machines = self._hardware.machines
        return any(
            vm.state == one.ACTIVE
            and vm.lcm_state in (one.UNKNOWN, one.RUNNING)
            and vm.host is not None
            and vm.id not in machines[vm.host].vms
            and self.hosts[vm.host].state != one.OFFLINE
            and self._hardware.answers(vm.host)
            for vm in self.vms.values()
        )

    def _take_reports(self, now: float) -> None:
        """What the agents of living hosts say of their VMs. An agent ends with its host's boot."""
        machines = self._hardware.machines
        reporting = {
            number
            for number, host in self.hosts.items()
            if host.state != one.OFFLINE
            and machines[number].boots == host.monitored_boot
            and self._hardware.heard(number)
        }
        for vm in self.vms.values():
            at = vm.host
            if vm.state != one.ACTIVE or at not in reporting:
                vm.missing_since = None
            elif vm.id in machines[at].vms:
                vm.missing_since = None
                if vm.lcm_state in START_FAILURES:
                    vm.lcm_state = one.RUNNING
            elif vm.lcm_state == one.RUNNING:
                vm.missing_since = now if vm.missing_since is None else vm.missing_since
                if now - vm.missing_since >= IGNORED_AFTER_A_CHANGE_S:
                    vm.become(one.POWEROFF)
                    vm.history[-1].found_missing_at = now

    def _hear(self, now: float) -> None:
        """Beacons of living hosts, from agents that end with their host's boot; OFFLINE hosts are not listened to."""
        for host in self.hosts.values():
            agent_runs = self._hardware.machines[host.id].boots == host.monitored_boot
            if host.state == one.OFFLINE or not agent_runs or not self._hardware.heard(host.id):
                continue
            host.heard_at = now
            if host.state != one.ERROR and now - host.monitored_at >= self.timings.monitor_host_s:
                host.monitored_at = now

    def _look_for_silence(self, now: float) -> None:
        for host in self.hosts.values():
            silent_s = now - host.heard_at
            watched = host.state != one.OFFLINE and host.probe_due_at is None
            if watched and silent_s > self.timings.monitoring_interval_s:
                self._probe(host, now)

    def _probe(self, host: OnedHost, now: float) -> None:
        """START_MONITOR: over SSH, so it takes as long as SSH takes."""
        alive = self._hardware.answers(host.id)
        host.probe_due_at = now + (self.timings.probe_s if alive else self.timings.ssh_timeout_s)

    def _probed(self, host: OnedHost, now: float) -> None:
        if host.state == one.OFFLINE:
            return
        if self._hardware.answers(host.id):
            host.heard_at = host.monitored_at = now
            host.attributes.pop("ERROR", None)
            host.monitored_boot = self._hardware.machines[host.id].boots
            if host.state in (one.INIT, one.ERROR):
                host.state = one.MONITORED
            self._host_is_back(host, now)
            return
        host.heard_at = now  # the next retry comes one interval later
        host.attributes["ERROR"] = f"Error monitoring Host {host.name} ({host.id}): "
        swept = host.state in (one.INIT, one.MONITORED, one.DISABLED)
        if host.state in (one.INIT, one.MONITORED):
            host.state = one.ERROR
        if swept:
            for vm in self.lifecycle.on_host(host.id):
                if vm.state == one.ACTIVE and vm.lcm_state == one.RUNNING:
                    vm.lcm_state, vm.resched = one.UNKNOWN, False

    def _host_is_back(self, host: OnedHost, now: float) -> None:
        """VMs that the agent does not report become POWEROFF, the others RUNNING; strangers are named, not killed."""
        reported = self._hardware.machines[host.id].vms
        mine = self.lifecycle.on_host(host.id)
        for vm in mine:
            if vm.state == one.ACTIVE and vm.lcm_state in (one.UNKNOWN, one.RUNNING):
                if vm.id in reported:
                    vm.lcm_state = one.RUNNING
                else:
                    vm.become(one.POWEROFF)
                    vm.history[-1].found_missing_at = now
        zombies = sorted(reported - {vm.id for vm in mine})
        host.attributes.pop("ZOMBIES", None)
        host.attributes.pop("TOTAL_ZOMBIES", None)
        if zombies:
            host.attributes |= {"TOTAL_ZOMBIES": str(len(zombies)), "ZOMBIES": ", ".join(map(str, zombies))}

    # --- calls ---

    def set_status(self, host_id: int, status: int, now: float) -> int:
        """one.host.status."""
        host = self.known("one.host.status", host_id)
        if status not in (0, 1, 2):
            raise OnedRefusal(one.INTERNAL, "[one.host.status] Wrong status code")
        if status == 1:
            host.state = one.DISABLED
        elif status == 2:
            host.state, host.probe_due_at = one.OFFLINE, None
        elif host.state == one.DISABLED:
            host.state = one.MONITORED
        elif host.state == one.OFFLINE:
            host.state = one.INIT
            self._probe(host, now)
        elif host.state == one.ERROR:
            host.state = one.INIT
        return host_id

    def update_host(self, host_id: int, attributes: dict[str, str | dict[str, str]], append: int) -> int:
        """one.host.update."""
        host = self.known("one.host.update", host_id)
        if not append:
            host.attributes.clear()
        host.attributes.update(attributes)
        return host_id

    def known(self, call: str, host: int) -> OnedHost:
        """A host; raises OnedRefusal NO_EXISTS."""
        if host not in self.hosts:
            raise OnedRefusal(one.NO_EXISTS, f"[{call}] Error getting host [{host}].", host)
        return self.hosts[host]
