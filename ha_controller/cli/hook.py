"""`ha-controller migrate-from-hook`: from OpenNebula's own failure hook to a configuration."""

from __future__ import annotations

from pathlib import Path

import click

from ha_controller.cli import client


@click.command("migrate-from-hook")
@click.option("--endpoint", envvar="ONE_XMLRPC", default="http://127.0.0.1:2633/RPC2", show_default=True)
@click.option(
    "--auth",
    "auth_file",
    envvar="ONE_AUTH",
    type=click.Path(path_type=Path),
    default="/var/lib/one/.one/one_auth",
    show_default=True,
    help="user:password of an OpenNebula administrator.",
)
@click.option(
    "--script",
    type=click.Path(path_type=Path),
    default="/var/lib/one/remotes/hooks/ft/fence_host.sh",
    show_default=True,
    help="How the hook fences.",
)
@click.option("-o", "--write", "write_to", type=click.Path(path_type=Path), help="Write it there; never over a file.")
@click.option("--check", "only_check", is_flag=True, help="Only look whether failure hooks are active: 0 none, 4 some.")
def migrate_from_hook(endpoint: str, auth_file: Path, script: Path, write_to: Path | None, only_check: bool) -> None:
    """Make a configuration from OpenNebula's failure hook (host_error.rb). Tells what is different; changes nothing."""
    from ha_controller.app import migrate_from_hook as run

    code = run(endpoint=endpoint, auth_file=auth_file, script=script, write_to=write_to, only_check=only_check)
    client.finish(code)
