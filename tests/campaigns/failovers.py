"""How many whole failovers the core decides per CPU second: events in, effects out, a world that only answers.

python tests/campaigns/failovers.py [--failovers 2000] [--vms 1] [--profile]

Each one goes all the way: silence, OFF, the incident, the power-off and its report, the probes since, the lever at
OpenNebula, every VM moved and seen RUNNING, RECOVERED, the host answers again and is given back. Healthy hosts make no
events: they answer before somebody has to be placed on them. Time jumps to the next answer. Every outcome is checked.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from dataclasses import replace

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Effect, Fence, HostStep, MoveVm, OrderHost, ReadHost, ReadPower
from ha_controller.core.events import (
    DeviceChecked,
    Event,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    HostOrderReported,
    HostRead,
    InventoryRead,
    LeadChanged,
    OperatorCommanded,
    OrderResult,
    PowerRead,
    SecondMasterLooked,
    SelfChecked,
    TimePassed,
    Verb,
    VmOrderReported,
)
from ha_controller.core.model import (
    Device,
    Domain,
    Host,
    HostState,
    OnedHostState,
    PowerState,
    Reading,
    Signal,
    Vm,
)
from ha_controller.core.settings import Channel, Mode, Settings

DAY_S = 86400.0
SETTINGS = Settings(
    mode=Mode.AUTO,
    channels=(
        Channel(name="icmp", domain=Domain.MANAGEMENT, proves_userland=False),
        Channel(name="ssh", domain=Domain.MANAGEMENT),
        Channel(name="bmc", domain=Domain.POWER),
    ),
    settle_s=0.0,
    quarantine_after=99,
)
AFTER = {HostStep.OFFLINE: 8, HostStep.ENABLE: 3, HostStep.DISABLE: 4, HostStep.RESTORE: 2}
ACTIVE, RUNNING, UNKNOWN = 3, 3, 16


class Cloud:
    """Hosts with one BMC each, their VMs, and the core."""

    def __init__(self, hosts: int, vms: int) -> None:
        """All is well, and known to be."""
        self.now, self.rounds = 1e6, 0
        self.one_states = dict.fromkeys(range(hosts), int(OnedHostState.MONITORED))
        self.vms = {
            host * 1000 + index: Vm(
                id=host * 1000 + index, name=f"vm-{host * 1000 + index}", state=ACTIVE, lcm_state=RUNNING, host=host,
                cluster=0, vm_mad="kvm", cpu=10, memory_mb=128, label="RUNNING",
            )
            for host in range(hosts)
            for index in range(vms)
        }  # fmt: skip
        self.controller = Controller(SETTINGS, self.now)
        self.step(self._inventory(), LeadChanged(term=1), SelfChecked(ok=True, detail=""))
        self.step(SecondMasterLooked(present=False, detail=""))
        self.step(*[
            DeviceChecked(host=host, device="bmc", fingerprint="", ok=True, power=PowerState.ON, summary="")
            for host in self.one_states
        ])  # fmt: skip

    def _inventory(self) -> InventoryRead:
        bmc = ((Device(name="bmc", identity_noted=True),),)
        return InventoryRead(
            hosts=tuple(
                Host(
                    id=host, name=f"kvm-{host}", cluster=0, cluster_name="default", one_state=state, vm_mad="kvm",
                    free_cpu=6400, free_memory_mb=65536, levels=bmc,
                    vms=tuple(vm.id for vm in self.vms.values() if vm.host == host),
                )
                for host, state in self.one_states.items()
            )
        )  # fmt: skip

    def step(self, *events: Event) -> list[Event]:
        """One round of the core; returns what answers its effects."""
        self.rounds += 1
        answers: list[Event] = []
        for effect in self.controller.round((*events, TimePassed()), self.now).effects:
            answers += self._answer(effect)
        return answers

    def _answer(self, effect: Effect) -> list[Event]:
        match effect:
            case ReadHost(host=host, vms=wanted):
                shown = tuple(vm for vm in self.vms.values() if vm.host == host or vm.id in wanted)
                return [HostRead(host=host, asked_at=self.now, one_state=self.one_states[host], vms=shown)]
            case ReadPower(host=host, devices=devices):
                off = tuple((name, PowerState.OFF) for name in devices)
                return [PowerRead(host=host, asked_at=self.now, states=off)]
            case Fence():
                keys = {"host": effect.host, "incident": effect.incident, "attempt": effect.attempt}
                self.now += 6.0
                report = FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=self.now - 0.1, detail="off")
                return [FenceAccepted(**keys), report]
            case OrderHost():
                self.one_states[effect.host] = AFTER[effect.step]
                if effect.step is HostStep.ENABLE:
                    self._unknown(effect.host)
                keys = {"host": effect.host, "incident": effect.incident, "step": effect.step}
                return [HostOrderReported(**keys, result=OrderResult.ACCEPTED, detail="")]
            case MoveVm():
                moved = replace(self.vms[effect.vm], host=effect.destination, lcm_state=RUNNING, label="RUNNING")
                self.vms[effect.vm] = moved
                keys = {"vm": effect.vm, "incident": effect.incident, "attempt": effect.attempt}
                return [VmOrderReported(**keys, result=OrderResult.ACCEPTED, detail="")]
            case _:
                return []

    def _unknown(self, host: int) -> None:
        for vm in [vm for vm in self.vms.values() if vm.host == host]:
            self.vms[vm.id] = replace(vm, lcm_state=UNKNOWN, label="UNKNOWN")

    def _readings(self, signal: Signal, hosts: list[int]) -> list[Event]:
        readings = tuple(Reading(host=host, signal=signal, sent_at=self.now) for host in hosts)
        return [EvidenceTaken(channel=channel, readings=readings) for channel in ("icmp", "ssh")]

    def fail_over(self, host: int) -> None:
        """From a host's last answer to its next one."""
        others = [each for each in self.one_states if each != host]
        answers: list[Event] = [self._inventory(), *self._readings(Signal.ALIVE, list(self.one_states))]
        for _ in range(200):
            answers = self.step(*answers)
            self.now += 0.2
            state = self.controller.state.views[host].state
            if state is HostState.RECOVERED:
                break
            answers += self._readings(Signal.SILENT, [host])
            if state is HostState.SUSPECT:
                off = Reading(host=host, signal=Signal.OFF, sent_at=self.now)
                answers.append(EvidenceTaken(channel="bmc", readings=(off,)))
            elif state is HostState.FENCED:
                answers += self._readings(Signal.ALIVE, others)
        assert self.controller.state.views[host].state is HostState.RECOVERED
        assert all(vm.host != host and vm.lcm_state == RUNNING for vm in self.vms.values())
        self._come_back(host)

    def _come_back(self, host: int) -> None:
        for _ in range(3):
            self.now += 6.0
            self.step(*self._readings(Signal.ALIVE, [host]))
        answers = self.step(OperatorCommanded(request=1, verb=Verb.UNFENCE, who="ann", host=host))
        for _ in range(5):
            self.now += 0.6
            answers = self.step(*answers)
        assert not self.controller.state.incidents, self.controller.state.incidents
        self.now += 2 * DAY_S  # no limit of the next one


def run(failovers: int, hosts: int, vms: int) -> tuple[float, int]:
    """Let hosts fail, one after the other; returns CPU seconds and rounds of the core."""
    cloud = Cloud(hosts, vms)
    cloud.fail_over(0)
    begun_at, before = time.process_time(), cloud.rounds
    for number in range(failovers):
        cloud.fail_over((number + 1) % hosts)
    return time.process_time() - begun_at, cloud.rounds - before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--failovers", type=int, default=2000)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--vms", type=int, default=1, help="of each host at the beginning")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    profile = cProfile.Profile()
    if args.profile:
        profile.enable()
    cpu_s, rounds = run(args.failovers, args.hosts, args.vms)
    profile.disable()
    if args.profile:
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)
    each_us = 1e6 * cpu_s / args.failovers
    print(f"{args.failovers / cpu_s:,.0f} failovers per CPU second: {each_us:,.0f} µs and "
          f"{rounds / args.failovers:.1f} rounds of the core each")  # fmt: skip


if __name__ == "__main__":
    main()
