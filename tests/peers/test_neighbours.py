"""The neighbours channel with real hosts: namespaces on a bridge with sshd and ping, and links that fail one way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from ha_controller.adapters.prober.neighbours import FORCED_COMMAND, NeighboursConfig, NeighboursProbe
from ha_controller.plugin import PowerState, ProbeContext, Reading, Signal
from tests.peers.test_probes_netns import Cloud, inside, run

pytestmark = pytest.mark.peer
HOSTS = (1, 2, 3, 4)
SUSPECT = 4
Ask = Callable[..., Awaitable[Reading]]


class Neighbourhood(Cloud):
    """Hosts that let one key in, for the forced command only."""

    def start_sshd(self, number: int) -> None:
        folder = self.folder
        for name in ("host_key", "key"):
            if not (folder / name).exists():
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
        key = (folder / "key.pub").read_text()
        (folder / "authorized_keys").write_text(f'command="{FORCED_COMMAND}",restrict {key}')
        host_key = (folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
        (folder / "known_hosts").write_text("".join(f"10.61.0.{each} {host_key}\n" for each in HOSTS))
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [
            f"HostKey={folder / 'host_key'}", "PidFile=none", "UsePAM=no", "UseDNS=no", "StrictModes=no",
            f"AuthorizedKeysFile={folder / 'authorized_keys'}",
        ]  # fmt: skip
        self._daemons[number] = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(number), "/usr/sbin/sshd", "-D", "-f", "/dev/null"]
            + [argument for option in options for argument in ("-o", option)],
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def drop(self, at: int, side: str, *others: int) -> None:
        """Have a host drop what comes from ("saddr") or goes to ("daddr") these addresses; 254 is the controller."""
        hook = "input" if side == "saddr" else "output"
        table = f"ip drop{side}"
        addresses = ", ".join(f"10.61.0.{other}" for other in others)
        chain = f"add table {table}; add chain {table} c {{ type filter hook {hook} priority 0; }}"
        self.in_host(at, "nft", f"{chain}; add rule {table} c ip {side} {{ {addresses} }} drop")


@pytest.fixture
def cloud(require_peer: Callable[[str], str], tmp_path: Path) -> Iterator[Neighbourhood]:
    for program in ("ip", "nft", "sshd", "ssh-keygen", "ping", "bash", "timeout"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    made = Neighbourhood(tmp_path)
    try:
        made.build()
        for number in HOSTS:
            made.host(number)
            made.start_sshd(number)
        with inside(made.controller):
            yield made
    finally:
        made.down()


@pytest.fixture
def ask(cloud: Neighbourhood) -> Ask:
    healthy = [number for number in HOSTS if number != SUSPECT]

    async def no_power(host: int) -> PowerState:
        return PowerState.UNKNOWN

    async def asked(neighbours: list[int] = healthy, **settings: object) -> Reading:
        files = {"key_file": cloud.folder / "key", "known_hosts": cloud.folder / "known_hosts"}
        context = ProbeContext(
            read_power=no_power,
            oned_view=lambda host: None,
            neighbours=lambda host: [cloud.target(number) for number in neighbours],
        )
        probe = NeighboursProbe(NeighboursConfig.model_validate({"username": "root", **files, **settings}), context)
        with anyio.fail_after(20):
            while True:  # sshd may still be starting
                reading = await probe._ask_safely(cloud.target(SUSPECT))  # with the deadline of the channel
                if "connection refused" not in reading.detail:
                    return reading
                await anyio.sleep(0.1)

    return asked


def kill(cloud: Neighbourhood) -> None:
    cloud.signal_sshd(SUSPECT, signal.SIGKILL)
    cloud.power_off(SUSPECT)


async def test_a_host_that_neighbours_reach_is_alive(ask: Ask) -> None:
    reading = await ask()
    assert (reading.signal, reading.detail[:12]) == (Signal.ALIVE, "reached from")


async def test_a_host_that_nobody_reaches_is_silent(cloud: Neighbourhood, ask: Ask) -> None:
    await ask()
    kill(cloud)
    reading = await ask()
    assert reading.signal is Signal.SILENT
    assert reading.detail == "not reached from kvm-1, kvm-2, kvm-3, which reach others"


async def test_a_host_that_is_cut_off_from_the_controller_only_is_alive(cloud: Neighbourhood, ask: Ask) -> None:
    cloud.drop(SUSPECT, "saddr", 254)
    assert (await ask()).signal is Signal.ALIVE


async def test_one_neighbour_that_reaches_it_is_enough(cloud: Neighbourhood, ask: Ask) -> None:
    """An asymmetric fault: the suspect hears one host and no other."""
    await ask()
    cloud.drop(SUSPECT, "saddr", 254, 1, 2)
    reading = await ask()
    assert (reading.signal, reading.detail) == (Signal.ALIVE, "reached from kvm-3")


async def test_a_host_that_hears_and_cannot_answer_is_silent(cloud: Neighbourhood, ask: Ask) -> None:
    await ask()
    cloud.drop(SUSPECT, "daddr", 254, 1, 2, 3)
    assert (await ask()).signal is Signal.SILENT


async def test_neighbours_that_are_cut_off_themselves_count_for_nothing(cloud: Neighbourhood, ask: Ask) -> None:
    """All neighbours still reach the controller, and nothing else: it is the switch, not the suspect."""
    await ask()
    for number in (1, 2, 3):
        cloud.drop(number, "saddr", *(each for each in HOSTS if each != number))
    reading = await ask()
    assert reading.signal is Signal.UNKNOWN
    assert "kvm-1: reaches no other host either" in reading.detail


async def test_too_few_neighbours_prove_no_death(cloud: Neighbourhood, ask: Ask) -> None:
    await ask()
    kill(cloud)
    reading = await ask([1, 2], need=3)
    assert (reading.signal, reading.detail) == (Signal.UNKNOWN, "2 of 3 neighbours can tell")
    assert (await ask([1], need=1)).signal is Signal.UNKNOWN  # it has no control target
    assert (await ask([])).signal is Signal.UNKNOWN


async def test_a_neighbour_that_hangs_does_not_silence_the_others(cloud: Neighbourhood, ask: Ask) -> None:
    await ask()
    cloud.signal_sshd(1, signal.SIGSTOP)
    kill(cloud)
    reading = await ask(timeout="5s")
    cloud.signal_sshd(1, signal.SIGCONT)
    assert reading.signal is Signal.SILENT
    assert reading.detail == "not reached from kvm-2, kvm-3, which reach others"


async def test_another_host_key_than_the_known_one_is_not_believed(cloud: Neighbourhood, ask: Ask) -> None:
    await ask()
    known = cloud.folder / "known_hosts"
    known.write_text(known.read_text().replace("10.61.0.1 ", "10.61.0.99 "))
    kill(cloud)
    reading = await ask(need=3)
    assert reading.signal is Signal.UNKNOWN
    assert "kvm-1: its host key is not the one in known_hosts" in reading.detail


async def test_the_key_can_do_nothing_else(cloud: Neighbourhood, ask: Ask) -> None:
    await ask()
    ssh = shutil.which("ssh")
    assert ssh is not None
    command = [
        ssh, "-F", "none", "-i", cloud.folder / "key", "-o", f"UserKnownHostsFile={cloud.folder / 'known_hosts'}",
        "-o", "BatchMode=yes", "root@10.61.0.1",
    ]  # fmt: skip
    for words in ("id", "$(touch /tmp/x)", "10.61.0.2; id", "`id`", "../../bin/id"):
        done = await anyio.run_process([*map(str, command), words], check=False)
        assert done.stdout.decode().split() in ([], ["10.61.0.2", "alive"]), words


def test_the_documented_line_is_the_one_that_is_tested() -> None:
    page = Path(__file__).parents[2] / "docs/neighbours.md"
    assert f"\n    {FORCED_COMMAND}\n" in page.read_text()
