"""The reserve: told before the disaster, once for each change, and shown in `explain`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import SETTINGS, Cloud

from ha_controller.core import report, reserve, simulate
from ha_controller.core.effects import Fence, Severity, Tell
from ha_controller.core.events import LeadChanged, ReserveAssessed
from ha_controller.core.model import HostState
from ha_controller.core.settings import Settings


def cloud_with(memory_mb: int, settings: Settings = SETTINGS, hosts: int = 3) -> Cloud:
    """Hosts of 64 GB with two VMs of this size each."""
    cloud = Cloud(settings=settings, hosts=hosts)
    grow(cloud, memory_mb)
    cloud.run(6)
    return cloud


def grow(cloud: Cloud, memory_mb: int) -> None:
    for number, vm in cloud.vms.items():
        cloud.vms[number] = replace(vm, memory_mb=memory_mb)
    cloud.inventory()


def assess(cloud: Cloud) -> list[Tell]:
    """Compute it and take it in; returns what is told."""
    cloud.inventory()
    cloud.run(0.4)
    taken = simulate.snapshot(cloud.controller.state, cloud.vms.values(), cloud.now)
    decision = cloud.feed(reserve.assess(taken, cloud.now))
    return [effect for effect in decision.effects if isinstance(effect, Tell)]


def test_a_reserve_that_is_kept_is_no_news():
    assert assess(cloud_with(8_000)) == []


def test_a_reserve_that_is_not_kept_is_told_with_the_worst_host_and_its_vms():
    cloud = cloud_with(24_000)  # 17 GB are free on each host
    cloud.vms[0] = replace(cloud.vms[0], memory_mb=10_000)
    for vm in (10, 11):
        cloud.vms[vm] = replace(cloud.vms[vm], memory_mb=32_000)
    [told] = assess(cloud)
    assert told.severity is Severity.WARNING
    assert told.text.startswith(
        "cluster default: the reserve of 1 host is not kept, 0 may fail. Without kvm-01, "
        "2 of 2 running VMs would not find a place: vm-10 fits on no host: "
    )
    assert "2 hosts lack memory" in told.text


def test_it_is_told_again_only_when_it_changes_and_when_it_is_kept_again():
    cloud = cloud_with(24_000)
    assert len(assess(cloud)) == 1
    assert assess(cloud) == []
    cloud.vms[0] = replace(cloud.vms[0], memory_mb=10_000)
    assert len(assess(cloud)) == 1
    grow(cloud, 8_000)
    [told] = assess(cloud)
    assert told.severity is Severity.INFO
    assert told.text == "cluster default: the reserve of 1 host is kept again: 2 may fail"
    assert assess(cloud) == []


def test_vms_that_do_not_run_need_no_reserve():
    cloud = cloud_with(24_000)
    for number, vm in cloud.vms.items():
        cloud.vms[number] = replace(vm, state=8, lcm_state=0, label="POWEROFF")
    assert assess(cloud) == []


@pytest.mark.parametrize(
    ("changes", "wants"),
    [
        ({"reserve_hosts": 0}, False),
        ({"reserve_hosts": 0, "cluster_reserve_hosts": {"default": 1}}, True),
        ({"reserve_hosts": 1, "cluster_reserve_hosts": {"default": 0}}, False),
    ],
)
def test_a_cluster_may_have_its_own_reserve(changes, wants):
    cloud = cloud_with(24_000, replace(SETTINGS, **changes))
    assert bool(assess(cloud)) is wants


def test_a_reserve_of_two_hosts_looks_at_two_that_fail_together():
    cloud = cloud_with(12_000, replace(SETTINGS, reserve_hosts=2))
    [told] = assess(cloud)  # two hosts' four VMs need 48 GB, the third one has 40
    assert "the reserve of 2 hosts is not kept, 1 may fail. Without kvm-00, kvm-01, 1 of 4 running VMs" in told.text


def test_who_does_not_lead_tells_nothing_and_a_new_leader_tells_it():
    cloud = cloud_with(24_000)
    cloud.feed(LeadChanged(term=None, leader="other"))
    assert assess(cloud) == []
    cloud.feed(LeadChanged(term=2))
    assert len(assess(cloud)) == 1


def test_what_could_not_be_computed_is_told_once_and_what_was_known_stays():
    cloud = cloud_with(24_000)
    assess(cloud)
    failed = ReserveAssessed(asked_at=cloud.now, failure="it took too long")
    assert [each.text for each in cloud.feed(failed).effects if isinstance(each, Tell)] == [
        "The reserve of the clusters could not be computed: it took too long"
    ]
    assert cloud.feed(failed).effects == ()
    assert cloud.controller.state.reserve is not None
    assert cloud.controller.state.reserve.losses


def test_explain_of_a_host_that_is_well_says_what_its_failure_would_mean():
    cloud = cloud_with(8_000)
    assess(cloud)
    state = cloud.controller.state
    assert report.explain(state, state.hosts[1], cloud.now + 40)["if_failed"] == (
        "all 2 running VMs would find a place (computed 40 s ago)"
    )


def test_explain_shows_where_vms_will_go_while_their_host_is_being_powered_off():
    cloud = cloud_with(8_000)
    cloud.vms[11] = replace(cloud.vms[11], memory_mb=60_000)
    cloud.deaf.add(Fence)
    cloud.kill(1, "off")
    cloud.run(20)
    assert cloud.state(1) is HostState.FAILED
    shown = report.explain(cloud.controller.state, cloud.controller.state.hosts[1], cloud.now)
    assert shown["plan"][0].startswith("vm-11 fits on no host: 2 hosts lack memory")
    assert shown["plan"][1] in ("vm-10 → kvm-00", "vm-10 → kvm-02")
