"""A controller that leads after another one and has its record: it goes on with what is open there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from taken_over import INHERITED, acted, commanded, followed, followed_from_the_start, goes_on, left_by
from world import SETTINGS, Cloud

from ha_controller.core.effects import (
    Answer,
    Drill,
    Fence,
    MoveVm,
    Order,
)
from ha_controller.core.events import LeadChanged, RecordTakenOver, SightTold, Verb
from ha_controller.core.incident import CloudRecord, VmStage
from ha_controller.core.model import HostState, SeenAlive


@pytest.fixture
def leader(make_cloud) -> Cloud:
    cloud = make_cloud()
    cloud.run(10)
    return cloud


def test_a_standby_that_knows_nothing_goes_on_with_the_incident_of_the_leader(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    theirs = leader.incident(3)
    chosen = {record.id: record.destination for record in theirs.vms if record.stage is VmStage.MOVING}
    assert (theirs.state, bool(chosen)) == (HostState.FENCED, True)
    goes_on(leader, followed(leader))
    taken = leader.incident(3)
    assert (taken.id, taken.state, taken.foreign) == (theirs.id, HostState.FENCED, "")
    assert all(record.maybe_done for record in taken.vms if record.id in chosen)
    leader.run(120)
    assert leader.state(3) is HostState.RECOVERED
    assert not [effect for effect in acted(leader) if isinstance(effect, Fence) and effect.send], "it was verified off"
    moves = [effect for effect in acted(leader) if isinstance(effect, MoveVm)]
    assert {move.vm: move.destination for move in moves} | chosen == {move.vm: move.destination for move in moves}
    text = f"this controller leads now, term 2, and {INHERITED}. Its record was read; open on it: kvm-03"
    assert text in leader.told()


def test_a_move_without_an_answer_waits_until_it_has_surely_ended(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    goes_on(leader, followed(leader))
    taken_at = leader.now
    leader.run(120)
    assert leader.first(MoveVm) - taken_at >= SETTINGS.order_timeout_s


def test_a_power_off_that_was_announced_and_has_no_answer_is_sent_again(leader):
    leader.deaf = {Fence}
    leader.kill(3, "off")
    leader.run(30)
    theirs = leader.incident(3)
    assert theirs.state is HostState.FAILED
    goes_on(leader, followed(leader))
    leader.run(60)
    sent = [effect for effect in acted(leader) if isinstance(effect, Fence)]
    assert sent[0].send
    assert sent[0].attempt == theirs.attempts[-1].number + 1
    assert (leader.state(3), leader.incident(3).id) == (HostState.RECOVERED, theirs.id)


def test_a_host_that_answers_is_not_powered_off_whatever_the_record_says(leader):
    leader.deaf = {Fence}
    leader.kill(3, "off")
    leader.run(30)
    record = left_by(leader)
    del leader.dead[3]
    leader.deaf = set()
    leader.other_controller()
    leader.run(10)
    goes_on(leader, record)
    leader.run(60)
    assert not acted(leader), "an attempt with an unknown outcome, and life: a person decides"
    assert leader.incident(3).stopped


def test_what_the_leader_paused_stays_so(leader):
    leader.operator(Verb.PAUSE)
    goes_on(leader, followed(leader))
    leader.kill(2, "off")
    leader.run(60)
    assert leader.controller.state.cloud.paused_by
    assert not acted(leader)


@pytest.mark.parametrize("is_fenced", [True, False])
def test_life_that_this_controller_saw_voids_a_proof_that_the_leader_took_for_good(leader, is_fenced):
    """The leader did not see it, or could not write it any more. That it is silent again is no excuse."""
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    record = left_by(leader)
    theirs = leader.incident(3)
    assert theirs.state is HostState.FENCED
    if not is_fenced:
        theirs = replace(theirs, state=HostState.FAILED, proof=None, fenced_at=None)
        record = replace(record, incidents=(theirs,))
    leader.other_controller()
    leader.deaf = set()
    del leader.dead[3]
    leader.run(2)
    leader.kill(3, "off")
    leader.run(20)
    goes_on(leader, record)
    leader.run(60)
    assert not acted(leader)
    assert leader.state(3) is HostState.FAILED
    assert "answers" in leader.incident(3).stopped
    assert leader.incident(3).barred == ("bmc",)


def test_life_from_before_the_proof_voids_nothing(leader):
    """A standby that saw the host die, as the leader did."""
    record = followed_from_the_start(leader)
    goes_on(leader, record)
    leader.run(120)
    assert leader.state(3) is HostState.RECOVERED


def test_life_that_a_third_controller_saw_since_the_proof_voids_it_also_for_the_next_leader(leader):
    """Said to the one that stood by; the one that asked for the proof was gone by then."""
    record = followed_from_the_start(leader)
    (theirs,) = record.incidents
    seen_at = theirs.proof.at + 2
    leader.feed(SightTold(controller="one-3", alive=(SeenAlive(host=3, channel="icmp", at=seen_at),)))
    assert leader.now > seen_at
    goes_on(leader, record)
    leader.run(60)
    assert not acted(leader)
    assert leader.state(3) is HostState.FAILED
    assert "icmp from one-3 answers" in leader.incident(3).stopped


def test_a_host_whose_maintenance_ended_and_that_never_answered_since_is_not_shot_by_the_next_leader(leader):
    leader.excluded[3] = "a person works on it"
    leader.kill(3, "on")
    leader.other_controller()
    leader.run(10)
    del leader.excluded[3]
    leader.inventory()
    leader.run(90)
    record = left_by(leader)
    assert [incident.host for incident in record.incidents] == [3]
    leader.effects.clear()
    goes_on(leader, record)
    leader.run(90)
    assert not acted(leader)


def test_a_pause_with_an_end_goes_over_and_no_standby_tells_of_its_end(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.run(10)
    cloud.controller.round([replace(commanded(Verb.PAUSE), for_s=60.0)], cloud.now)
    record = left_by(cloud)
    cloud.feed(LeadChanged(term=None, leader="two"))
    cloud.run(70)
    assert "the pause has ended" not in cloud.told(), "the other one may have paused for longer"
    cloud.kill(2, "off")
    still = replace(record.cloud, paused_until=cloud.now + 30)
    goes_on(cloud, replace(record, cloud=still, term=3))
    cloud.run(28)
    assert not acted(cloud)
    cloud.run(60)
    assert "the pause has ended" in cloud.told()
    assert cloud.state(2) is HostState.RECOVERED


def test_an_old_incident_of_ours_that_is_over_on_the_record_is_closed_here(leader):
    leader.kill(3, "off")
    leader.run(40)
    ours = leader.incident(3)
    assert leader.state(3) is HostState.RECOVERED
    leader.feed(LeadChanged(term=None, leader="two"))
    del leader.dead[3]
    leader.run(20)
    leader.effects.clear()
    empty = RecordTakenOver(term=4, led_meanwhile="two led in term 3", incidents=(), cloud=CloudRecord(), trusts=())
    goes_on(leader, empty)
    assert 3 not in leader.controller.state.incidents
    closed = leader.incidents[ours.id]
    assert (closed.open, "the shared record" in closed.closing) == (False, True)
    assert leader.controller.state.cloud.next_incident > ours.id, "no number is given twice"
    leader.run(60)
    assert leader.state(3) is HostState.OK
    assert not acted(leader)


def test_a_host_of_which_nothing_is_on_the_record_needs_no_person(leader):
    record = left_by(leader)
    leader.kill(3, "off")
    leader.other_controller()
    leader.run(20)
    goes_on(leader, record)
    leader.run(60)
    assert leader.state(3) is HostState.RECOVERED, "nothing was ordered before"


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.RESUME, Verb.HOLD, Verb.RELEASE, Verb.CONFIRM_OFF, Verb.FENCE])
def test_a_standby_refuses_what_only_the_record_of_the_leader_would_keep(make_cloud, verb):
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(5)
    before = cloud.controller.state.cloud, dict(cloud.controller.state.incidents)
    cloud.operator(verb, host=3)
    (answer,) = cloud.ordered(Answer)
    assert answer.code == 9
    assert answer.text.startswith("One leads, not this controller")
    assert (cloud.controller.state.cloud, cloud.controller.state.incidents) == before


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.CONFIRM_OFF])
def test_nobody_hears_that_an_order_is_done_which_came_in_with_the_end_of_the_lead(make_cloud, verb):
    """The lead ends while the round is on its way: what that decides is on no record that the next leader reads."""
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.feed(LeadChanged(term=1))
    cloud.deaf = {Fence}
    cloud.kill(3, "off")
    cloud.run(30)
    cloud.controller.state.hosts[3] = replace(cloud.controller.state.hosts[3], levels=())  # nothing to be read first
    decision = cloud.controller.round([commanded(verb), LeadChanged(term=None, trouble="etcd is gone")], cloud.now)
    (answer,) = [each for each in decision.effects if isinstance(each, Answer)]
    assert decision.term is None, "so it goes to no shared record"
    assert (answer.code, "it may not count" in answer.text) == (6, True)


def test_what_was_decided_before_the_record_is_taken_over_leaves_in_no_later_term(make_cloud):
    """One slow commit, and all of it is in one round."""
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.run(10)
    state = cloud.controller.state
    state.out.append(Drill(host=3, request=8, devices=("bmc",), not_after=cloud.now + 3))
    record = RecordTakenOver(term=2, led_meanwhile="", incidents=(), cloud=CloudRecord(next_incident=5), trusts=())
    events = [commanded(Verb.PAUSE), LeadChanged(term=None), record, LeadChanged(term=2)]
    decision = cloud.controller.round(events, cloud.now)
    assert (decision.term, state.cloud.paused_by) == (2, "")
    assert not [each for each in decision.effects if isinstance(each, Order)]
    assert [each.code for each in decision.effects if isinstance(each, Answer)] == [6]
