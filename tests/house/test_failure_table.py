"""The tables of failures name every case once, and only tests and scenarios that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scenarios.page import covered

from ha_controller.core.detector import TroubleKind, VerdictKind
from ha_controller.core.guard import GUARDS

ROOT = Path(__file__).parents[2]
TABLES = {
    "docs/fencing-failures.md": [f"F{number}" for number in range(1, 45)],
    "docs/detection-failures.md": [*(f"F{number}" for number in range(45, 72)), "F103"],
    "docs/controller-failures.md": [f"F{number}" for number in range(72, 86)],
    "docs/vm-outcomes.md": [f"F{number}" for number in range(86, 109)],
    "docs/torture.md": [f"T{number}" for number in range(1, 43)],
}
tables = pytest.mark.parametrize("page", TABLES)


def rows_of(page: str) -> list[list[str]]:
    lines = (ROOT / page).read_text().splitlines()
    return [line.strip("|").split("|") for line in lines if re.match(r"\| [FT]\d+ ", line)]


@tables
def test_every_case_has_a_row(page: str):
    assert [row[0].strip() for row in rows_of(page)] == TABLES[page]


@tables
def test_every_test_that_is_named_exists(page: str):
    missing = []
    for row in rows_of(page):
        for named in re.findall(r"`([^`]+)`", row[3]):
            if "/" not in named:
                continue
            file, _, test = named.partition("::")
            path = ROOT / file if file.startswith("plugins/") else ROOT / "tests" / file
            if not path.exists() or (test and f"def {test}(" not in path.read_text()):
                missing.append(f"{row[0].strip()}: {named}")
    assert missing == []


@tables
def test_a_scenario_that_a_row_names_says_that_it_covers_the_case(page: str):
    named = {(row[0].strip(), story) for row in rows_of(page) for story in re.findall(r"`scenarios/([^`]+)`", row[3])}
    told = covered()
    assert sorted((case, story) for case, story in named if story not in told.get(case, [])) == []


def test_every_case_that_a_scenario_covers_is_one():
    known = {row[0].strip() for page in TABLES for row in rows_of(page)}
    assert covered().keys() - known == set()


@tables
def test_a_row_without_a_test_says_that_it_is_not_handled(page: str):
    assert [row[0] for row in rows_of(page) if row[3].strip() == "–" and "not handled" not in row[2]] == []


def test_every_guard_and_every_verdict_is_in_the_page():
    page = (ROOT / "docs" / "guards.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    assert {name for name, _ in GUARDS} <= named
    assert {kind.value for kind in VerdictKind} - {"alive", "unclear"} <= named
    assert all(kind.value in page for kind in TroubleKind)
