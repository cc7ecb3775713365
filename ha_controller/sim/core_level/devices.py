"""The pretended fence devices: what a BMC, an outlet or a weak device reads and does, and how each of them lies.

A device lives on its own: what was ordered lands, whatever became of the controller that ordered it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ha_controller.core.model import PowerState
from ha_controller.sim.core_level.layout import BMC, CHASSIS, SAN

if TYPE_CHECKING:
    from ha_controller.sim.core_level.stage import Stage

SAMPLE_PERIOD_S = 4.0  #: a reading shows what was true at most so long ago: what the fencer's protocol is made for
LIES_ALONE_S = 3.5  #: so long a device may lie that no other device of its host could contradict


@dataclass(kw_only=True)
class Behaviour:
    """What is wrong with one device."""

    out_until: float = 0.0  #: answers nothing
    busy_until: float = 0.0  #: refuses orders, still reads
    slow_until: float = 0.0  #: acts late
    ignores: bool = False
    lies: bool = False  #: reads OFF after an order that it did not carry out
    lying_until: float = 0.0
    blind_until: float = 0.0  #: reads OFF, because it does not find what it is asked about
    wired_to: int | None = None  #: another machine
    stuck: bool = False  #: an outlet that does not switch
    history: list[tuple[float, bool]] = field(default_factory=list)  #: when it read on or off, newest last


class Devices:
    """All fence devices of the cloud."""

    def __init__(self, world: Stage) -> None:
        """All of them work."""
        self.world = world
        self.known = {
            (host, device.name): Behaviour()
            for host in range(world.layout.hosts)
            for device in world.layout.devices(host)
        }
        self.san_cut: set[int] = set()  #: hosts that are cut off from their storage until that is lifted

    def of(self, host: int, name: str) -> Behaviour:
        """One device."""
        return self.known[(host, name)]

    def machine_of(self, host: int, name: str) -> int:
        """The machine that it is really wired to."""
        wired = self.known[(host, name)].wired_to
        return host if wired is None else wired

    def answers(self, host: int, name: str) -> bool:
        """Whether it can be talked to."""
        device, machine = self.of(host, name), self.machine_of(host, name)
        if device.out_until > self.world.now or machine in self.world.trouble.bmcs_cut:
            return False
        return name == SAN or name != BMC or self.world.truth.has_standby(machine)

    def read(self, host: int, name: str) -> PowerState:
        """What it says of the power; UNKNOWN when it says nothing."""
        device = self.of(host, name)
        if name == SAN or not self.answers(host, name):
            return PowerState.UNKNOWN
        if max(device.lying_until, device.blind_until) > self.world.now:
            return PowerState.OFF
        return PowerState.ON if self._is_on(host, name) else PowerState.OFF

    def _is_on(self, host: int, name: str) -> bool:
        truth, machine = self.world.truth, self.machine_of(host, name)
        if name in CHASSIS:
            return truth.machines[machine].powered
        return truth.feeds[machine][name]

    def order_off(self, host: int, name: str) -> None:
        """An order has reached it. What it does about that comes now or later."""
        device = self.of(host, name)
        delay_s = self.world.trouble.dice.uniform(2, 12) if device.slow_until > self.world.now else 0.1
        if device.lies:
            others = [each for each in self.world.layout.devices(host) if each.name != name and each.proves_off]
            alone = all(each.outlet for each in others)  # an outlet that has power does not contradict a BMC
            device.lying_until = self.world.now + (LIES_ALONE_S if alone else 60.0)
            self.world.trouble.delivered["bmc-lies"] += 1
        elif device.ignores or device.stuck or device.blind_until > self.world.now:
            self.world.trouble.delivered["order ignored by its device"] += 1
        else:
            self.world.agenda.later(delay_s, lambda: self._land(host, name))

    def _land(self, host: int, name: str) -> None:
        truth, machine = self.world.truth, self.machine_of(host, name)
        if name == SAN:
            self.cut_storage(host, True)
            return
        self.world.judge.lands(host, machine, name)
        truth.supply(machine, **{"chassis" if name in CHASSIS else name: False})

    def order_on(self, host: int, name: str) -> None:
        """An order to switch power on has reached it."""
        if self.answers(host, name) and not self.of(host, name).stuck:
            self.world.truth.supply(self.machine_of(host, name), **{"chassis" if name in CHASSIS else name: True})

    def cut_storage(self, host: int, cut: bool) -> None:
        """The fabric lets a host to its storage, or not."""
        (self.san_cut.add if cut else self.san_cut.discard)(host)
        self.world.truth.changed(host)

    def repair(self, host: int, name: str) -> None:
        """Everything that was wrong with it is mended."""
        self.known[(host, name)] = Behaviour()
