"""Three controllers beside three embedded front-ends, and faults in turn: whoever acts is the only one.

Each controller process writes a line into one file whenever it may act. The file tells afterwards who acted when: on
one machine the monotonic clock is the same for all.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from zones import Zone

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_zone import OnedZone

pytestmark = pytest.mark.slow

TAKEOVER_S = 10
WITHOUT_LEADER_MAX_S = TAKEOVER_S + 12
LEAD_S = 5.0
ROUNDS = int(os.environ.get("HA_ROUNDS", "8"))  #: each fault once; more are drawn by lot
SEED = 7

CONTROLLER = """
import os, sys, time
from functools import partial
from pathlib import Path
import anyio
from pydantic import SecretStr
from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter, OpenNebulaConfig
from ha_controller.app.wakeful import wakeful_loop
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterContext

name, folder, endpoint, takeover = sys.argv[1:]
record = Path(folder) / f"term-{name}"
acts = os.open(Path(folder) / "acts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def last_term():
    return int(record.read_text()) if record.exists() else 0

auth = SecretStr("oneadmin:embedded-cloud")
account = OpenNebulaAccount(endpoint=endpoint, auth=auth, orders=auth)
context = ArbiterContext(name=name, instance=name, state_dir=Path(folder), last_term=last_term, opennebula=account)
config = OpenNebulaConfig.model_validate({"takeover": takeover})

async def main():
    loop_woken.append(leadership.lapse)
    async with anyio.create_task_group() as group:
        group.start_soon(leadership.run)
        while True:
            await anyio.sleep(0.05)
            term = leadership.term
            if term is not None and last_term() < term:
                record.write_text(str(term))
            if await leadership.may_act(term):
                os.write(acts, f"{time.monotonic():.6f} {name} {term}\\n".encode())

loop_woken = []
leadership = Leadership(arbiter=OpenNebulaArbiter(config, context), report=lambda told: print(told, flush=True))
anyio.run(main, backend_options={"loop_factory": partial(wakeful_loop, lambda: [call() for call in loop_woken])})
"""


class Lab:
    """The controllers and what they did. Controller N runs beside front-end N."""

    def __init__(self, folder: Path, zone: Zone) -> None:
        self.folder, self.zone = folder, zone
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, machine: int) -> None:
        endpoint = self.zone.zone.endpoints(machine)[machine]
        words = [sys.executable, "-c", CONTROLLER, str(machine), str(self.folder), endpoint, f"{TAKEOVER_S}s"]
        with (self.folder / f"log-{machine}").open("ab") as log:
            self.processes[machine] = subprocess.Popen(words, stdout=log, stderr=log)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(10)

    def signal(self, machine: int, what: signal.Signals) -> None:
        os.kill(self.processes[machine].pid, what)

    def acts(self) -> list[tuple[float, int, int]]:
        path = self.folder / "acts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(at), int(name), int(term)) for at, name, term in (line.split() for line in lines)]

    async def wait_for_act(self, since: float, *, but_not: int | None = None) -> tuple[float, int, int]:
        """The first act after a moment, of anybody or of anybody else."""
        with anyio.move_on_after(30 + WITHOUT_LEADER_MAX_S):
            while True:
                found = [act for act in self.acts() if act[0] > since and act[1] != but_not]
                if found:
                    return found[0]
                await anyio.sleep(0.1)
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("log-*")))
        raise AssertionError(f"nobody acted\n{logs}")

    async def nobody_acts(self, for_s: float) -> None:
        since = time.monotonic()
        await anyio.sleep(for_s)
        assert [act for act in self.acts() if act[0] > since] == []


# Each breaks something, mends it, and returns for how many seconds nobody acted that should have.


async def oned_and_its_controller_are_frozen(lab: Lab, leader: int) -> float:
    """As a paused virtual machine."""
    lab.signal(leader, signal.SIGSTOP)
    lab.zone.zone.freeze(leader)
    frozen_at = time.monotonic()
    act = await lab.wait_for_act(frozen_at + 0.1, but_not=leader)
    lab.signal(leader, signal.SIGCONT)
    lab.zone.zone.thaw(leader)
    await lab.wait_for_act(time.monotonic() + 2, but_not=leader)
    return act[0] - frozen_at


async def oned_alone_is_frozen(lab: Lab, leader: int) -> float:
    lab.zone.zone.freeze(leader)
    frozen_at = time.monotonic()
    act = await lab.wait_for_act(frozen_at + 0.1, but_not=leader)
    lab.zone.zone.thaw(leader)
    await lab.wait_for_act(time.monotonic() + 2, but_not=leader)
    return act[0] - frozen_at


async def the_leaders_machine_is_cut_off(lab: Lab, leader: int) -> float:
    """Its oned goes on to say that it leads."""
    lab.zone.zone.cut_off(leader)
    cut_at = time.monotonic()
    act = await lab.wait_for_act(cut_at + 0.1, but_not=leader)
    assert (await lab.zone.status(leader, viewer=leader))["STATE"] == 3
    assert lab.zone.zone.blocked(leader) <= 2, "its API is free"
    await lab.wait_for_act(time.monotonic() + 2, but_not=leader)
    lab.zone.zone.heal()
    return act[0] - cut_at


async def the_controller_is_frozen_and_wakes(lab: Lab, leader: int) -> float:
    """oned's leader stays where it is, so nobody else leads."""
    lab.signal(leader, signal.SIGSTOP)
    await lab.nobody_acts(LEAD_S + 3)
    lab.signal(leader, signal.SIGCONT)
    woken_at = time.monotonic()
    return (await lab.wait_for_act(woken_at))[0] - woken_at


async def the_controller_is_killed_and_started_again(lab: Lab, leader: int) -> float:
    lab.signal(leader, signal.SIGKILL)
    lab.processes[leader].wait(10)
    await lab.nobody_acts(3)
    lab.start(leader)
    started_at = time.monotonic()
    return (await lab.wait_for_act(started_at))[0] - started_at


async def both_followers_are_frozen(lab: Lab, leader: int) -> float:
    """No majority: nobody acts, and nothing piles up at the leader."""
    others = lab.zone.others(leader)
    lab.zone.zone.freeze(*others)
    await anyio.sleep(0.5)
    await lab.nobody_acts(LEAD_S + 5)
    assert lab.zone.zone.blocked(leader) <= 2, "its API is free"
    lab.zone.zone.thaw(*others)
    thawed_at = time.monotonic()
    return (await lab.wait_for_act(thawed_at))[0] - thawed_at


async def a_follower_is_cut_off_and_comes_back_with_a_higher_term(lab: Lab, leader: int) -> float:
    """It asked for votes all the time: the leader falls, whoever is elected next."""
    lost = lab.zone.others(leader)[0]
    lab.zone.zone.cut_off(lost)
    cut_at = time.monotonic()
    gap_s = (await lab.wait_for_act(cut_at + 0.5))[0] - cut_at
    await anyio.sleep(4)
    lab.zone.zone.heal()
    healed_at = time.monotonic()
    await lab.wait_for_act(healed_at + 1)
    return gap_s


async def oneds_do_not_hear_each_other_and_controllers_reach_all(lab: Lab, leader: int) -> float:
    """The front-ends have a network of their own for Raft, and it is that which breaks."""
    lab.zone.zone.raft.cut |= {frozenset({leader, other}) for other in lab.zone.others(leader)}
    cut_at = time.monotonic()
    act = await lab.wait_for_act(cut_at + 0.1, but_not=leader)
    assert (await lab.zone.status(leader))["STATE"] == 3
    lab.zone.zone.heal()
    return act[0] - cut_at


FAULTS: tuple[Callable[[Lab, int], Awaitable[float]], ...] = (
    oned_and_its_controller_are_frozen, oned_alone_is_frozen, the_leaders_machine_is_cut_off,
    the_controller_is_frozen_and_wakes, the_controller_is_killed_and_started_again, both_followers_are_frozen,
    a_follower_is_cut_off_and_comes_back_with_a_higher_term, oneds_do_not_hear_each_other_and_controllers_reach_all,
)  # fmt: skip


def _faults() -> list[Callable[[Lab, int], Awaitable[float]]]:
    dice = random.Random(SEED)
    return [FAULTS[number] if number < len(FAULTS) else dice.choice(FAULTS) for number in range(ROUNDS)]


async def test_whatever_fails_one_controller_acts_and_terms_only_grow(tmp_path: Path):
    gaps: list[tuple[str, float]] = []
    made = partial(OnedZone, election_s=1.0, broadcast_s=0.1, forward_s=2.0)
    async with EmbeddedCloud(hosts=1, vms_per_host=1, zone=made) as cloud:
        lab = Lab(tmp_path, Zone(cloud))
        await lab.zone.elected()
        try:
            for machine in range(3):
                lab.start(machine)
            for fault in _faults():
                act = await lab.wait_for_act(time.monotonic())
                gaps.append((fault.__name__, round(await fault(lab, act[1]), 1)))
        finally:
            lab.stop()
    acts = lab.acts()
    assert [act[2] for act in acts] == sorted(act[2] for act in acts), "an old leader acted after a new one"
    assert len({(name, term) for _, name, term in acts}) == len({term for _, _, term in acts}), "a term for two"
    print(f"{len(acts)} acts in {len({term for _, _, term in acts})} terms; seconds without a leader:", gaps)
    assert all(gap_s <= WITHOUT_LEADER_MAX_S for _, gap_s in gaps), gaps
