"""Every command that prints JSON has a schema in docs/schemas, and prints what it says. `--accept` writes them anew."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from ha_controller.app.printed import PRINTED, schema_of
from ha_controller.flight.text import written
from tests.cli.pretended import Commands, failing_cloud
from tests.cli.schemas import faults, printing_json

Json = Any
FOLDER = Path(__file__).parents[2] / "docs/schemas"
RECORD = "RECORD"  #: stands for the file of a flight record
#: how each command is called; what it prints must not be empty
CALLS = {
    "audit list": ["audit list --all"],
    "audit verify": ["audit verify"],
    "config diff": ["config diff"],
    "config show": ["config show"],
    "doctor": ["doctor"],
    "drill report": ["drill report"],
    "drill schedule": ["drill schedule"],
    "events": ["events"],
    "explain": ["explain kvm-03", "explain kvm-01", "explain vm-30", "explain --vm vm-31", "explain kvm-03 --last 5"],
    "fencing check": ["fencing check kvm-01"],
    "fencing history": ["fencing history kvm-03"],
    "fencing list": ["fencing list"],
    "fencing status": ["fencing status"],
    "hosts": ["hosts"],
    "incidents": ["incidents"],
    "incidents export": ["incidents export 1 --as json"],
    "incidents show": ["incidents show 1"],
    "leader show": ["leader show"],
    "maintenance list": ["maintenance list"],
    "notify list": ["notify list"],
    "notify test": ["notify test"],
    "pending list": ["pending list"],
    "plugins list": ["plugins list"],
    "plugins show": ["plugins show redfish", "plugins show icmp", "plugins show etcd", "plugins show webhook"],
    "reload": ["reload"],
    "simulate capacity": ["simulate capacity"],
    "simulate fail": ["simulate fail kvm-00"],
    "simulate replay": [f"simulate replay {RECORD}"],
    "simulate run": ["simulate run --seed 1 --hosts 3 --hours 0.1 --processes 1"],
    "status": ["status"],
    "token list": ["token list"],
    "vms": ["vms"],
}
#: keys under which anything may be, or names that differ from cloud to cloud
FREE = {"data", "results", "value", "before", "after", "counted", "delivered", "deaths", "verified_off", "holds"}
CALLED = [(command, line) for command, lines in CALLS.items() for line in lines]


def file_of(command: str) -> Path:
    return FOLDER / f"{command.replace(' ', '-')}.json"


@pytest.fixture
def printed(commands: Commands, tmp_path: Path):
    """What a call prints, as JSON."""
    rows = commands.pretended.answers["/api/v1/hosts"]
    rows[0]["maintenance"] = True  # or there is none to list
    commands.pretended.answers["/api/v1/pending"] = [
        {"id": 1, "host": "kvm-03", "state": "failed", "question": "power kvm-03 off?", "can_approve": True}
    ]
    drilled = {**commands.pretended.answers["/api/v1/events"][0], "id": 9, "kind": "drill"}
    commands.pretended.answers["/api/v1/events"].append(drilled)

    def run(line: str) -> Json:
        if RECORD in line:
            cloud = failing_cloud()
            path = tmp_path / "record"
            path.write_bytes(b"".join(written(cloud.recorder.cut([1], cloud.now, "the test ends").record())))
            line = line.replace(RECORD, str(path))
        as_json = [] if "--as" in line else ["-o", "json"]
        done = commands(*shlex.split(line), *as_json)
        assert done.out, done.err
        return json.loads(done.out)

    return run


def test_no_command_prints_json_without_a_schema_and_a_call_here():
    assert sorted(PRINTED) == sorted(CALLS) == sorted(printing_json())
    assert {path.name for path in FOLDER.glob("*")} == {file_of(command).name for command in PRINTED}


@pytest.mark.parametrize("command", PRINTED)
def test_the_schema_that_is_shipped_is_the_one_of_the_program(command: str, accept: bool):
    text = json.dumps(schema_of(command), indent=1) + "\n"
    if accept:
        FOLDER.mkdir(exist_ok=True)
        file_of(command).write_text(text)
    assert file_of(command).read_text() == text
    jsonschema_rs.meta.validate(json.loads(text))


@pytest.mark.parametrize(("command", "line"), CALLED, ids=[line for _, line in CALLED])
def test_what_is_printed_fits_and_anything_else_would_not(printed, command: str, line: str):
    document = printed(line)
    assert document, "nothing that could be wrong"
    assert faults(command, document) == []
    shipped = jsonschema_rs.Draft202012Validator(json.loads(file_of(command).read_text()))
    assert shipped.is_valid(document)
    spoilt = [what for what, each in _spoilt(document) if not faults(command, each)]
    assert spoilt == [], "these are not noticed"
    later = _with_a_key_of_later(document)
    assert shipped.is_valid(later), "programs are told to bear keys that come later"


def _spoilt(document: Json) -> Iterator[tuple[str, Json]]:
    """The document with one thing wrong: a key less, a value of another type, or somewhere in it a key more."""
    first = document[0] if isinstance(document, list) else document
    for key in first:
        if key in ("variants", "name") and "settings" in first:
            continue  # not there with every plugin
        less = copy.deepcopy(document)
        del _row(less)[key]
        yield f"without {key}", less
    for key, value in first.items():
        if value is None or isinstance(value, bool | int | float | str):
            other = copy.deepcopy(document)
            _row(other)[key] = [{"no": "such type"}]
            yield f"{key} of another type", other
    for place in _objects(document):
        more = copy.deepcopy(document)
        reduce(lambda inner, part: inner[part], place, more)["no such key"] = 1
        yield f"a key more at {place}", more


def _objects(value: Json, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where objects are whose keys have a meaning; of a list the first one."""
    if isinstance(value, list):
        yield from _objects(value[0], (*place, 0)) if value else ()
    elif isinstance(value, dict):
        yield place
        for key, inner in value.items():
            if key not in FREE:
                yield from _objects(inner, (*place, key))


def _row(document: Json) -> Json:
    return document[0] if isinstance(document, list) else document


def _with_a_key_of_later(document: Json) -> Json:
    more = copy.deepcopy(document)
    _row(more)["of a later version"] = 1
    return more
