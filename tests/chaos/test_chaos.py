"""The smoke of `make chaos`: a round in each of two clouds, the lying agent in a third, all at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.chaos import faults
from tests.chaos.campaign import HOSTS, PROGRAMS, Campaign, table
from tests.chaos.disks import Disks
from tests.chaos.faults import Death, Trouble

#: In one round, a host lives on unseen, the controller is killed at the power-off, and its disk gets full.
SEED = 2578


@pytest.mark.peer
@pytest.mark.slow
async def test_two_rounds_of_chaos_end_well_and_a_lying_agent_is_found_out(
    tmp_path: Path, require_peer: Callable[[str], str]
) -> None:
    for program in PROGRAMS:
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    document = await Campaign(rounds=2, seed=SEED, clouds=2, pairs=0, folder=tmp_path, quiet=True).run()
    assert document["passed"], "\n".join(table(document))
    assert document["verified_fences"] >= 2
    assert document["lying_agent_detected"]
    assert {Death.SEVERED, Trouble.KILL, Trouble.DISK_FULL} <= document["faults"].keys()


def test_every_fault_is_drawn_and_nobody_else_is_touched_when_two_hosts_die() -> None:
    plans = [faults.draw(Random(seed), HOSTS, [0, 2], etcd=True) for seed in range(400)]
    drawn = {blow.what for plan in plans for blow in (*plan.deaths, *plan.troubles)}
    assert drawn == {*Death, *Trouble}
    for plan in plans:
        hosts = [blow.host for blow in (*plan.deaths, *plan.troubles) if blow.what not in faults.OF_THE_VICTIM]
        touched = [host for host in hosts if host is not None]
        assert plan.deaths[0].host in (0, 2)
        assert len(touched) == len({*touched})
        assert len(plan.deaths) < 2 or len(touched) == 2


def write(folder: Path, text: str) -> None:
    with (folder / "0.disk").open("a") as file:
        file.write(text)


def test_the_watcher_finds_a_writer_that_writes_again_after_another_one(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    disks.add(0)
    write(tmp_path, "1.0 kvm-01 aaaa one 1\n1.1 kvm-01 aaaa one 2\n9.0 kvm-02 bbbb two 1\n9.1 kvm-0")
    disks.look()
    assert (disks.double, disks.lock_taken, disks.records) == ([], [], 3)
    [outage] = disks.outages
    assert (outage.vm, outage.since, outage.on, round(outage.seconds, 1)) == (0, "kvm-01", "kvm-02", 7.9)
    write(tmp_path, "2 bbbb two 2\n9.2 kvm-01 aaaa one 3\n")
    disks.look()
    assert disks.double == ["VM 0: kvm-01 (boot aaaa, writer one) writes again after kvm-02 (writer two) has written"]


def test_the_watcher_finds_a_writer_that_found_the_lock_taken(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    disks.add(0)
    write(tmp_path, "1.0 kvm-01 aaaa one 1\n9.0 kvm-02 bbbb two lock-taken\n")
    disks.look()
    assert disks.lock_taken == ["VM 0: kvm-02 (boot bbbb, writer two) started while another process held the disk"]
