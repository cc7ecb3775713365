"""`ha-controller vms`: which VMs are protected, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ha_controller.cli import client
from ha_controller.cli.common import query
from ha_controller.cli.listing import Column, Form, Listing, listing_options
from ha_controller.cli.selection import pick, some_hosts_argument
from ha_controller.cli.show import clock

Json = Any

PROTECTED = {"moved": "yes", "nowhere": "no room", "left alone": "no"}
VMS = Listing(
    columns=(
        Column(title="ID", value=lambda row: row["id"]),
        Column(title="NAME", value=lambda row: row["name"]),
        Column(title="HOST", value=lambda row: row["host"]),
        Column(title="PROTECTED", value=lambda row: PROTECTED.get(row["outcome"], row["outcome"])),
        Column(title="WOULD RUN ON", value=lambda row: row["to"] or "-"),
        Column(
            title="LAST RESTART",
            value=lambda row: "-" if row["last_restart"] is None else clock(row["last_restart"]),
            wide=True,
        ),
        Column(title="WHY", value=lambda row: row["reason"], cut=80),
    ),
    name=lambda row: row["id"],
    empty="There is no VM on these hosts.",
)


@click.command()
@some_hosts_argument
@click.option("--unprotected", is_flag=True, help="Only those that would not run again.")
@listing_options
def vms(hosts: tuple[str, ...], unprotected: bool, form: Form) -> None:
    """List the VMs of HOSTS, or all: would each run again if its host failed alone, where, and why not.

    Exit code 1 if one would not. Each host costs a reading of its VMs in OpenNebula.
    """

    def ask() -> list[Json]:
        known = client.request("GET", "/api/v1/hosts")
        chosen = pick(hosts, known) if hosts else known
        restarts = _last_restarts(client.request("GET", "/api/v1/incidents"))
        rows = [row for host in chosen if host["vms"] for row in _of_host(host["name"], restarts)]
        return [row for row in rows if not (unprotected and row["outcome"] == "moved")]

    rows = form.show(ask, VMS)
    client.finish(1 if any(row["outcome"] != "moved" for row in rows) else 0)


def _of_host(host: str, restarts: dict[int, float]) -> Iterator[Json]:
    for vm in client.request("GET", f"/api/v1/simulate/fail?{query(host=host)}")["vms"]:
        yield {**vm, "host": host, "last_restart": restarts.get(vm["id"])}


def _last_restarts(incidents: list[Json]) -> dict[int, float]:
    """When each VM was last seen RUNNING after an incident."""
    found: dict[int, float] = {}
    for record in incidents:
        for vm in record["vms"]:
            if vm["stage"] == "running" and vm["settled_at"] is not None:
                found[vm["id"]] = max(found.get(vm["id"], 0.0), vm["settled_at"])
    return found
