"""A drill of one device: off, seen off, the host silent, on again, and the host back.

It must see the host fall silent by questions that were not answered, never by questions that were not asked. What it
puts in force it lifts again, whatever it showed; another machine's power it leaves alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from ha_controller.adapters.fencer.switch import READ_TIMEOUT_S, Device, Switch, contained
from ha_controller.plugin import Capability, FenceError

BOOTS_WITHIN_S = 300.0  #: after a drill, for servers that test their memory
LIFTED_WITHIN_S = 10.0
DRILL_LOOK_S = 3.0  #: so long a host must have been silent, and was alive before, for a drill to count
DRILL_POLL_S = 0.5


async def _nobody_is_there(host: int) -> str:
    del host
    return ""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What a drill looks at beside the device."""

    shows_life: Callable[[int, float], bool] = lambda host, moment: False
    """Whether a host answered a probe that was sent after a moment."""
    is_silent: Callable[[int, float], bool] = lambda host, moment: False
    """Whether enough probes were sent after a moment, and none was answered."""
    why_not_empty: Callable[[int], Awaitable[str]] = _nobody_is_there
    """Why it cannot be said that no VM is on a host; empty if it can."""


class Drills:
    """Holds drills."""

    def __init__(self, switch: Switch, looks: Looks, clock: Callable[[], float]) -> None:
        self._switch, self._looks, self._clock = switch, looks, clock

    async def hold(self, host: int, device: Device) -> tuple[bool, bool, str]:
        """Return whether the device switched this very host, whether the host is back, and both in words."""
        if not await self._answers_within(host, BOOTS_WITHIN_S):
            return False, False, "not done: the host does not answer, so nobody could see whether it goes off"
        if why := await self._looks.why_not_empty(host):
            return False, True, f"not done: {why}"
        lasting = Capability.LASTING in device.agent.capabilities
        device.fencing += 1
        try:
            before = await self._boot_id(device)
            try:
                why = await self._off_in_drill(host, device)
                if why and not lasting:
                    return False, False, why  # switching on what may be another machine's is not ours to do
            finally:
                failure = await self._lifted(device) if lasting else ""
            failure = failure or ("" if lasting else await self._switch.on(device))
            if not why and Capability.SELF_RESET in device.agent.capabilities:
                why = await self._why_not_booted(device, before)
        finally:
            device.fencing -= 1
        back = failure or ("lifted" if lasting else "switched on again")
        return not why, not failure, f"{why or 'switched off and seen off, the host fell silent'}; {back}"

    async def _lifted(self, device: Device) -> str:
        """What stays in force must not be forgotten, also when the controller is being stopped meanwhile."""
        with anyio.move_on_after(LIFTED_WITHIN_S, shield=True):
            return await self._switch.on(device)
        return f"it could not be lifted within {LIFTED_WITHIN_S:g} s: do that by hand"

    async def _off_in_drill(self, host: int, device: Device) -> str:
        """Switch off and watch the host; returns what speaks against its being this host's device.

        Silence is a question that was not answered, never one that was not asked. A host that resets itself may answer
        again by the time its device reads off: there any silence meanwhile counts.
        """
        began_at, fell_silent = self._clock(), False

        async def watch() -> None:
            nonlocal fell_silent
            while not fell_silent:
                await anyio.sleep(DRILL_POLL_S)
                fell_silent = self._looks.is_silent(host, began_at)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            outcome = await self._switch.off(device, send=True, acknowledge=lambda name: None)
            group.cancel_scope.cancel()
        if outcome.off_read_at is None:
            return f"it could not be switched off: {outcome.detail}"
        await anyio.sleep(DRILL_LOOK_S)
        if Capability.SELF_RESET not in device.agent.capabilities:
            answers = self._looks.shows_life(host, outcome.off_read_at)
            fell_silent = not answers and self._looks.is_silent(host, outcome.off_read_at)
        if fell_silent:
            return ""
        return "it reads off and the host still answers: it is ANOTHER machine's device, or it lies"

    async def _answers_within(self, host: int, within_s: float) -> bool:
        """Wait for the host: after the drill of another device it boots."""
        with anyio.move_on_after(within_s):
            while not self._looks.shows_life(host, self._clock() - DRILL_LOOK_S):  # noqa: ASYNC110 - a host calls nobody
                await anyio.sleep(DRILL_POLL_S)
            return True
        return False

    async def _boot_id(self, device: Device) -> str | None:
        try:
            with anyio.fail_after(READ_TIMEOUT_S):
                return await contained(device.agent.boot_id())
        except (FenceError, TimeoutError):
            return None

    async def _why_not_booted(self, device: Device, before: str | None) -> str:
        """A host that was reset comes back with another boot; one that only was not heard does not."""
        if before is None:
            return "it is not known which boot the host was in before, so nobody can tell whether it was reset"
        with anyio.move_on_after(BOOTS_WITHIN_S):
            while await self._boot_id(device) in (None, before):  # noqa: ASYNC110 - a host calls nobody
                await anyio.sleep(DRILL_POLL_S)
            return ""
        return f"it did not boot anew within {BOOTS_WITHIN_S:g} s: its watchdog has not fired"
