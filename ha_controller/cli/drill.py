"""`ha-controller drill`: fence devices that are tried for real, in peace time."""

from __future__ import annotations

from typing import Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import output_option, query, show_answer


@click.group()
def drill() -> None:
    """Drills: when each fence device is due, and how they went. To hold one: fencing test HOST --real."""


@drill.command("schedule")
@output_option
def drill_schedule(output: str) -> None:
    """List when each device is due for a drill, and what stands in its way; exit code 1 if one is overdue."""
    rows = client.request("GET", "/api/v1/drills")
    show_answer(rows, output, show.drills)
    client.finish(1 if any(row["overdue"] for row in rows) else 0)


@drill.command("report")
@click.argument("host", required=False)
@output_option
def drill_report(host: str | None, output: str) -> None:
    """Tell how the drills of HOST, or of all hosts, went, oldest first."""
    reports: list[Any] = client.request("GET", f"/api/v1/events?{query(host=host, kind='drill', limit=1000)}&newest=1")
    if output == "json":
        show.as_json(reports)
        return
    if not reports:
        click.echo("No drill has been held.")
    for line in reports:
        show.event(line)
