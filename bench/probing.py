"""icmp, icmp-floor, banner: what one probe costs, in CPU, of hosts that all answer.

Ours is the channel as the prober uses it: targets in portions as its wheel gives them, readings taken back after each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench import blackbox
from bench.floors import build
from bench.harness import Cpu, Figure, Missing, Options, Sample, Wrong, alternate, run_side, unmeasured

HOSTS, PER_HOST = 10_000, 5  #: each host is asked so often in a round
PORTION = 200  #: hosts of one slot of the prober's wheel, of 10,000
PORT = 2222
IN_FLIGHT = 512
BLACKBOX_PROBES = 2_000  #: of one round: it takes milliseconds for each
CORE = 0
_DRAIN_MAX_S = 5.0


def addresses(hosts: int) -> list[str]:
    """Loopback addresses, all of which answer."""
    return [f"127.1.{number >> 8}.{number & 255}" for number in range(hosts)]


def icmp(options: Options) -> list[Figure]:
    """CPU per echo request and its answer, beside fping."""
    goal = "<= 0.6x"
    if shutil.which("fping") is None:
        return [unmeasured("icmp", goal, "fping is missing")]
    rounds = alternate(
        lambda: _right(run_side("bench.probing:ours_icmp", namespace=True, core=CORE, hosts=HOSTS), HOSTS * PER_HOST),
        lambda: _right(run_side("bench.probing:fping", namespace=True, core=CORE, hosts=HOSTS), HOSTS * PER_HOST),
        options.rounds or 5,
    )
    return [
        rounds.figure("icmp", 0.6, of=_cpu_per_probe, unit="µs CPU", scale=1e6, note=f"{HOSTS} addresses, fping -i0")
    ]


def icmp_floor(options: Options) -> list[Figure]:
    """The same beside the least that it could cost."""
    try:
        program = str(build("icmp"))
    except Missing as missing:
        return [unmeasured("icmp-floor", "<= 1.4x", f"{missing} is missing")]
    hosts = HOSTS
    rounds = alternate(
        lambda: _right(run_side("bench.probing:ours_icmp", namespace=True, core=CORE, hosts=hosts), hosts * PER_HOST),
        lambda: _right(
            run_side("bench.probing:floor_icmp", namespace=True, core=CORE, hosts=hosts, program=program),
            hosts * PER_HOST,
        ),
        options.rounds or 5,
    )
    note = "C, one socket, sendmmsg and recvmmsg"
    return [rounds.figure("icmp-floor", 1.4, of=_cpu_per_probe, unit="µs CPU", scale=1e6, note=note)]


def banner(options: Options) -> list[Figure]:
    """CPU per connection until sshd's banner, beside asyncio.open_connection and blackbox_exporter."""
    try:
        server = str(build("banner_server"))
    except Missing as missing:
        return [unmeasured("banner", "<= 0.25x", f"{missing} is missing")]
    side = partial(run_side, namespace=True, server=server)
    rounds = alternate(
        lambda: _right(side("bench.probing:ours_banner", hosts=HOSTS), HOSTS),
        lambda: _right(side("bench.probing:open_connection", hosts=HOSTS), HOSTS),
        options.rounds or 5,
    )
    note = f"{HOSTS} addresses, {IN_FLIGHT} in flight"
    figures = [
        rounds.figure("banner: asyncio.open_connection", 0.25, of=_cpu_per_probe, unit="µs CPU", scale=1e6, note=note)
    ]
    if options.short:
        return figures
    try:
        blackbox.program()
    except Missing as missing:
        return [*figures, unmeasured("banner: blackbox_exporter", "<= 0.1x", f"{missing} is missing")]
    rounds = alternate(
        lambda: _right(side("bench.probing:ours_banner", hosts=BLACKBOX_PROBES), BLACKBOX_PROBES),
        lambda: _right(side("bench.probing:blackbox_banner", hosts=BLACKBOX_PROBES), BLACKBOX_PROBES),
        options.rounds or 5,
    )
    note = f"{BLACKBOX_PROBES} addresses, over its HTTP interface with {blackbox.CONNECTIONS} connections"
    return [
        *figures,
        rounds.figure("banner: blackbox_exporter", 0.1, of=_cpu_per_probe, unit="µs CPU", scale=1e6, note=note),
    ]


def _right(sample: Sample, wanted: int) -> Sample:
    if sample["right"] != wanted:
        raise Wrong(f"{sample['right']} of {wanted} probes were answered")
    return {**sample, "wanted": wanted}


def _cpu_per_probe(sample: Sample) -> float:
    return float(sample["cpu_s"]) / int(sample["wanted"])


# --- sides ------------------------------------------------------------------------------------------------------------


async def ours_icmp(hosts: int) -> Sample:
    """The icmp channel, all out."""
    from ha_controller.adapters.prober.icmp import IcmpConfig, IcmpProbe

    probe = IcmpProbe(IcmpConfig(), context())
    await probe.open()
    targets = ours_targets(hosts)
    alive: Counter[int] = Counter()
    gc.freeze()
    cpu = Cpu()
    for _ in range(PER_HOST):
        answered = 0
        for start in range(0, hosts, PORTION):
            probe.launch(targets[start : start + PORTION], time.monotonic())
            answered += _note(alive, probe.collect(time.monotonic()))
        ends = time.monotonic() + _DRAIN_MAX_S
        while answered < hosts and time.monotonic() < ends:
            await asyncio.sleep(0.001)
            answered += _note(alive, probe.collect(time.monotonic()))
    sample = cpu.sample()
    await probe.close()
    return {**sample, "right": sum(alive.values()) if set(alive.values()) == {PER_HOST} else -1}


def _note(alive: Counter[int], readings: Sequence[Any]) -> int:
    for reading in readings:
        alive[reading.host] += reading.signal.value == "alive"
    return len(readings)


def fping(hosts: int) -> Sample:
    """Count mode, as fast as it can; its own CPU time, and how many answers it counted."""
    asked = "\n".join(addresses(hosts))
    command = ["fping", "-q", f"-c{PER_HOST}", "-i0", "-p500", "-t1000"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    began = time.monotonic()
    # it reads all of its input before it writes anything
    if process.stdin is None or process.stderr is None:
        raise Wrong("no pipes")
    process.stdin.write(asked)
    process.stdin.close()
    said = process.stderr.read()
    _, _status, used = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - began
    received = [int(found) for found in re.findall(rf"= {PER_HOST}/(\d+)/", said)]
    return {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall_s, "right": sum(received)}


def floor_icmp(hosts: int, program: str) -> Sample:
    """The program in C says itself what the kernel accounts to it."""
    done = subprocess.run([program, str(hosts), str(PER_HOST)], capture_output=True, text=True, timeout=60, check=True)
    sample: Sample = json.loads(done.stdout)
    return sample


async def ours_banner(hosts: int, server: str) -> Sample:
    """The ssh channel: a portion every ten milliseconds, half of what the prober's wheel takes."""
    from ha_controller.adapters.prober.tcp import SshConfig, SshProbe

    with serving(server):
        probe = SshProbe(SshConfig(port=PORT, in_flight_max=IN_FLIGHT, timeout="5s"), context())
        await probe.open()
        targets = ours_targets(hosts)
        alive: Counter[int] = Counter()
        gc.freeze()
        cpu, answered = Cpu(), 0
        for start in range(0, hosts, PORTION):
            probe.launch(targets[start : start + PORTION], time.monotonic())
            await asyncio.sleep(0.01)
            answered += _note_plain(alive, probe.collect(time.monotonic()))
        ends = time.monotonic() + _DRAIN_MAX_S
        while answered < hosts and time.monotonic() < ends:
            await asyncio.sleep(0.01)
            answered += _note_plain(alive, probe.collect(time.monotonic()))
        sample = cpu.sample()
        await probe.close()
        return {**sample, "right": sum(alive.values())}


def _note_plain(alive: Counter[int], readings: Sequence[Any]) -> int:
    """Only life without a remark: a refused connection is life as well, but no banner."""
    for reading in readings:
        alive[reading.host] += reading.signal.value == "alive" and not reading.detail
    return len(readings)


async def open_connection(hosts: int, server: str) -> Sample:
    """What everybody writes first."""
    with serving(server):
        waiting, right = iter(addresses(hosts)), 0

        async def worker() -> None:
            nonlocal right
            for address in waiting:
                async with asyncio.timeout(5):
                    reader, writer = await asyncio.open_connection(address, PORT)
                    line = await reader.readline()
                    right += line.startswith(b"SSH-")
                    writer.close()

        gc.freeze()
        cpu = Cpu()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
        return cpu.sample(right=right)


async def blackbox_banner(hosts: int, server: str) -> Sample:
    """Asked for each target, as Prometheus would."""
    with serving(server):
        async with blackbox.running() as process:
            return await blackbox.probe(process, "banner", [f"{address}:{PORT}" for address in addresses(hosts)])


@contextmanager
def serving(program: str) -> Iterator[None]:
    """The banner server runs, and this process may open as many files as it is allowed to."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with subprocess.Popen([program, str(PORT)], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or process.stdout.readline() != b"ready\n":
                raise Wrong("the banner server did not start")
            yield
        finally:
            process.kill()


def context() -> Any:
    """What the controller lends to a channel: nothing that these need."""
    from ha_controller.plugin import PowerState, ProbeContext

    async def nothing(host: int) -> PowerState:
        return PowerState.UNKNOWN

    return ProbeContext(read_power=nothing, oned_view=lambda host: None)


def ours_targets(hosts: int) -> list[Any]:
    """The same addresses as targets of the prober."""
    from ha_controller.plugin import Target

    return [
        Target(host=number, name=f"kvm-{number}", address=address) for number, address in enumerate(addresses(hosts))
    ]
