"""One cloud, one controller, one seed: puts the parts together and lets time pass.

A calm cloud is skipped: nothing is asked of it until something happens, and then everybody is asked first.
"""

from __future__ import annotations

import random

from ha_controller.core.events import DeviceChecked, LeadChanged, SecondMasterLooked, SelfChecked
from ha_controller.core.model import HostState, PowerState
from ha_controller.core.settings import Settings
from ha_controller.sim.core_level import layout
from ha_controller.sim.core_level.agenda import Act, Agenda
from ha_controller.sim.core_level.devices import Devices
from ha_controller.sim.core_level.executor import Executor
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.inventory import Inventory
from ha_controller.sim.core_level.judge import Judge, Violation
from ha_controller.sim.core_level.people import People
from ha_controller.sim.core_level.probing import Probing
from ha_controller.sim.core_level.process import Process
from ha_controller.sim.core_level.trouble import Trouble
from ha_controller.sim.core_level.truth import Truth
from ha_controller.sim.oned_model import Datastore, History, OnedHost, OnedVm, Timings
from ha_controller.sim.oned_state import Oned

HOT_S, WAITING_S, INVENTORY_S = 0.2, 1.0, 10.0
HEAL_S = 5400.0  #: so long everybody has to bring all to an end
BEGIN = 1_000_000.0


class World:
    """All of it."""

    def __init__(self, seed: int, hosts: int, rates: Rates, settings: Settings | None = None, trace: bool = False):
        """A healthy cloud with a controller that has just started."""
        dice = random.Random(seed)
        self.trace: list[str] | None = [] if trace else None
        self.agenda = Agenda(BEGIN)
        self.wall_offset_s, self.term = 0.0, 1
        self.layout = layout.draw(dice, hosts, settings)
        self.settings = self.layout.settings
        self.truth = Truth(lambda: self.agenda.now)
        self.booted_at = dict.fromkeys(range(hosts), BEGIN)
        self.truth.on_note = self._noted
        timings = Timings(ssh_timeout_s=layout.SSH_TIMEOUT_S)
        self.oned = Oned(
            self.truth, timings, BEGIN, datastores=[Datastore(id=100, name="s", shared=True, clusters=(0,))]
        )
        self._fill(hosts)
        self.judge, self.trouble = Judge(self), Trouble(self, dice, rates)
        self.devices, self.inventory = Devices(self), Inventory(self)
        self.process, self.probing, self.executor = Process(self), Probing(self), Executor(self)
        self.people = People(self)
        self._sleeps, self._oned_at = True, BEGIN
        self.process.start()
        self.wake()

    def _fill(self, hosts: int) -> None:
        for host in range(hosts):
            self.truth.add(host)
            self.truth.chassis_on[host], self.truth.feeds[host] = True, {"pdu-a": True, "pdu-b": True}
            self.truth.changed(host)
            self.oned.hosts[host] = OnedHost(
                id=host, name=f"kvm-{host:02}", cluster=0, cluster_name="default", heard_at=BEGIN, monitored_at=BEGIN,
                total_mem_kb=layout.HOST_MEMORY_MB * 1024,
            )  # fmt: skip
            for index in range(self.layout.vms[host]):
                number = host * 100 + index
                history = [History(seq=0, host=host, started_at=BEGIN)]
                name = f"vm-{number:04}"
                self.oned.vms[number] = OnedVm(id=number, name=name, memory_mb=layout.VM_MEMORY_MB, history=history)
                self.truth.start_vm(host, number)

    @property
    def now(self) -> float:
        """Seconds of the world."""
        return self.agenda.now

    def wall(self, moment: float) -> float:
        """A moment on the front-end's clock."""
        return moment + self.wall_offset_s

    def story(self, text: str) -> None:
        """A line for who wants to read what happened."""
        if self.trace is not None:
            self.trace.append(f"{self.now - BEGIN:10.1f}  {text}")

    def _noted(self, machine: int, what: str, vm: int | None) -> None:
        if what in ("power on", "reboot"):
            self.booted_at[machine] = self.now
        self.story(f"machine {machine}: {what}{'' if vm is None else f' {vm}'}")

    def introduce(self) -> None:
        """What a controller learns first."""
        post = self.process.post
        self.inventory.read()
        post(LeadChanged(term=self.term))
        post(SelfChecked(ok=True, detail="gateway answers"))
        post(SecondMasterLooked(present=False, detail="no failure hook"))
        self.probing.boots_at = 0.0
        for host in range(self.layout.hosts):
            for device in self.layout.devices(host):
                self.process.after(3.0, lambda host=host, name=device.name: self.check_device(host, name))  # type: ignore[misc]

    def check_device(self, host: int, name: str) -> None:
        """A check in peace time."""
        power = self.devices.read(host, name)
        device = next(each for each in self.layout.devices(host) if each.name == name)
        identity = layout.identity_of(self.devices.machine_of(host, name)) if device.tells_identity else None
        is_ok = power is not PowerState.UNKNOWN
        event = DeviceChecked(
            host=host, device=name, fingerprint=device.fingerprint, ok=is_ok, power=power,
            summary="read" if is_ok else "no answer", identity=identity if is_ok else None,
        )  # fmt: skip
        self.process.post(event)

    # --- time ---

    def happen(self, act: Act) -> None:
        """Let something happen: a calm cloud is looked at first, and again afterwards."""
        if self._sleeps:
            self._advance_oned()
            self.probing.steady_at = 0.0
            self.inventory.read()
            self.probing.look()
            self.process.round()
        act()
        self.wake()

    def wake(self) -> None:
        """Look again, turn after turn, until all is calm."""
        if self._sleeps:
            self._sleeps = False
            self.agenda.later(0.0, self._turn)

    def _advance_oned(self) -> None:
        self.oned.advance(self.now)
        self._oned_at = self.now

    def _turn(self) -> None:
        if self.now - self._oned_at >= 0.4:
            self._advance_oned()
        if self.process.runs:
            if self.now >= self.inventory.due_at:
                self.inventory.due_at = self.now + INVENTORY_S
                self.inventory.read()
            self.probing.look()
            self.process.round()
        self.judge.look()
        if self._is_calm():
            self._sleeps = True
        else:
            self.agenda.later(HOT_S if self._is_hot() else WAITING_S, self._turn)

    def _is_calm(self) -> bool:
        controller = self.process.controller
        if controller is None or not self.process.runs or self.now - self.process.started_at < 60:
            return False
        state = controller.state
        well = all(self.truth.is_well(host) for host in range(self.layout.hosts))
        return well and not (state.incidents or state.watched or state.confirming or self.trouble.passing)

    def _is_hot(self) -> bool:
        controller = self.process.controller
        if controller is None:
            return False
        state = controller.state
        waits = {each.host for each in state.incidents.values() if each.stopped or each.hold_needs_person}
        waits |= {host for host, view in state.views.items() if view.state is HostState.RECOVERED}
        return any(host not in waits for host in {*state.watched, *state.incidents})

    def run(self, hours: float) -> list[Violation]:
        """Faults for so many hours, then healing; returns what went wrong."""
        ends = self.now + hours * 3600
        self.trouble.begin(ends)
        self.people.begin()
        try:
            while self.agenda.step(ends):
                pass
            self.happen(self.trouble.heal)
            while self.agenda.step(ends + HEAL_S):
                pass
            self.judge.at_the_end()
        except Violation as found:
            self.story(f"VIOLATION {found}")
            return [found]
        return []
