"""`ha-controller maintenance`: hosts that people work on. They are watched, and nothing is done with them."""

from __future__ import annotations

import click

from ha_controller.cli import client
from ha_controller.cli.common import order_each, seconds_of, sure_of_all, yes_option
from ha_controller.cli.listing import Form, listing_options
from ha_controller.cli.listings import MAINTENANCE
from ha_controller.cli.selection import hosts_argument, names_of


@click.group()
def maintenance() -> None:
    """Hosts that people work on: never powered off, no VM of them is moved. Written on the host in OpenNebula."""


@maintenance.command("on")
@hosts_argument
@click.option("--for", "lasts", default=None, metavar="DURATION", help='Ends by itself, like "4h"; without it: never.')
@click.option("--reason", required=True, help="Why; others see it.")
def maintenance_on(hosts: tuple[str, ...], lasts: str | None, reason: str) -> None:
    """Take HOSTs out of the controller's hands."""
    for_s = seconds_of("--for", lasts)
    order_each("maintenance on", names_of(hosts), reason=reason, for_s=for_s)


@maintenance.command("off")
@hosts_argument
@click.option("--reason", default="", help="Why; goes into the trail.")
@yes_option
def maintenance_off(hosts: tuple[str, ...], reason: str, yes: bool) -> None:
    """Give HOSTs back: they are watched, and powered off if they fail."""
    names = names_of(hosts)
    sure_of_all(names, hosts, yes)
    order_each("maintenance off", names, reason=reason)


@maintenance.command("list")
@listing_options
def maintenance_list(form: Form) -> None:
    """List the hosts in maintenance, and why."""
    form.show(lambda: [row for row in client.request("GET", "/api/v1/hosts") if row["maintenance"]], MAINTENANCE)
