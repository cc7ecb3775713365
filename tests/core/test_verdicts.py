"""Which kind of trouble it is, and what is done about each kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud, say, seen

from ha_controller.core.effects import Fence, RestartMonitoring, Tell
from ha_controller.core.events import EvidenceTaken, LeadChanged, Verb
from ha_controller.core.model import Domain, HostState, Reading, Signal
from ha_controller.core.settings import POLICIES, Channel, Mode, Policy


@pytest.fixture
def cloud(settings) -> Cloud:
    return seen(settings)


def test_a_host_that_neighbours_see_is_isolated_and_not_shot(cloud):
    cloud.kill(3)
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(300)
    assert not cloud.ordered(Fence)
    assert cloud.told().count("kvm-03 is isolated: no answer here, but neighbours shows life") == 1
    assert cloud.state(3) is HostState.SUSPECT


def test_a_host_that_is_alive_on_storage_is_isolated_and_not_shot(cloud):
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT)
    cloud.run(300)
    assert not cloud.ordered(Fence)
    assert "heartbeat shows life" in cloud.told()


def test_an_isolated_host_is_fenced_if_the_operator_wants_that(make_cloud, settings):
    cloud = seen(settings, policies={**POLICIES, "isolated": Policy.FENCE})
    cloud.kill(3)
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(5)
    (order,) = cloud.ordered(Fence)
    assert order.host == 3
    assert cloud.incident(3).verdict == "isolated"


def test_an_isolated_host_that_answers_here_again_is_not_shot_whatever_the_policy(make_cloud, settings):
    cloud = seen(settings, policies={**POLICIES, "isolated": Policy.APPROVE})
    cloud.kill(3)
    cloud.run(5)
    assert "isolated" in cloud.incident(3).hold
    del cloud.dead[3]
    cloud.run(2)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(5)
    assert not cloud.ordered(Fence)


def test_a_dead_host_is_condemned_by_two_domains_within_seconds(cloud):
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    begun = cloud.now
    cloud.run(20)
    assert cloud.incident(3).verdict == "dead"
    assert cloud.first(Fence) - begun < 12


def test_a_controller_that_is_cut_off_from_half_of_the_hosts_shoots_none(cloud):
    for host in range(4):
        cloud.kill(host)
    cloud.run(300)
    assert not cloud.ordered(Fence)


def test_when_the_other_vantage_points_know_nothing_people_are_told_that_it_cannot_be_decided(cloud):
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.UNKNOWN, heartbeat=Signal.UNKNOWN)
    cloud.run(300)
    assert not cloud.ordered(Fence)
    assert cloud.told().count("it cannot be told whether it is dead") == 1


def test_a_host_that_lost_its_storage_is_told_and_not_shot(cloud):
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(120)
    assert cloud.told().count("kvm-03: storage lost") == 1
    assert cloud.state(3) is HostState.OK
    assert not cloud.ordered(Fence)
    say(cloud, 3, heartbeat=Signal.ALIVE)
    cloud.run(2)
    assert "kvm-03: no storage lost any more" in cloud.told()


def test_storage_that_is_down_for_all_shoots_nobody(cloud):
    for host in range(8):
        say(cloud, host, heartbeat=Signal.SILENT)
    cloud.run(300)
    assert not cloud.ordered(Fence)
    assert all(cloud.state(host) is HostState.OK for host in range(8))


def test_a_host_of_which_opennebula_hears_nothing_is_told_and_not_shot(cloud):
    for _ in range(100):
        cloud.feed(
            EvidenceTaken(
                channel="oned",
                readings=(Reading(host=3, signal=Signal.SILENT, sent_at=cloud.now, detail="oned says ERROR"),),
            )
        )
        cloud.run(1)
    told = [effect for effect in cloud.ordered(Tell) if "agent trouble" in effect.text]
    assert [effect.text for effect in told] == ["kvm-03: agent trouble: oned: oned says ERROR, and the host answers"]
    assert not cloud.ordered(Fence)
    assert not cloud.ordered(RestartMonitoring)  # its state is not ERROR: OpenNebula has not given it up


def in_error(cloud: Cloud, seconds: int, detail: str = "oned says ERROR") -> None:
    cloud.one_states[3] = 3
    cloud.inventory()
    for _ in range(seconds):
        reading = Reading(host=3, signal=Signal.SILENT, sent_at=cloud.now, detail=detail)
        cloud.feed(EvidenceTaken(channel="oned", readings=(reading,)))
        cloud.run(1)


def test_the_monitoring_of_a_host_that_answers_is_started_anew_now_and_then(cloud):
    in_error(cloud, 30)
    assert [order.host for order in cloud.ordered(RestartMonitoring)] == [3]
    in_error(cloud, 300)
    assert len(cloud.ordered(RestartMonitoring)) == 1
    in_error(cloud, 300)
    assert len(cloud.ordered(RestartMonitoring)) == 2


@pytest.mark.parametrize("why", ["observe", "paused", "not leading", "excluded"])
def test_nobody_starts_a_monitoring_anew_who_may_not_act(settings, why):
    cloud = seen(settings, mode=Mode.OBSERVE if why == "observe" else Mode.AUTO)
    if why == "paused":
        cloud.operator(Verb.PAUSE)
    elif why == "not leading":
        cloud.feed(LeadChanged(term=None))
    elif why == "excluded":
        cloud.excluded = {3: "HA_IGNORE=YES"}
    in_error(cloud, 60)
    assert not cloud.ordered(RestartMonitoring)


def test_the_monitoring_of_a_silent_host_is_not_our_business(cloud):
    cloud.kill(3)
    in_error(cloud, 60)
    assert not cloud.ordered(RestartMonitoring)


def test_what_a_crash_left_offline_is_enabled(cloud):
    cloud.restarting = {3}
    cloud.inventory()
    assert [order.host for order in cloud.ordered(RestartMonitoring)] == [3]


@pytest.mark.parametrize(("verdict", "power"), [("powered off", "off"), ("dead", "on")])
def test_each_verdict_can_be_told_only(make_cloud, settings, verdict, power):
    cloud = make_cloud(settings=replace(settings, policies={**POLICIES, verdict: Policy.TELL, "dead": Policy.TELL}))
    cloud.run(6)
    cloud.kill(3, power)
    cloud.run(120)
    assert not cloud.ordered(Fence)


def test_a_verdict_that_must_be_approved_waits_for_a_person(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, policies={**POLICIES, "powered off": Policy.APPROVE}))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(20)
    assert "waits for approval" in cloud.incident(3).hold
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_host_whose_libvirt_does_not_answer_is_told_and_not_shot(settings):
    channels = (*settings.channels, Channel(name="libvirt", domain=Domain.SELF))
    cloud = Cloud(settings=replace(settings, channels=channels), elsewhere={"libvirt": {3: Signal.SILENT}})
    cloud.run(60)
    told = [effect.text for effect in cloud.ordered(Tell) if "own trouble" in effect.text]
    assert told == ["kvm-03: own trouble: libvirt: silent, and the host answers"]
    assert not cloud.ordered(Fence)
    assert cloud.state(3) is HostState.OK
    cloud.elsewhere["libvirt"] = {}
    cloud.run(5)
    assert "kvm-03: no own trouble any more" in cloud.told()


def test_what_a_host_does_not_tell_of_itself_is_no_second_proof(settings):
    """It goes the way of our own probes."""
    channels = (*settings.channels, Channel(name="self", domain=Domain.SELF))
    cloud = Cloud(settings=replace(settings, channels=channels), elsewhere={"self": {3: Signal.SILENT}})
    cloud.run(6)
    cloud.kill(3)
    cloud.run(40)
    assert not cloud.ordered(Fence)


def test_a_host_that_was_shut_down_properly_is_recovered_although_its_heart_was_heard_shortly_before(cloud):
    say(cloud, 3, heartbeat=Signal.LEAVING, neighbours=Signal.SILENT)
    cloud.kill(3, "off")
    cloud.run(60)
    assert cloud.state(3) is HostState.RECOVERED
