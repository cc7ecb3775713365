"""Mistakes that somebody could make in the core. The simulator must find each of them; the core as it is must pass.

python tests/planted/bugs.py [--seeds 60]      # a line for each; exit code 1 if one survives
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from ha_controller.core import fencing, guard, lever, moving, power, reboot, situation, suspicion
from ha_controller.core.controller import Controller
from ha_controller.core.detector import VerdictKind
from ha_controller.core.effects import Fence
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
            state.save(fencing._with_attempt(incident, done))

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


def seeds_until_caught(each: Bug, seeds: int) -> tuple[int, str]:
    """The seed that catches it, and by what; (0, "") if none does."""
    rates = Rates().times(10.0, 5.0) if each.rates is None else Rates().only().with_rates(each.rates)
    for seed in range(1, seeds + 1):
        with each.patch():
            found = campaign.part(campaign.Task(seed=seed, hosts=HOSTS, hours=HOURS, rates=rates)).violations
        if found:
            return seed, str(found[0]["invariant"])
    return 0, ""


def passes(each: Bug, seed: int) -> str:
    """What the core as it is breaks on that seed; empty if nothing."""
    rates = Rates().times(10.0, 5.0) if each.rates is None else Rates().only().with_rates(each.rates)
    found = campaign.part(campaign.Task(seed=seed, hosts=HOSTS, hours=HOURS, rates=rates)).violations
    return str(found[0]["text"]) if found else ""


def lines(seeds: int) -> Iterator[tuple[bool, str]]:
    """One for each bug: whether all is well with it, and in words."""
    for each in BUGS:
        seed, by = seeds_until_caught(each, seeds)
        if not seed:
            yield False, f"SURVIVED {seeds} seeds: {each.name}: {each.text}"
        elif by not in each.invariants:
            yield False, f"caught by {by}, not by {' or '.join(each.invariants)}, at seed {seed}: {each.name}"
        elif wrong := passes(each, seed):
            yield False, f"seed {seed} of {each.name} also fails without it: {wrong}"
        else:
            yield True, f"caught by {by} at seed {seed}: {each.name}: {each.text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    is_well = True
    for well, line in lines(parser.parse_args().seeds):
        is_well = is_well and well
        print(line, flush=True)
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
