"""`ha-controller audit`: who did what, from where and why, and whether the trail is still as it was written.

The seals are computed here, not by the controller: `verify` believes neither it nor its disk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ha_controller import sealing
from ha_controller.cli import client, show
from ha_controller.cli.common import query
from ha_controller.cli.listing import Column, Form, Listing, answer_options, listing_options

Json = Any
FORMAT = "ha-controller audit trail"
VERSION = 1
PAGE = 1000  #: entries that are read at a time


@click.group()
def audit() -> None:
    """The audit trail: who did what, from where, why, and what came of it; nothing in it can be changed unseen."""


# --- list -------------------------------------------------------------------------------------------------------------


@audit.command("list")
@click.option("--host", help="About this host only.")
@click.option("--incident", type=int, help="Of this incident only.")
@click.option("--who", help="By this user only.")
@click.option("--all", "with_own", is_flag=True, help="Also what the controller ordered by itself.")
@click.option("-n", "--limit", type=click.IntRange(1, PAGE), default=50, show_default=True, help="The last so many.")
@listing_options
def audit_list(host: str | None, incident: int | None, who: str | None, with_own: bool, limit: int, form: Form) -> None:
    """What people and services ordered, with the outcome; refused ones, too."""

    def ask() -> list[Json]:
        found = acts({"host": host, "incident": incident}, with_own, limit)
        names = {row["id"]: row["name"] for row in client.request("GET", "/api/v1/hosts")}
        for act in found:
            act["host"] = names.get(act["host"], act["host"])
        return [act for act in found if who is None or act["who"] == who][-limit:]

    form.show(ask, ACTS)


def acts(about: dict[str, Any], with_own: bool, limit: int) -> list[Json]:
    """Acts, oldest first, each with the answer to it."""
    kinds = ("operator", "intent") if with_own else ("operator",)
    lines = [line for kind in kinds for line in _newest(kind, limit, about)]
    if first := min((line["id"] for line in lines), default=0):
        lines += _newest("answer", PAGE, about | {"after": first})
    ordered: list[Json] = []
    asked: dict[int, Json] = {}
    for line in sorted(lines, key=lambda line: int(line["id"])):
        data = line["data"]
        if line["kind"] == "answer":
            if act := asked.pop(data["request"], None):
                act["code"], act["result"] = data["code"], data["result"]
            continue
        ordered.append(_act(line))
        if data.get("request") is not None:  # numbers begin anew with each process: the last one asked is meant
            asked[data["request"]] = ordered[-1]
    return ordered


def _newest(kind: str, limit: int, about: dict[str, Any]) -> list[Json]:
    found: list[Json] = client.request("GET", f"/api/v1/events?{query(kind=kind, limit=limit, **about)}&newest=1")
    return found


def _act(line: Json) -> Json:
    data, is_own = line["data"], line["kind"] == "intent"
    by, origin = ("ha-controller", "its own decision") if is_own else (data.get("who", ""), data.get("origin", ""))
    why = f"incident {line['incident']}" if is_own and line["incident"] else data.get("reason", "")
    return {
        "entry": line["id"],
        "at": line["at"],
        "who": by,
        "origin": origin,
        "what": data.get("verb", line["text"]),
        "host": line["host"],
        "incident": line["incident"],
        "why": why,
        "code": data.get("code"),
        "result": data.get("result", ""),
    }


def said(act: Json) -> str:
    """What came of an act."""
    result = {0: "done", None: "-"}.get(act["code"], "refused")
    return f"{result}: {act['result']}" if act["result"] and act["code"] else result


ACTS = Listing(
    columns=(
        Column(title="ENTRY", value=lambda act: act["entry"]),
        Column(title="AT", value=lambda act: show.clock(act["at"])),
        Column(title="WHO", value=lambda act: act["who"]),
        Column(title="FROM", value=lambda act: act["origin"]),
        Column(title="WHAT", value=lambda act: act["what"], cut=60),
        Column(title="HOST", value=lambda act: "" if act["host"] is None else act["host"]),
        Column(title="INCIDENT", value=lambda act: "-" if act["incident"] is None else act["incident"], wide=True),
        Column(title="WHY", value=lambda act: act["why"], cut=60),
        Column(title="RESULT", value=said, cut=80),
    ),
    name=lambda act: act["entry"],
    empty="Nobody has ordered anything yet.",
)


# --- export -----------------------------------------------------------------------------------------------------------


@audit.command("export")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Only entries after this one.")
def export(after: int) -> None:
    """Print the trail as JSON lines, with its seals, to be kept elsewhere; `audit verify FILE` checks them."""
    chain = sealing.Chain(last=after)
    _line({"format": FORMAT, "version": VERSION, "after": after})
    for entry in _stored(after):
        chain.take(entry)
        _line(entry)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _line({"end": {"head": str(chain.head), "entries": chain.count, "exported_at": now}})
    if chain.faults:
        raise client.Failure(1, f"It was printed, but: {chain.faults[0]}. See: ha-controller audit verify")


def _line(value: Json) -> None:
    sys.stdout.write(json.dumps(value, sort_keys=True) + "\n")


def _stored(after: int) -> Iterator[Json]:
    """All entries that the controller has, in their order."""
    while entries := client.request("GET", f"/api/v1/events?{query(after=after, limit=PAGE)}"):
        yield from entries
        if entries[-1]["id"] <= after:  # it would never end
            raise client.Failure(1, f"The trail is out of order after entry {after}.")
        after = entries[-1]["id"]


# --- verify -----------------------------------------------------------------------------------------------------------


@audit.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--head", "heads", multiple=True, metavar="NUMBER:SEAL", help="A head that was noted elsewhere.")
@answer_options
def verify(file: Path | None, heads: tuple[str, ...], form: Form) -> None:
    """Compute every seal anew: of the running controller's trail, or of FILE from `audit export`. Exit code 1: a fault.

    A changed, removed or inserted entry shows by itself. Whoever may write the journal could seal all of it anew, or
    cut off its end: that shows against a head that was noted elsewhere. Heads are in mails, webhooks and the log, in
    each export, in `doctor`, and as metrics.
    """
    try:
        noted = [sealing.Head.parse(head) for head in heads]
    except ValueError as error:
        raise client.Failure(2, f"--head {error}") from None
    chain = _checked_file(file, noted) if file is not None else _checked_here(noted)
    answer = {"entries": chain.count, "head": str(chain.head), "faults": chain.faults, "more": chain.faults_more}
    form.show(lambda: answer, lambda _: _show_check(chain, noted))
    client.finish(1 if chain.faults else 0)


def _checked_here(noted: list[sealing.Head]) -> sealing.Chain:
    said = client.request("GET", "/api/v1/audit/head")  # first: the trail grows meanwhile
    last = sealing.Head(id=said["id"], seal=said["seal"])
    chain = sealing.Chain(heads=[*noted, last] if last.id else noted)
    for entry in _stored(0):
        chain.take(entry)
    chain.end(last.id)
    return chain


def _checked_file(file: Path, noted: list[sealing.Head]) -> sealing.Chain:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return _checked_lines(file, lines, noted)


def _checked_lines(file: Path, lines: Iterable[str], noted: list[sealing.Head]) -> sealing.Chain:
    rows = iter(lines)
    header = _parsed(next(rows, ""))
    after = header.get("after")
    if header.get("format") != FORMAT or header.get("version") != VERSION or type(after) is not int:
        raise client.Failure(1, f"{file}: this is no trail. Write one with: ha-controller audit export > FILE")
    chain, end = sealing.Chain(heads=noted, last=after), None
    for line in rows:
        row = _parsed(line)
        if end is not None:
            chain.faults.append("something stands after the end")
            break
        if "end" in row:
            end = row["end"]
        else:
            chain.take(row)
    chain.end()
    if not isinstance(end, dict):
        chain.faults.append("the file has no end: it was cut off, or the export was")
    elif (end.get("head"), end.get("entries")) != (str(chain.head), chain.count):
        chain.faults.append(f"the end speaks of {end.get('entries')} entries and the head {end.get('head')}")
    return chain


def _parsed(line: str) -> dict[str, Json]:
    """An object; one with nothing in it for what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _show_check(chain: sealing.Chain, noted: list[sealing.Head]) -> None:
    for fault in chain.faults:
        click.echo(f"✗ {show.safe(fault)}")
    if chain.faults_more:
        click.echo(f"✗ and {chain.faults_more} more")
    if chain.faults:
        return
    also = f", and {len(noted)} noted head{'s' if len(noted) > 1 else ''} fit" if noted else ""
    click.echo(f"✓ {chain.count} entries are as they were written{also}.")
    click.echo(f"Note this head elsewhere: {chain.head.short}")
    if not noted:
        click.echo("Without a --head that was noted before, a trail that was cut off or written anew is not found.")
