"""What the commands share: options, how answers are shown, how orders are given."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ha_controller.cli import client, show

DEFAULT_CONFIG = "/etc/ha-controller/config.toml"

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    envvar="HA_CONFIG",
    show_default=True,
    help="The configuration file.",
)
reason_option = click.option("--reason", default="", help="Why; goes into the trail.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def query(**values: object) -> str:
    from urllib.parse import urlencode

    return urlencode({name: value for name, value in values.items() if value is not None})


def seconds_of(option: str, text: str | None) -> float | None:
    """The seconds that a DURATION given to `option` means; None: it was not given."""
    if text is None:
        return None
    from ha_controller.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise client.Failure(2, f"{option}: {error}") from None


def order(verb: str, *, host: str | None = None, incident: int | None = None, **keys: Any) -> None:
    """Order something of a host, of an incident, or of the cloud."""
    answer = client.request("POST", _path(verb, host, incident), keys)
    click.echo(show.safe(answer["text"]), err=True)


def order_each(verb: str, hosts: Sequence[str], **keys: Any) -> None:
    """The same for several hosts: what fails for one keeps no other from it; the first failure is the exit code."""
    failures = []
    for host in hosts:
        try:
            order(verb, host=host, **keys)
        except client.Failure as failure:
            failures.append(failure)
            if failure.code == client.NO_CONTROLLER:
                raise
            if len(hosts) > 1:
                click.echo(f"{show.safe(host)}: {show.safe(failure.text)}", err=True)
    if failures and len(hosts) > 1:
        raise client.Failure(failures[0].code, f"{len(failures)} of {len(hosts)} hosts: not done.")
    if failures:
        raise failures[0]


def _path(verb: str, host: str | None, incident: int | None) -> str:
    from urllib.parse import quote

    what = f"hosts/{quote(host, safe='')}/" if host is not None else ""
    what = f"incidents/{incident}/" if incident is not None else what
    return f"/api/v1/{what}{verb.replace(' ', '/')}"


def type_the_name(host: str, yes: bool, warning: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise client.Failure(2, "Without a terminal this needs --yes.")
    click.echo(warning, err=True)
    if click.prompt(f"Type the host's name ({host}) to go on", err=True) != host:
        raise client.Failure(2, "That is not its name; nothing was done.")


def sure_of_all(names: Sequence[str], words: Sequence[str], yes: bool) -> None:
    """Ask before a pattern gives more hosts back to the controller than were named one by one."""
    if yes or len(names) <= len(words):
        return
    if not sys.stdin.isatty():
        raise client.Failure(2, f"{' '.join(words)} is {len(names)} hosts. Without a terminal this needs --yes.")
    click.echo(f"{len(names)} hosts: {show.safe(', '.join(names))}", err=True)
    if not click.confirm("All of them?", err=True):
        raise client.Failure(2, "Nothing was done.")


def patient_order(verb: str, **keys: Any) -> None:
    """Like `order`; asks again while the controller is still reading what it needs to know."""
    for _ in range(5):
        try:
            order(verb, **keys)
            return
        except client.Failure as failure:
            if failure.code != 6 or "Try again" not in failure.text:
                raise
            time.sleep(1)
    raise client.Failure(6, "OpenNebula is not being read in time; see: ha-controller status")
