"""The pages of commands and settings are written from the program. `--accept` writes them anew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ha_controller.cli.main import commands

ROOT = Path(__file__).parents[2]
SHOWN: dict[str, Any] = {"terminal_width": 110, "max_content_width": 110, "help_option_names": ["-h", "--help"]}
EXIT_CODES = """\
Exit codes: 0 done, 1 failed (of `status`: degraded), 2 wrong usage, 3 no such thing, 4 refused for safety (of
`status`: a guard holds something), 5 waits for a person, 6 no answer in time, 7 not reachable, 8 not allowed, 9 not
the leader, 78 configuration.

For programs: `-o json` prints one value, with `-w` and `events -f` one in each line. What is in it says the JSON Schema
(2020-12) of each command, `docs/schemas/COMMAND.json`, like [hosts](schemas/hosts.json) or
[fencing list](schemas/fencing-list.json). Keys are only ever added: ignore the ones that you do not know. Ages and
durations are seconds, moments seconds since 1970. `-o csv` has durations in seconds as well, with the unit in the
column's name, and an empty field where there is none.

The same as manual pages: `make man`, or `man ha-controller-fencing-list` where the Debian package is installed.
"""
SETTINGS = """\
# Settings

Every key with its default, as in `config.example.toml`. Settings of agents, channels and notifiers:
`ha-controller plugins show KIND`. Files in `conf.d/` beside it are read after it, in the order of their names; a
variable `HA_TABLE__KEY` goes before both. `ha-controller check-config --origin` says where each value comes from.

"""


def commands_page() -> str:
    """In a process of its own: click keeps what a command was first shown with, and other tests call parts alone."""
    script = f"import runpy; print(runpy.run_path({__file__!r})['page_of_commands'](), end='')"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def page_of_commands() -> str:
    parts = ["# Commands\n", EXIT_CODES]
    parts += _helps(commands, click.Context(commands, info_name="ha-controller", **SHOWN))
    return "\n".join(parts)


def _helps(command: click.Command, context: click.Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"## {context.command_path.removeprefix('ha-controller ')}\n"
    yield "\n".join(f"    {line}".rstrip() for line in command.get_help(context).splitlines()) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _helps(inner, click.Context(inner, info_name=name, parent=context, **SHOWN))


def settings_page() -> str:
    example = (ROOT / "config.example.toml").read_text()
    shown = "\n".join(f"    {line}".rstrip() for line in example.splitlines())
    return f"{SETTINGS}{shown}\n"


@pytest.mark.parametrize(
    ("name", "page"), [("commands.md", commands_page), ("settings.md", settings_page)], ids=["commands", "settings"]
)
def test_the_page_is_what_the_program_says(name, page, accept: bool):
    path = ROOT / "docs" / name
    if accept:
        path.write_text(page())
    assert path.read_text() == page()


def test_every_command_says_what_it_does():
    def silent(command: click.Command) -> Iterator[str]:
        if not command.help:
            yield str(command.name)
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield from silent(inner)

    assert list(silent(commands)) == []
