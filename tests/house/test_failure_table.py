"""docs/fencing-failures.md names every case once, and only tests and scenarios that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    line.strip("|").split("|")
    for line in (ROOT / "docs/fencing-failures.md").read_text().splitlines()
    if re.match(r"\| F\d+ ", line)
]


def test_every_case_has_a_row():
    assert [row[0].strip() for row in ROWS] == [f"F{number}" for number in range(1, 45)]


def test_every_test_that_is_named_exists():
    missing = []
    for row in ROWS:
        for named in re.findall(r"`([^`]+)`", row[3]):
            if "/" not in named:
                continue
            file, _, test = named.partition("::")
            path = ROOT / file if file.startswith("plugins/") else ROOT / "tests" / file
            if not path.exists() or (test and f"def {test}(" not in path.read_text()):
                missing.append(f"{row[0].strip()}: {named}")
    assert missing == []


def test_a_row_without_a_test_says_that_it_is_not_handled():
    assert [row[0] for row in ROWS if row[3].strip() == "–" and "not handled" not in row[2]] == []
