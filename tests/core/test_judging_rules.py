"""By which rules hosts are judged: weights, clusters, busy hosts, crash dumps, and hosts that die again and again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import SETTINGS, Cloud, say, seen

from ha_controller.core.effects import Answer, Explain, Fence
from ha_controller.core.events import EvidenceTaken, Verb
from ha_controller.core.model import Domain, HostState, Reading, Signal
from ha_controller.core.settings import Channel


def silent_everywhere(**changes: object) -> float:
    """How long after its last word a host is ordered off that is silent on all channels; infinite if never."""
    cloud = seen(**changes)
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    begun = cloud.now
    cloud.run(100)
    return cloud.first(Fence) - begun if cloud.ordered(Fence) else float("inf")


@pytest.mark.parametrize(
    ("need", "weights", "within_s"),
    [
        (2, {}, 11.0),
        (3, {}, 11.0),
        (4, {}, float("inf")),
        (4, {Domain.STORAGE: 2}, 11.0),
        (3, {Domain.VANTAGE: 0}, float("inf")),
    ],
)
def test_the_silent_domains_must_weigh_what_is_needed(need, weights, within_s):
    took_s = silent_everywhere(need=need, weights=weights)
    assert took_s <= within_s
    assert (took_s == float("inf")) is (within_s == float("inf"))


def test_a_cluster_may_need_more_and_others_are_judged_as_before():
    demanding = replace(seen().settings, need=4)
    cloud = seen(clusters={"edge": demanding})
    cloud.cluster_names = {3: "edge", 4: "core"}
    cloud.inventory()
    for host in (3, 4):
        cloud.kill(host)
        say(cloud, host, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    cloud.run(20)
    assert {order.host for order in cloud.ordered(Fence)} == {4}
    assert any("domains that weigh 4" in explained.because for explained in cloud.ordered(Explain))


def test_a_channel_that_does_not_count_in_a_cluster_still_shows_life():
    base = seen().settings
    without = replace(base, channels=tuple(each for each in base.channels if each.name != "heartbeat"))
    cloud = seen(clusters={"edge": without})
    cloud.cluster_names = {3: "edge"}
    cloud.inventory()
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT)  # and its heart beats on
    cloud.run(100)
    assert not cloud.ordered(Fence)


@pytest.mark.parametrize(("per_vm_s", "more_s"), [(0.0, 0.0), (0.5, 5.0), (60.0, 10.0)])
def test_a_host_with_many_vms_is_given_more_time(make_cloud, settings, per_vm_s, more_s):
    """At most `fail_after` more."""
    cloud = make_cloud(vms_per_host=10, settings=replace(settings, fail_after_per_vm_s=per_vm_s))
    cloud.run(6)
    cloud.kill(3)
    begun = cloud.now
    cloud.run(90)
    assert cloud.first(Fence) - begun == pytest.approx(60 + more_s, abs=0.5)


# --- crash dumps ------------------------------------------------------------------------------------------------------

KDUMP = Channel(name="kdump", domain=Domain.SELF)


class Dumping(Cloud):
    """A cloud of which host 3 sends what its crash kernel sends."""

    dumps = False

    def _probe(self) -> None:
        super()._probe()
        if self.dumps:
            reading = Reading(host=3, signal=Signal.DUMPING, sent_at=self.now, detail="writing a crash dump")
            self.feed(EvidenceTaken(channel="kdump", readings=(reading,)))


@pytest.fixture
def dumping() -> Dumping:
    made = Dumping(
        settings=replace(
            SETTINGS, channels=(*SETTINGS.channels, KDUMP), dump_await_s=80.0, dump_max_s=120.0, fail_after_per_vm_s=0.0
        )
    )
    made.run(6)
    return made


def test_a_host_that_writes_a_crash_dump_keeps_its_power_until_it_is_done(dumping):
    dumping.kill(3)
    dumping.dumps = True
    dumping.run(70)
    assert "crash dump: it is writing a crash dump" in dumping.incident(3).hold
    assert not dumping.ordered(Fence)
    dumping.dumps = False
    dumping.run(28)
    assert not dumping.ordered(Fence)  # fence_kdump_send says it every 10 s
    dumping.run(10)
    assert {order.host for order in dumping.ordered(Fence)} == {3}


def test_a_crash_dump_that_never_ends_is_cut_off(dumping):
    dumping.kill(3)
    dumping.dumps = True
    dumping.run(119)
    assert not dumping.ordered(Fence)
    dumping.run(3)
    assert {order.host for order in dumping.ordered(Fence)} == {3}


def test_a_crash_dump_may_be_announced_for_a_while(dumping):
    dumping.kill(3)
    dumping.run(75)
    assert "it may still announce a crash dump" in dumping.incident(3).hold
    dumping.run(8)
    assert {order.host for order in dumping.ordered(Fence)} == {3}


def test_a_person_need_not_wait_for_a_crash_dump(dumping):
    dumping.kill(3)
    dumping.dumps = True
    dumping.run(70)
    dumping.operator(Verb.APPROVE, incident=dumping.incident(3).id)
    dumping.run(2)
    assert {order.host for order in dumping.ordered(Fence)} == {3}


def test_a_host_without_power_writes_no_crash_dump(dumping):
    dumping.kill(3, "off")
    dumping.run(5)
    assert {order.host for order in dumping.ordered(Fence)} == {3}


def test_a_crash_dump_of_a_host_that_answers_changes_nothing(dumping):
    """Anybody could send such a message."""
    dumping.dumps = True
    dumping.run(60)
    assert dumping.state(3) is HostState.OK
    assert not dumping.incidents


# --- planned reboots --------------------------------------------------------------------------------------------------


class Leaving(Cloud):
    """A cloud of which host 3 has said goodbye on the datastore, where that stays written."""

    said = False

    def _probe(self) -> None:
        super()._probe()
        signal = Signal.LEAVING if self.said else Signal.SILENT if 3 in self.dead else Signal.ALIVE
        self.feed(EvidenceTaken(channel="beat", readings=(Reading(host=3, signal=signal, sent_at=self.now),)))


@pytest.fixture
def leaving() -> Leaving:
    beat = Channel(name="beat", domain=Domain.STORAGE)
    made = Leaving(settings=replace(SETTINGS, channels=(*SETTINGS.channels, beat), planned_reboot_max_s=200.0))
    made.run(6)
    return made


def test_a_host_that_said_goodbye_may_be_away_for_a_while(leaving):
    leaving.said = True
    leaving.run(2)
    assert leaving.state(3) is HostState.OK
    leaving.kill(3)
    leaving.controller.state.settings = replace(leaving.settings, need=2, weights={Domain.MANAGEMENT: 2})
    leaving.run(190)
    assert "planned reboot: it said" in leaving.incident(3).hold
    assert not leaving.ordered(Fence)
    leaving.run(20)
    assert {order.host for order in leaving.ordered(Fence)} == {3}


def test_a_host_that_came_back_and_dies_then_is_not_waited_for(leaving):
    leaving.said = True
    leaving.kill(3)
    leaving.run(30)
    leaving.said = False
    del leaving.dead[3]
    leaving.run(10)
    leaving.kill(3, "off")
    leaving.run(9)
    assert {order.host for order in leaving.ordered(Fence)} == {3}


def test_a_host_that_said_goodbye_and_is_off_was_shut_down(leaving):
    leaving.said = True
    leaving.kill(3, "off")
    leaving.run(9)
    assert {order.host for order in leaving.ordered(Fence)} == {3}


# --- quarantine -------------------------------------------------------------------------------------------------------


def die_and_come_back(cloud: Cloud, **flags: bool) -> Answer:
    cloud.kill(3, "off")
    cloud.run(20)
    assert cloud.state(3) is HostState.RECOVERED
    del cloud.dead[3]
    cloud.run(15)
    cloud.operator(Verb.UNFENCE, 3, **flags)
    cloud.run(2)
    return [effect for effect in cloud.ordered(Answer) if isinstance(effect, Answer)][-1]


def test_a_host_that_dies_again_and_again_is_not_readmitted_before_it_is_repaired(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, fences_max=9, fences_per_day_max=9))
    cloud.run(6)
    assert die_and_come_back(cloud).code == 0
    assert die_and_come_back(cloud).code == 0
    refused = die_and_come_back(cloud)
    assert refused.code == 4
    assert "is in quarantine: it died or rebooted 3 times within 24 h" in refused.text
    assert "--repaired" in refused.text
    assert cloud.state(3) is HostState.RECOVERED
    cloud.restart()  # it is on record
    cloud.run(15)
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.state(3) is HostState.RECOVERED
    cloud.operator(Verb.UNFENCE, 3, repaired=True)
    cloud.run(2)
    assert cloud.state(3) is HostState.OK


def test_what_a_host_did_long_ago_is_forgiven(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, fences_max=9, quarantine_within_s=100.0))
    cloud.run(6)
    for _ in range(3):
        assert die_and_come_back(cloud).code == 0
        cloud.run(60)


def test_a_person_may_cut_a_planned_reboot_short(leaving):
    leaving.said = True
    leaving.run(2)
    leaving.kill(3)
    leaving.controller.state.settings = replace(leaving.settings, need=2, weights={Domain.MANAGEMENT: 2})
    leaving.run(60)
    assert "planned reboot: it said" in leaving.incident(3).hold
    leaving.operator(Verb.APPROVE, incident=leaving.incident(3).id)
    leaving.run(5)
    assert {order.host for order in leaving.ordered(Fence)} == {3}
