"""Hosts that fall silent by what they share: a rack, a switch, their fence devices. The guard `shared cause`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import say

from ha_controller.core.effects import Fence, ReadHost
from ha_controller.core.events import Verb
from ha_controller.core.model import Domain, HostState, Signal
from ha_controller.core.settings import Channel

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
