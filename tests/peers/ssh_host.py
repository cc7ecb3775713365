"""Real hosts for SSH tests: OpenSSH's sshd on loopback, or in network and process namespaces of its own.

The host in namespaces powers off for real: the system call reboot(2) ends its process namespace and nothing else. Its
script refuses to do so when process 1 is not its own sshd, so that it can never switch this machine off.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

READY_WITHIN_S = 10.0
POWER_OFF = """\
#!/bin/sh
# Never on a real machine: process 1 must be the sshd of this namespace.
[ "$(cat /proc/1/comm)" = sshd ] || exit 99
exec python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'
"""


class Sshd:
    """An sshd that lets one key in, as root."""

    def __init__(self, folder: Path, *, netns: str | None = None, address: str = "127.0.0.1") -> None:
        """Make keys and start it."""
        folder.mkdir(exist_ok=True)
        self.folder, self.address, self.netns = folder, address, netns
        self.port = 22 if netns else _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "key", "other_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True, capture_output=True
            )
        (folder / "authorized_keys").write_text((folder / "key.pub").read_text())
        self.know("host_key")
        self.start()

    def know(self, key: str) -> None:
        """Write down which host key is the right one."""
        host_key = (self.folder / f"{key}.pub").read_text().rsplit(" ", 1)[0]
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        (self.folder / "known_hosts").write_text(f"{name} {host_key}\n")

    def start(self) -> None:
        """Start it and wait until it says hello."""
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [
            f"Port={self.port}", f"ListenAddress={self.address}", f"HostKey={self.folder / 'host_key'}", "PidFile=none",
            "UsePAM=no", "StrictModes=no", f"AuthorizedKeysFile={self.folder / 'authorized_keys'}", "UseDNS=no",
            "MaxStartups=200",
        ]  # fmt: skip
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        command = [sshd, "-D", "-f", "/dev/null", *(part for option in options for part in ("-o", option))]
        if self.netns:
            inside = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child=KILL"]
            command = ["ip", "netns", "exec", self.netns, *inside, *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._says_hello():
            if time.monotonic() > deadline:
                raise RuntimeError("sshd is not ready")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it and its children."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)
            self.process = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections are taken by the kernel, nobody answers."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def _says_hello(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=0.5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def virsh(sshd: Sshd, script: str) -> None:
    """What `virsh` does on the host: the key's command puts it into the path and then runs what was asked for."""
    folder = sshd.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "virsh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "virsh").chmod(0o755)
    key = (sshd.folder / "key.pub").read_text()
    command = f"PATH={folder}:$PATH; eval $SSH_ORIGINAL_COMMAND"
    (sshd.folder / "authorized_keys").write_text(f'command="{command}",restrict {key}')


class NamespaceHost:
    """A host with a network, a process space and an sshd of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        """Make it; needs root and iproute2."""
        self.name, self._link = f"hassh{os.getpid()}n{number}", f"hs{os.getpid() % 10**6}n{number}"
        near, self.address = f"10.218.{number}.1", f"10.218.{number}.2"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self.name)
        _ip("address", "add", f"{near}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        for arguments in (("address", "add", f"{self.address}/30", "dev", "eth0"), ("link", "set", "lo", "up"),
                          ("link", "set", "eth0", "up")):  # fmt: skip
            _ip("-n", self.name, *arguments)
        self.sshd = Sshd(folder, netns=self.name, address=self.address)
        self.power_off = folder / "power-off"
        self.power_off.write_text(POWER_OFF)
        self.power_off.chmod(0o755)

    def is_on(self) -> bool:
        """Whether its processes live."""
        return self.sshd.process is not None and self.sshd.process.poll() is None

    def cut_off(self) -> None:
        """Take its link away; it goes on running."""
        _ip("link", "set", self._link, "down")

    def remove(self) -> None:
        """Take it away."""
        self.sshd.stop()
        _ip("link", "del", self._link)  # at once: with the namespace it would go some time later
        _ip("netns", "del", self.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
