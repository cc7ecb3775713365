"""How long the reserve of a large cloud takes, and how long the decision loop waits meanwhile.

Run by hand: `python tests/campaigns/reserve.py`.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

sys.path.insert(0, str(Path(__file__).parents[1]))

from world import Cloud

from ha_controller.core import reserve, simulate


async def measure(hosts: int, vms_per_host: int) -> None:
    """One cloud: one host alone, all of it in a thread, and the longest wait of the loop meanwhile."""
    cloud = Cloud(hosts=hosts, vms_per_host=vms_per_host)
    cloud.run(1)
    taken = simulate.snapshot(cloud.controller.state, cloud.vms.values(), cloud.now)
    began_at = time.perf_counter()
    taken.lose([3])
    alone_s = time.perf_counter() - began_at
    longest_s, done = 0.0, anyio.Event()

    async def watch() -> None:
        nonlocal longest_s
        while not done.is_set():
            before = time.perf_counter()
            await anyio.sleep(0.01)
            longest_s = max(longest_s, time.perf_counter() - before - 0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        began_at = time.perf_counter()
        found = await run_sync(partial(reserve.assess, taken, cloud.now))
        took_s = time.perf_counter() - began_at
        done.set()
    [cluster] = found.clusters
    print(
        f"{hosts} hosts, {len(cloud.vms)} VMs: one host {alone_s * 1000:.0f} ms, all {took_s:.1f} s, "
        f"{cluster.may_fail} may fail; the loop waited {longest_s * 1000:.0f} ms at the longest"
    )


if __name__ == "__main__":
    for hosts in (10, 100, 500):
        anyio.run(measure, hosts, 9)
