"""500 VMs of one host: how fast they run elsewhere, and with how many calls, by the controller and in the hook's way.

    python tests/campaigns/many_vms.py              # about five minutes

Both ways begin on the same embedded cloud with the same dead host, powered off. The controller is the whole one, over
XML-RPC and IPMI. The hook's way is written after what `host_error.rb -m` does (OpenNebula 7.4): it reads all VMs, then
one after the other, and orders `resched` for those on shared datastores; the scheduler does the rest at its next round,
without a limit here (the stock one places one VM per host in each: this is in its favour). What comes before is counted
in neither: the hook begins when oned shows the host in ERROR, three minutes or more after its death, then sleeps two
more and runs its fence script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import xmlrpc.client
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import anyio
import anyio.to_thread

from ha_controller.app import Runtime
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState
from ha_controller.demo import demo_config
from ha_controller.sim import oned_model as one
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_model import History, OnedVm, Timings

VMS, HOSTS = 500, 12
TIMINGS = Timings(ssh_timeout_s=1.0)
END_MAX_S = 900.0
_OFFLINE, _ENABLE = 2, 0  #: of one.host.status


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way's figures."""

    way: str
    to_unknown_s: float  #: from verified off until the VMs could be moved
    to_last_s: float  #: from there to the last VM seen RUNNING by oned
    calls: Counter[str]  #: over XML-RPC, from verified off

    def __str__(self) -> str:
        most = ", ".join(f"{count} {name}" for name, count in self.calls.most_common(5))
        return (
            f"{self.way}: VMs movable after {self.to_unknown_s:.1f} s, all RUNNING {self.to_last_s:.1f} s later; "
            f"{self.calls.total()} calls ({most})"
        )


def crowded(vms: int) -> EmbeddedCloud:
    """A cloud in which all VMs run on the first host."""
    cloud = EmbeddedCloud(hosts=HOSTS, vms_per_host=0, timings=TIMINGS)
    for number in range(vms):
        history = [History(seq=0, host=0, started_at=time.monotonic())]
        cloud.oned.vms[number] = OnedVm(id=number, name=f"vm-{number:03}", history=history)
        cloud.hardware.start_vm(0, number)
    return cloud


def _calls_since(cloud: EmbeddedCloud, since: float) -> Counter[str]:
    return Counter(call.method for call in cloud.server.calls if call.at >= since)


def _run_elsewhere(cloud: EmbeddedCloud) -> bool:
    return all(vm.host != 0 and (vm.state, vm.lcm_state) == (3, 3) for vm in cloud.oned.vms.values())


async def _until(holds: Callable[[], bool]) -> float:
    """Wait for it; returns the moment."""
    with anyio.fail_after(END_MAX_S):
        while not holds():
            await anyio.sleep(0.02)
    return time.monotonic()


async def by_the_controller(vms: int, parallel: int) -> Measured:
    """The host dies, and everything that is ordered is measured from its verified off."""
    with tempfile.TemporaryDirectory() as folder:
        async with crowded(vms) as cloud, anyio.create_task_group() as group:
            config, registry = demo_config(Path(folder), cloud)
            recover = config.recover.model_copy(update={"parallel": parallel})
            runtime = Runtime(config.model_copy(update={"recover": recover}), registry)
            group.start_soon(runtime.run)
            state = runtime.controller.state
            await _until(
                lambda: len(state.views) == HOSTS and all(_is_ready(view.devices) for view in state.views.values())
            )
            cloud.break_host(0, "power-loss")

            def incident_is(*stages: HostState) -> bool:
                return 0 in state.incidents and state.incidents[0].state in stages

            off = await _until(lambda: incident_is(HostState.FENCED, HostState.RECOVERED))
            movable = await _until(lambda: all(vm.lcm_state != one.RUNNING for vm in cloud.oned.vms.values()))
            last = await _until(lambda: _run_elsewhere(cloud))
            calls = _calls_since(cloud, off)
            await _until(lambda: incident_is(HostState.RECOVERED))
            assert {record.stage for record in state.incidents[0].vms} == {VmStage.RUNNING}
            assert cloud.check(vms_must_wait=False) == []
            group.cancel_scope.cancel()
    way = f"the controller, {parallel} at a time"
    return Measured(way=way, to_unknown_s=movable - off, to_last_s=last - movable, calls=calls)


def _is_ready(devices: dict[str, Any]) -> bool:
    return any(device.passed_at for device in devices.values())


async def by_the_hook(vms: int) -> Measured:
    """Its loop, from the moment at which oned shows the host in ERROR and its VMs as UNKNOWN."""
    async with crowded(vms) as cloud:
        cloud.break_host(0, "power-loss")
        with _session(cloud) as call:
            await anyio.to_thread.run_sync(lambda: (call("host.status", 0, _OFFLINE), call("host.status", 0, _ENABLE)))
            off = time.monotonic()
            movable = await _until(lambda: all(vm.lcm_state == one.UNKNOWN for vm in cloud.oned.vms.values()))
            await anyio.to_thread.run_sync(lambda: _reschedule_all(call))
        last = await _until(lambda: _run_elsewhere(cloud))
        calls = _calls_since(cloud, off)
    return Measured(way="the hook's way", to_unknown_s=movable - off, to_last_s=last - movable, calls=calls)


@contextmanager
def _session(cloud: EmbeddedCloud) -> Iterator[Callable[..., Any]]:
    with xmlrpc.client.ServerProxy(cloud.endpoint) as server:

        def call(method: str, *arguments: object) -> Any:
            ok, answer, *_ = getattr(server, f"one.{method}")(cloud.session, *arguments)
            assert ok, answer
            return answer

        yield call


def _reschedule_all(call: Callable[..., Any]) -> None:
    call("host.info", 0, False)
    stores = ElementTree.fromstring(call("datastorepool.info")).iter("DATASTORE")
    local = {store.findtext("ID") for store in stores if store.findtext("TEMPLATE/SHARED") == "NO"}
    for found in ElementTree.fromstring(call("vmpool.infoextended", -2, -1, -1, -1)).iter("VM"):
        number = int(found.findtext("ID", ""))
        document = ElementTree.fromstring(call("vm.info", number, False))
        if document.findtext(".//DS_ID") not in local:
            call("vm.action", "resched", number)


async def _all(vms: int, parallels: list[int]) -> None:
    for parallel in parallels:
        print(await by_the_controller(vms, parallel), flush=True)
    print(await by_the_hook(vms))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vms", type=int, default=VMS)
    parser.add_argument("--parallel", type=int, action="append", help="recover.parallel; may be repeated")
    chosen = parser.parse_args()
    anyio.run(_all, chosen.vms, chosen.parallel or [5, 20, 50])


if __name__ == "__main__":
    sys.exit(main())
