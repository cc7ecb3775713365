"""`ha-controller init`: a first configuration, and an OpenNebula user for the controller."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ha_controller.cli import client
from ha_controller.cli.common import DEFAULT_CONFIG
from ha_controller.cli.opennebula_user import make_user

SECRETS = "/etc/ha-controller/secrets"
ONEADMINS = "/var/lib/one/.one/one_auth"


@click.command()
@click.option("--endpoint", envvar="ONE_XMLRPC", help="OpenNebula's XML-RPC. [default: http://127.0.0.1:2633/RPC2]")
@click.option(
    "--auth", "auth_file", envvar="ONE_AUTH", type=click.Path(path_type=Path), help="File with user:password."
)
@click.option("--self-check", "witnesses", multiple=True, help="Address that answers as long as we are connected.")
@click.option("--agent", type=click.Choice(["ipmi", "redfish", "none"]), help="How hosts are powered off.")
@click.option("--address", help="Of a host's BMC, like {FENCE_IP}: the attribute that has it.")
@click.option("--username", help="Of the BMCs.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File with the BMCs' password.")
@click.option(
    "-o", "--write", "write_to", type=click.Path(path_type=Path), help=f"[default: {DEFAULT_CONFIG}]; - prints it."
)
@click.option("--defaults", is_flag=True, help="Ask nothing: what is not given has its default.")
@click.option(
    "--create-user", metavar="NAME", help="Print the commands that make NAME in OpenNebula, and nothing else."
)
@click.option("--zone", is_flag=True, help="With --create-user: also what the arbiter opennebula needs.")
@click.option("--run", is_flag=True, help="With --create-user: run these commands, as oneadmin.")
def init(create_user: str | None, zone: bool, run: bool, auth_file: Path | None, **given: Any) -> None:
    """Ask six questions, read the hosts from OpenNebula, and write a first configuration in mode observe.

    Without a terminal, or with --defaults, nothing is asked. A file that is there is never written over.
    """
    if create_user is not None:
        make_user(create_user, auth_file or Path(SECRETS, "one_auth"), zone=zone, run=run)
        return
    if zone or run:
        raise client.Failure(2, "--zone and --run go with --create-user.")
    _init(auth_file=auth_file, asking=not given.pop("defaults") and sys.stdin.isatty(), **given)


def _init(
    *, asking: bool, endpoint: str | None, auth_file: Path | None, witnesses: tuple[str, ...], agent: str | None,
    address: str | None, username: str | None, password_file: Path | None, write_to: Path | None,
) -> None:  # fmt: skip
    from ha_controller.app.first_config import Answers, NotRead, default_gateway, first_config, read_site

    ask = _Questions(asking)
    endpoint = ask.text("OpenNebula's XML-RPC", endpoint, "http://127.0.0.1:2633/RPC2")
    auth_file = Path(ask.text("File with its user:password", auth_file, _login_file())).absolute()
    try:
        site = read_site(endpoint, auth_file)
    except NotRead as error:
        raise client.Failure(client.NO_CONTROLLER, f"{error}. Nothing was written.") from None
    for line in site.told():
        click.echo(f"  {line}", err=True)
    if not witnesses:
        said = ask.text("Gateway or switch: when it does not answer, we are cut off", None, default_gateway())
        witnesses = tuple(said.replace(",", " ").split())
    found = site.address_attribute
    agent = ask.text("How hosts are powered off (ipmi, redfish, none)", agent, "ipmi" if found else "none")
    if agent not in ("ipmi", "redfish", "none"):
        raise client.Failure(2, f"{agent} is none of ipmi, redfish, none. Others: ha-controller plugins list")
    if agent != "none":
        username = ask.text("User name of the BMCs", username, "fencer")
        password_file = Path(ask.text("File with their password", password_file, f"{SECRETS}/bmc")).absolute()
    answers = Answers(
        endpoint=endpoint,
        auth_file=auth_file,
        witnesses=witnesses,
        agent=agent,
        address=address or f"{{{found or 'FENCE_IP'}}}",
        username=username or "",
        password_file=password_file or Path(SECRETS, "bmc"),
    )
    _write(Path(ask.text("Where to write the configuration", write_to, DEFAULT_CONFIG)), first_config(site, answers))


def _login_file() -> str:
    own = Path(SECRETS, "one_auth")
    return str(own if own.exists() else ONEADMINS)


def _write(path: Path, text: str) -> None:
    """Write it, and say at once what is wrong with it: above all, secrets that are not there yet."""
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:  # an operator's configuration is never overwritten
            file.write(text)
    except OSError as error:
        raise client.Failure(1, f"{path}: {error.strerror}. Nothing was written.") from None
    click.echo(f"Written: {path}. It decides and tells, and switches nothing, before you change `mode`.", err=True)
    from ha_controller.app import check_config

    code = check_config(path, origin=False)
    if code == 0:
        click.echo("Next: ha-controller serve, and then: ha-controller doctor", err=True)
    client.finish(code)


class _Questions:
    """Asks what was not given, or takes the default."""

    def __init__(self, asking: bool) -> None:
        self._asking = asking

    def text(self, question: str, given: object, default: str) -> str:
        if given:
            return str(given)
        return str(click.prompt(question, default=default, err=True)) if self._asking else default
