"""VMs that were left behind, ordered away or on their way when their host comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from returned import away, back, change, shows, unfenced
from world import Cloud, seen

from ha_controller.core.effects import (
    MoveVm,
    ResumeVm,
)
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState, Signal, VmPolicy


def behind(**changes: object) -> Cloud:
    """vm-30 cannot move, because its disks are on host 3; vm-31 was moved."""
    cloud = Cloud()
    cloud.vms[30] = replace(cloud.vms[30], storage_obstacle="its disks are on the host", **changes)
    cloud.run(6)
    return away(cloud)


def test_vms_that_could_not_move_run_again_when_their_host_is_readmitted():
    cloud = back(behind())
    cloud.oned_notices(3)
    assert unfenced(cloud).code == 0
    cloud.run(10)
    assert {order.vm for order in cloud.ordered(ResumeVm)} == {30}
    assert (cloud.vms[30].host, cloud.vms[30].label) == (3, "RUNNING")
    assert cloud.incident(3).closed_at


def test_that_death_of_the_host_is_counted_once():
    cloud = back(behind())
    deaths = cloud.cloud.deaths
    cloud.oned_notices(3)
    unfenced(cloud)
    cloud.run(10)
    assert cloud.cloud.deaths == deaths


@pytest.mark.parametrize("policy", [VmPolicy.LEAVE, VmPolicy.POWEROFF])
def test_a_vm_whose_policy_says_so_is_not_started(policy):
    cloud = back(behind(policy=policy))
    cloud.oned_notices(3)
    unfenced(cloud)
    cloud.run(10)
    assert cloud.ordered(ResumeVm) == []
    assert "is back: it is given back" not in cloud.told()


def ordered_away() -> Cloud:
    """An order to move vm-30 to host 5 was given once, and OpenNebula still has it on host 3."""
    cloud = back(behind())
    cloud.oned_notices(3)
    records = cloud.controller.state.incidents[3].vms
    ordered = {30: replace(records[0], order=1, ordered_to=(5,))}
    change(cloud, vms=tuple(ordered.get(each.id, each) for each in records))
    return cloud


@pytest.mark.parametrize(("there", "starts"), [("absent", {30}), ("running", set()), ("paused", set())])
def test_a_vm_that_was_ordered_away_is_started_only_if_it_is_not_where_it_was_ordered_to(there, starts):
    cloud = ordered_away()
    cloud.domains[5, 30] = there
    assert unfenced(cloud).code == 0
    cloud.run(20)
    assert {order.vm for order in cloud.ordered(ResumeVm)} == starts


def test_a_vm_that_was_ordered_to_a_host_that_cannot_be_asked_is_left_alone():
    cloud = ordered_away()
    cloud.no_answer.add(5)
    unfenced(cloud)
    cloud.run(330)
    assert cloud.ordered(ResumeVm) == []
    assert "vm-30 is left alone: not RUNNING after 300 s: host 5, where it may run, could not be asked" in cloud.told()


def test_a_vm_that_was_left_because_it_may_run_elsewhere_is_not_started_later_either():
    """When the host is back, OpenNebula has heard of it for long, and the history is no news any more."""
    cloud = Cloud()
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
    cloud.domains[5, 30] = "running"
    cloud.run(6)
    back(away(cloud))
    assert "it runs on host 5" in cloud.incident(3).vm(30).reason
    cloud.vms[30] = replace(cloud.vms[30], tried_on=())
    cloud.oned_notices(3)
    unfenced(cloud)
    cloud.run(20)
    assert cloud.ordered(ResumeVm) == []
    assert cloud.told().count("vm-30 is left alone: it runs on host 5") == 2


def on_the_way(state: int, lcm_state: int, *, here: str = "absent") -> Cloud:
    """Host 3 was proven off, and answers while vm-30 is on its way to another host; then it is given back."""
    cloud = seen()
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    while not cloud.ordered(MoveVm):
        cloud.run(0.2)
    for order in cloud.ordered(MoveVm):
        cloud._accepted(order)
        cloud.become(order.vm, *((state, lcm_state) if order.vm == 30 else (3, 3)), host=order.destination)
    cloud.domains[cloud.vms[30].host, 30] = "absent"
    cloud.domains[3, 30] = here
    back(cloud, seconds=30)
    assert cloud.state(3) is HostState.FAILED, "life has voided the proof"
    cloud.deaf.clear()
    assert unfenced(cloud).code == 0
    cloud.run(3)
    return cloud


def test_a_vm_on_its_way_when_its_host_answers_again_has_its_outcome_where_that_ends():
    cloud = on_the_way(3, 2)  # BOOT
    place = cloud.vms[30].host
    assert not cloud.incident(3).vm(30).settled
    cloud.become(30, 3, 3)
    cloud.run(5)
    assert cloud.incident(3).vm(30).reason == f"runs on kvm-{place:02}, where it was moved"
    assert not cloud.incident(3).open
    assert cloud.ordered(ResumeVm) == []


def test_one_that_arrived_powered_off_is_started_where_it_is():
    cloud = on_the_way(8, 0)
    place = cloud.vms[30].host
    cloud.run(10)
    assert [(order.vm, order.host) for order in cloud.ordered(ResumeVm)] == [(30, place)]
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_one_that_is_still_on_the_host_that_came_back_is_not_started_elsewhere():
    cloud = on_the_way(8, 0, here="running")
    cloud.run(330)
    assert cloud.ordered(ResumeVm) == []


def test_one_that_arrived_on_a_host_that_fails_then_does_not_wait_for_ever():
    cloud = on_the_way(8, 0, here="paused")
    place = cloud.vms[30].host
    cloud.kill(place, "mute")  # it cannot be powered off, so nobody moves its VMs
    for channel in ("neighbours", "heartbeat"):
        cloud.elsewhere[channel][place] = Signal.SILENT
    cloud.run(30)
    cloud.domains[3, 30] = "absent"
    cloud.run(200)
    assert not cloud.incident(3).vm(30).settled
    cloud.run(200)
    assert cloud.ordered(ResumeVm) == []
    assert "vm-30 is left alone: not RUNNING after 300 s" in cloud.told()


def test_one_whose_start_failed_there_is_left_with_the_reason():
    cloud = on_the_way(3, 36)
    assert "its start failed: BOOT_FAILURE on kvm-" in cloud.incident(3).vm(30).reason
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT


def test_a_vm_that_somebody_switched_off_meanwhile_or_moved_is_not_started():
    for changed in ({"state": 8, "lcm_state": 0, "label": "POWEROFF"}, {"host": 5}):
        cloud = back(behind())
        cloud.vms[30] = replace(cloud.vms[30], **changed)
        unfenced(cloud)
        cloud.run(10)
        assert cloud.ordered(ResumeVm) == []
        assert "is back: it is given back" not in cloud.told()
