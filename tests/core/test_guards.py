"""What stops a power-off: each guard says no, with its reason, and what a person can do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud, say

from ha_controller.core import guard, life
from ha_controller.core.effects import Answer, Fence, MarkMaintenance, MoveVm, OrderHost, ReadHost
from ha_controller.core.events import (
    EvidenceTaken,
    FenceResult,
    LeadChanged,
    MaintenanceMarked,
    OperatorCommanded,
    SecondMasterLooked,
    SelfChecked,
    Verb,
)
from ha_controller.core.model import Domain, Host, HostState, OnedHostState, Reading, Signal
from ha_controller.core.settings import Channel, Mode


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


# --- shared cause -----------------------------------------------------------------------------------------------------

RACKS = {host: (("HA_RACK", "east" if host < 4 else "west"),) for host in range(20)}


def racked(make_cloud, settings, **changes):
    """Four hosts in rack east, sixteen in rack west, and a storm guard that would not mind."""
    cloud = make_cloud(hosts=20, places=RACKS, settings=replace(settings, fences_max=10, **changes))
    cloud.run(6)
    return cloud


def test_hosts_of_one_rack_that_fall_silent_together_are_not_shot(make_cloud, settings):
    cloud = racked(make_cloud, settings)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    assert not cloud.ordered(Fence)
    assert "2 of 4 hosts of HA_RACK east" in cloud.incident(1).hold
    cloud.operator(Verb.APPROVE, incident=cloud.incident(1).id)
    cloud.run(5)
    assert {order.host for order in cloud.ordered(Fence)} == {1}


def test_less_than_half_of_a_rack_is_no_shared_cause(make_cloud, settings):
    places = {host: (("HA_RACK", "east" if host < 5 else "west"),) for host in range(20)}
    cloud = make_cloud(hosts=20, places=places, settings=replace(settings, fences_max=10))
    cloud.run(6)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(70)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}


def test_the_last_host_of_a_rack_that_comes_back_is_not_shot(make_cloud, settings):
    """The switch is back, and one host sees it seconds before the other: who is left is not alone with its silence."""
    cloud = racked(make_cloud, settings, storm_cooldown_s=60.0)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    del cloud.dead[2]
    cloud.run(50)
    assert cloud.state(2) is HostState.OK
    assert not cloud.ordered(Fence)
    assert "some are back" in cloud.incident(1).hold
    cloud.restart()
    cloud.run(9)
    assert not cloud.ordered(Fence)
    del cloud.dead[1]
    cloud.run(5)
    assert cloud.state(1) is HostState.OK


def test_a_restart_does_not_forget_that_others_shared_its_silence(make_cloud, settings):
    cloud = racked(make_cloud, settings, storm_cooldown_s=200.0)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    del cloud.dead[2]
    cloud.run(10)
    cloud.restart()
    cloud.run(90)
    assert not cloud.ordered(Fence)
    assert "some are back" in cloud.incident(1).hold
    cloud.run(120)
    assert {order.host for order in cloud.ordered(Fence)} == {1}


def test_a_host_that_does_not_come_back_with_its_rack_is_shot(make_cloud, settings):
    cloud = racked(make_cloud, settings, storm_cooldown_s=60.0)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    del cloud.dead[2]
    cloud.run(55)
    assert not cloud.ordered(Fence)
    cloud.run(15)
    assert {order.host for order in cloud.ordered(Fence)} == {1}


def test_the_last_host_of_a_rack_is_not_shot_either_if_no_incident_could_be_opened(make_cloud, settings):
    """OpenNebula was behind the same switch: it tells of the VMs when one host is back already."""
    cloud = racked(make_cloud, settings)
    cloud.deaf.add(ReadHost)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    assert not cloud.incidents
    cloud.deaf.clear()
    del cloud.dead[2]
    cloud.run(60)
    assert cloud.state(2) is HostState.OK
    assert "some are back" in cloud.incident(1).hold
    assert not cloud.ordered(Fence)


def test_a_host_that_waits_to_be_readmitted_speaks_for_its_rack(make_cloud, settings):
    """It was powered off long ago, answers again, and falls silent together with a host that is in use."""
    cloud = racked(make_cloud, settings)
    cloud.kill(1, "off")
    cloud.run(400)
    assert cloud.state(1) is HostState.RECOVERED
    del cloud.dead[1]
    cloud.run(20)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    assert {order.host for order in cloud.ordered(Fence)} == {1}
    assert "2 of 4 hosts of HA_RACK east" in cloud.incident(2).hold


def test_two_hosts_of_a_big_rack_are(make_cloud, settings):
    cloud = racked(make_cloud, settings)
    for host in (10, 11):
        cloud.kill(host, "on")
    cloud.run(90)
    assert {order.host for order in cloud.ordered(Fence)} == {10, 11}


def test_hosts_that_share_nothing_are_shot(make_cloud, settings):
    cloud = racked(make_cloud, settings)
    for host in (1, 10):
        cloud.kill(host, "on")
    cloud.run(90)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 10}


def test_what_all_hosts_share_tells_nothing(make_cloud, settings):
    everywhere = dict.fromkeys(range(8), (("HA_SWITCH", "core"),))
    cloud = make_cloud(places=everywhere, settings=replace(settings, fences_max=10))
    cloud.run(6)
    for host in (1, 2):
        cloud.kill(host, "on")
    cloud.run(90)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}


def test_a_rack_without_power_is_handled_when_each_device_proves_it(make_cloud, settings):
    cloud = racked(make_cloud, settings)
    for host in (1, 2):
        cloud.kill(host, "off")
    cloud.run(15)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}


def test_hosts_of_one_rack_that_fail_long_after_each_other_are_shot(make_cloud, settings):
    cloud = racked(make_cloud, settings)
    cloud.kill(1, "on")
    cloud.run(90)
    cloud.run(300)
    cloud.kill(2, "on")
    cloud.run(90)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}


def test_hosts_whose_fence_devices_vanish_with_them_are_not_shot(make_cloud, settings):
    cloud = make_cloud(hosts=20, settings=replace(settings, fences_max=10))
    cloud.run(6)
    for host in (1, 10):
        cloud.kill(host, "mute")
    cloud.run(90)
    assert not cloud.ordered(Fence)
    assert "the fence devices of kvm-01, kvm-10 fell silent together with their hosts" in cloud.incident(1).hold


def seen_by_neighbours(make_cloud, settings, places):
    """Twenty hosts that also neighbours watch."""
    channels = (*settings.channels, Channel(name="neighbours", domain=Domain.VANTAGE, proves_userland=False))
    limits = {"fences_max": 10, "storm_cooldown_s": 30.0, "channels": channels}
    cloud = make_cloud(hosts=20, places=places, settings=replace(settings, **limits))
    cloud.elsewhere = {"neighbours": {}}
    cloud.run(6)
    return cloud


@pytest.mark.parametrize(("power", "places", "said"), [("mute", {}, "fence devices"), ("on", RACKS, "HA_RACK east")])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_shared_cause_that_neighbours_see_in_parts_is_still_one(make_cloud, settings, power, places, said, restarted):
    """One of both stays in sight of its neighbours for longer than hosts that fall together may be apart."""
    cloud = seen_by_neighbours(make_cloud, settings, places)
    for host in (1, 2):
        cloud.kill(host, power)
    say(cloud, 1, neighbours=Signal.SILENT)
    cloud.run(400)
    assert cloud.state(2) is HostState.SUSPECT
    assert 2 not in {incident.host for incident in cloud.incidents.values()}
    say(cloud, 2, neighbours=Signal.SILENT)
    cloud.run(90)
    if restarted:
        cloud.restart()
    cloud.run(60)
    assert not cloud.ordered(Fence)
    assert said in cloud.incident(1).hold
    assert said in cloud.incident(2).hold


def test_hosts_that_fell_with_others_in_one_way_only_do_not_outvote_those_whose_fence_devices_vanished(
    make_cloud, settings
):
    """Three fall with them for us and are cared for at once; two stay in sight of neighbours, both without a device."""
    cloud = seen_by_neighbours(make_cloud, settings, {})
    for host, power in ((1, "mute"), (2, "mute"), (10, "off"), (11, "off"), (12, "off")):
        cloud.kill(host, power)
    for host in (10, 11, 12):
        say(cloud, host, neighbours=Signal.SILENT)
    cloud.run(320)
    assert {order.host for order in cloud.ordered(Fence)} == {10, 11, 12}
    cloud.operator(Verb.PAUSE)  # both are on record before the guards are asked for the first
    say(cloud, 1, neighbours=Signal.SILENT)
    say(cloud, 2, neighbours=Signal.SILENT)
    cloud.run(70)
    cloud.operator(Verb.RESUME)
    cloud.run(40)
    assert {order.host for order in cloud.ordered(Fence)} == {10, 11, 12}
    assert "the fence devices of kvm-01, kvm-02 fell silent together" in cloud.incident(1).hold


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


# --- maintenance ------------------------------------------------------------------------------------------------------


def test_a_host_that_is_being_fenced_cannot_be_put_into_maintenance(cloud):
    cloud.kill(3, "mute")
    cloud.run(70)
    cloud.operator(Verb.MAINTENANCE_ON, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    assert "ha-controller hold kvm-03" in cloud.ordered(Answer)[-1].text
    assert not cloud.ordered(MarkMaintenance)


def test_maintenance_is_written_in_opennebula_with_its_end(cloud):
    done = cloud.now
    cloud.feed(OperatorCommanded(request=7, verb=Verb.MAINTENANCE_ON, who="ann", reason="RAM", host=3, for_s=3600.0))
    (mark,) = cloud.ordered(MarkMaintenance)
    assert (mark.host, mark.on, mark.until, mark.reason) == (3, True, done + 3600.0, "ann: RAM")
    assert not cloud.ordered(Answer)  # not before OpenNebula has taken it
    cloud.feed(MaintenanceMarked(host=3, request=7, failure="no answer"))
    assert cloud.ordered(Answer)[-1].code == 6


def test_a_host_that_dies_while_its_monitoring_is_started_anew_was_disabled_by_nobody(cloud):
    """It is OFFLINE by us for a moment: only the newest reading shows that, and the inventory is older."""
    cloud.one_states[3] = OnedHostState.OFFLINE
    cloud.restarting = {3}
    cloud.kill(3, "off")
    cloud.run(10)
    assert cloud.incident(3).prior_one_state == OnedHostState.MONITORED
    assert cloud.state(3) is HostState.RECOVERED


def test_a_host_that_never_answered_since_its_maintenance_ended_is_not_shot_before_a_person_says_so(cloud):
    cloud.excluded = {3: "HA_IGNORE=YES"}
    cloud.kill(3, "off")
    cloud.inventory()
    cloud.run(100)
    cloud.excluded = {}
    cloud.inventory()
    cloud.run(60)
    assert "it has not answered since its maintenance ended" in cloud.incident(3).hold
    assert cloud.incident(3).hold_needs_person
    assert not cloud.ordered(Fence)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(10)
    assert {order.host for order in cloud.ordered(Fence)} == {3}


class Marked(Cloud):
    """Hosts with our mark show it in every inventory."""

    def host(self, host: int) -> Host:
        return replace(super().host(host), marked=host in self.marked)


@pytest.mark.parametrize("state", [OnedHostState.DISABLED, OnedHostState.OFFLINE])
@pytest.mark.parametrize("ours", [False, True])
def test_a_host_that_a_person_disabled_waits_for_a_person_and_one_that_we_disabled_does_not(state, ours):
    cloud = Marked(marked={3} if ours else set())
    cloud.one_states[3] = state
    cloud.run(6)
    cloud.inventory()
    cloud.kill(3, "off")
    cloud.run(20)
    assert {order.host for order in cloud.ordered(Fence)} == ({3} if ours else set())
    if ours:
        return
    assert cloud.incident(3).hold.startswith("maintenance: disabled in OpenNebula by somebody else")
    assert cloud.incident(3).hold_needs_person
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(3)
    assert {order.host for order in cloud.ordered(Fence)} == {3}


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


def test_what_was_seen_during_a_maintenance_condemns_nobody_after_it(cloud):
    """Its full grace begins when it ends."""
    cloud.excluded = {3: "HA_IGNORE=YES"}
    cloud.inventory()
    cloud.run(10)
    cloud.kill(3, "on")
    cloud.run(300)
    cloud.excluded = {}
    cloud.inventory()
    del cloud.dead[3]
    cloud.run(1)
    assert not cloud.incidents
    cloud.kill(3, "on")
    cloud.run(55)
    assert not cloud.ordered(Fence)
    cloud.run(20)
    assert {order.host for order in cloud.ordered(Fence)} == {3}


def test_a_device_that_is_being_used_is_not_one_that_vanished(make_cloud, settings):
    """While a host is being fenced its device is not read beside that."""
    cloud = make_cloud(hosts=20, settings=replace(settings, fences_max=10))
    cloud.run(6)
    cloud.kill(1, "mute")
    cloud.run(70)
    assert {order.host for order in cloud.ordered(Fence)} == {1}
    cloud.kill(10, "mute")
    cloud.run(70)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 10}
