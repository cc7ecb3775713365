"""`python -m bench.loops [steady both fence-300 failover]`: the controller on uvloop and on asyncio's own event loop.

An extra has to earn its place: uvloop would be one if it saved a fifth of what something costs or lasts.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

from bench.harness import Sample, alternate, machine, run_side
from bench.watching import BOTH_HOSTS, HOSTS

WORTH_IT = 0.8


def main(chosen: Sequence[str]) -> int:
    """Measure what is chosen (all by default), and print a table for docs/benchmarks.md."""
    from bench.floors import build

    watch = partial(run_side, "bench.watching:watch", namespace=True, poll="1h")
    steady = partial(watch, hosts=HOSTS, channels="icmp", seconds=20.0)
    both = partial(watch, hosts=BOTH_HOSTS, channels="both", seconds=15.0, server=str(build("banner_server")))
    fence = partial(run_side, "bench.fencing:ours", living=300, dead=0)
    fail_over = partial(run_side, "bench.recovering:ours", hosts=6, each=5)
    rows: list[tuple[str, Callable[..., Sample], str, str, int]] = [
        ("steady: CPU", steady, "core", "% of a core", 2),
        ("both: CPU", both, "core", "% of a core", 2),
        ("fence-300: CPU", fence, "cpu_s", "s", 3),
        ("fence-300: wall", fence, "last_s", "s", 3),
        ("failover", fail_over, "total", "s", 2),
    ]
    print(machine(), "| what | uvloop | asyncio | unit | ratio, of each round |", "|---|---|---|---|---|", sep="\n")
    best, measured = 1.0, {}
    for what, side, key, unit, count in rows:
        if chosen and what.split(":")[0] not in chosen:
            continue
        if side not in measured:
            measured[side] = alternate(partial(side, uvloop=True), partial(side, uvloop=False), count)
        rounds = measured[side]
        ours, peer = ([float(sample[key]) for sample in each] for each in (rounds.ours, rounds.peer))
        ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
        best = min(best, statistics.median(ratios))
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"| {what} | {statistics.median(ours):.3g} | {statistics.median(peer):.3g} | {unit} | {told} |", flush=True
        )
    print(f"best: {best:.2f}; it would be worth it from {WORTH_IT} on")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
