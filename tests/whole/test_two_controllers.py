"""Two whole controllers on one etcd and one embedded cloud: one acts, and the other one takes over."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from tests.peers.etcd import Etcd
from tests.whole.test_serve import FAST, Served

pytestmark = [pytest.mark.peer, pytest.mark.slow]

LEASE_S = 8


class Controllers:
    """Both, the cloud and etcd."""

    def __init__(self, cloud: EmbeddedCloud, etcd: Etcd, first: Served, second: Served) -> None:
        self.cloud, self.etcd, self.first, self.second = cloud, etcd, first, second

    async def eventually(self, what: Callable[[], Awaitable[bool]], within_s: float = 40.0) -> None:
        with anyio.fail_after(within_s):
            while not await what():
                await anyio.sleep(0.2)

    async def leads(self, controller: Served) -> bool:
        return (await self.shown(controller, "leader", "show")).get("leads") is True

    async def stands_by(self, controller: Served) -> bool:
        found = await self.shown(controller, "leader", "show")
        return found.get("leads") is False and not found.get("trouble")

    async def shown(self, controller: Served, *words: str) -> dict[str, object]:
        _, text = await controller.cli(*words, "-o", "json")
        found: dict[str, object] = json.loads(text) if text.startswith("{") else {}
        return found

    async def state_of(self, controller: Served, host: int) -> str:
        code, text = await controller.cli("hosts", "-o", "json")
        rows = json.loads(text) if code == 0 else []
        return next((row["state"] for row in rows if row["id"] == host), "")

    async def is_well(self, controller: Served) -> bool:
        code, text = await controller.cli("status")
        return code == 0 and "All hosts are well" in text

    async def http_leader(self, controller: Served) -> int:
        """What a load balancer sees."""
        async with await anyio.connect_unix(controller.folder / "socket") as stream:
            await stream.send(b"GET /leader HTTP/1.0\r\n\r\n")
            return int((await stream.receive()).split()[1])

    async def first_again(self) -> tuple[int, str]:
        """The first one is started again and stands by; what it says to `pause`."""
        await self.first.start()
        await self.eventually(lambda: self.stands_by(self.first))
        return await self.first.cli("pause", "--reason", "test")

    def shots(self) -> int:
        return sum(line.what == "ordered off" for line in self.cloud.hardware.log)

    async def intents(self, controller: Served) -> list[str]:
        _, text = await controller.cli("events", "-o", "json", "-n", "1000")
        return [line["text"] for line in json.loads(text) if line["kind"] == "intent"]


@asynccontextmanager
async def two_controllers(folder: Path) -> AsyncIterator[Controllers]:
    """The first one leads when this begins, and all is well."""
    etcd = Etcd(folder / "etcd")
    served: list[Served] = []
    try:
        etcd.start()
        async with EmbeddedCloud(hosts=4, vms_per_host=2, timings=FAST) as cloud:
            for name in ("first", "second"):
                place = folder / name
                place.mkdir()
                demo_config(place, cloud)
                with (place / "config.toml").open("a") as file:
                    file.write(
                        f'\n[leader]\nkind = "etcd"\nendpoints = {json.dumps(etcd.endpoints)}\nlease = "{LEASE_S}s"\n'
                    )
                served.append(Served(place))
            both = Controllers(cloud, etcd, *served)
            await both.first.start()
            await both.first.ready()
            await both.eventually(lambda: both.leads(both.first))
            await both.second.start()
            await both.second.ready()
            await both.eventually(lambda: both.is_well(both.first))
            await both.eventually(lambda: both.is_well(both.second))
            await anyio.sleep(4)  # the settle time, and a check of every device
            yield both
    finally:
        for each in served:
            if each.process is not None and each.process.returncode is None:
                each.process.send_signal(signal.SIGCONT)
                await each.kill()
        etcd.stop()


@pytest.fixture(autouse=True)
def _etcd(require_peer: Callable[[str], str]) -> None:
    require_peer("etcd")


async def test_the_leader_is_killed_and_the_other_one_fences_what_dies_then(tmp_path: Path):
    async with two_controllers(tmp_path) as both:
        assert (await both.http_leader(both.first), await both.http_leader(both.second)) == (200, 503)
        code, text = await both.second.cli("leader", "show")
        assert code == 0
        assert "stands by" in text
        assert re.search(rf"pid {both.first.process.pid} on {socket.gethostname()}\s+leads\s+1", text)
        assert "stands by" in (await both.second.cli("status"))[1]
        assert (await both.second.cli("leader", "step-down"))[0] == 9

        await both.first.kill()
        await both.eventually(lambda: both.leads(both.second), within_s=LEASE_S + 5)
        assert await both.http_leader(both.second) == 200
        await both.eventually(lambda: both.is_well(both.second))
        await anyio.sleep(3)  # settle
        both.cloud.break_host(2, "power-loss")

        async def recovered() -> bool:
            return await both.state_of(both.second, 2) == "recovered"

        await both.eventually(recovered, within_s=60)
        assert both.cloud.check(vms_must_wait=False) == []
        assert both.shots() == 1
        assert "this controller leads now, term 2" in (await both.second.cli("events"))[1]
        code, text = await both.first_again()
        assert (code, "and what is ordered is on the record of the one that leads" in text) == (9, True)
        assert "Traceback" not in both.second.log


async def test_a_leader_that_was_frozen_does_nothing_when_it_wakes(tmp_path: Path):
    async with two_controllers(tmp_path) as both:
        assert both.first.process is not None
        both.first.process.send_signal(signal.SIGSTOP)
        await both.eventually(lambda: both.leads(both.second), within_s=LEASE_S + 5)
        await anyio.sleep(3)  # settle
        both.cloud.break_host(2, "power-loss")

        async def recovered() -> bool:
            return await both.state_of(both.second, 2) == "recovered"

        await both.eventually(recovered, within_s=60)
        shots = both.shots()
        both.first.process.send_signal(signal.SIGCONT)
        await both.eventually(lambda: both.stands_by(both.first))
        await anyio.sleep(15)
        assert both.shots() == shots == 1
        assert await both.intents(both.first) == []
        assert both.cloud.check(vms_must_wait=False) == []
        assert "the lead is lost" in both.first.log
        assert await both.http_leader(both.first) == 503


async def test_without_etcd_nothing_is_done_and_with_it_work_goes_on(tmp_path: Path):
    async with two_controllers(tmp_path) as both:
        both.etcd.kill(*both.etcd.members)

        async def told() -> bool:
            return "does not lead: " in (await both.first.cli("status"))[1]

        await both.eventually(told, within_s=LEASE_S + 5)
        assert (await both.first.cli("leader", "show"))[0] == 1
        both.cloud.break_host(2, "power-loss")

        async def held() -> bool:
            found = await both.first.cli("explain", "kvm-03")
            return "does not hold the lead" in found[1]

        await both.eventually(held, within_s=30)
        await anyio.sleep(3)
        assert both.shots() == 0
        both.etcd.heal()

        async def recovered() -> bool:
            return await both.state_of(both.first, 2) == "recovered"

        await both.eventually(recovered, within_s=90)
        assert both.cloud.check(vms_must_wait=False) == []
        assert both.shots() == 1


async def test_a_leader_steps_down_for_another_one_and_not_in_the_middle_of_an_incident(tmp_path: Path):
    async with two_controllers(tmp_path) as both:
        assert (await both.first.cli("leader", "step-down", "--reason", "update"))[0] == 0
        await both.eventually(lambda: both.leads(both.second), within_s=5)
        assert not await both.leads(both.first)
        await anyio.sleep(3)
        both.cloud.break_host(2, "power-loss")

        async def failed() -> bool:
            return await both.state_of(both.second, 2) in ("failed", "fenced")

        await both.eventually(failed)
        code, text = await both.second.cli("leader", "step-down")
        assert (code, "kvm-03" in text) == (4, True)
        assert (await both.second.cli("leader", "step-down", "--force"))[0] == 0
        await both.eventually(lambda: both.leads(both.first), within_s=40)

        async def recovered() -> bool:
            return await both.state_of(both.first, 2) == "recovered"

        await both.eventually(recovered, within_s=90)
        assert both.cloud.check(vms_must_wait=False) == []
        _, text = await both.first.cli("incidents", "-o", "json")
        (theirs,) = [each for each in json.loads(text) if each["host"] == 2]
        _, text = await both.second.cli("incidents", "-o", "json")
        (ours,) = [each for each in json.loads(text) if each["host"] == 2]
        assert theirs["id"] == ours["id"], "the same incident, in the journals of both"
