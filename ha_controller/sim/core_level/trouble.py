"""Delivers the faults of the table, and takes them back."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from ha_controller.core.events import OperatorCommanded, SettingsChanged, Verb
from ha_controller.core.incident import Incident
from ha_controller.core.model import HostState
from ha_controller.sim.core_level.agenda import Act
from ha_controller.sim.core_level.faults import FAULTS, Per, Rates
from ha_controller.sim.core_level.layout import FABRIC
from ha_controller.sim.oned_model import ACTIVE, RUNNING, OnedRefusal, OnedVm

if TYPE_CHECKING:
    from ha_controller.sim.core_level.stage import Controlling, Stage


class Trouble:
    """What is wrong with the world, from one seed."""

    table = FAULTS

    def __init__(self, world: Stage, dice: random.Random, rates: Rates) -> None:
        """Nothing is wrong yet."""
        self.world, self.dice, self.rates = world, dice, rates
        self.delivered: Counter[str] = Counter()
        self.journal_fails = self.journal_slow = self.oned_down = self.oned_slow = False
        self.bmcs_cut: set[int] = set()
        self.switched_off: set[int] = set()  #: hosts cut off with their rack
        self._causes: dict[int, str] = {}  #: host -> what last struck it
        self.maintained: set[int] = set()  #: hosts on which a person works
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
        for fault in self.table:
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
        self.world.agenda.later(seconds, lambda: self.world.happen(ends))

    def _deliver(self, name: str) -> None:
        host = self.dice.randrange(self.world.layout.hosts)
        self.world.story(f"FAULT {name} (host {host})")
        self.delivered[name] += 1
        kind = name.split("-")[0]
        if kind in ("bmc", "wrong", "pdu", "fabric"):
            self._device(name, host)
        elif kind in ("oned", "journal"):
            self._service(name)
        elif name in ("crash", "pause", "clock-back", "lead-lost", "quorum-cut"):
            self._controller(name)
        elif name in ("vm-moved", "vm-taken-back", "pause-pressed", "hold-pressed", "maintenance", "reload"):
            self._person(name, host)
        elif name == "site-power":
            self._site()
        elif name == "storage-out":
            self._storage_out(True)
            self._for(self.dice.uniform(20, 300), lambda: self._storage_out(False))
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
            case "userland-hang" if machine.powered and not machine.mute:
                machine.frozen = True
            case "one-way":
                truth.deaf.add(host)
                self._for(self.dice.uniform(20, 400), lambda: self._reconnect(host))
            case "storage-lost":
                truth.no_storage.add(host)
                self._for(self.dice.uniform(20, 400), lambda: self._reconnect(host))
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
        if host in truth.ill:
            self._causes[host] = name
        if host in truth.ill and self.strikes("fence-ordered"):
            self._for(self.dice.uniform(2, 50), lambda: self._order_off(host))

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
        truth.deaf.discard(host)
        truth.no_storage.discard(host)
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
            case "fabric-blind" if (host, FABRIC) in devices.known:
                devices.of(host, FABRIC).blind_until = until
            case "pdu-stuck":
                device.stuck = True
            case "wrong-machine" if (host, "bmc") in devices.known and not self._is_open(host):
                devices.of(host, "bmc").wired_to = (host + 1) % self.world.layout.hosts
        self._for(1800, lambda: devices.repair(host, self._bmc(host)))

    def _bmc(self, host: int) -> str:
        return self.world.layout.levels[host][-1][0].name if (host, "bmc") not in self.world.devices.known else "bmc"

    def cause_of(self, host: int) -> str:
        """What last struck a host."""
        return self._causes.get(host, "nothing")

    def _service(self, name: str) -> None:
        if name == "oned-restart":
            self.world.oned.lifecycle.forget_drivers()
            return
        flag = name.replace("-", "_")
        setattr(self, flag, True)
        self._for(self.dice.uniform(30, 240), lambda: setattr(self, flag, False))

    def _is_open(self, host: int) -> bool:
        return any(process.record.open_of(host) for process in self.world.controllers)

    def _controller(self, name: str) -> None:
        world = self.world
        process = self.dice.choice(world.controllers)
        match name:
            case "crash":
                process.kill(self.down_s(), "by chance")
            case "pause":
                process.pause(self.dice.uniform(3, 60))
            case "clock-back":
                world.wall_offset_s += self.dice.choice((-86400.0, -600.0, 600.0, 86400.0))
                for each in world.controllers:
                    each.kill(self.down_s(), "with a jump of the clock")
            case "lead-lost":
                world.arbiter.take_away(self.dice.uniform(20, 300) if len(world.controllers) == 1 else 0.0)
            case "quorum-cut":
                world.arbiter.before_a_change()
                world.arbiter.cut.add(process.index)
                self._for(self.dice.uniform(3, 120), lambda: world.arbiter.cut.discard(process.index))

    def _site(self) -> None:
        """All of it loses its power; most of it boots when that is back."""
        world, lasts_s = self.world, self.dice.uniform(60, 1800)
        for process in world.controllers:
            process.kill(lasts_s + self.dice.uniform(20, 120), "the site has no power")
        for host in range(world.layout.hosts):
            world.truth.supply(host, **{"pdu-a": False, "pdu-b": False})
            self._causes[host] = "site-power"
            self._for(lasts_s + self.dice.uniform(0, 200), lambda host=host: self._power_returns(host))  # type: ignore[misc]
        self.oned_down = True
        self._for(lasts_s + 10.0, lambda: self._oned_boots())

    def _oned_boots(self) -> None:
        self.oned_down = False
        self.world.oned.lifecycle.forget_drivers()

    def _power_returns(self, host: int) -> None:
        """Not every host boots by itself."""
        boots = self.dice.random() < 0.8
        self.world.truth.supply(host, chassis=boots, **{"pdu-a": True, "pdu-b": True})

    def _storage_out(self, out: bool) -> None:
        self.world.truth.storage_out = out
        for host in range(self.world.layout.hosts):
            self.world.truth.changed(host)

    # --- people ---

    def _person(self, name: str, host: int) -> None:
        leader = self.world.arbiter.leader
        if name == "vm-moved":
            self._move_a_vm()
        elif name == "vm-taken-back":
            self._take_a_migration_back()
        elif name == "maintenance":
            self._maintain(host)
        elif name == "reload":
            self._reload()
        elif leader is None or leader.controller is None:
            self.delivered[name] -= 1
        elif name == "pause-pressed":
            self._pause(self.dice.uniform(60, 600))
        elif name == "hold-pressed":
            self._hold(leader)

    def _hold(self, leader: Controlling) -> None:
        """Of all incidents that are under way."""
        done = (HostState.RECOVERED, HostState.OK)
        for incident in [each for each in leader.record.incidents.values() if each.open and each.state not in done]:
            self.world.people.order(leader, Verb.HOLD, incident)

            def release(incident: Incident = incident) -> None:
                self.world.people.order(leader, Verb.RELEASE, incident)

            self._for(self.dice.uniform(10, 300), release)

    def _order_off(self, host: int) -> None:
        """She saw it silent. The order may come too early or too late, and nobody may be harmed by it."""
        if (leader := self.world.arbiter.leader) is not None:
            self.world.people.order(leader, Verb.FENCE, host=host)

    def _maintain(self, host: int) -> None:
        if host in self.maintained:
            return
        self.maintained.add(host)
        if self.dice.random() < 0.3 and self.world.truth.machines[host].powered:
            at = self.dice.uniform(5, 200)
            self._for(at, lambda: self.world.truth.reboot(host) if self.world.truth.machines[host].powered else None)
        self._for(self.dice.uniform(300, 1500), lambda: self._maintained(host))

    def _maintained(self, host: int) -> None:
        self.world.people.end_maintenance(host)
        self.maintained.discard(host)

    def _reload(self) -> None:
        """Limits only: what is probed and how stays."""
        for process in self.world.controllers:
            changed = replace(
                process.settings,
                fences_max=self.dice.choice((1, 2, 3, 6)),
                moves_parallel=self.dice.choice((1, 2, 5)),
                canary_above=self.dice.choice((1, 2, 8)),
                fence_rounds_max=max(process.settings.fence_rounds_max, self.dice.choice((2, 3))),
            )
            if process.is_up:
                process.post(SettingsChanged(settings=changed))
            else:
                process.settings = changed

    def _pause(self, lasts_s: float) -> None:
        """Every other time it is to end by itself."""
        if int(lasts_s) % 2:
            self._press(Verb.PAUSE, for_s=lasts_s)
            return
        self._press(Verb.PAUSE)
        self._for(lasts_s, lambda: self._press(Verb.RESUME))

    def _press(self, verb: Verb, for_s: float | None = None) -> None:
        for process in self.world.controllers:
            process.post(OperatorCommanded(request=0, verb=verb, who="eve", for_s=for_s, here=True))

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
        end = (lambda: self._dies(source, "vm-taken-back")) if dice.random() < 0.6 else (lambda: truth.reboot(source))
        self.world.agenda.later(dice.uniform(0, 20), lambda: self.world.happen(end))

    def _move_a_vm(self) -> OnedVm | None:
        truth, oned = self.world.truth, self.world.oned
        healthy = [host for host in range(self.world.layout.hosts) if truth.is_well(host)]
        vms = [vm for vm in oned.vms.values() if (vm.state, vm.lcm_state) == (ACTIVE, RUNNING) and vm.host in healthy]
        vms = [vm for vm in vms if vm.id in truth.machines[vm.host].vms]  # a source without it refuses
        if vms and len(healthy) > 1:
            vm, goal = self.dice.choice(vms), oned.hosts[self.dice.choice(healthy)]
            try:
                source = vm.host
                oned.lifecycle.migrate(vm.id, goal, live=True, enforce=True, datastore=-1, now=self.world.now)
                if self.strikes("mover-dies"):
                    dies = self.dice.choice((source, goal.id))
                    self._for(self.dice.uniform(0, 5), lambda: self._dies(dies, "mover-dies"))
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

    def move_accepted(self, goal: int) -> None:
        """oned has just taken a move."""
        if self.strikes("destination-dies"):
            self.world.agenda.later(self.dice.uniform(0, 3), lambda: self._dies(goal, "destination-dies"))

    def _dies(self, host: int, cause: str) -> None:
        self._causes[host] = cause
        self.world.truth.supply(host, chassis=False)

    def power_on(self, host: int) -> None:
        """Somebody presses the button: it boots."""
        was_off = not self.world.truth.machines[host].powered
        self.world.truth.supply(host, chassis=True, **{"pdu-a": True, "pdu-b": True})
        if was_off and self.world.layout.settings.hosts_asked:
            self._leave_a_domain(host)

    def _leave_a_domain(self, host: int) -> None:
        """It was saved there, and is defined again at the boot. Nobody has started it yet."""
        runs_on = self.world.truth.runs_on
        elsewhere = [vm for vm in self.world.oned.vms if vm // 100 == host and runs_on[vm] and host not in runs_on[vm]]
        if elsewhere and self.strikes("leftover"):
            self.world.truth.strays[host] = {self.dice.choice(elsewhere)}

    def heal(self) -> None:
        """All that may be taken back is: only hosts that need a person's repair are left to people."""
        self.healing = True
        self.journal_fails = self.journal_slow = self.oned_down = self.oned_slow = False
        self._storage_out(False)
        self.world.arbiter.cut.clear()
        for host, name in self.world.devices.known:
            self.world.devices.repair(host, name)
        for host in range(self.world.layout.hosts):
            self._reconnect(host)
        for host in sorted(self.maintained):
            self._maintained(host)
        for process in self.world.controllers:
            process.after(5.0, process.check_devices)
        self._press(Verb.RESUME)
