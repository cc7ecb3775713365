"""What neighbours and the storage see of a host that does not answer here, and for how long it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import SETTINGS, Cloud, say, seen

from ha_controller.core.effects import Answer, Fence
from ha_controller.core.events import EvidenceTaken, Verb
from ha_controller.core.model import Domain, HostState, Reading, Signal
from ha_controller.core.settings import POLICIES, Channel, Policy

GAP_S = 12.0  #: neighbours are asked for seconds


@pytest.fixture
def cloud() -> Cloud:
    """Neighbours and the storage, where a word takes seconds."""
    channels = tuple(
        Channel(name=name, domain=domain, gap_max_s=GAP_S)
        for name, domain in (("neighbours", Domain.VANTAGE), ("heartbeat", Domain.STORAGE))
    )
    made = Cloud(settings=replace(SETTINGS, channels=(*SETTINGS.channels, *channels)))
    made.elsewhere = {"neighbours": {}, "heartbeat": {}}
    made.run(6)
    return made


def saw_life(cloud: Cloud, host: int, channel: str) -> None:
    """One sign of life, and then it cannot be told."""
    say(cloud, host, **{channel: Signal.UNKNOWN})
    cloud.feed(EvidenceTaken(channel=channel, readings=(Reading(host=host, signal=Signal.ALIVE, sent_at=cloud.now),)))


def test_a_host_that_neighbours_see_is_not_powered_off_by_hand_either(cloud):
    cloud.kill(3)
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(5)
    assert cloud.state(3) is HostState.SUSPECT
    cloud.operator(Verb.FENCE, host=3)
    cloud.run(30)
    assert "neighbours answers, and a host that shows life is never powered off" in cloud.ordered(Answer)[-1].text
    assert not cloud.ordered(Fence)


@pytest.mark.parametrize("channel", ["neighbours", "heartbeat"])
def test_life_that_takes_seconds_to_ask_for_is_not_forgotten_meanwhile(cloud, channel):
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    cloud.run(4)
    saw_life(cloud, 3, channel)
    begun = cloud.now
    cloud.run(GAP_S - 1.0)
    assert not cloud.ordered(Fence)
    cloud.run(90)
    assert cloud.first(Fence) - begun > GAP_S


@pytest.mark.parametrize("channel", ["neighbours", "heartbeat"])
def test_nobody_is_dead_before_all_who_may_see_it_have_said_what_they_see(cloud, channel):
    cloud.kill(3)
    say(cloud, 3, **{"neighbours": Signal.SILENT, "heartbeat": Signal.SILENT, channel: None})
    cloud.run(120)
    assert not cloud.ordered(Fence)
    say(cloud, 3, **{channel: Signal.UNKNOWN})
    cloud.run(30)
    assert cloud.ordered(Fence)


@pytest.mark.parametrize("channel", ["neighbours", "heartbeat"])
def test_an_isolated_host_is_not_off_before_those_who_saw_it_see_it_fall_silent(channel):
    cloud = seen(policies={**POLICIES, "isolated": Policy.FENCE})
    cloud.kill(3)
    say(cloud, 3, **{"neighbours": Signal.SILENT, "heartbeat": Signal.SILENT, channel: Signal.ALIVE})
    while not cloud.ordered(Fence):
        cloud.run(0.2)
    say(cloud, 3, **{channel: Signal.UNKNOWN})
    cloud.run(20)
    assert cloud.state(3) is HostState.FAILED
    assert f"{channel} saw it alive 0 s before, and cannot tell since" in cloud.incident(3).hold
    say(cloud, 3, **{channel: Signal.SILENT})
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


@pytest.mark.parametrize("channel", ["neighbours", "heartbeat"])
def test_where_those_who_saw_it_cannot_tell_any_more_a_persons_word_is_enough(channel):
    cloud = seen(policies={**POLICIES, "isolated": Policy.FENCE})
    cloud.kill(3)
    say(cloud, 3, **{"neighbours": Signal.SILENT, "heartbeat": Signal.SILENT, channel: Signal.ALIVE})
    while not cloud.ordered(Fence):
        cloud.run(0.2)
    say(cloud, 3, **{channel: Signal.UNKNOWN})
    cloud.run(50)
    assert "ha-controller confirm-off kvm-03" in cloud.told()
    cloud.operator(Verb.CONFIRM_OFF, 3)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_life_elsewhere_after_a_power_off_that_was_not_verified_is_left_to_a_person(cloud):
    cloud.kill(3, "mute")
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    while not cloud.ordered(Fence):
        cloud.run(0.2)
    say(cloud, 3, heartbeat=Signal.ALIVE)
    cloud.run(60)
    shots = len(cloud.ordered(Fence))
    assert "alive after an unverified power-off" in cloud.incident(3).stopped
    cloud.run(300)
    assert len(cloud.ordered(Fence)) == shots
    assert cloud.state(3) is not HostState.RECOVERED


def test_a_heartbeat_that_fell_silent_while_the_host_still_answered_proves_nothing_of_its_death(cloud):
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(60)
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.UNKNOWN)
    cloud.run(300)
    assert not cloud.ordered(Fence)


def test_a_heartbeat_that_is_missed_is_no_reason_to_look_at_a_host_that_answers_more_often(cloud):
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(30)
    assert 3 not in cloud.controller.state.watched
    assert "kvm-03: storage lost" in cloud.told()
