"""Walks along the pages: each way to install, as a new user goes it, with the commands that stand on the pages.

What is not on a page is what a person does there: fill in what is marked SET, and look. The cloud is the embedded one,
in the network of the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from ha_controller import __version__
from tests.ship.machine import (
    KEPT,
    ROOT,
    Cloud,
    Machine,
    TryFailed,
    cloud,
    eventually,
    machine,
    main,
    put_checkout,
    say,
)
from tests.ship.pages import Block, commands, fence, table

CHECKOUT = "/root/ha-controller"
FIRST_HOUR, UPGRADE, ANSIBLE = "docs/first-hour.md", "docs/upgrade.md", "docs/ansible.md"
RENEWAL, CONTAINER = "docs/renewal.md", "docs/container.md"
KEPT_DEB = KEPT / "walk.deb"
DEB = f"dist/ha-controller_{__version__}_amd64.deb"
ENTERED = "docker compose -f packaging/container/compose.yaml exec ha-controller"
HEALTHCHECK = "/opt/ha-controller/bin/python /opt/ha-controller/healthcheck.py"


#: what `explain` says of a dead host in mode observe
WOULD = "would power it off now"
#: of `status`: something holds, here the mode
BLOCKED = 4

#: as one-deploy has it, with one front-end, which is this machine
INVENTORY = """
all:
  vars: { ansible_user: root }
frontend:
  hosts:
    f1: { ansible_host: 127.0.0.1, ansible_connection: local }
"""


def walk(made: Machine, found: list[Block], **words: str) -> None:
    """Run the blocks, each in the checkout as root."""
    for block in found:
        say(str(block))
        theirs = {key: value for key, value in words.items() if key in block.text()}
        made.run(here(block.text(theirs)), cwd=CHECKOUT, shown=True)


def here(text: str) -> str:
    """No network: no clock that is kept, so `doctor` says so, and ends with 1. No terminal: nobody types "restore"."""
    text = text.replace("ha-controller doctor", "{ ha-controller doctor || test $? = 1; }")
    return text.replace("ha-controller restore", "ha-controller restore --yes")


def configure_and_run(made: Machine, there: Cloud) -> None:
    """From "Configure" to the end of the page's table."""
    first, check = commands(FIRST_HOUR, "Configure")
    walk(made, [first])
    there.configure(made, (ROOT / "config.example.toml").read_text())
    walk(made, [check, *commands(FIRST_HOUR, "Run")])
    look(made, there)


def look(made: Machine, there: Cloud) -> None:
    """The table of "Look": all is well, so each command has to say so."""
    eventually("all hosts are well", lambda: made.run("ha-controller status", check=False).returncode == 0)
    eventually("doctor is content", lambda: is_content(made))
    for command in table(FIRST_HOUR, "Look"):
        made.run(here(command.replace("HOST", there.facts["hosts"][0])), shown=True)
    no_orders(there)


def no_orders(there: Cloud) -> None:
    """What mode observe promises."""
    if (orders := there.ask("orders")) or there.ask("moves"):
        raise TryFailed(f"mode observe gave orders: {orders}")


def first_incident(made: Machine, there: Cloud) -> None:
    """The table of "The first incident": a host loses its power, and all that happens are words."""
    host = there.facts["hosts"][0]
    say(f"{host} loses its power")
    there.ask("break", host, "power-loss")
    explain = f"ha-controller explain {host}"
    eventually("it says what it would do", lambda: WOULD in made.run(explain, check=False).stdout)
    for command in table(FIRST_HOUR, "The first incident"):
        done = made.run(command.replace("HOST", host), shown=True, check=False)
        expected = BLOCKED if command == "ha-controller status" else 0
        if done.returncode != expected or host not in done.stdout:
            raise TryFailed(f"{command}: exit code {done.returncode}, and {host} is not spoken of")
    no_orders(there)


def is_content(made: Machine, before: str = "") -> bool:
    """Whether all is looked at, and nothing is wrong but the clock."""
    lines = made.run(f"{before}ha-controller doctor", check=False).stdout.splitlines()
    wrong = [line for line in lines if line.startswith("✗") and "clock:" not in line]
    return len(lines) > 10 and not wrong and not any("not checked yet" in line for line in lines)


def by_pip() -> None:
    """docs/first-hour.md, with pip."""
    with machine("front-end", put_checkout) as made, cloud(made) as there:
        walk(made, commands(FIRST_HOUR, "With pip"))
        configure_and_run(made, there)
        first_incident(made, there)


def by_deb() -> None:
    """docs/first-hour.md with the package, then docs/upgrade.md: forth with the same package, back, and away."""
    with machine("front-end", put_checkout) as made, cloud(made) as there:
        walk(made, commands(FIRST_HOUR, "As a Debian package"))
        keep_deb(made)
        configure_and_run(made, there)
        made.run("mkdir -p /var/backups")
        upgrade, looking = commands(UPGRADE, "One controller")
        walk(made, [upgrade], **{"ha-controller_NEW.deb": DEB})
        eventually("doctor is content", lambda: is_content(made))
        walk(made, [looking])
        [back] = commands(UPGRADE, "The way back")
        walk(made, [back], **{"ha-controller_OLD.deb": DEB})
        eventually("it is paused", lambda: "paused" in made.run("ha-controller status", check=False).stdout.lower())
        made.run("ha-controller resume --reason 'looked at it after the restore'")
        renew_credentials(made, there)
        [away] = commands(UPGRADE, "Taking it away")
        walk(made, [away])
        made.run("test ! -e /var/lib/ha-controller -a ! -e /etc/ha-controller -a ! -e /opt/ha-controller")
        if made.run("pgrep --full opt/ha-controller", check=False).stdout:
            raise TryFailed("something of it still runs")


def by_ansible() -> None:
    """docs/ansible.md, with the package of the walk before (its `make deb` is the same command), and a second time."""
    with machine("front-end", put_checkout) as made, cloud(made) as there:
        make_deb, playbooks = commands(ANSIBLE, "By Ansible")
        have_deb(made, make_deb)
        put_ansible(made)
        made.run(f"cat > {CHECKOUT}/packaging/ansible/ha.yml <<'END'\n{adapted(fence(ANSIBLE, 'yaml'), there)}END")
        made.run(f"cat > /root/inventory.yml <<'END'\n{INVENTORY}END")
        words = {"/path/to/one-deploy/inventory.yml": "/root/inventory.yml"}
        walk(made, [playbooks], **words)
        eventually("all hosts are well", lambda: made.run("ha-controller status", check=False).returncode == 0)
        again = made.run(playbooks.text(words), cwd=CHECKOUT).stdout.splitlines()
        if counts := [line for line in again if "changed=" in line and "changed=0" not in line]:
            raise TryFailed(f"the second run changed something: {counts}")
        no_orders(there)


def adapted(example: str, there: Cloud) -> str:
    """What a person makes of ha.yml, and the addresses of this cloud."""
    facts = there.facts
    changes = {
        "[192.0.2.1]": f"[{facts['gateway']}]\nha_controller_endpoint: {facts['endpoint']}",
        "ha-controller:PASSWORD": facts["session"],
        'bmc: "PASSWORD"': f'bmc: "{facts["bmc_password"]}"',
        'username = "fencer"': f'port = {facts["bmc_port"]}\n  username = "{facts["bmc_user"]}"',
    }
    for old, new in changes.items():
        if old not in example:
            raise TryFailed(f"{ANSIBLE} has no {old}")
        example = example.replace(old, new, 1)
    return example


def put_ansible(made: Machine) -> None:
    """It is no part of a fresh machine: `make try-pages` has it ready."""
    if not (ready := KEPT / "ansible").exists():
        raise TryFailed("no Ansible: make .peers/ansible/.ready")
    shutil.copytree(ready, made.root / "opt/try-ansible", symlinks=True)  # where this checkout is may be hidden there
    command = made.root / "usr/local/bin/ansible-playbook"
    command.write_text('#!/bin/sh\nexec /opt/try-ansible/bin/python -m ansible playbook "$@"\n')
    command.chmod(0o755)


def have_deb(made: Machine, make_deb: Block) -> None:
    """The kept one, or run the block."""
    if KEPT_DEB.exists():
        say(f"{make_deb}: {make_deb.text()}, as the walk before has made it")
        target = made.root / CHECKOUT[1:] / DEB
        target.parent.mkdir()
        shutil.copy(KEPT_DEB, target)
    else:
        walk(made, [make_deb])


def by_container() -> None:
    """docs/container.md, with tests/ship/docker.py in Docker's place, then the first hour in that container."""
    with machine("front-end", put_checkout) as made, cloud(made) as there:
        put_docker(made)
        walk(made, commands(CONTAINER, "As a container"))
        first, *rest = commands(CONTAINER, "Beside oned")
        walk(made, [first])
        there.configure(made, (ROOT / "config.example.toml").read_text())
        walk(made, [*commands(CONTAINER, "The right to ping"), *rest])
        look(made, there)
        made.run(f"{ENTERED} {HEALTHCHECK}", cwd=CHECKOUT, shown=True)
        first_incident(made, there)
        walk(made, commands(CONTAINER, "Stopping"))
        eventually(
            "it goes on",
            lambda: WOULD in made.run(f"ha-controller explain {there.facts['hosts'][0]}", check=False).stdout,
        )
        no_orders(there)


def put_docker(made: Machine) -> None:
    """A front-end that runs containers has Docker, and a checkout has git: here is what stands for both."""
    folder = made.root / "opt/try-docker"
    shutil.copytree(Path(yaml.__file__).parent, folder / "yaml", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "tests/ship/docker.py", folder / "docker.py")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for name, script in (
        ("docker", 'exec /usr/bin/python3 -B /opt/try-docker/docker.py "$@"'),
        ("git", f"echo {head}"),
    ):
        command = made.root / "usr/local/bin" / name
        command.unlink(missing_ok=True)
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    made.run("mkdir /var/lib/try-docker && mount -t tmpfs tmpfs /var/lib/try-docker")


def renew_credentials(made: Machine, there: Cloud) -> None:
    """docs/renewal.md: secrets as credentials of systemd, and a password that changes."""
    set_up, renew = commands(RENEWAL, "As systemd credentials")
    walk(made, [set_up])
    eventually("doctor is content", lambda: is_content(made))
    there.ask("password", "another-password")
    eventually("it is refused", lambda: "refuses our login" in made.run("ha-controller status", check=False).stdout)
    user = there.facts["session"].partition(":")[0]
    made.run(f"echo {user}:another-password > /etc/ha-controller/secrets/one_auth")
    walk(made, [renew])
    eventually("doctor is content", lambda: is_content(made))


def keep_deb(made: Machine) -> None:
    """For the walk of Ansible, which begins with the same `make deb`."""
    KEPT_DEB.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made.root / CHECKOUT[1:] / DEB, KEPT_DEB)


def by_hand() -> None:
    """README.md: a demo, and the controller in a terminal."""
    with machine("front-end", put_checkout) as made, cloud(made) as there:
        demo, *rest = commands("README.md", "Try it")
        walk(made, [demo, *rest])
        make, serve, ask = commands("README.md", "The real thing")
        walk(made, [make])
        there.configure(made, (ROOT / "config.example.toml").read_text())
        path = f"export PATH={CHECKOUT}/.venv/bin:$PATH; "
        made.run(f"{path}{{ {serve.text()}\n}} >/root/serve.log 2>&1 &", cwd=CHECKOUT)
        eventually("it answers", lambda: made.run(f"{path}ha-controller status", check=False).returncode == 0)
        eventually("doctor is content", lambda: is_content(made, path))
        made.run(path + here(ask.text({"kvm-04": there.facts["hosts"][-1]})), shown=True)


#: sections of pages of which a walk runs every block that is not marked
WALKED = {
    ("README.md", "Try it"),
    ("README.md", "The real thing"),
    (FIRST_HOUR, "With pip"),
    (FIRST_HOUR, "As a Debian package"),
    (FIRST_HOUR, "Configure"),
    (FIRST_HOUR, "Run"),
    (FIRST_HOUR, "Look"),
    (UPGRADE, "One controller"),
    (UPGRADE, "The way back"),
    (UPGRADE, "Taking it away"),
    (RENEWAL, "As systemd credentials"),
    (ANSIBLE, "By Ansible"),
    (CONTAINER, "As a container"),
    (CONTAINER, "Beside oned"),
    (CONTAINER, "The right to ping"),
    (CONTAINER, "Stopping"),
    (FIRST_HOUR, "The first incident"),
}
WAYS: dict[str, Callable[[], None]] = {
    "pip": by_pip,
    "deb": by_deb,
    "ansible": by_ansible,
    "container": by_container,
    "hand": by_hand,
}


def story() -> None:
    """Those that were named, or all."""
    for way in sys.argv[1:] or WAYS:
        before = time.monotonic()
        WAYS[way]()
        say(f"{way}: {time.monotonic() - before:.0f} s")


if __name__ == "__main__":
    main(story)
