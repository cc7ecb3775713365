"""The commands. Each says what it does in one line; heavy imports happen inside the command that needs them.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 refused for safety, 5 waits for a person, 6 still
running, 7 controller or OpenNebula not reachable, 8 not allowed, 9 not the leader, 78 configuration error,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from ha_controller import __version__
from ha_controller.cli import client, show
from ha_controller.cli.audit import audit
from ha_controller.cli.common import (
    order,
    output_option,
    patient_order,
    query,
    reason_option,
    show_answer,
    type_the_name,
    yes_option,
)
from ha_controller.cli.drill import drill
from ha_controller.cli.fencing import fencing
from ha_controller.cli.hook import migrate_from_hook
from ha_controller.cli.leader import leader
from ha_controller.cli.maintenance import maintenance
from ha_controller.cli.notify import notify
from ha_controller.cli.replay import export
from ha_controller.cli.simulate import simulate

CONFIG_ERROR = 78
DEFAULT_CONFIG = "/etc/ha-controller/config.toml"

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
        click.echo(show.safe(failure.text), err=True)
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


# --- looking ----------------------------------------------------------------------------------------------------------


@commands.command()
@output_option
def status(output: str) -> None:
    """One verdict, who leads, what is going on. The exit code tells: 0 well, 1 degraded, 4 guarded, 5 waits for you."""
    answer = client.request("GET", "/api/v1/status")
    show_answer(answer, output, show.status)
    client.finish(answer["code"])


@commands.command()
@output_option
def hosts(output: str) -> None:
    """List the hosts; the ones that are not OK come first."""
    show_answer(client.request("GET", "/api/v1/hosts"), output, show.hosts)


@commands.command()
@click.argument("host")
@click.option("--at", metavar="TIME", help='What was decided last before this time, like "2026-11-26 03:10".')
@click.option("--incident", type=int, help="All decisions of this incident.")
@click.option("-n", "--last", type=click.IntRange(1, 100), help="The last so many decisions.")
@output_option
def explain(host: str, at: str | None, incident: int | None, last: int | None, output: str) -> None:
    """Why HOST is in its state, and what comes next; or why something was done, or was not, back then."""
    from urllib.parse import quote

    if at is None and incident is None and last is None:
        show_answer(client.request("GET", f"/api/v1/hosts/{quote(host, safe='')}/explain"), output, show.explain)
        return
    limit = last or (1 if incident is None else 1000)
    before = None if at is None else _moment(at)
    wanted = query(host=host, incident=incident, kind="decision", before=before, limit=limit)
    lines = client.request("GET", f"/api/v1/events?{wanted}&newest=1")
    if not lines and output == "table":
        raise client.Failure(3, f"No decision about {host} is on record for that.")
    show_answer(lines, output, show.decisions)


def _moment(text: str) -> float:
    """Seconds since 1970 of what a person typed, in local time unless it says otherwise."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).astimezone().timestamp()
    except ValueError:
        raise client.Failure(2, f'--at {text}: not a time. Write it like "2026-11-26 03:10"') from None


@commands.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing as lines are written.")
@click.option("--host", help="Of this host only.")
@click.option("--incident", type=int, help="Of this incident only.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@output_option
def events(follow: bool, host: str | None, incident: int | None, limit: int, output: str) -> None:
    """The trail: what was decided, ordered, reported, told."""
    wanted = query(host=host, incident=incident, limit=limit)
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


@commands.group(invoke_without_command=True)
@output_option
@click.pass_context
def incidents(context: click.Context, output: str) -> None:
    """List the incidents: one failure of one host each."""
    if context.invoked_subcommand is None:
        show_answer(client.request("GET", "/api/v1/incidents"), output, show.incidents)


@incidents.command("show")
@click.argument("number", type=int)
@output_option
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
@output_option
def doctor(output: str) -> None:
    """Live checks: OpenNebula and our rights there, second masters, channels, fence devices, oned's ssh."""
    answer = client.request("GET", "/api/v1/doctor")
    show_answer(answer, output, show.doctor)
    client.finish(1 if any(check["ok"] is False for check in answer) else 0)


# --- deciding ---------------------------------------------------------------------------------------------------------


@commands.group()
def pending() -> None:
    """Decisions that wait for a person."""


@pending.command("list")
@output_option
def pending_list(output: str) -> None:
    """List them; exit code 5 if there are any."""
    answer = client.request("GET", "/api/v1/pending")
    show_answer(answer, output, show.pending)
    client.finish(5 if answer else 0)


@pending.command("approve")
@click.argument("incident", type=int)
@reason_option
def pending_approve(incident: int, reason: str) -> None:
    """Say yes to what INCIDENT asks: power off a silent host, or start VMs before others are ready."""
    order("approve", incident=incident, reason=reason)


@pending.command("reject")
@click.argument("incident", type=int)
@reason_option
def pending_reject(incident: int, reason: str) -> None:
    """Do not power off the host of INCIDENT."""
    order("reject", incident=incident, reason=reason)


@commands.command("confirm-off")
@click.argument("host")
@reason_option
@yes_option
def confirm_off(host: str, reason: str, yes: bool) -> None:
    """Say that you have SEEN that HOST is off; its VMs are started elsewhere."""
    type_the_name(host, yes, "If it still runs, its VMs will run twice and destroy their disks.")
    order("confirm-off", host=host, reason=reason)


@commands.command()
@click.argument("host")
@reason_option
@yes_option
@click.option(
    "--force", is_flag=True, help="You have rebooted it, looked at it, and lifted what keeps it from its storage."
)
@click.option("--repaired", is_flag=True, help="What made it fail again and again is repaired: end its quarantine.")
def unfence(host: str, reason: str, yes: bool, force: bool, repaired: bool) -> None:
    """Give HOST back to OpenNebula once it answers again."""
    type_the_name(host, yes, "It will be used for VMs again.")
    order("unfence", host=host, reason=reason, force=force, repaired=repaired)


@commands.command()
@click.argument("host")
@reason_option
def hold(host: str, reason: str) -> None:
    """Stop the incident of HOST: no further power-off, no further move."""
    order("hold", host=host, reason=reason)


@commands.command()
@click.argument("host")
@reason_option
def release(host: str, reason: str) -> None:
    """Take up the incident of HOST again."""
    order("release", host=host, reason=reason)


@commands.command()
@click.option("--reason", required=True, help="Why; goes into the trail.")
def pause(reason: str) -> None:
    """No power-off and no move anywhere; probing goes on."""
    order("pause", reason=reason)


@commands.command()
@reason_option
def resume(reason: str) -> None:
    """End `pause`."""
    order("resume", reason=reason)


@commands.command()
@click.argument("host")
@click.option("--reason", required=True, help="Why; goes into the trail.")
@yes_option
def fence(host: str, reason: str, yes: bool) -> None:
    """Power a silent HOST off now, without waiting for the verdict. Refused while it shows life."""
    type_the_name(host, yes, "It is powered off, hard, and its VMs are started elsewhere.")
    patient_order("fence", host=host, reason=reason)


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
@output_option
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


@plugins.command("show")
@click.argument("kind")
@click.argument("variant", required=False)
@output_option
def plugins_show(kind: str, variant: str | None, output: str) -> None:
    """Show the settings of the agent or channel KIND, with defaults, and what it can do.

    Some kinds stand for many programs: name one of them as VARIANT, as in: plugins show fence-agents fence_apc_snmp
    """
    from ha_controller.app import show_plugin

    found = show_plugin(kind, variant)
    if found is None and variant is not None:
        raise client.Failure(3, f"{kind} knows no {variant} here. See: ha-controller plugins show {kind}")
    if found is None:
        raise client.Failure(3, f"There is no agent or channel {kind}. See: ha-controller plugins list")
    show_answer(found, output, show.plugin)


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


commands.add_command(audit)
commands.add_command(fencing)
commands.add_command(drill)
commands.add_command(maintenance)
commands.add_command(migrate_from_hook)
commands.add_command(simulate)
incidents.add_command(export)
commands.add_command(leader)
commands.add_command(notify)
