"""The host on which this controller runs is not powered off by this controller, whoever orders it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core import guard
from ha_controller.core.effects import Answer, Drill, Fence, Tell
from ha_controller.core.events import LeadChanged, SelfPlaced, Verb
from ha_controller.core.model import HostState
from ha_controller.flight import recorder
from ha_controller.flight.replay import replay
from ha_controller.flight.text import read, written

HERE = SelfPlaced(hosts=(3,), detail="this controller runs in VM 12 on kvm-03")
REASON = "this controller would power itself off: this controller runs in VM 12 on kvm-03"


@pytest.fixture
def silent(cloud):
    """Its own host died, and everything but that speaks for its power-off."""
    cloud.run(6)
    cloud.feed(HERE)
    cloud.kill(3, "off")
    cloud.run(30)
    return cloud


def told(cloud) -> list[Tell]:
    return [tell for tell in cloud.ordered(Tell) if tell.host == 3 and "own host" in tell.text]


def answer(cloud) -> Answer:
    return cloud.ordered(Answer)[-1]


def test_it_is_held_and_told_once_with_what_a_person_can_do(silent):
    assert not silent.ordered(Fence)
    assert silent.state(3) is HostState.SUSPECT
    assert silent.incident(3).hold.startswith(f"own host: {REASON}. Nothing is done. Power it off by hand")
    assert silent.incident(3).hold_needs_person
    (tell,) = told(silent)
    assert "ha-controller confirm-off kvm-03" in tell.next_step
    assert "pending approve" not in tell.next_step


def test_other_hosts_are_powered_off_as_always(silent):
    silent.kill(5, "off")
    silent.run(10)
    assert {order.host for order in silent.ordered(Fence)} == {5}


def test_where_the_lead_can_be_given_away_people_are_told_that_first(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, record_is_shared=True, lead_is_given_away=True))
    cloud.run(6)
    cloud.feed(HERE)
    cloud.kill(3, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    assert told(cloud)[0].next_step.startswith(
        "Nothing is done. A fit controller that stands by elsewhere gets the lead"
    )
    assert [each.host for each in guard.waits_for_another(cloud.controller.state)] == [3]


def test_nothing_waits_for_another_one_while_something_else_is_in_the_way(cloud):
    cloud.run(6)
    cloud.feed(HERE)
    cloud.operator(Verb.PAUSE)
    cloud.kill(3, "off")
    cloud.run(30)
    assert cloud.incident(3).hold.startswith("paused")
    assert guard.waits_for_another(cloud.controller.state) == []


def test_no_order_and_no_approval_of_a_person_overrules_it(silent):
    for verb in (Verb.FENCE, Verb.APPROVE):
        silent.operator(verb, host=3)
        assert (answer(silent).code, REASON in answer(silent).text) == (4, True)
    silent.run(30)
    assert not silent.ordered(Fence)
    assert len(told(silent)) == 1


def test_it_stays_closed_after_an_order_from_before_it_was_known(cloud):
    cloud.run(6)
    cloud.operator(Verb.PAUSE)
    cloud.kill(3, "on")
    cloud.run(5)
    cloud.operator(Verb.FENCE, host=3)
    cloud.run(3)
    cloud.operator(Verb.FENCE, host=3)
    assert cloud.incident(3).ordered_by
    cloud.feed(HERE)
    cloud.operator(Verb.RESUME)
    cloud.run(60)
    assert cloud.incident(3).hold.startswith("own host")
    assert not cloud.ordered(Fence)


def test_who_has_seen_that_it_is_off_goes_on(silent):
    silent.operator(Verb.CONFIRM_OFF, host=3)
    silent.run(10)
    assert silent.state(3) in (HostState.FENCED, HostState.RECOVERED)
    assert not silent.ordered(Fence)


def test_no_drill_there(cloud):
    cloud.feed(HERE)
    cloud.excluded = {3: "maintenance"}
    cloud.inventory()
    host = replace(cloud.controller.state.hosts[3], maintenance=True, vms=())
    cloud.controller.state.view(3).vms = {}
    cloud.controller.state.hosts[3] = host
    cloud.operator(Verb.DRILL, host=3)
    assert (answer(cloud).code, REASON in answer(cloud).text) == (4, True)
    assert not cloud.ordered(Drill)


@pytest.mark.parametrize("hosts", [(), None, (7,)])
def test_where_it_runs_elsewhere_or_that_is_not_known_it_goes_on(cloud, hosts):
    cloud.run(6)
    cloud.feed(SelfPlaced(hosts=hosts, detail="told"))
    cloud.kill(3, "off")
    cloud.run(20)
    assert {order.host for order in cloud.ordered(Fence)} == {3}


def test_once_the_controller_is_elsewhere_it_is_powered_off(silent):
    silent.feed(SelfPlaced(hosts=(2,), detail="this controller runs in VM 12 on kvm-02"))
    silent.run(10)
    assert {order.host for order in silent.ordered(Fence)} == {3}


def test_the_next_leader_goes_on(silent):
    """One that runs elsewhere, and has the incident from the record."""
    silent.feed(LeadChanged(term=None, leader="one-2"))
    silent.restart()
    silent.run(30)
    assert {order.host for order in silent.ordered(Fence)} == {3}


def test_a_replay_knows_where_the_controller_ran_though_that_was_seen_long_before(cloud, monkeypatch):
    monkeypatch.setattr(recorder, "LEG_S", 2.0)
    cloud.feed(HERE)
    cloud.run(20)
    cloud.kill(3, "off")
    cloud.run(8)
    lines = written(cloud.recorder.cut([3], cloud.now, "").record())
    record = read(line.decode() for line in lines)
    assert not any(HERE in each.events for each in record.rounds)
    again = replay(record)
    assert not [effect for _, effect in again.effects if isinstance(effect, Fence)]
    assert not again.partings
