"""A real Ceph cluster as far as a blocklist needs one: a single monitor, with accounts of different rights."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

ADDRESS = "127.0.0.1"
READY_WITHIN_S = 20.0
FENCER, READER = "client.fencer", "client.reader"
RIGHTS = {FENCER: 'allow r, allow command "osd blocklist"', READER: "allow r"}


class CephMonitor:
    """One monitor with its own data folder. Its kernel sees a normal process, started as the administrator would."""

    def __init__(self, folder: Path) -> None:
        """Make the cluster; nothing runs yet."""
        self.folder = folder
        with socket.socket() as probe:
            probe.bind((ADDRESS, 0))
            self.port = int(probe.getsockname()[1])
        self.conf = folder / "ceph.conf"
        self._process: subprocess.Popen[bytes] | None = None
        fsid = str(uuid.uuid4())
        self.write_conf(self.conf, self.port, fsid)
        admin, monmap = folder / "admin.keyring", folder / "monmap"
        for name in ("mon.", "client.admin"):
            create = [] if admin.exists() else ["--create-keyring"]
            _run("ceph-authtool", *create, admin, "--gen-key", "-n", name, "--cap", "mon", "allow *")
        _run("monmaptool", "--create", "--addv", "a", f"[v2:{ADDRESS}:{self.port}]", "--fsid", fsid, monmap)
        _run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", admin, "-c", self.conf)

    def write_conf(self, path: Path, port: int, fsid: str) -> None:
        """Write a configuration for a cluster at a port."""
        folder = self.folder
        lines = {
            "fsid": fsid, "mon host": f"v2:{ADDRESS}:{port}", "mon initial members": "a", "run dir": folder,
            "log file": folder / "log", "admin socket": "", "mon data": folder / "mon", "pid file": "",
            "auth cluster required": "cephx", "auth service required": "cephx", "auth client required": "cephx",
            "mon data avail crit": 0,
        }  # fmt: skip
        path.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))

    def start(self) -> None:
        """Start it and wait until it answers; make the accounts."""
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                ["ceph-mon", "-f", "-i", "a", "-c", self.conf],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_S
        while self.admin("osd", "blocklist", "ls").returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"ceph-mon is not ready: {(self.folder / 'out').read_text()[-2000:]}")
        for name, rights in RIGHTS.items():
            keyring = self.keyring(name)
            if not keyring.exists():
                self.admin("auth", "get-or-create", name, "mon", rights, "-o", str(keyring))

    def admin(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the cluster's administrator."""
        login = ["--conf", self.conf, "--keyring", self.folder / "admin.keyring", "--connect-timeout", "5"]
        return subprocess.run(["ceph", *login, *words], capture_output=True, text=True, check=False, timeout=20)

    def keyring(self, name: str) -> Path:
        """Where the key of an account is."""
        return self.folder / f"{name}.keyring"

    def key(self, name: str) -> str:
        """The key itself."""
        return self.keyring(name).read_text().rpartition("key = ")[2].split()[0]

    def blocklist(self) -> dict[str, str]:
        """What the monitors hold: address -> until when. Not by the command that the agent uses."""
        return self._dump("blocklist")

    def ranges(self) -> dict[str, str]:
        """The same of ranges."""
        return self._dump("range_blocklist")

    def _dump(self, part: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.admin("osd", "dump", "--format", "json").stdout)[part]
        return found

    def freeze(self) -> None:
        """Stop the process in its tracks."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it; the data stays, and what it had not read is lost."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
