"""A controller that takes the lead with a record of which it can read only a part: unknown is not over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from returned import away, back
from taken_over import INHERITED, acted, followed, goes_on, left_by, rebooted_under_another_leader
from world import SETTINGS, Cloud, seen

from ha_controller.core.effects import (
    Answer,
    Fence,
    LiftOrders,
    MoveVm,
    OrderHost,
    ReadPower,
    Severity,
    Tell,
)
from ha_controller.core.events import LeadChanged, RecordTakenOver, Verb
from ha_controller.core.incident import Lever
from ha_controller.core.model import HostState
from ha_controller.core.settings import Mode


@pytest.fixture
def leader(make_cloud) -> Cloud:
    cloud = make_cloud()
    cloud.run(10)
    return cloud


def unreadable(cloud: Cloud, *, knows_host: bool = True) -> RecordTakenOver:
    """Another one has led meanwhile, and what stands on the record of the incident of host 3 is damaged."""
    number = cloud.incident(3).id
    cloud.feed(LeadChanged(term=None, leader="two"))
    cloud.run(20)
    cloud.effects.clear()
    unread = ((number, 3 if knows_host else None),)
    return replace(left_by(cloud, 4, "two led in term 3"), incidents=(), unread=unread)


@pytest.mark.parametrize("knows_host", [True, False])
def test_an_incident_of_ours_that_cannot_be_read_on_the_record_stays_open_and_waits_for_a_person(leader, knows_host):
    """The other one may have chosen destinations."""
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    ours = leader.incident(3)
    record = unreadable(leader, knows_host=knows_host)
    leader.deaf = set()
    goes_on(leader, record)
    leader.run(60)
    assert (leader.incident(3).id, leader.incident(3).open, leader.state(3)) == (ours.id, True, HostState.FENCED)
    assert not acted(leader)
    assert "two led in term 3" in leader.incident(3).hold
    told = [effect for effect in leader.ordered(Tell) if effect.severity is Severity.CRITICAL]
    assert [effect.text.split(";")[0] for effect in told] == [
        f"incident {ours.id} (kvm-03) on the shared record cannot be read"
    ]
    assert "ha-controller release kvm-03" in told[0].next_step
    leader.operator(Verb.RELEASE, host=3)
    leader.run(120)
    assert (leader.incident(3).id, leader.state(3)) == (ours.id, HostState.RECOVERED)


@pytest.mark.parametrize("begun", ["", "lifted", "restored"])
def test_nothing_is_ordered_of_an_unreadable_incident_before_it_is_released(begun: str):
    """Not with a person's `unfence` either, nor with one that was said before: the next leader could not read of it."""
    cloud = away(seen(record_is_shared=True))
    if begun:
        cloud.deaf = {OrderHost, LiftOrders}
        ours = replace(cloud.incident(3), in_force=(("bmc", ""),) if begun == "lifted" else ())
        ours = replace(ours, lifting=begun == "lifted", lever=Lever.RESTORE if begun == "restored" else ours.lever)
        cloud.controller.state.incidents[3] = cloud.incidents[ours.id] = ours
    record = unreadable(cloud)
    back(cloud, seconds=30)
    cloud.effects.clear()
    cloud.deaf = set()
    goes_on(cloud, record)
    cloud.run(20)
    cloud.operator(Verb.UNFENCE, host=3)
    cloud.run(5)
    (answer,) = cloud.ordered(Answer)
    assert (answer.code, "release kvm-03" in answer.text) == (4, True)
    assert not acted(cloud)
    assert not cloud.ordered(LiftOrders)
    cloud.operator(Verb.RELEASE, host=3)
    cloud.operator(Verb.UNFENCE, host=3, force=True)
    cloud.run(20)
    assert cloud.state(3) is HostState.OK


@pytest.mark.parametrize("verb", [Verb.CONFIRM_OFF, Verb.APPROVE, Verb.FENCE])
def test_of_an_unreadable_incident_no_word_is_taken_that_its_record_would_not_keep(leader, verb):
    leader.deaf = {Fence}
    leader.reconfigure(replace(SETTINGS, mode=Mode.APPROVE))
    leader.kill(3, "off")
    leader.run(30)
    assert leader.state(3) is HostState.SUSPECT
    goes_on(leader, unreadable(leader))
    before = leader.incident(3)
    leader.effects.clear()
    leader.operator(verb, host=3)
    leader.run(5)
    assert [(each.code, "release kvm-03" in each.text) for each in leader.ordered(Answer)] == [(4, True)]
    assert (leader.incident(3).proof, leader.incident(3).approved_by) == (before.proof, "")


def test_a_confirmation_that_was_under_way_at_the_take_over_is_not_taken_for_an_unreadable_incident(leader):
    leader.deaf = {Fence, ReadPower}
    leader.kill(3, "off")
    leader.run(30)
    leader.operator(Verb.CONFIRM_OFF, host=3)
    goes_on(leader, unreadable(leader))
    leader.run(30)
    assert leader.incident(3).proof is None


def test_a_host_that_answers_after_an_unverified_power_off_is_released_and_stays_stopped(leader):
    """Else neither `release` nor `unfence` would be taken."""
    leader.deaf = {Fence}
    leader.kill(3, "off")
    leader.run(30)
    del leader.dead[3]
    leader.run(10)
    assert leader.incident(3).stopped
    goes_on(leader, unreadable(leader))
    leader.run(30)
    leader.effects.clear()
    leader.operator(Verb.UNFENCE, host=3)
    leader.operator(Verb.RELEASE, host=3)
    assert (leader.incident(3).foreign, bool(leader.incident(3).stopped)) == ("", True)
    leader.operator(Verb.UNFENCE, host=3)
    leader.run(20)
    assert [each.code for each in leader.ordered(Answer)] == [4, 0, 0]
    assert leader.state(3) is HostState.OK


def test_an_incident_of_ours_that_nobody_else_can_have_gone_on_with_needs_no_record(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    ours = leader.incident(3)
    record = replace(unreadable(leader), led_meanwhile="")
    leader.deaf = set()
    goes_on(leader, record)
    leader.run(120)
    assert (leader.incident(3).id, leader.state(3)) == (ours.id, HostState.RECOVERED)
    assert "cannot be read" not in leader.told()


@pytest.mark.parametrize("why", ["another incident of the host", "ours is of another host"])
def test_an_incident_of_ours_that_cannot_be_the_unreadable_one_is_closed_with_the_truth(leader, why):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    ours, is_same = leader.incident(3), why.startswith("another")
    record = unreadable(leader)
    changes = {"incidents": (replace(ours, id=77),)} if is_same else {"unread": ((ours.id, 5),)}
    record = replace(record, **changes)
    goes_on(leader, record)
    closed = leader.incidents[ours.id]
    assert (closed.open, "cannot be read" in closed.closing) == (False, is_same)
    assert leader.controller.state.cloud.next_incident > ours.id
    host = "kvm-03" if is_same else "kvm-05"
    assert f"incident {ours.id} ({host}) on the shared record cannot be read; we have nothing of it" in leader.told()


@pytest.mark.parametrize(("theirs", "is_kept"), [((30, 31), True), ((50, 51), False)])
def test_a_number_that_a_standby_gave_to_another_host_is_not_the_unreadable_incident(theirs, is_kept: bool):
    """The host stands in the part that is gone; VMs are left over."""
    cloud, record = rebooted_under_another_leader()
    ours = cloud.incident(3)
    goes_on(cloud, replace(record, unread=((ours.id, None),), unread_vms=((ours.id, theirs),)))
    cloud.run(60)
    known = "what this controller has noted of it itself" if is_kept else "nothing of it"
    assert f"on the shared record cannot be read; we have {known}" in cloud.told()
    assert (cloud.incidents[ours.id].open, cloud.incident(3).open) == (is_kept, is_kept)
    assert is_kept or "2 VMs run again" in cloud.incident(3).closing


def test_an_incident_that_cannot_be_read_and_that_we_do_not_have_is_told_and_its_number_not_given_again(leader):
    record = replace(followed(leader), unread=((40, None), (41, 99)))
    goes_on(leader, record)
    told = [effect for effect in leader.ordered(Tell) if effect.severity is Severity.CRITICAL]
    texts = ["incident 40 on the shared record", "incident 41 (host 99) on the shared record"]
    assert [effect.text.split(" cannot")[0] for effect in told] == texts
    assert leader.controller.state.cloud.next_incident == 42
    leader.kill(2, "off")
    leader.run(30)
    assert leader.incident(2).id == 42


def test_a_record_that_is_not_whole_is_taken_over_and_waits_for_a_person(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    theirs = leader.incident(3)
    goes_on(leader, followed(leader), inherited=INHERITED)
    leader.run(60)
    assert not acted(leader)
    assert leader.incident(3).id == theirs.id
    assert leader.incident(3).hold.startswith("takeover: one led in term 1")
