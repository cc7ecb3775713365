"""`ha-controller fencing`: fence devices, in peace time."""

from __future__ import annotations

from typing import Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import (
    output_option,
    patient_order,
    query,
    reason_option,
    show_answer,
    type_the_name,
    yes_option,
)


@click.group()
def fencing() -> None:
    """Fence devices: whose they are, whether they work, what they did."""


def _device_rows(rows: list[Any], host: str | None) -> list[Any]:
    named = [row for row in rows if host in (None, row["name"], str(row["id"]))]
    if host is not None and not named:
        raise client.Failure(3, "There is no such host in OpenNebula.")
    return named


def _devices_shown(rows: list[Any], output: str) -> None:
    show_answer(rows, output, show.devices)
    devices = [device for row in rows for device in row["fencing"]]
    bare = any(not row["fencing"] for row in rows)
    client.finish(1 if bare or any(not device["ready"] or device["mismatch"] for device in devices) else 0)


@fencing.command("list")
@click.argument("host", required=False)
@output_option
def fencing_list(host: str | None, output: str) -> None:
    """List the devices of HOST, or of all hosts, as last checked; exit code 1 if any is not ready."""
    _devices_shown(_device_rows(client.request("GET", "/api/v1/hosts"), host), output)


@fencing.command("status")
@output_option
def fencing_status(output: str) -> None:
    """Say whether every host could be powered off now, and which drills are overdue; exit code 1 if one could not."""
    summary = _summary(client.request("GET", "/api/v1/hosts"), client.request("GET", "/api/v1/drills"))
    show_answer(summary, output, show.fencing_status)
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
@click.argument("host", required=False)
@output_option
def fencing_check(host: str | None, output: str) -> None:
    """Check devices now: login, right to power off, identity. Changes nothing."""
    click.echo("Checking; a device that does not answer takes 15 s.", err=True)
    rows = client.request("POST", f"/api/v1/fencing/check?{query(host=host)}", {})
    _devices_shown(_device_rows(rows, host), output)


@fencing.command("history")
@click.argument("host")
@output_option
def fencing_history(host: str, output: str) -> None:
    """Power-offs, readings and drills of HOST, oldest first."""
    words = ("power off", "power-off", "read back", "drill", "fence device", " is off")
    lines = client.request("GET", f"/api/v1/events?{query(host=host, limit=1000)}&newest=1")
    found = [line for line in lines if any(word in line["text"] for word in words)]
    if output == "json":
        show.as_json(found)
        return
    for line in found:
        show.event(line)


@fencing.command("test")
@click.argument("host")
@click.option("--real", is_flag=True, help="Really power it off and on; without this only `fencing check` is meant.")
@reason_option
@yes_option
def fencing_test(host: str, real: bool, reason: str, yes: bool) -> None:
    """Drill: power HOST off and on with each device. Only with HA_IGNORE=YES on it and no VM there."""
    if not real:
        raise client.Failure(2, "This powers the host off and on. Say --real, or use: ha-controller fencing check")
    type_the_name(host, yes, "It is powered off, hard, and on again, once with each device.")
    click.echo("The drill takes about a minute for each device.", err=True)
    patient_order("drill", host=host, reason=reason)
