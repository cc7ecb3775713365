"""`ha-controller token`: what programs come in with over TCP."""

from __future__ import annotations

import click

from ha_controller.cli import client, show
from ha_controller.cli.common import seconds_of
from ha_controller.cli.listing import Column, Form, Listing, listing_options

Json = client.Json


@click.group()
def token() -> None:
    """Tokens for programs that use the API over TCP (docs/api.md)."""


@token.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="viewer", show_default=True)
@click.option("--for", "lasts", metavar="DURATION", help='Expires by itself, like "90d"; without it: never.')
def token_create(name: str, role: str, lasts: str | None) -> None:
    """Make a token NAME and print it. It is shown this once: only its hash is kept."""
    for_s = seconds_of("--for", lasts)
    answer = client.request("POST", "/api/v1/tokens", {"name": name, "role": role, "for_s": for_s})
    click.echo(show.safe(answer["token"]))


def _expires(row: Json) -> str:
    return "expired" if row["expired"] else "never" if row["expires_at"] is None else show.clock(row["expires_at"])


TOKENS = Listing(
    columns=(
        Column(title="TOKEN", value=lambda row: row["name"]),
        Column(title="ROLE", value=lambda row: row["role"]),
        Column(title="MADE AT", value=lambda row: show.clock(row["created_at"])),
        Column(title="MADE BY", value=lambda row: row["created_by"]),
        Column(title="EXPIRES", value=_expires),
    ),
    name=lambda row: row["name"],
    empty="There is no token.",
)


@token.command("list")
@listing_options
def token_list(form: Form) -> None:
    """List the tokens: who made them, what they may do, when they expire."""
    form.show(lambda: client.request("GET", "/api/v1/tokens"), TOKENS)


@token.command("revoke")
@click.argument("name")
def token_revoke(name: str) -> None:
    """Let nobody use the token NAME any more, from now on."""
    from urllib.parse import quote

    client.fetch("DELETE", f"/api/v1/tokens/{quote(name, safe='')}")
    click.echo(f"Revoked: {show.safe(name)}", err=True)
