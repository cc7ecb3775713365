"""From OpenNebula's own failure hook to a configuration: what ft/host_error.rb and its fence_host.sh were told to do.

Asks OpenNebula for its hooks and hosts, and changes nothing there. A password in the script is never shown: only the
line where it stands. Facts about the hook: its source in OpenNebula 7.4 (share/hooks/ft).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import click
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client, OnedHook, OnedHost, OpenNebulaError
from ha_controller.app.surroundings import restarts_vms

HOOK = "host_error"
CYCLE_S = 60  #: the hook asks the wrong file for MONITORING_INTERVAL_HOST and takes this instead
CYCLES = 2
BMC_SECRET = "/etc/ha-controller/secrets/bmc"


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A configuration that does what the hook did, and what is different."""

    config: str
    differs: tuple[str, ...]
    to_do: tuple[str, ...]
    active: tuple[str, ...]  #: failure hooks that must be removed first: two masters are refused in mode auto


@dataclass(kw_only=True)
class _Notes:
    differs: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)


def translate(
    hooks: Sequence[OnedHook], hosts: Sequence[OnedHost], script: str | None, *, endpoint: str, auth_file: str
) -> Translation:
    """`script`: the text of fence_host.sh, or None when it cannot be read."""
    notes, stock = _Notes(), [hook for hook in hooks if restarts_vms(hook)]
    for hook in stock:
        _note_arguments(hook, notes)
    fence = _fence(hosts, script, notes)
    lines = [
        "# Made from OpenNebula's failure hook. It decides and tells, and switches nothing, before you change `mode`.",
        'mode = "observe"',
        "",
        "[opennebula]",
        f'endpoint = "{endpoint}"',
        f'auth = {{ file = "{auth_file}" }}',
        "",
        "[guard]",
        'self_check = ["192.0.2.1"]       # SET the gateway: when we cannot reach it, *we* are cut off',
        *fence,
        "",
    ]
    notes.to_do += [
        "Set guard.self_check to your gateway or switch.",
        "ha-controller check-config -c FILE, run it in mode observe, and look at: ha-controller doctor",
        "Before mode auto, remove the hook: two masters are refused.",
    ]
    active = tuple(f"{hook.name} (id {hook.id}): onehook delete {hook.id}" for hook in stock)
    return Translation(config="\n".join(lines), differs=tuple(notes.differs), to_do=tuple(notes.to_do), active=active)


def _note_arguments(hook: OnedHook, notes: _Notes) -> None:
    """What each switch meant, and what happens here. The switches of somebody else's hook mean something else."""
    if HOOK not in hook.command:
        notes.differs.append(f"{hook.name} ({hook.command}) is not OpenNebula's own: look at what it does.")
        return
    words = shlex.split(hook.arguments.replace("$TEMPLATE", ""), posix=False)
    pause = re.search(r"-p\s*(\d+)", hook.arguments)
    waited_s = CYCLE_S * (int(pause[1]) if pause else CYCLES)
    notes.differs.append(
        f"{hook.name} waits {waited_s} s after OpenNebula has seen the ERROR; here silence is seen in seconds, and "
        "must last detect.fail_after (10 s) on two kinds of evidence, or detect.single_domain_after (60 s) on one."
    )
    if "-r" in words or "--recreate" in words:
        notes.differs.append("-r made VMs anew and lost their disks; here they are moved with their disks.")
    if "-d" in words or "--delete" in words:
        notes.differs.append("-d deleted the VMs of the dead host; here no VM is ever deleted.")
    if "-u" in words or "--no-fencing" in words:
        notes.differs.append("-u moved VMs without fencing; here nothing is moved before its host is seen off.")
    if "-f" in words or "--force" in words:
        notes.differs.append("-f took suspended and powered-off VMs along; here they stay where they are.")
    notes.differs.append("The hook trusted the exit code of the fence script; here off is read back, twice.")


def _fence(hosts: Sequence[OnedHost], script: str | None, notes: _Notes) -> list[str]:
    """The fence device that the script used, as a table."""
    without = sorted(host.name for host in hosts if not host.template.get("FENCE_IP"))
    if len(without) == len(hosts):
        notes.to_do.append("No host has FENCE_IP: write a [[fence]] table; see ha-controller plugins list.")
        return []
    if without:
        notes.to_do.append(f"Without FENCE_IP, so they cannot be powered off: {', '.join(without[:10])}")
    found = _Script.read(script or "")
    if script is None:
        notes.to_do.append("fence_host.sh could not be read: agent and username below are a guess.")
    elif found.unedited:
        notes.differs.append("fence_host.sh still exits at its first line, so the hook has never fenced anybody.")
    if found.password_line:
        notes.to_do.append(
            f"Put the password from line {found.password_line} of fence_host.sh into {BMC_SECRET} (mode 600)."
        )
    else:
        notes.to_do.append(f"Put the password of the BMCs into {BMC_SECRET} (mode 600).")
    head = ["", "[[fence]]", 'name = "bmc"']
    tail = [
        f'username = "{found.username or "fencer"}"{"" if found.username else "             # SET"}',
        f'password = {{ file = "{BMC_SECRET}" }}',
    ]
    if found.agent in ("", "ipmilan", "ipmi", "ipmitool"):
        return [*head, 'agent = "ipmi"', 'address = "{FENCE_IP}"', *tail]
    if found.agent == "redfish":
        return [*head, 'agent = "redfish"', 'address = "{FENCE_IP}"', *tail]
    notes.differs.append(f"The script ran fence_{found.agent}; here the agent fence-agents runs it, and reads back.")
    return [
        *head,
        'agent = "fence-agents"',
        f'program = "fence_{found.agent}"',
        f'parameters = {{ ip = "{{FENCE_IP}}", username = "{found.username or "fencer"}" }}',
        f'secrets = {{ password = {{ file = "{BMC_SECRET}" }} }}',
    ]


@dataclass(frozen=True, kw_only=True)
class _Script:
    """What stands in fence_host.sh."""

    agent: str = ""  #: "ipmilan", "ilo5", ...: the part behind fence_
    username: str = ""
    password_line: int = 0
    unedited: bool = False

    @classmethod
    def read(cls, text: str) -> _Script:
        lines = [line.strip() for line in text.splitlines()]
        code = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
        agent = username = ""
        password_line = 0
        for number, line in code:
            if found := re.search(r"\bfence_(?!host)([a-z0-9_]+)", line):
                agent = agent or found[1]
            elif re.search(r"\bipmitool\b", line):
                agent = agent or "ipmitool"
            if found := re.match(r"(?:export\s+)?USER(?:NAME)?=[\"']?([\w.@-]+)[\"']?$", line):
                username = found[1]
            if re.match(r"(?:export\s+)?PASS(?:WORD)?=.+", line):
                password_line = number
        exits_first = next((line for _, line in code if not re.match(r"(\w+=|set )", line)), "").startswith("exit")
        return cls(agent=agent, username=username, password_line=password_line, unedited=exits_first)


# --- the command ------------------------------------------------------------------------------------------------------


def migrate_from_hook(*, endpoint: str, auth_file: Path, script: Path, write_to: Path | None, only_check: bool) -> int:
    """Print or write the configuration, tell what is different; returns the exit code of the command."""
    try:
        session = auth_file.read_text().strip()
        hooks, hosts = anyio.run(_read, endpoint, session)
    except (OSError, OpenNebulaError, ValueError) as error:
        click.echo(f"{auth_file if isinstance(error, OSError) else endpoint}: {error}", err=True)
        return 7
    active = [hook for hook in hooks if restarts_vms(hook)]
    if only_check:
        for hook in active:
            click.echo(f"! active: {hook.name} (id {hook.id}). Remove it: onehook delete {hook.id}", err=True)
        click.echo(f"{len(active)} failure hooks are active in OpenNebula.", err=True)
        return 4 if active else 0
    try:
        text = script.read_text(errors="replace")
    except OSError:
        text = None
    made = translate(hooks, hosts, text, endpoint=endpoint, auth_file=str(auth_file.resolve()))
    if write_to is None:
        click.echo(made.config)
    else:
        try:
            with write_to.open("x") as file:  # an operator's configuration is never overwritten
                file.write(made.config)
        except OSError as error:
            click.echo(f"{write_to}: {error.strerror}", err=True)
            return 1
    _tell(made, found=bool(active))
    return 0


def _tell(made: Translation, *, found: bool) -> None:
    if not found:
        click.echo("! No failure hook is active in OpenNebula (or this user may not see hooks).", err=True)
    for title, lines in (("Different", made.differs), ("To do", made.to_do), ("Still active", made.active)):
        if lines:
            click.echo(f"\n{title}:", err=True)
        for line in lines:
            click.echo(f"  - {line}", err=True)


async def _read(endpoint: str, session: str) -> tuple[list[OnedHook], list[OnedHost]]:
    async with Client(endpoint, SecretStr(session)) as client:
        return list(await client.hooks()), list(await client.hosts())
