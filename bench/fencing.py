"""fence-300, fence-dead: 300 BMCs ordered off and verified at once, beside processes that do the same.

Each BMC is a process of OpenIPMI's `ipmi_sim`; dead ones are ports that take every packet and never answer.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import Cpu, Figure, Options, Rounds, Sample, Wrong, absolute, run_side, unmeasured

BMCS, DEAD = 300, 100
AT_ONCE = 50  #: processes of a peer
DEADLINE_S = 15.0
OFF_AGE_S = 4  #: sample_period_s
SLOWER_MAX = 1.25  #: as fast as without the dead, on a machine that has other things to do as well


def fence_300(options: Options) -> list[Figure]:
    """All living: wall time until the last is verified off, and the longest callback of the loop meanwhile."""
    if shutil.which("ipmi_sim") is None:
        return [unmeasured("fence-300", "<= 0.2x", "ipmi_sim is missing (Debian: openipmi)")]
    count = options.rounds or 1
    ours = [run_side("bench.fencing:ours", living=BMCS, dead=0) for _ in range(count)]
    figures = []
    for name, program, goal in (("ipmitool", "ipmitool", 0.2), ("fence_ipmilan", "fence_ipmilan", 0.05)):
        if shutil.which(program) is None:
            figures.append(unmeasured(f"fence-300: {name}", f"<= {goal:g}x", f"{program} is missing"))
            continue
        peer = [run_side("bench.fencing:processes", program=program, living=BMCS) for _ in range(count)]
        theirs, mine = float(peer[0]["cpu_s"]), float(ours[0]["cpu_s"])
        note = (
            f"wall, of which ours waits {OFF_AGE_S} s until the second OFF counts, and {program} for none; {AT_ONCE} "
            f"processes at once; CPU {theirs:.0f} s, ours {mine:.1f} s, ratio {mine / theirs:.2g}"
        )
        figures.append(Rounds(ours=ours, peer=peer).figure(f"fence-300: {name}", goal, of=_last, unit="s", note=note))
    stall = statistics.median(1000 * float(sample["stall_s"]) for sample in ours)
    loop = absolute("fence-300: loop", stall, 100, unit="ms CPU", note="the longest callback meanwhile")
    return [*figures, loop]


def fence_dead(options: Options) -> list[Figure]:
    """A hundred that never answer delay no other."""
    if shutil.which("ipmi_sim") is None:
        return [unmeasured("fence-dead", f"<= {SLOWER_MAX:g}x", "ipmi_sim is missing (Debian: openipmi)")]
    count = options.rounds or 1
    living = BMCS - DEAD
    alone = [run_side("bench.fencing:ours", living=living, dead=0) for _ in range(count)]
    among = [run_side("bench.fencing:ours", living=living, dead=DEAD) for _ in range(count)]
    note = f"the last of {living} living, with {DEAD} black holes and (as peer) without; these end at {DEADLINE_S:g} s"
    return [Rounds(ours=among, peer=alone).figure("fence-dead", SLOWER_MAX, of=_last, unit="s", note=note)]


def _last(sample: Sample) -> float:
    return float(sample["last_s"])


# --- sides ------------------------------------------------------------------------------------------------------------


async def ours(living: int, dead: int) -> dict[str, Any]:
    """The controller's fencer with its ipmi agent: order, then OFF read twice, the last 4 s after the order."""
    from ha_controller_ipmi import IpmiAgent, IpmiConfig
    from leads import always

    from bench.placement import longest_callback
    from ha_controller.adapters.fencer import Device, Fencer
    from ha_controller.core.effects import Fence
    from ha_controller.core.events import Event, FenceReported, FenceResult
    from tests.peers.ipmi_sim import ADDRESS, OPERATOR, BlackHole, IpmiSimFarm

    with tempfile.TemporaryDirectory() as folder:
        farm = IpmiSimFarm(Path(folder))
        holes = [BlackHole() for _ in range(dead)]
        try:
            bmcs = farm.start(living)
            took: dict[int, tuple[float, FenceResult]] = {}
            clock = asyncio.get_running_loop().time

            def report(event: Event) -> None:
                if isinstance(event, FenceReported):
                    took[event.host] = (clock() - began, event.result)

            fencer = Fencer(report=report, may_act=always, clock=clock)
            for host, port in enumerate([each.port for each in [*bmcs, *holes]]):
                settings = IpmiConfig(address=ADDRESS, port=port, username=OPERATOR.name, password=OPERATOR.password)
                fencer.equip(host, {"bmc": Device(name="bmc", agent=IpmiAgent(settings), timeout_s=DEADLINE_S)})
            gc.freeze()
            cpu, began = Cpu(), clock()
            with longest_callback() as seen:
                async with asyncio.TaskGroup() as group:
                    for host in range(living + dead):
                        order = Fence(
                            host=host, incident=1, attempt=1, devices=("bmc",), send=True, not_after=clock() + 5
                        )
                        group.create_task(fencer.fence(order))
            sample = cpu.sample(stall_s=seen["cpu_s"])
            if any(took[host][1] is not FenceResult.OFF_READ for host in range(living)):
                raise Wrong("not every living BMC was verified off")
            if any(took[host][1] is not FenceResult.UNVERIFIED for host in range(living, living + dead)):
                raise Wrong("a BMC that never answers was believed")
            if any(bmc.power_is_on() for bmc in bmcs):
                raise Wrong("a machine runs that was verified off")
        finally:
            farm.stop()
            for hole in holes:
                hole.close()
    return {**sample, "last_s": max(took[host][0] for host in range(living))}


async def processes(program: str, living: int) -> dict[str, Any]:
    """A process per order and per reading, as scripts do it; off is what two readings say."""
    from tests.peers.ipmi_sim import ADDRESS, OPERATOR, IpmiSim, IpmiSimFarm

    def command(bmc: IpmiSim, *words: str) -> list[str]:
        if program == "fence_ipmilan":
            return [
                "fence_ipmilan",
                "--ip",
                ADDRESS,
                "--ipport",
                str(bmc.port),
                "--username",
                OPERATOR.name,
                "--password",
                OPERATOR.password,
                "--lanplus",
                "--privlvl",
                "operator",
                "--cipher",
                "3",
                "--action",
                *words,
            ]  # fmt: skip; without the cipher suite it asks ipmi_sim for a list, in vain, for 14 s of each call
        return [
            "ipmitool", "-I", "lanplus", "-C", "3", "-L", "OPERATOR", "-H", ADDRESS, "-p", str(bmc.port), "-U",
            OPERATOR.name, "-P", OPERATOR.password, "chassis", "power", *words,
        ]  # fmt: skip

    async def run(words: list[str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise Wrong(f"{words[0]}: {said.decode()[-300:]}")
        return said.decode()

    with tempfile.TemporaryDirectory() as folder:
        farm = IpmiSimFarm(Path(folder))
        try:
            bmcs, places = farm.start(living), asyncio.Semaphore(AT_ONCE)
            cpu, began = Cpu(), time.monotonic()

            async def fence(bmc: IpmiSim) -> None:
                async with places:
                    await run(command(bmc, "off"))
                    if program == "fence_ipmilan":
                        return  # it reads back by itself
                    for _ in range(2):
                        while "is off" not in await run(command(bmc, "status")):
                            await asyncio.sleep(0.5)

            async with asyncio.TaskGroup() as group:
                for bmc in bmcs:
                    group.create_task(fence(bmc))
            last_s = time.monotonic() - began
            sample = cpu.sample(last_s=last_s)
            if any(bmc.power_is_on() for bmc in bmcs):
                raise Wrong("a machine runs that was called off")
        finally:
            farm.stop()
    return sample
