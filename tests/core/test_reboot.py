"""A host that rebooted by itself: its VMs are started again where they are, and nothing is powered off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud, say, seen

from ha_controller.core.effects import Fence, HostStep, OrderHost, ResumeVm
from ha_controller.core.events import Verb
from ha_controller.core.model import HostState, Signal
from ha_controller.core.settings import Mode


@pytest.fixture
def cloud() -> Cloud:
    return seen()


def started(cloud: Cloud) -> set[int]:
    return {order.vm for order in cloud.ordered(ResumeVm) if isinstance(order, ResumeVm)}


def test_a_host_that_reboots_faster_than_anybody_sees_gets_its_vms_back_without_a_power_action(cloud):
    cloud.reboot(3)
    cloud.run(30)
    assert not cloud.ordered(Fence)
    assert started(cloud) == {30, 31}
    assert all((cloud.vms[vm].host, cloud.vms[vm].label) == (3, "RUNNING") for vm in (30, 31))
    assert not cloud.incident(3).open
    assert "rebooted by itself; 2 VMs run again" in cloud.incident(3).closing
    assert cloud.state(3) is HostState.OK
    assert cloud.one_states[3] == 2


def test_opennebula_is_made_to_ask_the_host_anew_when_it_does_not_notice_by_itself(cloud):
    cloud.reboot(3)
    cloud.run(10)
    assert not cloud.ordered(OrderHost)
    cloud.run(10)
    assert [order.step for order in cloud.ordered(OrderHost)] == [HostStep.OFFLINE, HostStep.ENABLE]


def test_opennebula_that_noticed_by_itself_is_left_alone(cloud):
    cloud.reboot(3)
    cloud.run(3)
    cloud.oned_notices(3)
    cloud.run(10)
    assert started(cloud) == {30, 31}
    assert not cloud.ordered(OrderHost)


def test_a_host_that_a_person_disabled_is_not_enabled(cloud):
    cloud.one_states[3] = 4
    cloud.inventory()
    cloud.reboot(3)
    cloud.run(60)
    assert not cloud.ordered(OrderHost)
    cloud.oned_notices(3)
    cloud.run(10)
    assert started(cloud) == {30, 31}


@pytest.mark.parametrize("ended_before_s", [0.0, 3600.0])
def test_a_vm_that_ended_long_before_the_reboot_stays_as_it_is(cloud, ended_before_s):
    cloud.vms[30] = replace(
        cloud.vms[30], state=8, lcm_state=0, label="POWEROFF", found_missing_at=cloud.now - ended_before_s
    )
    cloud.vms[31] = replace(cloud.vms[31], state=8, lcm_state=0, label="POWEROFF")  # its owner switched it off
    cloud.reboot(3)
    cloud.run(60)
    assert started(cloud) == (set() if ended_before_s else {30})


def test_a_host_without_vms_is_only_told(cloud):
    for vm in (30, 31):
        del cloud.vms[vm]
    cloud.reboot(3)
    cloud.run(10)
    assert not cloud.incidents
    assert "kvm-03 rebooted by itself; no VM was lost" in cloud.told()


def test_a_reboot_during_which_the_host_was_suspect_is_seen_all_the_same(cloud):
    cloud.kill(3)
    cloud.run(30)
    assert cloud.state(3) is HostState.SUSPECT
    cloud.reboot(3)
    del cloud.dead[3]
    cloud.run(30)
    assert started(cloud) == {30, 31}
    assert not cloud.ordered(Fence)


def test_a_reboot_while_the_controller_was_away_is_seen_and_what_opennebula_noticed_meanwhile_counts(cloud):
    """The host says itself when it was booted."""
    cloud.now += 600
    cloud.reboot(3)
    cloud.booted_at[3] = cloud.now
    cloud.now += 60
    cloud.oned_notices(3)
    cloud.now += 60
    cloud.restart()
    cloud.run(20)
    assert started(cloud) == {30, 31}


def test_a_crash_between_noticing_and_starting_forgets_no_vm(cloud):
    for seconds in (0.2, 0.4, 1.0, 16.0):
        made = seen()
        made.reboot(3)
        made.run(seconds)
        made.restart()
        made.run(40)
        assert started(made) == {30, 31}, seconds
        assert not made.incident(3).open
        assert len(made.incidents) == 1


def test_what_a_host_said_before_it_fell_silent_does_not_make_it_isolated(cloud):
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    cloud.run(4)
    assert cloud.state(3) is HostState.SUSPECT
    assert "isolated" not in cloud.told()


def test_a_late_word_of_an_earlier_boot_is_no_reboot(cloud):
    """A file system may show an old heartbeat for a minute."""
    before = cloud.boots[3]
    cloud.reboot(3)
    cloud.run(40)
    after = cloud.boots[3]
    cloud.boots[3] = before
    cloud.run(2)
    cloud.boots[3] = after
    cloud.run(40)
    assert len(cloud.incidents) == 1


def test_a_host_in_maintenance_is_rebooted_by_a_person(cloud):
    cloud.excluded = {3: "HA_IGNORE=YES"}
    cloud.inventory()
    cloud.reboot(3)
    cloud.run(30)
    assert not cloud.incidents
    cloud.excluded = {}
    cloud.inventory()
    cloud.run(30)
    assert not cloud.incidents


def test_observing_only_tells(make_cloud):
    cloud = seen(mode=Mode.OBSERVE)
    cloud.reboot(3)
    cloud.run(60)
    assert not started(cloud)
    assert not cloud.ordered(OrderHost)
    assert cloud.incident(3).hold.startswith("observing only")


def test_a_host_that_dies_while_its_vms_are_being_started_is_fenced_and_they_are_moved(cloud):
    cloud.deaf.add(ResumeVm)
    cloud.reboot(3)
    cloud.run(25)
    assert started(cloud) == {30, 31}
    cloud.deaf.clear()
    cloud.kill(3, "off")
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    cloud.run(60)
    assert {order.host for order in cloud.ordered(Fence)} == {3}
    assert cloud.state(3) is HostState.RECOVERED
    assert all(cloud.vms[vm].host != 3 for vm in (30, 31))
    assert all(cloud.vms[vm].label == "RUNNING" for vm in (30, 31))


def test_a_host_that_falls_silent_for_a_moment_meanwhile_goes_on(cloud):
    cloud.deaf.add(ResumeVm)
    cloud.reboot(3)
    cloud.run(18)
    cloud.kill(3)
    cloud.run(3)
    assert cloud.state(3) is HostState.SUSPECT
    del cloud.dead[3]
    cloud.deaf.clear()
    cloud.run(60)
    assert not cloud.ordered(Fence)
    assert {cloud.vms[vm].label for vm in (30, 31)} == {"RUNNING"}
    assert not cloud.incident(3).open


def test_a_host_that_reboots_again_and_again_gets_no_vms_any_more(cloud):
    for _ in range(2):
        cloud.reboot(3)
        cloud.run(60)
    assert len(cloud.ordered(ResumeVm)) == 4
    cloud.reboot(3)
    cloud.run(60)
    assert len(cloud.ordered(ResumeVm)) == 4
    assert "it was off 3 times within 24 h" in cloud.incident(3).hold
    assert cloud.incident(3).hold_needs_person
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(60)
    assert len(cloud.ordered(ResumeVm)) == 6


def test_a_vm_that_somebody_moved_meanwhile_is_left_alone(cloud):
    cloud.reboot(3)
    cloud.run(3)
    cloud.vms[30] = replace(cloud.vms[30], host=5)
    cloud.run(40)
    assert started(cloud) == {31}
    assert "vm-30 is left alone: somebody else moved it to host 5" in cloud.told()
