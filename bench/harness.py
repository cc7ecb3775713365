"""What all measurements share: sides that run in processes of their own, rounds that alternate, figures, the table."""

from __future__ import annotations

import compileall
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results.json"
PAGE = ROOT / "docs/benchmarks.md"
PEERS_PYTHON = ROOT / ".bench/venv/bin/python"  #: has pyone, aiosqlite, uvloop and py-spy; `make bench` makes it
SIDE_MAX_S = 400.0
UVLOOP = "HA_BENCH_UVLOOP"  #: in the environment of a side
_BEGIN, _END = "<!-- written by `python -m bench`: begin -->", "<!-- end -->"

#: a network of its own, in which every address of 127/8 answers and anybody may ping
_NAMESPACE = (
    "unshare", "-n", "sh", "-c",
    'ip link set lo up; echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range; exec "$@"', "sh",
)  # fmt: skip

Sample = Mapping[str, Any]
Side = Callable[[], Sample]


class Missing(Exception):
    """A peer that is not installed; the text names it."""


class Wrong(Exception):
    """A side's results are not right, so its time does not count."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the results."""

    name: str
    ours: float | None
    peer: float | None
    ratio: float | None
    goal: str
    ok: bool | None  #: None: not measured
    unit: str
    note: str = ""
    quietest: float | None = None  #: the ratio of the best round of each side: whoever else runs here makes none better


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the bench was called."""

    rounds: int | None = None  #: None: what the measurement takes by itself
    dry: bool = False  #: nothing is written
    short: bool = False  #: the form of continuous integration: less of everything, ratios of CPU only


# --- sides ------------------------------------------------------------------------------------------------------------


def run_side(
    what: str,
    *,
    namespace: bool = False,
    python: Path | str = sys.executable,
    core: int | None = None,
    within_s: float = SIDE_MAX_S,
    talks: bool = False,
    uvloop: bool = False,
    **arguments: Any,
) -> Sample:
    """Run `module:function` in a process of its own and return what it returns.

    `namespace`: in a network of its own (needs root). `core`: on this processor only, as far as there are so many.
    `talks`: what it says meanwhile is shown. `uvloop`: on that event loop, from the peers' environment.

    Raises:
        Wrong: it failed; the text holds the end of what it said.
    """
    command = [str(python), "-m", "bench.side", what, json.dumps(arguments)]
    if namespace:
        command = [*_NAMESPACE, *command]
    if core is not None and (os.cpu_count() or 1) > core:
        command = ["taskset", "-c", str(core), *command]
    errors_to = None if talks else subprocess.PIPE
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment(), UVLOOP: "yes" if uvloop else ""},
        stdout=subprocess.PIPE,
        stderr=errors_to,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        process.communicate()
        raise Wrong(f"{what}: no result within {within_s:g} s") from None
    if process.returncode != 0:
        raise Wrong(f"{what}: {(errors or '').strip()[-2000:] or f'exit status {process.returncode}'}")
    sample: Sample = json.loads(said.splitlines()[-1])
    return sample


def environment() -> dict[str, str]:
    """Ours with the folders in which the bench, the plugins and the tests' helpers are found."""
    paths = [ROOT, *sorted(ROOT.glob("plugins/*/")), ROOT / "tests"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def compile_all() -> None:
    """As pip does at an installation: this environment may have been told to keep no bytecode."""
    for folder in (ROOT / "ha_controller", *ROOT.glob("plugins/*/")):
        compileall.compile_dir(folder, quiet=1)


def need_peers_python() -> Path:
    """Raises Missing: the venv of the peers was not made."""
    if not PEERS_PYTHON.exists():
        raise Missing("pyone, aiosqlite: `make bench` installs them into .bench/venv")
    return PEERS_PYTHON


class Cpu:
    """CPU and wall time of this process (children that were waited for included) since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = self._now(), time.monotonic()

    @staticmethod
    def _now() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    def sample(self, **more: Any) -> dict[str, Any]:
        """Return what was used until now, with what else the side has to say."""
        return {"cpu_s": self._now() - self._cpu, "wall_s": time.monotonic() - self._wall, **more}


def cpu_of(process: int) -> float:
    """CPU seconds of another process, by the kernel."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int | str = "self", what: str = "VmHWM") -> float:
    """Memory of a process: `VmHWM` is the highest so far, `VmRSS` what it is now; ru_maxrss has the parent's in it."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    raise Wrong(f"the kernel does not tell {what} of {process}")


# --- rounds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The samples of two sides, round by round."""

    ours: Sequence[Sample]
    peer: Sequence[Sample]

    def figure(
        self,
        name: str,
        goal: float,
        *,
        of: Callable[[Sample], float],
        unit: str,
        note: str = "",
        scale: float = 1.0,
        at_least: bool = False,
    ) -> Figure:
        """The median of the ratios of the rounds, against the goal. `of` takes the measured value from a sample."""
        ours, peer = [of(each) for each in self.ours], [of(each) for each in self.peer]
        ratios = sorted(mine / theirs for mine, theirs in zip(ours, peer, strict=True))
        ratio = statistics.median(ratios)
        best = max if at_least else min
        spread = f"{len(ratios)} rounds, ratios {ratios[0]:.3g} to {ratios[-1]:.3g}"
        return Figure(
            name=name,
            ours=_rounded(statistics.median(ours) * scale),
            peer=_rounded(statistics.median(peer) * scale),
            ratio=_rounded(ratio),
            goal=f"{'>=' if at_least else '<='} {goal:g}x",
            ok=ratio >= goal if at_least else ratio <= goal,
            unit=unit,
            note="; ".join(filter(None, (note, spread))),
            quietest=_rounded(best(ours) / best(peer)),
        )


def alternate(ours: Side, peer: Side, rounds: int) -> Rounds:
    """Let both take turns, the other way round in every second round."""
    samples: tuple[list[Sample], list[Sample]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            samples[which].append((ours, peer)[which]())
    return Rounds(ours=samples[0], peer=samples[1])


def absolute(name: str, value: float, goal: float, *, unit: str, note: str = "") -> Figure:
    """A figure without a peer, that must not be more than its goal."""
    return Figure(
        name=name, ours=_rounded(value), peer=None, ratio=None, goal=f"<= {goal:g} {unit}", ok=value <= goal, unit=unit,
        note=note,
    )  # fmt: skip


def unmeasured(name: str, goal: str, why: str) -> Figure:
    """What could not be measured here, and why."""
    return Figure(name=name, ours=None, peer=None, ratio=None, goal=goal, ok=None, unit="", note=why)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


# --- results ----------------------------------------------------------------------------------------------------------


def machine() -> str:
    """What it was measured on, and how busy that was."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = model[0].partition(":")[2].strip() if model else platform.machine()
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {os.cpu_count()} cores {name}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, load {load}"
    )


def write(figures: Sequence[Figure], measured: Sequence[str]) -> None:
    """Replace the lines of what was measured now in the results and in the table; leave the others."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    found = [{key: value for key, value in asdict(each).items() if key != "quietest"} for each in figures]
    lines = [line for line in kept if line["name"].split(":")[0] not in measured] + found
    RESULTS.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    page = PAGE.read_text()
    if _BEGIN in page:
        before, _, rest = page.partition(_BEGIN)
        text = f"Last measured: {machine()}.\n\n{table(lines)}"
        PAGE.write_text(f"{before}{_BEGIN}\n{text}{_END}{rest.partition(_END)[2]}")


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The results for the page."""
    rows = [
        "| what | ours | peer | unit | ratio | goal | reached | how it was measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in sorted(lines, key=lambda line: ORDER.index(line["name"].split(":")[0])):
        shown = ["–" if line[key] is None else f"{line[key]:g}" for key in ("ours", "peer", "ratio")]
        ours, peer, ratio = shown
        reached = {True: "yes", False: "**missed**", None: "not measured"}[line["ok"]]
        cells = (line["name"], ours, peer, line["unit"], ratio, line["goal"], reached, line["note"])
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


#: all measurements, in the order in which they are shown
ORDER = (
    "icmp", "icmp-floor", "banner", "steady", "both", "detect", "placement", "journal", "fence-300", "fence-dead",
    "recover-500", "failover", "messages", "takeover", "plan", "start", "growth",
)  # fmt: skip
