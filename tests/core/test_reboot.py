"""A host that rebooted by itself: its VMs are started again where they are, and nothing is powered off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rebooted import come_back, die, started
from world import Cloud, say, seen

from ha_controller.core.effects import Answer, Fence, HostStep, OrderHost, ReadHost, ResumeVm
from ha_controller.core.events import HostIdentified, OnedReadFailed, Verb
from ha_controller.core.model import HostState, Identity, Signal
from ha_controller.core.settings import Mode


@pytest.fixture
def cloud() -> Cloud:
    return seen()


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


def test_a_host_whose_clock_is_ahead_gets_its_vms_back_all_the_same(cloud):
    """By its own word it booted after it had answered."""
    cloud.reboot(3)
    cloud.booted_at[3] = cloud.now + 90
    cloud.run(5)
    cloud.oned_notices(3)
    cloud.run(30)
    assert {order.vm for order in cloud.ordered(ResumeVm)} == {30, 31}


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
    assert "it died or rebooted 3 times within 24 h" in cloud.incident(3).hold
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


# --- when more goes wrong meanwhile -----------------------------------------------------------------------------------


def test_an_order_to_power_off_does_not_outlive_the_silence_it_was_given_for(cloud):
    cloud.operator(Verb.PAUSE)
    cloud.reboot(3)
    cloud.run(5)
    die(cloud, "on")
    cloud.run(6)
    cloud.operator(Verb.FENCE, 3)
    cloud.run(1)
    come_back(cloud)
    cloud.run(3)
    cloud.operator(Verb.RESUME)
    die(cloud, "on")
    cloud.run(5)
    assert not cloud.ordered(Fence)
    come_back(cloud)
    cloud.run(60)
    assert started(cloud) == {30, 31}


def test_a_vm_that_ran_again_is_moved_when_the_host_dies_after_all(cloud):
    cloud.vms[31] = replace(cloud.vms[31], lcm_state=16, label="UNKNOWN")
    cloud.deaf.add(ResumeVm)
    cloud.reboot(3)
    cloud.run(18)
    cloud.vms[30] = replace(cloud.vms[30], state=3, lcm_state=3, label="RUNNING")
    cloud.run(2)
    assert cloud.incident(3).vm(30).settled
    cloud.deaf.clear()
    die(cloud)
    cloud.run(60)
    assert cloud.state(3) is HostState.RECOVERED
    assert all(cloud.vms[vm].host != 3 and cloud.vms[vm].label == "RUNNING" for vm in (30, 31))


def test_what_was_ordered_after_the_reboot_does_not_count_against_the_move(cloud):
    cloud.deaf.add(ResumeVm)
    cloud.reboot(3)
    cloud.run(20)
    cloud.operator(Verb.PAUSE)
    die(cloud)
    cloud.run(200)
    cloud.deaf.clear()
    cloud.operator(Verb.RESUME)
    cloud.run(60)
    assert all(cloud.vms[vm].host != 3 and cloud.vms[vm].label == "RUNNING" for vm in (30, 31))


@pytest.mark.parametrize("seconds", [15.2, 15.4, 15.6, 15.8])
def test_a_lever_that_was_half_pulled_does_not_spoil_the_fence(cloud, seconds):
    cloud.reboot(3)
    cloud.run(seconds)
    die(cloud)
    cloud.run(90)
    assert cloud.state(3) is HostState.RECOVERED
    assert all(cloud.vms[vm].host != 3 and cloud.vms[vm].label == "RUNNING" for vm in (30, 31))


def test_what_opennebula_believed_before_the_reboot_is_no_outcome(cloud):
    """It says RUNNING until its monitoring of the host has begun anew."""
    cloud.oned_notices = lambda host: None  # type: ignore[method-assign]
    cloud.reboot(3)
    cloud.run(100)
    assert "runs again" not in cloud.told()
    assert cloud.incident(3).open
    del cloud.oned_notices  # type: ignore[attr-defined]
    cloud.oned_notices(3)
    cloud.run(20)
    assert started(cloud) == {30, 31}


@pytest.mark.parametrize("why", ["paused", "quarantine", "silent"])
def test_what_we_waited_for_ourselves_is_no_reason_to_leave_vms_alone(cloud, why):
    if why == "quarantine":
        cloud = seen(quarantine_after=1)
    if why == "paused":
        cloud.operator(Verb.PAUSE)
    cloud.reboot(3)
    cloud.run(3)
    if why == "silent":
        cloud.kill(3)
    cloud.run(400)
    assert not started(cloud)
    if why == "silent":
        come_back(cloud)
    elif why == "paused":
        cloud.operator(Verb.RESUME)
    else:
        cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(60)
    assert started(cloud) == {30, 31}
    assert "left alone" not in cloud.told()


def test_a_host_that_is_readmitted_after_an_unverified_shot_gets_its_vms_back(cloud):
    cloud.deaf.add(ResumeVm)
    cloud.reboot(3)
    cloud.run(20)
    die(cloud, "mute")
    cloud.run(40)
    assert cloud.ordered(Fence)
    come_back(cloud)
    cloud.run(15)
    cloud.deaf.clear()
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(60)
    assert all((cloud.vms[vm].host, cloud.vms[vm].label) == (3, "RUNNING") for vm in (30, 31))
    assert cloud.state(3) is HostState.OK


def test_a_host_is_not_dismissed_while_opennebula_is_made_to_ask(cloud):
    cloud.deaf.add(OrderHost)
    cloud.reboot(3)
    cloud.run(16)
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    cloud.deaf.clear()
    cloud.run(60)
    assert cloud.one_states[3] == 2


def test_who_dismisses_it_is_told_which_vms_are_not_started(cloud):
    cloud.operator(Verb.PAUSE)
    cloud.reboot(3)
    cloud.run(12)
    cloud.operator(Verb.UNFENCE, 3)
    assert "not started again: vm-30, vm-31" in cloud.ordered(Answer)[-1].text


def test_a_reboot_that_nobody_saw_is_told_with_the_vms_of_which_it_cannot_be_told(cloud):
    cloud.now += 600
    cloud.reboot(3)
    cloud.oned_notices(3)
    cloud.now += 60
    cloud.restart()
    cloud.run(20)
    assert not started(cloud)
    assert "it cannot be told whether vm-30, vm-31 ran until then" in cloud.told()


def test_a_host_that_reboots_twice_before_anybody_could_look_loses_no_vm(cloud):
    cloud.deaf.add(ReadHost)
    cloud.reboot(3)
    cloud.run(2)
    cloud.oned_notices(3)
    cloud.run(60)
    cloud.reboot(3)
    cloud.booted_at[3] = cloud.now
    cloud.run(5)
    cloud.deaf.clear()
    cloud.run(30)
    assert started(cloud) == {30, 31}


def test_vms_in_the_middle_of_something_are_told(cloud):
    cloud.vms[30] = replace(cloud.vms[30], lcm_state=2, label="BOOT")
    cloud.reboot(3)
    cloud.run(30)
    assert "vm-30 is left alone: it was BOOT when the host rebooted" in cloud.told()
    assert started(cloud) == {31}


def test_a_host_that_says_who_it_is_for_the_first_time_after_its_reboot_has_rebooted_all_the_same(cloud):
    cloud.kill(3)
    cloud.run(5)
    cloud.feed(HostIdentified(host=3, identity=Identity(system_uuid="4c4c4544-0003"), source="ssh"))
    cloud.reboot(3)
    del cloud.dead[3]
    cloud.run(40)
    assert started(cloud) == {30, 31}


def test_a_silent_host_that_rebooted_before_can_be_approved():
    cloud = seen(mode=Mode.APPROVE)
    cloud.deaf.add(ResumeVm)
    cloud.reboot(3)
    cloud.run(20)
    cloud.deaf.clear()
    die(cloud)
    cloud.run(20)
    assert "waits for approval" in cloud.incident(3).hold
    assert not cloud.ordered(Fence)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(30)
    assert {order.host for order in cloud.ordered(Fence)} == {3}
    assert cloud.state(3) is HostState.RECOVERED


def test_an_opennebula_that_cannot_be_read_is_told(cloud):
    cloud.deaf.add(ReadHost)
    cloud.reboot(3)
    cloud.feed(OnedReadFailed(host=3, detail="no answer"))
    cloud.run(30)
    assert cloud.told().count("kvm-03 rebooted by itself, but its VMs cannot be read: no answer") == 1


def test_a_vm_that_its_owner_switches_off_meanwhile_stays_off(cloud):
    cloud.operator(Verb.PAUSE)
    cloud.reboot(3)
    cloud.run(5)
    cloud.vms[30] = replace(cloud.vms[30], state=8, lcm_state=0, label="POWEROFF")
    cloud.operator(Verb.RESUME)
    cloud.run(60)
    assert started(cloud) == {31}
    assert "vm-30 is left alone: somebody has switched it off" in cloud.told()


def test_opennebula_is_not_made_to_ask_all_hosts_at_once():
    cloud = seen(levers_max=2)
    cloud.deaf.add(OrderHost)
    for host in range(6):
        cloud.reboot(host)
    cloud.run(18)
    assert len({order.host for order in cloud.ordered(OrderHost)}) == 2
    cloud.deaf.clear()
    cloud.run(120)
    assert all(vm.label == "RUNNING" for vm in cloud.vms.values())


def test_a_host_that_was_powered_off_by_us_has_not_rebooted_by_itself(cloud):
    die(cloud)
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED
    cloud.reboot(3)
    come_back(cloud)
    cloud.run(15)
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(30)
    assert len(cloud.incidents) == 1
    assert not cloud.incident(3).open


def test_host_orders_without_effect_are_repeated_until_opennebula_asks_the_host_anew(cloud):
    cloud.deaf.add(OrderHost)
    cloud.reboot(3)
    cloud.run(40)
    assert {order.step for order in cloud.ordered(OrderHost)} == {HostStep.OFFLINE}
    assert len(cloud.ordered(OrderHost)) > 1
    assert not started(cloud)
    cloud.one_states[3] = 8
    cloud.run(20)
    enabled = [order for order in cloud.ordered(OrderHost) if order.step is HostStep.ENABLE]
    assert len(enabled) > 1
    cloud.deaf.clear()
    cloud.run(30)
    assert started(cloud) == {30, 31}
    assert cloud.one_states[3] == 2
