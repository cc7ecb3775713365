"""`ha-controller simulate` against a running controller, and what a failure then really does."""

from __future__ import annotations

import json
import time
from pathlib import Path

import aiohttp
import anyio
import pytest

from ha_controller.sim import oned_model as one
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from tests.whole.test_serve import Served, served


async def until(controller: Served, word: str, *words: str) -> str:
    with anyio.fail_after(60):
        while word not in (shown := (await controller.cli(*words))[1]):
            await anyio.sleep(0.3)
    return shown


async def until_not(controller: Served, words: str, *command: str) -> None:
    with anyio.fail_after(60):
        while words in (await controller.cli(*command))[1]:
            await anyio.sleep(0.3)


async def metrics(folder: Path) -> str:
    connector = aiohttp.UnixConnector(path=str(folder / "socket"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://controller/metrics") as answer,
    ):
        return await answer.text()


LONELY, TIED, PAIR = 2, 3, (100, 101)  #: of host 1


def bind(cloud: EmbeddedCloud) -> None:
    """One VM that no host suits, one that a single host suits, two that must be apart."""
    vms = cloud.oned.vms
    for vm in PAIR:
        vms[vm] = one.OnedVm(id=vm, name=f"web-{vm}", history=[one.History(seq=0, host=1, started_at=time.time())])
        vms[vm].groups = ((7, "web"),)
        cloud.hardware.start_vm(1, vm)
    vms[LONELY].attributes["SCHED_REQUIREMENTS"] = 'TIER = "platinum"'
    vms[TIED].attributes["SCHED_REQUIREMENTS"] = 'TIER = "gold" & FREE_MEMORY > 10'
    cloud.oned.hosts[3].attributes["TIER"] = "gold"
    role = {"NAME": "web", "POLICY": "ANTI_AFFINED", "VMS": ",".join(map(str, PAIR))}
    cloud.oned.groups.append(one.VmGroup(id=7, name="shop", roles=(role,)))


@pytest.mark.slow
async def test_a_failure_does_what_was_simulated(tmp_path: Path):
    async with served(tmp_path, prepare=bind) as (controller, cloud):
        await controller.ready()
        await until(controller, "4 ok", "status")
        await until_not(controller, "not shown life", "simulate", "fail", "kvm-02")  # nobody is probed before the start
        code, shown = await controller.cli("simulate", "fail", "kvm-02", "-o", "json")
        answer = json.loads(shown)
        expected = {row["id"]: row["to"] for row in answer["vms"]}
        assert (code, answer["nowhere"]) == (1, 1), shown
        assert expected[LONELY] is None
        assert expected[TIED] == "kvm-04"
        assert expected[PAIR[0]] != expected[PAIR[1]]
        code, shown = await controller.cli("simulate", "fail", "kvm-02")
        assert "3 hosts do not meet SCHED_REQUIREMENTS" in shown
        code, shown = await controller.cli("simulate", "capacity")
        assert (code, "0 of 4 hosts may fail" in shown) == (1, True)
        shown = await until(controller, "If it failed", "explain", "kvm-02")
        assert "would not find a place: vm-002 fits on no host" in shown
        assert "the reserve of 1 host is not kept, 0 may fail" in await until(controller, "reserve of", "events")
        assert 'ha_controller_tolerable_host_failures{cluster="default"} 0.0' in await metrics(tmp_path)
        assert (await controller.cli("simulate", "fail", "nobody"))[0] == 3

        cloud.hardware.break_machine(1, Fault.POWER_LOSS)
        await until(controller, "no room", "explain", "kvm-02")
        await until(controller, "plan:", "explain", "kvm-02", "--last", "20")
        names = {host.id: host.name for host in cloud.hosts}
        with anyio.fail_after(30):
            while any(cloud.oned.vms[vm].host == 1 for vm in expected if vm != LONELY):
                await anyio.sleep(0.2)
        assert {vm: names[cloud.oned.vms[vm].host] for vm in expected if vm != LONELY} == {
            vm: to for vm, to in expected.items() if vm != LONELY
        }
        assert cloud.oned.vms[LONELY].host == 1
