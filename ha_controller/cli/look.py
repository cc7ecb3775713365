"""The commands that look: `status`, `hosts`, `incidents`, `doctor`. They ask the controller, and change nothing."""

from __future__ import annotations

from typing import Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.incident import export, whole
from ha_controller.cli.listing import Form, document_options, listing_options
from ha_controller.cli.listings import HOSTS, INCIDENTS
from ha_controller.cli.selection import complete_incidents, pick, some_hosts_argument

STATES = ("ok", "suspect", "failed", "fenced", "recovered")


@click.command()
@click.option("--nagios", is_flag=True, help="One line with performance data; exit code 0, 1, 2 or 3 as plugins have.")
@document_options
def status(nagios: bool, form: Form) -> None:
    """One verdict, who leads, what is going on. The exit code tells: 0 well, 1 degraded, 4 guarded, 5 waits for you."""
    if nagios:
        from ha_controller.cli.nagios import check

        client.finish(check())
    answer = form.show(lambda: client.request("GET", "/api/v1/status"), show.status)
    client.finish(answer["code"])


@click.command()
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


@click.group(invoke_without_command=True)
@listing_options
@click.pass_context
def incidents(context: click.Context, form: Form) -> None:
    """List the incidents: one failure of one host each."""
    if context.invoked_subcommand is None:
        form.show(lambda: client.request("GET", "/api/v1/incidents"), INCIDENTS)


@incidents.command("show")
@click.argument("number", type=click.IntRange(min=1), shell_complete=complete_incidents)
@document_options
def incidents_show(number: int, form: Form) -> None:
    """Everything on record of one incident, with its timeline."""
    form.show(lambda: whole(number), show.incident)


@click.command()
@document_options
def doctor(form: Form) -> None:
    """Live checks: OpenNebula and our rights there, second masters, channels, fence devices, oned's ssh."""
    answer = form.show(lambda: client.request("GET", "/api/v1/doctor"), show.doctor)
    client.finish(1 if any(check["ok"] is False for check in answer) else 0)


incidents.add_command(export)
