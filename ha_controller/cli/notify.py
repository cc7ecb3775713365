"""`ha-controller notify`: whether people would be reached."""

from __future__ import annotations

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import output_option, show_answer


@click.group()
def notify() -> None:
    """Ways to reach people: the log, and each [[notify]] of the configuration."""


@notify.command("list")
@output_option
def notify_list(output: str) -> None:
    """How messages ended so far, and why the last one of each did not go out."""
    show_answer(client.request("GET", "/api/v1/notifiers"), output, show.notifiers)


@notify.command("test")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@output_option
def notify_test(names: tuple[str, ...], output: str) -> None:
    """Send a test message through each, or through NAME, now; exit code 1 if one did not go out."""
    from urllib.parse import urlencode

    wanted = urlencode([("name", name) for name in names])
    rows = client.request("POST", f"/api/v1/notifiers/test?{wanted}", {})
    show_answer(rows, output, show.notifier_test)
    client.finish(0 if all(row["ok"] for row in rows) else 1)
