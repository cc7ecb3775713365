"""`incidents export`: what is on record of one incident: its flight record, or the draft of a post-mortem."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from ha_controller.cli import audit, client, post_mortem, show
from ha_controller.cli.selection import complete_incidents

Json = Any

ANSWERED_WITHIN_S = 60.0  #: the answer to an order stands on the trail a little later than the order


@click.command("export")
@click.argument("number", type=click.IntRange(min=1), shell_complete=complete_incidents)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["flight", "md", "json", "html"]),
    default="flight",
    show_default=True,
    help="The flight record, or the draft of a post-mortem: Markdown, its data, or a page with a picture.",
)
def export(number: int, kind: str) -> None:
    """Print the flight record of incident NUMBER (for: simulate replay), or a post-mortem's draft."""
    if kind == "flight":
        sys.stdout.write(client.fetch("GET", f"/api/v1/incidents/{number}/flight"))
        return
    record = {**whole(number)}
    record["acts"] = acts(record)
    if kind == "json":
        show.as_json(record)
    else:
        sys.stdout.write(post_mortem.markdown(record) if kind == "md" else post_mortem.page(record))


def whole(number: int) -> Json:
    """Everything on record of one incident, with its timeline."""
    record = client.request("GET", f"/api/v1/incidents/{number}")
    lines = client.request("GET", f"/api/v1/events?incident={number}&limit={post_mortem.TRAIL_MAX}")
    return {**record, "timeline": lines}


def acts(record: Json) -> list[Json]:
    """What people ordered in its time about its host, or about the whole cloud."""
    begin = record["opened_at"] if record["last_life_at"] is None else record["last_life_at"]
    end = time.time() if record["closed_at"] is None else record["closed_at"]
    found = audit.acts({"before": end + ANSWERED_WITHIN_S}, with_own=False, limit=audit.PAGE)
    return [
        act
        for act in found
        if act["incident"] == record["id"] or (act["host"] in (record["host"], None) and begin <= act["at"] <= end)
    ]
