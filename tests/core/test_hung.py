"""A host whose kernel answers, and nothing else of it: its VMs stand still, too, and a person decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud, say, seen

from ha_controller.core.effects import Fence
from ha_controller.core.events import Verb
from ha_controller.core.model import HostState, Signal
from ha_controller.core.settings import POLICIES, Policy

HUNG_AFTER_S = 30.0


@pytest.fixture
def make(settings):
    def made(**changes: object) -> Cloud:
        cloud = seen(settings, hung_after_s=HUNG_AFTER_S, **changes)
        cloud.elsewhere["oned"] = {}
        return cloud

    return made


def freeze(cloud: Cloud, host: int, **other: Signal) -> None:
    cloud.frozen.add(host)
    say(cloud, host, **{"heartbeat": Signal.SILENT, "oned": Signal.SILENT, **other})


def test_it_is_held_until_a_person_says_yes_and_then_powered_off(make):
    cloud = make()
    freeze(cloud, 3)
    cloud.run(HUNG_AFTER_S - 5)
    assert cloud.state(3) is HostState.OK
    cloud.run(200)
    incident = cloud.incident(3)
    assert incident.verdict == "hung"
    assert "waits for approval: hung, its kernel answers (icmp, neighbours), but nothing else has" in incident.hold
    assert not cloud.ordered(Fence)
    assert cloud.told().count("waits for approval") == 1
    cloud.operator(Verb.APPROVE, incident=incident.id)
    say(cloud, 3, neighbours=Signal.SILENT)  # it is off now
    cloud.run(60)
    assert [order.host for order in cloud.ordered(Fence)] == [3]
    assert cloud.state(3) is HostState.RECOVERED


@pytest.mark.parametrize("policy", [Policy.FENCE, Policy.TELL])
def test_the_operators_policy_decides(make, policy):
    cloud = make(policies={**POLICIES, "hung": policy})
    freeze(cloud, 3)
    cloud.run(HUNG_AFTER_S + 60)
    assert [order.host for order in cloud.ordered(Fence)] == [3] * (policy is Policy.FENCE)
    assert cloud.told().count("kvm-03 is hung: its kernel answers") == (policy is Policy.TELL)


@pytest.mark.parametrize("alive", ["heartbeat", "oned"])
def test_any_other_sign_of_its_programs_is_life(make, alive):
    cloud = make()
    freeze(cloud, 3, **{alive: Signal.ALIVE})
    cloud.run(HUNG_AFTER_S + 60)
    assert cloud.state(3) is HostState.OK
    assert "hung" not in cloud.told()


def test_one_that_goes_on_before_anybody_said_yes_is_left_alone(make):
    cloud = make()
    freeze(cloud, 3)
    cloud.run(HUNG_AFTER_S + 20)
    incident = cloud.incident(3)
    cloud.frozen.clear()
    cloud.run(2)
    assert cloud.state(3) is HostState.OK
    assert not cloud.incidents[incident.id].open
    cloud.operator(Verb.APPROVE, incident=incident.id)
    cloud.run(60)
    assert not cloud.ordered(Fence)


def test_a_word_of_its_programs_begins_the_count_anew(make):
    cloud = make()
    for _ in range(4):
        freeze(cloud, 3)
        cloud.run(HUNG_AFTER_S - 2)
        cloud.frozen.clear()
        cloud.run(0.4)
    assert cloud.state(3) is HostState.OK
    assert not cloud.incidents


def test_what_was_not_looked_at_lately_is_not_silent(make):
    """OpenNebula cannot be read any more: what it said last says nothing about now."""
    cloud = make()
    freeze(cloud, 3)
    cloud.run(10)
    del cloud.elsewhere["oned"]
    cloud.run(HUNG_AFTER_S + 60)
    assert cloud.state(3) is HostState.OK


def test_without_the_word_of_opennebula_nobody_is_hung(make):
    cloud = make()
    cloud.controller.state.settings = replace(
        cloud.settings, channels=tuple(each for each in cloud.settings.channels if each.name != "oned")
    )
    freeze(cloud, 3)
    cloud.run(HUNG_AFTER_S + 60)
    assert cloud.state(3) is HostState.OK
