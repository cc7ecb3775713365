"""Mistakes that somebody could make in the core. The simulator must find each of them; the core as it is must pass.

python tests/planted/bugs.py [--seeds 60]      # a line for each; exit code 1 if one survives
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from ha_controller.core import (
    destinations,
    fencing,
    guard,
    leftovers,
    lever,
    life,
    moving,
    power,
    reboot,
    rejoin,
    situation,
    suspicion,
    takeover,
    tries,
    trust,
)
from ha_controller.core.controller import Controller
from ha_controller.core.detector import Verdict, VerdictKind
from ha_controller.core.effects import Fence
from ha_controller.core.events import SettingsChanged
from ha_controller.core.incident import AttemptOutcome, Incident
from ha_controller.core.state import State
from ha_controller.sim.core_level import campaign
from ha_controller.sim.core_level.faults import Rates

HOURS, HOSTS = 3.0, 8


@dataclass(frozen=True, kw_only=True)
class Bug:
    name: str
    text: str
    invariants: tuple[str, ...]  #: any of these may catch it first
    patch: Callable[[], contextlib.AbstractContextManager[Any]]
    rates: dict[str, float] | None = None  #: what is aimed at it; None: everything
    part: Callable[[campaign.Task], campaign.Tally] = campaign.part  #: the level of the simulator
    hours: float = HOURS
    hosts: int = HOSTS
    controllers: int | None = None  #: None: the seed decides
    first_seed: int = 1  #: where those before it take long, and find nothing
    lead: str = "etcd"  #: what several of them lead by
    strikes: str = ""  #: a fault that has to have struck, or it was not the bug in question that was caught

    def task(self, seed: int) -> campaign.Task:
        rates = Rates().times(10.0, 5.0) if self.rates is None else Rates().only().with_rates(self.rates)
        return campaign.Task(
            seed=seed, hosts=self.hosts, hours=self.hours, rates=rates, controllers=self.controllers, lead=self.lead,
            healing=any(each[0] in "LX" for each in self.invariants),  # the others have more seeds in the same time
        )  # fmt: skip


BUGS: list[Bug] = []


def bug(name: str, text: str, *invariants: str, **rates: float) -> Callable[[Callable[[], Any]], None]:
    def note(patch: Callable[[], Any]) -> None:
        aimed = {key.replace("_", "-"): rate for key, rate in rates.items()}
        BUGS.append(Bug(name=name, text=text, invariants=invariants, patch=patch, rates=aimed or None))

    return note


def off(module: Any, name: str, value: Any) -> Any:
    return mock.patch.object(module, name, lambda *_, **__: value)


def passing(name: str) -> Any:
    guards = tuple((n, (lambda *_: guard._Answer(True, "")) if n == name else ask) for n, ask in guard.GUARDS)
    return mock.patch.object(guard, "GUARDS", guards)


@bug("no budget", "the limit of power-offs an hour is not looked at", "G1", power_loss=0.5)
def _() -> Any:
    return passing("budget")


@bug("no settle", "hosts are powered off right after the start", "G1", power_loss=0.3, hang=0.3, crash=0.3)
def _() -> Any:
    return passing("settle")


@bug("no shared cause", "hosts of one rack that fall silent together are taken for dead", "S2", rack_switch=0.1)
def _() -> Any:
    stack = contextlib.ExitStack()
    names = ("shared cause", "storm")
    guards = tuple((n, (lambda *_: guard._Answer(True, "")) if n in names else ask) for n, ask in guard.GUARDS)
    stack.enter_context(mock.patch.object(guard, "GUARDS", guards))
    return stack


@bug("identity is not asked", "a device is used without asking whose it is", "S2", wrong_machine=0.3, power_loss=0.2)
def _() -> Any:
    real = Controller._decided

    def decided(self: Controller) -> Any:
        made = real(self)
        if not made.effects:
            return made
        effects = tuple(replace(each, identity=None) if isinstance(each, Fence) else each for each in made.effects)
        return replace(made, effects=effects)

    return mock.patch.object(Controller, "_decided", decided)


@bug("isolated is dead", "what neighbours see alive is powered off", "S2", half_partition=0.5)
def _() -> Any:
    real = State.__init__

    def init(self: State, settings: Any, **more: Any) -> None:
        policies = {**settings.policies, VerdictKind.ISOLATED: suspicion.Policy.FENCE}
        real(self, replace(settings, policies=policies), **more)

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(State, "__init__", init))
    stack.enter_context(passing("life"))
    stack.enter_context(off(fencing, "alive_channels", []))
    return stack


@bug("an acknowledgement is off", "a device that says done is believed", "S3", bmc_ignores=0.3, hang=0.5)
def _() -> Any:
    def accepted(state: State, incident: Incident, event: Any) -> None:
        last = fencing._running(incident, event.attempt)
        if last is not None:
            at = last.ordered_at
            done = replace(last, outcome=AttemptOutcome.OFF_READ, off_read_at=at)
            state.save(incident.with_attempt(done))

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(fencing, "accepted", accepted))
    stack.enter_context(off(lever, "proof_is_fresh", True))
    stack.enter_context(mock.patch.object(lever, "proven_until", lambda state, host, incident, now: now + 5))
    stack.enter_context(
        mock.patch.object(fencing, "power_since", lambda *_: dict.fromkeys(("bmc", "pdu-a", "pdu-b", "fabric"), "off"))
    )
    return stack


@bug("the proof is not read again", "moves begin on what was read once", "S3", power_loss=0.3, hang=0.3)
def _() -> Any:
    stack = contextlib.ExitStack()
    stack.enter_context(off(lever, "proof_is_fresh", True))
    stack.enter_context(mock.patch.object(lever, "proven_until", lambda state, host, incident, now: now + 5))
    return stack


@bug("attempts are not recorded", "a power-off leaves and the journal knows nothing of it", "D1", power_loss=0.3)
def _() -> Any:
    real = State.save

    def save(self: State, incident: Incident) -> Incident:
        before = self.incidents.get(incident.host)
        saved = real(self, incident)
        if before is not None and len(before.attempts) < len(incident.attempts):
            self.dirty.pop(incident.id, None)
        return saved

    return mock.patch.object(State, "save", save)


@bug("moves are not recorded", "a VM is moved and the journal knows nothing of it", "D1", power_loss=0.3)
def _() -> Any:
    real = State.save

    def save(self: State, incident: Incident) -> Incident:
        before = self.incidents.get(incident.host)
        saved = real(self, incident)
        if before is not None and sum(v.order for v in before.vms) < sum(v.order for v in incident.vms):
            self.dirty.pop(incident.id, None)
        return saved

    return mock.patch.object(State, "save", save)


@bug("no boot id", "a host that reboots by itself is not noticed", "L1", self_reboot=0.5)
def _() -> Any:
    return off(reboot, "note", None)


@bug("migrations that were taken back are not asked about", "where a VM is, oned knows", "S1", "S3",
     vm_taken_back=0.5)  # fmt: skip
def _() -> Any:
    return off(situation, "strays", ())


@bug("pause is not heard", "people press pause, and it goes on", "G1", pause_pressed=0.3, power_loss=0.5, hang=0.3)
def _() -> Any:
    real = State.brake

    def brake(self: State, incident: Incident) -> Any:
        self.cloud, kept = replace(self.cloud, paused_by=""), self.cloud
        hold = real(self, incident)
        self.cloud = kept
        return hold

    return mock.patch.object(State, "brake", brake)


@bug("holds are not told", "why nothing happens is not put on record", "L2", hang=0.5, bmc_dead=0.3, power_loss=0.5)
def _() -> Any:
    return mock.patch.object(State, "hold", lambda self, incident, *_, **__: incident)


@bug("recovered too early", "one VM with an outcome is enough", "L1", "L2", power_loss=0.3)
def _() -> Any:
    return mock.patch.object(moving, "all", any, create=True)


@bug("rounds without end", "power-offs are repeated for ever", "G1", hang=0.5, bmc_ignores=0.5)
def _() -> Any:
    real = State.__init__

    def init(self: State, settings: Any, **more: Any) -> None:
        real(self, replace(settings, fence_rounds_max=99), **more)

    return mock.patch.object(State, "__init__", init)


@bug("the lever is forgotten", "OpenNebula is not told that the host is gone", "L1", "L2", power_loss=0.3)
def _() -> Any:
    return mock.patch.object(lever, "pull", lambda state, host, incident, now: incident)


@bug("orders without the lead", "power-offs are decided by who does not lead", "G2", lead_lost=0.5, power_loss=0.5)
def _() -> Any:
    return passing("leader")


@bug("readings are forgotten", "power is never asked for", "L2", "L1", power_loss=0.3)
def _() -> Any:
    stack = contextlib.ExitStack()
    for module in (power, fencing, lever):
        stack.enter_context(off(module, "ask_for_power", None))
    return stack


@bug("a hold is not heard", "people hold an incident, and it goes on", "G1", hold_pressed=2.0, power_loss=0.5, hang=0.5)
def _() -> Any:
    real = State.brake
    return mock.patch.object(State, "brake", lambda self, incident: real(self, replace(incident, held_by="")))


@bug("maintenance is ignored", "what is written on a host is not read", "G1", maintenance=0.5, power_loss=1.0)
def _() -> Any:
    real = Controller._inventory

    def inventory(self: Controller, event: Any, now: float) -> None:
        real(self, replace(event, hosts=tuple(replace(host, excluded="") for host in event.hosts)), now)

    return mock.patch.object(Controller, "_inventory", inventory)


@bug("no storm guard", "too many hosts are silent at once, and are powered off", "G1", "S2",
     power_loss=1.0, rack_switch=0.05)  # fmt: skip
def _() -> Any:
    return passing("storm")


@bug("what lasts is not lifted", "a host is given back, still cut off from its storage", "L3", power_loss=0.3)
def _() -> Any:
    real = rejoin._give_back

    def give_back(state: State, incident: Incident, now: float) -> None:
        real(state, replace(incident, in_force=()), now)

    return mock.patch.object(rejoin, "_give_back", give_back)


@bug("leftovers are not asked for", "a host is given back with a domain of a VM that runs elsewhere", "L3",
     power_loss=0.3, leftover=0.9)  # fmt: skip
def _() -> Any:
    return off(leftovers, "found", leftovers.Leftovers())


@bug("the destination is not kept", "a lost order is repeated at once, to anywhere", "D1", "S1", "S3",
     power_loss=0.5, order_late=0.7, answer_lost=0.3)  # fmt: skip
def _() -> Any:
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(tries, "may_order", lambda state, record, free, now: free > 0))
    stack.enter_context(off(destinations.Destinations, "may_keep", False))
    real = destinations.Destinations.choose

    def choose(self: Any, record: Any, vm: Any) -> Any:
        self._state.planned = None
        away = () if record.destination is None else (record.destination,)
        return real(self, replace(record, refused_on=(*record.refused_on, *away)), vm)

    stack.enter_context(mock.patch.object(destinations.Destinations, "choose", choose))
    return stack


@bug("once condemned, always condemned", "a host that answers between two attempts is not looked at again", "S2",
     freeze=1.0, bmc_dead=0.5, bmc_ignores=0.5)  # fmt: skip
def _() -> Any:
    dead = Verdict(kind=VerdictKind.DEAD, reason="it was dead")
    stack = contextlib.ExitStack()
    stack.enter_context(off(fencing, "verdict_of", dead))
    stack.enter_context(off(fencing, "alive_channels", []))
    stack.enter_context(off(life, "taken_back", None))
    stack.enter_context(passing("life"))
    return stack


@bug("the end of the lead is not heard", "who has lost the lead goes on deciding", "G2", lead_lost=0.5, power_loss=0.5)
def _() -> Any:
    real = takeover.lead_changed

    def lead_changed(state: State, event: Any, now: float) -> None:
        if event.term is not None:
            real(state, event, now)

    return mock.patch.object(takeover, "lead_changed", lead_changed)


@bug("the journal is not read", "a controller that was restarted begins with nothing", "G1", "D1", "L1", "S2",
     power_loss=0.5, crash=0.5)  # fmt: skip
def _() -> Any:
    return off(Controller, "restore", None)


@bug(
    "the budget is forgotten", "after a restart the power-offs of before do not count", "G1", power_loss=0.5, crash=0.5
)
def _() -> Any:
    real = Controller.restore

    def restore(self: Controller, incidents: Any, cloud: Any, now: float, trusts: Any = ()) -> None:
        real(self, incidents, replace(cloud, fences=()), now, trusts)

    return mock.patch.object(Controller, "restore", restore)


@bug("new limits are not heard", "the configuration is read again, and the old limits stay", "G1",
     reload=1.0, power_loss=0.5)  # fmt: skip
def _() -> Any:
    real = Controller._take_in

    def take_in(self: Controller, event: Any, now: float) -> set[int]:
        return set() if isinstance(event, SettingsChanged) else real(self, event, now)

    return mock.patch.object(Controller, "_take_in", take_in)


@bug("powering on is not recorded", "a host is powered on, and the journal knows nothing of it", "D1", power_loss=0.5)
def _() -> Any:
    real = State.save

    def save(self: State, incident: Incident) -> Incident:
        before = self.incidents.get(incident.host)
        saved = real(self, incident)
        if before is not None and before.powered_on_at is None and incident.powered_on_at is not None:
            self.dirty.pop(incident.id, None)
        return saved

    return mock.patch.object(State, "save", save)


@bug("a boot is noted too early", "a crash between the boot id and the record of its VMs loses them", "L1",
     self_reboot=2.0, crash=2.0, oned_down=1.0)  # fmt: skip
def _() -> Any:
    real = reboot.note

    def note(state: State, reading: Any, now: float) -> None:
        real(state, reading, now)
        if state.view(reading.host).new_boot is not None:
            state.save_trust(replace(state.trust(reading.host), boot_id=reading.boot_id))

    return mock.patch.object(reboot, "note", note)


@bug("a weak OFF is a proof", 'what may mean "not there" is taken for off', "S3", "S1", fabric_blind=1.0, hang=0.5)
def _() -> Any:
    stack = contextlib.ExitStack()
    stack.enter_context(off(trust, "why_unproven", ""))
    real = power.readable

    def weak_alone(host: Any) -> tuple[str, ...]:
        names = real(host)
        return ("fabric",) if "fabric" in names else names

    stack.enter_context(mock.patch.object(fencing, "readable", weak_alone))
    stack.enter_context(mock.patch.object(lever, "readable", weak_alone))
    return stack


@bug("an unknown outcome is none", "a host that answers after an unverified power-off is forgotten", "S2",
     freeze=2.0, bmc_slow=2.0, thaw_at_the_shot=0.9, crash_after_effect=0.5)  # fmt: skip
def _() -> Any:
    return mock.patch.object(Incident, "untouched", property(lambda _: True))


@bug("attempts overlap", "the next power-off does not wait for the report of the last", "G1", hang=0.5, bmc_ignores=0.5)
def _() -> Any:
    def hurry(state: State, host: Any, incident: Incident, attempt: Any, now: float) -> None:
        if now - attempt.ordered_at > 3.0:
            fencing._next_attempt(state, host, incident, now)

    return mock.patch.object(fencing, "_wait_for_report", hurry)


@bug("hung is dead", "a host whose kernel answers is powered off, and nobody was asked", "S2", userland_hang=0.5)
def _() -> Any:
    real = State.__init__

    def init(self: State, settings: Any, **more: Any) -> None:
        policies = {**settings.policies, VerdictKind.HUNG: suspicion.Policy.FENCE}
        real(self, replace(settings, policies=policies), **more)

    return mock.patch.object(State, "__init__", init)


def seeds_until_caught(each: Bug, seeds: int) -> tuple[int, str]:
    """The seed that catches it, and by what; (0, "") if none does."""
    for seed in range(each.first_seed, each.first_seed + seeds):
        with each.patch():
            ended = each.part(each.task(seed))
        if ended.violations and (not each.strikes or ended.delivered[each.strikes]):
            return seed, str(ended.violations[0]["invariant"])
    return 0, ""


def passes(each: Bug, seed: int) -> str:
    """What the core as it is breaks on that seed; empty if nothing."""
    found = each.part(replace(each.task(seed), healing=True)).violations
    return str(found[0]["text"]) if found else ""


def line(each: Bug, seeds: int) -> tuple[bool, str]:
    """Whether all is well with it, and in words."""
    seed, by = seeds_until_caught(each, seeds)
    if not seed:
        return False, f"SURVIVED {seeds} seeds: {each.name}: {each.text}"
    if by not in each.invariants:
        return False, f"caught by {by}, not by {' or '.join(each.invariants)}, at seed {seed}: {each.name}"
    if wrong := passes(each, seed):
        return False, f"seed {seed} of {each.name} also fails without it: {wrong}"
    return True, f"caught by {by} at seed {seed}: {each.name}: {each.text}"


_at_work: list[Bug] = []  #: in a process of the pool


def _begin(bugs: Sequence[Bug]) -> None:
    _at_work[:] = bugs


def _line_of(number_and_seeds: tuple[int, int]) -> tuple[bool, str]:
    number, seeds = number_and_seeds
    return line(_at_work[number], seeds)


def main(bugs: Sequence[Bug] = BUGS) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--processes", type=int, default=None)
    args = parser.parse_args()
    chosen = [(number, args.seeds) for number, each in enumerate(bugs) if args.only in each.name]
    is_well = True
    with multiprocessing.get_context("fork").Pool(args.processes, _begin, (bugs,)) as pool:
        for well, words in pool.imap(_line_of, chosen):
            is_well = is_well and well
            print(words, flush=True)
    print(f"{len(chosen)} bugs")
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
