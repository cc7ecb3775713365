"""`ha-controller maintenance`: hosts that people work on. They are watched, and nothing is done with them."""

from __future__ import annotations

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import order, output_option, show_answer


@click.group()
def maintenance() -> None:
    """Hosts that people work on: never powered off, no VM of them is moved. Written on the host in OpenNebula."""


@maintenance.command("on")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--for", "lasts", default=None, metavar="DURATION", help='Ends by itself, like "4h"; without it: never.')
@click.option("--reason", required=True, help="Why; others see it.")
def maintenance_on(hosts: tuple[str, ...], lasts: str | None, reason: str) -> None:
    """Take HOSTs out of the controller's hands."""
    for_s = None
    if lasts is not None:
        from ha_controller.durations import parse_duration

        try:
            for_s = parse_duration(lasts)
        except ValueError as error:
            raise client.Failure(2, f"--for: {error}") from None
    for host in hosts:
        order("maintenance on", host=host, reason=reason, for_s=for_s)


@maintenance.command("off")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--reason", default="", help="Why; goes into the trail.")
def maintenance_off(hosts: tuple[str, ...], reason: str) -> None:
    """Give HOSTs back: they are watched, and powered off if they fail."""
    for host in hosts:
        order("maintenance off", host=host, reason=reason)


@maintenance.command("list")
@output_option
def maintenance_list(output: str) -> None:
    """List the hosts in maintenance, and why."""
    rows = [row for row in client.request("GET", "/api/v1/hosts") if row["maintenance"]]
    show_answer(rows, output, show.maintenance)
