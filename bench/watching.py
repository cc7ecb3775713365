"""steady, both, detect, growth: the whole controller watches a large cloud over a real link.

The hosts are addresses behind a pair of virtual cards; another network namespace answers for all of them, and drops the
packets to those that are to be dead. The kernel's work for both ends is charged to whoever sends.
"""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import blackbox
from bench.canned import make_pools, serving
from bench.floors import build
from bench.harness import (
    ROOT,
    Cpu,
    Figure,
    Missing,
    Options,
    Sample,
    Wrong,
    absolute,
    alternate,
    memory_mb,
    run_side,
    unmeasured,
)
from bench.picture import Panel, draw
from bench.profile import profiled
from bench.start import write_config

HOSTS, BOTH_HOSTS = 10_000, 2_500
ADDRESS, BANNER_PORT = "10.1.{0}.{1}", 2222
STEADY_S, POLLED_S, BOTH_S, GROWTH_S = 120.0, 30.0, 15.0, 10.0
BLACKBOX_PROBES = 1_000
KILLED = range(7 * 256, 8 * 256)  #: one /24 of them
CHANNELS = {"icmp": ["icmp"], "both": ["icmp", "ssh"]}
SETTLES_S = 5.0  #: from the first inventory until it is measured
_SEEN_MAX_S = 15.0


# --- measurements -----------------------------------------------------------------------------------------------------


def steady(options: Options) -> list[Figure]:
    """10,000 hosts once a second: nothing is lost, and what it costs; with and without reading the inventory."""
    side = partial(run_side, "bench.watching:watch", namespace=True, hosts=HOSTS, channels="icmp")
    alone = side(seconds=STEADY_S, poll="1h")
    polled = side(seconds=POLLED_S, poll="30s", reserve=1)
    note = f"{HOSTS} hosts, {STEADY_S:g} s, {alone['per_s']:.0f} probes/s; {_fping_at(HOSTS)}"
    return [
        absolute("steady: lost", float(alone["lost"] + polled["lost"]), 0, unit="probes", note=note),
        absolute("steady: CPU", alone["core"], 15, unit="% of a core", note="without inventory and reserve"),
        absolute("steady: CPU, inventory", polled["core"], 15, unit="% of a core", note=_inventory_note(polled)),
        absolute("steady: memory", alone["rss_mb"], 150, unit="MB", note="at its peak, interpreter included"),
    ]


def _inventory_note(sample: Sample) -> str:
    return (
        f"with an inventory of {HOSTS} hosts of 64 cores every 30 s, 180 MB each, and the reserve of {5 * HOSTS} VMs; "
        f"{sample['rss_mb']:.0f} MB at the peak"
    )


def _fping_at(hosts: int) -> str:
    if shutil.which("fping") is None:
        return "fping is missing"
    sample = run_side("bench.watching:fping_loop", namespace=True, hosts=hosts, seconds=12.0)
    if sample["status"] is None:
        return f"fping -l runs at {sample['core']:.1f} % of a core"
    return f"fping -l ended after {sample['wall_s']:.1f} s with status {sample['status']}: {sample['said']}"


def both(options: Options) -> list[Figure]:
    """2,500 hosts, a ping and a banner a second each, beside blackbox_exporter, which is asked for the same."""
    try:
        server = str(build("banner_server"))
    except Missing as missing:
        return [unmeasured("both", "<= 30 % of a core", f"{missing} is missing")]
    side = partial(
        run_side, "bench.watching:watch", namespace=True, hosts=BOTH_HOSTS, channels="both", seconds=BOTH_S, poll="1h",
        server=server,
    )  # fmt: skip
    note = f"{BOTH_HOSTS} hosts, icmp and ssh, through the whole controller"
    try:
        blackbox.program()
    except Missing as missing:
        alone = side()
        return [
            absolute("both: CPU", alone["core"], 30, unit="% of a core", note=note),
            unmeasured("both: blackbox_exporter", "<= 0.1x", f"{missing} is missing"),
        ]
    rounds = alternate(
        side,
        lambda: run_side("bench.watching:blackbox_both", namespace=True, hosts=BLACKBOX_PROBES, server=server),
        options.rounds or 2,
    )
    core = statistics.median(float(sample["core"]) for sample in rounds.ours)
    lost = sum(int(sample["lost"]) for sample in rounds.ours)
    if lost:
        raise Wrong(f"{lost} probes were not answered")
    return [
        absolute("both: CPU", core, 30, unit="% of a core", note=note),
        rounds.figure("both: blackbox_exporter", 0.1, of=lambda sample: float(sample["core"]), unit="% of a core",
                      note=f"its CPU for {BLACKBOX_PROBES} hosts, reckoned for {BOTH_HOSTS}"),
    ]  # fmt: skip


def detect(options: Options) -> list[Figure]:
    """256 of 10,000 fall silent at once: from each one's first lost probe until it is a suspect."""
    samples = [
        run_side("bench.watching:die", namespace=True, hosts=HOSTS) for _ in range(options.rounds or 2)
    ]  # fmt: skip
    slow = statistics.median(float(sample["p99_s"]) for sample in samples)
    others = sum(int(sample["others"]) for sample in samples)
    note = (
        f"{len(KILLED)} of {HOSTS} hosts, icmp, three misses, {len(samples)} runs; from the cut to the last verdict "
        f"{max(float(sample['last_s']) for sample in samples):.2f} s"
    )
    return [
        absolute("detect: p99", slow, 2.5, unit="s", note=note),
        absolute("detect: others", others, 0, unit="hosts", note="healthy hosts that were suspected"),
    ]


def growth(options: Options) -> list[Figure]:
    """How CPU and memory grow with the cloud: ten times the hosts take at most ten times as much."""
    sizes = (100, 1_000, 10_000)
    side = partial(run_side, "bench.watching:watch", namespace=True, channels="icmp", seconds=GROWTH_S, poll="1h")
    samples = {hosts: side(hosts=hosts) for hosts in sizes}
    if not options.dry:
        draw(
            ROOT / "docs/pictures/growth.svg",
            [
                Panel(title=title, points={size: float(samples[size][key]) for size in sizes}, low=low, high=high)
                for title, key, low, high in (
                    ("CPU, % of a core", "core", 0.1, 100.0),
                    ("memory, MB", "rss_mb", 10.0, 1000.0),
                )
            ],
        )
    figures = []
    for small, large in pairwise(sizes):
        for what, key, unit in (("CPU", "core", "% of a core"), ("memory", "rss_mb", "MB")):
            mine, before = float(samples[large][key]), float(samples[small][key])
            times = mine / before
            figures.append(
                Figure(
                    name=f"growth: {what}, {large:,} hosts", ours=round(mine, 1), peer=None, ratio=round(times, 2),
                    goal="<= 10x", ok=times <= 10, unit=unit, note=f"{before:.1f} with {small:,} hosts",
                )
            )  # fmt: skip
    return figures


# --- sides ------------------------------------------------------------------------------------------------------------


async def watch(
    hosts: int, channels: str, seconds: float, poll: str, server: str = "", profile: str = "", reserve: int = 0
) -> dict[str, Any]:
    """The whole controller for so long, once it has settled. `profile`: py-spy writes a profile there meanwhile."""
    with far_side(server) as _, tempfile.TemporaryDirectory() as folder:
        async with controller(Path(folder), hosts, channels, poll, reserve=reserve) as runtime:
            await asyncio.sleep(SETTLES_S)
            runtime.seen.clear()
            cpu = Cpu()
            with profiled(profile):
                await asyncio.sleep(seconds)
            sample = cpu.sample(rss_mb=memory_mb(), seen=dict(runtime.seen))
    told = sum(sample["seen"].values())
    wanted = hosts * len(CHANNELS[channels]) * sample["wall_s"]
    if not profile and not 0.97 * wanted <= told <= 1.03 * wanted:
        raise Wrong(f"{told} readings in {sample['wall_s']:.1f} s, {wanted:.0f} were to be taken")
    return {
        **sample,
        "lost": told - sample["seen"].get("alive", 0),
        "per_s": told / sample["wall_s"],
        "core": 100 * sample["cpu_s"] / sample["wall_s"],
    }


async def die(hosts: int) -> dict[str, Any]:
    """A route swallows what is sent to 256 hosts; all others must stay as they are."""
    from ha_controller.core.model import HostState

    with far_side() as far, tempfile.TemporaryDirectory() as folder:
        async with controller(Path(folder), hosts, "icmp", "1h") as runtime:
            await asyncio.sleep(SETTLES_S)
            runtime.first_lost.clear()
            views, verdicts = runtime.controller.state.views, {}
            cut_at = runtime.clock()
            run("nsenter", "-t", str(far), "-n", "ip", "route", "add", "blackhole", "10.1.7.0/24", "table", "local")
            ends = cut_at + _SEEN_MAX_S
            while len(verdicts) < len(KILLED) and runtime.clock() < ends:
                await asyncio.sleep(0.01)
                now = runtime.clock()
                verdicts |= {
                    host: now for host in KILLED if host not in verdicts and views[host].state is not HostState.OK
                }
            await asyncio.sleep(2.0)
            others = [host for host, view in views.items() if view.state is not HostState.OK and host not in KILLED]
    if len(verdicts) < len(KILLED):
        raise Wrong(f"only {len(verdicts)} of {len(KILLED)} dead hosts were seen")
    took = sorted(at - runtime.first_lost[host] for host, at in verdicts.items())
    return {"p99_s": took[int(0.99 * len(took))], "last_s": max(verdicts.values()) - cut_at, "others": len(others)}


def fping_loop(hosts: int, seconds: float) -> dict[str, Any]:
    """Loop mode, each host once a second."""
    with far_side():
        asked = "\n".join(ADDRESS.format(number >> 8, number & 255) for number in range(hosts))
        cpu = Cpu()
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as given:
            given.write(asked)
            given.seek(0)
            process = subprocess.Popen(
                ["fping", "-q", "-l", "-i0", "-p1000"], stdin=given, stdout=subprocess.DEVNULL, stderr=said
            )
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
                process.kill()
                process.wait()
            said.seek(0)
            last = [line for line in said.read().splitlines() if re.search("error|not enough|seq", line)]
        sample = cpu.sample()
    core = 100 * sample["cpu_s"] / sample["wall_s"]
    return {**sample, "status": status, "said": last[-1] if last else "", "core": core}


async def blackbox_both(hosts: int, server: str) -> dict[str, Any]:
    """It is asked for both of each host; its share of a core if that came once a second for all."""
    with far_side(server):
        addresses = [ADDRESS.format(number >> 8, number & 255) for number in range(hosts)]
        async with blackbox.running() as process:
            pinged = await blackbox.probe(process, "icmp", addresses)
            greeted = await blackbox.probe(process, "banner", [f"{address}:{BANNER_PORT}" for address in addresses])
    if pinged["right"] + greeted["right"] != 2 * hosts:
        raise Wrong(f"blackbox_exporter: {pinged['right']} pings and {greeted['right']} banners of {hosts}")
    return {"core": 100 * (pinged["cpu_s"] + greeted["cpu_s"]) * BOTH_HOSTS / hosts}


# --- the cloud and the controller -------------------------------------------------------------------------------------


@contextmanager
def far_side(server: str = "") -> Iterator[int]:
    """A namespace that answers for 10/8, over a pair of virtual cards; yields the process that holds it."""
    with subprocess.Popen(["unshare", "-n", "sleep", "infinity"]) as holder:
        servers = []
        try:
            for _ in range(100):
                if Path(f"/proc/{holder.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink():
                    break
                time.sleep(0.02)
            there = ("nsenter", "-t", str(holder.pid), "-n")
            run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(holder.pid))
            run("ip", "address", "add", "192.168.77.1/24", "dev", "near")
            run("ip", "link", "set", "near", "up")
            run(*there, "ip", "address", "add", "192.168.77.2/24", "dev", "far")
            run(*there, "ip", "link", "set", "far", "up")
            run(*there, "ip", "link", "set", "lo", "up")
            run(*there, "ip", "route", "add", "local", "10.0.0.0/8", "dev", "lo")
            run("ip", "route", "add", "10.0.0.0/8", "via", "192.168.77.2")
            if server:
                servers.append(subprocess.Popen([*there, server, str(BANNER_PORT)], stdout=subprocess.DEVNULL))
            yield holder.pid
        finally:
            for each in [*servers, holder]:
                each.kill()
            for each in servers:
                each.wait()


def run(*command: str) -> None:
    """Run a program. Raises Wrong: it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise Wrong(f"{' '.join(command)}: {done.stderr.strip()}")


@asynccontextmanager
async def controller(
    folder: Path, hosts: int, channels: str, poll: str, *, detect: str = "", reserve: int = 1
) -> AsyncIterator[Any]:
    """The whole controller, as `serve` runs it, once it knows the hosts; counts what its channels tell."""
    import gc

    import anyio

    from ha_controller.app.commands import load_config
    from ha_controller.app.logs import set_up_logging
    from ha_controller.app.runtime import Runtime
    from ha_controller.app.warming import warm_up
    from ha_controller.core.events import Event, EvidenceTaken
    from ha_controller.plugin import Signal

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    class Counting(Runtime):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.seen: Counter[str] = Counter()
            self.first_lost: dict[int, float] = {}

        def post(self, event: Event) -> None:
            if isinstance(event, EvidenceTaken):
                others = [reading for reading in event.readings if reading.signal is not Signal.ALIVE]
                self.seen["alive"] += len(event.readings) - len(others)
                for reading in others:
                    self.seen[reading.signal.value] += 1
                    self.first_lost.setdefault(reading.host, reading.sent_at)
            super().post(event)

    with serving(make_pools(hosts, 5 * hosts, address=ADDRESS, extended=False)) as endpoint:
        more = f"[channel.ssh]\nport = {BANNER_PORT}\n" if "ssh" in CHANNELS[channels] else ""
        path = write_config(folder, endpoint, CHANNELS[channels], detect + more, poll=poll, reserve=reserve)
        config, registry = load_config(path)
        set_up_logging(level="error", format_name=config.log.format)
        runtime = Counting(config, registry)
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.run)
            group.start_soon(warm_up)
            with anyio.fail_after(120):
                while len(runtime.controller.state.hosts) < hosts:
                    await anyio.sleep(0.05)
            gc.freeze()
            yield runtime
            group.cancel_scope.cancel()
