"""The API's document and the list of its operations in docs/api.md are made from the code. `--accept` writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

from ha_controller import __version__
from ha_controller.adapters.http_api import People
from ha_controller.adapters.http_api.acts import Acts
from ha_controller.adapters.http_api.looks import Looks
from ha_controller.adapters.http_api.openapi import document
from ha_controller.adapters.http_api.server import all_operations

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- operations -->\n", "<!-- end of operations -->\n"
NOTHING = cast(Any, None)
_people = People(NOTHING, NOTHING, ask=NOTHING, roles={}, now=NOTHING)
OPERATIONS = all_operations(Looks(NOTHING, NOTHING, {}), Acts(NOTHING, NOTHING), _people)


def table() -> str:
    rows = [
        f"| {each.method} | `{each.path}` | {each.role.word if each.role else '–'} | {each.summary} |\n"
        for each in OPERATIONS
    ]
    return "| method | path | role | what it does |\n|---|---|---|---|\n" + "".join(rows)


def test_the_document_is_what_the_controller_serves(accept: bool) -> None:
    path = DOCS / "openapi.json"
    text = json.dumps(document(OPERATIONS, __version__), indent=1) + "\n"
    if accept:
        path.write_text(text)
    assert path.read_text() == text


def test_the_page_lists_every_operation(accept: bool) -> None:
    path = DOCS / "api.md"
    before, rest = path.read_text().split(BEGIN)
    listed, after = rest.split(END)
    if accept:
        path.write_text(before + BEGIN + table() + END + after)
        listed = table()
    assert listed == table()


def test_every_operation_says_what_it_does_and_has_an_id_of_its_own() -> None:
    assert all(each.summary.endswith(".") for each in OPERATIONS)
    names = [each.name for each in OPERATIONS]
    assert sorted(set(names)) == sorted(names)


def test_every_reference_in_the_document_leads_somewhere() -> None:
    made = document(OPERATIONS, __version__)
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(made)))
    assert named == named & set(made["components"]["schemas"])


def test_what_changes_something_needs_more_than_a_viewer() -> None:
    changing = [each for each in OPERATIONS if each.method != "GET"]
    assert [each.name for each in changing if each.role.word == "viewer"] == []
    assert [each.name for each in changing if each.role.word == "nobody"] == ["log_in", "log_out"]
