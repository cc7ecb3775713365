"""The front-end that leads stops in the middle of an incident, and the controller beside the next one goes on with it.

Real runtimes beside each of three embedded front-ends, which share no journal: what is open is in OpenNebula alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from ha_controller.adapters.arbiter import opennebula
from ha_controller.config import load
from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_zone import OnedZone
from tests.whole.test_takeover_in_the_middle import (
    FAST,
    MOMENTS,
    UNSHARED,
    VMS,
    Killed,
    MortalRuntime,
    incident_of,
    is_ready,
    is_recovered,
    until,
)

pytestmark = pytest.mark.slow
TAKEOVER_S = 2.0  #: shorter than may be set: whoever stops here sends nothing late, and its front-end never goes on


@pytest.fixture(autouse=True)
def _a_short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opennebula, "TAKEOVER_MIN_S", TAKEOVER_S)


class Zone:
    """Three front-ends, and a controller beside each."""

    def __init__(self, cloud: EmbeddedCloud, running: anyio.abc.TaskGroup, folder: Path) -> None:
        assert cloud.zone is not None
        self.cloud, self.zone, self._running, self._folder = cloud, cloud.zone, running, folder
        self.controllers: list[MortalRuntime] = []
        self.deaths: list[str] = []

    async def start(self, machine: int) -> None:
        place = self._folder / f"front-end-{machine}"
        place.mkdir()
        self.cloud.endpoint = self.zone.endpoints(viewer=machine)[machine]
        _, registry = demo_config(place, self.cloud)
        path = place / "config.toml"
        text = path.read_text().replace('settle = "2s"', 'settle = "500ms"').replace('poll = "2s"', 'poll = "1s"')
        text = text.replace('single_domain_after = "10s"', 'single_domain_after = "5s"\nfail_after = "5s"')
        path.write_text(f'{text}\n[leader]\nkind = "opennebula"\ntakeover = "{TAKEOVER_S:g}s"\n')
        config = load(path, environ={}, **registry.models())
        runtime = MortalRuntime(config, registry)
        runtime.orders, runtime.told = Counter(), []
        runtime.at_death = partial(self.zone.freeze, machine)  # so nothing of it is given back
        self.controllers.append(runtime)
        ready = anyio.Event()
        self._running.start_soon(self._run, runtime, ready)
        await ready.wait()

    async def _run(self, runtime: MortalRuntime, ready: anyio.Event) -> None:
        try:
            await runtime.run(ready=ready.set)
        except BaseExceptionGroup as error:
            if error.split(Killed)[0] is None:
                raise
            self.deaths.append(runtime.die_at)

    def leader(self) -> MortalRuntime | None:
        return next((each for each in self.controllers if each.leadership.term is not None), None)


@asynccontextmanager
async def zone_of_three(folder: Path) -> AsyncIterator[Zone]:
    made = partial(OnedZone, election_s=1.0, broadcast_s=0.1)
    async with (
        EmbeddedCloud(hosts=4, vms_per_host=VMS, timings=FAST, zone=made) as cloud,
        anyio.create_task_group() as group,
    ):
        zone = Zone(cloud, group, folder)
        for machine in range(3):
            await zone.start(machine)
        yield zone
        group.cancel_scope.cancel()


async def story(moment: str, folder: Path) -> None:
    """The leader stops at this moment of an incident."""
    async with zone_of_three(folder) as zone:
        await until(lambda: zone.leader() is not None and all(is_ready(each) for each in zone.controllers))
        first = zone.leader()
        assert first is not None
        await until(lambda: not first.controller.state.cloud.inherited_at)  # all hosts were seen since
        term = first.leadership.term
        first.die_at = moment
        zone.cloud.break_host(1, "hang")
        await until(lambda: zone.deaths == [moment])
        zone.controllers.remove(first)
        await until(lambda: (second := zone.leader()) is not None and is_recovered(second))
        second = zone.leader()
        assert second is not None
        incident = incident_of(second)
        assert incident is not None
        assert (incident.foreign, len(incident.vms)) == ("", VMS), moment
        assert zone.cloud.check(vms_must_wait=False) == [], moment
        calls = zone.cloud.server.calls
        moves = Counter(call.arguments[0] for call in calls if call.method == "one.vm.migrate" and call.ok)
        assert sorted(moves.values()) == [1] * VMS, (moment, moves)
        shots = sum(line.what == "ordered off" for line in zone.cloud.hardware.log)
        assert shots <= (2 if "Fence" in moment else 1), moment
        words = "Its record was read" + ("" if moment == UNSHARED else "; open on it: kvm-02")
        assert any(f"led in term {term}. {words}" in text for text in second.told), (moment, second.told)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_next_leader_goes_on_wherever_the_one_before_stops(moment: str, tmp_path: Path):
    await story(moment, tmp_path)
