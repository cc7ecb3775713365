"""`ha-controller events`: the trail."""

from __future__ import annotations

import time
from typing import Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import query, seconds_of
from ha_controller.cli.listing import Form, listing_options
from ha_controller.cli.listings import EVENTS
from ha_controller.cli.selection import complete_hosts, complete_incidents, one_host

FOLLOW_EVERY_S = 0.5


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing as lines are written.")
@click.option("--host", help="Of this host only.", shell_complete=complete_hosts)
@click.option("--incident", type=int, help="Of this incident only.", shell_complete=complete_incidents)
@click.option("--since", metavar="DURATION", help='Of the last time only, like "1h".')
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@listing_options
def events(follow: bool, host: str | None, incident: int | None, since: str | None, limit: int, form: Form) -> None:
    """The trail: what was decided, ordered, reported, told."""
    wanted = query(host=None if host is None else one_host(host), incident=incident, limit=limit)
    since_s = seconds_of("--since", since)
    not_before = 0.0 if since_s is None else time.time() - since_s

    def ask() -> list[Any]:
        lines = client.request("GET", f"/api/v1/events?{wanted}&newest=1")
        return [line for line in lines if line["at"] >= not_before]

    if follow:
        _follow(ask(), wanted, as_json=form.output == "json")
    form.show(ask, EVENTS)


def _follow(lines: list[Any], wanted: str, *, as_json: bool) -> None:
    """Print them, and what is written after them, until the command is interrupted. As JSON: one line each."""
    last = 0
    while True:
        for line in lines:
            (show.as_json_line if as_json else show.event)(line)
            last = max(last, line["id"])
        time.sleep(FOLLOW_EVERY_S)
        lines = client.request("GET", f"/api/v1/events?{wanted}&after={last}")
