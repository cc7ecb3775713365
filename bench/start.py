"""start: `--help` beside a bare click program, and `serve` to its first probe with 2,500 hosts."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench.canned import make_pools, serving
from bench.harness import ROOT, Figure, Options, Sample, Wrong, absolute, alternate, environment, run_side

HOSTS = 2_500
FIRST_PROBE_MAX_S = 2.0
_BARE = """
import click
@click.group()
@click.version_option("0")
def main(): "A program."
def add(number):
    @main.command(f"command-{number}")
    @click.argument("host")
    @click.option("--reason", default="", help="why")
    def command(host, reason): "Does something."
for number in range(20): add(number)
main()
"""
_SCRIPT = "from ha_controller.cli import main; main()"  #: as the installed program has it
_ECHO_REQUEST, _ETH_P_IP = 8, 0x0800


def start(options: Options) -> list[Figure]:
    """CPU of `--help`, and how soon a host is asked after `serve` was called."""
    rounds = alternate(
        lambda: _help([sys.executable, "-c", _SCRIPT, "--help"], "drill"),
        lambda: _help([sys.executable, "-c", _BARE, "--help"], "command-7"),
        options.rounds or 9,
    )
    helped = rounds.figure(
        "start: --help", 1.5, of=lambda sample: float(sample["cpu_s"]), unit="ms CPU", scale=1000,
        note="a click program with 20 commands",
    )  # fmt: skip
    samples = sorted(
        float(run_side("bench.start:first_probe", namespace=True, hosts=HOSTS)["first_s"])
        for _ in range(options.rounds or 3)
    )
    note = f"{HOSTS} hosts, wall, {len(samples)} starts: {samples[0]:.2f} to {samples[-1]:.2f} s"
    return [helped, absolute("start: serve", samples[len(samples) // 2], FIRST_PROBE_MAX_S, unit="s", note=note)]


def _help(command: list[str], expected: str) -> Sample:
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise Wrong("no pipe")
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status or expected not in said:
        raise Wrong(f"{command[1:3]} did not say {expected}")
    return {"cpu_s": used.ru_utime + used.ru_stime}


CONFIG = """\
mode = "observe"
state_dir = "{folder}/state"
[opennebula]
endpoint = "{endpoint}"
auth = {{ file = "{folder}/one_auth" }}
timeout = "60s"
poll = "{poll}"
[capacity]
reserve_hosts = {reserve}
[detect]
channels = [{channels}]
{more}
[api]
socket = "{folder}/socket"
[log]
level = "error"
"""


def write_config(
    folder: Path, endpoint: str, channels: list[str], more: str = "", poll: str = "30s", reserve: int = 1
) -> Path:
    """A configuration that only watches. `reserve`: of each cluster, so many hosts; 0: it is not looked at."""
    (folder / "one_auth").write_text("oneadmin:password\n")
    (folder / "one_auth").chmod(0o600)
    config = folder / "config.toml"
    named = ", ".join(f'"{name}"' for name in channels)
    config.write_text(
        CONFIG.format(folder=folder, endpoint=endpoint, channels=named, more=more, poll=poll, reserve=reserve)
    )
    return config


def first_probe(hosts: int) -> Sample:
    """In a network of its own, listening on the wire: from the call of `serve` to the first echo request of all."""
    pools = make_pools(hosts, 20 * hosts)
    with (
        tempfile.TemporaryDirectory() as name,
        serving(pools) as endpoint,
        closing(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))) as wire,
    ):
        config = write_config(Path(name), endpoint, ["icmp"])
        wire.settimeout(60.0)
        began = time.monotonic()
        command = [sys.executable, "-m", "ha_controller.cli", "serve", "--config", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
        try:
            while not _is_request(wire.recv(2048)):
                pass
            return {"first_s": time.monotonic() - began}
        finally:
            process.kill()
            process.wait()


def _is_request(packet: bytes) -> bool:
    header = (packet[0] & 15) * 4
    is_icmp = packet[9] == socket.IPPROTO_ICMP
    return is_icmp and struct.unpack_from("!B", packet, header)[0] == _ECHO_REQUEST
