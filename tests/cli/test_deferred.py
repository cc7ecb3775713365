"""The command line tells of its commands without importing them: what it tells is what they say of themselves."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from ha_controller.cli.main import COMMANDS, commands


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_help_says_of_a_command_is_the_first_sentence_of_its_own_help(name: str):
    command = commands.commands[name]
    assert command.name == name
    assert COMMANDS[name][1] == command.get_short_help_str(10_000)


def test_help_is_what_click_makes_of_the_commands_themselves():
    with click.Context(commands, info_name="ha-controller", terminal_width=100) as context:
        ours, clicks = context.make_formatter(), context.make_formatter()
        commands.format_commands(context, ours)
        click.Group.format_commands(commands, context, clicks)
    assert ours.getvalue() == clicks.getvalue()
    assert "confirm-off" in ours.getvalue()


def test_completion_is_what_click_makes_of_the_commands_themselves():
    with click.Context(commands, info_name="ha-controller") as context:
        for begun in ("", "re", "-", "nothing"):
            ours, clicks = (
                [(item.value, item.help) for item in complete(commands, context, begun)]
                for complete in (type(commands).shell_complete, click.Group.shell_complete)
            )
            assert ours == clicks
            assert bool(ours) is (begun != "nothing")


def test_help_imports_no_command():
    code = (
        "import sys; sys.argv = ['ha-controller', '--help']\n"
        "from ha_controller.cli import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\n"
        "print(*sorted(name for name in sys.modules if name.startswith('ha_controller.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert "confirm-off" in done.stdout
    assert [name.removeprefix("ha_controller.cli.") for name in done.stderr.split()] == ["client", "deferred", "main"]


def test_a_word_that_is_no_command_is_told_with_one_that_is_near():
    with click.Context(commands, info_name="ha-controller") as context, pytest.raises(click.UsageError) as told:
        commands.resolve_command(context, ["statu"])
    assert "status" in told.value.format_message()
