"""What both levels of the simulator stand on: one cloud of one seed, its truth, its OpenNebula, and its time."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Protocol

from ha_controller.core.controller import Controller
from ha_controller.core.events import Event
from ha_controller.core.settings import Settings
from ha_controller.sim.core_level import layout
from ha_controller.sim.core_level.agenda import Act, Agenda
from ha_controller.sim.core_level.journal import Record
from ha_controller.sim.core_level.truth import Truth
from ha_controller.sim.oned_model import Datastore, History, OnedHost, OnedVm, Timings
from ha_controller.sim.oned_state import Oned

if TYPE_CHECKING:
    from ha_controller.sim.core_level.devices import Devices
    from ha_controller.sim.core_level.judge import Judge, Ledger
    from ha_controller.sim.core_level.people import People
    from ha_controller.sim.core_level.trouble import Trouble

HEAL_S = 5400.0  #: so long everybody has to bring all to an end
BEGIN = 1_000_000.0


class Executing(Protocol):
    """Whoever carries out orders."""

    @property
    def fencing(self) -> Container[int]:
        """Hosts whose devices are in use."""


class Asking(Protocol):
    """Whoever asks hosts."""

    @property
    def channels(self) -> Container[str]:
        """By their names."""


class Controlling(Protocol):
    """The process of a controller, as faults, people and checkers see it."""

    index: int
    name: str
    settings: Settings  #: as its configuration says now
    record: Record  #: what is durable
    ledger: Ledger  #: what the checkers note of it
    started_at: float
    paused_until: float

    @property
    def executor(self) -> Executing:
        """Its hands."""

    @property
    def probing(self) -> Asking:
        """Its eyes."""

    @property
    def controller(self) -> Controller | None:
        """Its core, if there is a process."""

    @property
    def is_up(self) -> bool:
        """Whether there is a process, even one that stands still."""

    @property
    def runs(self) -> bool:
        """Whether it does anything at this moment."""

    def clock(self) -> float:
        """The controller's seconds."""

    def post(self, event: Event) -> None:
        """Hand in an event."""

    def kill(self, down_s: float, why: str) -> None:
        """End it here and now; it is started again later."""

    def pause(self, for_s: float) -> None:
        """Let it stand still."""

    def after(self, delay_s: float, act: Act) -> None:
        """Do something in it later, if it lives then."""

    def check_devices(self) -> None:
        """Devices were mended: they are checked."""


class Leading(Protocol):
    """Whoever says which controller leads."""

    cut: set[int]  #: controllers that do not reach it

    @property
    def leader(self) -> Controlling | None:
        """The controller that holds the lead and runs."""

    def before_a_change(self) -> None:
        """Somebody is about to be cut off."""

    def take_away(self, for_s: float) -> None:
        """Somebody else leads for a while."""


class Stage:
    """A healthy cloud. Whoever controls it comes with the level."""

    judge: Judge
    trouble: Trouble
    devices: Devices
    people: People
    controllers: Sequence[Controlling]
    arbiter: Leading

    def __init__(self, drawn: layout.Layout, *, trace: bool) -> None:
        """All hosts run, with their VMs."""
        self.trace: list[str] | None = [] if trace else None
        self.agenda = Agenda(BEGIN)
        self.wall_offset_s = 0.0
        self.layout = drawn
        self.memory_mb = drawn.memory_mb  #: of each host
        self.truth = Truth(lambda: self.agenda.now)
        self.booted_at = dict.fromkeys(range(drawn.hosts), BEGIN)
        self.truth.on_note = self._noted
        timings = Timings(ssh_timeout_s=layout.SSH_TIMEOUT_S, prolog_s=drawn.migration_s)
        self.oned = Oned(
            self.truth, timings, BEGIN, datastores=[Datastore(id=100, name="s", shared=True, clusters=(0,))]
        )
        self._fill()

    def _fill(self) -> None:
        for host in range(self.layout.hosts):
            self.truth.add(host)
            self.truth.chassis_on[host], self.truth.feeds[host] = True, {"pdu-a": True, "pdu-b": True}
            self.truth.changed(host)
            self.oned.hosts[host] = OnedHost(
                id=host, name=f"kvm-{host:02}", cluster=0, cluster_name="default", heard_at=BEGIN, monitored_at=BEGIN,
                total_mem_kb=self.memory_mb * 1024,
            )  # fmt: skip
            for index in range(self.layout.vms[host]):
                number = host * 100 + index
                history = [History(seq=0, host=host, started_at=BEGIN)]
                name = f"vm-{number:04}"
                self.oned.vms[number] = OnedVm(id=number, name=name, memory_mb=layout.VM_MEMORY_MB, history=history)
                self.truth.start_vm(host, number)

    def add_memory(self) -> None:
        """Somebody puts more of it into every host."""
        self.memory_mb += layout.VM_MEMORY_MB * 4
        for host in self.oned.hosts.values():
            host.total_mem_kb = self.memory_mb * 1024

    @property
    def now(self) -> float:
        """Seconds of the world."""
        return self.agenda.now

    def happen(self, act: Act, *, is_news: bool = True) -> None:
        """Let something happen; whoever sleeps is woken."""
        raise NotImplementedError

    def news(self) -> None:
        """Something has happened."""

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
