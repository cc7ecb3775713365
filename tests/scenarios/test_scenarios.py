"""Each folder is a story: README.md tells it in two sentences, scenario.toml plays it, log.expect must come of it.

A new story needs no code. `make scenarios ARGS=--accept` writes the logs anew: read the difference.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from ha_controller.core import effects as fx
from ha_controller.flight import text
from ha_controller.flight.replay import replay
from ha_controller.flight.verdict import compared
from scenarios.language import Mistakes, read
from scenarios.page import PAGE, STORIES, THEMES, page, sentences, title
from scenarios.player import log_of, played, wrong_in

FOLDER = Path(__file__).parent
story_of = pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.parent.name}/{story.name}")


@story_of
def test_the_story_ends_as_written(story: Path, accept: bool):
    log = "\n".join(log_of(story)) + "\n"
    expected = story / "log.expect"
    if accept:
        expected.write_text(log)
    assert expected.exists(), "there is no log.expect: look at what it does, and --accept"
    assert log == expected.read_text()


@story_of
def test_what_must_never_happen_does_not_and_nobody_waits_untold(story: Path):
    assert wrong_in(story) == read(story / "scenario.toml").written.harm


@story_of
def test_the_story_replayed_from_its_flight_record_is_decided_the_same_way(story: Path):
    cloud = played(story).cloud
    recorded = cloud.recorder.cut([], cloud.now, "the story ends").record()
    record = text.read(line.decode() for line in text.written(recorded))
    assert (record.beginning, record.rounds, record.runs) == (recorded.beginning, recorded.rounds, recorded.runs)
    then = [
        (each.at, effect) for each in record.rounds for effect in each.effects if not isinstance(effect, fx.ReadHost)
    ]
    replayed = replay(record)
    assert [effect for _, effect in replayed.effects] == [effect for _, effect in then]
    assert [at for at, _ in replayed.effects] == [at for at, _ in then]
    assert (replayed.partings, replayed.assumed) == ({}, ())
    assert compared(record, replayed, None)["same"]


@story_of
def test_the_story_is_told_in_a_title_and_two_sentences(story: Path):
    assert (story / "README.md").exists(), "a story without its telling"
    assert title(story)
    assert len(sentences(story)) == 2


def test_every_folder_is_a_whole_story_in_a_theme():
    parts = {"README.md", "scenario.toml", "log.expect"}
    odd = [
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        if not (path.parent == FOLDER and path.suffix == ".py")
        if not (path.parent in STORIES and path.name in parts)
    ]
    assert odd == []
    assert {story.parent.name for story in STORIES} == set(THEMES)
    assert [story for story in STORIES if len(story.relative_to(FOLDER).parts) != 2] == []


def test_no_two_stories_have_the_same_name_title_or_course():
    for told in (
        Counter(story.name for story in STORIES),
        Counter(title(story) for story in STORIES),
        Counter((story / "scenario.toml").read_text() for story in STORIES),
    ):
        assert [name for name, count in told.items() if count > 1] == []


def test_the_page_lists_them_all(accept: bool):
    if accept:
        PAGE.write_text(page())
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('until = 5\n[[step]]\nat = 0\nkill = 3\npwer = "off"\n', "scenario.toml:5: there is no key `pwer` in `kill`"),
        ("until = 5\n[[step]]\nat = 0\nkil = 3\n", "scenario.toml:4: `kil` is nothing that can happen"),
        ("until = 5\nhost = 3\n", "scenario.toml:2: there is no key `host` in a scenario"),
        (
            'until = 5\n\n[settings]\nmood = "auto"\n',
            "scenario.toml:3: `settings` of a scenario: Value error, there is",
        ),
        (
            'until = 5\n[[step]]\nat = 0\nkill = 3\npower = "of"\n',
            "scenario.toml:5: `power` of `kill`: Input should be",
        ),
        ("until = 5\n[[step]]\nat = 6\nrestart = true\n", "scenario.toml:3: steps stand in the order of time"),
        ("until = 5\n[[step]]\nat = 0\nrefuse = 7\n", "scenario.toml:4: `refuse` of `refuse`: Input should be a valid"),
        ("until = \n", "scenario.toml: Invalid value"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_line(line: str, mistake: str, tmp_path: Path):
    (tmp_path / "scenario.toml").write_text(line)
    with pytest.raises(Mistakes, match=re.escape(mistake)):
        read(tmp_path / "scenario.toml")
