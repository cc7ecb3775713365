"""A VM that OpenNebula starts at its destination for too long: a restart of oned loses what its drivers were doing."""

from __future__ import annotations

import pytest
from world import Cloud

from ha_controller.adapters.opennebula import LcmState
from ha_controller.core.effects import MoveVm, ReadHost, RecoverVm
from ha_controller.core.events import OrderResult, VmOrderReported
from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.vm_table import Recover

LOST = [LcmState.PROLOG_MIGRATE_UNKNOWN, LcmState.BOOT, LcmState.BOOT_UNKNOWN, LcmState.BOOT_POWEROFF]
for_each_state = pytest.mark.parametrize("state", LOST, ids=[state.name for state in LOST])
HALF, WHOLE = 60.0, 120.0  #: seconds of `vm_timeout`


def lost(cloud: Cloud, state: LcmState) -> int:
    """VM 30 is on its way, and OpenNebula has forgotten it; where to."""
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.deaf.add(MoveVm)
    while not (orders := [order for order in cloud.ordered(MoveVm) if order.vm == 30]):
        cloud.run(1)
    cloud.become(30, 3, state.value, host=orders[0].destination)
    return orders[0].destination


def record(cloud: Cloud) -> VmRecord:
    return cloud.incident(3).vm(30)


def ended(cloud: Cloud) -> list[tuple[int, Recover]]:
    return [(order.host, order.operation) for order in cloud.ordered(RecoverVm) if order.vm == 30]


@for_each_state
def test_it_is_started_there_once_more_when_that_host_says_that_it_is_not_there(cloud, state):
    there = lost(cloud, state)
    cloud.run(HALF - 5)
    assert not ended(cloud), "it has half of its time before anybody interferes"
    cloud.run(10)
    assert ended(cloud) == [(there, Recover.RETRY)]
    assert (record(cloud).stage, record(cloud).runs_on) == (VmStage.RUNNING, there)


@for_each_state
def test_once_and_then_people_are_told(cloud, state):
    there = lost(cloud, state)
    cloud.deaf.add(RecoverVm)
    cloud.run(2 * WHOLE)
    assert ended(cloud) == [(there, Recover.RETRY)]
    assert record(cloud).stage is VmStage.LEFT
    assert {order.destination for order in cloud.ordered(MoveVm) if order.vm == 30} == {there}


@pytest.mark.parametrize("state", LOST[1:], ids=[state.name for state in LOST[1:]])
def test_what_runs_there_is_told_to_opennebula(cloud, state):
    there = lost(cloud, state)
    cloud.domains[there, 30] = "running"
    cloud.run(HALF + 5)
    assert ended(cloud) == [(there, Recover.SUCCESS)]
    assert (record(cloud).stage, record(cloud).runs_on) == (VmStage.RUNNING, there)


@for_each_state
@pytest.mark.parametrize("answer", ["none", "paused"])
def test_while_it_may_be_there_nothing_is_done(cloud, state, answer):
    there = lost(cloud, state)
    if answer == "none":
        cloud.no_answer.add(there)
    else:
        cloud.domains[there, 30] = "paused"
    cloud.run(WHOLE + 5)
    assert not ended(cloud)
    assert record(cloud).stage is VmStage.LEFT


def test_what_runs_where_its_disks_are_still_to_come_is_left_to_people(cloud):
    there = lost(cloud, LcmState.PROLOG_MIGRATE_UNKNOWN)
    cloud.domains[there, 30] = "running"
    cloud.run(WHOLE + 5)
    assert not ended(cloud)
    assert "it runs where it is to be moved" in record(cloud).reason


def test_time_in_which_opennebula_is_silent_does_not_count(cloud):
    lost(cloud, LcmState.BOOT)
    cloud.deaf.add(ReadHost)
    cloud.run(2 * WHOLE)
    cloud.deaf.discard(ReadHost)
    cloud.run(HALF - 10)
    assert not ended(cloud)
    cloud.run(20)
    assert ended(cloud)


def retried(cloud: Cloud) -> int:
    """The second start was ordered beside a first one that had no end; where."""
    there = lost(cloud, LcmState.BOOT)
    cloud.deaf.add(RecoverVm)
    cloud.run(HALF + 5)
    assert ended(cloud) == [(there, Recover.RETRY)]
    cloud.deaf.clear()
    cloud.no_start[30] = {there}
    return there


@pytest.mark.parametrize("state", [LcmState.BOOT_FAILURE, LcmState.UNKNOWN])
def test_after_a_second_start_it_is_never_moved_on_for_the_first_one_may_still_come_to_its_effect(cloud, state):
    """The driver hangs, the second start fails at once, and the host says truly that it is not there: not yet."""
    there = retried(cloud)
    cloud.become(30, 3, state.value)
    cloud.run(WHOLE)
    assert {order.destination for order in cloud.ordered(MoveVm) if order.vm == 30} == {there}
    assert record(cloud).stage is VmStage.LEFT
    assert cloud.vms[30].host == there


@pytest.mark.parametrize("place", ["the dead host", "a third host"])
def test_nor_is_it_moved_from_where_somebody_brought_it_back_to(cloud, place):
    there = retried(cloud)
    cloud.become(30, 3, LcmState.UNKNOWN.value, host=3 if place == "the dead host" else (there + 1) % 3)
    cloud.run(WHOLE)
    assert {order.destination for order in cloud.ordered(MoveVm) if order.vm == 30} == {there}
    assert record(cloud).stage is VmStage.LEFT


def test_of_two_starts_the_one_that_succeeded_counts_though_the_other_one_failed_later(cloud):
    there = retried(cloud)
    cloud.no_start.clear()
    cloud.domains[there, 30] = "running"
    cloud.no_start[30] = {there}
    cloud.become(30, 3, LcmState.BOOT_FAILURE.value)
    cloud.run(30)
    assert (record(cloud).stage, record(cloud).runs_on) == (VmStage.RUNNING, there)


def test_a_second_start_that_was_not_sent_forbids_nothing(cloud):
    there = lost(cloud, LcmState.BOOT)
    cloud.deaf.add(RecoverVm)
    cloud.run(HALF + 3)
    (order,) = [order for order in cloud.ordered(RecoverVm) if order.vm == 30]
    keys = {"vm": 30, "incident": order.incident, "attempt": order.attempt}
    cloud.feed(VmOrderReported(**keys, result=OrderResult.NOT_NOW, detail="busy"))
    assert (record(cloud).second_starts, record(cloud).boots) == (0, 0)
    assert there == record(cloud).destination


def test_the_time_in_one_state_does_not_count_for_the_next(cloud):
    there = lost(cloud, LcmState.PROLOG_MIGRATE_UNKNOWN)
    cloud.run(HALF - 5)
    cloud.become(30, 3, LcmState.BOOT.value, host=there)
    cloud.run(HALF - 10)
    assert not ended(cloud)
    cloud.run(15)
    assert ended(cloud) == [(there, Recover.RETRY)]


def test_after_a_restart_of_ours_its_state_is_seen_for_half_of_its_time_first(cloud):
    lost(cloud, LcmState.BOOT)
    cloud.run(HALF - 10)
    cloud.restart()
    cloud.run(20)
    assert not ended(cloud)
