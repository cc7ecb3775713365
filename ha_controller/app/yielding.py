"""Gives the lead away when this controller sees less than a fit one that stands by, or runs on a host that is dead.

Rarely: the cause must last, a new leader leads for a while, and a controller does it once in ten minutes. Never while
something is under way: the next leader would have to look for each order first, or would leave it to a person. Where
the record is not shared, never while a person has stopped this controller either: the next one does not know of that,
and would act. The other one takes the lead by the same arbiter as ever, or nobody does, and then this one takes it
again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import structlog

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.controllers import Sight
from ha_controller.core import guard
from ha_controller.core.model import HostState
from ha_controller.core.state import State

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
LASTS_S = 10.0  #: so long the other one must have seen more
LED_MIN_S = 60.0
AGAIN_AFTER_S = 600.0
HIDDEN_MIN = 2  #: hosts; what is wrong with one is more likely its own


@dataclass(kw_only=True)
class Yielding:
    """Looks once a second. `note` puts the act on record, and says whether it is."""

    state: State
    leadership: Leadership
    sights: Mapping[str, Sight]
    clock: Callable[[], float]
    note: Callable[[str], Awaitable[bool]]
    _since: float | None = None  #: when the cause began that lasts
    _led_since: float | None = None
    _yielded_at: float = field(default=float("-inf"))

    async def run(self) -> None:
        """Look until cancelled."""
        while self.sights:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once, and step down if it is time."""
        if not (why := self._lasting()):
            return
        if not await self.note(why) or not (why := self._lasting()):
            return  # writing takes its time
        log.warning("the lead is given away", why=why)
        self._yielded_at, self._since = self.clock(), None
        self.leadership.step_down(why)

    def _lasting(self) -> str:
        """Why it is time; empty if it is not."""
        now, leads = self.clock(), self.leadership.term is not None
        self._led_since = (self._led_since or now) if leads else None
        why = self.why(now) if leads else ""
        self._since = (self._since or now) if why else None
        if self._since is None or self._led_since is None or now - self._since < LASTS_S:
            return ""
        is_early = now - self._led_since < LED_MIN_S or now - self._yielded_at < AGAIN_AFTER_S
        return "" if is_early else why

    def why(self, now: float) -> str:
        """Why another controller had better lead, as far as is seen now; empty if it had not."""
        arbiter = self.leadership.arbiter
        if not (arbiter.regains and arbiter.hands_over) or self._is_busy():
            return ""
        standing_by = {member.instance for member in self.leadership.members if not member.leads}
        pause_goes_over = arbiter.record is not None  # that of one that stands by is of the time in which it led
        fit = [
            (name, sight)
            for name, sight in sorted(self.sights.items())
            if sight.is_fit(now)
            and not sight.leads
            and (pause_goes_over or not sight.paused)
            and sight.instance in standing_by
        ]
        state = self.state
        for waiting in guard.waits_for_another(state) if state.settings.lead_is_given_away else ():
            if elsewhere := [name for name, sight in fit if waiting.host not in sight.runs_on]:
                text = f"{waiting.host_name} is to be powered off, and {elsewhere[0]} does not run there"
                return f"{text}: {state.own_place}"
        for name, sight in fit:
            hidden, missed = self._compared(sight)
            if state.settings.self_check_needed and state.self_check is False and hidden >= missed:
                return f"{name} sees no less, and this controller reaches no witness: {state.self_check_detail}"
            too_many = max(HIDDEN_MIN, state.settings.max_failed_share * len(self._ours()))
            if hidden >= too_many and hidden > missed:
                return f"{name} sees {hidden} hosts alive that are silent for this controller"
        return ""

    def _is_busy(self) -> bool:
        """Whether something was ordered, or a person has stopped something of which the next leader has no record."""
        quiet, incidents = (HostState.SUSPECT, HostState.RECOVERED), self.state.incidents.values()
        if self.leadership.arbiter.record is None and (
            self.state.cloud.paused_by or any(each.held_by for each in incidents)
        ):
            return True
        return any(
            each.state not in quiet or (each.state is HostState.SUSPECT and not each.untouched) for each in incidents
        )

    def _ours(self) -> set[int]:
        return {host.id for host in self.state.hosts.values() if not host.excluded}

    def _compared(self, sight: Sight) -> tuple[int, int]:
        """How many hosts it sees that are silent here, and how many are not silent here that it does not see."""
        ours = self._ours()
        silent = {host for host in ours if self.state.view(host).state is HostState.SUSPECT}
        return len(silent & sight.alive), len(ours - silent - sight.alive)


def yielding_of(runtime: Runtime) -> Yielding:
    """The same, for a controller that runs."""

    async def note(why: str) -> bool:
        who = "this controller"
        return await runtime.audit.note(who=who, origin="itself", what="leader step-down", reason=why)

    return Yielding(
        state=runtime.controller.state,
        leadership=runtime.leadership,
        sights=runtime.controllers.sights,
        clock=runtime.clock,
        note=note,
    )
