"""The process that leads is killed, or frozen, in the middle of an incident; the other one has an empty journal.

Two `ha-controller serve` for each story, all on one real etcd; nobody cleans up after who is killed.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from tests.peers.etcd import Etcd
from tests.whole.test_serve import FAST, Served

pytestmark = [pytest.mark.peer, pytest.mark.slow]

VMS = 4
VICTIM = 2
MID_FENCE, HALF_MOVED = "in the middle of the power-off", "after half of the moves"


async def until(what: Callable[[], Any], within_s: float = 60.0, every_s: float = 0.002) -> None:
    with anyio.fail_after(within_s):
        while not what():
            await anyio.sleep(every_s)


@dataclass
class Pair:
    """Two controllers and their cloud."""

    cloud: EmbeddedCloud
    first: Served
    second: Served

    async def get(self, controller: Served, path: str) -> Any:
        """What it answers; a command line for each question would take a second of work."""
        async with await anyio.connect_unix(controller.folder / "socket") as stream:
            await stream.send(f"GET /api/v1/{path} HTTP/1.0\r\n\r\n".encode())
            raw = b"".join([piece async for piece in stream])
        return json.loads(raw.partition(b"\r\n\r\n")[2])

    async def answers(self, controller: Served) -> object:
        with anyio.fail_after(60):
            while True:
                with suppress(OSError):
                    return await self.get(controller, "leader")
                await anyio.sleep(0.1)

    async def led_by(self, controller: Served) -> None:
        with anyio.fail_after(60):
            while not (await self.get(controller, "leader"))["leads"]:
                await anyio.sleep(0.2)

    async def is_well(self, controller: Served) -> None:
        with anyio.fail_after(60):
            while (await self.get(controller, "status"))["code"]:
                await anyio.sleep(0.2)

    def shots(self) -> int:
        return sum(line.what == "ordered off" for line in self.cloud.hardware.log)

    def moves(self) -> Counter[object]:
        calls = self.cloud.server.calls
        return Counter(call.arguments[0] for call in calls if call.method == "one.vm.migrate" and call.ok)

    def orders(self) -> int:
        """Everything that was ordered from anybody."""
        methods = ("one.vm.migrate", "one.vm.action", "one.host.status", "one.vm.recover")
        return self.shots() + sum(call.method in methods for call in self.cloud.server.calls)

    async def incident(self, controller: Served) -> dict[str, Any]:
        found = await self.get(controller, "incidents")
        return next((each for each in found if each["host"] == VICTIM), {})

    async def recovered(self) -> None:
        """By the second one."""
        with anyio.fail_after(60):
            while (await self.incident(self.second)).get("state") != "recovered":
                await anyio.sleep(0.2)


@asynccontextmanager
async def pair(folder: Path, etcd: Etcd) -> AsyncIterator[Pair]:
    """The first one leads when this begins; the second one never led."""
    folder.mkdir()
    async with EmbeddedCloud(hosts=4, vms_per_host=VMS, timings=FAST) as cloud:
        both = [Served(folder / "first"), Served(folder / "second")]
        for each in both:
            each.folder.mkdir()
            demo_config(each.folder, cloud)
            with (each.folder / "config.toml").open("a") as file:
                file.write(
                    f'\n[recover]\nparallel = 2\n[leader]\nkind = "etcd"\nendpoints = {json.dumps(etcd.endpoints)}\n'
                    f'prefix = "/{folder.name}"\nlease = "6s"\n'
                )
        found = Pair(cloud, *both)
        try:
            await found.first.start()
            await found.answers(found.first)
            await found.led_by(found.first)
            await found.second.start()
            await found.answers(found.second)
            await found.is_well(found.first)
            await found.is_well(found.second)
            yield found
        finally:
            with anyio.CancelScope(shield=True):
                for each in both:
                    if each.process is not None and each.process.returncode is None:
                        each.process.send_signal(signal.SIGCONT)
                        await each.kill()


async def test_the_other_process_goes_on_with_the_same_incident_and_the_old_one_does_nothing(
    etcd: Etcd, tmp_path: Path
):
    wrong: list[str] = []

    async def story(name: str, moment: str, blow: signal.Signals) -> None:
        async with pair(tmp_path / name, etcd) as both:
            assert both.first.process is not None
            both.cloud.break_host(VICTIM, "hang")
            if moment == MID_FENCE:
                await until(both.shots)
            else:
                await until(lambda: sum(both.moves().values()) >= VMS / 2)
            both.first.process.send_signal(blow)
            done = sum(both.moves().values())
            await both.led_by(both.second)
            await both.recovered()
            incident, orders = await both.incident(both.second), both.orders()
            if blow == signal.SIGSTOP:
                both.first.process.send_signal(signal.SIGCONT)
                with anyio.fail_after(30):
                    while "the lead is lost" not in both.first.log:
                        await anyio.sleep(0.1)
                await anyio.sleep(3)  # nothing happens: there is nothing to wait for
                if (await both.incident(both.first))["id"] != incident["id"]:
                    wrong.append(f"{name}: the old one has another incident")
            if both.orders() != orders:
                wrong.append(f"{name}: {both.orders() - orders} orders after all was done")
            if sorted(both.moves().values()) != [1] * VMS or (moment == HALF_MOVED and done == VMS):
                wrong.append(f"{name}: {both.moves()}, {done} of them by the first one")
            if both.shots() > (2 if moment == MID_FENCE else 1):
                wrong.append(f"{name}: ordered off {both.shots()} times")
            _, told = await both.second.cli("events")
            if f"Its record was read; open on it: kvm-{VICTIM + 1:02}" not in told:
                wrong.append(f"{name}: not told: {told}")
            wrong.extend(f"{name}: {each}" for each in both.cloud.check(vms_must_wait=False))

    async with anyio.create_task_group() as group:
        group.start_soon(story, "killed-fence", MID_FENCE, signal.SIGKILL)
        group.start_soon(story, "killed-moves", HALF_MOVED, signal.SIGKILL)
        group.start_soon(story, "frozen-fence", MID_FENCE, signal.SIGSTOP)
    assert wrong == []
