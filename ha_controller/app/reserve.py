"""Computes now and then whether the clusters keep their reserve, and hands the result to the core.

It must never delay a decision: VMs are read in small pieces through the lane of pools, and the planning is done in a
thread, on a copy, with a deadline. While hosts are being fenced or their VMs moved nothing is computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING

import anyio
import structlog

from ha_controller.adapters.opennebula import OpenNebulaError
from ha_controller.core.events import ReserveAssessed
from ha_controller.core.model import HostState
from ha_controller.core.state import State

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 15.0
CHANGES_WAIT_S = 60.0  #: after a change it is computed at most this often
_UNDER_WAY = (HostState.FAILED, HostState.FENCED)


def reserve_watch(runtime: Runtime) -> ReserveWatch:
    """The watch of a controller."""
    return ReserveWatch(
        state=runtime.controller.state,
        every_s=lambda: runtime.config.capacity.every_s,
        assess=runtime.foresight.reserve,
        report=runtime.post,
        clock=runtime.clock,
    )


class ReserveWatch:
    """Decides when; `assess` computes."""

    def __init__(
        self,
        *,
        state: State,
        every_s: Callable[[], float],
        assess: Callable[[], Awaitable[ReserveAssessed]],
        report: Callable[[ReserveAssessed], None],
        clock: Callable[[], float],
    ) -> None:
        """`assess` has deadlines of its own, and raises OpenNebulaError or TimeoutError."""
        self._state, self._every_s, self._assess = state, every_s, assess
        self._report, self._clock = report, clock
        self._last_at: float | None = None
        self._last_seen: Hashable = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Compute it if it is time. Whatever goes wrong becomes a failure that is told."""
        seen = self._seen()
        if not self._is_due(seen):
            return
        asked_at = self._last_at = self._clock()
        self._last_seen = seen
        try:
            result = await self._assess()
        except TimeoutError:
            result = ReserveAssessed(asked_at=asked_at, failure="it took too long")
        except OpenNebulaError as error:
            result = ReserveAssessed(asked_at=asked_at, failure=f"OpenNebula does not tell its VMs: {error}")
        except Exception:  # a border: a bug in the planning costs this answer
            log.exception("the reserve could not be computed")
            result = ReserveAssessed(asked_at=asked_at, failure="an error of ours, which is in the log")
        self._report(result)

    def _is_due(self, seen: Hashable) -> bool:
        state, now = self._state, self._clock()
        is_quiet = all(
            view.state not in _UNDER_WAY and (view.state is HostState.OK or now - view.since >= CHANGES_WAIT_S)
            for view in state.views.values()
        )  # of a host that has just fallen silent it is not known yet what is the matter: with it, or with us
        if not state.settings.reserve_wanted or state.oned_at is None or not is_quiet:
            return False
        if self._last_at is None:
            return now >= state.settle_until  # hosts that were not heard yet take no VMs
        age_s = now - self._last_at
        return age_s >= self._every_s() or (seen != self._last_seen and age_s >= CHANGES_WAIT_S)

    def _seen(self) -> Hashable:
        """What a change of makes another look worth while."""
        hosts = self._state.hosts.values()
        return hash(tuple((host.id, host.one_state, host.excluded, host.vms, host.free_memory_mb) for host in hosts))
