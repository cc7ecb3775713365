"""What the commands share: options, how answers are shown, how orders are given."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from ha_controller.cli import client, show

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print."
)
reason_option = click.option("--reason", default="", help="Why; goes into the trail.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for the host's name.")


def show_answer(answer: Any, output: str, as_text: Callable[[Any], None]) -> None:
    (show.as_json if output == "json" else as_text)(answer)


def query(**values: object) -> str:
    from urllib.parse import urlencode

    return urlencode({name: value for name, value in values.items() if value is not None})


def order(verb: str, **keys: object) -> None:
    answer = client.request("POST", "/api/v1/commands", {"verb": verb, **keys})
    click.echo(show.safe(answer["text"]), err=True)


def type_the_name(host: str, yes: bool, warning: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise client.Failure(2, "Without a terminal this needs --yes.")
    click.echo(warning, err=True)
    if click.prompt(f"Type the host's name ({host}) to go on", err=True) != host:
        raise client.Failure(2, "That is not its name; nothing was done.")


def patient_order(verb: str, **keys: object) -> None:
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
