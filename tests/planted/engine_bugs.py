"""Mistakes that somebody could make around the core. The simulator's second level must find each of them.

python tests/planted/engine_bugs.py [--seeds 30]      # a line for each; exit code 1 if one survives
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from planted.bugs import Bug, main

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.fencer import Fencer, fencer, switch
from ha_controller.adapters.journal import JournalError
from ha_controller.adapters.prober import Prober, scheduler
from ha_controller.app import pretended
from ha_controller.app.ledger import Ledger
from ha_controller.core.effects import Fence
from ha_controller.engine import Engine

HOURS = 0.7
BUGS: list[Bug] = []


def bug(
    name: str, text: str, *invariants: str, hours: float = HOURS, first_seed: int = 1, **rates: float
) -> Callable[[Callable[[], Any]], None]:
    def note(patch: Callable[[], Any]) -> None:
        aimed = {key.replace("_", "-"): rate for key, rate in rates.items()}
        BUGS.append(
            Bug(
                name=name, text=text, invariants=invariants, patch=patch, rates=aimed, part=pretended.part, hours=hours,
                controllers=1, first_seed=first_seed,
            )
        )  # fmt: skip

    return note


@bug("sent before it is on record", "orders leave while their record is being written", "D1", power_loss=0.5)
def _() -> Any:
    real = Engine._carry_out

    async def carry_out(self: Engine, decisions: Any, events: Any, now: float) -> None:
        decisions = list(decisions)
        for decision in decisions:
            for effect in decision.effects:
                self._dispatch(effect)
        await real(self, [replace(decision, effects=()) for decision in decisions], events, now)

    return mock.patch.object(Engine, "_carry_out", carry_out)


@bug("a full disk is no reason to stop", "what could not be recorded is ordered all the same", "D1", "L2",
     power_loss=2.0, journal_fails=4.0)  # fmt: skip
def _() -> Any:
    real = Ledger.commit

    async def commit(self: Ledger, *what: Any) -> None:
        with contextlib.suppress(JournalError):
            await real(self, *what)

    return mock.patch.object(Ledger, "commit", commit)


@bug("the lead is not proven", "orders leave because we led a moment ago", "G2", power_loss=0.5)
def _() -> Any:
    async def may_act(self: Leadership, term: int | None) -> bool:
        return self.holds(term)

    return mock.patch.object(Leadership, "may_act", may_act)


@bug("a proof does not age", "an order leaves on a proof from before a pause", "G2",
     power_loss=0.8, pause_in_an_order=0.5)  # fmt: skip
def _() -> Any:
    async def may_act(self: Leadership, term: int | None) -> bool:
        if self._lead is not None:
            await self.arbiter.prove(self._lead.term)
        return self.holds(term)

    return mock.patch.object(Leadership, "may_act", may_act)


@bug("late orders are sent", "a power-off leaves although its time is over", "G1",
     hours=0.3, first_seed=9, power_loss=0.5, pause_before_order=0.7)  # fmt: skip
def _() -> Any:
    real = Fencer.fence

    async def fence(self: Fencer, order: Fence) -> None:
        await real(self, replace(order, not_after=float("inf")))

    return mock.patch.object(Fencer, "fence", fence)


@bug("no deadline", "a device may take as long as it likes", "L2", power_loss=1.0, plugin_hangs=0.6)
def _() -> Any:
    real = switch.Switch.off

    async def off(self: Any, device: Any, **more: Any) -> Any:
        return await real(self, replace(device, timeout_s=1e6), **more)

    return mock.patch.object(switch.Switch, "off", off)


@bug(
    "one device at a time",
    "a device that hangs delays the others; its turn comes long after the proof",
    "L2",
    "G2",
    hours=0.3,
    first_seed=21,  # some before it take longer
    power_loss=1.0,
    plugin_hangs=0.2,
)
def _() -> Any:
    real, locks = switch.Switch.off, dict[Any, anyio.Lock]()

    async def off(self: Any, device: Any, **more: Any) -> Any:
        async with locks.setdefault(self, anyio.Lock()):
            return await real(self, device, **more)

    return mock.patch.object(switch.Switch, "off", off)


@bug("probes wait for a device", "nobody is asked while a fence device is", "L2", hang=1.0, plugin_hangs=0.2)
def _() -> Any:
    real, busy = Fencer.power_of, set[int]()
    tick = Prober._tick

    async def power_of(self: Fencer, host: int) -> Any:
        busy.add(host)
        try:
            return await real(self, host)
        finally:
            busy.discard(host)

    stack = contextlib.ExitStack()
    stack.callback(busy.clear)
    stack.enter_context(mock.patch.object(Fencer, "power_of", power_of))
    stack.enter_context(
        mock.patch.object(Prober, "_tick", lambda self: self._turns.take(self._clock()) if busy else tick(self))
    )
    return stack


@bug("plugins are trusted", "what a fence agent raises goes on", "X", plugin_raises=0.2)
def _() -> Any:
    async def trusting(work: Any) -> Any:
        return await work

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(switch, "contained", trusting))
    stack.enter_context(mock.patch.object(fencer, "contained", trusting))
    return stack


@bug("readings are trusted", "what a channel returns is used as it is", "X", channel_nonsense=0.05)
def _() -> Any:
    return mock.patch.object(scheduler, "_sound", lambda readings: readings)


@bug("a secret is logged", "a line for debugging names the password", "P1", power_loss=0.5)
def _() -> Any:
    real = switch.Switch.off

    async def off(self: Any, device: Any, **more: Any) -> Any:
        structlog.get_logger().info("ordered off", password=device.agent.config.password.get_secret_value())
        return await real(self, device, **more)

    return mock.patch.object(switch.Switch, "off", off)


if __name__ == "__main__":
    main(BUGS)
