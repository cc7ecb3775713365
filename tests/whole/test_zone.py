"""Whole controllers beside the front-ends of an embedded zone: one acts, and another one takes over."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_zone import OnedZone
from tests.whole.test_serve import FAST, Served

pytestmark = pytest.mark.slow

TAKEOVER_S = 10
FOLLOWED_WITHIN_S = TAKEOVER_S + 20


class Lab:
    """The zone, and a controller beside each of two front-ends: one that leads it, and the next."""

    def __init__(self, cloud: EmbeddedCloud, controllers: dict[int, Served]) -> None:
        assert cloud.zone is not None
        self.cloud, self.zone, self.controllers = cloud, cloud.zone, controllers

    async def eventually(self, what: Callable[[], Awaitable[bool]], within_s: float = 40.0) -> None:
        with anyio.fail_after(within_s):
            while not await what():
                await anyio.sleep(0.2)

    async def shown(self, machine: int, *words: str) -> dict[str, object]:
        _, text = await self.controllers[machine].cli(*words, "-o", "json")
        found: dict[str, object] = json.loads(text) if text.startswith("{") else {}
        return found

    async def leads(self, machine: int) -> bool:
        return (await self.shown(machine, "leader", "show")).get("leads") is True

    async def is_well(self, machine: int) -> bool:
        code, text = await self.controllers[machine].cli("status")
        return code == 0 and "All hosts are well" in text

    async def state_of(self, machine: int, host: int) -> str:
        code, text = await self.controllers[machine].cli("hosts", "-o", "json")
        rows = json.loads(text) if code == 0 else []
        return next((row["state"] for row in rows if row["id"] == host), "")

    async def recovered(self, machine: int, host: int) -> None:
        async def is_recovered() -> bool:
            return await self.state_of(machine, host) == "recovered"

        await self.eventually(is_recovered, within_s=90)

    def shots(self) -> int:
        return sum(line.what == "ordered off" for line in self.cloud.hardware.log)

    async def somebody_leads(self) -> int:
        with anyio.fail_after(FOLLOWED_WITHIN_S):
            while True:
                for machine in self.controllers:
                    if await self.leads(machine):
                        return machine
                await anyio.sleep(0.2)

    async def new_leader(self, but_not: int) -> int:
        """The zone has another leader, and the controller beside it leads."""
        with anyio.fail_after(FOLLOWED_WITHIN_S):
            while self.zone.leader in (None, but_not):
                await anyio.sleep(0.1)
            machine = self.zone.leader
            assert machine is not None
            while not await self.leads(machine):
                await anyio.sleep(0.2)
        await self.eventually(lambda: self.is_well(machine))
        await anyio.sleep(3)  # settle
        return machine


@asynccontextmanager
async def zone_with_controllers(folder: Path) -> AsyncIterator[tuple[Lab, int]]:
    """Three controllers; the one beside the leader leads when this begins, and all is well."""
    made = partial(OnedZone, election_s=2.0)  # followers are as late as stock ones
    controllers: dict[int, Served] = {}
    try:
        async with EmbeddedCloud(hosts=4, vms_per_host=2, timings=FAST, zone=made) as cloud:
            lab = Lab(cloud, controllers)
            for machine in range(3):
                place = folder / f"front-end-{machine}"
                place.mkdir()
                cloud.endpoint = lab.zone.endpoints(viewer=machine)[machine]
                demo_config(place, cloud)
                with (place / "config.toml").open("a") as file:
                    file.write(f'\n[leader]\nkind = "opennebula"\ntakeover = "{TAKEOVER_S}s"\n')
                controllers[machine] = Served(place)
                await controllers[machine].start()
            for controller in controllers.values():
                await controller.ready()
            leader = await lab.new_leader(but_not=-1)
            await anyio.sleep(2)  # a check of every device
            yield lab, leader
    finally:
        for each in controllers.values():
            if each.process is not None and each.process.returncode is None:
                each.process.send_signal(signal.SIGCONT)
                await each.kill()


async def test_the_front_end_of_the_leader_freezes_and_another_one_fences_what_dies_then(tmp_path: Path):
    async with zone_with_controllers(tmp_path) as (lab, first):
        old = lab.controllers[first]
        assert old.process is not None
        code, text = await old.cli("leader", "show")
        assert code == 0
        assert "front-end 2 at " in text
        told = (await old.cli("doctor"))[1]
        assert "leads its zone" in told
        assert "user of its own" in told
        told = (await lab.controllers[(first + 1) % 3].cli("doctor"))[1]
        assert "does not lead its zone, and reads late; nothing is ordered from here" in told
        assert (await old.cli("leader", "step-down"))[0] == 4
        old.process.send_signal(signal.SIGSTOP)
        lab.zone.freeze(first)
        second = await lab.new_leader(but_not=first)
        lab.cloud.break_host(2, "power-loss")
        await lab.recovered(second, 2)
        assert lab.shots() == 1
        old.process.send_signal(signal.SIGCONT)
        lab.zone.thaw(first)

        async def stands_by() -> bool:
            found = await lab.shown(first, "leader", "show")
            return found.get("leads") is False and not found.get("trouble")

        await lab.eventually(stands_by)
        await anyio.sleep(10)
        assert lab.shots() == 1
        assert lab.cloud.check(vms_must_wait=False) == []
        assert "the lead is lost" in old.log
        assert not any("Traceback" in each.log for each in lab.controllers.values())


async def test_a_leader_that_is_cut_off_does_nothing_and_the_other_side_acts(tmp_path: Path):
    async with zone_with_controllers(tmp_path) as (lab, first):
        lab.zone.cut_off(first)
        second = await lab.new_leader(but_not=first)
        lab.cloud.break_host(2, "power-loss")
        await lab.recovered(second, 2)
        assert not await lab.leads(first)
        _, text = await lab.controllers[first].cli("events", "-o", "json", "-n", "1000")
        assert [line for line in json.loads(text) if line["kind"] == "intent"] == []
        lab.zone.heal()
        await anyio.sleep(10)
        assert lab.shots() == 1
        assert lab.cloud.check(vms_must_wait=False) == []


async def test_without_a_majority_nothing_is_done_and_what_is_open_goes_on_when_there_is_one(tmp_path: Path):
    async with zone_with_controllers(tmp_path) as (lab, first):
        others = [machine for machine in range(3) if machine != first]
        lab.zone.freeze(*others)

        async def told() -> bool:
            return "does not lead: " in (await lab.controllers[first].cli("status"))[1]

        await lab.eventually(told, within_s=15)
        lab.cloud.break_host(2, "power-loss")
        await anyio.sleep(12)
        assert lab.shots() == 0
        assert lab.zone.blocked(first) <= 4, "the API of OpenNebula stays free"
        lab.zone.thaw(*others)
        await lab.recovered(await lab.somebody_leads(), 2)
        assert lab.shots() == 1
        assert lab.cloud.check(vms_must_wait=False) == []


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_the_next_leader_goes_on_where_the_one_before_was_stopped_in_the_middle(tmp_path: Path, fault: str):
    async with zone_with_controllers(tmp_path) as (lab, first):
        lab.cloud.break_host(2, "power-loss")

        async def fenced() -> bool:
            return await lab.state_of(first, 2) in ("failed", "fenced")

        await lab.eventually(fenced)
        old = lab.controllers[first]
        assert old.process is not None
        if fault == "killed":
            await old.kill()
        else:
            old.process.send_signal(signal.SIGSTOP)
        lab.zone.freeze(first)
        with anyio.fail_after(FOLLOWED_WITHIN_S):
            while lab.zone.leader in (None, first) or not await lab.leads(lab.zone.leader or 0):
                await anyio.sleep(0.2)
        second = lab.zone.leader
        assert second is not None
        await lab.recovered(second, 2)
        assert lab.shots() <= 2, "one without an answer is sent anew"
        told = (await lab.controllers[second].cli("events", "-n", "1000"))[1]
        assert "Its record was read; open on it: kvm-03" in told
        if fault == "frozen":
            shots = lab.shots()
            lab.zone.thaw(first)
            old.process.send_signal(signal.SIGCONT)
            await anyio.sleep(10)
            assert lab.shots() == shots
        assert lab.cloud.check(vms_must_wait=False) == []
        assert not any("Traceback" in each.log for each in lab.controllers.values())
