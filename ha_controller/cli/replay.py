"""`simulate replay`: what would be decided now about the flight record of an incident."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from ha_controller.cli import client, show
from ha_controller.cli.listing import Form, answer_options

Json = client.Json

CONFIG_ERROR = 78


@click.command("replay")
@click.argument("record", metavar="FILE|INCIDENT")
@click.option("-c", "--config", "config_path", type=click.Path(path_type=Path), help="Another configuration.")
@answer_options
def replay(record: str, config_path: Path | None, form: Form) -> None:
    """What a configuration would have done with an incident: FILE is from `incidents export`, or say its number.

    Without --config it is decided anew with the settings that were in force: by this version, and to see that the
    record is whole. Nothing is powered off or moved.
    """
    from ha_controller.app import BadRecord
    from ha_controller.app import replay as run

    try:
        found = run(_lines(record), config_path)
    except BadRecord as error:
        raise client.Failure(1, f"{record}: {error}") from None
    if found is None:
        client.finish(CONFIG_ERROR)
    form.show(lambda: found, lambda answer: _show(answer, config_path))


def _lines(record: str) -> Iterable[str]:
    """The record's lines: of the file, else of the incident with this number."""
    path = Path(record)
    if record.isdigit() and not path.exists():
        return client.fetch("GET", f"/api/v1/incidents/{int(record)}/flight").splitlines()
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise client.Failure(1, f"{record}: this is no flight record, it is not text.") from None
    except OSError as error:
        raise client.Failure(3, f"{record}: {error.strerror}. Name a file, or the number of an incident.") from None


# --- as text ----------------------------------------------------------------------------------------------------------


def _show(answer: Json, config_path: Path | None) -> None:
    numbers = ", ".join(str(number) for number in answer["incidents"]) or "none"
    what = "Incident" if len(answer["incidents"]) == 1 else "Incidents"
    span = f"{show.clock(answer['begins_at'])} to {show.clock(answer['ends_at'])}"
    click.echo(f"{what} {numbers}, recorded from {span}; then: {show.safe(answer['end'])}.")
    whose = "the settings of then" if config_path is None else str(config_path)
    otherwise = [host["host"] for host in answer["hosts"] if not host["same_orders"]]
    if otherwise:
        click.echo(f"With {whose} other orders are given about: {show.safe(', '.join(otherwise))}.")
    elif answer["same"]:
        click.echo(f"With {whose} everything is decided as it was.")
    else:
        click.echo(f"With {whose} the same orders are given; on the way there some decisions differ.")
    for each in answer["settings"]:
        click.echo(f"  {each['name']}: {_value(each['then'])} then, {_value(each['now'])} now")
    click.echo("")
    rows = [[host["host"], _outcome(host["then"], None), _outcome(host["now"], host)] for host in answer["hosts"]]
    show.table(["HOST", "THEN", "NOW"], rows)
    for host in answer["hosts"]:
        _show_host(host)
    if answer["notes"]:
        click.echo("")
    for note in answer["notes"]:
        click.echo(f"Note: {show.safe(note)}")


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else show.safe(value) or "nothing"


def _outcome(outcome: Json, host: Json | None) -> str:
    """In a few words; `host`: for what is decided now, to compare it with then."""
    if not outcome["ordered_off"]:
        by_then = f" by {_time(outcome['at'])}" if host is not None and host["cannot_tell_from"] is not None else ""
        why = outcome["why"]
        return f"not powered off{by_then}: {why[:70]}{'...' if len(why) > 70 else ''}"
    when = f"ordered off at {_time(outcome['at'])}"
    if host is None or not host["then"]["ordered_off"]:
        return when
    later_s = outcome["at"] - host["then"]["at"]
    return when if abs(later_s) < 0.05 else f"{when}, {abs(later_s):.1f} s {'later' if later_s > 0 else 'earlier'}"


def _show_host(host: Json) -> None:
    """Its decisions in the order of time; what is the same then and now stands once."""
    name = show.safe(host["host"])
    click.echo(f"\n{name}")
    cannot_tell_from, last = host["cannot_tell_from"], ""
    for line in host["lines"]:
        if cannot_tell_from is not None and line["at"] > cannot_tell_from:
            _show_parting(host, last)
            cannot_tell_from = None
        last = last if line["who"] == "then" else line["text"]
        click.echo(f"  {_time(line['at'])}  {line['who']:<4}  {show.safe(line['text'])}")
        for said_no in line["said_no"]:
            click.echo(f"  {'':<10}        {show.safe(said_no)}")
    if cannot_tell_from is not None:
        _show_parting(host, last)


def _show_parting(host: Json, last: str) -> None:
    """`last`: what was decided last now; it is not said twice."""
    name, at = show.safe(host["host"]), _time(host["cannot_tell_from"])
    if not host["now"]["ordered_off"] and host["now"]["why"] not in last:
        click.echo(f"  {at}  now   nothing is done yet: {show.safe(host['now']['why'])}")
    why = show.safe(host["cannot_tell_why"])
    click.echo(f"  {at}  From here on the record cannot tell about {name}: {why}.")


def _time(at: float) -> str:
    """The time of day with tenths: local on a terminal, UTC elsewhere; the day stands above."""
    moment = datetime.fromtimestamp(at).astimezone()
    moment = moment if sys.stdout.isatty() else moment.astimezone(UTC)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 100_000}"
