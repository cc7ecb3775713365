"""The pretended probes: what each channel shows of each host, at the pace of the prober.

Answers are heard at once, silence after its time-out only. While the process stands still nothing is asked.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ha_controller.core.events import EvidenceTaken, HostIdentified
from ha_controller.core.model import PowerState, Reading, Signal
from ha_controller.sim import oned_model as one
from ha_controller.sim.core_level.layout import identity_of

if TYPE_CHECKING:
    from ha_controller.sim.core_level.process import Process
    from ha_controller.sim.core_level.world import World

STEADY_S, BOOT_S, TIMEOUT_S = 1.0, 30.0, 0.5
_SIGNALS = {PowerState.ON: Signal.ON, PowerState.OFF: Signal.OFF, PowerState.UNKNOWN: Signal.UNKNOWN}


class Probing:
    """All channels of one controller."""

    def __init__(self, world: World, process: Process) -> None:
        """Nobody is asked yet."""
        self.world, self.process = world, process
        self.channels = {channel.name for channel in world.layout.settings.channels}
        self.watched: set[int] = set()
        self.steady_at = self.slow_at = self.boots_at = 0.0
        self._late: list[tuple[float, str, Reading]] = []  #: silence that is not known yet
        self._monitored: dict[int, float] = {}

    def forget(self) -> None:
        """The process ended."""
        self.watched.clear()
        self._late.clear()
        self._monitored.clear()

    def look(self, pace_s: float) -> None:
        """One turn: suspects on all channels; all hosts if that is due. The next turn comes after `pace_s`."""
        now, hosts = self.world.now, range(self.world.layout.hosts)
        everyone = now >= self.steady_at
        asked = hosts if everyone else sorted(self.watched)
        readings: defaultdict[str, list[Reading]] = defaultdict(list)
        if self._late:
            for due in [due for due in self._late if due[0] <= now]:
                readings[due[1]].append(due[2])
            self._late = [due for due in self._late if due[0] > now]
        if asked:
            self._ask_here(asked, readings, everyone, waits=pace_s <= STEADY_S)
        if everyone:
            self.steady_at = now + max(STEADY_S, pace_s) - 0.01
        if self.watched and now >= self.slow_at:
            self.slow_at = now + STEADY_S
            self._ask_about_suspects(readings)
        if now >= self.boots_at or self.watched:
            self._ask_boots(hosts if now >= self.boots_at else sorted(self.watched), readings)
            self.boots_at = now + BOOT_S if now >= self.boots_at else self.boots_at
        for channel, found in readings.items():
            if channel in self.channels:
                self.process.post(EvidenceTaken(channel=channel, readings=tuple(found)))

    def _ask_here(
        self, asked: range | list[int], readings: defaultdict[str, list[Reading]], everyone: bool, *, waits: bool
    ) -> None:
        """Our own probes, and the storage when everybody is asked.

        Where looks are rare, nothing has changed for long: what is silent was asked a time-out ago.
        """
        shown, dice, sent_at = self.world.truth.shown, self.world.trouble.dice, self.process.clock()
        icmp, ssh, storage = readings["icmp"], readings["ssh"], readings["storage"]
        due_at, with_storage = self.world.now + TIMEOUT_S, everyone and "storage" in self.channels
        for host in asked:
            seen = shown[host]
            alive = Reading(host=host, signal=Signal.ALIVE, sent_at=sent_at)
            for channel, answers, heard in (("icmp", seen.kernel, icmp), ("ssh", seen.userland, ssh)):
                if answers and not (seen.loss and dice.random() < seen.loss):
                    heard.append(alive)
                elif not waits:
                    heard.append(Reading(host=host, signal=Signal.SILENT, sent_at=sent_at - TIMEOUT_S))
                else:
                    self._late.append((due_at, channel, self._reading(host, Signal.SILENT)))
            if with_storage:
                storage.append(alive if seen.beats else self._reading(host, Signal.SILENT))
        for channel in [channel for channel in ("icmp", "ssh", "storage") if not readings[channel]]:
            del readings[channel]

    def _ask_about_suspects(self, readings: defaultdict[str, list[Reading]]) -> None:
        shown = self.world.truth.shown
        can_tell = sum(seen.userland for seen in shown.values())
        for host in sorted(self.watched):
            sees = Signal.ALIVE if shown[host].neighbours else Signal.SILENT
            others = can_tell - shown[host].userland
            readings["neighbours"].append(self._reading(host, sees if others > 1 else Signal.UNKNOWN))
            readings["bmc"].append(self._reading(host, self._power(host)))

    def _power(self, host: int) -> Signal:
        """By all readable devices of the first level; UNKNOWN while one of them is used."""
        if host in self.process.executor.fencing:
            return Signal.UNKNOWN
        level = [device for device in self.world.layout.levels[host][0] if device.proves_off]
        states = {self.world.devices.read(host, device.name) for device in level}
        if PowerState.ON in states:
            return Signal.ON
        return Signal.OFF if states == {PowerState.OFF} else Signal.UNKNOWN

    def _ask_boots(self, hosts: range | list[int], readings: defaultdict[str, list[Reading]]) -> None:
        truth = self.world.truth
        for host in hosts:
            if truth.shown[host].userland and "boot-id" in self.channels:
                boot = f"boot {host}.{truth.machines[host].boots}"
                reading = Reading(
                    host=host, signal=Signal.ALIVE, sent_at=self.process.clock(), boot_id=boot,
                    booted_at=self.world.wall(self.world.booted_at[host]),
                )  # fmt: skip
                readings["boot-id"].append(reading)
                self.process.post(HostIdentified(host=host, identity=identity_of(host), source="dmi"))

    def hear_oned(self) -> None:
        """What the last inventory showed, as the channel `oned` reads it."""
        readings = []
        for host in self.world.oned.hosts.values():
            before = self._monitored.get(host.id)
            self._monitored[host.id] = host.monitored_at
            if host.state == one.ERROR:
                readings.append(self._reading(host.id, Signal.SILENT))
            elif host.state != one.OFFLINE and before is not None and host.monitored_at > before:
                sent_at = self.process.clock() - 20.0  # the life lies after the read that did not show it
                readings.append(Reading(host=host.id, signal=Signal.ALIVE, sent_at=sent_at))
        if readings:
            self.process.post(EvidenceTaken(channel="oned", readings=tuple(readings)))

    def _reading(self, host: int, signal: Signal) -> Reading:
        return Reading(host=host, signal=signal, sent_at=self.process.clock())
