"""`make fuzz`: every target for some seconds, two at a time, and a table of what came of it.

    python tests/fuzz/campaign.py [--seconds 30] [--parallel 2] [TARGET ...]

New inputs that reach new code go into a folder that is thrown away, unless --keep names one. A finding ends its target;
the input is written to `findings/` and printed. It goes into the corpus once the code is mended.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fuzz.targets import TARGETS  # noqa: E402

CORPUS = HERE / "corpus"
FINDINGS = HERE.parents[1] / "findings"
MEMORY_MAX_MB, INPUT_TIMEOUT_S = 1024, 5


def main() -> int:
    """Run them; 1 if anything was found."""
    parser = argparse.ArgumentParser(description="Fuzz the doors.")
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where new inputs stay, one folder for each target")
    if sys.argv[1:2] == ["--one"]:
        return _in_this_process(sys.argv[2], sys.argv[3:])
    chosen = parser.parse_args()
    FINDINGS.mkdir(exist_ok=True)
    with ThreadPoolExecutor(chosen.parallel) as pool:
        results = list(pool.map(lambda name: _one(name, chosen.seconds, chosen.keep), chosen.targets))
    print(f"\n{'TARGET':<22}{'EXECUTIONS':>12}{'COVERED':>9}  FINDING")
    for name, executions, covered, finding in results:
        print(f"{name:<22}{executions:>12}{covered:>9}  {finding or 'none'}")
    found = sum(bool(finding) for *_, finding in results)
    print(f"{sum(executions for _, executions, _, _ in results)} executions, {found} findings")
    return 1 if found else 0


def _one(name: str, seconds: int, keep: Path | None) -> tuple[str, int, int, str]:
    """(name, executions, covered edges, what was found)."""
    with tempfile.TemporaryDirectory(prefix="fuzz-new-") as scratch:
        new = Path(scratch) if keep is None else keep / name
        new.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(scratch) / f"seed-{number}").write_bytes(seed)
        folders = [str(folder) for folder in (new, CORPUS / name, Path(scratch)) if folder.is_dir()]
        command = [
            sys.executable, __file__, "--one", name, *folders,
            f"-max_total_time={seconds}", f"-max_len={TARGETS[name].bytes_max}", f"-rss_limit_mb={MEMORY_MAX_MB}",
            f"-timeout={INPUT_TIMEOUT_S}", "-print_final_stats=1", f"-artifact_prefix={FINDINGS}/{name}-",
        ]  # fmt: skip
        try:
            ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 300)
        except subprocess.TimeoutExpired:
            return name, 0, 0, "it does not end"
    said = ended.stdout + ended.stderr
    executions = re.search(r"number_of_executed_units: (\d+)", said) or re.search(r"Done (\d+) runs", said)
    covered = re.findall(r"cov: (\d+)", said)
    finding = "" if ended.returncode == 0 else _told(said)
    if finding:
        print(f"--- {name}\n{said[-3000:]}")
    print(f"{name}: {finding or 'nothing found'}", flush=True)
    return name, int(executions[1]) if executions else 0, int(covered[-1]) if covered else 0, finding


def _told(said: str) -> str:
    error = re.compile(r"[\w.]+(Error|Finding|Exception)\b|ERROR: libFuzzer")
    lines = [line for line in said.splitlines() if error.match(line)]
    return lines[-1][:150] if lines else "it ended with an error"


def _in_this_process(name: str, arguments: list[str]) -> int:
    import logging

    import atheris
    import structlog

    with atheris.instrument_imports(include=["ha_controller", "ha_controller_ipmi", "ha_controller_redfish",
                                             "ha_controller_pdu", "ha_controller_fence_agents",
                                             "ha_controller_watchdog", "pyghmi"]):  # fmt: skip
        for module in [each for each in sys.modules if each.partition(".")[0] in ("fuzz", "ha_controller")
                       or each.startswith(("ha_controller_", "pyghmi"))]:  # fmt: skip
            del sys.modules[module]
        from fuzz.targets import TARGETS as TARGETS_OBSERVED
    logging.disable(logging.CRITICAL)  # each input would write a traceback
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    atheris.Setup([sys.argv[0], *arguments], TARGETS_OBSERVED[name].run)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
