"""The command line. Each command is imported when it is called, and with it what it needs: see `deferred`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 refused for safety, 5 waits for a person, 6 still
running, 7 controller or OpenNebula not reachable, 8 not allowed, 9 not the leader, 78 configuration error,
130 interrupted.
"""

from __future__ import annotations

import os
import sys

import click

from ha_controller.cli import client
from ha_controller.cli.deferred import DeferredGroup

#: name -> where it is in this package, and what `--help` says of it: the first sentence of its own help
COMMANDS = {
    "audit": (
        "audit:audit",
        "The audit trail: who did what, from where, why, and what came of it; nothing in it can be changed unseen.",
    ),
    "backup": ("backup:backup", "Copy the journal (incidents, trail, drills) to FILE, also while the controller runs."),
    "check-config": ("program:check_config", "Check the configuration: syntax, keys, values, secrets, agents."),
    "completion": (
        "completion:completion",
        "Print the script that makes SHELL complete this program; "
        "hosts and incidents as the running controller has them.",
    ),
    "config": ("config:config", "The configuration of the running controller; that of a file: check-config."),
    "confirm-off": ("decide:confirm_off", "Say that you have SEEN that HOST is off; its VMs are started elsewhere."),
    "demo": ("program:demo", "Break one host of an embedded cloud and watch its VMs come back."),
    "doctor": (
        "look:doctor",
        "Live checks: OpenNebula and our rights there, second masters, channels, fence devices, oned's ssh.",
    ),
    "drill": ("drill:drill", "Drills: when each fence device is due, and how they went."),
    "events": ("trail:events", "The trail: what was decided, ordered, reported, told."),
    "explain": (
        "explain:explain",
        "Why HOST is in its state, and what comes next; or why something was done, or was not, back then.",
    ),
    "fence": ("decide:fence", "Power a silent HOST off now, without waiting for the verdict."),
    "fencing": ("fencing:fencing", "Fence devices: whose they are, whether they work, what they did."),
    "hold": ("decide:hold", "Stop the incidents of HOSTs: no further power-off, no further move."),
    "hosts": ("look:hosts", "List the hosts, or HOSTs alone; the ones that are not OK come first."),
    "incidents": ("look:incidents", "List the incidents: one failure of one host each."),
    "init": (
        "init:init",
        "Ask six questions, read the hosts from OpenNebula, and write a first configuration in mode observe.",
    ),
    "leader": ("leader:leader", "Which controller leads; only that one powers off and moves."),
    "maintenance": ("maintenance:maintenance", "Hosts that people work on: never powered off, no VM of them is moved."),
    "migrate-from-hook": (
        "hook:migrate_from_hook",
        "Make a configuration from OpenNebula's failure hook (host_error.rb).",
    ),
    "notify": ("notify:notify", "Ways to reach people: the log, and each [[notify]] of the configuration."),
    "pause": ("decide:pause", "No power-off and no move anywhere; probing goes on."),
    "pending": ("decide:pending", "Decisions that wait for a person."),
    "plugins": ("program:plugins", "Fence agents and probe channels."),
    "release": ("decide:release", "Take up the incidents of HOSTs again."),
    "reload": (
        "config:reload",
        "Check the configuration as a whole, then take over what may change without a restart.",
    ),
    "restore": (
        "backup:restore",
        "Put FILE, from `backup`, in the journal's place; exit code 4 while a controller runs.",
    ),
    "resume": ("decide:resume", "End `pause`."),
    "serve": ("program:serve", "Run the controller."),
    "simulate": ("simulate:simulate", "What would happen."),
    "status": ("look:status", "One verdict, who leads, what is going on."),
    "support-bundle": (
        "support_bundle:support_bundle",
        "Collect what the controller says, its configuration, log and versions in FILE (tar.gz).",
    ),
    "token": ("token:token", "Tokens for programs that use the API over TCP (docs/api.md)."),
    "top": ("top:top", "Live board: the verdict, the hosts, open incidents and the newest lines of the trail."),
    "unfence": ("decide:unfence", "Give HOSTs back to OpenNebula once they answer again."),
    "version": ("program:version", "Print the version."),
    "vms": (
        "vms:vms",
        "List the VMs of HOSTS, or all: would each run again if its host failed alone, where, and why not.",
    ),
}


@click.group(
    cls=DeferredGroup,
    table={name: (f"ha_controller.cli.{place}", summary) for name, (place, summary) in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--socket", envvar="HA_SOCKET", help=f"The controller's socket. [default: {client.DEFAULT_SOCKET}]")
def commands(socket: str | None) -> None:
    """High availability for OpenNebula: powers dead hosts off, verifies it, and starts their VMs elsewhere."""
    del socket


def main() -> None:
    """Run the command line; never shows a traceback for something that an operator can mend."""
    try:
        commands(standalone_mode=False, prog_name="ha-controller")
    except client.Failure as failure:
        from ha_controller.showable import safe

        click.echo(safe(failure.text), err=True)
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
