"""Delivers the faults of the table, and takes them back."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from ha_controller.core.effects import MoveVm
from ha_controller.core.events import LeadChanged, OperatorCommanded, Verb
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.faults import FAULTS, Per, Rates
from ha_controller.sim.oned_model import ACTIVE, RUNNING, OnedRefusal, OnedVm

if TYPE_CHECKING:
    from ha_controller.sim.core_level.world import World


class Trouble:
    """What is wrong with the world, from one seed."""

    def __init__(self, world: World, dice: random.Random, rates: Rates) -> None:
        """Nothing is wrong yet."""
        self.world, self.dice, self.rates = world, dice, rates
        self.delivered: Counter[str] = Counter()
        self.journal_fails = self.journal_slow = self.oned_down = self.oned_slow = False
        self.bmcs_cut: set[int] = set()
        self.switched_off: set[int] = set()  #: hosts cut off with their rack
        self.passing = 0  #: troubles that end by themselves
        self.healing = False

    def strikes(self, name: str) -> bool:
        """Whether an aimed fault strikes at this moment."""
        if self.healing or self.dice.random() >= self.rates.of(name):
            return False
        self.delivered[name] += 1
        return True

    def down_s(self) -> float:
        """How long a killed controller is away."""
        return self.dice.choice((1.0, 3.0, 10.0, 60.0))

    def begin(self, ends: float) -> None:
        """Note the first fault of each kind."""
        for fault in FAULTS:
            if fault.per is Per.HOST_HOUR and self.rates.of(fault.name):
                self._next(fault.name, ends)

    def _next(self, name: str, ends: float) -> None:
        at = self.world.now + self.dice.expovariate(self.rates.of(name) * self.world.layout.hosts) * 3600

        def due() -> None:
            self._next(name, ends)
            self.world.happen(lambda: self._deliver(name))

        if at < ends:
            self.world.agenda.at(at, due)

    def _for(self, seconds: float, ends: Act) -> None:
        self.passing += 1

        def over() -> None:
            self.passing -= 1
            ends()

        self.world.agenda.later(seconds, lambda: self.world.happen(over))

    def _deliver(self, name: str) -> None:
        host = self.dice.randrange(self.world.layout.hosts)
        self.world.story(f"FAULT {name} (host {host})")
        self.delivered[name] += 1
        kind = name.split("-")[0]
        if kind in ("bmc", "wrong", "pdu"):
            self._device(name, host)
        elif kind in ("oned", "journal"):
            self._service(name)
        elif kind in ("crash", "pause", "clock", "lead", "vm"):
            self._controller(name)
        else:
            self._host(name, host)

    def _host(self, name: str, host: int) -> None:
        truth = self.world.truth
        machine = truth.machines[host]
        match name:
            case "power-loss":
                truth.supply(host, chassis=False)
            case "cord-pulled":
                truth.supply(host, **{"pdu-a": False, "pdu-b": False})
            case "hang" if machine.powered:
                machine.mute = True
            case "freeze" if machine.powered and not machine.mute:
                machine.mute = True
                self._for(self.dice.uniform(5, 120), lambda: self.thaw(host))
            case "self-reboot" if machine.powered:
                truth.reboot(host)
            case "partition":
                machine.cut_off = True
                self._for(self.dice.uniform(20, 400), lambda: self._reconnect(host))
            case "half-partition":
                truth.cut_here.add(host)
                self._for(self.dice.uniform(20, 400), lambda: self._reconnect(host))
            case "packet-loss":
                truth.lossy[host] = self.dice.uniform(0.05, 0.4)
                self._for(self.dice.uniform(60, 300), lambda: self._reconnect(host))
            case "rack-switch":
                self._switch(self.world.layout.racks[host])
        truth.changed(host)

    def _switch(self, rack: str) -> None:
        hosts = [host for host, where in enumerate(self.world.layout.racks) if where == rack]
        lasts_s = self.dice.uniform(20, 240)
        for host in hosts:
            self.world.truth.machines[host].cut_off = True
            self.bmcs_cut.add(host)
            self.switched_off.add(host)
            self.world.truth.changed(host)
            self._for(lasts_s + self.dice.uniform(0, 60), lambda host=host: self._reconnect(host))  # type: ignore[misc]

    def _reconnect(self, host: int) -> None:
        truth = self.world.truth
        truth.machines[host].cut_off = False
        truth.cut_here.discard(host)
        truth.lossy.pop(host, None)
        self.bmcs_cut.discard(host)
        self.switched_off.discard(host)
        truth.changed(host)

    def thaw(self, host: int) -> None:
        """It goes on as if nothing had been, unless it lost its power."""
        machine = self.world.truth.machines[host]
        if machine.powered:
            machine.mute = machine.frozen = False
            self.world.truth.changed(host)

    def _device(self, name: str, host: int) -> None:
        until, devices = self.world.now + self.dice.uniform(300, 3600), self.world.devices
        device = devices.of(
            host, "pdu-b" if name == "pdu-stuck" and (host, "pdu-b") in devices.known else self._bmc(host)
        )
        match name:
            case "bmc-dead":
                device.out_until = until
            case "bmc-slow":
                device.slow_until = until
            case "bmc-ignores":
                device.ignores = True
            case "bmc-lies":
                device.lies = True
            case "bmc-busy":
                device.busy_until = until
            case "pdu-stuck":
                device.stuck = True
            case "wrong-machine" if (host, "bmc") in devices.known and not self.world.process.record.open_of(host):
                devices.of(host, "bmc").wired_to = (host + 1) % self.world.layout.hosts
        self._for(1800, lambda: devices.repair(host, self._bmc(host)))

    def _bmc(self, host: int) -> str:
        return self.world.layout.levels[host][-1][0].name if (host, "bmc") not in self.world.devices.known else "bmc"

    def _service(self, name: str) -> None:
        if name == "oned-restart":
            self.world.oned.lifecycle.forget_drivers()
            return
        flag = name.replace("-", "_")
        setattr(self, flag, True)
        self._for(self.dice.uniform(30, 240), lambda: setattr(self, flag, False))

    def _controller(self, name: str) -> None:
        process = self.world.process
        match name:
            case "crash":
                process.kill(self.down_s(), "by chance")
            case "pause":
                process.pause(self.dice.uniform(3, 60))
            case "clock-back":
                self.world.wall_offset_s += self.dice.choice((-86400.0, -600.0, 600.0, 86400.0))
                process.kill(self.down_s(), "with a jump of the clock")
            case "lead-lost":
                self.world.term += 1
                process.post(LeadChanged(term=None, leader="the other controller"))
                self._for(self.dice.uniform(20, 300), self._lead_again)
            case "pause-pressed":
                self._press(Verb.PAUSE)
                self._for(self.dice.uniform(60, 600), lambda: self._press(Verb.RESUME))
            case "vm-moved":
                self._move_a_vm()
            case "vm-taken-back":
                self._take_a_migration_back()

    def _lead_again(self) -> None:
        self.world.term += 1
        self.world.process.post(LeadChanged(term=self.world.term, inherited="the other controller has led"))

    def _press(self, verb: Verb) -> None:
        self.world.process.post(OperatorCommanded(request=0, verb=verb, who="eve"))

    def _take_a_migration_back(self) -> None:
        """oned does not see its end. Before its monitoring finds out where the VM is, the source dies or reboots."""
        truth, oned, dice = self.world.truth, self.world.oned, self.dice
        if (vm := self._move_a_vm()) is None:
            return
        source, goal = vm.history[-2].host, vm.host
        if dice.random() < 0.5:
            truth.stop_vm(source, vm.id)
            truth.start_vm(goal, vm.id)
        oned.lifecycle.recover(vm.id, 0, self.world.now)
        end = (lambda: truth.supply(source, chassis=False)) if dice.random() < 0.6 else (lambda: truth.reboot(source))
        self.world.agenda.later(dice.uniform(0, 20), lambda: self.world.happen(end))

    def _move_a_vm(self) -> OnedVm | None:
        truth, oned = self.world.truth, self.world.oned
        healthy = [host for host in range(self.world.layout.hosts) if truth.is_well(host)]
        vms = [vm for vm in oned.vms.values() if (vm.state, vm.lcm_state) == (ACTIVE, RUNNING) and vm.host in healthy]
        vms = [vm for vm in vms if vm.id in truth.machines[vm.host].vms]  # a source without it refuses
        if vms and len(healthy) > 1:
            vm, goal = self.dice.choice(vms), oned.hosts[self.dice.choice(healthy)]
            try:
                oned.lifecycle.migrate(vm.id, goal, live=True, enforce=True, datastore=-1, now=self.world.now)
            except OnedRefusal:
                return None
            return vm
        return None

    # --- aimed ---

    def at_the_shot(self, machine: int) -> None:
        """A power-off has just left."""
        if self.world.truth.machines[machine].mute and self.strikes("thaw-at-the-shot"):
            self.world.agenda.later(self.dice.uniform(0, 8), lambda: self.thaw(machine))

    def after_off(self, host: int) -> None:
        """A host was read off."""
        if self.strikes("button"):
            self.world.agenda.later(self.dice.uniform(0, 30), lambda: self.power_on(host))

    def move_accepted(self, order: MoveVm) -> None:
        """oned has just taken a move."""
        if self.strikes("destination-dies"):
            goal = order.destination
            self.world.agenda.later(self.dice.uniform(0, 3), lambda: self.world.truth.supply(goal, chassis=False))

    def power_on(self, host: int) -> None:
        """Somebody presses the button: it boots."""
        self.world.truth.supply(host, chassis=True, **{"pdu-a": True, "pdu-b": True})

    def heal(self) -> None:
        """All that may be taken back is: only hosts that need a person's repair are left to people."""
        self.healing = True
        self.journal_fails = self.journal_slow = self.oned_down = self.oned_slow = False
        for host, name in self.world.devices.known:
            self.world.devices.repair(host, name)
            self.world.process.after(5.0, lambda host=host, name=name: self.world.check_device(host, name))  # type: ignore[misc]
        for host in range(self.world.layout.hosts):
            self._reconnect(host)
        self._press(Verb.RESUME)
