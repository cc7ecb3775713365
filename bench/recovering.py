"""failover, messages, recover-500: from the loss of power until all VMs run elsewhere, beside OpenNebula's own hook.

The whole controller in real time against the embedded cloud, over XML-RPC and IPMI, with oned's stock intervals. The
hook plays on the same embedded oned in pretended time: see `hook.py`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.harness import Figure, Options, Rounds, Sample, absolute, alternate, run_side
from bench.profile import profiled

VMS, HOSTS = 500, 12
SMALL_HOSTS, SMALL_VMS = 6, 5
SSH_GIVES_UP_S = 1.0
END_MAX_S = 900.0
GOAL_S = 12.0
MESSAGES_GOAL = 1.02  #: the looks at VMs that boot are half a second apart, which is what two runs differ by


def failover(options: Options) -> list[Figure]:
    """Six hosts of five VMs; the loss of power of one."""
    count = options.rounds or (1 if options.short else 2)
    ours = [run_side("bench.recovering:ours", hosts=SMALL_HOSTS, each=SMALL_VMS) for _ in range(count)]
    hook = run_side("bench.recovering:hook", hosts=SMALL_HOSTS, each=SMALL_VMS)
    phases = "; ".join(f"{name} {statistics.median(each[name] for each in ours):.1f} s" for name in _PHASES)
    note = f"power loss until {SMALL_VMS} VMs run elsewhere, wall: {phases}"
    beside = Rounds(ours=ours, peer=[hook] * count).figure(
        "failover: host_error.rb", 0.05, of=_total, unit="s", note="-m -p 2, in pretended time, its fencing for nothing"
    )
    total = absolute("failover: total", statistics.median(map(_total, ours)), GOAL_S, unit="s", note=note)
    return [beside] if options.short else [beside, total]


def messages(options: Options) -> list[Figure]:
    """The same failover with receivers that hang and that die, beside one without anybody to tell."""
    rounds = alternate(
        lambda: run_side("bench.recovering:ours_told", hosts=SMALL_HOSTS, each=SMALL_VMS),
        lambda: run_side("bench.recovering:ours", hosts=SMALL_HOSTS, each=SMALL_VMS),
        options.rounds or 1,
    )
    note = "power loss until all VMs run, wall; every message to a webhook that never answers and to one that dies"
    return [rounds.figure("messages: failover", MESSAGES_GOAL, of=_total, unit="s", note=note)]


_PHASES = ("detect", "fence", "recover")


def _total(sample: Sample) -> float:
    return float(sample["total"])


def recover_500(options: Options) -> list[Figure]:
    """500 VMs of one host, from "they can be moved" to the last one RUNNING: by default, and with fifty at a time."""
    from ha_controller.config.model import Recover

    default = int(Recover.model_fields["parallel"].default)
    observed = run_side("bench.recovering:hook_crowd", a_round=HOSTS - 1)
    unlimited = run_side("bench.recovering:hook_crowd", a_round=None)
    figures = []
    for parallel in (default, 50):
        mine = run_side("bench.recovering:ours_crowd", parallel=parallel)
        note = (
            f"recover.parallel = {parallel}{', the default' if parallel == default else ''}; {mine['calls']} calls to "
            f"OpenNebula; the hook with a scheduler that places one VM per host and round of 15 s, as shipped; without "
            f"that limit {unlimited['total']:.0f} s"
        )
        rounds = Rounds(ours=[mine], peer=[observed])
        figures.append(rounds.figure(f"recover-500: {parallel} at once", 0.1, of=_total, unit="s", note=note))
    return figures


# --- sides ------------------------------------------------------------------------------------------------------------


def hook(hosts: int, each: int) -> dict[str, float]:
    """The whole way of the hook with few VMs: one round of the scheduler takes them all."""
    from bench.hook import PretendedCloud

    total, _ = PretendedCloud(hosts=hosts, vms_per_host=each).fail_over()
    return {"total": total}


def hook_crowd(a_round: int | None) -> dict[str, float]:
    """Only from its first `resched` on."""
    from bench.hook import PretendedCloud
    from ha_controller.sim.oned_model import Timings

    crowded = PretendedCloud(hosts=HOSTS, timings=Timings(ssh_timeout_s=SSH_GIVES_UP_S))
    crowded.crowd(VMS)
    return {"total": crowded.fail_over(a_round=a_round)[1]}


async def ours(hosts: int, each: int, profile: str = "") -> dict[str, float]:
    """The whole controller, as in the demo. `profile`: py-spy writes a profile there meanwhile."""
    from ha_controller.sim.cloud import EmbeddedCloud

    return await _fail_over(EmbeddedCloud(hosts=hosts, vms_per_host=each), parallel=None, profile=profile)


async def ours_told(hosts: int, each: int) -> dict[str, float]:
    """With two webhooks: one takes each message and never answers, the other one dies with the first."""
    from ha_controller.config.model import Notify
    from ha_controller.sim.cloud import EmbeddedCloud

    taken = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set()
        await reader.read()
        writer.close()

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        dying.close()
        writer.transport.abort()

    slow, dying = await asyncio.start_server(hang, "127.0.0.1"), await asyncio.start_server(die, "127.0.0.1")
    ports = [server.sockets[0].getsockname()[1] for server in (slow, dying)]
    told = tuple(
        Notify.model_validate(
            {"name": f"to-{port}", "notifier": "webhook", "severity": "info", "url": f"http://127.0.0.1:{port}/"}
        )
        for port in ports
    )
    sample = await _fail_over(EmbeddedCloud(hosts=hosts, vms_per_host=each), parallel=None, notify=told)
    assert taken.is_set(), "nothing was sent: this says nothing"
    return sample


async def ours_crowd(parallel: int) -> dict[str, float]:
    """From the moment at which oned lets the VMs be moved."""
    from ha_controller.sim.cloud import EmbeddedCloud
    from ha_controller.sim.oned_model import History, OnedVm, Timings

    cloud = EmbeddedCloud(hosts=HOSTS, vms_per_host=0, timings=Timings(ssh_timeout_s=SSH_GIVES_UP_S))
    for number in range(VMS):
        history = [History(seq=0, host=0, started_at=time.time())]
        cloud.oned.vms[number] = OnedVm(id=number, name=f"vm-{number:03}", history=history)
        cloud.hardware.start_vm(0, number)
    sample = await _fail_over(cloud, parallel=parallel)
    return {"total": sample["moved"], "calls": sample["calls"]}


async def _fail_over(
    cloud: Any, *, parallel: int | None, notify: tuple[Any, ...] = (), profile: str = ""
) -> dict[str, float]:
    import anyio

    from ha_controller.app import Runtime
    from ha_controller.core.incident import VmStage
    from ha_controller.core.model import HostState
    from ha_controller.demo import demo_config
    from ha_controller.sim import oned_model as one

    def is_ready(view: Any) -> bool:
        return any(device.passed_at for device in view.devices.values())

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        async with cloud, anyio.create_task_group() as group:
            config, registry = demo_config(Path(folder), cloud)
            config = config.model_copy(update={"notify": notify})
            if parallel is not None:
                recover = config.recover.model_copy(update={"parallel": parallel})
                config = config.model_copy(update={"recover": recover})
            runtime = Runtime(config, registry)
            group.start_soon(runtime.run)
            state = runtime.controller.state
            await _until(lambda: len(state.views) == len(cloud.hosts) and all(map(is_ready, state.views.values())))
            await anyio.sleep(3.0)  # the settle time of the demo
            stack.enter_context(profiled(profile))
            began = time.monotonic()
            cloud.break_host(0, "power-loss")

            def incident_is(*stages: HostState) -> bool:
                return 0 in state.incidents and state.incidents[0].state in stages

            detected = await _until(lambda: incident_is(HostState.FAILED, HostState.FENCED, HostState.RECOVERED))
            off = await _until(lambda: incident_is(HostState.FENCED, HostState.RECOVERED))
            movable = await _until(
                lambda: all(vm.lcm_state != one.RUNNING or vm.host for vm in cloud.oned.vms.values())
            )
            last = await _until(
                lambda: all(vm.host != 0 and (vm.state, vm.lcm_state) == (3, 3) for vm in cloud.oned.vms.values())
            )
            since = time.time() - (time.monotonic() - off)
            calls = Counter(call.method for call in cloud.server.calls if call.at >= since)
            await _until(lambda: incident_is(HostState.RECOVERED))
            assert {record.stage for record in state.incidents[0].vms} == {VmStage.RUNNING}
            assert cloud.check(vms_must_wait=False) == []
            group.cancel_scope.cancel()
    return {
        "total": last - began, "detect": detected - began, "fence": off - detected, "recover": last - off,
        "moved": last - movable, "calls": calls.total(),
    }  # fmt: skip


async def _until(holds: Callable[[], bool]) -> float:
    """Wait for it; returns the moment."""
    import anyio

    with anyio.fail_after(END_MAX_S):
        while not holds():
            await anyio.sleep(0.02)
    return time.monotonic()
