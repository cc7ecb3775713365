"""CSV is for programs: numbers are numbers, and what is not there is empty."""

from __future__ import annotations

import csv
import io

from tests.cli.pretended import Commands


def rows(commands: Commands, *words: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(commands(*words, "-o", "csv").out)))


def test_durations_are_seconds_with_the_unit_in_the_name(commands: Commands):
    of = {row["name"]: row for row in commands.pretended.answers["/api/v1/hosts"]}
    shown = rows(commands, "hosts")
    assert [float(row["since_s"]) for row in shown] == [of[row["name"]]["for_s"] for row in shown]
    assert rows(commands, "hosts", "-l", "since")[0].keys() == {"since_s"}
    assert rows(commands, "hosts", "-l", "name,since_s")[0].keys() == {"name", "since_s"}
    assert "SINCE" in commands("hosts", "-l", "since").out, "a table is for people"


def test_what_never_was_is_empty_and_no_word(commands: Commands):
    drills = rows(commands, "drill", "schedule")
    assert {row["drilled_s_ago"] for row in drills} == {""}
    assert all(float(row["due_in_s"]) <= 0 for row in drills)
    devices = rows(commands, "fencing", "list")
    assert all(float(row["checked_s_ago"]) >= 0 for row in devices)
