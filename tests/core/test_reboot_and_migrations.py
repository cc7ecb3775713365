"""A host that rebooted by itself, and VMs that were on their way to it or from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rebooted import die, started
from world import Cloud, seen

from ha_controller.core.effects import AskDomains, ResumeVm
from ha_controller.core.incident import VmStage


@pytest.fixture
def cloud() -> Cloud:
    return seen()


def test_a_vm_whose_migration_was_taken_back_before_the_reboot_is_not_started_while_it_runs_at_the_other_end(cloud):
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
    cloud.domains[5, 30] = "running"
    cloud.reboot(3)
    cloud.run(60)
    assert started(cloud) == {31}
    assert "it runs on host 5, although OpenNebula shows it on the host that failed. Never start it" in cloud.told()


def test_a_vm_whose_migration_was_taken_back_is_started_when_the_other_end_says_that_it_is_not_there(cloud):
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
    cloud.reboot(3)
    cloud.run(60)
    assert started(cloud) == {30, 31}
    assert {order.host for order in cloud.ordered(AskDomains)} >= {5}


@pytest.mark.parametrize("how", ["unseen", "seen"])
def test_a_vm_that_was_left_because_it_runs_elsewhere_is_not_started_when_its_host_dies_after_all(cloud, how):
    cloud.deaf.add(ResumeVm)  # the incident stays open for the other VM
    if how == "seen":
        leaving(cloud)
        taken_back(cloud, "running")
    else:
        cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
        cloud.domains[5, 30] = "running"
        cloud.reboot(3)
    cloud.run(20)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    cloud.become(30, 3, 3, tried_on=(), found_missing_at=0.0)  # OpenNebula believes in it again, and it is long ago
    die(cloud)
    cloud.deaf.clear()
    cloud.run(60)
    assert cloud.vms[30].host == 3
    assert cloud.vms[31].host != 3
    assert "Never start it" in cloud.incident(3).vm(30).reason


def test_a_vm_whose_other_end_cannot_be_asked_is_left_alone(cloud):
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
    cloud.no_answer.add(5)
    cloud.reboot(3)
    cloud.run(60)
    assert cloud.incident(3).vm(30).stage is VmStage.WAITING
    cloud.run(300)
    assert started(cloud) == {31}
    assert "host 5, where it may run, could not be asked (no answer)" in cloud.incident(3).vm(30).reason


def leaving(cloud: Cloud) -> None:
    """VM 30 is on its way from host 3 to host 5 when host 3 reboots."""
    cloud.become(30, 3, 4, host=5, previous_host=3)
    cloud.domains[5, 30] = "paused"
    cloud.reboot(3)
    cloud.run(10)


def taken_back(cloud: Cloud, there: str) -> None:
    cloud.become(30, 3, 3, host=3, previous_host=None)
    cloud.domains[5, 30] = there
    cloud.domains[3, 30] = "absent"


def test_a_vm_that_was_leaving_the_host_is_in_the_incident_and_ends_where_it_went(cloud):
    leaving(cloud)
    assert cloud.incident(3).vm(30).stage is VmStage.WAITING
    cloud.become(30, 3, 3, previous_host=None)
    cloud.domains[5, 30] = "running"
    cloud.run(30)
    assert started(cloud) == {31}
    assert cloud.incident(3).vm(30).reason == "runs on kvm-05, where it was moved"
    assert not cloud.incident(3).open


def test_a_vm_that_was_leaving_and_was_taken_back_is_started_again(cloud):
    leaving(cloud)
    taken_back(cloud, "absent")
    cloud.run(5)
    assert cloud.incident(3).vm(30).stage is VmStage.WAITING  # RUNNING there is not believed: the host does not say so
    cloud.oned_notices(3)
    del cloud.domains[3, 30]
    cloud.run(30)
    assert started(cloud) == {30, 31}
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_vm_that_was_leaving_and_was_taken_back_is_not_started_while_it_is_at_the_other_end(cloud):
    leaving(cloud)
    taken_back(cloud, "running")
    cloud.oned_notices(3)
    cloud.run(30)
    assert started(cloud) == {31}
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "Never start it" in cloud.incident(3).vm(30).reason


def test_a_vm_that_goes_on_leaving_is_left_in_the_end_and_told(cloud):
    leaving(cloud)
    cloud.run(330)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "MIGRATE" in cloud.incident(3).vm(30).reason


def test_a_vm_that_was_coming_to_the_host_and_stays_where_it_was_is_an_outcome(cloud):
    cloud.become(30, 3, 4, host=3, previous_host=5)
    cloud.reboot(3)
    cloud.run(10)
    cloud.become(30, 3, 3, host=5, previous_host=None)
    cloud.run(20)
    assert started(cloud) == {31}
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING
