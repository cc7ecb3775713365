"""The prober: asks every host on every channel in turn, with one loop for all of them and no task per question.

Hosts are spread over the slots of a wheel that turns once per interval; suspects are asked more often, on all channels.
Each tick launches whose turn it is, collects what has come in, and hands the readings to the sink, channel by channel.

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

from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig, usable_address
from ha_controller.plugin import Domain, Probe, ProbeConfig, ProbeUnavailable, Reading, Signal, Target

log = structlog.get_logger(__name__)

Sink = Callable[[str, Domain, list[Reading]], None]

_SLOT_S = 0.02
_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 5.0
_FAULT_LOG_SPACING_S = 60.0  # a channel that fails at every tick would fill the disk
_STALL_SERIES_S = 10.0  # stalls closer than this are one trouble and one line in the log
_NEEDS_ADDRESS = frozenset({Domain.MANAGEMENT, Domain.VANTAGE})


class Prober:
    """Runs the channels.

    `clock` tells seconds; it must run at the pace of the event loop's clock and never jump. `sink` takes a channel's
    name, its domain and its readings, at once and without blocking. A tick more than `stall_s` late is a stall.
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
    ) -> None:
        self._lanes = [_Lane(name=name, channel=channel) for name, channel in channels.items()]
        self._confirm_interval_s = confirm_interval_s
        self._clock = clock
        self._sink = sink
        self._wheel = Wheel(max(1, round(interval_s / _SLOT_S)))
        self._slot_s = interval_s / self._wheel.slots
        self._targets: dict[int, Target] = {}
        self._watched: dict[int, float] = {}  # host -> when it is to be asked next
        self._slot = 0
        self._due = 0.0  # when the next tick should come
        self._lag = _Lag(limit_s=stall_s)

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
        self._wheel.assign(self._targets)

    def watch_closely(self, host: int, on: bool) -> None:
        """Ask a host at once and then every `confirm_interval_s` on all channels, or go back to its normal turn."""
        if on:
            self._watched.setdefault(host, self._clock())
        else:
            self._watched.pop(host, None)

    async def run(self) -> None:
        """Open the channels, probe until cancelled, close them. A channel that cannot work is told and left out: its
        readings are UNKNOWN."""
        try:
            async with anyio.create_task_group() as opening:
                for lane in self._lanes:
                    opening.start_soon(_open, lane)
            async with anyio.create_task_group() as group:
                for lane in self._lanes:
                    if isinstance(lane.channel, AsyncProbe) and not lane.unavailable:
                        group.start_soon(_serve, lane, lane.channel)
                await self._turn()
        finally:
            with anyio.CancelScope(shield=True):
                for lane in self._lanes:
                    await _close(lane)

    async def _turn(self) -> None:
        self._due = self._clock()
        while True:
            await anyio.sleep(max(0.0, self._due - self._clock()))
            self._tick()

    def _tick(self) -> None:
        now = max(self._clock(), self._due)  # a timer may fire a hair early
        if self._lag.stalled(now, now - self._due):
            self._due = now  # the hosts whose turn was missed have it now, in order and not all at once
        steady = self._take_turns(now)
        watched = self._take_watched(now)
        for lane in self._lanes:
            self._ask(lane, watched if lane.channel.suspects_only else steady + watched)

    def _take_turns(self, now: float) -> list[Target]:
        """The hosts of every slot that is due, without those under close watch."""
        hosts: list[int] = []
        while self._due <= now:
            hosts.extend(self._wheel.hosts(self._slot))
            self._due += self._slot_s
            self._slot = (self._slot + 1) % self._wheel.slots
            if self._slot == 0:
                self._lag.begin_turn()
        return [self._targets[host] for host in hosts if host not in self._watched]

    def _take_watched(self, now: float) -> list[Target]:
        due = [host for host, at in self._watched.items() if at <= now and host in self._targets]
        for host in due:
            self._watched[host] = now + self._confirm_interval_s
        return [replace(self._targets[host], close_watch=True) for host in due]

    def _ask(self, lane: _Lane, targets: list[Target]) -> None:
        readings: list[Reading] = []
        if lane.channel.domain in _NEEDS_ADDRESS:
            now = self._clock()
            readings = [_unknown(target.host, now, "no literal address") for target in targets if not target.address]
            targets = [target for target in targets if target.address]
        readings += lane.ask(targets, self._clock)
        if readings:
            self._sink(lane.name, lane.channel.domain, self._lag.excuse(readings))


# --- the wheel --------------------------------------------------------------------------------------------------------


class Wheel:
    """Spreads hosts evenly over slots; a host keeps its slot for as long as it is there."""

    def __init__(self, slots: int) -> None:
        self._hosts: list[dict[int, None]] = [{} for _ in range(slots)]
        self._slot_of: dict[int, int] = {}
        # Few hosts must not share neighbouring slots: halves first, then quarters, eighths and so on.
        self._order = sorted(range(slots), key=lambda slot: f"{slot * 65536 // slots:016b}"[::-1])

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._hosts)

    def hosts(self, slot: int) -> list[int]:
        """The hosts of one slot."""
        return list(self._hosts[slot])

    def assign(self, hosts: Mapping[int, object]) -> None:
        """Take out hosts that are gone and put each new one where there are fewest."""
        for host in [host for host in self._slot_of if host not in hosts]:
            del self._hosts[self._slot_of.pop(host)][host]
        fullness = 0
        new = [host for host in hosts if host not in self._slot_of]
        while new:
            for slot in self._order:
                if new and len(self._hosts[slot]) <= fullness:
                    host = new.pop()
                    self._hosts[slot][host] = None
                    self._slot_of[host] = slot
            fullness += 1


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
            readings = self.channel.collect(clock())
        except Exception:  # a border: the other channels go on
            return self._fail(clock())
        for reading in readings:
            self.asked.pop(reading.host, None)
        return readings

    def _fail(self, now: float) -> list[Reading]:
        if now - self.fault_logged_at >= _FAULT_LOG_SPACING_S:
            self.fault_logged_at = now
            log.exception("a channel failed; its readings count as unknown, it will be asked again", channel=self.name)
        detail = f"the channel {self.name} failed, see the log"
        readings = [_unknown(host, sent_at, detail) for host, sent_at in self.asked.items()]
        self.asked.clear()
        return readings


def _unknown(host: int, sent_at: float, detail: str) -> Reading:
    return Reading(host=host, signal=Signal.UNKNOWN, sent_at=sent_at, detail=detail)


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


async def _serve(lane: _Lane, channel: AsyncProbe[AsyncProbeConfig]) -> None:
    try:
        await channel.serve()
    except Exception:  # a border: the other channels go on
        lane.unavailable = f"the channel {lane.name} stopped, see the log"
        log.exception("a channel stopped; its readings count as unknown", channel=lane.name)


async def _close(lane: _Lane) -> None:
    try:
        with anyio.fail_after(_CLOSE_TIMEOUT_S):
            await lane.channel.close()
    except Exception:  # a border: the other channels are closed, too
        log.exception("a channel could not be closed", channel=lane.name)
