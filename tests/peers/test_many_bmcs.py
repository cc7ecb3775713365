"""300 BMCs at once, 100 of them black holes: the living are verified in their own time, the loop never stands still.

The figures of the last measurement are in docs/benchmarks.md; `-s` prints new ones.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from ha_controller_ipmi import IpmiAgent, IpmiConfig
from leads import always

from ha_controller.adapters.fencer import Device, Fencer
from ha_controller.core.effects import Fence
from ha_controller.core.events import Event, FenceReported, FenceResult
from tests.peers.ipmi_sim import ADDRESS, OPERATOR, BlackHole, IpmiSimFarm

pytestmark = [pytest.mark.peer, pytest.mark.slow]
LIVING, DEAD = 200, 100
DEADLINE_S = 15.0
CALLBACK_CPU_MAX_S = 0.1


@dataclass
class Callbacks:
    """The longest callback of the event loop: by the thread's CPU time, and by the clock on the wall."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    slowest: str = ""
    lags_s: list[float] = field(default_factory=list)


@contextmanager
def measured() -> Iterator[Callbacks]:
    seen, run = Callbacks(), asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        cpu, wall = time.thread_time(), time.monotonic()
        run(handle)
        cpu_s, wall_s = time.thread_time() - cpu, time.monotonic() - wall
        if cpu_s > seen.cpu_s:
            seen.cpu_s, seen.slowest = cpu_s, repr(handle)[:200]
        seen.wall_s = max(seen.wall_s, wall_s)

    gc.collect()
    gc.freeze()  # as the service does at its start: what other tests left behind is not looked at again and again
    asyncio.events.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        gc.unfreeze()
        asyncio.events.Handle._run = run  # type: ignore[method-assign]


def agent(port: int) -> IpmiAgent:
    return IpmiAgent(IpmiConfig(address=ADDRESS, port=port, username=OPERATOR.name, password=OPERATOR.password))


async def test_a_hundred_black_holes_among_three_hundred_bmcs_delay_nobody(bmc_farm: IpmiSimFarm):
    bmcs, holes = bmc_farm.start(LIVING), [BlackHole() for _ in range(DEAD)]
    ports = [bmc.port for bmc in bmcs] + [hole.port for hole in holes]
    events: list[Event] = []
    took: dict[int, float] = {}
    clock = asyncio.get_running_loop().time

    def report(event: Event) -> None:
        events.append(event)
        if isinstance(event, FenceReported):
            took[event.host] = clock() - began

    fencer = Fencer(report=report, may_act=always, clock=clock)
    for host, port in enumerate(ports):
        fencer.equip(host, {"bmc": Device(name="bmc", agent=agent(port), timeout_s=DEADLINE_S)})
    cpu, began = time.process_time(), clock()
    with measured() as callbacks:
        async with anyio.create_task_group() as group:
            for host in range(len(ports)):
                order = Fence(host=host, incident=1, attempt=1, devices=("bmc",), send=True, not_after=clock() + 5)
                group.start_soon(fencer.fence, order)
    for hole in holes:
        hole.close()
    results = {event.host: event.result for event in events if isinstance(event, FenceReported)}
    living = sorted(took[host] for host in range(LIVING))
    dead = sorted(took[host] for host in range(LIVING, LIVING + DEAD))
    print(
        f"\n{LIVING} living BMCs verified off: median {living[LIVING // 2]:.1f} s, last {living[-1]:.1f} s; "
        f"{DEAD} black holes: {dead[0]:.1f} to {dead[-1]:.1f} s (deadline {DEADLINE_S:g}); "
        f"longest callback {callbacks.cpu_s * 1000:.0f} ms CPU, {callbacks.wall_s * 1000:.0f} ms wall; "
        f"CPU in all {time.process_time() - cpu:.1f} s"
    )
    assert {results[host] for host in range(LIVING)} == {FenceResult.OFF_READ}
    assert {results[host] for host in range(LIVING, LIVING + DEAD)} == {FenceResult.UNVERIFIED}
    assert all(not bmc.power_is_on() for bmc in bmcs)
    assert living[-1] < DEADLINE_S - 2
    assert dead[-1] < DEADLINE_S + 2
    assert callbacks.cpu_s < CALLBACK_CPU_MAX_S, callbacks.slowest
