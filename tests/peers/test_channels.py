"""The conformance suite on the channels that need a network: hosts are namespaces with kernels of their own, sshd, ping
and the real fence_kdump_send; virsh is a stand-in where it is not installed, since no host here runs libvirt.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ha_controller.adapters.prober import boot_id, libvirt, neighbours
from ha_controller.adapters.prober.boot_id import BootIdProbe
from ha_controller.adapters.prober.icmp import IcmpProbe
from ha_controller.adapters.prober.kdump import KdumpProbe
from ha_controller.adapters.prober.libvirt import LibvirtProbe
from ha_controller.adapters.prober.neighbours import NeighboursProbe
from ha_controller.adapters.prober.tcp import SshProbe, TcpProbe
from ha_controller.plugin import PowerState, Probe, ProbeContext, Signal, Target
from ha_controller.testing import PROBE_CHECKS, ProbeCheck, ProbeRig
from tests.peers.test_probes_netns import Cloud, inside, run

pytestmark = pytest.mark.peer
HOSTS = (1, 2, 3, 4)
CONTROLLER = "10.61.0.254"
KDUMP_PORT = 7410
READY_WITHIN_S = 10.0
KDUMP_SEND = Path("/usr/libexec/fence-agents/fence_kdump_send")
VIRSH = "#!/bin/sh\nprintf 'one-1\\none-2\\n\\n'\n"
BABBLER = """
import os, socket
server = socket.create_server(('', 22))
while True:
    server.accept()[0].send(os.urandom(99) + b'\\n')
"""
LISTENER = f"import socket, time; s = socket.socket(2, 2); s.bind(('', {KDUMP_PORT})); time.sleep(600)"
NO_DUMPS = (
    "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    f"while True: [s.sendto(m, ('{CONTROLLER}', {KDUMP_PORT})) for m in (b'', b'x' * 8, bytes.fromhex("
    "'402a301b02000000'), bytes.fromhex('402a301b0100000000'))]; time.sleep(0.05)"
)
COMMANDS = {"neighbours": neighbours.FORCED_COMMAND, "boot-id": boot_id.COMMAND, "libvirt": libvirt.COMMAND}


class Lab(Cloud):
    """Four hosts that can die, talk nonsense, dump, and be healed again."""

    def build(self) -> None:
        super().build()
        for name in ("host_key", *COMMANDS):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        tools = self.folder / "tools"
        tools.mkdir()
        (tools / "virsh").write_text(VIRSH)
        (tools / "virsh").chmod(0o755)
        lines = [
            f'command="PATH={tools}:$PATH; {line}",restrict {self.public(name)}' for name, line in COMMANDS.items()
        ]
        (self.folder / "authorized_keys").write_text("".join(lines))
        host_key = self.public("host_key").rsplit(" ", 1)[0]
        (self.folder / "known_hosts").write_text("".join(f"10.61.0.{host} {host_key}\n" for host in HOSTS))
        for host in HOSTS:
            self.host(host)
        self.dead: set[int] = set()
        self.ill: set[int] = set()
        self.processes: list[subprocess.Popen[bytes]] = []

    def public(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text()

    def start_sshd(self, number: int) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [
            f"HostKey={self.folder / 'host_key'}", "PidFile=none", "UsePAM=no", "UseDNS=no", "StrictModes=no",
            f"AuthorizedKeysFile={self.folder / 'authorized_keys'}", "MaxStartups=200",
        ]  # fmt: skip
        sshd = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", "/dev/null"]
        arguments = [argument for option in options for argument in ("-o", option)]
        self._daemons[number] = self.spawn(number, *sshd, *arguments)

    def spawn(self, number: int, *command: str | Path) -> subprocess.Popen[bytes]:
        inside_it = ["ip", "netns", "exec", self.namespace(number), *command]
        nothing = subprocess.DEVNULL
        return subprocess.Popen(inside_it, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)

    def end_sshd(self, number: int) -> None:
        daemon = self._daemons.pop(number)
        daemon.kill()
        daemon.wait(10)

    def heal(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.processes.clear()
        run("ip", "-n", self.controller, "link", "set", "lab", "up")
        for number in self.dead:
            self.in_host(number, "nft", "delete", "table", "inet", "lab")
        self.dead.clear()
        self.ill.clear()
        for number in HOSTS:
            if number not in self._daemons:
                self.start_sshd(number)
            self.await_banner(number)

    def take_the_port(self) -> None:
        """Have something else listen where the controller would."""
        listen = ["ip", "netns", "exec", self.controller, sys.executable, "-c", LISTENER]
        self.processes.append(subprocess.Popen(listen, start_new_session=True))
        deadline = time.monotonic() + READY_WITHIN_S
        while f":{KDUMP_PORT:04X} " not in Path("/proc/thread-self/net/udp").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def await_banner(self, number: int) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((f"10.61.0.{number}", 22), timeout=0.5) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError(f"sshd of host {number} is not ready")


class NetworkRig:
    """Implements `testing.ProbeRig` on the lab."""

    shows_life, shows_death = Signal.ALIVE, Signal.SILENT
    settings: ClassVar[dict[str, object]]
    probe_class: type[Probe[Any]]

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        private = [line for name in COMMANDS for line in (lab.folder / name).read_text().splitlines()[1:-1]]
        self.secrets: Sequence[str] = private

    def make_probe(self) -> Probe[Any]:
        async def no_power(host: int) -> PowerState:
            return PowerState.UNKNOWN

        context = ProbeContext(read_power=no_power, oned_view=lambda host: None, neighbours=self.neighbours)
        login = {"username": "root", "key_file": self.lab.folder / self.probe_class.kind}
        login["known_hosts"] = self.lab.folder / "known_hosts"
        settings = {**(login if self.probe_class.kind in COMMANDS else {}), **self.settings}
        return self.probe_class(self.probe_class.config_model.model_validate(settings), context)

    def neighbours(self, host: int) -> Sequence[Target]:
        return [target for target in self.targets() if target.host not in self.lab.dead and target.host != host]

    def targets(self) -> Sequence[Target]:
        return [self.lab.target(number) for number in HOSTS]

    async def kill(self, host: int) -> None:
        self.lab.partition(host)
        self.lab.dead.add(host)

    async def babble(self, host: int) -> None:
        self.lab.end_sshd(host)
        self.lab.processes.append(self.lab.spawn(host, sys.executable, "-c", BABBLER))

    async def break_ourselves(self) -> None:
        run("ip", "-n", self.lab.controller, "link", "set", "lab", "down")


class IcmpRig(NetworkRig):
    probe_class = IcmpProbe
    settings: ClassVar = {"timeout": "500ms"}

    async def babble(self, host: int) -> None:
        """Its kernel answers echo requests with what was asked, and nothing else can be had of it."""


class SshRig(NetworkRig):
    probe_class = SshProbe
    settings: ClassVar = {"timeout": "1s"}


class TcpRig(NetworkRig):
    probe_class = TcpProbe
    settings: ClassVar = {"port": 22, "timeout": "1s"}


class NeighboursRig(NetworkRig):
    probe_class = NeighboursProbe
    settings: ClassVar = {"timeout": "5s"}


class BootIdRig(NetworkRig):
    probe_class = BootIdProbe
    settings: ClassVar = {"timeout": "2s"}
    shows_death = Signal.UNKNOWN


class LibvirtRig(NetworkRig):
    probe_class = LibvirtProbe
    settings: ClassVar = {"timeout": "2s"}
    shows_death = Signal.UNKNOWN


class KdumpRig(NetworkRig):
    probe_class = KdumpProbe
    settings: ClassVar = {"port": KDUMP_PORT}
    shows_life, shows_death = Signal.UNKNOWN, Signal.DUMPING

    async def kill(self, host: int) -> None:
        """It has crashed: the kdump kernel says so every second."""
        send = [KDUMP_SEND, "-f", "ipv4", "-i", "1", CONTROLLER]
        self.lab.processes.append(self.lab.spawn(host, *send))

    async def babble(self, host: int) -> None:
        self.lab.processes.append(self.lab.spawn(host, sys.executable, "-c", NO_DUMPS))

    async def break_ourselves(self) -> None:
        self.lab.take_the_port()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    programs = ("ip", "nft", "sshd", "ssh-keygen", "ping", "bash", "timeout", str(KDUMP_SEND))
    missing = [program for program in programs if shutil.which(program) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "" if os.geteuid() == 0 else "needs root"
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    made = Lab(tmp_path_factory.mktemp("lab"))
    try:
        made.build()
        with inside(made.controller):
            yield made
            for process in made.processes:
                process.kill()
                process.wait(10)
    finally:
        made.down()


RIGS: tuple[type[NetworkRig], ...] = (IcmpRig, SshRig, TcpRig, NeighboursRig, BootIdRig, LibvirtRig, KdumpRig)


@pytest.fixture(params=RIGS, ids=lambda rig: rig.probe_class.kind)
def rig(request: pytest.FixtureRequest, lab: Lab) -> ProbeRig:
    lab.heal()
    make: Callable[[Lab], ProbeRig] = request.param
    return make(lab)


@pytest.mark.parametrize("check", PROBE_CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: ProbeCheck, rig: ProbeRig) -> None:
    await check(rig)
