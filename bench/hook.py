"""The peer of failover and recover-500: what OpenNebula's own host_error.rb does, on the same embedded oned.

Written after host_error.rb of OpenNebula 7.4 as it ships, with `-m -p 2`: it is started when oned shows the host in
ERROR, waits two monitoring intervals of 60 s, leaves if the host came back, runs the fence script, and orders `resched`
for the VMs on shared datastores, one after the other; the scheduler places them. The cloud's time is pretended, so that
minutes pass in a second; nothing else of it is. In the hook's favour: its fence script and its calls take no time.
"""

from __future__ import annotations

from bench.harness import Wrong
from ha_controller.sim import oned_model as one
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_model import History, OnedVm, Timings

SLEEPS_S = 2 * 60.0  #: -p 2, with the interval that the script takes where oned.conf has none
STEP_S, END_MAX_S = 0.05, 7200.0


class PretendedCloud:
    """An embedded cloud whose clock is ours; its sockets are never opened."""

    def __init__(self, *, hosts: int, vms_per_host: int = 0, timings: Timings | None = None) -> None:
        """All is well, in the middle of oned's intervals, so that the hook waits neither least nor longest."""
        self.now = 1_000_000.0
        self.cloud = EmbeddedCloud(hosts=hosts, vms_per_host=vms_per_host, timings=timings, clock=lambda: self.now)
        self.until(lambda: False, at_most_s=7.5)

    def crowd(self, vms: int) -> None:
        """Let so many VMs run on the first host."""
        for number in range(vms):
            history = [History(seq=0, host=0, started_at=self.now)]
            self.cloud.oned.vms[number] = OnedVm(id=number, name=f"vm-{number:03}", history=history)
            self.cloud.hardware.start_vm(0, number)

    def until(self, holds, *, at_most_s: float = END_MAX_S) -> bool:  # type: ignore[no-untyped-def]
        """Let time pass until it holds; says whether it does."""
        ends = self.now + at_most_s
        while not holds():
            if self.now >= ends:
                return False
            self.now += STEP_S
            self.cloud.oned.advance(self.now)
        return True

    def fail_over(self, *, a_round: int | None = None) -> tuple[float, float]:
        """The first host loses its power; returns seconds until its VMs run elsewhere, and of these since the resched.

        `a_round`: so many VMs are placed in one round of the scheduler; None: any number.
        """
        cloud, began = self.cloud, self.now
        cloud.break_host(0, "power-loss")
        if not self.until(lambda: cloud.oned.hosts[0].state == one.ERROR):
            raise Wrong("oned never saw that the host is dead")
        self.until(lambda: False, at_most_s=SLEEPS_S)
        if cloud.oned.hosts[0].state != one.ERROR:
            raise Wrong("the host came back")
        waiting = [vm.id for vm in cloud.oned.vms.values() if vm.host == 0]
        ordered = self.now
        while waiting:
            now_due, waiting = waiting[:a_round], waiting[len(waiting) if a_round is None else a_round :]
            for vm in now_due:
                cloud.oned.lifecycle.action(vm, "resched", self.now)
            if not self.until(lambda due=now_due: all(cloud.oned.vms[vm].host != 0 for vm in due)):
                raise Wrong("the scheduler does not place them")
        if not self.until(lambda: all(vm.host != 0 and vm.lcm_state == one.RUNNING for vm in cloud.oned.vms.values())):
            raise Wrong("not all VMs run again")
        if problems := cloud.check(vms_must_wait=False):
            raise Wrong("; ".join(problems))
        return self.now - began, self.now - ordered
