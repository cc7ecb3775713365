"""The commands. Each says what it does in one line; heavy imports happen inside the command that needs them.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 refused for safety, 5 waits for a person, 6 still
running, 7 controller or OpenNebula not reachable, 8 not allowed, 78 configuration error, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ha_controller import __version__
from ha_controller.cli import client, show

CONFIG_ERROR = 78
DEFAULT_CONFIG = "/etc/ha-controller/config.toml"

_output = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print.")
_reason = click.option("--reason", default="", help="Why; goes into the trail.")
_yes = click.option("--yes", is_flag=True, help="Do not ask for the host's name.")
_config = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    envvar="HA_CONFIG",
    show_default=True,
    help="The configuration file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--socket", envvar="HA_SOCKET", help=f"The controller's socket. [default: {client.DEFAULT_SOCKET}]")
def commands(socket: str | None) -> None:
    """High availability for OpenNebula: powers dead hosts off, verifies it, and starts their VMs elsewhere."""
    del socket


def main() -> None:
    """Run the command line; never shows a traceback for something that an operator can mend."""
    try:
        commands(standalone_mode=False, prog_name="ha-controller")
    except client.Failure as failure:
        click.echo(failure.text, err=True)
        sys.exit(failure.code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _show(answer: Any, output: str, as_text: Callable[[Any], None]) -> None:
    (show.as_json if output == "json" else as_text)(answer)


# --- looking ----------------------------------------------------------------------------------------------------------


@commands.command()
@_output
def status(output: str) -> None:
    """One verdict, who leads, what is going on. The exit code tells: 0 well, 1 degraded, 4 guarded, 5 waits for you."""
    answer = client.request("GET", "/api/v1/status")
    _show(answer, output, show.status)
    client.finish(answer["code"])


@commands.command()
@_output
def hosts(output: str) -> None:
    """List the hosts; the ones that are not OK come first."""
    _show(client.request("GET", "/api/v1/hosts"), output, show.hosts)


@commands.command()
@click.argument("host")
@_output
def explain(host: str, output: str) -> None:
    """Why HOST is in its state, what blocks it, what comes next."""
    from urllib.parse import quote

    _show(client.request("GET", f"/api/v1/hosts/{quote(host, safe='')}/explain"), output, show.explain)


@commands.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing as lines are written.")
@click.option("--host", help="Of this host only.")
@click.option("--incident", type=int, help="Of this incident only.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@_output
def events(follow: bool, host: str | None, incident: int | None, limit: int, output: str) -> None:
    """The trail: what was decided, ordered, reported, told."""
    wanted = _query(host=host, incident=incident, limit=limit)
    lines = client.request("GET", f"/api/v1/events?{wanted}&newest=1")
    if output == "json" and not follow:
        show.as_json(lines)
        return
    last = 0
    while True:
        for line in lines:
            (show.as_json if output == "json" else show.event)(line)
            last = max(last, line["id"])
        if not follow:
            return
        time.sleep(0.5)
        lines = client.request("GET", f"/api/v1/events?{wanted}&after={last}")


def _query(**values: object) -> str:
    from urllib.parse import urlencode

    return urlencode({name: value for name, value in values.items() if value is not None})


@commands.group(invoke_without_command=True)
@_output
@click.pass_context
def incidents(context: click.Context, output: str) -> None:
    """List the incidents: one failure of one host each."""
    if context.invoked_subcommand is None:
        _show(client.request("GET", "/api/v1/incidents"), output, show.incidents)


@incidents.command("show")
@click.argument("number", type=int)
@_output
def incidents_show(number: int, output: str) -> None:
    """Everything on record of one incident, with its timeline."""
    found = [each for each in client.request("GET", "/api/v1/incidents") if each["id"] == number]
    if not found:
        raise client.Failure(3, f"There is no incident {number}.")
    lines = client.request("GET", f"/api/v1/events?incident={number}&limit=1000")
    if output == "json":
        show.as_json({**found[0], "timeline": lines})
    else:
        show.incident(found[0], lines)


@commands.command()
@_output
def doctor(output: str) -> None:
    """Live checks: OpenNebula and our rights there, second masters, channels, fence devices, oned's ssh."""
    answer = client.request("GET", "/api/v1/doctor")
    _show(answer, output, show.doctor)
    client.finish(1 if any(check["ok"] is False for check in answer) else 0)


# --- deciding ---------------------------------------------------------------------------------------------------------


def _order(verb: str, **keys: object) -> None:
    answer = client.request("POST", "/api/v1/commands", {"verb": verb, **keys})
    click.echo(answer["text"], err=True)


@commands.group()
def pending() -> None:
    """Decisions that wait for a person."""


@pending.command("list")
@_output
def pending_list(output: str) -> None:
    """List them; exit code 5 if there are any."""
    answer = client.request("GET", "/api/v1/pending")
    _show(answer, output, show.pending)
    client.finish(5 if answer else 0)


@pending.command("approve")
@click.argument("incident", type=int)
@_reason
def pending_approve(incident: int, reason: str) -> None:
    """Have the host of INCIDENT powered off, if it is still silent."""
    _order("approve", incident=incident, reason=reason)


@pending.command("reject")
@click.argument("incident", type=int)
@_reason
def pending_reject(incident: int, reason: str) -> None:
    """Do not power off the host of INCIDENT."""
    _order("reject", incident=incident, reason=reason)


@commands.command("confirm-off")
@click.argument("host")
@_reason
@_yes
def confirm_off(host: str, reason: str, yes: bool) -> None:
    """Say that you have SEEN that HOST is off; its VMs are started elsewhere."""
    _type_the_name(host, yes, "If it still runs, its VMs will run twice and destroy their disks.")
    _order("confirm-off", host=host, reason=reason)


@commands.command()
@click.argument("host")
@_reason
@_yes
def unfence(host: str, reason: str, yes: bool) -> None:
    """Give HOST back to OpenNebula once it answers again."""
    _type_the_name(host, yes, "It will be used for VMs again.")
    _order("unfence", host=host, reason=reason)


def _type_the_name(host: str, yes: bool, warning: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise client.Failure(2, "Without a terminal this needs --yes.")
    click.echo(warning, err=True)
    if click.prompt(f"Type the host's name ({host}) to go on", err=True) != host:
        raise client.Failure(2, "That is not its name; nothing was done.")


@commands.command()
@click.argument("host")
@_reason
def hold(host: str, reason: str) -> None:
    """Stop the incident of HOST: no further power-off, no further move."""
    _order("hold", host=host, reason=reason)


@commands.command()
@click.argument("host")
@_reason
def release(host: str, reason: str) -> None:
    """Take up the incident of HOST again."""
    _order("release", host=host, reason=reason)


@commands.command()
@click.option("--reason", required=True, help="Why; goes into the trail.")
def pause(reason: str) -> None:
    """No power-off and no move anywhere; probing goes on."""
    _order("pause", reason=reason)


@commands.command()
@_reason
def resume(reason: str) -> None:
    """End `pause`."""
    _order("resume", reason=reason)


# --- running ----------------------------------------------------------------------------------------------------------


@commands.command()
@_config
def serve(config_path: Path) -> None:
    """Run the controller."""
    from ha_controller.app import serve as run

    client.finish(run(config_path))


@commands.command("check-config")
@_config
@click.option("--origin", is_flag=True, help="Show each value and where it comes from.")
def check_config(config_path: Path, origin: bool) -> None:
    """Check the configuration: syntax, keys, values, secrets, agents. All errors at once; exit code 78."""
    from ha_controller.app import check_config as run

    client.finish(run(config_path, origin=origin))


@commands.group()
def plugins() -> None:
    """Fence agents and probe channels."""


@plugins.command("list")
@_output
def plugins_list(output: str) -> None:
    """List what is installed, with version and origin."""
    from ha_controller.app import list_plugins

    rows = list_plugins()
    if output == "json":
        show.as_json(rows)
    else:
        table = [
            [row["name"], ", ".join(row["kinds"]), row["distribution"], row["version"], row["error"]] for row in rows
        ]
        show.table(["PLUGIN", "KINDS", "DISTRIBUTION", "VERSION", "ERROR"], table)
    client.finish(1 if any(row["error"] for row in rows) else 0)


@commands.command()
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


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(f"ha-controller {__version__}")
