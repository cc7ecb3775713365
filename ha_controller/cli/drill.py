"""`ha-controller drill`: fence devices that are tried for real, in peace time."""

from __future__ import annotations

from dataclasses import replace

import click

from ha_controller.cli import client
from ha_controller.cli.common import query
from ha_controller.cli.listing import Form, listing_options
from ha_controller.cli.listings import DRILLS, EVENTS
from ha_controller.cli.selection import complete_hosts, one_host

NO_DRILL = replace(EVENTS, empty="No drill has been held.")


@click.group()
def drill() -> None:
    """Drills: when each fence device is due, and how they went. To hold one: fencing test HOST --real."""


@drill.command("schedule")
@listing_options
def drill_schedule(form: Form) -> None:
    """List when each device is due for a drill, and what stands in its way; exit code 1 if one is overdue."""
    rows = form.show(lambda: client.request("GET", "/api/v1/drills"), DRILLS)
    client.finish(1 if any(row["overdue"] for row in rows) else 0)


@drill.command("report")
@click.argument("host", required=False, shell_complete=complete_hosts)
@listing_options
def drill_report(host: str | None, form: Form) -> None:
    """Tell how the drills of HOST, or of all hosts, went, oldest first."""
    wanted = query(host=None if host is None else one_host(host), kind="drill", limit=1000)
    form.show(lambda: client.request("GET", f"/api/v1/events?{wanted}&newest=1"), NO_DRILL)
