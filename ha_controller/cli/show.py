"""Turns answers of the controller into text: aligned tables, sentences, JSON. Data goes to stdout, talk to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from ha_controller.showable import UNSAFE, status_lines
from ha_controller.showable import safe as safe

Json = Any


def as_json(value: Json) -> None:
    """Print JSON. Characters that a terminal obeys are escaped, which changes no value."""
    click.echo(_escaped(json.dumps(value, indent=2, ensure_ascii=False)))


def as_json_line(value: Json) -> None:
    """Print JSON on one line."""
    click.echo(_escaped(json.dumps(value, ensure_ascii=False)))


def _escaped(text: str) -> str:
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_yaml(value: Json) -> None:
    """Print YAML: blocks, and scalars as in JSON, which YAML reads."""
    for line in _yaml(value):
        click.echo(line)


def _yaml(value: Json) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _under(f"{_key(key)}:", inner)
    elif isinstance(value, list) and value:
        for inner in value:
            lines = _yaml(inner)
            yield f"- {next(lines)}"
            yield from (f"  {line}" for line in lines)
    else:
        yield _escaped(json.dumps(value, ensure_ascii=False))


def _under(head: str, inner: Json) -> Iterator[str]:
    if isinstance(inner, dict | list) and inner:
        yield head
        yield from (f"  {line}" for line in _yaml(inner))
    else:
        yield f"{head} {next(_yaml(inner))}"


def _key(key: str) -> str:
    """Plain, unless YAML could take it for something else than a word ("yes", "1")."""
    plain = key.replace("_", "").isalpha() and key.lower() not in ("yes", "no", "on", "off", "true", "false", "null")
    return key if plain else _escaped(json.dumps(key, ensure_ascii=False))


def as_csv(headers: Sequence[str] | None, rows: Sequence[Sequence[object]]) -> None:
    """Print CSV as of RFC 4180, in UTF-8."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if headers is not None:
        writer.writerow([header.lower() for header in headers])
    writer.writerows([_field(cell) for cell in row] for row in rows)
    click.echo(text.getvalue(), nl=False)


def _field(cell: object) -> str:
    """What a spreadsheet would take for a formula is data: names are their owners'. None is an empty field."""
    text = "" if cell is None else safe(cell)
    return (
        f"'{text}" if text[:1] in ("=", "+", "@", "-") and text != "-" and not isinstance(cell, int | float) else text
    )


def table(headers: Sequence[str] | None, rows: Sequence[Sequence[object]]) -> None:
    """Print an aligned table; numbers to the right."""
    cells = [[safe(cell) for cell in row] for row in rows]
    lines = cells if headers is None else [list(headers), *cells]
    columns = range(len(lines[0]) if lines else 0)
    widths = [max(len(row[column]) for row in lines) for column in columns]
    right = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in columns]
    for row in lines:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def clock(at: float) -> str:
    """A moment: local time with offset on a terminal, RFC 3339 in UTC elsewhere."""
    moment = datetime.fromtimestamp(at).astimezone()
    if sys.stdout.isatty():
        return moment.strftime("%Y-%m-%d %H:%M:%S %z")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lasted(seconds: float) -> str:
    """A duration in the two biggest units."""
    whole = int(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller}{small_unit}"
    return f"{whole}s"


def status(answer: Json) -> None:
    """Print `status`."""
    for line in status_lines(answer):
        click.echo(line)


def leader(answer: Json) -> None:
    """Print `leader show`."""
    us, kind, left_s = safe(answer["name"]), answer["kind"], answer["left_s"]
    if answer["leads"]:
        until = "" if left_s is None else f", for {left_s} s more without a word of {kind}"
        click.echo(f"This controller ({us}) leads, term {answer['term']}{until}.")
    elif answer["trouble"]:
        click.echo(f"This controller ({us}) does not lead: {safe(answer['trouble'])}")
    else:
        click.echo(f"This controller ({us}) stands by.")
    rows = []
    for member in answer["members"]:
        role = "leads" if member["leads"] else "stands by"
        rows.append([member["name"], role, member["term"] or "", "this one" if member["this"] else ""])
    if rows:
        table(["CONTROLLER", "ROLE", "TERM", ""], rows)
    for line in answer["engine"]:
        click.echo(f"  {safe(line)}")
    for other in answer.get("controllers", ()):  # none in the answer of an older controller
        click.echo(f"  {safe(other['name'])}: {_sight(other)}")


def _sight(other: Json) -> str:
    """What another controller sees."""
    if other["trouble"]:
        return f"its sight is not known: {safe(other['trouble'])}"
    unfit = f"; it cannot tell what is silent: {safe('; '.join(other['why_unfit']))}" if other["why_unfit"] else ""
    return f"sees {other['hosts_alive']} hosts alive{', leads' if other['leads'] else ''}{unfit}"


def notifier_test(answer: Json) -> None:
    """Print `notify test`."""
    for row in answer:
        click.echo(f"{'✓' if row['ok'] else '✗'} {safe(row['name'])}: {safe(row['trouble']) or 'it went out'}")


def explain(answer: Json) -> None:
    """Print `explain`."""
    name, state = safe(answer["name"]), answer["state"].upper()
    click.echo(f"{name} is {state} for {lasted(answer['for_s'])}.\n")
    click.echo(f"Verdict      {answer['verdict']['kind']}: {safe(answer['verdict']['reason'])}")
    for line in answer["evidence"]:
        click.echo(f"             {safe(line)}")
    for index, guard in enumerate(answer["guards"]):
        mark = "✓" if guard["passes"] else "✗"
        click.echo(f"{'Guards' if index == 0 else '':<13}{mark} {guard['guard']}: {safe(guard['reason'])}")
    for index, device in enumerate(answer["fencing"]):
        mark = "✓" if device["ready"] else "✗"
        label = "Fencing" if index == 0 else ""
        age = device["checked_s_ago"]
        checked = "" if age is None else f" (checked {lasted(age)} ago)"
        click.echo(f"{label:<13}{mark} level {device['level']} {device['device']}: {safe(device['summary'])}{checked}")
    for index, condition in enumerate(answer.get("rejoin", ())):
        mark = "✓" if condition["passes"] else "✗"
        label = "Readmission" if index == 0 else ""
        click.echo(f"{label:<13}{mark} {condition['condition']}: {safe(condition['reason'])}")
    if answer["if_failed"]:
        click.echo(f"If it failed {safe(answer['if_failed'])}")
    for index, line in enumerate(answer["plan"]):
        click.echo(f"{'Plan' if index == 0 else '':<13}{safe(line)}")
    if answer["record"]:
        _explain_incident(answer["record"])


def decisions(answer: Json) -> None:
    """Print `explain --at`, `--incident` and `--last`, oldest first."""
    for index, line in enumerate(answer):
        data = line["data"]
        if index:
            click.echo("")
        because = f": {safe(data['because'])}" if data["because"] else ""
        click.echo(f"{clock(line['at'])}   {safe(data['what'])}{because}")
        parts = ("Evidence", "evidence"), ("Guards", "guards"), ("Plan", "plan"), ("Not used", "rejected")
        for label, rows in ((label, data.get(name, ())) for label, name in parts):
            for number, row in enumerate(rows):
                click.echo(f"  {label if number == 0 else '':<10} {safe(row)}")
        if data["next_step"]:
            click.echo(f"  {'Next':<10} {safe(data['next_step'])}")


def _explain_incident(record: Json) -> None:
    name = safe(record["host_name"])
    click.echo(f"\nIncident {record['id']}   opened {clock(record['opened_at'])}")
    for attempt in record["attempts"]:
        devices = ", ".join(attempt["devices"])
        click.echo(f"  attempt {attempt['number']}: {devices}: {attempt['outcome']}. {safe(attempt['detail'])}")
    for vm in record["vms"]:
        was = f"VM {vm['id']} {safe(vm['name'])} (was {safe(vm['was_label'])})"
        outage = "" if vm["outage_s"] is None else f"; down for {lasted(vm['outage_s'])}"
        click.echo(f"  {was}: {vm['stage']}. {safe(vm['reason'])}{outage}")
    for fault in record["order_faults"]:
        click.echo(f"Not followed {safe(fault)}")
    if blocked := record["stopped"] or record["hold"]:
        click.echo(f"Blocked      {safe(blocked)}")
    if record["state"] in ("suspect", "failed"):
        click.echo(f"If you have seen that it is off:   ha-controller confirm-off {name}")
        click.echo(f"To stop here:                      ha-controller hold {name}")


def incident(record: Json) -> None:
    """Print `incidents show`."""
    click.echo(f"{safe(record['host_name'])}: {record['verdict']}, now {record['state'].upper()}")
    took = [f"{name} {seconds:.1f} s" for name, seconds in record["phases_s"].items() if seconds is not None]
    if took:
        click.echo(f"  took: {', '.join(took)}")
    for line in record["evidence"]:
        click.echo(f"  {safe(line)}")
    _explain_incident(record)
    click.echo("\nTimeline")
    for line in record["timeline"]:
        event(line)


def trail(lines: Sequence[Json]) -> None:
    """Print lines of the trail."""
    for line in lines:
        event(line)


def event(line: Json) -> None:
    """Print one line of the trail."""
    where = f" incident {line['incident']}" if line["incident"] is not None else ""
    click.echo(f"{clock(line['at'])}  {line['kind']:<8}{where}  {safe(line['text'])}")


def doctor(answer: Json) -> None:
    """Print `doctor`."""
    marks = {True: "✓", False: "✗", None: "!"}
    for check in answer:
        click.echo(f"{marks[check['ok']]} {safe(check['text'])}")


def fencing_status(answer: Json) -> None:
    """Print `fencing status`: one verdict, then what there is to do."""
    able = answer["hosts"] - len(answer["cannot"])
    click.echo(
        f"{able} of {answer['hosts']} hosts can be powered off; {answer['ready']} of {answer['devices']} devices ready."
    )
    for key, what in (
        ("cannot", "cannot be powered off (see: ha-controller fencing list)"),
        ("asks", "wait for an approval, since nobody vouches for their devices"),
        ("never_on", "were never read on, so they prove nothing"),
        ("overdue", "have had no drill, or none lately (see: ha-controller drill schedule)"),
    ):
        if answer[key]:
            more = f" and {len(answer[key]) - 8} more" if len(answer[key]) > 8 else ""
            click.echo(f"{len(answer[key])} {what}: {safe(', '.join(answer[key][:8]))}{more}")


def plugin(answer: Json) -> None:
    """Print `plugins show`."""
    click.echo(f"{answer['kind']} ({answer['what']}): {safe(answer['summary'])}")
    if answer["capabilities"]:
        click.echo(f"can: {', '.join(answer['capabilities'])}")
    click.echo("")
    rows = [
        [row["name"], row["type"], "yes" if row["required"] else "", row["default"], row["text"]]
        for row in answer["settings"]
    ]
    table(["SETTING", "TYPE", "NEEDED", "DEFAULT", "MEANING"], rows)
    if answer.get("variants"):
        click.echo(f"\nvariants here: {', '.join(answer['variants'])}")
