"""An OpenNebula user for the controller, with no more rights than it needs: docs/opennebula-user.md.

The commands are OpenNebula's own. What is shown is what is run, word for word.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ha_controller.cli import client

COMMANDS_MAX_S = 120.0
#: what a user of ours needs in OpenNebula besides, by the text of the rule
RIGHTS = (
    ("HOST/* USE+MANAGE+ADMIN *", "USE: see the hosts. MANAGE: have VMs migrated to them. ADMIN: tell OpenNebula that "
     "one is off (OFFLINE, ENABLE, DISABLE), and write HA_STATE and maintenance on it"),
    ("VM/* USE+MANAGE+ADMIN *", "USE: see the VMs. MANAGE: resume, lock, write HA_LAST. ADMIN: migrate and recover. "
     "It includes to delete VMs, which is never done"),
    ("DATASTORE+CLUSTER+VMGROUP/* USE *", "see which disks are lost with a host, and which VMs belong apart"),
)  # fmt: skip
ZONE_RIGHT = ("ZONE/* USE+ADMIN *", 'see who leads the zone: `kind = "opennebula"` needs it, `doctor` tells with it')


def make_user(name: str, auth_file: Path, *, zone: bool, run: bool) -> None:
    """Print the commands, or run them.

    Raises:
        Failure: one of them failed, or there is a login already.
    """
    script = user_script(name, auth_file.absolute(), zone=zone)
    if not run:
        click.echo(script, nl=False)
        return
    if auth_file.exists():
        raise client.Failure(4, f"{auth_file} is there already. Nothing was done.")
    import subprocess

    try:
        done = subprocess.run(["/bin/sh"], input=script, text=True, check=False, timeout=COMMANDS_MAX_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise client.Failure(1, f"The commands did not end well: {error}") from None
    if done.returncode:
        raise client.Failure(1, "The commands stopped at the first that failed. See: oneuser list, oneacl list")
    click.echo(f"{name} may now do what the controller needs. Its login: {auth_file}", err=True)


def user_script(name: str, auth_file: Path, *, zone: bool) -> str:
    """The commands that make an OpenNebula user of our own; the password is in no process list."""
    rights = (*RIGHTS, ZONE_RIGHT) if zone else RIGHTS
    lines = [
        "# To be run as oneadmin, who may create users. The password is made here and shown nowhere.",
        "set -eu",
        "umask 077",
        "password=$(mktemp)",
        "trap 'rm -f \"$password\"' EXIT",
        "head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > \"$password\"",
        f'said=$(oneuser create {shlex.quote(name)} "$password" --read-file)',
        "id=${said#ID: }",
        'case "$id" in "" | *[!0-9]*) echo "$said" >&2; exit 1 ;; esac',
    ]
    for rule, reason in rights:
        lines += [f"# {reason}", f'oneacl create "#$id {rule}"']
    lines += [
        "# the login for opennebula.auth; the controller's own user must be able to read it, and nobody else",
        f'{{ printf %s: {shlex.quote(name)}; cat "$password"; }} > {shlex.quote(str(auth_file))}',
        "# Not in the group oneadmin it sees no hooks: when no failure hook is active (onehook list), write",
        '# second_master = "none" below [guard].',
    ]
    return "\n".join([*lines, ""])
