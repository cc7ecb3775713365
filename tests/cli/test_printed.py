"""What commands print, word for word: tests/cli/printed. `--accept` writes it anew."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.cli.pretended import Commands

FOLDER = Path(__file__).parent / "printed"
LISTINGS = {
    "hosts": "hosts",
    "incidents": "incidents",
    "pending": "pending list",
    "events": "events",
    "fencing": "fencing list",
    "drills": "drill schedule",
    "maintenance": "maintenance list",
    "notify": "notify list",
    "vms": "vms kvm-03",
}
FORMS = ("table", "wide", "csv", "name")
OTHERS = {
    "status": ["status", "status -o yaml", "status --nagios"],
    "explain": ["explain kvm-03", "explain 1", "explain kvm-33"],
    "explain-vm": ["explain vm-30", "explain --vm vm-31", "explain vm-99", "explain --vm vm-30 --last 2"],
    "config": ["config show", "config show --changed", "config show -o csv", "config diff", "reload"],
    "fence-dry-run": ["fence kvm-05 --dry-run", "fence kvm-01 --dry-run", "fence kvm-06 --dry-run", "fence kvm-05"],
    "incident": ["incidents show 1"],
    "post-mortem": [f"incidents export 1 --as {form}" for form in ("md", "html")],
    "doctor": ["doctor", "doctor -o yaml"],
    "chosen-hosts": [
        "hosts kvm-03",
        "hosts 3",
        "hosts 1..3,6 -o name",
        "hosts 'kvm-0[0-2]' -l name,state --no-header",
        "hosts --state suspect --state fenced -o name",
        "hosts kvm-05 -o yaml",
        "hosts -l nonsense",
        "hosts 'nobody*'",
        "fencing list 2..3 -o name",
        "confirm-off 'kvm-*' --yes",
    ],
    "simulate": ["simulate fail kvm-00"],
    "leader": ["leader show"],
    "fencing-status": ["fencing status"],
    "notify-test": ["notify test"],
}


def printed(commands: Commands, lines: list[str]) -> str:
    parts = []
    for line in lines:
        done = commands(*shlex.split(line))
        err = "".join(f"! {each}\n" for each in done.err.splitlines())
        parts.append(f"$ ha-controller {line}\n{done.out}{err}(exit {done.code})\n")
    return "\n".join(parts)


def compare(name: str, text: str, accept: bool) -> None:
    path = FOLDER / f"{name}.txt"
    if accept:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_in_every_form(commands: Commands, name: str, accept: bool):
    lines = [f"{LISTINGS[name]}{'' if form == 'table' else f' -o {form}'}" for form in FORMS]
    compare(name, printed(commands, lines), accept)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_listing(commands: Commands, name: str, accept: bool):
    compare(name, printed(commands, OTHERS[name]), accept)


def test_nothing_is_kept_that_no_test_prints():
    assert {path.stem for path in FOLDER.glob("*.txt")} == {*LISTINGS, *OTHERS}
