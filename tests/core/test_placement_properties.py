"""Random clouds: no plan breaks a rule, and an exhaustive search hardly ever places more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placement_judge import Case, most_placed, random_case, violations

from ha_controller.core.placement import planner
from ha_controller.core.placement.bundle import Bundle
from ha_controller.core.placement.groups import FREE

SMALL = 300  #: cases that are searched to the end


def places(case: Case) -> tuple[dict[int, int], frozenset[int]]:
    made = planner.plan(case.problem)
    assert {placement.vm for placement in made.placements} == set(case.vms)
    assert all(placement.reason for placement in made.left_out)
    return made.placed, frozenset(placement.vm for placement in made.placements if placement.softened)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**9),
    hosts=st.integers(1, 12),
    vms=st.integers(1, 40),
    load=st.sampled_from([0.3, 0.7, 0.9, 1.2]),
    soften=st.booleans(),
)
def test_no_plan_breaks_a_rule(seed, hosts, vms, load, soften):
    case = random_case(seed, hosts=hosts, vms=vms, load=load, soften=soften)
    placed, softened = places(case)
    assert violations(case, placed, softened) == []
    assert not softened or soften


def missed(*, hosts: int, vms: int, load: float, special: bool) -> tuple[int, int]:
    """(VMs that were placed, VMs that the best assignment places beside them) over all small cases."""
    placed, more = 0, 0
    for seed in range(SMALL):
        case = random_case(seed, hosts=hosts, vms=vms, load=load, special=special)
        done, _ = places(case)
        placed += len(done)
        if len(done) < vms:
            priorities = {task.vm.id: task.priority for task in case.problem.tasks}
            worth = (sum(priorities[vm] == 1 for vm in done), sum(priorities[vm] == 0 for vm in done))
            best = most_placed(case)
            assert best >= worth, f"seed {seed}: the exhaustive search is wrong"
            more += max(0, sum(best) - sum(worth))
    return placed, more


def test_with_cpu_and_memory_alone_an_exhaustive_search_places_no_vm_more():
    placed, more = missed(hosts=4, vms=6, load=0.8, special=False)
    assert placed > 1500
    assert more == 0


def test_with_every_kind_of_rule_it_places_hardly_any_more():
    """What is missed: VMs whose requirements name VMs of the same plan, and affined ones of which a part would fit."""
    placed, more = missed(hosts=3, vms=5, load=0.9, special=True)
    assert placed > 700
    assert more <= 12


# --- planted bugs: the judge catches a planner that forgets a rule ----------------------------------------------------


@pytest.mark.parametrize("forgotten", ["capacity", "neighbours", "requirements", "clusters", "hosts of roles"])
def test_a_planner_that_forgets_a_rule_is_caught(monkeypatch, forgotten):
    from ha_controller.core.placement import screen

    match forgotten:
        case "capacity":
            monkeypatch.setattr(Bundle, "why_not", lambda *_, **__: None)
        case "neighbours":
            monkeypatch.setattr(Bundle, "_keeps_away", lambda *_: None)
        case "requirements":
            monkeypatch.setattr(screen._Index, "meeting", lambda index, _: index.everywhere)
        case "clusters":
            monkeypatch.setattr(screen._Index, "where", lambda index, name, _: 0 if name == "ID" else index.everywhere)
        case _:
            monkeypatch.setattr(screen.Groups, "ties", lambda *_: FREE)
    cases = [random_case(seed, hosts=4, vms=12, load=0.9) for seed in range(60)]
    assert any(violations(case, planner.plan(case.problem).placed) for case in cases)
