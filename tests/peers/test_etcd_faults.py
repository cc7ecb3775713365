"""Three controllers on a real etcd, and faults in turn: whoever acts is the only one, and somebody acts again in time.

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
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.etcd import Etcd

pytestmark = [pytest.mark.peer, pytest.mark.slow]

LEASE_S = 6
TAKEOVER_MAX_S = LEASE_S + 5
ROUNDS = int(os.environ.get("HA_ROUNDS", "7"))  #: each fault once; more are drawn by lot
SEED = 7

CONTROLLER = """
import os, sys, time
from functools import partial
from pathlib import Path
import anyio
from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.arbiter.etcd import EtcdArbiter, EtcdConfig
from ha_controller.app.wakeful import wakeful_loop
from ha_controller.plugin import ArbiterContext

name, folder, lease, *endpoints = sys.argv[1:]
record = Path(folder) / f"term-{name}"
acts = os.open(Path(folder) / "acts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def last_term():
    return int(record.read_text()) if record.exists() else 0

config = EtcdConfig.model_validate({"endpoints": tuple(endpoints), "lease": lease, "timeout": "500ms"})
context = ArbiterContext(name=name, instance=name, state_dir=Path(folder), last_term=last_term)

async def main():
    loop_woken.append(leadership.lapse)
    async with anyio.create_task_group() as group:
        group.start_soon(leadership.run)
        while True:
            await anyio.sleep(0.02)
            term = leadership.term
            if term is not None and last_term() < term:
                record.write_text(str(term))
            if await leadership.may_act(term):
                os.write(acts, f"{time.monotonic():.6f} {name} {term}\\n".encode())

loop_woken = []
leadership = Leadership(arbiter=EtcdArbiter(config, context), report=lambda told: None)
anyio.run(main, backend_options={"loop_factory": partial(wakeful_loop, lambda: [call() for call in loop_woken])})
"""


class Lab:
    """The controllers and what they did."""

    def __init__(self, folder: Path, etcd: Etcd) -> None:
        self.folder, self.etcd = folder, etcd
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        words = [sys.executable, "-c", CONTROLLER, name, str(self.folder), f"{LEASE_S}s", *self.etcd.endpoints]
        with (self.folder / f"log-{name}").open("ab") as log:
            self.processes[name] = subprocess.Popen(words, stdout=log, stderr=log)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(10)

    def acts(self) -> list[tuple[float, str, int]]:
        path = self.folder / "acts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(at), name, int(term)) for at, name, term in (line.split() for line in lines)]

    def wait_for_act(self, since: float, *, within_s: float, but_not: str = "") -> tuple[float, str, int]:
        """The first act after a moment, of anybody or of anybody else."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            found = [act for act in self.acts() if act[0] > since and act[1] != but_not]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"nobody acted within {within_s:g} s")


def test_whatever_fails_one_controller_acts_and_terms_only_grow(require_peer: Callable[[str], str], tmp_path: Path):
    require_peer("etcd")
    dice = random.Random(SEED)
    etcd = Etcd(tmp_path / "etcd")
    lab = Lab(tmp_path, etcd)
    gaps: list[tuple[str, float]] = []
    try:
        etcd.start()
        for name in ("a", "b", "c"):
            lab.start(name)
        for fault in _faults(dice):
            act = lab.wait_for_act(time.monotonic(), within_s=30)
            gaps.append((fault.__name__, fault(lab, act[1])))
            etcd.heal()
            lab.wait_for_act(time.monotonic(), within_s=30)
    finally:
        lab.stop()
        etcd.stop()
    acts = lab.acts()
    assert [act[2] for act in acts] == sorted(act[2] for act in acts), "an old leader acted after a new one"
    assert len({(name, term) for _, name, term in acts}) == len({term for _, _, term in acts}), "a term for two"
    print(f"{len(acts)} acts in {len({term for _, _, term in acts})} terms; seconds without a leader:", gaps)
    assert all(gap_s <= TAKEOVER_MAX_S for _, gap_s in gaps), gaps


def _faults(dice: random.Random) -> Iterator[Callable[[Lab, str], float]]:
    faults = [
        leader_is_killed, leader_is_frozen, leader_of_etcd_is_killed, leader_of_etcd_is_frozen, a_member_is_lost,
        the_quorum_is_lost, all_members_are_restarted,
    ]  # fmt: skip
    for number in range(ROUNDS):
        yield faults[number] if number < len(faults) else dice.choice(faults)


# Each breaks something and returns for how many seconds nobody acted that should have.


def leader_is_killed(lab: Lab, leader: str) -> float:
    lab.processes[leader].kill()
    killed_at = time.monotonic()
    lab.processes[leader].wait(10)
    act = lab.wait_for_act(killed_at, within_s=TAKEOVER_MAX_S + 5)
    lab.start(leader)
    return act[0] - killed_at


def leader_is_frozen(lab: Lab, leader: str) -> float:
    os.kill(lab.processes[leader].pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    act = lab.wait_for_act(frozen_at + 0.1, within_s=TAKEOVER_MAX_S + 5, but_not=leader)
    os.kill(lab.processes[leader].pid, signal.SIGCONT)
    lab.wait_for_act(time.monotonic() + 2, within_s=5, but_not=leader)
    return act[0] - frozen_at


def leader_of_etcd_is_killed(lab: Lab, leader: str) -> float:
    lab.etcd.kill(lab.etcd.leader())
    return _until_somebody_acts(lab)


def leader_of_etcd_is_frozen(lab: Lab, leader: str) -> float:
    lab.etcd.freeze(lab.etcd.leader())
    return _until_somebody_acts(lab)


def a_member_is_lost(lab: Lab, leader: str) -> float:
    leading = lab.etcd.leader()
    lab.etcd.kill(next(member for member in lab.etcd.members if member is not leading))
    return _until_somebody_acts(lab)


def the_quorum_is_lost(lab: Lab, leader: str) -> float:
    """Nobody may act meanwhile; counted is the time after the quorum is back."""
    lab.etcd.freeze(*lab.etcd.members[:2])
    lost_at = time.monotonic()
    time.sleep(LEASE_S + 2)
    late = [act for act in lab.acts() if act[0] > lost_at + 1]
    assert late == [], f"acts without a quorum: {late[:3]}"
    lab.etcd.heal()
    return _until_somebody_acts(lab)


def all_members_are_restarted(lab: Lab, leader: str) -> float:
    lab.etcd.kill(*lab.etcd.members)
    lab.etcd.heal()
    return _until_somebody_acts(lab)


def _until_somebody_acts(lab: Lab) -> float:
    since = time.monotonic() + 0.5  # what had begun before
    return lab.wait_for_act(since, within_s=TAKEOVER_MAX_S + 10)[0] - since + 0.5
