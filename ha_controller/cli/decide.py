"""The commands by which people decide: approvals, orders for one host or for the cloud. Each goes into the trail."""

from __future__ import annotations

import click

from ha_controller.cli import client
from ha_controller.cli.common import (
    order,
    order_each,
    patient_order,
    reason_option,
    seconds_of,
    sure_of_all,
    type_the_name,
    yes_option,
)
from ha_controller.cli.fencing import would_fence
from ha_controller.cli.leader import others_unpaused
from ha_controller.cli.listing import Form, listing_options
from ha_controller.cli.listings import PENDING
from ha_controller.cli.selection import complete_pending, host_argument, hosts_argument, names_of, one_host


@click.group()
def pending() -> None:
    """Decisions that wait for a person."""


@pending.command("list")
@listing_options
def pending_list(form: Form) -> None:
    """List them; exit code 5 if there are any."""
    answer = form.show(lambda: client.request("GET", "/api/v1/pending"), PENDING)
    client.finish(5 if answer else 0)


@pending.command("approve")
@click.argument("incident", type=int, shell_complete=complete_pending)
@reason_option
def pending_approve(incident: int, reason: str) -> None:
    """Say yes to what INCIDENT asks: power off a silent host, or start VMs before others are ready."""
    order("approve", incident=incident, reason=reason)


@pending.command("reject")
@click.argument("incident", type=int, shell_complete=complete_pending)
@reason_option
def pending_reject(incident: int, reason: str) -> None:
    """Do not power off the host of INCIDENT."""
    order("reject", incident=incident, reason=reason)


@click.command("confirm-off")
@host_argument
@reason_option
@yes_option
def confirm_off(host: str, reason: str, yes: bool) -> None:
    """Say that you have SEEN that HOST is off; its VMs are started elsewhere."""
    host = one_host(host)
    type_the_name(host, yes, "If it still runs, its VMs will run twice and destroy their disks.")
    order("confirm-off", host=host, reason=reason)


@click.command()
@hosts_argument
@reason_option
@yes_option
@click.option(
    "--force", is_flag=True, help="You have rebooted it, looked at it, and lifted what keeps it from its storage."
)
@click.option("--repaired", is_flag=True, help="What made it fail again and again is repaired: end its quarantine.")
def unfence(hosts: tuple[str, ...], reason: str, yes: bool, force: bool, repaired: bool) -> None:
    """Give HOSTs back to OpenNebula once they answer again."""
    names = names_of(hosts)
    for name in names:
        type_the_name(name, yes, "It will be used for VMs again.")
    order_each("unfence", names, reason=reason, force=force, repaired=repaired)


@click.command()
@hosts_argument
@reason_option
def hold(hosts: tuple[str, ...], reason: str) -> None:
    """Stop the incidents of HOSTs: no further power-off, no further move."""
    order_each("hold", names_of(hosts), reason=reason)


@click.command()
@hosts_argument
@reason_option
@yes_option
def release(hosts: tuple[str, ...], reason: str, yes: bool) -> None:
    """Take up the incidents of HOSTs again."""
    names = names_of(hosts)
    sure_of_all(names, hosts, yes)
    order_each("release", names, reason=reason)


@click.command()
@click.option("--reason", required=True, help="Why; goes into the trail.")
@click.option("--for", "lasts", metavar="DURATION", help='Ends by itself, like "30m"; without it: never.')
@click.option("--here", is_flag=True, help="Of a controller that stands by: it stays paused, should it take the lead.")
def pause(reason: str, lasts: str | None, here: bool) -> None:
    """No power-off and no move anywhere; probing goes on."""
    order("pause", reason=reason, for_s=seconds_of("--for", lasts), here=here)
    others = "" if here else others_unpaused()
    if others:
        click.echo(others, err=True)


@click.command()
@reason_option
def resume(reason: str) -> None:
    """End `pause`."""
    order("resume", reason=reason)


@click.command()
@host_argument
@click.option("--reason", default="", help="Why; goes into the trail. Needed, but for --dry-run.")
@yes_option
@click.option("--dry-run", is_flag=True, help="Order nothing: say whether it would be done, and what says no.")
def fence(host: str, reason: str, yes: bool, dry_run: bool) -> None:
    """Power a silent HOST off now, without waiting for the verdict. Refused while it shows life."""
    host = one_host(host)
    if dry_run:
        client.finish(would_fence(host))
    if not reason:
        raise client.Failure(2, "Say why: --reason TEXT.")
    type_the_name(host, yes, "It is powered off, hard, and its VMs are started elsewhere.")
    patient_order("fence", host=host, reason=reason)
