"""docs/will-it-kill.md names a test that exists for every row, and speaks of every guard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ha_controller.core.guard import GUARDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/will-it-kill.md").read_text()
ROWS = [
    line.strip("|").split("|")
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| what happens ")
]


def named(text: str) -> list[str]:
    return [each for each in re.findall(r"`([^`]+)`", text) if "/" in each]


def missing(each: str) -> bool:
    file, _, test = each.partition("::")
    path = ROOT / "tests" / file
    if test:
        return not (path.is_file() and re.search(rf"^(async )?def {test}\(", path.read_text(), re.M))
    return not ((path / "scenario.toml").is_file() if file.startswith("scenarios/") else path.is_file())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:60])
def test_every_row_names_tests_that_exist(row: list[str]):
    assert len(row) == 3
    assert named(row[2])
    assert [each for each in named(row[2]) if missing(each)] == []


def test_what_is_named_in_the_text_exists_too():
    assert [each for each in named(PAGE) if missing(each)] == []


def test_no_guard_is_left_out():
    told = {
        each for words in re.findall(r"guards? ((?:`[^`]+`(?:, )?)+)", PAGE) for each in re.findall(r"`([^`]+)`", words)
    }
    assert {name for name, _ in GUARDS} - told == set()
