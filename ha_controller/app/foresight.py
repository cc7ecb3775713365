"""What `simulate` answers: reads the VMs, takes a snapshot of the core, and plans beside the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from ha_controller import threads
from ha_controller.core import reserve, simulate
from ha_controller.core.events import ReserveAssessed
from ha_controller.core.model import Host
from ha_controller.core.order import is_of_groups
from ha_controller.core.simulate import ClusterCapacity, Loss, Snapshot

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

Json = Any
Answer = TypeVar("Answer")
Work = Callable[[Callable[[], None]], Answer]  #: takes a breath now and then
SCHEMA = "ha-controller/v1"
READ_MAX_S = 120.0
READ_AT_ONCE = 200
PLAN_MAX_S = 900.0
AT_ONCE_S = 0.1  #: of work
IDLE_TIMES, ASKED_IDLE_TIMES = 9, 2  #: the second one where a person waits
BREATH_MAX_S = 0.5
GIVE_WAY_S = 0.02


class Foresight:
    """Simulates: one question of people at a time, and the reserve. The decisions of the controller never wait."""

    def __init__(self, runtime: Runtime) -> None:
        """It reads through the runtime."""
        self._runtime = runtime
        self._one_reserve = anyio.CapacityLimiter(1)  #: minutes in a large cloud: nobody who asks waits behind it
        self._one_question = anyio.CapacityLimiter(1)
        self._questions = 0  #: of people, that have no answer yet

    async def fail(self, hosts: Sequence[int]) -> Json:
        """Where the VMs of these hosts would go if they failed now.

        Raises:
            OpenNebulaError: the VMs cannot be read.
            TimeoutError: it takes too long.
        """
        taken = await self._snapshot(hosts)
        loss = await self._asked(lambda _: taken.lose(hosts))
        names = sorted(name for name in loss.strangers if not is_of_groups(name))
        missing = await self._runtime.names.missing(names) if names else ()
        starts = await self._asked(lambda _: loss.starts(taken.settings))
        return {
            "schema": SCHEMA,
            **_loss(taken, loss),
            "order": [asdict(each) for each in starts],
            "order_faults": list(loss.order_faults(missing)),
        }

    async def capacity(self) -> Json:
        """How many hosts may fail, by cluster and for each host.

        Raises:
            OpenNebulaError: the VMs cannot be read.
            TimeoutError: it takes too long.
        """
        taken = await self._snapshot(self._runtime.controller.state.hosts)
        found = await self._asked(lambda breathe: simulate.capacity(taken, breathe))
        return {"schema": SCHEMA, "clusters": [_cluster(taken, each) for each in found]}

    async def left_alone(self) -> tuple[int, dict[str, list[str]]]:
        """How many VMs there are, and those that would be left alone if their host failed, by why.

        Raises:
            OpenNebulaError: the VMs cannot be read.
            TimeoutError: it takes too long.
        """
        taken, found = await self._snapshot(self._runtime.controller.state.hosts), dict[str, list[str]]()
        for host in sorted(taken.hosts):
            for each in taken.left_alone(host):
                found.setdefault(each.reason, []).append(each.name)
        return sum(map(len, taken.vms.values())), found

    async def reserve(self) -> ReserveAssessed:
        """How many hosts may fail, for the core.

        Raises:
            OpenNebulaError: the VMs cannot be read.
            TimeoutError: it takes too long.
        """
        asked_at = self._runtime.clock()
        taken = await self._snapshot(self._runtime.controller.state.hosts)
        breath = Breath(IDLE_TIMES, lambda: self._questions > 0)
        return await _beside(lambda breathe: reserve.assess(taken, asked_at, breathe), self._one_reserve, breath)

    async def _snapshot(self, hosts: Sequence[int] | dict[int, Host]) -> Snapshot:
        state = self._runtime.controller.state
        wanted = sorted({vm for host in hosts for vm in state.hosts[host].vms})
        with anyio.fail_after(READ_MAX_S):
            vms = [
                vm
                for start in range(0, len(wanted), READ_AT_ONCE)  # decisions go on between two readings
                for vm in await self._runtime.recoverer.read_vms(wanted[start : start + READ_AT_ONCE])
            ]
        return simulate.snapshot(state, vms, self._runtime.clock())

    async def _asked(self, work: Work[Answer]) -> Answer:
        self._questions += 1
        try:
            return await _beside(work, self._one_question, Breath(ASKED_IDLE_TIMES))
        finally:
            self._questions -= 1


async def _beside(work: Work[Answer], limiter: anyio.CapacityLimiter, breath: Breath) -> Answer:
    """In a thread: planning for a large cloud takes minutes, and the loop must go on deciding."""
    try:
        with anyio.fail_after(PLAN_MAX_S):
            return await threads.run_sync(work, breath, limiter=limiter, abandon_on_cancel=True)
    finally:
        breath.is_wanted = False  # the thread would go on to its end, and the process could not end before


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


class Breath:
    """Lets a thread that computes take a breath: only one thread runs at a time, and the event loop has to wait for it
    at each of its calls into the kernel. Seen with 10,000 hosts: four of ten probes were not sent."""

    def __init__(self, idle_times: int = IDLE_TIMES, gives_way: Callable[[], bool] = lambda: False) -> None:
        """`gives_way`: to another thread, whose one plan has no breath in it: two would leave the loop a third."""
        self.is_wanted = True
        self._gives_way = gives_way
        self._idle_times = idle_times
        self.slept_s = 0.0
        self._worked_s = 0.0
        self._since: float | None = None

    def __call__(self) -> None:
        """Sleep several times as long as was worked since the last breath. What takes a moment is not delayed.

        Raises:
            GivenUp: nobody waits for it any more.
        """
        while self.is_wanted and self._gives_way():
            threads.rest(GIVE_WAY_S)
        if not self.is_wanted:
            raise GivenUp
        worked_s = 0.0 if self._since is None else time.thread_time() - self._since
        self._worked_s += worked_s
        if self._worked_s > AT_ONCE_S:
            sleep_s = min(worked_s * self._idle_times, BREATH_MAX_S)
            threads.rest(sleep_s)
            self.slept_s += sleep_s
        self._since = time.thread_time()


def _name(taken: Snapshot, host: int | None) -> str | None:
    return None if host is None else taken.hosts[host].name


def _loss(taken: Snapshot, loss: Loss) -> Json:
    placed = [each for each in loss.placements if each.destination is not None]
    return {
        "hosts": [_name(taken, host) for host in loss.hosts],
        "moved": len(placed),
        "nowhere": len(loss.nowhere),
        "left_alone": len(loss.left),
        "vms": [
            *(_row(each.vm, each.name, "nowhere", reason=each.reason) for each in loss.nowhere),
            *(
                _row(each.vm, each.name, "moved", to=_name(taken, each.destination), softened=each.softened)
                for each in placed
            ),
            *(_row(each.vm, each.name, "left alone", reason=each.reason) for each in loss.left),
        ],
    }


def _row(vm: int, name: str, outcome: str, *, to: str | None = None, reason: str = "", softened: bool = False) -> Json:
    return {"id": vm, "name": name, "outcome": outcome, "to": to, "reason": reason, "softened": softened}


def _cluster(taken: Snapshot, found: ClusterCapacity) -> Json:
    names = sorted({taken.hosts[host].cluster_name for loss in found.alone for host in loss.hosts})
    return {
        "cluster": found.cluster,
        "name": names[0] if names else "",
        "hosts": [_alone(taken, loss) for loss in found.alone],
        "may_fail": found.may_fail,
        "too_many": None if found.too_many is None else _loss(taken, found.too_many),
    }


def _alone(taken: Snapshot, loss: Loss) -> Json:
    reason = loss.nowhere[0] if loss.nowhere else None
    return {
        "host": _name(taken, loss.hosts[0]),
        "moved": len(loss.placements) - len(loss.nowhere),
        "nowhere": len(loss.nowhere),
        "left_alone": len(loss.left),
        "reason": "" if reason is None else f"{reason.name} {reason.reason}",
    }
