"""A controller that leads after another one: it acts on failures that it saw begin, and on no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from taken_over import INHERITED, acted
from world import SETTINGS, Cloud, seen

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Explain, Fence, MoveVm, Order, OrderHost, Tell
from ha_controller.core.events import FenceReported, FenceResult, LeadChanged, Verb
from ha_controller.core.incident import Lever
from ha_controller.core.model import HostState


@pytest.fixture
def standby(make_cloud) -> Cloud:
    """One that has been looking for a while, as another one leads."""
    cloud = make_cloud()
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(10)
    cloud.effects.clear()
    return cloud


def take_over(cloud: Cloud, term: int = 2, inherited: str = INHERITED) -> None:
    cloud.feed(LeadChanged(term=term, inherited=inherited))


def another_one_leads_meanwhile(cloud: Cloud) -> None:
    """For some seconds; then we lead again."""
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(20)
    cloud.effects.clear()
    cloud.deaf = set()
    take_over(cloud, term=4, inherited="one led in term 3")
    cloud.run(60)


def test_a_standby_looks_and_tells_and_orders_nothing(standby):
    standby.kill(3, "off")
    standby.run(60)
    assert not acted(standby)
    assert "one leads, not this controller" in standby.incident(3).hold


def test_a_host_that_dies_after_the_take_over_is_cared_for(standby):
    take_over(standby)
    standby.run(6)
    standby.kill(3, "off")
    standby.run(30)
    assert standby.state(3) is HostState.RECOVERED
    assert f"this controller leads now, term 2, and {INHERITED}" in standby.told()


def test_a_way_back_that_had_begun_does_not_go_on_behind_another_leader(make_cloud):
    """The other one may have given that host back, and powered it off again."""
    cloud = make_cloud()
    cloud.kill(3, "off")
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED
    del cloud.dead[3]
    cloud.boots[3] = "second"
    cloud.run(20)
    cloud.deaf = {OrderHost}
    cloud.operator(Verb.UNFENCE, host=3)
    cloud.run(2)
    assert cloud.incident(3).lever is Lever.RESTORE
    another_one_leads_meanwhile(cloud)
    assert not acted(cloud)
    assert cloud.incident(3).foreign


def test_a_host_that_was_dead_before_waits_for_a_person(standby):
    standby.kill(3, "off")
    standby.run(20)
    take_over(standby)
    standby.run(60)
    assert not acted(standby)
    incident = standby.incident(3)
    assert incident.hold.startswith("takeover: one led in term 1")
    assert incident.hold_needs_person
    assert "ha-controller release kvm-03" in standby.told()
    standby.operator(Verb.RELEASE, host=3)
    standby.run(60)
    assert standby.state(3) is HostState.RECOVERED


def test_a_host_that_was_dead_before_our_start_waits_for_a_person_also_after_another_restart(make_cloud):
    cloud = make_cloud()
    cloud.kill(3, "off")
    take_over(cloud)
    cloud.run(40)
    cloud.restart()
    cloud.run(40)
    assert not acted(cloud)
    assert "takeover" in cloud.incident(3).hold


def test_an_approval_of_the_time_before_does_not_count(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, settle_s=1000.0))
    cloud.kill(3, "off")
    cloud.run(20)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    assert cloud.incident(3).approved_by
    take_over(cloud)
    cloud.run(1)
    assert not cloud.incident(3).approved_by


def test_an_incident_in_the_middle_is_not_gone_on_with_when_another_one_led_meanwhile(standby):
    take_over(standby)
    standby.run(6)
    standby.deaf = {MoveVm}
    standby.kill(3, "off")
    standby.run(30)
    assert standby.state(3) is HostState.FENCED
    another_one_leads_meanwhile(standby)
    assert not acted(standby)
    assert "one led in term 3" in standby.incident(3).hold
    standby.operator(Verb.RELEASE, host=3)
    standby.run(60)
    assert standby.state(3) is HostState.RECOVERED


def test_an_incident_is_gone_on_with_when_nobody_led_meanwhile(standby):
    """The engine was down: our record is whole."""
    take_over(standby)
    standby.run(6)
    standby.deaf = {MoveVm}
    standby.kill(3, "off")
    standby.run(30)
    standby.feed(LeadChanged(term=None, trouble="etcd does not answer"))
    standby.run(30)
    standby.effects.clear()
    standby.deaf = set()
    standby.run(30)
    assert not acted(standby), "no power action without a lead"
    standby.feed(LeadChanged(term=3))
    standby.run(60)
    assert standby.state(3) is HostState.RECOVERED


def test_the_same_term_that_was_only_in_doubt_inherits_nothing_again(standby):
    take_over(standby)
    standby.run(6)
    standby.kill(3, "off")
    standby.run(1)
    standby.feed(LeadChanged(term=None, trouble="etcd does not answer"))
    standby.run(2)
    take_over(standby)
    standby.run(60)
    assert standby.state(3) is HostState.RECOVERED


def test_once_every_host_was_seen_alive_the_time_before_is_forgotten(standby):
    take_over(standby)
    standby.run(6)
    standby.inventory()
    assert standby.cloud.inherited_at == 0.0
    standby.kill(3, "off")  # while we are down
    standby.restart()
    standby.run(60)
    assert standby.state(3) is HostState.RECOVERED


def test_the_settle_time_begins_anew_with_every_lead_and_not_with_every_word_of_it(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, settle_s=60.0))
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(70)
    cloud.effects.clear()
    take_over(cloud)
    cloud.run(5)
    cloud.kill(3, "off")
    cloud.run(50)
    assert not acted(cloud)
    take_over(cloud)  # the same term, told once more
    cloud.run(30)
    assert acted(cloud)


def test_power_offs_are_forgiven_when_the_lead_comes_back_and_not_when_it_goes_or_goes_on(standby):
    take_over(standby)
    standby.run(6)
    standby.deaf = {Fence}
    standby.kill(3, "off")
    standby.run(20)
    assert standby.state(3) is HostState.FAILED
    assert standby.incident(3).tried

    def forgiven() -> int:
        return standby.incident(3).attempts_forgiven

    take_over(standby)
    assert forgiven() == 0, "the same lead goes on: what was tried was tried"
    standby.feed(LeadChanged(term=None, trouble="etcd does not answer"))
    assert forgiven() == 0, "nobody decides without the lead"
    standby.feed(LeadChanged(term=3))
    assert forgiven() == len(standby.incident(3).tried)


def test_trouble_is_told_once_and_so_is_its_end(standby):
    standby.feed(LeadChanged(term=None, trouble="etcd does not answer: no quorum"))
    standby.feed(LeadChanged(term=None, trouble="etcd does not answer: refused"))
    told = [effect for effect in standby.ordered(Tell) if "does not lead" in effect.text]
    assert [effect.text for effect in told] == ["this controller does not lead: etcd does not answer: no quorum"]
    standby.feed(LeadChanged(term=None, leader="one"))
    assert standby.ordered(Tell)[-1].text == "one leads"
    assert not standby.ordered(Explain)


def test_every_order_carries_the_term_it_was_decided_in(standby):
    take_over(standby, term=7)
    standby.run(6)
    standby.kill(3, "off")
    standby.run(30)
    orders = [effect for _, effect in standby.effects if isinstance(effect, Order)]
    assert {type(order) for order in orders} >= {Fence, OrderHost, MoveVm}
    assert {order.term for order in orders} == {7}


def test_a_clock_that_was_set_back_makes_nothing_wait_for_ever(make_cloud):
    cloud = make_cloud()
    take_over(cloud)
    controller = Controller(cloud.settings, 50.0)
    controller.restore([], cloud.cloud, 50.0)
    assert controller.state.cloud.inherited_at == 50.0


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_reboot_is_cared_for_if_the_boot_before_was_seen_under_our_lead(seen_before: bool):
    """Else the old leader may have powered it off, and moved its VMs."""
    cloud = seen()
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    take_over(cloud)
    if seen_before:
        cloud.run(2)
    cloud.effects.clear()
    cloud.reboot(3)
    cloud.run(60)
    if seen_before:
        assert "2 VMs run again" in cloud.incident(3).closing
    else:
        assert not acted(cloud)
        assert "takeover" in cloud.incident(3).hold


def test_power_offs_that_were_refused_for_want_of_the_lead_do_not_count_as_tried(standby):
    take_over(standby)
    standby.run(6)
    standby.deaf = {Fence}
    standby.kill(3, "on")
    lost = 0
    while lost < 4:  # twice as often as all levels are tried
        standby.run(1)
        orders = standby.ordered(Fence)
        if len(orders) > lost:
            lost, order = len(orders), orders[-1]
            assert isinstance(order, Fence)
            standby.feed(LeadChanged(term=None, trouble="etcd does not answer"))
            standby.feed(
                FenceReported(
                    host=3, incident=order.incident, attempt=order.attempt, result=FenceResult.NOT_SENT,
                    off_read_at=None, detail="not sent: we no longer lead",
                )
            )  # fmt: skip
            standby.feed(LeadChanged(term=order.term))
    standby.deaf = set()
    standby.run(60)
    assert standby.state(3) is HostState.RECOVERED
