"""The network side of the machines as real Linux hosts: a network namespace each, whose kernel answers pings, and sshd.

Needs root, iproute2 and openssh-server. A machine without power, or mute, or cut off, loses its link: nothing in it can
be reached, and the kernels around it behave as with a dead neighbour. A machine without power loses its processes, too;
those of one that hangs or is frozen stand still.
Everything is named after this process, so leftovers of a killed demo are found and removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import anyio

from ha_controller.sim.hardware import Hardware

PREFIX = "hacdemo"
HOSTS_MAX = 60  #: a /24 in pieces of four addresses, and the witness
SSHD_STARTS_MAX_S = 15.0
_PROGRAMS = ("ip", "sshd", "ssh-keygen")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NetnsUnusable(Exception):
    """This machine cannot run it; the text says what helps."""


def why_not() -> str:
    """What is missing for real namespaces; empty if nothing is."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo, or without --netns"
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    return f"missing: {', '.join(missing)}; install iproute2 and openssh-server" if missing else ""


def address_of(machine: int) -> str:
    """The machine's own address; -1 is the witness that always lives."""
    return f"10.219.0.{4 * (machine + 1) + 2}"


class NetnsNetwork:
    """A namespace with an sshd for every machine, and one that only answers pings."""

    def __init__(self, hardware: Hardware, machines: Iterable[int]) -> None:
        """Nothing is made yet."""
        self._hardware, self._machines = hardware, list(machines)
        self._folder = tempfile.TemporaryDirectory(prefix=f"{PREFIX}-")
        self._sshd: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped: set[int] = set()  #: machines whose processes stand still

    async def start(self) -> None:
        """Make everything and wait until every sshd answers.

        Raises:
            NetnsUnusable: this machine does not allow it, or the addresses are in use.
        """
        if reason := why_not():
            raise NetnsUnusable(reason)
        if len(self._machines) > HOSTS_MAX:
            raise NetnsUnusable(f"at most {HOSTS_MAX} hosts with --netns")
        try:
            await anyio.to_thread.run_sync(self._build)
        except NetnsUnusable:
            self.close()
            raise
        self._hardware.watchers.append(self._follow)
        with anyio.move_on_after(SSHD_STARTS_MAX_S) as waiting:
            for machine in self._machines:
                await _banner(address_of(machine))
        if waiting.cancelled_caught:
            raise NetnsUnusable("sshd did not start in the namespaces; look at its log in the journal of this machine")

    def close(self) -> None:
        """Remove everything."""
        for process in self._sshd.values():
            process.kill()
            process.wait(5)
        _remove_namespaces(os.getpid())
        self._folder.cleanup()

    def _build(self) -> None:
        _remove_leftovers()
        key = Path(self._folder.name) / "host_key"
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        Path("/run/sshd").mkdir(exist_ok=True)
        for machine in (-1, *self._machines):
            self._wire(machine)
        for machine in self._machines:
            self._sshd[machine] = self._start_sshd(machine, key)

    @staticmethod
    def _wire(machine: int) -> None:
        name, link, address = namespace_of(machine), link_of(machine), address_of(machine)
        near = address.rsplit(".", 1)[0] + f".{int(address.rsplit('.', 1)[1]) - 1}"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", name)
        _run("ip", "address", "add", f"{near}/30", "dev", link)
        _run("ip", "link", "set", link, "up")
        _run("ip", "-n", name, "address", "add", f"{address}/30", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "link", "set", "eth0", "up")

    @staticmethod
    def _start_sshd(machine: int, key: Path) -> subprocess.Popen[bytes]:
        options = (f"HostKey={key}", "PidFile=none", "UsePAM=no", "UseDNS=no", "PerSourcePenalties=no")
        sshd = shutil.which("sshd", path=_PATH) or "sshd"
        known = _output(sshd, "-T", "-f", "/dev/null", "-o", f"HostKey={key}")
        supported = options if b"persourcepenalties" in known else options[:-1]
        arguments = [argument for option in supported for argument in ("-o", option)]
        return subprocess.Popen(
            ["ip", "netns", "exec", namespace_of(machine), sshd, "-D", "-f", "/dev/null", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _follow(self, machine: int) -> None:
        """The hardware of a machine has changed: its link and its processes do what the machine does."""
        known, namespace = self._hardware.machines[machine], namespace_of(machine)
        state = "up" if self._hardware.kernel_answers(machine) else "down"
        _run("ip", "-n", namespace, "link", "set", "eth0", state)
        if not known.powered:
            _signal_all(namespace, signal.SIGKILL)
        elif (known.mute or known.frozen) and machine not in self._stopped:
            self._stopped.add(machine)
            _signal_all(namespace, signal.SIGSTOP)
        elif not (known.mute or known.frozen) and machine in self._stopped:
            self._stopped.discard(machine)
            _signal_all(namespace, signal.SIGCONT)


def namespace_of(machine: int) -> str:
    """The name of a machine's network namespace; -1 is the witness."""
    return _namespace(os.getpid(), machine)


def processes_of(namespace: str) -> list[int]:
    """Everything that runs in a namespace."""
    return [int(process) for process in _output("ip", "netns", "pids", namespace).split()]


def _signal_all(namespace: str, what: signal.Signals) -> None:
    """Until nobody is new: sshd may have started a child for a connection while its turn had not come."""
    done: set[int] = set()
    while new := {*processes_of(namespace)} - done:
        done |= new
        for process in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, what)


def _namespace(pid: int, machine: int) -> str:
    return f"{PREFIX}-{pid}-{'w' if machine < 0 else machine}"


def link_of(machine: int) -> str:
    """The name of our end of a machine's cable; -1 is the witness."""
    return _link_of(os.getpid(), "w" if machine < 0 else str(machine))


def _link_of(pid: int, end: str) -> str:
    return f"hac{pid % 10**7}{end if end == 'w' else f'n{end}'}"


def _remove_leftovers() -> None:
    """Of demos whose process is gone."""
    for name in _output("ip", "netns", "list").decode().split("\n"):
        found = re.match(rf"{PREFIX}-(\d+)-", name)
        if found and not Path(f"/proc/{found[1]}").exists():
            _remove_namespaces(int(found[1]))


def _remove_namespaces(pid: int) -> None:
    for line in _output("ip", "netns", "list").decode().split("\n"):
        name = line.split(" ")[0]
        if name.startswith(f"{PREFIX}-{pid}-"):
            _signal_all(name, signal.SIGKILL)
            # at once: with its namespace the link would go some time later, and its name be taken until then
            _output("ip", "link", "del", _link_of(pid, name.rpartition("-")[2]))
            _run("ip", "netns", "del", name)


def _output(*command: str) -> bytes:
    return subprocess.run(command, env={"PATH": _PATH}, capture_output=True, timeout=10, check=False).stdout


def _run(*command: str) -> None:
    done = subprocess.run(command, env={"PATH": _PATH}, capture_output=True, timeout=10, check=False)
    if done.returncode != 0:
        raise NetnsUnusable(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")


async def _banner(address: str) -> None:
    """Wait until something says hello on port 22."""
    while True:
        try:
            async with await anyio.connect_tcp(address, 22) as stream:
                await stream.receive()
                return
        except (OSError, anyio.EndOfStream):
            await anyio.sleep(0.05)
