"""A controller that takes the lead, and boots that it or the leader before has accounted for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from returned import away, back, failing
from taken_over import INHERITED, acted, goes_on, left_by, rebooted_under_another_leader
from world import Cloud, say, seen

from ha_controller.core.effects import (
    HostStep,
    OrderHost,
    ReadHost,
    ResumeVm,
)
from ha_controller.core.events import EvidenceTaken, LeadChanged, Verb
from ha_controller.core.incident import Death, VmStage
from ha_controller.core.model import HostState, Reading, Signal


def died(cloud: Cloud, within_s: float) -> None:
    """Host 3, so that its neighbours and its heartbeat say so, too."""
    cloud.kill(3, "off")
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    cloud.run(within_s)


def answers(cloud: Cloud) -> None:
    del cloud.dead[3]
    say(cloud, 3, neighbours=Signal.ALIVE, heartbeat=Signal.ALIVE)


def test_a_boot_that_each_controller_accounts_for_by_itself_is_known_from_the_moment_it_was_noticed():
    """Where no boots are on the record, the host that is back must not be taken for one that was never off."""
    cloud = seen()
    died(cloud, within_s=30)
    record, fenced_at = replace(left_by(cloud), trusts=()), cloud.now
    answers(cloud)
    cloud.now, cloud.one_states[3] = fenced_at - 40, 2
    cloud.other_controller()
    cloud.run(10)
    died(cloud, within_s=40)
    answers(cloud)
    cloud.boots[3] = "second"
    cloud.run(10)
    cloud.one_states[3] = 4
    cloud.effects.clear()
    goes_on(cloud, record)
    cloud.run(30)
    assert "never off" not in cloud.told()
    cloud.operator(Verb.UNFENCE, host=3)
    cloud.run(30)
    assert cloud.state(3) is HostState.OK, "it was given back"


@pytest.mark.parametrize("clock_ahead_s", [0.0, 60.0])
def test_a_boot_that_only_the_standby_accounted_for_is_not_the_one_from_before_the_power_off(clock_ahead_s):
    """The record names the boot before as long as the host is not given back, and has its moments by another clock."""
    cloud = seen()
    died(cloud, within_s=30)
    record, fenced_at = left_by(cloud), cloud.now
    assert cloud.state(3) is HostState.RECOVERED
    answers(cloud)
    cloud.now = fenced_at - 40 + clock_ahead_s
    cloud.one_states[3] = 2
    cloud.other_controller()
    cloud.run(10)
    died(cloud, within_s=40)
    answers(cloud)
    if clock_ahead_s:
        cloud.controller.state.view(3).boot_known_at = 0.0  # from before its start
        del cloud.boots[3]  # it answers, and nobody could log in yet
    else:
        cloud.boots[3] = "second"
    cloud.run(10)
    cloud.one_states[3] = 4
    cloud.effects.clear()
    goes_on(cloud, record)
    cloud.run(20)
    assert "never off" not in cloud.told()
    cloud.boots[3] = "first-3"
    cloud.run(20)
    assert "never off" in cloud.told(), "it would be, if that boot answered"


@pytest.mark.parametrize(("boot", "on_record"), [("second-3", True), ("second-3", False), ("first-3", True)])
def test_the_new_boot_that_a_standby_took_for_a_reboot_is_not_the_one_on_the_record(boot: str, on_record: bool):
    """For the standby the host has rebooted by itself. The leader, who waits for its return, knows the boot before."""
    cloud = away(seen())
    record = left_by(cloud) if on_record else replace(left_by(cloud), trusts=())
    cloud.other_controller()
    before = Reading(host=3, signal=Signal.ALIVE, sent_at=cloud.now - 60, boot_id="first-3")
    cloud.feed(EvidenceTaken(channel="boot-id", readings=(before,)))
    back(cloud, boot=boot)
    known = cloud.controller.state.trusts[3]
    assert (known.boot_id, "rebooted by itself" in cloud.told()) == (boot, boot == "second-3")
    goes_on(cloud, record)
    cloud.run(14)
    assert ("it was never off" in cloud.told()) == (boot == "first-3")
    assert failing(cloud) == ([] if boot == "second-3" else ["new boot"])


@pytest.mark.parametrize("trusts", ["on the record", "on the record, without boots", "each controller's own"])
def test_vms_of_a_host_that_rebooted_when_nobody_led_are_not_forgotten(trusts: str):
    """The standby had accounted for that boot, with an incident that the record has not."""
    cloud = seen(record_is_shared=True)
    record = left_by(cloud)
    if trusts == "on the record, without boots":  # who wrote it could log in to no host
        record = replace(record, trusts=tuple(replace(each, boot_id="") for each in record.trusts))
    elif trusts != "on the record":
        record = replace(record, trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    cloud.reboot(3)
    cloud.run(20)
    assert cloud.incident(3).open
    assert not acted(cloud)
    goes_on(cloud, record)
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.state(3) is HostState.OK


def test_vms_of_a_reboot_are_not_forgotten_where_the_record_still_has_an_older_incident_of_that_host():
    """Its leader died, or lost the lead, before it could write that the older one was over: nothing was done in it."""
    cloud = seen(record_is_shared=True, hung_after_s=30.0)
    cloud.elsewhere["oned"] = {}
    cloud.frozen.add(3)
    say(cloud, 3, heartbeat=Signal.SILENT, oned=Signal.SILENT)
    cloud.run(200)
    assert "waits for approval: hung" in cloud.incident(3).hold
    record = replace(left_by(cloud), trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.frozen.clear()
    say(cloud, 3, heartbeat=Signal.ALIVE, oned=Signal.ALIVE)
    cloud.reboot(3)
    cloud.run(20)
    assert cloud.incident(3).verdict == "rebooted"
    assert not acted(cloud)
    goes_on(cloud, record)
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.state(3) is HostState.OK
    trust = cloud.controller.state.trusts[3]
    assert trust.boot_id not in trust.past_boots


def started_by_the_leader(cloud: Cloud, *vms: int) -> None:
    cloud.oned_notices(3)
    cloud.run(3)
    for vm in vms:
        cloud.become(vm, 3, 3)


def shut_down_by_its_guest(cloud: Cloud, vm: int) -> None:
    """OpenNebula tells it like one that was lost with its host."""
    cloud.become(vm, 8, found_missing_at=cloud.now)


def test_vms_that_a_standby_saw_run_again_after_a_reboot_are_no_news_when_it_leads():
    cloud, record = rebooted_under_another_leader()
    assert cloud.incident(3).open
    started_by_the_leader(cloud, 30, 31)
    cloud.run(3)
    assert not cloud.incident(3).open, "it sees that all run"
    assert "runs again on" not in cloud.told()
    shut_down_by_its_guest(cloud, 30)
    cloud.run(20)
    goes_on(cloud, record)
    cloud.run(60)
    assert not acted(cloud)
    assert len(cloud.incidents) == 1
    assert cloud.cloud.deaths == record.cloud.deaths


def test_a_standby_takes_for_running_again_only_what_opennebula_says_since():
    """RUNNING is what it believed before the reboot, and a standby may read a late oned."""
    cloud, record = rebooted_under_another_leader()
    cloud.run(120)
    assert cloud.incident(3).open
    assert not any(record.settled for record in cloud.incident(3).vms)
    assert not acted(cloud)
    goes_on(cloud, record)
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing


def test_a_standby_does_not_take_for_running_again_what_ran_before_the_reboot_by_a_late_opennebula():
    """It catches up, and what it hears then is older than the reboot, and newer than what it had said."""
    cloud, record = rebooted_under_another_leader(late_s=40)
    assert cloud.incident(3).open
    cloud.unheard[3] += 35
    cloud.run(10)
    assert not any(record.settled for record in cloud.incident(3).vms)
    cloud.oned_notices(3)
    cloud.run(20)
    goes_on(cloud, record)
    cloud.run(60)
    assert {order.vm for order in acted(cloud)} == {30, 31}
    assert "2 VMs run again" in cloud.incident(3).closing


def runs_again_and_its_follower_never_hears_when(cloud: Cloud) -> None:
    """The monitoring times are written by the leader of the zone alone; states of VMs go to all."""
    heard_at = cloud.unheard[3]
    started_by_the_leader(cloud, 30, 31)
    cloud.unheard[3] = heard_at


@pytest.mark.parametrize("later_s", [30.0, 400.0])
def test_a_standby_hears_from_the_host_itself_that_its_vms_run_again(later_s: float):
    cloud, record = rebooted_under_another_leader()
    runs_again_and_its_follower_never_hears_when(cloud)
    cloud.run(5)
    assert not cloud.incident(3).open
    cloud.run(later_s)
    goes_on(cloud, record)
    cloud.run(60)
    assert not acted(cloud)
    assert len(cloud.incidents) == 1


@pytest.mark.parametrize("later_s", [30.0, 400.0])
def test_a_new_leader_asks_a_host_that_rebooted_before_it_has_opennebula_do_so(later_s: float):
    """Its VMs run: it must not go OFFLINE."""
    cloud, record = rebooted_under_another_leader()
    cloud.no_answer.add(3)
    runs_again_and_its_follower_never_hears_when(cloud)
    cloud.run(later_s)
    assert cloud.incident(3).open
    cloud.no_answer.clear()
    cloud.deaf.add(ReadHost)  # OpenNebula is slow at first
    goes_on(cloud, record)
    cloud.run(20)
    cloud.deaf.clear()
    cloud.run(60)
    assert not acted(cloud)
    assert "2 VMs run again" in cloud.incident(3).closing


def test_a_new_leader_has_opennebula_ask_a_host_anew_that_rebooted_and_does_not_say_what_runs_there():
    cloud, record = rebooted_under_another_leader()
    cloud.no_answer.add(3)
    goes_on(cloud, record)
    cloud.run(60)
    steps = [order.step for order in acted(cloud) if isinstance(order, OrderHost)]
    assert steps == [HostStep.OFFLINE, HostStep.ENABLE]
    assert "2 VMs run again" in cloud.incident(3).closing


def test_of_a_reboot_in_which_the_leader_died_only_what_did_not_run_again_is_started():
    cloud, record = rebooted_under_another_leader()
    started_by_the_leader(cloud, 30)
    cloud.run(3)
    shut_down_by_its_guest(cloud, 30)
    cloud.run(20)
    goes_on(cloud, record)
    cloud.run(60)
    assert [order.vm for order in acted(cloud)] == [31]
    assert "1 VMs run again" in cloud.incident(3).closing


def test_a_standby_that_did_not_see_what_became_of_an_old_reboot_starts_nothing_that_its_guest_may_have_ended():
    """It could read neither OpenNebula nor the host meanwhile, and another one led."""
    cloud, record = rebooted_under_another_leader()
    cloud.deaf.add(ReadHost)
    cloud.no_answer.add(3)
    started_by_the_leader(cloud, 30, 31)
    cloud.run(200)
    shut_down_by_its_guest(cloud, 30)
    cloud.run(200)
    cloud.deaf.clear()
    cloud.no_answer.clear()
    goes_on(cloud, record)
    cloud.run(60)
    assert not acted(cloud)
    assert "vm-30 is left alone: it ended before this controller led: it cannot be told" in cloud.told()
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING


@pytest.mark.parametrize("meanwhile", ["nobody led", "one led"])
def test_vms_of_an_old_reboot_are_started_when_nobody_else_has_led_since(meanwhile: str):
    cloud, record = rebooted_under_another_leader()
    cloud.oned_notices(3)
    cloud.run(400)
    goes_on(cloud, replace(record, led_meanwhile="" if meanwhile == "nobody led" else INHERITED))
    cloud.run(60)
    is_started = meanwhile == "nobody led"
    assert {order.vm for order in acted(cloud)} == ({30, 31} if is_started else set())
    next_step = "What that ended is started again there" if is_started else "What is off by now is not started"
    assert f"2 VMs have no outcome yet: vm-30, vm-31 | {next_step}" in cloud.told()


def test_a_reboot_that_waits_for_a_person_says_so_when_the_lead_is_taken():
    cloud, record = rebooted_under_another_leader()
    cloud.run(20)
    seen_at = cloud.incident(3).opened_at
    inherited = replace(record.cloud, inherited_at=seen_at + 1, inherited=INHERITED)
    goes_on(cloud, replace(record, cloud=inherited))
    cloud.run(30)
    assert not acted(cloud)
    assert "2 VMs have no outcome yet: vm-30, vm-31 | See what was done, then: ha-controller release" in cloud.told()


def test_what_a_standby_saw_that_is_no_business_of_that_host_any_more_is_told_by_the_next_leader():
    """The leader died before it could say so."""
    cloud, record = rebooted_under_another_leader()
    cloud.oned_notices(3)
    cloud.vms[30] = replace(cloud.vms[30], host=5, state=3, lcm_state=3, label="RUNNING")
    del cloud.domains[3, 30]
    cloud.run(3)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "vm-30 is" not in cloud.told()
    goes_on(cloud, record)
    assert "vm-30 was left alone before this controller led: somebody else moved it to host 5" in cloud.told()


def test_a_boot_that_waits_to_be_looked_at_when_the_lead_is_taken_is_old_in_the_same_way():
    """A standby that cannot read OpenNebula has no incident of it."""
    cloud = seen(record_is_shared=True)
    record = replace(left_by(cloud), trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    cloud.effects.clear()
    cloud.deaf.add(ReadHost)
    cloud.reboot(3)
    cloud.run(5)
    started_by_the_leader(cloud, 30, 31)
    cloud.run(400)
    shut_down_by_its_guest(cloud, 30)
    cloud.run(60)
    cloud.deaf.clear()
    goes_on(cloud, record)
    cloud.run(60)
    assert not [order for order in acted(cloud) if isinstance(order, ResumeVm)]
    assert "it cannot be told whether vm-30 ran until then" in cloud.told()


@pytest.mark.parametrize("counted", [True, False])
def test_a_reboot_counts_once_as_a_death_of_its_host(counted: bool):
    cloud, record = rebooted_under_another_leader()
    theirs = Death(at=cloud.now - 2, host=3, host_name="kvm-03", vms=(30, 31))
    deaths = (*record.cloud.deaths, *((theirs,) if counted else ()))
    goes_on(cloud, replace(record, cloud=replace(record.cloud, deaths=deaths)))
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert [death.host for death in cloud.cloud.deaths] == [3]


def test_a_reboot_that_a_standby_noticed_late_counts_once_as_a_death_of_its_host():
    """OpenNebula could not be read for a minute; who led has counted it then."""
    cloud, record = rebooted_under_another_leader(reads=False)
    theirs = Death(at=cloud.now, host=3, host_name="kvm-03", vms=(30, 31))
    cloud.run(60)
    cloud.deaf.clear()
    cloud.run(5)
    assert cloud.incident(3).opened_at - theirs.at > 50
    goes_on(cloud, replace(record, cloud=replace(record.cloud, deaths=(theirs,))))
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.cloud.deaths == (theirs,)


def test_a_reboot_counts_once_also_if_the_lead_is_taken_twice_before_its_vms_run():
    """Nothing of the first time could be put on the record."""
    cloud, record = rebooted_under_another_leader()
    theirs = Death(at=cloud.now - 2, host=3, host_name="kvm-03", vms=(30, 31))
    record = replace(record, cloud=replace(record.cloud, deaths=(theirs,)))
    cloud.run(60)
    goes_on(cloud, record)
    cloud.feed(LeadChanged(term=None, trouble="it could not be shared"))
    cloud.run(5)
    goes_on(cloud, replace(record, term=3))
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.cloud.deaths == (theirs,)


def test_a_crash_after_the_take_over_forgets_no_vm_of_such_a_reboot():
    """Before OpenNebula could be read once."""
    cloud, record = rebooted_under_another_leader()
    cloud.deaf.add(ReadHost)
    goes_on(cloud, record)
    cloud.run(1)
    cloud.deaf.clear()
    cloud.restart()
    cloud.run(60)
    assert {order.vm for order in acted(cloud) if isinstance(order, ResumeVm)} == {30, 31}
    assert "2 VMs run again" in cloud.incident(3).closing
