"""Says how much of the core and the loop the tests reach, of lines and of branches apart, and fails below the goal.

Reads the data that `make coverage` has just written. One number for both would hide what branches lack.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

GOAL = 0.95


def main() -> int:
    """Print it; 1 below the goal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(path)], check=True)
        found = json.loads(path.read_text())
    totals = found["totals"]
    lines = totals["covered_lines"] / totals["num_statements"]
    branches = totals["covered_branches"] / totals["num_branches"]
    weakest = sorted(found["files"].items(), key=lambda file: -file[1]["summary"]["missing_branches"])[:8]
    for name, file in weakest:
        missing = ", ".join(f"{start}->{end}" for start, end in file["missing_branches"])
        print(f"{name}: {file['summary']['missing_branches']} branches: {missing}")
    print(f"core and engine: {lines:.1%} of {totals['num_statements']} lines, ", end="")
    print(f"{branches:.1%} of {totals['num_branches']} branches (goal: {GOAL:.0%} of each)")
    return 0 if min(lines, branches) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
