"""The draft of a post-mortem: well-formed, complete, and safe with names that somebody else chose."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from lxml import etree

from ha_controller.cli import post_mortem, timeline_picture
from tests.cli.pretended import Commands

HOSTILE = (
    "</title></svg><script>alert(1)</script>|`x`\n# [a](javascript:b) ![](http://c) &amp; \"'\x1b[2J\u202e\ud800\uffff"
)
HTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"


@pytest.fixture
def record(commands: Commands) -> Any:
    return json.loads(commands("incidents", "export", "1", "--as", "json").out)


def hostile(value: Any, key: str = "") -> Any:
    """The same with every text of others replaced; what we name ourselves stays."""
    if isinstance(value, dict):
        return {name: hostile(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [hostile(each, key) for each in value]
    return (
        HOSTILE if value and isinstance(value, str) and key not in ("stage", "kind", "outcome", "rebooted") else value
    )


def parsed(record: Any) -> Any:
    text = post_mortem.page(record).encode()
    return etree.fromstring(text, etree.XMLParser(recover=False, resolve_entities=False, no_network=True))


def act(**other: Any) -> Any:
    return {
        "at": 1005.0,
        "who": "anna",
        "origin": "socket",
        "what": "pause",
        "why": "x",
        "code": 0,
        "result": "",
    } | other


def test_a_page_with_hostile_names_is_the_same_page_with_other_text(record):
    record["acts"] = [act()]
    plain, other = parsed(record), parsed(hostile(record))
    assert [each.tag for each in plain.iter()] == [each.tag for each in other.iter()]
    assert not {"script", "img", "a", "iframe", "link"} & {etree.QName(each).localname for each in other.iter()}
    assert not [name for each in other.iter() for name in each.attrib if name.startswith("on") or name == "href"]
    assert "<script>" in "".join(other.itertext())


def test_markdown_with_hostile_names_keeps_its_lines_and_cells(record):
    record["acts"] = [act()]
    plain, other = (post_mortem.markdown(each).splitlines() for each in (record, hostile(record)))
    assert len(plain) == len(other)
    for one, two in zip(plain, other, strict=True):
        assert one.replace("\\|", "").count("|") == two.replace("\\|", "").count("|")
        assert "<script" not in two.replace("\\<", "")
        assert "](" not in two.replace("\\]", "")
        assert "\x1b" not in two
        assert "\u202e" not in two


@pytest.mark.parametrize("many", [0, 1, 200])
def test_nothing_is_drawn_outside_the_picture(record, many):
    vm = record["vms"][0]
    record["vms"] = [copy.deepcopy(vm) | {"id": number} for number in range(many)]
    record["acts"] = [act(at=record["opened_at"] + 90_000)]
    picture = next(parsed(record).iter(f"{SVG}svg"))
    width, height = (float(each) for each in picture.get("viewBox").split()[2:])
    bars, marks = list(picture.iter(f"{SVG}rect")), list(picture.iter(f"{SVG}circle"))
    assert len([bar for bar in bars if bar.get("class") == "down"]) == min(many, timeline_picture.VMS_MAX)
    assert marks
    for bar in bars:
        x, y, wide, high = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        assert timeline_picture.LABELS <= x < x + wide <= width
        assert 0 <= y < y + high <= height
    for mark in marks:
        assert float(mark.get("cx")) - 4 >= timeline_picture.LABELS - 4
        assert float(mark.get("cx")) + 4 <= width
    assert ("200" if many > timeline_picture.VMS_MAX else "") in "".join(parsed(record).itertext())


def test_what_is_not_known_is_not_drawn_and_is_asked(record):
    record |= {"last_life_at": None, "failed_at": None, "fenced_at": None, "vms": [], "acts": [], "timeline": []}
    record["phases_s"] = dict.fromkeys(record["phases_s"])
    page = parsed(record)
    assert not list(page.iter(f"{SVG}rect"))
    text = "".join(page.itertext())
    assert "not known" in text
    assert "Since when was it down?" in text


def test_without_a_form_it_is_the_flight_record(commands):
    commands.pretended.answers["/api/v1/incidents/1/flight"] = {"flight": 1}
    assert json.loads(commands("incidents", "export", "1").out) == {"flight": 1}


def test_an_incident_that_is_not_there(commands):
    assert commands("incidents", "export", "77", "--as", "md").code == 3
