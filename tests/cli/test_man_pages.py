"""Manual pages are made from the command tree: all of it, and what roff would take for its own is shown as it is."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from ha_controller.cli.main import commands

ROOT = Path(__file__).parents[2]
HOSTILE = r".TH a 'quoted' \fBword\fP, a \ alone, --an-option, a-b, ~^` and „umlaut ä”, as {2..3} says"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_pages", ROOT / "packaging/man_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(made: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path.stem: path for path in made.write(tmp_path_factory.mktemp("man"))}


def tree(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for inner in command.commands if isinstance(command, click.Group) else ():
        yield from tree(command.commands[inner], f"{name}-{inner}")


def test_every_command_has_its_page_with_every_option(pages: dict[str, Path]):
    known = dict(tree(commands, "ha-controller"))
    assert pages.keys() == known.keys()
    for name, command in known.items():
        text = pages[name].read_text().replace("\\-", "-")
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in text, f"{name}: {option}"


def test_roff_finds_nothing_to_warn_of(pages: dict[str, Path], require_peer: Callable[[str], str]):
    words = [require_peer("groff"), "-man", "-ww", "-z", "-Tutf8", *map(str, pages.values())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_mandoc_finds_nothing_to_warn_of(pages: dict[str, Path], require_peer: Callable[[str], str]):
    words = [require_peer("mandoc"), "-T", "lint", "-W", "warning", *map(str, pages.values())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_text_is_taken_for_a_request(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, require_peer: Callable[[str], str]
):
    @click.command(help=f"Does it.\n\n{HOSTILE}\n\n\b\n{HOSTILE}\n  'kept as it is'")
    @click.option("--many", default=3, show_default=True, help=HOSTILE)
    def hostile(many: int) -> None:
        pass

    monkeypatch.setattr(made, "commands", hostile)
    (path,) = made.write(tmp_path)
    groff = [require_peer("groff"), "-man", "-ww", "-Tutf8", "-rLL=300n", str(path)]
    done = subprocess.run(groff, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
    assert shown.count(HOSTILE) == 3
    assert re.search(r"\n +'kept as it is'\n", shown)
    assert f"{HOSTILE}  [default: 3]" in shown


def test_the_same_version_gives_the_same_pages(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pages: dict[str, Path]
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, again = ([path.read_bytes() for path in made.write(tmp_path / each)] for each in ("first", "again"))
    assert first == again
    assert b'1 "2023-11-14"' in first[0]
