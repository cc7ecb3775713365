"""`python -m bench.profile steady|both|incident`: where the controller's CPU time goes, by py-spy.

py-spy looks at the process from outside, 250 times a second, and counts threads that run. Kernel time is charged to
the Python function that made the call. Prints tables for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path

from bench.harness import PEERS_PYTHON, Missing, compile_all, machine, run_side

RATE = 250
#: where threads only wait, which py-spy does not always know
WAITING = ("Condition.wait ", "Journal._next_batch ", "EpollSelector.select ", "wait (threading", "_shutdown ")
TOP = 12
#: the first of these in a stack, from the innermost call on, is what the time is charged to
PARTS = (
    ("the embedded cloud (not the controller)", r"ha_controller/sim/"),
    ("icmp channel", r"prober/(icmp|ping_socket)\.py"),
    ("ssh channel", r"prober/tcp\.py"),
    ("prober: wheel, lanes", r"prober/(scheduler|turns|channel)\.py"),
    ("core", r"ha_controller/core/"),
    ("engine", r"ha_controller/engine\.py"),
    ("flight recorder", r"ha_controller/flight/|black_box\.py"),
    ("journal, ledger", r"journal\w*\.py|ledger\.py|sealing\.py"),
    ("reading OpenNebula", r"adapters/opennebula/"),
    ("inventory, orders to OpenNebula", r"adapters/recoverer/"),
    ("fencing", r"adapters/fencer/|ha_controller_ipmi"),
    ("counting for metrics", r"app/(counting|tallies|metrics)\.py"),
    ("API", r"adapters/http_api/"),
    ("the rest of the controller", r"ha_controller"),
    ("the bench", r"bench/"),
    ("asyncio, anyio", r"asyncio/|anyio/|selectors\.py"),
    ("imports", r"importlib"),
)


@contextmanager
def profiled(path: str) -> Iterator[None]:
    """Have py-spy look at this process meanwhile and write its stacks to `path`; empty: not at all."""
    if not path:
        yield
        return
    command = [PEERS_PYTHON.parent / "py-spy", "record", "--pid", str(getpid()), "--rate", str(RATE), "--format", "raw"]
    # it must not stop the process to look at it: each look would be a stall
    words = [*command, "--nonblocking", "-o", path, "-d", "600"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
        try:
            time.sleep(1.0)  # until it looks
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            spy.wait(30)


def main() -> int:
    """Profile one of them, and print what dominates."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["steady", "both", "incident"])
    what = parser.parse_args().what
    if not (PEERS_PYTHON.parent / "py-spy").exists():
        raise Missing("py-spy: `make bench` installs it into .bench/venv")
    compile_all()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "stacks")
        if what == "incident":
            run_side("bench.recovering:ours", hosts=6, each=5, profile=path)
        else:
            from bench.floors import build
            from bench.watching import BOTH_HOSTS, HOSTS

            hosts, server = (HOSTS, "") if what == "steady" else (BOTH_HOSTS, str(build("banner_server")))
            channels = "icmp" if what == "steady" else "both"
            run_side(
                "bench.watching:watch", namespace=True, hosts=hosts, channels=channels, seconds=30.0, poll="1h",
                server=server, profile=path,
            )  # fmt: skip
        stacks = Path(path).read_text().splitlines()
    print(f"{what}: {machine()}")
    tell(stacks)
    return 0


def tell(stacks: list[str]) -> None:
    """Print the share of each part, and of the functions in which most of the time passed."""
    parts, functions = Counter[str](), Counter[str]()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].startswith(WAITING):
            continue
        parts[_part_of(frames)] += int(count)
        functions[re.sub(r":\d+\)", ")", frames[-1])] += int(count)
    whole = parts.total()
    print(f"{whole} samples, {whole / RATE:.1f} s of CPU\n")
    for title, shares in (("part", parts), ("function", functions)):
        print(f"| {title} | share |", "|---|---|", sep="\n")
        for name, count in shares.most_common(TOP):
            print(f"| {name} | {100 * count / whole:.1f} % |")
        print()


def _part_of(frames: list[str]) -> str:
    whole = ";".join(frames)
    if "ha_controller/sim/" in whole:
        return PARTS[0][0]
    for frame in reversed(frames):
        for name, pattern in PARTS:
            if name not in ("asyncio, anyio", "imports", "the bench") and re.search(pattern, frame):
                return name
    return next((name for name, pattern in PARTS if re.search(pattern, whole)), "everything else")


if __name__ == "__main__":
    sys.exit(main())
