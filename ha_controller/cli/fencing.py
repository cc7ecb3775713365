"""`ha-controller fencing`: fence devices, in peace time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import (
    patient_order,
    query,
    reason_option,
    type_the_name,
    yes_option,
)
from ha_controller.cli.listing import Form, document_options, listing_options
from ha_controller.cli.listings import DEVICES, EVENTS
from ha_controller.cli.selection import host_argument, one_host, pick, some_hosts_argument

REFUSED = 4


@click.group()
def fencing() -> None:
    """Fence devices: whose they are, whether they work, what they did."""


def _devices_shown(ask: Callable[[], list[Any]], form: Form) -> None:
    rows = form.show(ask, DEVICES)
    devices = [device for row in rows for device in row["fencing"]]
    bare = any(not row["fencing"] for row in rows)
    client.finish(1 if bare or any(not device["ready"] or device["mismatch"] for device in devices) else 0)


@fencing.command("list")
@some_hosts_argument
@listing_options
def fencing_list(hosts: tuple[str, ...], form: Form) -> None:
    """List the devices of HOSTs, or of all hosts, as last checked; exit code 1 if any is not ready."""

    def ask() -> list[Any]:
        rows: list[Any] = client.request("GET", "/api/v1/hosts")
        return pick(hosts, rows) if hosts else rows

    _devices_shown(ask, form)


@fencing.command("status")
@document_options
def fencing_status(form: Form) -> None:
    """Say whether every host could be powered off now, and which drills are overdue; exit code 1 if one could not."""
    summary = form.show(
        lambda: _summary(client.request("GET", "/api/v1/hosts"), client.request("GET", "/api/v1/drills")),
        show.fencing_status,
    )
    client.finish(1 if summary["cannot"] else 0)


def _summary(rows: list[Any], drills: list[Any]) -> dict[str, Any]:
    devices = [device for row in rows for device in row["fencing"]]
    usable = {row["name"]: [d for d in row["fencing"] if d["ready"] and not d["mismatch"]] for row in rows}
    return {
        "hosts": len(rows),
        "devices": len(devices),
        "ready": sum(map(len, usable.values())),
        "cannot": sorted(name for name, ready in usable.items() if not ready),
        "asks": sorted(n for n, ready in usable.items() if ready and all(d["identity"] == "unproven" for d in ready)),
        "never_on": sorted(f"{r['name']} ({d['device']})" for r in rows for d in r["fencing"] if not d["seen_on"]),
        "overdue": sorted(f"{row['host']} ({row['device']})" for row in drills if row["overdue"]),
    }


@fencing.command("check")
@some_hosts_argument
@listing_options
def fencing_check(hosts: tuple[str, ...], form: Form) -> None:
    """Check the devices of HOSTs, or all, now: login, right to power off, identity. Changes nothing."""

    def ask() -> list[Any]:
        click.echo("Checking; a device that does not answer takes 15 s.", err=True)
        if not hosts:
            return list(client.request("POST", "/api/v1/fencing/check?", {}))
        chosen = pick(hosts, client.request("GET", "/api/v1/hosts"))
        checked = [client.request("POST", f"/api/v1/fencing/check?{query(host=row['name'])}", {}) for row in chosen]
        return [row for rows in checked for row in rows]

    _devices_shown(ask, form)


@fencing.command("history")
@host_argument
@listing_options
def fencing_history(host: str, form: Form) -> None:
    """Power-offs, readings and drills of HOST, oldest first."""
    words = ("power off", "power-off", "read back", "drill", "fence device", " is off")
    wanted = query(host=one_host(host), limit=1000)

    def ask() -> list[Any]:
        lines = client.request("GET", f"/api/v1/events?{wanted}&newest=1")
        return [line for line in lines if any(word in line["text"] for word in words)]

    form.show(ask, EVENTS)


@fencing.command("test")
@host_argument
@click.option("--real", is_flag=True, help="Really power it off and on; without this only `fencing check` is meant.")
@reason_option
@yes_option
def fencing_test(host: str, real: bool, reason: str, yes: bool) -> None:
    """Drill: power HOST off and on with each device. Only with HA_IGNORE=YES on it and no VM there."""
    if not real:
        raise client.Failure(2, "This powers the host off and on. Say --real, or use: ha-controller fencing check")
    host = one_host(host)
    type_the_name(host, yes, "It is powered off, hard, and on again, once with each device.")
    click.echo("The drill takes about a minute for each device.", err=True)
    patient_order("drill", host=host, reason=reason)


def would_fence(host: str) -> int:
    """Say what `fence` would do with a host now; returns the exit code: 0 it is powered off, 4 it is not."""
    from urllib.parse import quote

    answer = client.request("GET", f"/api/v1/hosts/{quote(host, safe='')}/explain")
    order = answer["if_ordered"]
    if order["refused"]:
        click.echo(f"It would be refused: {show.safe(order['refused'])}")
        return REFUSED
    said_no = [each for each in order["guards"] if not each["passes"]]
    for each in said_no:
        click.echo(f"✗ {each['guard']}: {show.safe(each['reason'])}")
    if order["hold"]:
        click.echo(f"✗ {show.safe(order['hold'])}")
    if said_no or order["hold"]:
        click.echo(f"The order would be taken, and {show.safe(host)} would not be powered off before this has ended.")
        return REFUSED
    click.echo(f"{show.safe(host)} would be powered off now; {answer['vms']} VMs are there.")
    for device in answer["fencing"]:
        mark = "✓" if device["ready"] and not device["mismatch"] else "✗"
        told = device["mismatch"] or device["summary"]
        click.echo(f"  level {device['level']} {mark} {show.safe(device['device'])}: {show.safe(told)}")
    return 0
