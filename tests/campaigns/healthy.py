"""Years of a cloud with lost packets, stalls, broken channels and real deaths: is ever a healthy host condemned?

    make campaign                       # a million host-hours; ARGS="--host-hours 20000 --seed 7" for less

Drives the production core. Evidence that changes nothing is not fed: a host of which every probe was answered is
brought up to date right before its next trouble, which leaves the core in the very same state (its verdict depends on
its own evidence, and "alive in the last second" is what it is told). Everything else is fed as the adapters would.

Checked after every step: no order to power off goes to a host that is alive. In the same run hosts die for real, and
must be FENCED in time if their device works, or hold with a reason that a person was told.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from world import SETTINGS, Cloud

from ha_controller.core.controller import Decision
from ha_controller.core.effects import Effect, Fence, WatchClosely
from ha_controller.core.events import EvidenceTaken, TimePassed, Verb
from ha_controller.core.model import Domain, HostState, Reading, Signal
from ha_controller.core.settings import Channel

STEADY = ("icmp", "ssh", "storage")  #: asked every second
SUSPECTS = ("neighbours", "bmc")
CHANNELS = (
    Channel(name="icmp", domain=Domain.MANAGEMENT, proves_userland=False),
    Channel(name="ssh", domain=Domain.MANAGEMENT),
    Channel(name="storage", domain=Domain.STORAGE),
    Channel(name="neighbours", domain=Domain.VANTAGE, gap_max_s=10.0),
    Channel(name="bmc", domain=Domain.POWER),
)
LOSS = 0.01
STEP_S, CONFIRM_S = 1.0, 0.2
STALL_EVERY_S, STALL_S = 600.0, 0.5
OUTAGE_EVERY_S = 1800.0  #: one channel of one host, or of all
DEATH_EVERY_S = 6000.0
MUTE_SHARE = 0.1  #: of the deaths: the device dies with its host
FENCED_WITHIN_S = 30.0
REPAIRED_AFTER_S = 300.0


@dataclass
class Tally:
    """What was delivered, and what came of it."""

    host_hours: float = 0.0
    delivered: Counter[str] = field(default_factory=Counter)
    suspects: int = 0  #: times that a healthy host was looked at closely enough to be SUSPECT
    condemned: list[str] = field(default_factory=list)  #: healthy hosts that were ordered off: must stay empty
    fenced: int = 0
    late: list[str] = field(default_factory=list)
    held: int = 0
    untold: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another part of the campaign."""
        self.host_hours += other.host_hours
        self.delivered += other.delivered
        for name in ("suspects", "fenced", "held"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("condemned", "late", "untold"):
            getattr(self, name).extend(getattr(other, name))


class Years(Cloud):
    """A cloud that lives for a long time, with its troubles from one seed."""

    dice: random.Random
    tally: Tally
    seed: int
    outages: dict[tuple[str, int], float]  #: (channel, host, or -1 for all) -> until
    fresh: dict[int, float]  #: host -> until when the core has been told that it is alive
    watched: set[int]
    stalled_until: float
    dying: dict[int, float]  #: host -> when it died

    @classmethod
    def of(cls, seed: int, hosts: int) -> Years:
        """Begin one."""
        budget = {"fences_max": 10, "fences_per_day_max": 50}  # not what is asked here
        settings = replace(SETTINGS, channels=CHANNELS, settle_s=5.0, **budget)
        cloud = cls(settings=settings, hosts=hosts, vms_per_host=2)
        cloud.dice, cloud.tally, cloud.seed = random.Random(seed), Tally(), seed
        cloud.outages, cloud.fresh, cloud.watched, cloud.dying = {}, {}, set(), {}
        cloud.stalled_until = 0.0
        return cloud

    # --- what a probe shows ---

    def _signal(self, channel: str, host: int, lost: set[tuple[int, str]] | None) -> Signal:
        """What a probe shows; `lost` names the packets that are, None: the dice say."""
        if self.now < self.stalled_until:
            return Signal.UNKNOWN
        if channel == "bmc":
            power = self.dead.get(host, "on")
            return {"on": Signal.ON, "off": Signal.OFF}.get(power, Signal.UNKNOWN)
        broken = max(self.outages.get((channel, host), 0.0), self.outages.get((channel, -1), 0.0)) > self.now
        if host in self.dead or broken:
            return Signal.SILENT
        is_lost = self.dice.random() < LOSS if lost is None else (host, channel) in lost
        self.tally.delivered["lost packets"] += is_lost
        return Signal.SILENT if is_lost else Signal.ALIVE

    def _tell(self, hosts: list[int], channels: tuple[str, ...], lost: set[tuple[int, str]] | None = None) -> None:
        for channel in channels:
            readings = tuple(
                Reading(host=host, signal=self._signal(channel, host, lost), sent_at=self.now) for host in hosts
            )
            self._take(EvidenceTaken(channel=channel, readings=readings))

    def _catch_up(self, hosts: list[int]) -> None:
        """Tell the core of the answers since it last heard of these hosts: all of them were alive a second ago."""
        before = self.now - STEP_S
        stale = [host for host in hosts if self.fresh.get(host, 0.0) < before and host not in self.dying]
        for channel in STEADY if stale else ():
            quiet = [host for host in stale if self.outages.get((channel, host), 0.0) <= self.now]
            if self.outages.get((channel, -1), 0.0) <= self.now:
                readings = tuple(Reading(host=host, signal=Signal.ALIVE, sent_at=before) for host in quiet)
                self._take(EvidenceTaken(channel=channel, readings=readings))

    def _take(self, event: EvidenceTaken | TimePassed) -> None:
        done = len(self.effects)
        self.feed(event)
        self._carry_out(done)

    def _take_down(self, decision: Decision) -> None:
        """Every order is looked at, whatever led to it."""
        super()._take_down(decision)
        for effect in decision.effects if "tally" in self.__dict__ else ():
            self._check(effect)

    def _check(self, effect: Effect) -> None:
        match effect:
            case WatchClosely(host=host, on=on):
                (self.watched.add if on else self.watched.discard)(host)
            case Fence(host=host) if host not in self.dead:
                self.tally.condemned.append(f"seed {self.seed}, {self.now:.0f} s: host {host} is alive and ordered off")

    # --- time ---

    def live(self, hours: float) -> Tally:
        """Let hours pass."""
        ends, begun = self.now + hours * 3600, self.now
        troubles = self._troubles(ends)
        upcoming = next(troubles, None)
        while self.now < ends:
            while upcoming is not None and upcoming[0] <= self.now:
                self._happen(upcoming[2])
                upcoming = next(troubles, None)
            self._second()
            if len(self.effects) > 10_000:
                self.effects.clear()
        self.tally.host_hours = (self.now - begun) / 3600 * self.hosts
        return self.tally

    def _second(self) -> None:
        """One second: what was lost is told to the core, and suspects are asked every 200 ms."""
        lost = self._lost_now()
        lossy = {host for host, _ in lost}
        steady = sorted({*lossy, *self.dying, *(host for _, host in self.outages if host >= 0)} - self.watched)
        if any(host < 0 for _, host in self.outages):
            steady = [host for host in range(self.hosts) if host not in self.watched]
        if steady:
            self._catch_up(steady)
            self._tell(steady, STEADY, lost)
            self.fresh.update(dict.fromkeys(steady, self.now))
        if self.watched or self.controller.state.incidents:
            self._confirm()
        else:
            self.now += STEP_S
        self.outages = {key: until for key, until in self.outages.items() if until > self.now}
        self._look_at_the_dead()

    def _lost_now(self) -> set[tuple[int, str]]:
        """The packets that are lost in this second: drawn for all hosts at once, by the distance to the next loss."""
        found, position, probes = set[tuple[int, str]](), -1, self.hosts * len(STEADY)
        while True:
            position += 1 + int(self.dice.expovariate(1.0) / LOSS)
            if position >= probes:
                return found
            found.add((position // len(STEADY), STEADY[position % len(STEADY)]))

    def _confirm(self) -> None:
        for _ in range(round(STEP_S / CONFIRM_S)):
            watched = sorted(self.watched)
            if watched:
                self._catch_up(watched)
                self._tell(watched, (*STEADY, *SUSPECTS))
                self.fresh.update(dict.fromkeys(watched, self.now))
                states = self.controller.state.views
                self.tally.suspects += sum(
                    states[host].state is HostState.SUSPECT and host not in self.dead for host in watched
                )
            self._take(TimePassed())
            self.now = round(self.now + CONFIRM_S, 3)

    # --- troubles ---

    def _troubles(self, ends: float) -> Iterator[tuple[float, int, str]]:
        order = itertools.count()
        rates = {"stall": STALL_EVERY_S, "outage": OUTAGE_EVERY_S, "death": DEATH_EVERY_S}
        coming = [(self.now + self.dice.expovariate(1 / every_s), next(order), kind) for kind, every_s in rates.items()]
        heapq.heapify(coming)
        while coming[0][0] < ends - 1800:
            at, number, kind = heapq.heappop(coming)
            heapq.heappush(coming, (at + self.dice.expovariate(1 / rates[kind]), next(order), kind))
            yield at, number, kind

    def _happen(self, kind: str) -> None:
        host = self.dice.randrange(self.hosts)
        match kind:
            case "stall":
                self.stalled_until = self.now + STALL_S
                self.tally.delivered["stalls of 500 ms"] += 1
            case "outage":
                everywhere = self.dice.random() < 0.2
                channel = self.dice.choice((*STEADY, "neighbours"))
                lasts_s = self.dice.uniform(10, 120 if everywhere else 1800)
                self.outages[(channel, -1 if everywhere else host)] = self.now + lasts_s
                where = "all hosts" if everywhere else "one host"
                self.tally.delivered[f"outages of {channel} at {where}"] += 1
            case "death" if not self.dead and not self.controller.state.incidents:
                mute = self.dice.random() < MUTE_SHARE
                self.kill(host, "mute" if mute else self.dice.choice(("on", "off")))
                self.dying[host] = self.now
                self.tally.delivered["deaths with a dead device" if mute else "deaths with a working device"] += 1

    def _look_at_the_dead(self) -> None:
        for host, died_at in list(self.dying.items()):
            incident = self.controller.state.incidents.get(host)
            mute = self.dead.get(host) == "mute"
            if self.now - died_at < REPAIRED_AFTER_S:
                continue
            if mute:
                told = incident is not None and (incident.stopped or incident.hold)
                self.tally.held += bool(told)
                if not told:
                    self.tally.untold.append(f"seed {self.seed}, died at {died_at:.0f} s: host {host}")
                self.operator(Verb.CONFIRM_OFF, host)
                self.dead[host] = "off"
            elif incident is not None and incident.fenced_at is not None:
                self.tally.fenced += 1
                if incident.fenced_at - died_at > FENCED_WITHIN_S:
                    took_s = incident.fenced_at - died_at
                    self.tally.late.append(f"seed {self.seed}, {died_at:.0f} s: host {host}, after {took_s:.0f} s")
            else:
                self.tally.late.append(f"seed {self.seed}, died at {died_at:.0f} s: host {host} was never fenced")
            self._repair(host)

    def _repair(self, host: int) -> None:
        for _ in range(200):
            incident = self.controller.state.incidents.get(host)
            if incident is None or incident.state is HostState.RECOVERED:
                break
            self._confirm()
        self.dead.pop(host, None)
        del self.dying[host]
        for _ in range(100):
            if host not in self.controller.state.incidents:
                break
            self.watched.add(host)
            for _ in range(3):
                self._confirm()
            self.operator(Verb.UNFENCE, host)
        self.one_states[host] = 2
        self.inventory()


def part(arguments: tuple[int, int, float]) -> Tally:
    """Run one seed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seed, hosts, hours = arguments
    cloud = Years.of(seed, hosts)
    cloud.fresh.update(dict.fromkeys(range(hosts), cloud.now))
    cloud._tell(list(range(hosts)), STEADY)
    return cloud.live(hours)


def campaign(host_hours: float, first_seed: int, hosts: int = 200, processes: int | None = None) -> Tally:
    """Run as many seeds as are needed for so many host-hours."""
    hours_each = 25.0
    seeds = range(first_seed, first_seed + max(1, round(host_hours / (hosts * hours_each))))
    hours = host_hours / (hosts * len(seeds))
    total = Tally()
    with multiprocessing.Pool(processes) as pool:
        parts = pool.imap_unordered(part, [(seed, hosts, hours) for seed in seeds])
        try:
            for index, tally in enumerate(parts, start=1):
                total.add(tally)
                print(f"\r{index} of {len(seeds)} seeds, {total.host_hours:,.0f} host-hours", end="", file=sys.stderr)
        except KeyboardInterrupt:
            print("\nstopped; what follows is what was done until then", file=sys.stderr)
    print(file=sys.stderr)
    return total


def main() -> None:
    """Run it and say what came of it; exit code 1 if a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host-hours", type=float, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first part; the others follow")
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have had them ignored
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    tally = campaign(chosen.host_hours, chosen.seed, chosen.hosts, chosen.processes)
    deaths = tally.delivered["deaths with a working device"]
    failed = bool(tally.condemned or tally.untold or len(tally.late) > 0.001 * deaths)
    told = {
        "seeds": f"{chosen.seed} onwards", "host-hours": round(tally.host_hours),
        "took_s": round(time.monotonic() - began),
        "delivered": dict(sorted(tally.delivered.items())), "looks at healthy suspects": tally.suspects,
        "healthy hosts ordered off": len(tally.condemned), "fenced": tally.fenced, "late": len(tally.late),
        "held with a reason": tally.held, "held without": len(tally.untold), "failed": failed,
    }  # fmt: skip
    if chosen.json:
        print(json.dumps(told, indent=2))
    else:
        for name, value in told.items():
            print(f"{name}: {value}")
    for line in (*tally.condemned[:10], *tally.late[:10], *tally.untold[:10]):
        print(f"  {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
