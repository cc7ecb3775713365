"""placement: who runs where, of a whole cloud, beside pyone. And the controller's longest callback meanwhile."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.canned import host_of, make_pools, serving
from bench.harness import (
    Cpu,
    Figure,
    Options,
    Sample,
    Wrong,
    absolute,
    alternate,
    memory_mb,
    need_peers_python,
    run_side,
)

HOSTS, VMS = 2_500, 50_000
SHORT_HOSTS, SHORT_VMS = 400, 8_000
STALL_MAX_S = 0.020


def placement(options: Options) -> list[Figure]:
    """The controller reads the hosts, whose lists name their VMs; pyone has no cheaper way than all VMs."""
    python = need_peers_python()
    hosts, vms = (SHORT_HOSTS, SHORT_VMS) if options.short else (HOSTS, VMS)
    folder = make_pools(hosts, vms)
    with serving(folder) as endpoint:
        rounds = alternate(
            lambda: _right(run_side("bench.placement:ours", endpoint=endpoint, hosts=hosts, vms=vms), vms),
            lambda: _right(
                run_side("bench.peer_pyone:placement", python=python, endpoint=endpoint, hosts=hosts, vms=vms), vms
            ),
            options.rounds or (3 if options.short else 1),
        )
    note = f"pyone vmpool.infoextended; {vms} VMs on {hosts} hosts"
    figures = [rounds.figure("placement: CPU", 0.02, of=lambda sample: float(sample["cpu_s"]), unit="s CPU", note=note)]
    if options.short:
        return figures  # of a small cloud, what an interpreter takes by itself would be compared
    stalls = [1000 * float(sample["stall_s"]) for sample in rounds.ours]
    return [
        *figures,
        rounds.figure("placement: memory", 0.02, of=lambda sample: float(sample["rss_mb"]), unit="MB", note="peak"),
        absolute(
            "placement: loop", statistics.median(stalls), 1000 * STALL_MAX_S, unit="ms CPU",
            note="the longest callback while both pools are read",
        ),
    ]  # fmt: skip


def _right(sample: Sample, vms: int) -> Sample:
    if sample["right"] != vms:
        raise Wrong(f"the places of {sample['right']} of {vms} VMs are right")
    return sample


async def ours(endpoint: str, hosts: int, vms: int) -> Sample:
    """The controller's own client, as the inventory calls it."""
    from pydantic import SecretStr

    from ha_controller.adapters.opennebula import Client

    gc.freeze()
    async with Client(endpoint, SecretStr("oneadmin:password"), timeout_s=120.0) as client:
        await client.version()  # what happens once in a process is not counted, nor is it for pyone
        with longest_callback() as seen:
            cpu = Cpu()
            found = await client.hosts()
            sample = cpu.sample()
    right = sum(host_of(vm, hosts) == host.id for host in found for vm in host.vm_ids)
    once = len({vm for host in found for vm in host.vm_ids}) == vms
    return {**sample, "right": right if once else -1, "rss_mb": memory_mb(), "stall_s": seen["cpu_s"]}


@contextmanager
def longest_callback() -> Iterator[dict[str, Any]]:
    """The longest callback of the event loop: by the thread's CPU time, and by the clock on the wall."""
    seen: dict[str, Any] = {"cpu_s": 0.0, "wall_s": 0.0, "slowest": ""}
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        cpu, wall = time.thread_time(), time.monotonic()
        run(handle)
        cpu_s, wall_s = time.thread_time() - cpu, time.monotonic() - wall
        if cpu_s > seen["cpu_s"]:
            seen.update(cpu_s=cpu_s, slowest=repr(handle)[:200])
        seen["wall_s"] = max(seen["wall_s"], wall_s)

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        asyncio.events.Handle._run = run  # type: ignore[method-assign]
