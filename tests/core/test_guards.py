"""What stops a power-off: each guard says no, with its reason, and what a person can do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core import guard, life
from ha_controller.core.effects import Fence, MoveVm, OrderHost
from ha_controller.core.events import EvidenceTaken, FenceResult, LeadChanged, SecondMasterLooked, SelfChecked, Verb
from ha_controller.core.model import HostState, Reading, Signal
from ha_controller.core.settings import Mode


def test_three_silent_hosts_of_eight_are_a_storm(cloud):
    for host in (1, 2, 3):
        cloud.kill(host, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    assert "storm" in cloud.incident(1).hold
    cloud.dead.clear()
    cloud.run(2)
    assert all(cloud.state(host) is HostState.OK for host in range(8))


def storm_that_passes(make_cloud, settings):
    """Three of eight fall silent; two of them are back after some seconds, and the third has no power."""
    cloud = make_cloud(settings=replace(settings, storm_cooldown_s=60.0))
    cloud.run(6)
    for host in (1, 2, 3):
        cloud.kill(host, "off")
    cloud.run(10)
    assert cloud.incident(1).hold.startswith("storm")
    assert cloud.incident(1).hold_needs_person
    for host in (2, 3):
        del cloud.dead[host]
    return cloud


@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_storm_nothing_is_powered_off_for_a_while(make_cloud, settings, restarted):
    cloud = storm_that_passes(make_cloud, settings)
    over_at = cloud.now
    cloud.run(20)
    if restarted:
        cloud.restart()
    cloud.run(35)
    assert not cloud.ordered(Fence)
    assert cloud.incident(1).hold.startswith("storm: cooling down after a storm")
    cloud.run(20)
    assert {order.host for order in cloud.ordered(Fence)} == {1}
    assert 59 <= cloud.first(Fence) - over_at <= 65


def test_a_person_need_not_wait_until_a_storm_has_cooled_down(make_cloud, settings):
    cloud = storm_that_passes(make_cloud, settings)
    cloud.run(10)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(1).id)
    cloud.run(3)
    assert {order.host for order in cloud.ordered(Fence)} == {1}


@pytest.mark.parametrize(("share", "is_storm"), [(0.25, False), (0.24, True)])
def test_a_storm_begins_above_the_share_and_not_at_it(make_cloud, settings, share, is_storm):
    cloud = make_cloud(settings=replace(settings, max_failed_share=share))
    cloud.run(6)
    for host in (1, 2):
        cloud.kill(host, "off")
    cloud.run(10)
    assert {order.host for order in cloud.ordered(Fence)} == (set() if is_storm else {1, 2})


def test_the_floor_lets_one_proven_host_of_three_be_handled(make_cloud):
    cloud = make_cloud(hosts=3)
    cloud.run(6)
    cloud.kill(1, "off")
    cloud.run(10)
    assert cloud.state(1) is HostState.RECOVERED


def test_the_floor_does_not_open_for_silence_alone(make_cloud):
    cloud = make_cloud(hosts=3)
    cloud.run(6)
    cloud.kill(1, "on")
    cloud.run(90)
    assert not cloud.ordered(Fence)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(1).id)
    cloud.run(10)
    assert cloud.state(1) is HostState.RECOVERED


def test_the_budget_stops_a_slow_cascade(make_cloud, settings):
    cloud = make_cloud(hosts=20, settings=replace(settings, fences_max=2))
    cloud.run(6)
    for host in (1, 2, 3):
        cloud.kill(host, "off")
        cloud.run(15)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}
    assert "budget" in cloud.incident(3).hold
    assert cloud.incident(3).hold_needs_person


def test_a_cut_off_controller_shoots_nobody(cloud):
    cloud.feed(SelfChecked(ok=False, detail="gateway does not answer"))
    cloud.kill(3, "off")
    cloud.run(90)
    assert not cloud.ordered(Fence)
    assert "self-check" in cloud.incident(3).hold


def test_what_was_silent_while_we_were_cut_off_is_silent_from_then_on_only(cloud):
    cloud.feed(SelfChecked(ok=False, detail="gateway does not answer"))
    cloud.kill(3, "on")
    cloud.run(90)
    views = cloud.controller.state.views
    healthy_since = views[0].since
    cloud.feed(SelfChecked(ok=True, detail="gateway answers"))
    assert (views[3].since, views[0].since) == (cloud.now, healthy_since)
    cloud.run(55)
    assert not cloud.ordered(Fence)
    cloud.run(15)
    assert {order.host for order in cloud.ordered(Fence)} == {3}


@pytest.mark.parametrize("needed", [True, False])
def test_a_self_check_that_goes_on_well_begins_no_silence_anew(make_cloud, settings, needed):
    cloud = make_cloud(settings=replace(settings, self_check_needed=needed))
    cloud.run(6)
    cloud.kill(3, "on")
    for _ in range(7):
        cloud.run(10)
        if not needed:
            cloud.feed(SelfChecked(ok=False, detail="gateway does not answer"))
        cloud.feed(SelfChecked(ok=True, detail="gateway answers"))
    assert {order.host for order in cloud.ordered(Fence)} == {3}


def test_an_active_failure_hook_is_a_second_master(cloud):
    cloud.feed(SecondMasterLooked(present=True, detail="hook 3 host_error"))
    cloud.kill(3, "off")
    cloud.run(20)
    assert not cloud.ordered(Fence)
    cloud.feed(SecondMasterLooked(present=None, detail="no rights"))
    cloud.run(20)
    assert not cloud.ordered(Fence)


def test_without_the_lead_nothing_is_sent(cloud):
    cloud.feed(LeadChanged(term=None))
    cloud.kill(3, "off")
    cloud.run(20)
    assert not cloud.ordered(Fence)


def test_nothing_is_powered_off_shortly_after_start(make_cloud):
    cloud = make_cloud()
    cloud.kill(3, "off")
    cloud.run(4.5)
    assert not cloud.ordered(Fence)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_observe_only_tells(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, mode=Mode.OBSERVE))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    assert "would power it off now" in cloud.told()


def test_approve_asks_first(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, mode=Mode.APPROVE))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    number = cloud.incident(3).id
    assert f"pending approve {number}" in cloud.told()
    cloud.operator(Verb.REJECT, incident=number)
    cloud.run(5)
    assert not cloud.ordered(Fence)
    cloud.operator(Verb.APPROVE, incident=number)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_pause_stops_the_moves_between_off_and_the_first_migrate(cloud):
    cloud.deaf.add(OrderHost)
    cloud.kill(3, "off")
    cloud.run(4)
    cloud.operator(Verb.PAUSE)
    cloud.deaf.clear()
    cloud.run(20)
    assert cloud.state(3) is HostState.FENCED
    assert not cloud.ordered(MoveVm)
    cloud.operator(Verb.RESUME)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


# --- budget and capacity ----------------------------------------------------------------------------------------------


def test_the_budget_of_a_day_stops_what_that_of_an_hour_lets_through(make_cloud, settings):
    limits = {"fences_max": 2, "fences_per_s": 60.0, "fences_per_day_max": 3}
    cloud = make_cloud(hosts=30, settings=replace(settings, **limits))
    cloud.run(6)
    for host in (1, 2, 3, 4):
        cloud.kill(host, "off")
        cloud.run(80)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2, 3}
    assert "in the last 1440 min (limit 3)" in cloud.incident(4).hold


def test_the_budget_comes_back_when_its_time_has_passed(make_cloud, settings):
    cloud = make_cloud(hosts=20, settings=replace(settings, fences_max=1, fences_per_s=60.0))
    cloud.run(6)
    for host in (1, 2):
        cloud.kill(host, "off")
        cloud.run(20)
    assert {order.host for order in cloud.ordered(Fence)} == {1}
    assert "budget" in cloud.incident(2).hold
    cloud.run(45)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}


def test_a_host_whose_vms_fit_nowhere_is_shot_all_the_same_and_that_is_told(cloud):
    cloud.vms[30] = replace(cloud.vms[30], memory_mb=10_000_000)
    cloud.inventory()
    cloud.kill(3, "off")
    cloud.run(10)
    assert {order.host for order in cloud.ordered(Fence)} == {3}
    assert "MB of its VMs fit nowhere else" in cloud.told()


# --- life -------------------------------------------------------------------------------------------------------------


def test_life_is_looked_for_once_more_whatever_led_to_the_power_off(cloud):
    cloud.operator(Verb.PAUSE)
    cloud.kill(3, "off")
    cloud.run(10)
    state, host, incident = cloud.controller.state, cloud.controller.state.hosts[3], cloud.incident(3)

    def objections() -> list[str]:
        return [result.guard for result in guard.check(state, host, incident, cloud.now) if not result.passes]

    assert objections() == []
    state.view(3).views["ssh"].note(Reading(host=3, signal=Signal.ALIVE, sent_at=cloud.now), 10.0)
    assert objections() == ["life"]


@pytest.mark.parametrize(
    ("host", "signal", "is_taken_back"),
    [(3, Signal.ALIVE, True), (4, Signal.ALIVE, False), (3, Signal.SILENT, False), (3, Signal.UNKNOWN, False)],
)
def test_only_life_of_its_own_host_takes_back_a_power_off_that_waits_for_the_disk(cloud, host, signal, is_taken_back):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    cloud.run(4)
    (order,) = cloud.ordered(Fence)
    reading = Reading(host=host, signal=signal, sent_at=cloud.now)
    report = life.taken_back(cloud.controller.state, order, [EvidenceTaken(channel="ssh", readings=(reading,))])
    assert (report is not None) == is_taken_back
    if report is not None:
        assert (report.result, report.detail) == (FenceResult.NOT_SENT, "not sent: ssh answered meanwhile")
