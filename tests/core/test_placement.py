"""Where VMs go: every rule on its own, what a plan says about VMs that fit nowhere, and how a plan is followed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core.model import Host, HostState, Vm
from ha_controller.core.placement import Candidate, Checker, Plan, Problem, Rule, Task, Underway, plan
from ha_controller.core.resources import (
    Core,
    HugePages,
    NumaNode,
    NumaRequest,
    PciDevice,
    PciRequest,
    Role,
    VmGroup,
)

GPU = PciRequest(vendor=0x10DE, kind=0x0302)


def host(number: int, **changes: object) -> Host:
    made = Host(id=number, name=f"kvm-{number}", cluster=0, vm_mad="kvm", free_cpu=800, free_memory_mb=8192)
    return replace(made, **changes)  # type: ignore[arg-type]


def vm(number: int, **changes: object) -> Vm:
    made = Vm(
        id=number, name=f"vm-{number}", state=3, lcm_state=16, host=99, cluster=0, vm_mad="kvm", cpu=100, memory_mb=1024
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def problem(vms: list[Vm], hosts: list[Host], **changes: object) -> Problem:
    candidates = tuple(Candidate(host=each, state=HostState.OK, seen_s=0.2) for each in hosts)
    made = Problem(tasks=tuple(Task(vm=each) for each in vms), candidates=candidates, groups=())
    return replace(made, **changes)  # type: ignore[arg-type]


def planned(vms: list[Vm], hosts: list[Host], **changes: object) -> Plan:
    return plan(problem(vms, hosts, **changes))


def place(one: Vm, *hosts: Host, **changes: object) -> int | None:
    found = planned([one], [*hosts], **changes).of(one.id)
    assert found is not None
    return found.destination


def refusals(one: Vm, *hosts: Host, **changes: object) -> dict[Rule, int]:
    found = planned([one], [*hosts], **changes).of(one.id)
    assert found is not None
    assert found.destination is None
    return dict(found.refusals)


# --- hosts ------------------------------------------------------------------------------------------------------------


def test_the_host_with_the_most_left_is_taken():
    assert place(vm(1), host(1), host(2, free_memory_mb=16384), host(3)) == 2


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"one_state": 4}, Rule.NOT_ENABLED),
        ({"excluded": "HA_IGNORE=YES"}, Rule.OUT_OF_SCOPE),
        ({"vm_mad": "lxc"}, Rule.DRIVER),
        ({"cluster": 7}, Rule.CLUSTER),
        ({"free_cpu": 99}, Rule.CPU),
        ({"free_memory_mb": 1023}, Rule.MEMORY),
    ],
)
def test_a_host_that_does_not_suit_takes_nothing(changes, rule):
    assert refusals(vm(1), host(1, **changes)) == {rule: 1}
    assert place(vm(1), host(1, **changes), host(2)) == 2


@pytest.mark.parametrize(
    ("state", "seen_s", "rule"),
    [(HostState.SUSPECT, 0.2, Rule.NOT_OK), (HostState.OK, 3.1, Rule.NOT_SEEN)],
)
def test_a_host_that_we_have_not_seen_well_takes_nothing(state, seen_s, rule):
    candidates = (Candidate(host=host(1), state=state, seen_s=seen_s),)
    [placement] = plan(Problem(tasks=(Task(vm=vm(1)),), candidates=candidates)).placements
    assert placement.refusals == ((rule, 1),)


def test_the_reason_counts_the_first_rule_of_each_host():
    hosts = [host(number, free_memory_mb=10) for number in range(3)] + [host(3, cluster=7), host(4, vm_mad="lxc")]
    [placement] = planned([vm(1)], hosts).placements
    words = "fits on no host: 3 hosts lack memory, 1 is in another cluster, 1 has another hypervisor"
    assert placement.reason == words


def test_another_cluster_is_taken_only_if_it_has_all_datastores_and_its_own_is_full():
    away = host(2, cluster=7, free_memory_mb=65536)
    assert place(vm(1, reach=frozenset({0, 7})), host(1), away) == 1
    assert place(vm(1, reach=frozenset({0, 7})), host(1, free_memory_mb=10), away) == 2
    assert refusals(vm(1, reach=frozenset({7})), host(1)) == {Rule.CLUSTER: 1}
    assert refusals(vm(1, reach=None), away) == {Rule.CLUSTER: 1}


def test_what_is_under_way_to_a_host_is_counted_there():
    under_way = (Underway(vm=vm(50, memory_mb=7500), destination=1),)
    assert place(vm(1), host(1), host(2, free_memory_mb=4096), underway=under_way) == 2


def test_a_host_on_which_it_did_not_start_is_not_chosen_again():
    tasks = (Task(vm=vm(1), failed_on=(2,)),)
    assert planned([], [host(1, free_memory_mb=2048), host(2)], tasks=tasks).placed == {1: 1}
    assert planned([], [host(2)], tasks=tasks).left_out[0].refusals == ((Rule.FAILED_BEFORE, 1),)


def test_a_host_that_opennebula_refused_is_the_last_resort():
    full, better = host(1, free_memory_mb=2048), host(2)
    tasks = (Task(vm=vm(1), refused_on=(2,)),)
    assert planned([], [full, better], tasks=tasks).placed == {1: 1}
    assert planned([], [better], tasks=tasks).placed == {1: 2}


# --- requirements -----------------------------------------------------------------------------------------------------


def test_requirements_are_met():
    gold, plain = host(1, attributes=({"TIER": "gold"},)), host(2, free_memory_mb=65536)
    assert place(vm(1, requirements="TIER = gold"), gold, plain) == 1
    assert place(vm(1, automatic_requirements="!(TIER = gold)"), gold, plain) == 2
    assert refusals(vm(1, requirements="TIER = gold", automatic_requirements="ID = 2"), gold, plain) == {
        Rule.AUTOMATIC_REQUIREMENTS: 1,
        Rule.REQUIREMENTS: 1,
    }


def test_the_first_layer_that_has_an_attribute_decides():
    one = host(1, attributes=({"A": "1"}, {"A": "2", "B": "2"}), repeated={"C": ("x", "y")})
    assert place(vm(1, requirements='A = 1 & B = 2 & C @> "y" & NAME = "kvm-1" & CLUSTER_ID = 0'), one) == 1


@pytest.mark.parametrize("text", ["TIER = ", "TIER =~ gold", "CURRENT_VMS > 5"])
def test_a_requirement_that_is_not_understood_is_never_guessed(text):
    [placement] = planned([vm(1, requirements=text)], [host(1)]).placements
    assert placement.destination is None
    assert "its SCHED_REQUIREMENTS cannot be evaluated (column" in placement.reason
    assert "TIER" not in placement.reason


def test_a_requirement_that_names_another_vm_is_met_while_the_plan_grows():
    apart = vm(2, requirements="CURRENT_VMS != 1", memory_mb=512)
    assert planned([vm(1), apart], [host(1), host(2, free_memory_mb=1024)]).placed == {1: 1, 2: 2}
    assert planned([vm(1), apart], [host(1)]).left_out
    beside = vm(2, requirements="CURRENT_VMS = 70", memory_mb=512)
    assert place(beside, host(1), host(2, vms=(70,), free_memory_mb=1024)) == 2


def test_no_vm_is_put_beside_one_whose_requirement_excludes_it():
    """The larger one is placed later because it has more hosts to choose from."""
    shy = vm(1, requirements="CURRENT_VMS != 2 & ID = 1", memory_mb=512)
    assert planned([shy, vm(2, memory_mb=4096)], [host(1), host(2, free_memory_mb=4096)]).placed == {1: 1, 2: 2}


# --- groups -----------------------------------------------------------------------------------------------------------


def group(*roles: Role, **rules: object) -> tuple[VmGroup, ...]:
    return (replace(VmGroup(id=5, name="shop", roles=roles), **rules),)  # type: ignore[arg-type]


def members(*numbers: int, **changes: object) -> list[Vm]:
    return [vm(number, group=5, **changes) for number in numbers]


def test_vms_of_an_anti_affined_role_share_no_host():
    groups = group(Role(name="web", vms=(1, 2, 70), policy="ANTI_AFFINED"))
    hosts = [host(1, free_memory_mb=65536), host(2), host(3, vms=(70,))]
    assert sorted(planned(members(1, 2), hosts, groups=groups).placed.values()) == [1, 2]
    assert len(planned(members(1, 2), hosts[:1], groups=groups).left_out) == 1
    assert refusals(members(1)[0], hosts[2], groups=groups) == {Rule.ANTI_AFFINITY: 1}


def test_vms_of_an_affined_role_go_together_or_to_those_that_run():
    groups = group(Role(name="db", vms=(1, 2, 3), policy="AFFINED"))
    large = members(1, 2, 3, memory_mb=2048)
    small_hosts = [host(1, free_memory_mb=4096), host(2, free_memory_mb=4096), host(3, free_memory_mb=6144)]
    assert planned(large, small_hosts, groups=groups).placed == {1: 3, 2: 3, 3: 3}
    running = group(Role(name="db", vms=(1, 2, 3, 70), policy="AFFINED"))
    at_one = [host(1, vms=(70,), free_memory_mb=4096), *small_hosts[1:]]
    assert set(planned(large, at_one, groups=running).placed.values()) == {1}
    assert len(planned(large, at_one, groups=running).left_out) == 1


def test_where_a_vm_failed_to_start_it_holds_back_nobody_of_its_group():
    """It is on the list of that host still, and moves on."""
    groups = group(Role(name="db", vms=(1, 2), policy="AFFINED"))
    failed, other = members(1, 2)
    tasks = (Task(vm=replace(failed, host=1), failed_on=(1,)), Task(vm=other))
    assert planned([], [host(1, vms=(1,), free_memory_mb=65536), host(2)], groups=groups, tasks=tasks).placed == {
        1: 2,
        2: 2,
    }


def test_if_not_all_affined_vms_fit_together_some_are_better_than_none():
    groups = group(Role(name="db", vms=(1, 2, 3), policy="AFFINED"))
    hosts = [host(1, free_memory_mb=4096), host(2, free_memory_mb=2048)]
    made = planned(members(1, 2, 3, memory_mb=2048), hosts, groups=groups)
    assert made.placed == {1: 1, 2: 1}
    assert "lacks memory" in made.left_out[0].reason
    assert "is not where the VMs of its group are" in made.left_out[0].reason


def test_roles_are_affined_and_anti_affined_with_each_other():
    web, db, cache = Role(name="web", vms=(1,)), Role(name="db", vms=(2,)), Role(name="cache", vms=(3,))
    groups = group(web, db, cache, affined=(("web", "cache"),), anti_affined=(("web", "db"),))
    placed = planned(members(1, 2, 3), [host(1), host(2)], groups=groups).placed
    assert placed[1] == placed[3] != placed[2]


def test_a_role_is_bound_to_hosts():
    groups = group(Role(name="web", vms=(1,), hosts=(2, 3), not_hosts=(3,)))
    assert place(members(1)[0], host(1), host(2, free_memory_mb=2048), host(3), groups=groups) == 2
    assert refusals(members(1)[0], host(1), host(3), groups=groups) == {Rule.HOST_AFFINITY: 2}


@pytest.mark.parametrize("groups", [None, (), group(Role(name="web", vms=(2,)))])
def test_a_group_that_is_not_known_or_out_of_date_is_never_guessed(groups):
    [placement] = planned(members(1), [host(1)], groups=groups).placements
    assert placement.destination is None
    assert "its VM group 5 cannot be read" in placement.reason


def test_anti_affinity_bends_only_if_the_operator_says_so_and_as_little_as_it_can():
    groups = group(Role(name="web", vms=(1, 2, 3), policy="ANTI_AFFINED", not_hosts=(9,)))
    hosts = [host(1), host(2, free_memory_mb=4096), host(9)]
    strict = planned(members(1, 2, 3), hosts, groups=groups)
    assert len(strict.placed) == 2
    soft = planned(members(1, 2, 3), hosts, groups=groups, soften=True)
    assert sorted(soft.placed.values()) == [1, 1, 2]
    assert [placement.softened for placement in soft.placements].count(True) == 1


# --- devices ----------------------------------------------------------------------------------------------------------


def gpu(slot: int, **changes: object) -> PciDevice:
    made = PciDevice(
        address=f"0000:0{slot}:00:0", short_address=f"0{slot}:00.0", vendor=0x10DE, device=0x20B5, kind=0x0302
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_device_is_given_away_once():
    hosts = [host(1, pci=(gpu(1),)), host(2, pci=(gpu(1), gpu(2))), host(3, free_memory_mb=65536)]
    made = planned([vm(number, pci=(GPU,)) for number in range(4)], hosts)
    assert sorted(made.placed.values()) == [1, 2, 2]
    assert dict(made.left_out[0].refusals) == {Rule.PCI: 3}
    assert place(vm(1, pci=(GPU, GPU)), *hosts) == 2


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        (PciRequest(short_address="01:00.0"), True),
        (PciRequest(short_address="02:00.0"), False),
        (PciRequest(short_address="02:00.0", vendor=0x10DE), True),  # its address from before it was moved
        (PciRequest(vendor=0x8086), False),
        (PciRequest(vendor=0x10DE, device=0x20B5, kind=0x0302), True),
        (PciRequest(vendor=-1), False),  # unreadable
        (PciRequest(), False),
        (PciRequest(vendor=0x10DE, profile="nvidia-1"), True),
        (PciRequest(vendor=0x10DE, profile="nvidia-3"), False),
    ],
)
def test_a_device_suits_by_address_or_by_kind(request_, fits):
    one = host(1, pci=(gpu(1, profiles=("nvidia-1", "nvidia-2")),))
    assert (place(vm(1, pci=(request_,)), one) == 1) is fits


def node(number: int, cores: int = 4, **changes: object) -> NumaNode:
    made = NumaNode(
        id=number,
        cores=tuple(Core(free=2, idle=True) for _ in range(cores)),
        threads_per_core=2,
        free_memory_kb=4 << 20,
        pages=(HugePages(size_kb=2048, free=1000),),
        nearest=(number, 1 - number),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def pinned(cpus: int, **changes: object) -> NumaRequest:
    return replace(NumaRequest(nodes=((cpus, 1 << 20),), pinned=True), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        (pinned(8), True),
        (pinned(10), False),  # no node has so many threads
        (pinned(4, dedicated=True), True),
        (pinned(5, dedicated=True), False),  # a core for each
        (pinned(3), True),  # one thread of a core
        (pinned(3, threads=2), False),  # cannot be cut into whole cores
        (pinned(4, threads=4), False),  # the host has two
        (NumaRequest(nodes=((8, 1 << 20), (8, 1 << 20)), pinned=True), True),
        (NumaRequest(nodes=((8, 1 << 20), (8, 1 << 20), (2, 1)), pinned=True), False),
        (NumaRequest(nodes=((2, 5 << 20),), pinned=True), False),  # memory
        (pinned(2, page_kb=2048), True),
        (pinned(2, page_kb=1048576), False),  # no such pages
        (NumaRequest(nodes=((2, 3 << 20),), page_kb=2048), False),  # 1536 pages of 2 MB
        (NumaRequest(nodes=((2, 1 << 20),), page_kb=2048), True),
        (NumaRequest(nodes=((64, 3 << 20),), node=1), True),  # its cores are shared
        (NumaRequest(nodes=((1, 1 << 20),), node=2), False),  # no such node
    ],
)
def test_a_topology_fits_on_the_nodes_of_a_host(request_, fits):
    one = host(1, numa=(node(0), node(1)))
    assert (place(vm(1, numa=request_), one) == 1) is fits


def test_cores_memory_and_pages_are_given_away_once():
    one = host(1, numa=(node(0), node(1)))
    eights = [vm(number, numa=pinned(8)) for number in range(3)]
    assert len(planned(eights, [one]).placed) == 2
    paged = [vm(number, numa=NumaRequest(nodes=((1, 1 << 20),), page_kb=2048)) for number in range(4)]
    assert len(planned(paged, [one]).placed) == 2  # 512 pages each, 1000 on each of two nodes
    assert dict(planned(paged, [one]).left_out[0].refusals) == {Rule.NUMA: 1}


def test_a_busy_core_is_not_dedicated():
    busy = replace(node(0), cores=(Core(free=1, idle=False),))
    assert place(vm(1, numa=pinned(1, dedicated=True)), host(1, numa=(busy,))) is None
    assert place(vm(1, numa=pinned(1)), host(1, numa=(busy,))) == 1


def test_a_host_without_numa_nodes_takes_no_pinned_vm():
    assert refusals(vm(1, numa=pinned(2)), host(1)) == {Rule.NUMA: 1}


# --- many -------------------------------------------------------------------------------------------------------------


def test_large_vms_are_not_locked_out_by_small_ones():
    small = [vm(number, memory_mb=1024) for number in range(1, 5)]
    large = vm(9, memory_mb=6144)
    made = planned([*small, large], [host(1), host(2, free_memory_mb=4096)])
    assert len(made.placed) == 5


def test_others_give_way_to_a_vm_that_has_only_one_host():
    bound = vm(1, requirements="ID = 1", memory_mb=5000)
    others = [vm(number, memory_mb=3000) for number in (2, 3)]
    hosts = [host(1, free_memory_mb=7500), host(2, free_memory_mb=6100)]
    assert planned([bound, *others], hosts).placed == {1: 1, 2: 2, 3: 2}


def test_the_important_ones_get_the_room():
    tasks = (Task(vm=vm(1, memory_mb=5000)), Task(vm=vm(2, memory_mb=4000), priority=5))
    assert planned([], [host(1)], tasks=tasks).placed == {2: 1}


def test_the_same_problem_gives_the_same_plan_in_any_order():
    vms = [vm(number, memory_mb=512 * (number % 5 + 1)) for number in range(1, 40)]
    hosts = [host(number, free_memory_mb=4096 + 512 * (number % 3)) for number in range(8)]
    made = planned(vms, hosts)
    turned = planned(vms[::-1], hosts[::-1])
    assert made == turned
    assert len(made.placements) == len(vms)


# --- right before the order -------------------------------------------------------------------------------------------


def test_a_place_is_looked_at_again_right_before_the_order():
    checker = Checker(problem([], [host(1), host(2, free_memory_mb=10)]))
    assert checker.fits(Task(vm=vm(1)), 1)
    assert not checker.fits(Task(vm=vm(1)), 2)
    assert checker.may_take(Task(vm=vm(1)), 2)  # one that may be on its way there already is counted there
    assert not checker.may_take(Task(vm=vm(1, vm_mad="lxc")), 1)
    assert not checker.fits(Task(vm=vm(1)), 77)
    checker.take(vm(5, memory_mb=8000), 1)
    assert not checker.fits(Task(vm=vm(1)), 1)
