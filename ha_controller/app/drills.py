"""When each fence device is due for a drill, what stands in its way, and the drills that begin by themselves.

A drill powers a host off, so this only orders what a person could order, through the same door, and the core refuses it
as it would refuse a person: only a host in maintenance, without VMs, that answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Any, Final

import anyio
import structlog

from ha_controller.config import Drills
from ha_controller.core import power, trust
from ha_controller.core.commands import why_no_drill
from ha_controller.core.effects import LOOK_AGAIN, Answer
from ha_controller.core.model import Host, HostState, OnedHostState
from ha_controller.core.state import State

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 60.0
TRY_AGAIN_S: Final = 20 * 3600.0  #: a host whose drill did not succeed is tried again in the next night
ORDERS_MAX: Final = 5
ORDER_AGAIN_S: Final = 1.0
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def schedule(state: State, settings: Drills, now: float) -> list[dict[str, Any]]:
    """One row for each device that can be drilled, the most overdue first."""
    rows = [
        {
            "host": host.name,
            "id": host.id,
            "device": device.name,
            "drilled_s_ago": None if drilled_at is None else round(now - drilled_at, 1),
            "due_in_s": 0.0 if drilled_at is None else round(drilled_at + settings.every_s - now, 1),
            "overdue": drilled_at is None or now - drilled_at > settings.every_s,
            "obstacle": why_no_drill(state, host),
            "by_itself": why_not_by_itself(state, host) or "yes",
        }
        for host in state.hosts.values()
        for device in power.devices(host)
        if device.proves_off
        for drilled_at in (trust.drilled_at(state, host.id, device),)
    ]
    return sorted(rows, key=lambda row: (row["due_in_s"], row["drilled_s_ago"] is not None, row["id"]))


def why_not_by_itself(state: State, host: Host) -> str:
    """Why no drill begins by itself; a person may still hold one. People flash firmware on hosts in maintenance."""
    if why := why_no_drill(state, host):
        return why
    if not host.drill_by_itself:
        return "no HA_DRILL=YES on it in OpenNebula"
    if host.one_state not in (OnedHostState.DISABLED, OnedHostState.OFFLINE):
        return "not disabled in OpenNebula: a VM could be started there meanwhile"
    return ""


def is_open(settings: Drills, moment: datetime) -> bool:
    """Whether drills may begin at this local time. A window over midnight belongs to the day on which it begins."""
    begin, end = (time.fromisoformat(part) for part in settings.window.split("-"))
    now, day = moment.time(), moment.weekday()
    if begin < end:
        return begin <= now < end and _DAYS[day] in settings.days
    if now >= begin:
        return _DAYS[day] in settings.days
    return now < end and _DAYS[day - 1] in settings.days


@dataclass
class DrillSchedule:
    """Begins overdue drills in the window, one after the other, if the operator wants that."""

    settings: Callable[[], Drills]
    state: State
    clock: Callable[[], float]
    order: Callable[[int], Awaitable[Answer]]
    local_time: Callable[[], datetime] = datetime.now
    _tried: dict[int, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Look once a minute, until cancelled."""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Hold the drill that is most overdue, if there is one that can be held now."""
        settings, now = self.settings(), self.clock()
        if not settings.automatic or not is_open(settings, self.local_time()) or self._busy():
            return
        for row in schedule(self.state, settings, now):
            host = row["id"]
            if (
                row["overdue"]
                and row["by_itself"] == "yes"
                and now - self._tried.get(host, -TRY_AGAIN_S) >= TRY_AGAIN_S
            ):
                self._tried[host] = now
                await self._hold(host)
                return

    def _busy(self) -> bool:
        """No drill while anything is amiss anywhere: people and controller have better things to do."""
        state = self.state
        trouble = any(
            not host.excluded and state.view(host.id).state is not HostState.OK for host in state.hosts.values()
        )
        return bool(trouble or state.incidents or state.cloud.paused_by or state.term is None)

    async def _hold(self, host: int) -> None:
        """The core tells people how it ends. It may first have to read the host's VMs."""
        for _ in range(ORDERS_MAX):
            try:
                answer = await self.order(host)
            except TimeoutError:
                log.warning("a scheduled drill gave no answer in time", host=host)
                return
            if answer.code != LOOK_AGAIN:
                log.info("a scheduled drill has ended", host=host, code=answer.code, answer=answer.text)
                return
            await anyio.sleep(ORDER_AGAIN_S)
