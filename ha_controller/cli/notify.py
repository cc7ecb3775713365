"""`ha-controller notify`: whether people would be reached."""

from __future__ import annotations

import click

from ha_controller.cli import client, show
from ha_controller.cli.listing import Form, answer_options, listing_options
from ha_controller.cli.listings import NOTIFIERS


@click.group()
def notify() -> None:
    """Ways to reach people: the log, and each [[notify]] of the configuration."""


@notify.command("list")
@listing_options
def notify_list(form: Form) -> None:
    """How messages ended so far, and why the last one of each did not go out."""
    form.show(lambda: client.request("GET", "/api/v1/notifiers"), NOTIFIERS)


@notify.command("test")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@answer_options
def notify_test(names: tuple[str, ...], form: Form) -> None:
    """Send a test message through each, or through NAME, now; exit code 1 if one did not go out."""
    from urllib.parse import urlencode

    wanted = urlencode([("name", name) for name in names])
    rows = form.show(lambda: client.request("POST", f"/api/v1/notifiers/test?{wanted}", {}), show.notifier_test)
    client.finish(0 if all(row["ok"] for row in rows) else 1)
