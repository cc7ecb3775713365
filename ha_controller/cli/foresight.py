"""`ha-controller simulate fail` and `simulate capacity`: the planner that recovers, asked before anything fails."""

from __future__ import annotations

import click

from ha_controller.cli import client, show
from ha_controller.cli.listing import Form, answer_options, document_options
from ha_controller.cli.selection import hosts_argument, names_of

Json = client.Json


@click.command("fail")
@hosts_argument
@answer_options
def fail(hosts: tuple[str, ...], form: Form) -> None:
    """Where each VM would go if these HOSTs failed at once; exit code 1 if one would fit nowhere."""
    from urllib.parse import urlencode

    wanted = urlencode([("host", name) for name in names_of(hosts)])
    answer = form.show(lambda: client.request("GET", f"/api/v1/simulate/fail?{wanted}"), _show_fail)
    client.finish(1 if answer["nowhere"] else 0)


def _show_fail(answer: Json) -> None:
    rows = [[each["id"], each["name"], each["to"] or "-", each["outcome"], _note(each)] for each in answer["vms"]]
    if rows:
        show.table(["VM", "NAME", "TO", "OUTCOME", "WHY"], rows)
        click.echo("")
    _show_order(answer["order"])
    for fault in answer["order_faults"]:
        click.echo(f"Not followed: {show.safe(fault)}")
    click.echo(
        f"If {', '.join(map(show.safe, answer['hosts']))} failed now: {answer['moved']} VMs would run elsewhere, "
        f"{answer['nowhere']} would fit nowhere, {answer['left_alone']} would be left alone."
    )


def _show_order(starts: Json) -> None:
    """In which order they would start, if anything is written about that."""
    plain = {(each["tier"], each["ready"], *each["after"]) for each in starts}
    if len(plain) < 2:
        return
    click.echo("In this order:")
    rows = [[each["tier"], each["vm"], each["name"], ", ".join(each["after"]) or "-", each["ready"]] for each in starts]
    show.table(["TIER", "VM", "NAME", "AFTER", "READY WHEN"], rows)
    click.echo("")


def _note(row: Json) -> str:
    return "beside VMs it should be apart from" if row["softened"] else row["reason"]


@click.command("capacity")
@document_options
def capacity(form: Form) -> None:
    """How many hosts may fail, by cluster, and what the loss of each would mean; exit code 1 if none may."""
    answer = form.show(lambda: client.request("GET", "/api/v1/simulate/capacity"), _show_capacity)
    client.finish(1 if any(each["may_fail"] == 0 for each in answer["clusters"]) else 0)


def _show_capacity(answer: Json) -> None:
    for number, cluster in enumerate(answer["clusters"]):
        if number:
            click.echo("")
        name = show.safe(cluster["name"] or cluster["cluster"])
        click.echo(f"Cluster {name}: {cluster['may_fail']} of {len(cluster['hosts'])} hosts may fail at once.")
        if too_many := cluster["too_many"]:
            some = ", ".join(map(show.safe, too_many["hosts"][:8]))
            more = f" and {len(too_many['hosts']) - 8} more" if len(too_many["hosts"]) > 8 else ""
            first = too_many["vms"][0]
            click.echo(f"Without {some}{more}, {too_many['nowhere']} VMs would fit nowhere:")
            click.echo(f"  {show.safe(first['name'])} {show.safe(first['reason'])}")
        rows = [
            [each["host"], each["moved"], each["nowhere"], each["left_alone"], each["reason"]]
            for each in cluster["hosts"]
        ]
        show.table(["HOST", "MOVED", "NOWHERE", "LEFT ALONE", "WHY"], rows)
