"""`ha-controller backup` and `restore`: the journal, to a file and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import config_option

if TYPE_CHECKING:
    from ha_controller.app.backups import Summary

CONFIG_ERROR, REFUSED = 78, 4

_state_dir = click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Instead of what the configuration says."
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@_state_dir
def backup(file: Path, config_path: Path, state_dir: Path | None) -> None:
    """Copy the journal (incidents, trail, drills) to FILE, also while the controller runs. No secret is in it.

    An older backup at FILE is replaced once the new one was checked.
    """
    from ha_controller.app.backups import JournalError, back_up

    try:
        found = back_up(_directory(config_path, state_dir), file)
    except JournalError as error:
        raise client.Failure(1, f"{error}") from None
    click.echo(f"{file}: {_told(found)}", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@config_option
@_state_dir
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, config_path: Path, state_dir: Path | None, yes: bool) -> None:
    """Put FILE, from `backup`, in the journal's place; exit code 4 while a controller runs.

    What happened after the backup is forgotten. So the cloud starts paused: look at incidents and hosts, then resume.
    The journal that was there is kept beside it.
    """
    from ha_controller.app.backups import JournalError, open_incidents, summary
    from ha_controller.app.backups import restore as put_back
    from ha_controller.plugin import NotLeading

    directory = _directory(config_path, state_dir)
    try:
        found = summary(file)
        click.echo(f"{file}: {_told(found)}", err=True)
        for line in open_incidents(found):
            click.echo(f"  open in it: {show.safe(line)}", err=True)
        _confirm(yes)
        kept = put_back(directory, file)
    except NotLeading as error:
        raise client.Failure(REFUSED, f"Stop the controller first: {error}") from None
    except (JournalError, ValueError, OSError) as error:
        raise client.Failure(1, f"{error}") from None
    before = f" The one before is {kept}." if kept else ""
    click.echo(f"Restored to {directory}.{before} The cloud is paused: ha-controller resume", err=True)


def _confirm(yes: bool) -> None:
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise client.Failure(2, "Without a terminal this needs --yes.")
    click.echo("What happened after this backup is forgotten, power-offs and moves included.", err=True)
    if click.prompt('Type "restore" to go on', err=True) != "restore":
        raise client.Failure(2, "Nothing was done.")


def _told(found: Summary) -> str:
    last = "" if found.last_at is None else f", the last at {show.clock(found.last_at)}"
    return f"{found.entries} lines of the trail{last}; {len(found.records)} records"


def _directory(config_path: Path, state_dir: Path | None) -> Path:
    if state_dir is not None:
        return state_dir
    from ha_controller.app import state_dir_of

    found = state_dir_of(config_path)
    if found is None:
        raise client.Failure(CONFIG_ERROR, "Or name the state directory: --state-dir DIR")
    return found
