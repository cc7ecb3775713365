"""What comes late, or a second time, says nothing new: readings of devices, lists of domains, answers to orders."""

from __future__ import annotations

from dataclasses import replace

from world import SETTINGS, Cloud

from ha_controller.core import situation, tries
from ha_controller.core.events import DomainsRead, OrderResult, PowerRead, VmOrderReported
from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.model import Device, PowerState
from ha_controller.core.outcome import Presence

LEVELS = ((Device(name="bmc", identity_noted=True),), (Device(name="pdu", identity_noted=True),))
MOVING = VmRecord(id=30, name="vm-30", was_state=3, was_lcm_state=3, stage=VmStage.MOVING, destination=5, order=2)


def test_a_late_reading_of_one_device_changes_nothing_and_hides_no_other():
    cloud = Cloud(levels=LEVELS)
    cloud.run(6)
    cloud.feed(PowerRead(host=3, asked_at=cloud.now, states=(("bmc", PowerState.OFF),)))
    late = (("bmc", PowerState.ON), ("pdu", PowerState.ON))
    cloud.feed(PowerRead(host=3, asked_at=cloud.now - 3, states=late))
    view = cloud.controller.state.view(3)
    assert view.power["bmc"] == (cloud.now, PowerState.OFF)
    assert view.off_since["bmc"] == cloud.now
    assert view.power["pdu"] == (cloud.now - 3, PowerState.ON)


def test_a_late_list_of_domains_takes_nothing_away_that_a_newer_one_has_seen(cloud):
    state, begun = cloud.controller.state, cloud.now - 10
    cloud.feed(DomainsRead(host=5, asked_at=cloud.now, running=(30,)))
    cloud.feed(DomainsRead(host=5, asked_at=cloud.now - 3))
    assert situation.presence(state, 5, 30, begun, cloud.now) is Presence.RUNS
    cloud.feed(DomainsRead(host=5, asked_at=cloud.now + 1))
    assert situation.presence(state, 5, 30, begun, cloud.now + 1) is Presence.ABSENT


def answered(record: VmRecord, result: OrderResult) -> VmRecord:
    event = VmOrderReported(vm=30, incident=1, attempt=record.order, result=result, detail="no")
    return tries.reported(SETTINGS, record, event, 1000.0, away=False)


def test_a_refusal_after_an_order_that_was_lost_may_mean_that_it_was_carried_out():
    """The VM is not on its old host any more, says OpenNebula: it stays with its destination, and nothing counts."""
    lost = replace(MOVING, maybe_done=True, tries=2, ordered_to=(5,))
    after = answered(lost, OrderResult.REFUSED)
    assert after == replace(lost, answered=True, reason="no")
    first = answered(replace(MOVING, tries=1, ordered_to=(5,)), OrderResult.REFUSED)
    assert (first.stage, first.refused_on, first.refusals) == (VmStage.WAITING, (5,), 1)


def test_a_lock_that_is_refused_takes_nothing_back():
    locking = replace(MOVING, stage=VmStage.LOCKING, tries=1)
    assert answered(locking, OrderResult.REFUSED) == replace(locking, answered=True, reason="no")


def test_a_resume_that_was_not_needed_any_more_counts_as_given():
    resuming = replace(MOVING, stage=VmStage.RESUMING, tries=1)
    assert answered(resuming, OrderResult.SKIPPED) == replace(resuming, answered=True, reason="no")
    assert answered(replace(MOVING, tries=1), OrderResult.SKIPPED).put_off == 1
