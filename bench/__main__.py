"""`python -m bench [NAME...] [--rounds N] [--short]`: measures, prints, writes bench/results.json and the page's table."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from bench.harness import ORDER, Figure, Missing, Options, Wrong, machine, unmeasured, write

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
    "plan": "plan:plan",
    "start": "start:start",
}


def measure(name: str, options: Options) -> list[Figure]:
    """Run one measurement; a side that fails is told and does not end the others."""
    module, _, function = WHERE[name].partition(":")
    try:
        figures: list[Figure] = getattr(importlib.import_module(f"bench.{module}"), function)(options)
    except Missing as missing:
        return [unmeasured(name, "", f"{missing} is missing")]
    except Wrong as wrong:
        return [
            Figure(name=name, ours=None, peer=None, ratio=None, goal="", ok=False, unit="", note=f"failed: {wrong}")
        ]
    return figures


def show(figure: Figure) -> str:
    """One line for people."""
    mark = {True: "ok    ", False: "MISSED", None: "  -   "}[figure.ok]
    numbers = f"ours {figure.ours} {figure.unit}, peer {figure.peer}, ratio {figure.ratio}, goal {figure.goal}"
    return f"{mark} {figure.name}: {numbers}" + (f"  ({figure.note})" if figure.note else "")


def main() -> int:
    """Measure what was asked for; exit 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(ORDER)}")
    parser.add_argument("--rounds", type=int, help="how often both sides take turns")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    chosen = parser.parse_args()
    names = chosen.names or list(WHERE)
    if unknown := set(names) - set(WHERE):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    print(machine(), flush=True)
    figures: list[Figure] = []
    for name in names:
        began = time.monotonic()
        found = measure(name, Options(rounds=chosen.rounds))
        for figure in found:
            print(show(figure), flush=True)
        print(f"       ({time.monotonic() - began:.0f} s)", flush=True)
        figures += found
    if not chosen.dry:
        write(figures, names)
    return int(any(figure.ok is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
