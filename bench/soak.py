"""`python -m bench.soak [--minutes 10]`: 1,000 hosts, and every minute some of them fall silent and come back.

Memory must not grow: the highest of the last fifth may be at most a twentieth above the highest of the fifth before
(until then caches fill, and the flight recorder reaches its six minutes). Prints a line a minute; exit 1 if it grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import SIDE_MAX_S, machine, memory_mb, run_side
from bench.watching import controller, far_side, run

HOSTS, GROWTH_MAX = 1_000, 1.05
SILENT_EVERY_S, SILENT_FOR_S = 60.0, 30.0
MORE = 'single_domain_after = "10s"\n'


async def soak(minutes: float) -> dict[str, object]:
    """The whole controller, which reads its inventory every ten seconds and opens an incident for each silent host."""
    samples: list[float] = []
    incidents: set[int] = set()
    with far_side() as far, tempfile.TemporaryDirectory() as folder:
        async with controller(Path(folder), HOSTS, "icmp", "10s", detect=MORE) as runtime:
            ends, number = time.monotonic() + 60 * minutes, 0
            while time.monotonic() < ends:
                number += 1
                route = ("blackhole", f"10.1.{number % 3}.{16 * (number % 15)}/28", "table", "local")
                there = ("nsenter", "-t", str(far), "-n", "ip", "route")
                run(*there, "add", *route)
                for second in range(int(SILENT_EVERY_S)):
                    if second == SILENT_FOR_S:
                        run(*there, "del", *route)
                    await asyncio.sleep(1.0)
                    incidents |= {incident.id for incident in runtime.controller.state.incidents.values()}
                    samples.append(memory_mb(what="VmRSS"))
                print(f"{number} min: {samples[-1]:.0f} MB, {len(incidents)} incidents", file=sys.stderr, flush=True)
    fifth = len(samples) // 5
    return {"before": max(samples[-2 * fifth : -fifth]), "after": max(samples[-fifth:]), "incidents": len(incidents)}


def main() -> int:
    """Run it in a network of its own and say what became of the memory."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    sample = run_side(
        "bench.soak:soak", namespace=True, within_s=SIDE_MAX_S + 60 * minutes, talks=True, minutes=minutes
    )
    print(json.dumps({**sample, "machine": machine(), "minutes": minutes}))
    grew = float(sample["after"]) > GROWTH_MAX * float(sample["before"])
    if not sample["incidents"]:
        print("no incident was opened: this says nothing")
    return int(grew or not sample["incidents"])


if __name__ == "__main__":
    sys.exit(main())
