"""The commands. Each says what it does in one line; heavy imports happen inside the command that needs them.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 refused for safety, 5 waits for a person, 6 still
running, 7 controller or OpenNebula not reachable, 8 not allowed, 9 not the leader, 78 configuration error,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from ha_controller import __version__
from ha_controller.cli import client, show
from ha_controller.cli.audit import audit
from ha_controller.cli.backup import backup, restore
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
from ha_controller.cli.completion import completion
from ha_controller.cli.config import config, reload
from ha_controller.cli.drill import drill
from ha_controller.cli.explain import explain
from ha_controller.cli.fencing import fencing, would_fence
from ha_controller.cli.hook import migrate_from_hook
from ha_controller.cli.incident import export, whole
from ha_controller.cli.init import init
from ha_controller.cli.leader import leader, others_unpaused
from ha_controller.cli.listing import Form, document_options, listing_options
from ha_controller.cli.listings import HOSTS, INCIDENTS, PENDING
from ha_controller.cli.maintenance import maintenance
from ha_controller.cli.notify import notify
from ha_controller.cli.program import check_config, demo, plugins, serve
from ha_controller.cli.selection import (
    complete_incidents,
    complete_pending,
    host_argument,
    hosts_argument,
    names_of,
    one_host,
    pick,
    some_hosts_argument,
)
from ha_controller.cli.simulate import simulate
from ha_controller.cli.support_bundle import support_bundle
from ha_controller.cli.token import token
from ha_controller.cli.top import top
from ha_controller.cli.trail import events
from ha_controller.cli.vms import vms

STATES = ("ok", "suspect", "failed", "fenced", "recovered")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--socket", envvar="HA_SOCKET", help=f"The controller's socket. [default: {client.DEFAULT_SOCKET}]")
def commands(socket: str | None) -> None:
    """High availability for OpenNebula: powers dead hosts off, verifies it, and starts their VMs elsewhere."""
    del socket


def main() -> None:
    """Run the command line; never shows a traceback for something that an operator can mend."""
    try:
        commands(standalone_mode=False, prog_name="ha-controller")
    except client.Failure as failure:
        click.echo(show.safe(failure.text), err=True)
        sys.exit(failure.code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


# --- looking ----------------------------------------------------------------------------------------------------------


@commands.command()
@click.option("--nagios", is_flag=True, help="One line with performance data; exit code 0, 1, 2 or 3 as plugins have.")
@document_options
def status(nagios: bool, form: Form) -> None:
    """One verdict, who leads, what is going on. The exit code tells: 0 well, 1 degraded, 4 guarded, 5 waits for you."""
    if nagios:
        from ha_controller.cli.nagios import check

        client.finish(check())
    answer = form.show(lambda: client.request("GET", "/api/v1/status"), show.status)
    client.finish(answer["code"])


@commands.command()
@some_hosts_argument
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="In this state; may be repeated.")
@listing_options
def hosts(hosts: tuple[str, ...], states: tuple[str, ...], form: Form) -> None:
    """List the hosts, or HOSTs alone; the ones that are not OK come first.

    HOST is a name, an id, a list (kvm-01,kvm-02), a range of ids (1..4,7) or a glob ('kvm-0*').
    """

    def ask() -> list[Any]:
        rows = client.request("GET", "/api/v1/hosts")
        chosen = pick(hosts, rows) if hosts else rows
        return [row for row in chosen if not states or row["state"] in states]

    form.show(ask, HOSTS)


@commands.group(invoke_without_command=True)
@listing_options
@click.pass_context
def incidents(context: click.Context, form: Form) -> None:
    """List the incidents: one failure of one host each."""
    if context.invoked_subcommand is None:
        form.show(lambda: client.request("GET", "/api/v1/incidents"), INCIDENTS)


@incidents.command("show")
@click.argument("number", type=int, shell_complete=complete_incidents)
@document_options
def incidents_show(number: int, form: Form) -> None:
    """Everything on record of one incident, with its timeline."""
    form.show(lambda: whole(number), show.incident)


@commands.command()
@document_options
def doctor(form: Form) -> None:
    """Live checks: OpenNebula and our rights there, second masters, channels, fence devices, oned's ssh."""
    answer = form.show(lambda: client.request("GET", "/api/v1/doctor"), show.doctor)
    client.finish(1 if any(check["ok"] is False for check in answer) else 0)


# --- deciding ---------------------------------------------------------------------------------------------------------


@commands.group()
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


@commands.command("confirm-off")
@host_argument
@reason_option
@yes_option
def confirm_off(host: str, reason: str, yes: bool) -> None:
    """Say that you have SEEN that HOST is off; its VMs are started elsewhere."""
    host = one_host(host)
    type_the_name(host, yes, "If it still runs, its VMs will run twice and destroy their disks.")
    order("confirm-off", host=host, reason=reason)


@commands.command()
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


@commands.command()
@hosts_argument
@reason_option
def hold(hosts: tuple[str, ...], reason: str) -> None:
    """Stop the incidents of HOSTs: no further power-off, no further move."""
    order_each("hold", names_of(hosts), reason=reason)


@commands.command()
@hosts_argument
@reason_option
@yes_option
def release(hosts: tuple[str, ...], reason: str, yes: bool) -> None:
    """Take up the incidents of HOSTs again."""
    names = names_of(hosts)
    sure_of_all(names, hosts, yes)
    order_each("release", names, reason=reason)


@commands.command()
@click.option("--reason", required=True, help="Why; goes into the trail.")
@click.option("--for", "lasts", metavar="DURATION", help='Ends by itself, like "30m"; without it: never.')
@click.option("--here", is_flag=True, help="Of a controller that stands by: it stays paused, should it take the lead.")
def pause(reason: str, lasts: str | None, here: bool) -> None:
    """No power-off and no move anywhere; probing goes on."""
    order("pause", reason=reason, for_s=seconds_of("--for", lasts), here=here)
    others = "" if here else others_unpaused()
    if others:
        click.echo(others, err=True)


@commands.command()
@reason_option
def resume(reason: str) -> None:
    """End `pause`."""
    order("resume", reason=reason)


@commands.command()
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


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(f"ha-controller {__version__}")


for command in (
    audit,
    backup,
    check_config,
    completion,
    config,
    demo,
    drill,
    events,
    explain,
    fencing,
    init,
    leader,
    maintenance,
    migrate_from_hook,
    notify,
    plugins,
    reload,
    restore,
    serve,
    simulate,
    support_bundle,
    token,
    top,
    vms,
):
    commands.add_command(command)
incidents.add_command(export)
