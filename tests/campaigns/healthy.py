"""Years of a cloud with lost packets, stalls, broken channels and real deaths: is ever a healthy host condemned?

    make campaign                       # a million host-hours; ARGS="--host-hours 20000 --seed 7" for less

Drives the production core. Evidence that changes nothing is not fed: a host of which every probe was answered is
brought up to date right before its next trouble, which leaves the core in the very same state (its verdict depends on
its own evidence, and "alive a second ago" is what it is told). Every lost packet, every stall and every silence is fed
as the adapters would, and with them whatever the core asks for when it looks closely.

Checked after every step: no order to power off goes to a host that is alive. In the same run hosts die for real, and
must be FENCED in time if their device works, or hold with a reason that a person was told.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import math
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from world import SETTINGS, Cloud

from ha_controller.core.controller import Decision
from ha_controller.core.effects import Effect, Fence, WatchClosely
from ha_controller.core.events import Event, EvidenceTaken, TimePassed, Verb
from ha_controller.core.model import Domain, HostState, Reading, Signal
from ha_controller.core.settings import Channel

STEADY = ("icmp", "ssh", "storage")  #: asked every second
FALLIBLE = (*STEADY, "neighbours")  #: a packet may be lost, or the channel be out; asked of suspects, and their BMC
NO_LOSSES: Mapping[str, set[int]] = {channel: set() for channel in FALLIBLE}
POWER = {"on": Signal.ON, "off": Signal.OFF}
CHANNELS = (
    Channel(name="icmp", domain=Domain.MANAGEMENT, proves_userland=False),
    Channel(name="ssh", domain=Domain.MANAGEMENT),
    Channel(name="storage", domain=Domain.STORAGE),
    Channel(name="neighbours", domain=Domain.VANTAGE, gap_max_s=10.0),
    Channel(name="bmc", domain=Domain.POWER),
)
LOSS = 0.01
LOG_ARRIVES = math.log(1.0 - LOSS)
STEP_S, CONFIRM_S = 1.0, 0.2
STALL_EVERY_S, STALL_S = 600.0, 0.5
OUTAGE_EVERY_S, OUTAGE_MAX_S = 9000.0, 120.0  #: one channel of all hosts
HOST_OUTAGE_EVERY_S, HOST_OUTAGE_MAX_S = 125 * 3600.0, 1800.0  #: one channel of a host, by the time of one host
DEATH_EVERY_S = 333 * 3600.0  #: of a host; while no other one waits for its repair
MUTE_SHARE = 0.1  #: of the deaths: the device dies with its host
FENCED_WITHIN_S = 30.0
REPAIRED_AFTER_S = 300.0
READMITTED_WITHIN_S = 1200.0
DEATH, MUTE_DEATH = "deaths with a working device", "deaths with a dead device"
DEATHS_MIN_PER_HOUR = 0.001  #: a thousand in a million host-hours
SPEAKS_AFTER_HOURS = 10_000.0  #: fewer host-hours may have no death by chance
HOSTS, HOURS_EACH = 400, 25.0  #: of the cloud of one seed


@dataclass
class Tally:
    """What was delivered, and what came of it."""

    seeds: list[int] = field(default_factory=list)
    host_hours: float = 0.0
    delivered: Counter[str] = field(default_factory=Counter)
    suspects: int = 0  #: times that a healthy host was looked at closely enough to be SUSPECT
    condemned: list[str] = field(default_factory=list)  #: healthy hosts that were ordered off: must stay empty
    fenced: int = 0  #: in time
    longest_s: float = 0.0  #: from death to FENCED
    late: list[str] = field(default_factory=list)
    held: int = 0
    untold: list[str] = field(default_factory=list)

    @property
    def deaths(self) -> int:
        """Of hosts whose device works."""
        return self.delivered[DEATH]

    def add(self, other: Tally) -> None:
        """Take in another part of the campaign."""
        self.delivered += other.delivered
        self.longest_s = max(self.longest_s, other.longest_s)
        for name in ("host_hours", "suspects", "fenced", "held", "seeds", "condemned", "late", "untold"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def failures(self) -> list[str]:
        """What must not be: any healthy host ordered off, any death untold, more than one in a thousand late."""
        found = [*self.condemned, *self.untold]
        if len(self.late) > 0.001 * self.deaths:
            found += self.late
        if self.host_hours >= SPEAKS_AFTER_HOURS and self.deaths < self.host_hours * DEATHS_MIN_PER_HOUR:
            found.append(f"only {self.deaths} deaths: too few to say how many are fenced")
        return found


@dataclass
class Years(Cloud):
    """A cloud that lives for a long time, with its troubles from one seed."""

    seed: int = 1
    dice: random.Random = field(default_factory=random.Random)
    tally: Tally = field(default_factory=Tally)
    outages: dict[tuple[str, int], float] = field(default_factory=dict)  #: (channel, host, or -1 for all) -> until
    broken: dict[str, frozenset[int]] = field(
        default_factory=lambda: dict.fromkeys(FALLIBLE, frozenset[int]())
    )  #: channel -> hosts that do not answer there, for whatever reason
    told_at: dict[int, float] = field(default_factory=dict)  #: host -> until when the core has its answers
    watched: set[int] = field(default_factory=set)
    stalled_until: float = 0.0
    dying: dict[int, float] = field(default_factory=dict)  #: host -> when it died
    returning: dict[int, float] = field(default_factory=dict)  #: host -> when the work on it began
    until_loss: int = 0  #: so many packets arrive before the next one is lost

    @classmethod
    def of(cls, seed: int, hosts: int) -> Years:
        """Begin one, with every host known to be alive."""
        budget = {"fences_max": 10, "fences_per_day_max": 50}  # not what is asked here
        settings = replace(SETTINGS, channels=CHANNELS, settle_s=5.0, **budget)
        cloud = cls(settings=settings, hosts=hosts, vms_per_host=2, seed=seed, dice=random.Random(seed))
        cloud.tally.seeds.append(seed)
        cloud.told_at = dict.fromkeys(range(hosts), 0.0)
        cloud._ask(set(range(hosts)), NO_LOSSES)
        return cloud

    # --- what probes show ---

    def _losses(self, hosts: Sequence[int], channels: tuple[str, ...]) -> Mapping[str, set[int]]:
        """Which of these packets are lost. Each may be: the dice say how many arrive before the next loss."""
        packets = len(hosts) * len(channels)
        if self.until_loss >= packets:
            self.until_loss -= packets
            return NO_LOSSES
        lost: dict[str, set[int]] = {channel: set() for channel in channels}
        while self.until_loss < packets:
            host, channel = divmod(self.until_loss, len(channels))
            lost[channels[channel]].add(hosts[host])
            self.until_loss += 1 + int(math.log(1.0 - self.dice.random()) / LOG_ARRIVES)
        self.until_loss -= packets
        return lost

    def _silent(self, channel: str, hosts: set[int], lost: set[int]) -> set[int]:
        """Which of these hosts do not answer now."""
        if self.now < self.stalled_until:
            return set()  # we cannot tell
        silent = hosts & self.broken[channel]
        if not lost:
            return silent
        self.tally.delivered["lost packets"] += len(lost - silent)
        return silent | lost

    def _answers(self, hosts: Iterable[int]) -> dict[int, Reading]:
        """What those show who answer now; nobody can tell in a stall."""
        return self._readings(hosts, Signal.UNKNOWN if self.now < self.stalled_until else Signal.ALIVE, self.now)

    def _readings(self, hosts: Iterable[int], signal: Signal, sent_at: float) -> dict[int, Reading]:
        return {host: Reading(host=host, signal=signal, sent_at=sent_at) for host in hosts}

    def _ask(self, hosts: set[int], lost: Mapping[str, set[int]]) -> None:
        """Ask in the steady pace. Answers are heard at once, silence only after a time-out, so it comes last.

        Before a silence the core hears the answer of a second ago, if it was not told of the host since.
        """
        before, asked = self.now - STEP_S, sorted(hosts)
        stale = [host for host in asked if self.told_at[host] < before]
        earlier, answers = self._readings(stale, Signal.ALIVE, before), self._answers(asked)
        silences = []
        for channel in STEADY:
            silent = self._silent(channel, hosts, lost[channel])
            unknown = silent if self.now >= self.stalled_until else earlier
            heard = [earlier[host] for host in stale if host in unknown]
            heard += [answers[host] for host in asked if host not in silent]
            self._tell(channel, heard)
            silences.append((channel, self._readings(sorted(silent), Signal.SILENT, self.now)))
        for channel, unheard in silences:
            self._tell(channel, unheard.values())
        self.told_at.update(dict.fromkeys(asked, self.now))

    def _ask_closely(self) -> None:
        """Ask the suspects on every channel; one that the core watches no more is not waited for."""
        hosts = set(self.watched)
        asked = sorted(hosts)
        lost = self._losses(asked, FALLIBLE)
        silent = {channel: self._silent(channel, hosts, lost[channel]) for channel in FALLIBLE}
        answers = self._answers(asked)
        silences = self._readings(set().union(*silent.values()), Signal.SILENT, self.now)
        for channel, unheard in silent.items():
            readings = [
                silences[host] if host in unheard else answers[host]
                for host in asked
                if host in self.watched or host in unheard
            ]
            self._tell(channel, readings)
        asked = sorted(self.watched)
        self._tell("bmc", [Reading(host=host, signal=self._power(host), sent_at=self.now) for host in asked])
        self.told_at.update(dict.fromkeys(asked, self.now))

    def _power(self, host: int) -> Signal:
        if self.now < self.stalled_until:
            return Signal.UNKNOWN
        return POWER.get(self.dead.get(host, "on"), Signal.UNKNOWN)

    def _tell(self, channel: str, readings: Collection[Reading]) -> None:
        if readings:
            self._take(EvidenceTaken(channel=channel, readings=tuple(readings)))

    def _take(self, event: EvidenceTaken | TimePassed) -> None:
        done = len(self.effects)
        self.feed(event)
        if len(self.effects) > done:
            self._carry_out(done)

    def feed(self, event: Event) -> Decision:
        """Give it to the core alone: what is recorded beside it decides nothing."""
        decision = self.controller.step(event, self.now)
        if decision.effects or decision.incidents or decision.cloud or decision.trusts:
            self._take_down(decision)
        return decision

    def _take_down(self, decision: Decision) -> None:
        """Every order is looked at, whatever led to it."""
        super()._take_down(decision)
        for effect in decision.effects:
            self._check(effect)

    def _check(self, effect: Effect) -> None:
        match effect:
            case WatchClosely(host=host, on=on):
                (self.watched.add if on else self.watched.discard)(host)
            case Fence(host=host) if host not in self.dead:
                self.tally.condemned.append(f"seed {self.seed}, {self.now:.0f} s: host {host} is alive and ordered off")

    # --- time ---

    def live(self, hours: float) -> Tally:
        """Let hours pass; a healthy host that is ordered off ends them: what comes after that is its consequence."""
        ends, begun = self.now + hours * 3600, self.now
        troubles = self._troubles(ends)
        upcoming = next(troubles, None)
        while self.now < ends and not self.tally.condemned:
            while upcoming is not None and upcoming[0] <= self.now:
                self._happen(upcoming[1])
                upcoming = next(troubles, None)
            self._second()
            if len(self.effects) > 10_000:
                self.effects.clear()
        self.tally.host_hours = (self.now - begun) / 3600 * self.hosts
        return self.tally

    def _second(self) -> None:
        """One second: what was lost is told to the core, and suspects are asked every 200 ms."""
        self._note_outages()
        lost = self._losses(range(self.hosts), STEADY)
        for hosts in lost.values():
            hosts -= self.watched  # asked closely, with losses of their own
        asked = self.returning.keys() | set().union(*lost.values(), *(self.broken[channel] for channel in STEADY))
        if asked := asked - self.watched:
            self._ask(asked, lost)
        ends = self.now + STEP_S
        while self.now < ends and self.controller.next_deadline(self.now) is not None:
            self._confirm()
        self.now = ends
        self._look_at_the_dead()

    def _confirm(self) -> None:
        if self.watched:
            self._ask_closely()
            views = self.controller.state.views
            suspects = [host for host in self.watched if views[host].state is HostState.SUSPECT]
            self.tally.suspects += sum(host not in self.dead for host in suspects)
        if self.controller.next_deadline(self.now) is not None:
            self.ssh_gives_up()
            self._take(TimePassed())
        self.now = round(self.now + CONFIRM_S, 3)

    def _note_outages(self) -> None:
        """Which hosts answer on which channel no more; outages that are over are forgotten."""
        if self.outages or self.dead or any(self.broken.values()):
            self.outages = {key: until for key, until in self.outages.items() if until > self.now}
            self.broken = {channel: self._broken(channel) for channel in FALLIBLE}

    def _broken(self, channel: str) -> frozenset[int]:
        if (channel, -1) in self.outages:
            return frozenset(range(self.hosts))
        return frozenset([*self.dead, *(host for name, host in self.outages if name == channel)])

    # --- troubles ---

    def _troubles(self, ends: float) -> Iterator[tuple[float, str]]:
        """When what happens; nothing in the last half hour, so that all comes to its end."""
        every_s = {
            "stall": STALL_EVERY_S,
            "outage": OUTAGE_EVERY_S,
            "outage of one host": HOST_OUTAGE_EVERY_S / self.hosts,
            "death": DEATH_EVERY_S / self.hosts,
        }
        coming = [(self.now + self.dice.expovariate(1 / pause_s), kind) for kind, pause_s in every_s.items()]
        heapq.heapify(coming)
        while coming[0][0] < ends - 1800:
            at, kind = coming[0]
            heapq.heapreplace(coming, (at + self.dice.expovariate(1 / every_s[kind]), kind))
            yield at, kind

    def _happen(self, kind: str) -> None:
        host = self.dice.randrange(self.hosts)
        match kind:
            case "stall":
                self.stalled_until = self.now + STALL_S
                self.tally.delivered["stalls of 500 ms"] += 1
            case "outage":
                self._break(-1, OUTAGE_MAX_S)
            case "outage of one host":
                self._break(host, HOST_OUTAGE_MAX_S)
            case "death" if not self.dead and not self.controller.state.incidents:
                mute = self.dice.random() < MUTE_SHARE
                self.kill(host, "mute" if mute else self.dice.choice(("on", "off")))
                self.dying[host] = self.now
                self.tally.delivered[MUTE_DEATH if mute else DEATH] += 1

    def _break(self, host: int, lasts_max_s: float) -> None:
        channel = self.dice.choice(FALLIBLE)
        self.outages[(channel, host)] = self.now + self.dice.uniform(10, lasts_max_s)
        self.tally.delivered[f"outages of {channel} at {'all hosts' if host < 0 else 'one host'}"] += 1

    def _look_at_the_dead(self) -> None:
        for host, died_at in list(self.dying.items()):
            if self.now - died_at >= REPAIRED_AFTER_S:
                self._count(host, died_at)
                del self.dying[host]
                self.returning[host] = self.now
        for host, since in list(self.returning.items()):
            self._bring_back(host, since)

    def _count(self, host: int, died_at: float) -> None:
        """What became of a death by now."""
        incident = self.controller.state.incidents.get(host)
        where = f"seed {self.seed}, died at {died_at:.0f} s: host {host}"
        if self.dead[host] == "mute":
            if incident is not None and (incident.stopped or incident.hold):
                self.tally.held += 1
            else:
                self.tally.untold.append(where)
            self.operator(Verb.CONFIRM_OFF, host)
            self.dead[host] = "off"
        elif incident is None or incident.fenced_at is None:
            self.tally.late.append(f"{where} was never fenced")
        else:
            took_s = incident.fenced_at - died_at
            self.tally.longest_s = max(self.tally.longest_s, took_s)
            if took_s <= FENCED_WITHIN_S:
                self.tally.fenced += 1
            else:
                self.tally.late.append(f"{where} was fenced after {took_s:.0f} s")

    def _bring_back(self, host: int, since: float) -> None:
        """It is repaired when its VMs run elsewhere; then a person readmits it, which may need some tries."""
        incident = self.controller.state.incidents.get(host)
        if incident is None:
            self.dead.pop(host, None)
            del self.returning[host]
            self.one_states[host] = 2
            self.inventory()
        elif self.now - since > READMITTED_WITHIN_S:
            self.tally.late.append(f"seed {self.seed}, {self.now:.0f} s: host {host} is not readmitted")
            self.returning[host] = math.inf  # said once
        elif host not in self.dead:
            self.operator(Verb.UNFENCE, host, repaired=True, force=True)  # she has booted it
        elif incident.state is HostState.RECOVERED:
            del self.dead[host]


def part(arguments: tuple[int, int, float]) -> Tally:
    """Run one seed."""
    gc.set_threshold(100_000)  # nearly everything lives for one step, and nothing is cyclic
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seed, hosts, hours = arguments
    return Years.of(seed, hosts).live(hours)


def _leave_signals_to_the_parent() -> None:
    """It ends its workers itself, and tells what was done until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def campaign(host_hours: float, first_seed: int, hosts: int = HOSTS, processes: int | None = None) -> Tally:
    """Run as many seeds as are needed for so many host-hours; with Ctrl-C what was found until then is returned."""
    seeds = range(first_seed, first_seed + max(1, round(host_hours / (hosts * HOURS_EACH))))
    hours = host_hours / (hosts * len(seeds))
    total, began = Tally(), time.monotonic()
    with multiprocessing.Pool(processes, _leave_signals_to_the_parent) as pool:
        try:
            for done, tally in enumerate(pool.imap(part, [(seed, hosts, hours) for seed in seeds]), start=1):
                total.add(tally)
                left_s = (time.monotonic() - began) * (len(seeds) - done) / done
                print(
                    f"\r{done} of {len(seeds)} seeds, {total.host_hours:,.0f} host-hours, {total.deaths} deaths, "
                    f"{len(total.failures())} failures, {left_s / 60:.0f} min left ",
                    end="",
                    file=sys.stderr,
                )
        except KeyboardInterrupt:
            print("\nstopped; what follows is what was done until then", end="", file=sys.stderr)
    print(file=sys.stderr)
    return total


def main() -> None:
    """Run it and say what came of it; exit code 1 if a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host-hours", type=float, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first part; the others follow")
    parser.add_argument("--hosts", type=int, default=HOSTS, help="of each cloud")
    parser.add_argument("--processes", type=int, default=None, help="as many as there are CPUs, if not given")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have had them ignored
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    tally = campaign(chosen.host_hours, chosen.seed, chosen.hosts, chosen.processes)
    failures = tally.failures()
    told = {
        "seeds": f"{min(tally.seeds)} to {max(tally.seeds)}" if tally.seeds else "none", "hosts": chosen.hosts,
        "host-hours": round(tally.host_hours), "took_s": round(time.monotonic() - began),
        "delivered": dict(sorted(tally.delivered.items())), "looks at healthy suspects": tally.suspects,
        "healthy hosts ordered off": len(tally.condemned),
        "fenced in time": tally.fenced, "longest_s": round(tally.longest_s, 1), "late": len(tally.late),
        "held with a reason": tally.held, "held without": len(tally.untold), "failed": bool(failures),
    }  # fmt: skip
    if chosen.json:
        print(json.dumps(told, indent=2))
    else:
        for name, value in told.items():
            print(f"{name}: {value}")
    for line in (failures or tally.late)[:20]:
        print(f"  {line}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
