"""A flight record as text: whole, or refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from world import Cloud

from ha_controller.flight.text import BadRecord, read, written


@pytest.fixture(scope="module")
def lines() -> list[str]:
    cloud = Cloud()
    cloud.run(6)
    cloud.kill(3)
    cloud.run(3)
    return [
        line.decode().rstrip("\n") for line in written(cloud.recorder.cut([1], cloud.now, "the test ends").record())
    ]


def test_it_is_one_thing_a_line_with_a_header_first(lines: list[str]):
    header = json.loads(lines[0])
    assert (header["format"], header["version"], header["incidents"]) == ("ha-controller flight record", 1, [1])
    assert [list(json.loads(line)) for line in lines[1:4]] == [["settings"], ["start"], ["cloud"]]
    assert list(json.loads(lines[-1])) == ["end"]


def test_what_a_later_version_adds_to_a_thing_is_passed_over(lines: list[str]):
    host = {"round": {"at": 1.0, "ticking": False, "events": [], "effects": [], "new": 1}}
    assert read([*lines[:-1], json.dumps(host), lines[-1]]).rounds[-1].at == 1.0


def version_2(lines: list[str]) -> list[str]:
    return [lines[0].replace('"version":1', '"version":2'), *lines[1:]]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [], "This is no flight record. Write one with: ha-controller incidents export"),
        (lambda lines: ["[1, 2]"], "This is no flight record"),
        (lambda lines: ['{"a": 1}'], "This is no flight record"),
        (lambda lines: ["MZ\x00", *lines], "This is no flight record"),
        (version_2, "has version 2, and this ha-controller reads version 1 only"),
        (lambda lines: lines[:-1], "is not whole: it has no end. Export it once more"),
        (lambda lines: lines[:1], "is not whole: it has no settings"),
        (lambda lines: [*lines[:5], lines[5][:-4]], "is damaged: line 6 has no line of a record"),
        (lambda lines: [lines[0], '{"what": 1}'], "is damaged: line 2 has no line of a record"),
        (lambda lines: [lines[0], '{"settings": {"misses": "x"}}'], "is damaged: line 2 has a value that does not fit"),
        (lambda lines: [lines[0], '{"round": {"at": 1}}'], "is damaged: line 2"),
        (lambda lines: [lines[0], '{"known": {"is": "Nobody"}}'], "is damaged: line 2"),
        (lambda lines: ['{"format":"ha-controller flight record","version":1}', *lines[1:]], "start or its end"),
    ],
)
def test_what_is_no_whole_record_is_refused_with_a_sentence(
    lines: list[str], spoil: Callable[[list[str]], list[str]], said: str
):
    with pytest.raises(BadRecord) as error:
        read(spoil(lines))
    assert said in str(error.value)
