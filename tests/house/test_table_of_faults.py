"""The tables of faults in docs/simulator.md are written from the program. `--accept` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ha_controller.sim.core_level.faults import ENGINE_FAULTS, FAULTS, Fault, Per

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
HEAD = "| fault | usual | by | |\n|---|---|---|---|\n"
KINDS = {Per.HOST_HOUR: "hour of a host", Per.MOMENT: "moment"}


def rows(faults: tuple[Fault, ...]) -> str:
    return "".join(f"| {each.name} | {rate(each)} | {KINDS[each.per]} | {each.text} |\n" for each in faults)


def rate(fault: Fault) -> str:
    return f"{fault.usual:f}".rstrip("0").rstrip(".")


def with_tables(page: str) -> str:
    tables = iter([rows(FAULTS), rows(ENGINE_FAULTS)])
    return re.sub(re.escape(HEAD) + r"(?:\|.*\n)*", lambda _: HEAD + next(tables), page)


def test_the_tables_are_what_the_program_has(accept: bool):
    page = PAGE.read_text()
    assert page.count(HEAD) == 2, "one of each level"
    if accept:
        PAGE.write_text(with_tables(page))
    assert PAGE.read_text() == with_tables(page)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("| hang | 0.012 |", "| hang | 0.12 |"),
        ("| button | 0.004 | moment |", "| button | 0.004 | hour of a host |"),
        ("| flicker |", "| flickers |"),
    ],
    ids=["rate", "kind", "name"],
)
def test_a_table_that_says_something_else_is_noticed(written: str, instead: str):
    page = with_tables(PAGE.read_text())
    assert written in page
    assert with_tables(page.replace(written, instead)) == page
