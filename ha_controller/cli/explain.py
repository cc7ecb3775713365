"""`ha-controller explain`: why a host is in its state, or what is known of a VM; now, or back then."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import query
from ha_controller.cli.listing import Form, document_options
from ha_controller.cli.selection import USAGE, complete_hosts, named_exactly, one_host

Json = Any

PROTECTED = {"moved": "yes", "nowhere": "no, it fits nowhere", "left alone": "no"}


@click.command()
@click.argument("name", metavar="HOST|VM", shell_complete=complete_hosts)
@click.option("--vm", "is_vm", is_flag=True, help="It is a VM, also where a host has this name or number.")
@click.option("--at", metavar="TIME", help='What was decided last before this time, like "2026-11-26 03:10".')
@click.option("--incident", type=int, help="All decisions of this incident.")
@click.option("-n", "--last", type=click.IntRange(1, 100), help="The last so many decisions.")
@document_options
def explain(name: str, is_vm: bool, at: str | None, incident: int | None, last: int | None, form: Form) -> None:
    """Why HOST is in its state, and what comes next; or why something was done, or was not, back then.

    Of a VM, by its name or number: where it is, whether it would run again if its host failed and why not, and what
    became of it in incidents. A host goes before a VM that is called alike.
    """
    then = at is not None or incident is not None or last is not None
    if is_vm and then:
        raise client.Failure(2, "--at, --incident and --last are about hosts.")
    if is_vm or (not then and not named_exactly(name)):
        kept = [_vm(name, is_vm)]
        if kept[0] is not None:
            form.show(lambda: kept.pop() if kept else _vm(name, is_vm=True), _show_vm)
            return
    host = one_host(name, also="" if then else " and no VM")
    if not then:
        form.show(lambda: client.request("GET", f"/api/v1/hosts/{quote(host, safe='')}/explain"), show.explain)
        return
    limit = last or (1 if incident is None else 1000)
    before = None if at is None else _moment(at)
    wanted = query(host=host, incident=incident, kind="decision", before=before, limit=limit)

    def ask() -> list[Any]:
        lines: list[Any] = client.request("GET", f"/api/v1/events?{wanted}&newest=1")
        if not lines and form.output == "table":
            raise client.Failure(3, f"No decision about {host} is on record for that.")
        return lines

    form.show(ask, show.decisions)


def _vm(name: str, is_vm: bool) -> Json:
    """What is known of it. None: it is none, or OpenNebula does not tell, and it was not said to be one.

    Raises:
        Failure: there is none, though it is said to be one; several are called so.
    """
    try:
        return client.request("GET", f"/api/v1/vms/{quote(name, safe='')}/explain")
    except client.Failure as failure:
        if is_vm or failure.code == USAGE:
            raise
        return None


def _moment(text: str) -> float:
    """Seconds since 1970 of what a person typed, in local time unless it says otherwise."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).astimezone().timestamp()
    except ValueError:
        raise client.Failure(2, f'--at {text}: not a time. Write it like "2026-11-26 03:10"') from None


# --- a VM as text -----------------------------------------------------------------------------------------------------


def _show_vm(answer: Json) -> None:
    where = "on no host that we care for" if answer["host"] is None else f"on {answer['host']}"
    click.echo(show.safe(f"VM {answer['id']} ({answer['name']}) is {answer['state']} {where}.") + "\n")
    foreseen, order = answer["if_host_failed"], answer["order"]
    to = f": it would run on {foreseen['to']}" if foreseen["to"] else ""
    why = f": {foreseen['reason']}" if foreseen["reason"] else ""
    softened = ", beside VMs it should be apart from" if foreseen["softened"] else ""
    _line("Protected", f"{PROTECTED[foreseen['outcome']]}{to}{why}{softened}")
    if answer["why_host_not_fenced"]:
        _line("But", answer["why_host_not_fenced"])
    if order is not None and foreseen["outcome"] == "moved":
        after = f", after {', '.join(order['after'])}" if order["after"] else ""
        ready = f"; ready: {order['ready']}" if order["ready"] else ""
        _line("Order", f"tier {order['tier']}{after}{ready}")
    if not answer["past"]:
        _line("Before", "in no incident that is on record")
    for number, row in enumerate(answer["past"]):
        _line("Before" if number == 0 else "", _past(row))


def _past(row: Json) -> str:
    to = f" on {row['to']}" if row["to"] else ""
    outage = "" if row["outage_s"] is None else f", down for {show.lasted(row['outage_s'])}"
    reason = f": {row['reason']}" if row["reason"] else ""
    begin = f"{show.clock(row['opened_at'])} incident {row['incident']} of {row['host']}"
    return f"{begin}: was {row['was']}; {row['stage']}{to}{outage}{reason}"


def _line(label: str, text: str) -> None:
    click.echo(f"{label:<12} {show.safe(text)}")
