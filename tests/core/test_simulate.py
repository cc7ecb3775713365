"""What would happen if hosts failed now: by the rules of recovery, without touching anything."""

from __future__ import annotations

from dataclasses import replace

from world import Cloud

from ha_controller.core import simulate
from ha_controller.core.effects import MoveVm
from ha_controller.core.resources import ReadyBy, ReadyGate, Startup
from ha_controller.core.simulate import Snapshot


def taken(cloud) -> Snapshot:
    cloud.inventory()
    cloud.run(1)
    return simulate.snapshot(cloud.controller.state, cloud.vms.values(), cloud.now)


def test_each_vm_has_a_place_a_reason_or_is_left_alone(make_cloud):
    cloud = make_cloud(hosts=4, vms_per_host=3)
    cloud.run(6)
    cloud.vms[10] = replace(cloud.vms[10], memory_mb=500_000)
    cloud.vms[11] = replace(cloud.vms[11], obstacle="its disks are on host-local storage")
    cloud.vms[12] = replace(cloud.vms[12], state=8, lcm_state=0, label="POWEROFF")
    loss = taken(cloud).lose([1])
    assert [each.vm for each in loss.nowhere] == [10]
    assert "3 hosts lack memory" in loss.nowhere[0].reason
    assert {each.vm: each.reason for each in loss.left}[11] == "its disks are on host-local storage"
    assert next(each for each in loss.placements if each.vm == 12).destination is not None  # moved, not started


def test_hosts_that_fail_together_take_nothing_from_each_other(make_cloud):
    cloud = make_cloud(hosts=3, vms_per_host=2)
    cloud.run(6)
    loss = taken(cloud).lose([0, 1])
    assert {each.destination for each in loss.placements} == {2}
    assert len(loss.placements) == 4


def test_nothing_is_changed_or_ordered(cloud):
    before = len(cloud.effects)
    snapshot = taken(cloud)
    snapshot.lose([3])
    simulate.capacity(snapshot)
    assert len(cloud.effects) == before
    assert cloud.controller.state.planned is None


def test_the_plan_of_a_real_failure_is_the_simulated_one(cloud):
    expected = {each.vm: each.destination for each in taken(cloud).lose([3]).placements}
    cloud.kill(3, "off")
    cloud.run(15)
    assert {vm: cloud.vms[vm].host for vm in expected} == expected


def test_capacity_tells_how_many_hosts_may_fail(make_cloud):
    cloud = make_cloud(hosts=5, vms_per_host=2)
    cloud.run(6)
    for number, vm in cloud.vms.items():
        cloud.vms[number] = replace(vm, memory_mb=16384)  # 32 of 64 GB on each host
    [cluster] = simulate.capacity(taken(cloud))
    assert cluster.may_fail == 2  # three leave room for 96 GB; the fourth would need 128
    assert cluster.too_many is not None
    assert len(cluster.too_many.hosts) == 3
    assert cluster.too_many.nowhere
    assert [loss.hosts for loss in cluster.alone] == [(0,), (1,), (2,), (3,), (4,)]


def test_a_host_whose_vms_fit_nowhere_is_named(make_cloud):
    cloud = make_cloud(hosts=3, vms_per_host=1)
    cloud.run(6)
    cloud.vms[20] = replace(cloud.vms[20], memory_mb=65536)
    [cluster] = simulate.capacity(taken(cloud))
    assert cluster.may_fail == 0
    assert cluster.too_many is not None
    assert cluster.too_many.hosts == (2,)


def test_an_empty_cluster_may_lose_every_host(make_cloud):
    cloud = make_cloud(hosts=3, vms_per_host=0)
    cloud.run(6)
    [cluster] = simulate.capacity(taken(cloud))
    assert cluster.may_fail == 3
    assert cluster.too_many is None


# --- the order of starts ---


def write(cloud: Cloud, vm: int, *after: str, **startup: object) -> None:
    cloud.vms[vm] = replace(cloud.vms[vm], startup=Startup(after=after, **startup))


def test_the_order_of_starts_is_foreseen_and_is_the_real_one(make_cloud):
    cloud = make_cloud(vms_per_host=5)
    cloud.run(6)
    write(cloud, 30, "vm-34")
    write(cloud, 31, priority=-2)
    write(cloud, 32, "vm-33", priority=7)
    write(cloud, 33, ready=ReadyGate(by=ReadyBy.TCP, port=5432, address="192.0.2.7"), ready_delay_s=20.0)
    write(cloud, 34, ready=ReadyGate(by=ReadyBy.AGENT))
    snapshot = taken(cloud)
    found = snapshot.lose([3]).starts(replace(snapshot.settings, ready_delay_s=1.0))
    assert [(each.vm, each.tier, each.after, each.ready) for each in found] == [
        (33, 7, (), "port 5432 of 192.0.2.7 answers, 20 s later"),
        (32, 7, ("vm-33",), "RUNNING, 1 s later"),
        (34, 0, (), "guest agent answers, 1 s later"),
        (30, 0, ("vm-34",), "RUNNING, 1 s later"),
        (31, -2, (), "RUNNING, 1 s later"),
    ]
    cloud.kill(3, "off")
    cloud.run(60)
    assert list(dict.fromkeys(order.vm for order in cloud.ordered(MoveVm))) == [each.vm for each in found]


def test_only_those_that_find_a_place_and_run_now_are_in_it(make_cloud):
    cloud = make_cloud(vms_per_host=4)
    cloud.run(6)
    write(cloud, 30, "31", "32", "33")
    cloud.vms[31] = replace(cloud.vms[31], memory_mb=500_000)
    cloud.vms[32] = replace(cloud.vms[32], state=8, lcm_state=0, label="POWEROFF")
    cloud.vms[33] = replace(cloud.vms[33], obstacle="a device that stays")
    snapshot = taken(cloud)
    loss = snapshot.lose([3])
    assert [(each.vm, each.after, each.ready) for each in loss.starts(snapshot.settings)] == [(30, (), "RUNNING")]


def test_what_would_not_be_followed_is_foreseen(make_cloud):
    cloud = make_cloud(vms_per_host=3)
    cloud.run(6)
    write(cloud, 30, "nobody", "vm-50", "vm-31", "group:none")
    write(cloud, 31, "vm-30", wrong=("HA_READY=yes is not understood",))
    loss = taken(cloud).lose([3])
    assert loss.strangers == {"nobody", "vm-50", "group:none"}
    assert loss.order_faults({"nobody"}) == (
        "vm-30: HA_AFTER names group:none: there is no such VM group or role",
        "vm-30: HA_AFTER names nobody: no VM and no OneFlow role has that name",
        "vm-31: HA_READY=yes is not understood",
        "vm-31: HA_AFTER leads in a circle, and it does not wait for vm-30",
    )
