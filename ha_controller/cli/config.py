"""`ha-controller config` and `reload`: the settings in force, and what a changed file would mean for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import reason_option
from ha_controller.cli.listing import Column, Form, Listing, answer_options, listing_options

Json = Any

DEFAULT = "default"


@click.group()
def config() -> None:
    """The configuration of the running controller; that of a file: check-config."""


def _value(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_text(rows: Sequence[Json]) -> None:
    for row in rows:
        click.echo(show.safe(f"{row['name']} = {_value(row['value'])}    # {row['origin']}"))


SETTINGS = Listing(
    rows=lambda answer: list(answer["values"]),
    columns=(
        Column(title="NAME", value=lambda row: row["name"]),
        Column(title="VALUE", value=lambda row: _value(row["value"])),
        Column(title="FROM", value=lambda row: row["origin"]),
    ),
    name=lambda row: row["name"],
    as_text=_as_text,
)


@config.command("show")
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@listing_options
def config_show(changed: bool, form: Form) -> None:
    """Show every setting that is in force, with the file and line, the variable, or "default" that it comes from.

    Secrets are masked.
    """

    def ask() -> Json:
        answer = client.request("GET", "/api/v1/config")
        values = [row for row in answer["values"] if not changed or row["origin"] != DEFAULT]
        return {**answer, "values": values}

    form.show(ask, SETTINGS)


@config.command("diff")
@answer_options
def config_diff(form: Form) -> None:
    """Tell what a reload would change, and what needs a restart. Exit code 0: nothing, 1: something, 78: it is bad."""
    answer = form.show(lambda: client.request("POST", "/api/v1/reload", {"dry_run": True}), _show_reload)
    client.finish(answer["code"] or (1 if answer["changes"] else 0))


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration, for editors; what plugins take is not in it: plugins show."""
    from ha_controller.config.schema import config_schema as made

    show.as_json(made())


@click.command()
@reason_option
@answer_options
def reload(reason: str, form: Form) -> None:
    """Check the configuration as a whole, then take over what may change without a restart. A bad one changes nothing.

    Exit code 1: something needs a restart, which is named; open incidents go on after it. Or it could not be put on
    record: nothing was taken over. 78: it is bad.
    """
    answer = form.show(lambda: client.request("POST", "/api/v1/reload", {"reason": reason}), _show_reload)
    client.finish(answer["code"])


def _show_reload(answer: Json) -> None:
    for problem in answer["problems"]:
        click.echo(show.safe(problem))
    for row in answer["changes"]:
        restart = "    (needs a restart)" if row["needs_restart"] else ""
        if row["before"] == row["after"]:  # both are masked
            click.echo(show.safe(f"{row['name']}: another secret{restart}"))
        else:
            click.echo(show.safe(f"{row['name']}: {_value(row['before'])} -> {_value(row['after'])}{restart}"))
    click.echo(show.safe(answer["text"]))
