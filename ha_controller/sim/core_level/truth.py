"""The truth: which VM really runs where, who has power, who can be reached by whom. Nobody in the world may ask it but
the checkers, the pretended devices and probes, and people who stand before a machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from ha_controller.sim.hardware import Hardware


class Shown(NamedTuple):
    """What can be seen of a machine; worked out when it changes, for it is looked at all the time."""

    kernel: bool  #: from the controller
    userland: bool
    beats: bool
    neighbours: bool
    loss: float


class Truth(Hardware):
    """All machines, as the embedded cloud has them, with the ways to them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives the world's seconds."""
        super().__init__(clock)
        self.cut_here: set[int] = set()  #: not reached from the controller and its front-end
        self.deaf: set[int] = set()  #: what is sent to them from here is lost; what they send arrives
        self.short_only: set[int] = set()  #: nothing longer than a ping comes back
        self.no_storage: set[int] = set()
        self.storage_out = False  #: for all of them
        self.strays: dict[int, set[int]] = {}  #: machine -> domains that are defined there and do not run
        self.lossy: dict[int, float] = {}  #: host -> share of lost packets
        self.chassis_on: dict[int, bool] = {}
        self.feeds: dict[int, dict[str, bool]] = {}  #: host -> outlet -> has power
        self.runs_on: defaultdict[int, set[int]] = defaultdict(set)  #: VM -> machines
        self.lost: dict[int, tuple[float, int]] = {}  #: VM -> when and with which machine it was lost, until it runs
        self.died_at: dict[int, float] = {}  #: machine -> since when nothing of it runs
        self.reachable_since: dict[int, float | None] = {}
        self.beating_since: dict[int, float | None] = {}
        self.silent_since: dict[int, float] = {}  #: of machines of which not even the kernel can be reached
        self.ill: set[int] = set()  #: machines of which some way shows no life
        self.shown: dict[int, Shown] = {}
        self.twice: list[str] = []  #: VMs that ran on two machines at once
        self.on_loss: Callable[[int, int], None] = lambda vm, machine: None
        self.on_note: Callable[[int, str, int | None], None] = lambda machine, what, vm: None

    # --- the ways to a machine ---

    def kernel_answers(self, machine: int) -> bool:
        """As seen from the controller and its front-end."""
        return machine not in self.cut_here and machine not in self.deaf and super().kernel_answers(machine)

    def answers(self, machine: int) -> bool:
        """Over SSH, from there."""
        return machine not in self.short_only and super().answers(machine)

    def lives(self, machine: int) -> bool:
        """Whether its programs run, whoever can see that."""
        known = self.machines[machine]
        return known.powered and not known.mute and not known.frozen

    def heard(self, machine: int) -> bool:
        """Its own packets arrive, also where ours do not."""
        return (machine in self.deaf and super().answers(machine)) or self.answers(machine)

    def neighbours_see(self, machine: int) -> bool:
        """Whether another host of the cloud reaches its kernel."""
        return super().kernel_answers(machine)

    def beats(self, machine: int) -> bool:
        """Whether it writes its heartbeat to the shared datastore."""
        return self.lives(machine) and machine not in self.no_storage and not self.storage_out

    def beats_seen_for(self, machine: int) -> float:
        """For how long its heartbeat has moved without a gap."""
        since = self.beating_since.get(machine)
        return 0.0 if since is None else self._clock() - since

    def is_well(self, machine: int) -> bool:
        """Whether every way to it shows life."""
        return self.answers(machine) and self.beats(machine) and machine not in self.lossy

    # --- power ---

    def supply(self, machine: int, *, chassis: bool | None = None, **feeds: bool) -> None:
        """Switch the chassis or outlets. The machine has power with its chassis on and any outlet with power."""
        self.chassis_on[machine] = self.chassis_on[machine] if chassis is None else chassis
        self.feeds[machine].update(feeds)
        self.power(machine, self.chassis_on[machine] and any(self.feeds[machine].values()))

    def has_standby(self, machine: int) -> bool:
        """Whether its BMC has power."""
        return any(self.feeds[machine].values())

    # --- what the checkers need ---

    def start_vm(self, machine: int, vm: int) -> bool:
        """Start a VM process, and see whether it runs elsewhere."""
        started = super().start_vm(machine, vm)
        if started:
            self.lost.pop(vm, None)
            self.runs_on[vm].add(machine)
            if len(self.runs_on[vm]) > 1:
                self.twice.append(f"VM {vm} runs on machines {sorted(self.runs_on[vm])} at once")
        return started

    def stop_vm(self, machine: int, vm: int) -> None:
        """End a VM process."""
        super().stop_vm(machine, vm)
        self.runs_on[vm].discard(machine)

    def power(self, machine: int, on: bool) -> None:
        """Change the power; VMs that ran there are lost."""
        if not on:
            self.strays.pop(machine, None)
        self._lose(machine, not on)
        super().power(machine, on)
        self._note_life(machine)

    def reboot(self, machine: int) -> None:
        """Its VMs are lost, and nobody has seen it silent."""
        self._lose(machine, True)
        super().reboot(machine)
        self.strays.pop(machine, None)
        self.machines[machine].mute = self.machines[machine].frozen = False
        self._note_life(machine)

    def _lose(self, machine: int, ends: bool) -> None:
        if ends:
            for vm in self.machines[machine].vms:
                self.lost[vm] = (self._clock(), machine)
                self.on_loss(vm, machine)

    def _changed(self, machine: int) -> None:
        super()._changed(machine)
        self._note_life(machine)

    def changed(self, machine: int) -> None:
        """Somebody has changed how the machine lives or can be reached."""
        self._changed(machine)

    def _note_life(self, machine: int) -> None:
        known = self.machines[machine]
        if known.powered and not known.mute and not known.frozen:
            self.died_at.pop(machine, None)
        else:
            self.died_at.setdefault(machine, self._clock())
        (self.ill.discard if self.is_well(machine) else self.ill.add)(machine)
        self.shown[machine] = Shown(
            self.kernel_answers(machine), self.answers(machine), self.beats(machine), self.neighbours_see(machine),
            self.lossy.get(machine, 0.0),
        )  # fmt: skip
        if not self.shown[machine].beats:
            self.beating_since[machine] = None
        elif self.beating_since.get(machine) is None:
            self.beating_since[machine] = self._clock()
        if self.shown[machine].kernel:
            self.silent_since.pop(machine, None)
        else:
            self.silent_since.setdefault(machine, self._clock())
        seen = self.answers(machine) and not self.lossy.get(machine)
        if not seen:
            self.reachable_since[machine] = None
        elif self.reachable_since.get(machine) is None:
            self.reachable_since[machine] = self._clock()

    def _note(self, machine: int, what: str, vm: int | None = None) -> None:
        self.on_note(machine, what, vm)  # no log: years would not fit into memory
