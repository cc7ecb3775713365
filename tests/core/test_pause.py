"""The pause: with an end of its own, across a restart, and on a controller that does not lead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import SETTINGS, Cloud

from ha_controller.core import report
from ha_controller.core.effects import Answer, Fence, MoveVm
from ha_controller.core.events import LeadChanged, Verb
from ha_controller.core.model import HostState


@pytest.fixture
def standby(cloud: Cloud) -> Cloud:
    cloud.feed(LeadChanged(term=None, leader="one-2"))
    cloud.effects.clear()
    return cloud


def answers(cloud: Cloud) -> list[tuple[int, str]]:
    return [(effect.code, effect.text) for _, effect in cloud.effects if isinstance(effect, Answer)]


def fenced_at(cloud: Cloud) -> list[float]:
    return [at for at, effect in cloud.effects if isinstance(effect, Fence)]


def test_a_pause_with_a_time_ends_by_itself_and_only_then_is_a_dead_host_powered_off(cloud):
    cloud.run(6)
    cloud.operator(Verb.PAUSE, for_s=60.0)
    began = cloud.now
    cloud.kill(3, "off")
    cloud.run(58)
    assert not fenced_at(cloud)
    assert report.status(cloud.controller.state, cloud.now)["paused_until"] == began + 60
    cloud.run(60)
    assert cloud.cloud.paused_by == ""
    assert "the pause has ended, its time is over (paused by ann)" in cloud.told()
    assert cloud.state(3) is HostState.RECOVERED
    settle_s = cloud.settings.settle_s
    assert min(fenced_at(cloud)) >= began + 60 + settle_s, "people have the settle time to press it again"


def test_a_pause_that_is_pressed_again_in_time_stops_everything_before_anything_was_sent(cloud):
    cloud.run(6)
    cloud.operator(Verb.PAUSE, for_s=30.0)
    cloud.kill(3, "off")
    cloud.run(32)
    assert "the pause has ended" in cloud.told()
    cloud.operator(Verb.PAUSE)
    cloud.run(120)
    assert not [effect for _, effect in cloud.effects if isinstance(effect, Fence | MoveVm)]


def test_the_time_of_a_pause_goes_on_across_a_restart(cloud):
    cloud.run(6)
    cloud.operator(Verb.PAUSE, for_s=100.0)
    cloud.run(50)
    cloud.restart()
    cloud.run(40)
    assert cloud.controller.state.cloud.paused_by == "ann"
    cloud.run(20)
    assert cloud.controller.state.cloud.paused_by == ""


def test_a_clock_that_was_set_back_makes_no_pause_longer(cloud):
    cloud.operator(Verb.PAUSE, for_s=100.0)
    cloud.now -= 5000
    cloud.restart()
    cloud.run(110)
    assert cloud.controller.state.cloud.paused_by == ""


def test_a_pause_without_a_time_never_ends_and_takes_the_place_of_one_with(cloud):
    cloud.operator(Verb.PAUSE, for_s=10.0)
    cloud.operator(Verb.PAUSE)
    cloud.run(60)
    assert cloud.controller.state.cloud.paused_by == "ann"
    assert cloud.controller.state.cloud.paused_until is None


@pytest.mark.parametrize("first_s", [None, 300.0])
def test_a_pause_that_ends_sooner_leaves_the_one_before_in_force_and_says_so(cloud, first_s):
    cloud.run(6)
    cloud.operator(Verb.PAUSE, for_s=first_s)
    cloud.operator(Verb.PAUSE, for_s=10.0)
    code, text = answers(cloud)[-1]
    assert code == 0
    assert "It was paused by ann" in text
    assert "and stays so" in text
    cloud.kill(3, "off")
    cloud.run(120)
    assert cloud.cloud.paused_by == "ann"
    assert not fenced_at(cloud)


def test_a_process_that_stood_still_over_the_end_of_a_pause_gives_people_the_settle_time_all_the_same(cloud):
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.operator(Verb.PAUSE, for_s=30.0)
    cloud.run(20)
    cloud.now += 600
    woke_at = cloud.now
    cloud.run(60)
    assert "the pause has ended" in cloud.told()
    assert min(fenced_at(cloud)) >= woke_at + cloud.settings.settle_s


def test_the_end_of_a_pause_says_that_vms_are_moved_at_once(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, settle_s=40.0))
    cloud.run(41)
    cloud.kill(3, "off")
    while cloud.state(3) is not HostState.FENCED:
        cloud.run(0.2)
    cloud.operator(Verb.PAUSE, for_s=30.0)
    cloud.run(29)
    assert not cloud.ordered(MoveVm)
    cloud.run(30)
    assert cloud.ordered(MoveVm), "the settle time is for power-offs"
    assert "VMs of hosts that are off are moved from now on" in cloud.told()


def test_where_another_one_leads_a_pause_is_refused_with_its_name_and_changes_nothing(standby):
    standby.operator(Verb.PAUSE)
    ((code, text),) = answers(standby)
    assert code == 9
    assert "one-2 leads, not this controller: nothing was paused" in text
    assert standby.controller.state.cloud.paused_by == ""


def test_a_standby_that_was_paused_here_stays_paused_when_it_takes_the_lead_and_says_so(standby):
    standby.operator(Verb.PAUSE, here=True)
    ((code, text),) = answers(standby)
    assert code == 0
    assert "one-2 leads and is NOT paused by this" in text
    assert "one-2 leads and is not paused" in report.status(standby.controller.state, standby.now)["verdict"]
    standby.feed(LeadChanged(term=2, inherited="one-2 led in term 1"))
    standby.run(6)
    standby.kill(3, "off")
    standby.run(60)
    assert not [effect for _, effect in standby.effects if isinstance(effect, Fence | MoveVm)]
    assert "this controller leads now and is paused by ann" in standby.told()


def test_while_nobody_is_known_to_lead_a_pause_is_taken_for_whoever_presses_it_may_be_right(cloud):
    cloud.feed(LeadChanged(term=None, trouble="etcd does not answer"))
    cloud.effects.clear()
    cloud.operator(Verb.PAUSE)
    ((code, text),) = answers(cloud)
    assert code == 0
    assert "It does not lead now; others may." in text
    cloud.feed(LeadChanged(term=3))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(60)
    assert not fenced_at(cloud)


def test_resume_on_a_standby_ends_its_own_pause_and_no_other(standby):
    standby.operator(Verb.RESUME)
    standby.operator(Verb.PAUSE, here=True)
    standby.operator(Verb.RESUME)
    first, _, last = answers(standby)
    assert first[0] == 9
    assert "Resume it there" in first[1]
    assert last == (0, "Resumed. That was this controller alone: one-2 leads.")
    assert standby.controller.state.cloud.paused_by == ""


def test_a_pause_that_ended_while_the_controller_was_down_ends_at_the_start(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, settle_s=5.0))
    cloud.operator(Verb.PAUSE, for_s=10.0)
    cloud.now += 1000
    cloud.restart()
    cloud.run(1)
    assert cloud.cloud.paused_by == ""
