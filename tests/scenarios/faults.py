"""The two small clouds of the core's tests, with faults that stories need, and a judge that looks at every order.

Devices refuse, ignore, lie, are slow; orders are lost, late, or answered to nobody; OpenNebula says nothing; the
controller dies right before or after an order. The truth about power is kept here, and no decision sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from oned_world import OnedCloud
from world import Cloud

from ha_controller.core import effects as fx
from ha_controller.core.controller import Decision
from ha_controller.core.events import (
    DrillReported,
    Event,
    FenceAccepted,
    FenceReported,
    FenceResult,
    HostOrderReported,
    MaintenanceMarked,
    MonitoringRestarted,
    OnedReadFailed,
    OrderResult,
    PoweredOn,
    PowerRead,
    TimePassed,
    VmOrderReported,
)
from ha_controller.core.model import Domain, Host, HostState, PowerState, Signal
from ha_controller.sim.hardware import Fault

CALM_AFTER_S, CALM_TICK_S, TICK_S = 5.0, 1.0, 0.2  #: where nothing happens, a second goes by at once
QUIET = (
    fx.ReadHost, fx.ReadPower, fx.WatchClosely, fx.Explain, fx.RenewOrders, fx.AskDomains, fx.AskReady, fx.AskNames,
    fx.WriteAttributes,
)  # fmt: skip
SEEN_FROM = {"neighbours": Domain.VANTAGE, "storage": Domain.STORAGE}


class Answers(NamedTuple):
    """What comes of an order to a device."""

    acts: bool  #: it switches
    read_off: bool
    refused: bool
    words: str


#: how a device takes an order to switch off
TEMPERS = {
    "works": Answers(True, True, False, "acknowledged; read off twice"),
    "refuses": Answers(False, False, True, "not supported in the present state"),
    "denies": Answers(False, False, True, "this account may only read"),
    "ignores": Answers(False, False, False, "acknowledged; not read off within 20 s"),
    "breaks": Answers(False, False, False, "bug in the fence agent: TypeError"),
    "lies": Answers(False, True, False, "acknowledged; read off twice"),
    "is silent": Answers(False, False, False, "no answer"),
    "acts unseen": Answers(True, False, False, "no answer to the order; not read off within 20 s"),
    "is another's": Answers(False, False, True, "it belongs to another machine; not used"),
}


@dataclass
class Faults(Cloud):
    """What can go wrong, beside what `Cloud` knows."""

    tempers: dict[tuple[int, str], str] = field(default_factory=dict)  #: (host, device) -> how it takes an order
    slow: dict[tuple[int, str], float] = field(default_factory=dict)  #: and how long it takes to be read off
    readings: dict[tuple[int, str], PowerState] = field(default_factory=dict)  #: what it says whatever is true
    feeds: dict[tuple[int, str], int] = field(default_factory=dict)  #: an outlet that feeds another host
    cut: set[tuple[int, str]] = field(default_factory=set)  #: outlets that were switched off
    powerless: set[int] = field(default_factory=set)  #: the truth
    booting_since: dict[int, float] = field(default_factory=dict)  #: hosts that got their power back
    late: dict[str, float] = field(default_factory=dict)  #: kinds of orders that take effect so much later
    unanswered: set[str] = field(default_factory=set)  #: kinds of orders that are done and not answered
    dies: dict[str, str] = field(default_factory=dict)  #: kinds of orders -> "before" or "after" the first of them
    works_on: dict[int, float | None] = field(default_factory=dict)  #: host in maintenance -> until when
    oned_says: str = ""  #: why OpenNebula answers nothing
    harm: list[str] = field(default_factory=list)  #: what must never happen, and did
    log: list[tuple[float, int, str]] = field(default_factory=list)  #: (when, before which effect, what happened)
    deaf_ears: bool = False  #: answers reach nobody: the controller is dead
    lives: int = 0  #: how often the controller was started
    pending: list[tuple[float, int, fx.Effect]] = field(default_factory=list)
    busy_at: float = 0.0
    every_probe: bool = False  #: time is never hurried

    # --- time ---

    def run(self, seconds: float) -> None:
        """As `Cloud.run`; where nothing has happened for a while, in greater steps."""
        end = self.now + seconds
        while self.now < end - 1e-6:
            done = len(self.effects)
            self._probe()
            self.feed(TimePassed())
            self._carry_out(done)
            if any(not isinstance(effect, QUIET) for _, effect in self.effects[done:]):
                self.busy_at = self.now
            is_calm = self.now - self.busy_at >= CALM_AFTER_S and not self.every_probe
            tick_s = CALM_TICK_S if is_calm else TICK_S
            self.now = round(min(self.now + tick_s, max(end, self.now + 0.05)), 3)

    def _probe(self) -> None:
        due = [each for each in self.pending if each[0] <= self.now]
        self.pending = [each for each in self.pending if each[0] > self.now]
        for _, life, effect in due:
            self.deaf_ears = life != self.lives
            super()._do(effect) if not isinstance(effect, fx.Fence) else self._fence(effect)
            self.deaf_ears = False
        for host in [host for host, until in self.works_on.items() if until is not None and until <= self.now]:
            self.take_in_maintenance(host, on=False)
            self.inventory()
        super()._probe()

    # --- what reaches the controller ---

    def feed(self, event: Event) -> Decision:
        """Nothing reaches a dead controller."""
        return Decision() if self.deaf_ears else super().feed(event)

    def inventory(self) -> None:
        """OpenNebula may say nothing."""
        if self.oned_says:
            self.feed(OnedReadFailed(detail=self.oned_says))
        else:
            super().inventory()

    def host(self, host: int) -> Host:
        """With what a person, or we, have written on it."""
        known = super().host(host)
        changes: dict[str, Any] = {
            "maintenance": host in self.works_on,
            "marked": host in self.marked,
            "places": self.places.get(host, ()),
        }
        if host in self.excluded:
            changes["excluded"] = self.excluded[host]
        return replace(known, cluster_name=self.cluster_names.get(host, known.cluster_name), **changes)

    def restart(self) -> None:
        """The controller dies and comes back; orders that are under way go on without it."""
        self.lives += 1
        super().restart()

    # --- orders ---

    def carry_out(self, begin: int) -> None:
        """Carry out what was ordered since."""
        self._carry_out(begin)

    def _carry_out(self, begin: int) -> None:
        index = begin
        while index < len(self.effects):
            effect = self.effects[index][1]
            index += 1
            kind = type(effect).__name__
            if type(effect) in self.deaf:
                continue
            self._judge(effect)
            death = self.dies.pop(kind, "")
            if death:
                self._die_at(effect, death)
                return
            if kind in self.late:
                self.pending.append((self.now + self.late[kind], self.lives, effect))
                continue
            self.deaf_ears = kind in self.unanswered
            self._do(effect)
            self.deaf_ears = False

    def _die_at(self, effect: fx.Effect, death: str) -> None:
        """The decision is on disk. The order has left or not; nobody hears the answer."""
        if death == "after":
            self.deaf_ears = True
            self._do(effect)
            self.deaf_ears = False
        self.happens(f"the controller dies {death} the order, and is started again")
        self.restart()

    def happens(self, text: str) -> None:
        """A line of the log."""
        self.log.append((self.now, len(self.effects), text))

    def _judge(self, effect: fx.Effect) -> None:
        match effect:
            case fx.MoveVm(source=source) if source in self.hosts_dead() and self._has_power(source):
                self.harm.append(f"VM {effect.vm} was moved while host {source} had power")
            case fx.MoveVm(source=source) | fx.ResumeVm(host=source) if self.controller.state.term is None:
                self.harm.append(f"an order for VM {effect.vm} without the lead")

    def _has_power(self, host: int) -> bool:
        """And had it when the proof was last read: no host boots faster than a proof becomes old."""
        booting_s = self.now - self.booting_since.get(host, 0.0)
        return host not in self.powerless and booting_s > self.settings.proof_age_max_s

    def hosts_dead(self) -> set[int]:
        """Hosts of open incidents that were powered off."""
        incidents = self.controller.state.incidents
        return {host for host, known in incidents.items() if known.fenced_at is not None and not known.rebooted}

    def _do(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Fence():
                self._fence_when_due(effect)
            case fx.ReadPower(host=host, devices=devices):
                states = tuple((name, self.power_of(host, name)) for name in devices)
                self.feed(PowerRead(host=host, asked_at=self.now, states=states))
            case fx.ReadHost(host=host) if self.oned_says:
                self.feed(OnedReadFailed(host=host, detail=self.oned_says))
            case fx.OrderHost() if self.oned_says:
                keys = {"host": effect.host, "incident": effect.incident, "step": effect.step}
                self.feed(HostOrderReported(**keys, result=OrderResult.UNKNOWN, detail=self.oned_says))
            case fx.OrderHost(host=host):
                (self.marked.add if effect.step is fx.HostStep.DISABLE else self.marked.discard)(host)
                super()._do(effect)
            case fx.MoveVm() | fx.ResumeVm() | fx.RecoverVm() if self.oned_says:
                order = {"vm": effect.vm, "incident": effect.incident, "attempt": effect.attempt}
                self.feed(VmOrderReported(**order, result=OrderResult.UNKNOWN, detail=self.oned_says))
            case fx.PowerOn(host=host) if not self.power_on_fails:
                self.power_on(host)
                self.feed(PoweredOn(host=host, incident=effect.incident))
            case fx.RestartMonitoring(host=host):
                self.feed(MonitoringRestarted(host=host, failure=self.oned_says))
            case fx.MarkMaintenance(host=host):
                self.take_in_maintenance(host, on=effect.on, until=effect.until, why=effect.reason)
                self.feed(MaintenanceMarked(host=host, request=effect.request, failure=self.oned_says))
                self.inventory()
            case fx.Drill():
                self._drill(effect)
            case _:
                super()._do(effect)

    # --- power ---

    def kill(self, host: int, power: str = "on") -> None:
        """The host falls silent; its BMC says `power` ("mute": nothing, it has no power either)."""
        super().kill(host, power)
        if power != "on":
            self._without_power(host)

    def _without_power(self, host: int) -> None:
        self.powerless.add(host)
        for channel in [name for name in self.elsewhere if name in SEEN_FROM]:  # nobody sees it any more
            self.elsewhere[channel].setdefault(host, Signal.SILENT)

    def power_of(self, host: int, device: str) -> PowerState:
        """What a device says when it is read."""
        if (host, device) in self.readings:
            return self.readings[host, device]
        if self.is_outlet(device):
            return PowerState.OFF if (host, device) in self.cut else PowerState.ON
        power = self.dead.get(host, "on")
        return PowerState.UNKNOWN if power == "mute" else PowerState(power)

    def is_outlet(self, device: str) -> bool:
        """Whether it has a power of its own."""
        return any(each.outlet for level in self.levels for each in level if each.name == device)

    def power_on(self, host: int) -> None:
        """It has power again; it boots, and answers later or never."""
        self.powerless.discard(host)
        self.booting_since[host] = self.now
        self.cut = {each for each in self.cut if each[0] != host}
        self.dead[host] = "on"

    def _fence_when_due(self, order: fx.Fence) -> None:
        keys = {"host": order.host, "incident": order.incident, "attempt": order.attempt}
        if self.controller.state.term is None:
            detail = "not sent: too late, or we no longer lead"
            self.feed(FenceReported(**keys, result=FenceResult.NOT_SENT, off_read_at=None, detail=detail))
            return
        tempers = {name: self.tempers.get((order.host, name), "works") for name in order.devices}
        if "is stuck" in tempers.values():
            return  # no report ever comes
        if waits := [self.slow[order.host, name] for name in order.devices if (order.host, name) in self.slow]:
            if order.send:
                self.feed(FenceAccepted(**keys))
            self.pending.append((self.now + max(waits), self.lives, order))
            return
        self._fence(order)

    def _fence(self, order: fx.Fence) -> None:
        host = order.host
        answers: dict[str, Answers] = {}
        for name in order.devices:
            temper = self.tempers.get((host, name), "works")
            if temper == "works" and self.dead.get(host) == "mute" and not self.is_outlet(name):
                temper = "is silent"
            answers[name] = TEMPERS[temper]
            if order.send and answers[name].acts:
                self._switch_off(host, name)
        keys = {"host": host, "incident": order.incident, "attempt": order.attempt}
        words = {name: each.words if self._reads(name) else each.words.split(";")[0] for name, each in answers.items()}
        detail = "; ".join(f"{name}: {said}" for name, said in sorted(words.items()))
        others = tuple(name for name in order.devices if self.tempers.get((host, name)) == "is another's")
        proving = [name for name in order.devices if self._reads(name)]
        if order.send and all(each.words.startswith("acknowledged") for each in answers.values()):
            self.feed(FenceAccepted(**keys))
        is_off = bool(proving) and all(self._read_off(host, name, answers[name]) for name in proving)
        if is_off:
            self.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=self.now, detail=detail))
            return
        refused = order.send and all(each.refused for each in answers.values())
        result = FenceResult.REFUSED if refused else FenceResult.UNVERIFIED
        self.feed(FenceReported(**keys, result=result, off_read_at=None, detail=detail, mismatched=others))

    def _read_off(self, host: int, device: str, answer: Answers) -> bool:
        return answer.read_off and (not answer.acts or self.power_of(host, device) is PowerState.OFF)

    def _reads(self, device: str) -> bool:
        return any(each.proves_off for level in self.levels for each in level if each.name == device)

    def _switch_off(self, host: int, device: str) -> None:
        known = [each for level in self.levels for each in level if each.name == device]
        if any(each.datastores is not None for each in known):
            return  # it takes the disks away, not the power
        fed = self.feeds.get((host, device), host)
        if self.is_outlet(device):
            self.cut.add((host, device))
            outlets = [each.name for level in self.levels for each in level if each.outlet]
            if not all((host, name) in self.cut for name in outlets):
                return  # the other supply feeds it
        if fed not in self.dead and fed not in self.frozen:
            self.harm.append(f"healthy host {fed} was powered off")
        self._without_power(fed)
        was = self.dead.get(fed)
        self.dead[fed] = "mute" if self.is_outlet(device) and was != "off" else "off"

    def _drill(self, effect: fx.Drill) -> None:
        prints = {each.name: each.fingerprint for level in self.levels for each in level}
        results = []
        for name in effect.devices:
            works = self.tempers.get((effect.host, name), "works") == "works"
            words = "read off, the host fell silent, and is back" if works else "it was not read off"
            results.append((name, prints[name], works, words))
        self.feed(DrillReported(host=effect.host, request=effect.request, results=tuple(results)))

    # --- people ---

    def take_in_maintenance(self, host: int, *, on: bool, until: float | None = None, why: str = "") -> None:
        """A person works on a host, or has ended that."""
        if on:
            self.works_on[host] = until
            self.excluded[host] = f"in maintenance: {why}" if why else "in maintenance"
        else:
            self.works_on.pop(host, None)
            self.excluded.pop(host, None)

    # --- what a story must hold at its end ---

    def untold(self) -> list[str]:
        """Hosts that wait without a reason that was told, and VMs of dead hosts that nobody knows of."""
        found = []
        told = "\n".join(effect.text for _, effect in self.effects if isinstance(effect, fx.Tell))
        for host, incident in sorted(self.controller.state.incidents.items()):
            waits = incident.state in (HostState.SUSPECT, HostState.FAILED, HostState.FENCED)
            why = incident.stopped or incident.hold
            if waits and not why and self.now - self.busy_at > 2 * CALM_AFTER_S:
                found.append(f"host {host} is {incident.state} and waits for nothing that is on record")
            if waits and why and why[:30] not in told and why.partition(":")[0] not in told:  # once for each kind
                found.append(f"host {host} waits, and nobody was told: {why}")
        return found

    def every_channel(self, hosts: Iterable[int], signal: Signal) -> None:
        """What neighbours and storage see of them."""
        for channel in [name for name in self.elsewhere if name in SEEN_FROM]:
            for host in hosts:
                self.elsewhere[channel][host] = signal


@dataclass
class PlainCloud(Faults):
    """VMs have places, and only a few states; everything is over at once."""


@dataclass
class CloudOfStates(Faults, OnedCloud):
    """The embedded OpenNebula and the real executor: VMs have all their states, and everything takes its time."""

    def kill(self, host: int, power: str = "on") -> None:
        """As it is for the machine, too."""
        fault = {"off": Fault.POWER_LOSS, "mute": Fault.CORD_PULLED, "on": Fault.HANG}[power]
        self.dead[host] = power
        if power != "on":
            self._without_power(host)
        self.hardware.break_machine(host, fault)

    def power_on(self, host: int) -> None:
        """The machine has power."""
        super().power_on(host)
        self.hardware.power(host, True)
        self.hardware.machines[host].mute = True

    def _switch_off(self, host: int, device: str) -> None:
        super()._switch_off(host, device)
        for each in self.powerless:
            self.hardware.power(each, False)
