"""How long a plan takes, and how much more it places than taking one VM after the other to the emptiest host.

    python tests/campaigns/placement.py              # about a minute

The simple way is what the controller did before it had a planner, given the same rules: it keeps to them, and looks at
each VM alone, in the order of their ids.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from placement_judge import Case, most_placed, random_case

from ha_controller.core.model import Host, HostState, Vm
from ha_controller.core.placement import Candidate, Problem, Task, plan
from ha_controller.core.placement.bundle import Bundle
from ha_controller.core.placement.screen import Screen, Unplaceable

HOSTS, VMS = 500, 2000
AUTOMATIC = "(CLUSTER_ID = 0) & !(PIN_POLICY = PINNED)"


def large_cloud(seed: int, *, hosts: int = HOSTS, vms: int = VMS, free: float, texts: int = 1) -> Problem:
    """A cloud of mixed hosts. `free`: how much of a host is free on average; `texts`: different requirements."""
    dice = random.Random(seed)
    candidates = []
    for number in range(hosts):
        share = min(1.0, max(0.0, dice.gauss(free, 0.1)))
        memory_mb = dice.choice([131072, 262144, 524288])
        host = Host(
            id=number,
            name=f"kvm-{number}",
            cluster=0,
            vm_mad="kvm",
            free_cpu=round(memory_mb / 40 * share),
            free_memory_mb=round(memory_mb * share),
            attributes=({"ARCH": "x86_64", "RACK": str(number % 20)},),
        )
        candidates.append(Candidate(host=host, state=HostState.OK, seen_s=0.1))
    tasks = []
    for number in range(vms):
        memory_mb = dice.choice([1024, 2048, 4096, 8192, 16384, 32768, 65536])
        vm = Vm(
            id=100_000 + number,
            name=f"vm-{number}",
            state=3,
            lcm_state=16,
            host=hosts,
            cluster=0,
            vm_mad="kvm",
            cpu=round(memory_mb / 40 * dice.choice([0.5, 1, 2])),
            memory_mb=memory_mb,
            automatic_requirements=AUTOMATIC,
            requirements=f"RACK != {number % texts}" if texts > 1 else "",
        )
        tasks.append(Task(vm=vm))
    return Problem(tasks=tuple(tasks), candidates=tuple(candidates), groups=())


def simply(problem: Problem) -> int:
    """How many VMs find a place one after the other, each on the host with the most free memory."""
    screen, placed = Screen(problem), 0
    for task in sorted(problem.tasks, key=lambda task: task.vm.id):
        try:
            admission = screen.admit(task)
        except Unplaceable:
            continue
        bundle = Bundle((task,), (admission,), admission.rooms)
        rooms = [room for room in bundle.rooms if bundle.why_not(room) is None]
        if rooms:
            bundle.enter(max(rooms, key=lambda room: (room.memory_mb, -room.host.id)))
            placed += 1
    return placed


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    vms: int
    placed: int
    simply: int
    took_s: float


def large(seeds: int = 3) -> Iterator[Row]:
    """The largest clouds: roomy, tight, too small, and with as many requirements as VMs."""
    kinds = (
        ("half of each host is free", {"free": 0.5}),
        ("2,000 different SCHED_REQUIREMENTS", {"free": 0.5, "texts": VMS}),
        ("a tenth is free", {"free": 0.1}),
        ("a twentieth is free", {"free": 0.05}),
    )
    for what, how in kinds:
        for seed in range(seeds):
            problem = large_cloud(seed, **how)  # type: ignore[arg-type]
            began = time.process_time()
            placed = len(plan(problem).placed)
            took_s = time.process_time() - began
            yield Row(what, len(problem.tasks), placed, simply(problem), took_s)


@dataclass
class Gap:
    """What small clouds show that are searched to the end."""

    cases: int = 0
    placed: int = 0
    simply: int = 0
    best: int = 0


def small(cases: int, *, hosts: int, vms: int, load: float, special: bool) -> Gap:
    """Against the best that there is."""
    gap = Gap()
    for seed in range(cases):
        case: Case = random_case(seed, hosts=hosts, vms=vms, load=load, special=special)
        case.problem = replace(case.problem, tasks=tuple(replace(task, priority=0) for task in case.problem.tasks))
        placed = len(plan(case.problem).placed)
        gap.cases += 1
        gap.placed += placed
        gap.simply += simply(case.problem)
        gap.best += vms if placed == vms else sum(most_placed(case))
    return gap


def main() -> None:
    print(f"{HOSTS} hosts, {VMS} VMs of a failure")
    for row in large():
        print(f"  {row.what:<38} {row.took_s:5.2f} s   placed {row.placed}, simply {row.simply}")
    for special, hosts, vms, load in ((False, 4, 6, 0.8), (True, 3, 5, 0.9)):
        gap = small(1000, hosts=hosts, vms=vms, load=load, special=special)
        kind = "every kind of rule" if special else "CPU and memory"
        print(f"{gap.cases} small clouds, {kind}: placed {gap.placed}, simply {gap.simply}, best {gap.best}")


if __name__ == "__main__":
    main()
