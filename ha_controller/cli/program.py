"""The commands that are the program itself, like `serve` and `check-config`. They import what they need."""

from __future__ import annotations

from pathlib import Path

import click

from ha_controller import __version__
from ha_controller.cli import client, show
from ha_controller.cli.common import config_option
from ha_controller.cli.listing import Form, answer_options, listing_options
from ha_controller.cli.listings import PLUGINS


@click.command()
@config_option
def serve(config_path: Path) -> None:
    """Run the controller."""
    from ha_controller.app import serve as run

    client.finish(run(config_path))


@click.command("check-config")
@config_option
@click.option("--origin", is_flag=True, help="Show each value and where it comes from.")
def check_config(config_path: Path, origin: bool) -> None:
    """Check the configuration: syntax, keys, values, secrets, agents. All errors at once; exit code 78."""
    from ha_controller.app import check_config as run

    client.finish(run(config_path, origin=origin))


@click.group()
def plugins() -> None:
    """Fence agents and probe channels."""


@plugins.command("list")
@listing_options
def plugins_list(form: Form) -> None:
    """List what is installed, with version and origin."""
    from ha_controller.app import list_plugins

    rows = form.show(list_plugins, PLUGINS)
    client.finish(1 if any(row["error"] for row in rows) else 0)


@plugins.command("show")
@click.argument("kind")
@click.argument("variant", required=False)
@answer_options
def plugins_show(kind: str, variant: str | None, form: Form) -> None:
    """Show the settings of the agent or channel KIND, with defaults, and what it can do.

    Some kinds stand for many programs: name one of them as VARIANT, as in: plugins show fence-agents fence_apc_snmp
    """
    from ha_controller.app import show_plugin

    found = show_plugin(kind, variant)
    if found is None and variant is not None:
        raise client.Failure(3, f"{kind} knows no {variant} here. See: ha-controller plugins show {kind}")
    if found is None:
        raise client.Failure(3, f"There is no agent or channel {kind}. See: ha-controller plugins list")
    form.show(lambda: found, show.plugin)


@plugins.command("new")
@click.argument("name")
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where to write it."
)
def plugins_new(name: str, directory: Path) -> None:
    """Write a working skeleton of a fence agent NAME, with its conformance test."""
    from ha_controller.app import BadName, new_plugin

    try:
        written = new_plugin(name, directory)
    except BadName as error:
        raise client.Failure(2, f"{error}.") from None
    for path in written:
        click.echo(path)


@click.command()
@click.option("--hosts", type=click.IntRange(3, 60), default=6, show_default=True, help="Hosts of the cloud.")
@click.option("--vms-per-host", type=click.IntRange(1, 50), default=5, show_default=True, help="VMs on each.")
@click.option(
    "--fault",
    type=click.Choice(["power-loss", "cord-pulled", "hang", "partition", "bmc-dead"]),
    default="power-loss",
    show_default=True,
    help="How the host breaks.",
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the measured phases as JSON.")
@click.option("--netns", is_flag=True, help="As root: hosts are network namespaces with real ICMP and sshd.")
def demo(hosts: int, vms_per_host: int, fault: str, report: Path | None, netns: bool) -> None:
    """Break one host of an embedded cloud and watch its VMs come back. Touches nothing outside this machine."""
    from ha_controller.demo import run

    client.finish(run(hosts=hosts, vms_per_host=vms_per_host, fault=fault, report=report, namespaces=netns))


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"ha-controller {__version__}")
