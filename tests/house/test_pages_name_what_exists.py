"""What pages name exists: commands with their options, targets of make, files, settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ha_controller.cli.main import commands
from ha_controller.config.model import Config, fields_at

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/operations/*.md"),
        *ROOT.glob("plugins/*/README.md"),
    }
    - {ROOT / "CHANGELOG.md", ROOT / "docs/commands.md", ROOT / "docs/settings.md", ROOT / "docs/scenarios.md"}
)
#: a command as it is written: in `...`, or on an indented line; up to what ends it there
_IN_LINE = re.compile(r"`(ha-controller [a-z][^`]*)`")
_ON_ITS_OWN = re.compile(r"(?m)^(?: {4}|\t)(?:.*?(?:&& |; ))?(ha-controller [a-z-]+[^#;&|\n]*)")
_MAKE = re.compile(r"(?:`|^ {4}(?:sudo )?)make ([a-z][a-z-]*)", re.MULTILINE)
_FILE = re.compile(
    r"[`(]((?:tests|packaging|plugins|ha_controller|docs|bench|examples)/[\w./-]+\.(?:py|md|toml|service|conf|yaml|yml|sysctl|json)|packaging/[\w-]+)[`)]"
)
#: a reader makes these
_TO_BE_MADE = {"packaging/ansible/ha.yml"}


def found(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    return sorted(
        {(str(page.relative_to(ROOT)), match) for page in PAGES for match in pattern.findall(page.read_text())}
    )


@pytest.mark.parametrize(("page", "written"), found(_IN_LINE) + found(_ON_ITS_OWN))
def test_a_command_and_its_options_exist(page: str, written: str):
    words = [word for word in shlex.split(written, comments=True)[1:] if word not in ("...", "…")]
    command: click.Command = commands
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(click.Context(command), words[0])
        assert inner is not None, f"{page}: {written}: there is no {words[0]}"
        command, words = inner, words[1:]
    options = {name for each in [*command.params, *commands.params] for name in (*each.opts, *each.secondary_opts)}
    options |= {"--help", "--version"}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in options, f"{page}: {written}: there is no {word}"
    for each in command.params:
        if isinstance(each, click.Option) and each.required:
            assert set(each.opts) & set(words), f"{page}: {written}: it is refused without {each.opts[0]}"


@pytest.mark.parametrize(("page", "target"), found(_MAKE))
def test_a_target_of_make_exists(page: str, target: str):
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text()), f"{page}: make {target}"


@pytest.mark.parametrize(("page", "file"), found(_FILE))
def test_a_file_exists(page: str, file: str):
    beside = (ROOT / page).parent / file  # a plugin speaks of its own
    assert file in _TO_BE_MADE or (ROOT / file).exists() or beside.exists(), f"{page}: {file}"


#: like `adapters/test_journal.py::test_a_damaged_page_is_refused_with_a_remedy`: paths are below `tests/` in tables
_TEST = re.compile(r"`((?:plugins/\w+/)?[a-z_]+/(?:\w+/)*test_\w+\.py(?:::\w+)?)`")


@pytest.mark.parametrize(("page", "named"), found(_TEST))
def test_a_test_exists(page: str, named: str):
    file, _, test = named.partition("::")
    path = next((each for each in (ROOT / "tests" / file, ROOT / file) if each.exists()), None)
    assert path is not None, f"{page}: {named}"
    assert not test or f"def {test}(" in path.read_text(), f"{page}: {named}"


#: like `detect.fail_after` or `[guard] self_check`
_SETTING = re.compile(
    r"`\[?(opennebula|detect|guard|recover|capacity|drill|api|log|policy|identity|scope)(?:\] |\.)([a-z_]+)"
)


@pytest.mark.parametrize(("page", "setting"), [(page, ".".join(pair)) for page, pair in found(_SETTING)])
def test_a_setting_exists(page: str, setting: str):
    table, key = setting.split(".")
    assert key in fields_at(Config, (table,)), f"{page}: {setting}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_has_an_index_asked_for_a_name_of_ours(page: Path):
    """Nobody has put them there: whoever did would have their program installed beside the power switch."""
    assert not re.findall(r"(?m)pip install [^\n`]*(?<![/\w-])'?ha-controller[\w-]*(?![/\w-])", page.read_text())
