"""Hosts that a person works on, or has disabled: whose end is waited for, and by whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud

from ha_controller.core.effects import Answer, Fence, MarkMaintenance
from ha_controller.core.events import MaintenanceMarked, OperatorCommanded, Verb
from ha_controller.core.model import Host, HostState, OnedHostState


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
