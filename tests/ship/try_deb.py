"""The Debian package on fresh machines: built, installed, started, upgraded with an incident open, removed, purged."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tests.ship.machine import Cloud, Machine, TryFailed, cloud, eventually, machine, main, put_checkout, say

#: an address of the embedded cloud answers from the same machine: the channels are those of real hosts all the same
EDITS = {
    'mode = "observe"  ': 'mode = "auto"  ',
    'settle = "30s"  ': 'settle = "5s"  ',
    'single_domain_after = "60s"  ': 'single_domain_after = "10s"  ',
    'max_failed_hosts = "25%"  ': 'max_failed_hosts = "34%"  ',
}


def build(folder: Path) -> None:
    """Both versions, on a machine of the distribution."""
    say("build 0.1.0 and 0.1.1 from a checkout")
    with machine("build", put_checkout) as made:
        for version in ("0.1.0", "0.1.1"):
            made.run(f"NEW_VERSION={version} packaging/build-deb /root/dist", cwd="/root/ha-controller")
        for each in (made.root / "root/dist").iterdir():
            shutil.copy(each, folder)


def states(made: Machine) -> dict[str, str]:
    """name -> state, as the command line says."""
    found = made.run("ha-controller hosts -o json", check=False)
    return {row["name"]: row["state"] for row in json.loads(found.stdout)} if found.returncode == 0 else {}


def expect(condition: bool, what: str) -> None:
    """Raise TryFailed unless it is so."""
    if not condition:
        raise TryFailed(what)


def install(made: Machine, there: Cloud) -> None:
    """As the page of the first hour says."""
    made.run("dpkg -i /root/ha-controller_0.1.0_*.deb", shown=True)
    expect(made.run("systemctl is-active ha-controller", check=False).stdout.strip() == "inactive", "it runs unasked")
    expect(made.run("systemctl start ha-controller", check=False).returncode != 0, "it runs without a configuration")
    example = (made.root / "usr/share/doc/ha-controller/config.example.toml").read_text()
    there.configure(made, example, **EDITS)
    made.run("chgrp ha-controller /etc/ha-controller/config.toml /etc/ha-controller/secrets/*")
    made.run("chmod 640 /etc/ha-controller/config.toml /etc/ha-controller/secrets/*")
    made.run("ha-controller check-config && systemctl enable --now ha-controller", shown=True)
    eventually("all hosts are well", lambda: made.run("ha-controller status", check=False).returncode == 0)
    made.run("ha-controller status; ha-controller doctor || true; ha-controller hosts", shown=True)
    made.run("systemctl status --no-pager ha-controller | head -n 12", shown=True)
    expect("User=ha-controller" in made.run("systemctl show -p User ha-controller").stdout, "it runs as root")


def watchdog(made: Machine) -> None:
    """A controller that hangs is started anew."""
    say("the process is stopped (SIGSTOP): systemd's watchdog starts it anew")
    before = made.run("systemctl show -p MainPID --value ha-controller").stdout.strip()
    made.run(f"kill -STOP {before}")
    eventually(
        "another process, that answers",
        lambda: (
            made.run("systemctl show -p MainPID --value ha-controller").stdout.strip() not in ("0", before)
            and made.run("ha-controller status", check=False).returncode == 0
        ),
    )
    made.run("journalctl -u ha-controller --no-pager | grep -i watchdog", shown=True)


def upgrade_in_an_incident(made: Machine, there: Cloud) -> None:
    """A host dies; when it is being powered off, the package is upgraded."""
    victim = there.facts["hosts"][2]
    say(f"{victim} loses its power; the package is upgraded in the middle of it")
    there.ask("break", victim, "power-loss")
    eventually("its incident is open", lambda: states(made).get(victim) in ("failed", "fenced"))
    made.run("dpkg -i /root/ha-controller_0.1.1_*.deb", shown=True)
    expect(made.run("systemctl is-active ha-controller", check=False).stdout.strip() == "active", "not started again")
    expect("0.1.1" in made.run("dpkg-query -W ha-controller").stdout, "not upgraded")
    eventually("it is recovered", lambda: states(made).get(victim) == "recovered")
    made.run("ha-controller incidents show 1", shown=True)
    expect(there.ask("check") == [], f"the checker of the hardware: {there.ask('check')}")
    expect(set(there.ask("moves").values()) == {1}, f"moved: {there.ask('moves')}")


def downgrade(made: Machine) -> None:
    """A journal of a newer version is refused, with a sentence, and not tried again and again."""
    say("a journal of a newer version")
    made.run("systemctl stop ha-controller")
    journal = "/var/lib/ha-controller/journal.db"
    write = "import sqlite3,sys; c = sqlite3.connect(sys.argv[1]); c.execute(f'PRAGMA user_version = {sys.argv[2]}')"
    read = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version').fetchone()[0])"
    version = made.run(f'python3 -c "{read}" {journal}').stdout.strip()
    made.run(f'python3 -c "{write}" {journal} 99')
    expect(made.run("systemctl start ha-controller", check=False).returncode != 0, "a newer journal was taken")
    eventually(
        "it has failed for good", lambda: made.run("systemctl is-failed ha-controller", check=False).returncode == 0
    )
    made.run("journalctl -u ha-controller --no-pager -n 20 | grep 'newer ha-controller'", shown=True)
    made.run(f'python3 -c "{write}" {journal} {version}')
    made.run("systemctl reset-failed ha-controller; systemctl start ha-controller")


def remove(made: Machine) -> None:
    """Removed, and purged."""
    made.run("dpkg -r ha-controller", shown=True)
    made.run("test -e /var/lib/ha-controller -a -e /etc/ha-controller/config.toml -a ! -e /usr/bin/ha-controller")
    expect(not made.run("pgrep -u ha-controller", check=False).stdout, "something of it still runs")
    made.run("dpkg -P ha-controller", shown=True)
    made.run("test ! -e /var/lib/ha-controller -a ! -e /etc/ha-controller -a ! -e /opt/ha-controller")


def story() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        with machine("front-end", lambda root: [shutil.copy(each, root / "root") for each in folder.iterdir()]) as made:
            with cloud(made) as there:
                install(made, there)
                watchdog(made)
                upgrade_in_an_incident(made, there)
                downgrade(made)
            remove(made)


if __name__ == "__main__":
    main(story)
