"""`python -m bench [NAME...]`: measures, prints, writes bench/results.json and the table of docs/benchmarks.md.

`--gate` is the short form for continuous integration: it fails on a ratio 1.5 times worse than its goal, five times.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from bench.harness import ORDER, Figure, Missing, Options, Wrong, compile_all, machine, unmeasured, write

#: name -> where it is
WHERE = {
    "icmp": "probing:icmp",
    "icmp-floor": "probing:icmp_floor",
    "banner": "probing:banner",
    "steady": "watching:steady",
    "both": "watching:both",
    "detect": "watching:detect",
    "growth": "watching:growth",
    "placement": "placement:placement",
    "journal": "journal:journal",
    "fence-300": "fencing:fence_300",
    "fence-dead": "fencing:fence_dead",
    "recover-500": "recovering:recover_500",
    "failover": "recovering:failover",
    "messages": "recovering:messages",
    "takeover": "takeover:takeover",
    "plan": "plan:plan",
    "start": "start:start",
}

GATE = ("icmp", "banner", "placement", "journal", "failover")
WORSE = 1.5
#: so often what is worse is measured anew: beside fping, ours depends on the processor, and on who else uses it
AGAIN = 4


def measure(name: str, options: Options) -> list[Figure]:
    """Run one measurement; a side that fails is told and does not end the others."""
    module, _, function = WHERE[name].partition(":")
    try:
        figures: list[Figure] = getattr(importlib.import_module(f"bench.{module}"), function)(options)
    except Missing as missing:
        return [unmeasured(name, "", f"{missing} is missing")]
    except Wrong as wrong:
        print(f"{name}: {wrong}", flush=True)
        end = " ".join(str(wrong).split())[-200:]  # a traceback says at its end what it is about
        return [Figure(name=name, ours=None, peer=None, ratio=None, goal="", ok=False, unit="", note=f"failed: {end}")]
    return figures


def show(figure: Figure) -> str:
    """One line for people."""
    mark = {True: "ok    ", False: "MISSED", None: "  -   "}[figure.ok]
    numbers = f"ours {figure.ours} {figure.unit}, peer {figure.peer}, ratio {figure.ratio}, goal {figure.goal}"
    return f"{mark} {figure.name}: {numbers}" + (f"  ({figure.note})" if figure.note else "")


def shown(figures: list[Figure]) -> list[Figure]:
    """Print them."""
    for figure in figures:
        print(show(figure), flush=True)
    return figures


def main() -> int:
    """Measure what was asked for; exit 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(ORDER)}")
    parser.add_argument("--rounds", type=int, help="how often both sides take turns")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--gate", action="store_true", help=f"a short form of {', '.join(GATE)}; writes nothing")
    chosen = parser.parse_args()
    names = chosen.names or list(GATE if chosen.gate else WHERE)
    if unknown := set(names) - set(WHERE):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    compile_all()
    print(machine(), flush=True)
    figures: list[Figure] = []
    for name in names:
        began = time.monotonic()
        options = Options(rounds=chosen.rounds, short=chosen.gate, dry=chosen.dry)
        found = shown(measure(name, options))
        for _ in range(AGAIN if chosen.gate else 0):
            if any(map(is_worse, found)):
                print(f"once more: {name}", flush=True)
                found = shown(measure(name, options))
        print(f"       ({time.monotonic() - began:.0f} s)", flush=True)
        figures += found
    if chosen.gate:
        worse = [figure for figure in figures if is_worse(figure)]
        return int(bool(worse))
    if not chosen.dry:
        write(figures, names)
    return int(any(figure.ok is False for figure in figures))


def is_worse(figure: Figure) -> bool:
    """Whether a ratio is so much worse than its goal that something was broken, or there is none at all."""
    if figure.quietest is None:
        print(f"FAILED {figure.name}: {figure.note}", flush=True)
        return True
    goal = float(figure.goal.removesuffix("x").split()[1])
    limit = goal / WORSE if figure.goal.startswith(">=") else goal * WORSE
    bad = figure.quietest < limit if figure.goal.startswith(">=") else figure.quietest > limit
    if bad:
        told = f"{figure.quietest:g}x in the best rounds is {WORSE:g} times worse than the goal {figure.goal}"
        print(f"FAILED {figure.name}: {told}", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
