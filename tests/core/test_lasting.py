"""Orders that stay in force until they are lifted: they help, and must never outlive the incident; second signals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud

from ha_controller.core.effects import Answer, Fence, HostStep, LiftOrders, MoveVm, OrderHost, RenewOrders
from ha_controller.core.events import DrillReported, FenceReported, FenceResult, OrdersLifted, Verb
from ha_controller.core.incident import AttemptOutcome
from ha_controller.core.model import Device, HostState, PowerState

BMC = Device(name="bmc", identity_noted=True)
CEPH = Device(name="ceph", identity_noted=True, proves_off=False, lasting=True, datastores=(100, 101))


@pytest.fixture
def cloud() -> Cloud:
    """A BMC and a storage fence in one level; all disks are where the fence reaches."""
    made = Cloud(levels=((BMC, CEPH),))
    made.vms = {number: replace(vm, datastores=(100,)) for number, vm in made.vms.items()}
    made.run(6)
    return made


def recovered(cloud: Cloud) -> None:
    cloud.kill(3, "off")
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def come_back(cloud: Cloud) -> None:
    del cloud.dead[3]
    cloud.run(12)


def test_what_stays_in_force_is_on_record_before_the_order_leaves(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    cloud.run(3)
    assert cloud.ordered(Fence)[0].devices == ("bmc", "ceph")
    assert cloud.incident(3).in_force == (("ceph", ""),)


def test_the_proof_is_the_power_device_alone(cloud):
    recovered(cloud)
    assert cloud.incident(3).proof.devices == ("bmc",)


def test_it_is_renewed_for_as_long_as_the_incident_is_open(cloud):
    recovered(cloud)
    cloud.run(1300)
    assert len(cloud.ordered(RenewOrders)) == 3  # after the attempt, and every ten minutes
    assert {order.devices for order in cloud.ordered(RenewOrders)} == {("ceph",)}


def test_it_is_renewed_at_once_after_a_restart_and_while_paused(cloud):
    recovered(cloud)
    cloud.operator(Verb.PAUSE)
    before = len(cloud.ordered(RenewOrders))
    cloud.restart()
    cloud.run(1)
    assert len(cloud.ordered(RenewOrders)) == before + 1


def test_a_renewal_that_fails_is_told_once_and_tried_again(cloud):
    recovered(cloud)
    cloud.lift_fails = "no answer"
    cloud.run(800)
    assert cloud.told().count("could not be renewed (ceph: no answer)") == 1
    assert len(cloud.ordered(RenewOrders)) >= 3


def test_it_is_lifted_before_the_host_is_given_back(cloud):
    recovered(cloud)
    come_back(cloud)
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(3)
    kinds = [type(effect) for _, effect in cloud.effects]
    restores = [
        index for index, (_, effect) in enumerate(cloud.effects) if getattr(effect, "step", "") == HostStep.RESTORE
    ]
    assert kinds.index(LiftOrders) < restores[0]
    assert cloud.state(3) is HostState.OK
    assert cloud.incident(3).in_force == ()


def test_what_cannot_be_lifted_keeps_the_host_out_and_calls_a_person(cloud):
    recovered(cloud)
    come_back(cloud)
    cloud.lift_fails = "no answer"
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(30)
    assert len(cloud.ordered(LiftOrders)) == 3
    assert "could not be lifted (ceph: no answer)" in cloud.incident(3).stopped
    assert HostStep.RESTORE not in [order.step for order in cloud.ordered(OrderHost)]
    cloud.lift_fails = ""
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(3)
    assert cloud.state(3) is HostState.OK


def test_lifting_goes_on_after_a_restart(cloud):
    recovered(cloud)
    come_back(cloud)
    cloud.deaf.add(LiftOrders)
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.incident(3).lifting
    cloud.deaf.clear()
    cloud.restart()
    cloud.run(8)
    assert len(cloud.ordered(LiftOrders)) == 2
    assert cloud.state(3) is HostState.OK


def test_nothing_is_renewed_once_the_lifting_has_begun(cloud):
    recovered(cloud)
    come_back(cloud)
    cloud.lift_fails = "no answer"
    cloud.operator(Verb.UNFENCE, 3)
    before = len(cloud.ordered(RenewOrders))
    cloud.restart()
    cloud.run(5)
    assert len(cloud.ordered(RenewOrders)) == before


@pytest.mark.parametrize("changed", [(), (replace(CEPH, fingerprint="other addresses"),)])
def test_without_its_device_as_it_was_a_person_must_say_that_it_is_lifted(cloud, changed):
    recovered(cloud)
    come_back(cloud)
    cloud.levels = ((BMC, *changed),)
    cloud.inventory()
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(3)
    assert "ceph is not configured any more as it was then" in cloud.incident(3).stopped
    assert not cloud.ordered(LiftOrders)
    assert cloud.state(3) is HostState.RECOVERED
    cloud.operator(Verb.UNFENCE, 3, force=True)
    cloud.run(5)
    assert cloud.state(3) is HostState.OK


def test_a_host_that_no_device_proved_off_is_not_let_at_its_storage_without_a_persons_word(cloud):
    """Its old VMs may still live, and run elsewhere by now."""
    cloud.kill(3, "mute")
    cloud.run(90)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.incident(3).in_force
    come_back(cloud)
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    assert "no power device has proven" in cloud.ordered(Answer)[-1].text
    cloud.run(5)
    assert not cloud.ordered(LiftOrders)


def test_the_report_of_an_earlier_try_is_not_that_of_this_one(cloud):
    recovered(cloud)
    come_back(cloud)
    cloud.deaf.add(LiftOrders)
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(120)
    assert [order.number for order in cloud.ordered(LiftOrders)] == [1, 2]
    cloud.feed(OrdersLifted(host=3, incident=cloud.incident(3).id, number=1))
    assert cloud.incident(3).lifting


def test_a_host_of_which_nobody_says_that_it_was_lifted_is_not_given_back(cloud):
    recovered(cloud)
    come_back(cloud)
    cloud.deaf.add(LiftOrders)
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(400)
    assert [order.number for order in cloud.ordered(LiftOrders)] == [1, 2, 3]
    assert "could not be lifted (no report)" in cloud.incident(3).stopped
    assert cloud.incident(3).in_force == (("ceph", ""),)
    assert HostStep.RESTORE not in [order.step for order in cloud.ordered(OrderHost)]


def test_nothing_is_renewed_while_an_attempt_runs(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    cloud.run(20)
    assert cloud.incident(3).attempts[-1].outcome is AttemptOutcome.ORDERED
    assert not cloud.ordered(RenewOrders)


def test_a_late_report_of_a_lift_changes_nothing(cloud):
    recovered(cloud)
    cloud.feed(OrdersLifted(host=3, incident=cloud.incident(3).id, number=1))
    assert cloud.incident(3).in_force == (("ceph", ""),)


def test_an_order_that_was_refused_is_not_in_force(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    cloud.run(3)
    order = cloud.ordered(Fence)[0]
    cloud.feed(
        FenceReported(
            host=3,
            incident=order.incident,
            attempt=order.attempt,
            result=FenceResult.REFUSED,
            off_read_at=None,
            detail="",
        )
    )
    assert cloud.incident(3).attempts[0].outcome is AttemptOutcome.REFUSED
    assert cloud.incident(3).attempts[1].outcome is AttemptOutcome.ORDERED
    assert cloud.incident(3).in_force == (("ceph", ""),)  # of the second attempt
    cloud.feed(
        FenceReported(
            host=3, incident=order.incident, attempt=2, result=FenceResult.REFUSED, off_read_at=None, detail=""
        )
    )
    assert cloud.incident(3).in_force == ()


@pytest.mark.parametrize(("where", "why"), [((100, 104), "datastore 104"), (None, "where the disks of vm-31 are")])
def test_a_storage_fence_is_left_out_where_disks_are_elsewhere(cloud, where, why):
    cloud.vms[31] = replace(cloud.vms[31], datastores=where)
    recovered(cloud)
    assert cloud.ordered(Fence)[0].devices == ("bmc",)
    assert why in cloud.told()
    assert cloud.incident(3).in_force == ()


def test_a_storage_fence_alone_moves_nothing(make_cloud):
    cloud = make_cloud(levels=((CEPH,),))
    cloud.vms = {number: replace(vm, datastores=(100,)) for number, vm in cloud.vms.items()}
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(90)
    assert not cloud.ordered(MoveVm)
    assert "weak evidence" in cloud.incident(3).stopped


def test_a_level_that_is_left_out_whole_is_told_once(make_cloud):
    cloud = make_cloud(levels=((BMC,), (CEPH,)))
    cloud.run(6)
    cloud.kill(3, "mute")
    cloud.run(90)
    assert {order.devices for order in cloud.ordered(Fence)} == {("bmc",)}
    assert cloud.told().count("ceph is not used: it is not known where the disks of vm-30 are") == 1


# --- weak evidence and a second signal --------------------------------------------------------------------------------

WEAK = Device(name="apc", weak_off=True, identity_noted=True)


def weak_first(make_cloud: type[Cloud], bmc: Device = BMC) -> Cloud:
    cloud = make_cloud(levels=((WEAK,), (bmc,)))
    cloud.run(6)
    cloud.kill(3, "on")
    return cloud


def test_a_weak_off_is_believed_when_a_strong_device_of_another_level_has_read_off_twice(make_cloud):
    cloud = weak_first(make_cloud)
    cloud.run(75)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.incident(3).proof.devices == ("apc", "bmc")
    assert "so did bmc" in cloud.incident(3).proof.text
    assert len(cloud.incident(3).attempts) == 1


def test_one_reading_of_the_strong_device_is_not_enough(make_cloud):
    cloud = weak_first(make_cloud)
    while not cloud.ordered(Fence):
        cloud.run(0.2)
    at = cloud.now
    while cloud.state(3) is HostState.FAILED:
        cloud.run(0.2)
    assert cloud.now - at >= 2.0


def test_a_strong_device_that_cannot_be_read_is_no_second_signal(make_cloud):
    cloud = weak_first(make_cloud)
    cloud.device_power["bmc"] = PowerState.UNKNOWN
    cloud.run(70)
    assert cloud.state(3) is HostState.FAILED
    cloud.run(10)
    first = cloud.incident(3).attempts[0]
    assert first.outcome is AttemptOutcome.UNVERIFIED
    assert "bmc did not say so" in first.detail


def test_a_strong_device_that_reads_on_voids_a_weak_off(make_cloud):
    cloud = weak_first(make_cloud)
    cloud.device_power["bmc"] = PowerState.ON
    cloud.run(75)
    assert cloud.incident(3).attempts[0].outcome is AttemptOutcome.VOIDED
    assert not cloud.ordered(MoveVm)


def test_one_feed_of_two_is_no_second_signal(make_cloud):
    feeds = (Device(name="pdu-a", identity_noted=True), Device(name="pdu-b", identity_noted=True))
    cloud = make_cloud(levels=((WEAK,), feeds))
    cloud.run(6)
    cloud.device_power["pdu-b"] = PowerState.UNKNOWN
    cloud.kill(3, "on")
    cloud.run(80)
    assert cloud.incident(3).attempts[0].outcome is AttemptOutcome.UNVERIFIED
    assert not cloud.ordered(MoveVm)


def test_a_device_that_nobody_vouches_for_is_no_second_signal(make_cloud):
    cloud = weak_first(make_cloud, Device(name="bmc"))
    cloud.run(75)
    assert cloud.incident(3).attempts[0].outcome is AttemptOutcome.UNVERIFIED
    assert not cloud.ordered(MoveVm)


def test_a_device_that_needs_a_drill_proves_nothing_without_one(make_cloud):
    watchdog = Device(name="watchdog", drill_needed=True, identity_noted=True)
    cloud = make_cloud(levels=((watchdog,),))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(90)
    assert "watchdog had no drill" in cloud.incident(3).stopped
    assert not cloud.ordered(MoveVm)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    assert cloud.ordered(Answer)[-1].code == 0


def test_a_device_that_had_its_drill_is_believed(make_cloud):
    watchdog = Device(name="watchdog", drill_needed=True)
    cloud = make_cloud(levels=((watchdog,),))
    cloud.run(6)
    cloud.feed(DrillReported(host=3, request=0, results=(("watchdog", "", True, "fine"),)))
    cloud.kill(3, "off")
    cloud.run(15)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.incident(3).proof.devices == ("watchdog",)
