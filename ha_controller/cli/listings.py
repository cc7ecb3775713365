"""What each listing shows: its columns, and the name that stands for a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.cli import show
from ha_controller.cli.listing import Column, Listing
from ha_controller.cli.show import clock, lasted

Json = Any

ONE_STATES = {0: "init", 2: "on", 3: "err", 4: "dsbl", 8: "off"}


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{lasted(seconds)} ago"


def _devices_of(host: Json) -> str:
    return " ".join(f"{device['device']} {'✓' if device['ready'] else '✗'}" for device in host["fencing"]) or "none"


HOSTS = Listing(
    columns=(
        Column(title="ID", value=lambda host: host["id"]),
        Column(title="NAME", value=lambda host: host["name"]),
        Column(title="CLUSTER", value=lambda host: host["cluster"], wide=True),
        Column(title="ONE", value=lambda host: ONE_STATES.get(host["one_state"], str(host["one_state"]))),
        Column(title="STATE", value=lambda host: host["state"].upper()),
        Column(title="SINCE", value=lambda host: lasted(host["for_s"]), csv=("since_s", lambda host: host["for_s"])),
        Column(title="VMS", value=lambda host: host["vms"]),
        Column(title="FENCING", value=_devices_of),
        Column(title="INCIDENT", value=lambda host: "-" if host["incident"] is None else host["incident"], wide=True),
        Column(title="MAINTENANCE", value=lambda host: "yes" if host["maintenance"] else "no", wide=True),
        Column(title="NOTE", value=lambda host: host["note"], cut=70),
    ),
    name=lambda host: host["name"],
    empty="OpenNebula has no host that is in scope, or was not read yet; see: ha-controller status",
)


def _running(record: Json) -> str:
    return f"{sum(vm['stage'] == 'running' for vm in record['vms'])}/{len(record['vms'])}"


INCIDENTS = Listing(
    columns=(
        Column(title="ID", value=lambda record: record["id"]),
        Column(title="HOST", value=lambda record: record["host_name"]),
        Column(title="OPENED", value=lambda record: clock(record["opened_at"])),
        Column(title="VERDICT", value=lambda record: record["verdict"]),
        Column(title="STATE", value=lambda record: record["state"].upper()),
        Column(title="VMS", value=_running),
        Column(title="OPEN", value=lambda record: "yes" if record["open"] else "no", wide=True),
        Column(title="WAITS FOR YOU", value=lambda record: "yes" if record["needs_person"] else "no", wide=True),
        Column(
            title="NOTE",
            value=lambda record: (
                record["stopped"] or record["hold"] or ("open" if record["open"] else record["closing"])
            ),
            cut=80,
        ),
    ),
    name=lambda record: record["id"],
    empty="No incident is on record.",
)

PENDING = Listing(
    columns=(
        Column(title="ID", value=lambda row: row["id"]),
        Column(title="HOST", value=lambda row: row["host"]),
        Column(title="STATE", value=lambda row: row["state"].upper()),
        Column(title="APPROVE", value=lambda row: "yes" if row["can_approve"] else "no", wide=True),
        Column(title="QUESTION", value=lambda row: row["question"]),
    ),
    name=lambda row: row["id"],
    empty="Nothing waits for a decision.",
)

EVENTS = Listing(
    columns=(
        Column(title="ID", value=lambda line: line["id"], wide=True),
        Column(title="AT", value=lambda line: clock(line["at"])),
        Column(title="KIND", value=lambda line: line["kind"]),
        Column(title="INCIDENT", value=lambda line: "-" if line["incident"] is None else line["incident"]),
        Column(title="HOST", value=lambda line: "-" if line["host"] is None else line["host"], wide=True),
        Column(title="TEXT", value=lambda line: line["text"]),
    ),
    name=lambda line: line["id"],
    as_text=show.trail,
)

MAINTENANCE = Listing(
    columns=(
        Column(title="HOST", value=lambda row: row["name"]),
        Column(title="STATE", value=lambda row: row["state"].upper(), wide=True),
        Column(title="VMS", value=lambda row: row["vms"]),
        Column(title="WHY", value=lambda row: row["note"]),
    ),
    name=lambda row: row["name"],
    empty="No host is in maintenance.",
)


def _flat(hosts: Sequence[Json]) -> list[Json]:
    """One row for each device; a host without any has one that says so."""
    bare = {
        "device": "none",
        "level": "-",
        "ready": False,
        "mismatch": "no fence device: it cannot be powered off",
        "checked_s_ago": None,
        "identity": "",
        "seen_on": False,
        "drilled_s_ago": None,
        "summary": "",
    }
    return [{"host": host["name"], **device} for host in hosts for device in host["fencing"] or [bare]]


DEVICES = Listing(
    rows=_flat,
    columns=(
        Column(title="HOST", value=lambda row: row["host"]),
        Column(title="LEVEL", value=lambda row: str(row["level"])),
        Column(title="DEVICE", value=lambda row: row["device"]),
        Column(title="READY", value=lambda row: "✓" if row["ready"] and not row["mismatch"] else "✗"),
        Column(
            title="CHECKED",
            value=lambda row: _ago(row["checked_s_ago"]),
            csv=("checked_s_ago", lambda row: row["checked_s_ago"]),
        ),
        Column(title="IDENTITY", value=lambda row: row["identity"]),
        Column(title="SEEN ON", value=lambda row: "yes" if row["seen_on"] else "no", wide=True),
        Column(
            title="LAST DRILL",
            value=lambda row: _ago(row["drilled_s_ago"]),
            wide=True,
            csv=("drilled_s_ago", lambda row: row["drilled_s_ago"]),
        ),
        Column(title="WHAT IT SAYS", value=lambda row: row["mismatch"] or row["summary"], cut=90),
    ),
    name=lambda row: f"{row['host']}/{row['device']}",
)


def _obstacle(row: Json) -> str:
    if row["obstacle"]:
        return str(row["obstacle"])
    return "begins by itself" if row["by_itself"] == "yes" else f"can be held; not by itself: {row['by_itself']}"


DRILLS = Listing(
    columns=(
        Column(title="HOST", value=lambda row: row["host"]),
        Column(title="DEVICE", value=lambda row: row["device"]),
        Column(
            title="LAST DRILL",
            value=lambda row: _ago(row["drilled_s_ago"]),
            csv=("drilled_s_ago", lambda row: row["drilled_s_ago"]),
        ),
        Column(
            title="DUE",
            value=lambda row: "now" if row["due_in_s"] <= 0 else f"in {lasted(row['due_in_s'])}",
            csv=("due_in_s", lambda row: row["due_in_s"]),
        ),
        Column(title="OVERDUE", value=lambda row: "yes" if row["overdue"] else "no", wide=True),
        Column(title="OBSTACLE", value=_obstacle),
    ),
    name=lambda row: f"{row['host']}/{row['device']}",
)

NOTIFIERS = Listing(
    columns=(
        Column(title="NAME", value=lambda row: row["name"]),
        Column(title="SENT", value=lambda row: row["results"]["sent"]),
        Column(title="REPEATED", value=lambda row: row["results"]["repeated"]),
        Column(title="GIVEN UP", value=lambda row: row["results"]["given_up"]),
        Column(title="DROPPED", value=lambda row: row["results"]["dropped"]),
        Column(title="TROUBLE", value=lambda row: row["trouble"] or "-"),
    ),
    name=lambda row: row["name"],
)

PLUGINS = Listing(
    columns=(
        Column(title="PLUGIN", value=lambda row: row["name"]),
        Column(title="KINDS", value=lambda row: ", ".join(row["kinds"])),
        Column(title="DISTRIBUTION", value=lambda row: row["distribution"]),
        Column(title="VERSION", value=lambda row: row["version"]),
        Column(title="ERROR", value=lambda row: row["error"]),
    ),
    name=lambda row: row["name"],
)
