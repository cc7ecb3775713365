"""The prober: asks every host on every channel in turn, with one loop for all of them and no task per question.

Hosts are spread over the slots of a wheel that turns once per interval; suspects are asked more often, on all channels.
A slow channel has a wheel of its own. Each tick launches whose turn it is, collects what has come in, and hands the
readings to the sink, channel by channel.

It must never blame a host for the controller's own lag: when a tick comes late, answers may have been missed, so no
question that was under way then counts as silence. And no channel may harm another: whatever one raises ends as UNKNOWN
readings and a line in the log.

Targets come from the inventory, close watches from the core; readings go to the core as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio
import structlog

from ha_controller.adapters.prober.channel import usable_address
from ha_controller.adapters.prober.turns import Pace, Turns
from ha_controller.plugin import (
    Domain,
    Probe,
    ProbeConfig,
    ProbeUnavailable,
    Reading,
    Signal,
    SlowProbeConfig,
    Target,
)

log = structlog.get_logger(__name__)

Sink = Callable[[str, Domain, list[Reading]], None]

READINGS_MAX = 50_000  #: of one channel in one tick; more is a flood, and taken for a fault of the channel
_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 5.0
_FAULT_LOG_SPACING_S = 60.0  # a channel that fails at every tick would fill the disk
_STALL_SERIES_S = 10.0  # stalls closer than this are one trouble and one line in the log
_NEEDS_ADDRESS = frozenset({Domain.MANAGEMENT, Domain.VANTAGE, Domain.SELF})


class Prober:
    """Runs the channels.

    `clock` tells seconds; it must run at the pace of the event loop's clock and never jump. `sink` takes a channel's
    name, its domain and its readings, at once and without blocking. A tick more than `stall_s` late is a stall.
    `heed_lag` is told how late each tick came.
    """

    def __init__(
        self,
        channels: Mapping[str, Probe[ProbeConfig]],
        *,
        interval_s: float,
        confirm_interval_s: float,
        clock: Callable[[], float],
        sink: Sink,
        stall_s: float = 0.25,
        heed_lag: Callable[[float], None] = lambda lag_s: None,
    ) -> None:
        self._lanes = [_Lane(name=name, channel=channel, pace=_pace_of(channel)) for name, channel in channels.items()]
        self._confirm_interval_s = confirm_interval_s
        self._clock = clock
        self._sink = sink
        self._turns = Turns(interval_s)
        self._targets: dict[int, Target] = {}
        self._watched: dict[int, float] = {}  # host -> when it is to be asked next
        self._lag = _Lag(limit_s=stall_s)
        self._heed_lag = heed_lag

    @property
    def lag_s(self) -> float:
        """How late ticks came at worst within the last one to two intervals, in seconds."""
        return self._lag.worst_s

    def set_targets(self, targets: Sequence[Target]) -> None:
        """Replace the hosts to ask. Those that stay keep their turn, and their close watch."""
        self._targets = {
            target.host: replace(target, address=usable_address(target.address), close_watch=False)
            for target in targets
        }
        self._turns.assign(self._targets)
        for lane in self._lanes:
            lane.pace.assign(self._targets)

    def watch_closely(self, host: int, on: bool) -> None:
        """Ask a host at once and then every `confirm_interval_s` on all channels, or go back to its normal turn."""
        if on:
            self._watched.setdefault(host, self._clock())
        elif self._watched.pop(host, None) is not None:
            for lane in self._lanes:
                lane.pace.note_return(host, self._clock())

    async def run(self) -> None:
        """Open the channels, probe until cancelled, close them. A channel that cannot work is told and left out: its
        readings are UNKNOWN."""
        try:
            async with anyio.create_task_group() as opening:
                for lane in self._lanes:
                    opening.start_soon(_open, lane)
            async with anyio.create_task_group() as group:
                for lane in self._lanes:
                    if not lane.unavailable:
                        group.start_soon(_serve, lane)
                await self._turn()
        finally:
            with anyio.CancelScope(shield=True):
                for lane in self._lanes:
                    await _close(lane)

    async def _turn(self) -> None:
        self._begin(self._clock())
        while True:
            await anyio.sleep(max(0.0, self._turns.due - self._clock()))
            self._tick()

    def _begin(self, now: float) -> None:
        self._turns.begin(now)
        for lane in self._lanes:
            lane.pace.begin(now)

    def _tick(self) -> None:
        now = max(self._clock(), self._turns.due)  # a timer may fire a hair early
        self._heed_lag(now - self._turns.due)
        if self._lag.stalled(now, now - self._turns.due):
            self._begin(now)
        rounds = self._turns.rounds
        steady = self._turns.take(now)
        if self._turns.rounds != rounds:
            self._lag.begin_turn()
        watched = self._take_watched(now)
        for lane in self._lanes:
            self._ask(lane, self._whose_turn(lane, steady, watched, now))

    def _whose_turn(self, lane: _Lane, steady: list[int], watched: list[int], now: float) -> list[Target]:
        closely = lane.pace.take_watched(watched, now)
        targets = [replace(self._targets[host], close_watch=True) for host in closely]
        if lane.channel.suspects_only:
            return targets
        due = lane.pace.take(steady, now)
        return [self._targets[host] for host in due if host not in self._watched] + targets

    def _take_watched(self, now: float) -> list[int]:
        due = [host for host, at in self._watched.items() if at <= now and host in self._targets]
        for host in due:
            self._watched[host] = now + self._confirm_interval_s
        return due

    def _ask(self, lane: _Lane, targets: list[Target]) -> None:
        readings: list[Reading] = []
        if lane.channel.domain in _NEEDS_ADDRESS:
            now = self._clock()
            readings = [_unknown(target.host, now, "no literal address") for target in targets if not target.address]
            targets = [target for target in targets if target.address]
        readings += lane.ask(targets, self._clock)
        if readings:
            self._sink(lane.name, lane.channel.domain, self._lag.excuse(readings))


# --- lag --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Lag:
    """How late ticks come. A tick that is more than `limit_s` late ends a stall."""

    limit_s: float
    ended_at: float = float("-inf")  # the latest stall
    detail: str = ""
    worst_of_turn_s: float = 0.0
    worst_of_last_turn_s: float = 0.0

    @property
    def worst_s(self) -> float:
        """The worst lag of this turn of the wheel and the last."""
        return max(self.worst_of_turn_s, self.worst_of_last_turn_s)

    def begin_turn(self) -> None:
        """The wheel begins a new turn."""
        self.worst_of_last_turn_s, self.worst_of_turn_s = self.worst_of_turn_s, 0.0

    def stalled(self, now: float, lag_s: float) -> bool:
        """Note the lag of the tick at `now`: whether it ends a stall. A series of stalls is told once."""
        self.worst_of_turn_s = max(self.worst_of_turn_s, lag_s)
        if lag_s <= self.limit_s:
            return False
        if now - self.ended_at > _STALL_SERIES_S:
            log.warning("the event loop stood still; probes under way count as unknown", lag_s=round(lag_s, 1))
        self.ended_at = now
        self.detail = f"controller lag {lag_s:.1f} s"
        return True

    def excuse(self, readings: list[Reading]) -> list[Reading]:
        """Turn silence into UNKNOWN where the question left before the stall ended."""
        return [
            replace(reading, signal=Signal.UNKNOWN, detail=self.detail)
            if reading.signal is Signal.SILENT and reading.sent_at < self.ended_at
            else reading
            for reading in readings
        ]


# --- one channel ------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Lane:
    """A channel and what the prober knows of it. The border: nothing that it raises gets past here."""

    name: str
    channel: Probe[ProbeConfig]
    pace: Pace
    unavailable: str = ""
    asked: dict[int, float] = field(default_factory=dict)  # host -> when; those that have not been heard of since
    fault_logged_at: float = float("-inf")

    def ask(self, targets: list[Target], clock: Callable[[], float]) -> list[Reading]:
        """Launch and collect. After a fault, everything that was asked is UNKNOWN."""
        if self.unavailable:
            return [_unknown(target.host, clock(), self.unavailable) for target in targets]
        try:
            if targets:
                now = clock()
                self.asked.update((target.host, now) for target in targets)
                self.channel.launch(targets, now)
            readings = _sound(self.channel.collect(clock()))
            if len(readings) > READINGS_MAX:
                raise RuntimeError(f"{len(readings)} readings at once")
        except Exception:  # a border: the other channels go on
            return self._fail(clock())
        for reading in readings:
            self.asked.pop(reading.host, None)
        self.pace.hear(readings)
        return readings

    def _fail(self, now: float) -> list[Reading]:
        if now - self.fault_logged_at >= _FAULT_LOG_SPACING_S:
            self.fault_logged_at = now
            log.exception("a channel failed; its readings count as unknown, it will be asked again", channel=self.name)
        detail = f"the channel {self.name} failed, see the log"
        readings = [_unknown(host, sent_at, detail) for host, sent_at in self.asked.items()]
        self.asked.clear()
        return readings


def _sound(readings: list[Reading]) -> list[Reading]:
    """A plugin may return anything. Raises TypeError: these are no readings."""
    for reading in readings:
        if not (isinstance(reading, Reading) and isinstance(reading.signal, Signal)):
            raise TypeError(f"{type(reading).__name__} is no reading")
    return readings


def _unknown(host: int, sent_at: float, detail: str) -> Reading:
    return Reading(host=host, signal=Signal.UNKNOWN, sent_at=sent_at, detail=detail)


def _pace_of(channel: Probe[ProbeConfig]) -> Pace:
    every_s = channel.config.every_s if isinstance(channel.config, SlowProbeConfig) else None
    return Pace(every_s=every_s, watched_every_s=channel.watched_every_s)


async def _open(lane: _Lane) -> None:
    try:
        with anyio.fail_after(_OPEN_TIMEOUT_S):
            log.info("a channel is open", channel=lane.name, way=await lane.channel.open())
    except ProbeUnavailable as error:
        lane.unavailable = str(error)
        log.error("a channel is out of service; its readings count as unknown", channel=lane.name, error=str(error))
    except Exception:  # a border: the other channels go on
        lane.unavailable = f"the channel {lane.name} could not be opened, see the log"
        log.exception("a channel is out of service; its readings count as unknown", channel=lane.name)


async def _serve(lane: _Lane) -> None:
    try:
        await lane.channel.serve()
    except Exception:  # a border: the other channels go on
        lane.unavailable = f"the channel {lane.name} stopped, see the log"
        log.exception("a channel stopped; its readings count as unknown", channel=lane.name)


async def _close(lane: _Lane) -> None:
    try:
        with anyio.fail_after(_CLOSE_TIMEOUT_S):
            await lane.channel.close()
    except Exception:  # a border: the other channels are closed, too
        log.exception("a channel could not be closed", channel=lane.name)
