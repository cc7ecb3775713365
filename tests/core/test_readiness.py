"""HA_READY: who runs is asked until it is ready. Unknown is not ready, and delays only those that wait for it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from world import SETTINGS, Cloud

from ha_controller.core.effects import AskReady, MoveVm
from ha_controller.core.events import LeadChanged, Readiness, ReadyRead
from ha_controller.core.incident import VmStage
from ha_controller.core.readiness import ANSWER_MAX_S, ASK_EVERY_S, ASK_RARELY_S
from ha_controller.core.resources import ReadyBy, ReadyGate, Startup

PORT = ReadyGate(by=ReadyBy.TCP, port=5432, address="192.0.2.7")
CLOSED = (Readiness.NOT_YET, "port 5432 of 192.0.2.7 does not answer")
UNKNOWN = (Readiness.UNKNOWN, "port 5432 of 192.0.2.7 cannot be asked")


def write(cloud: Cloud, vm: int, *after: str, **startup: object) -> None:
    cloud.vms[vm] = replace(cloud.vms[vm], startup=Startup(after=after, **startup))


def failed(make_cloud, seconds: float = 12, *hosts: int, timeout_s: float = 30.0, **settings: object) -> Cloud:
    """VM 31 has a gate that is closed, and VM 30 of the same host waits for it."""
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=timeout_s, **settings))
    write(cloud, 31, ready=PORT, ready_delay_s=0.0)
    write(cloud, 30, "31", ready_delay_s=0.0)
    cloud.unready[31] = CLOSED
    cloud.inventory()
    cloud.run(6)
    for host in hosts or (3,):
        cloud.kill(host, "off")
    cloud.run(seconds)
    return cloud


def asked(cloud: Cloud) -> list[float]:
    return [at for at, effect in cloud.effects if isinstance(effect, AskReady)]


def moved(cloud: Cloud) -> list[int]:
    return list(dict.fromkeys(order.vm for order in cloud.ordered(MoveVm)))


@pytest.mark.parametrize("answer", [CLOSED, UNKNOWN])
def test_nobody_starts_before_the_vm_that_it_waits_for_is_ready(make_cloud, answer):
    cloud = failed(make_cloud)
    cloud.unready[31] = answer
    cloud.run(10)
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING
    assert moved(cloud) == [31]
    del cloud.unready[31]
    cloud.run(6)
    assert moved(cloud) == [31, 30]
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_it_is_asked_where_it_runs_and_only_once_it_runs(make_cloud):
    cloud = failed(make_cloud)
    record = cloud.incident(3).vm(31)
    assert asked(cloud)[0] >= record.settled_at
    assert {(each.vm, each.gate, each.host) for each in cloud.ordered(AskReady)} == {(31, PORT, cloud.vms[31].host)}


def test_it_is_asked_every_other_second_one_question_at_a_time_and_never_again_once_it_is_ready(make_cloud):
    cloud = failed(make_cloud)
    times = asked(cloud)
    assert all(ASK_EVERY_S <= after - before < ASK_EVERY_S + 0.5 for before, after in pairwise(times))
    del cloud.unready[31]
    cloud.run(5)
    done = len(asked(cloud))
    cloud.run(20)
    assert len(asked(cloud)) == done


def test_a_question_without_an_answer_is_not_ready_and_is_asked_again_later(make_cloud):
    cloud = make_cloud()
    cloud.deaf.add(AskReady)
    write(cloud, 31, ready=PORT)
    write(cloud, 30, "31")
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(ANSWER_MAX_S + 30)
    times = asked(cloud)
    assert len(times) == 2
    assert times[1] - times[0] >= ANSWER_MAX_S
    assert moved(cloud) == [31]
    assert "no answer within" in cloud.incident(3).vm(31).reason


def test_a_late_answer_to_a_question_before_the_last_says_nothing(make_cloud):
    cloud = failed(make_cloud)
    incident = cloud.incident(3)
    before = asked(cloud)[-2]
    cloud.feed(ReadyRead(vm=31, incident=incident.id, asked_at=before, readiness=Readiness.READY))
    cloud.feed(ReadyRead(vm=31, incident=incident.id + 1, asked_at=cloud.now, readiness=Readiness.READY))
    cloud.run(1)
    assert moved(cloud) == [31]


def test_its_delay_begins_when_it_is_ready(make_cloud):
    cloud = failed(make_cloud)
    write(cloud, 31, ready=PORT, ready_delay_s=9.0)  # too late: what counts is what was written when the host died
    del cloud.unready[31]
    cloud.run(4)
    assert moved(cloud) == [31, 30]
    cloud = make_cloud()
    write(cloud, 31, ready=PORT, ready_delay_s=9.0)
    write(cloud, 30, "31")
    cloud.unready[31] = CLOSED
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(20)
    del cloud.unready[31]
    opened_at = cloud.now
    cloud.run(20)
    begun_at = next(at for at, effect in cloud.effects if isinstance(effect, MoveVm) and effect.vm == 30)
    assert opened_at + 9 <= begun_at <= opened_at + 9 + ASK_EVERY_S + 1


def test_it_says_why_it_is_not_ready_and_that_it_is(make_cloud):
    cloud = failed(make_cloud)
    assert cloud.incident(3).vm(31).reason.endswith("; not ready: port 5432 of 192.0.2.7 does not answer")
    assert cloud.incident(3).vm(30).reason == "waits for vm-31 (tier 0)"
    del cloud.unready[31]
    cloud.run(5)
    assert cloud.incident(3).vm(31).reason.endswith("; ready")
    assert cloud.incident(3).vm(31).reason.count(";") == 1


def test_reasons_that_change_all_the_time_are_not_all_written_to_disk(make_cloud):
    cloud = failed(make_cloud, timeout_s=200.0)
    saved: set[str] = set()
    for number in range(30):
        cloud.unready[31] = (Readiness.NOT_YET, f"reason {number}")
        cloud.run(2)
        saved.add(cloud.incident(3).vm(31).reason)
    assert len(saved) <= 8


def test_in_time_not_ready_is_passed_over_and_told_with_the_reason(make_cloud):
    cloud = failed(make_cloud, 60)
    assert moved(cloud) == [31, 30]
    assert cloud.told().count("others start before vm-31 (runs on kvm-0") == 1
    assert "not ready: port 5432 of 192.0.2.7 does not answer" in cloud.told()
    assert "is not ready after" not in cloud.told()


def test_with_stop_nobody_starts_and_the_reason_is_shown(make_cloud):
    cloud = failed(make_cloud, 80, tier_stops=True)
    assert moved(cloud) == [31]
    hold = "order of starts: vm-31 (port 5432 of 192.0.2.7 does not answer) not ready. To let the others start:"
    assert cloud.incident(3).hold.startswith(hold)
    del cloud.unready[31]
    cloud.run(ASK_RARELY_S + 5)
    assert moved(cloud) == [31, 30]
    assert cloud.incident(3).hold == ""


def test_becoming_ready_is_progress(make_cloud):
    """Else the VM of which the gate opens last would be passed over while its delay still runs."""
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=20.0), vms_per_host=3)
    for vm in (31, 32):
        write(cloud, vm, ready=PORT, priority=5, ready_delay_s=0.0)
        cloud.unready[vm] = CLOSED
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(20)
    del cloud.unready[32]
    cloud.run(12)
    assert moved(cloud) == [31, 32]
    assert cloud.incident(3).passed_over == ()
    del cloud.unready[31]
    cloud.run(5)
    assert moved(cloud) == [31, 32, 30]


def test_a_vm_that_waits_for_one_of_another_dead_host_waits_for_its_gate_too(make_cloud):
    cloud = make_cloud()
    write(cloud, 51, ready=PORT, ready_delay_s=0.0)
    write(cloud, 30, "51")
    cloud.unready[51] = CLOSED
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.kill(5, "off")
    cloud.run(30)
    assert 30 not in moved(cloud)  # host 5 is RECOVERED by then, and its VM is asked further
    del cloud.unready[51]
    cloud.run(5)
    assert 30 in moved(cloud)


def test_after_a_restart_it_is_asked_anew_and_has_its_whole_time(make_cloud):
    cloud = failed(make_cloud, 25)
    cloud.restart()
    done = len(asked(cloud))
    cloud.run(20)
    assert len(asked(cloud)) > done
    assert moved(cloud) == [31]
    assert "others start before" not in cloud.told()
    cloud.run(30)
    assert moved(cloud) == [31, 30]


def test_what_was_ready_before_a_restart_is_asked_once_more(make_cloud):
    cloud = make_cloud(vms_per_host=3)
    write(cloud, 31, ready=PORT, priority=9)
    write(cloud, 32, priority=5, ready_delay_s=30.0)
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(15)
    assert moved(cloud) == [31, 32]
    done = len(asked(cloud))
    cloud.unready[31] = CLOSED
    cloud.restart()
    cloud.run(40)
    assert len(asked(cloud)) > done
    assert moved(cloud) == [31, 32]


def test_who_is_not_ready_in_time_is_told_once_although_nobody_waits_for_it(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=20.0))
    write(cloud, 31, ready=PORT)
    cloud.unready[31] = CLOSED
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(12)
    assert cloud.state(3) == "recovered"
    cloud.run(30)
    cloud.restart()
    cloud.run(60)
    told = "and is not ready after 20 s: port 5432 of 192.0.2.7 does not answer"
    assert cloud.told().count(told) == 1
    done = len(asked(cloud))
    cloud.run(60)
    assert len(asked(cloud)) == done


def test_without_the_lead_nobody_is_asked(make_cloud):
    cloud = failed(make_cloud)
    cloud.feed(LeadChanged(term=None))
    done = len(asked(cloud))
    cloud.run(20)
    assert len(asked(cloud)) == done


def test_a_gate_that_is_not_written_asks_nobody(make_cloud):
    cloud = make_cloud()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(15)
    assert cloud.state(3) == "recovered"
    assert asked(cloud) == []


def test_a_vm_that_starts_once_more_is_asked_once_more(make_cloud):
    """Its first destination dies, too: that it was ready there says nothing."""
    cloud = make_cloud(settings=replace(SETTINGS, max_failed_share=0.9))
    write(cloud, 31, ready=PORT)
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(15)
    first = cloud.vms[31].host
    done = len(asked(cloud))
    cloud.inventory()
    cloud.kill(first, "off")
    cloud.run(20)
    assert cloud.vms[31].host not in (3, first)
    again = [effect for _, effect in cloud.effects if isinstance(effect, AskReady)][done:]
    assert {each.host for each in again} == {cloud.vms[31].host}
    assert {each.incident for each in again} == {cloud.incident(first).id}


def test_its_incident_of_before_asks_and_tells_nothing_more(make_cloud):
    """It runs no longer where that incident brought it."""
    cloud = make_cloud(settings=replace(SETTINGS, max_failed_share=0.9, tier_timeout_s=30.0))
    write(cloud, 31, ready=PORT)
    cloud.unready[31] = CLOSED
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(15)
    first = cloud.vms[31].host
    cloud.inventory()
    cloud.kill(first, "off")
    cloud.run(80)
    assert cloud.told().count("and is not ready after") == 1
    assert f"vm-31 runs on kvm-0{cloud.vms[31].host}, and is not ready after 30 s" in cloud.told()


@pytest.mark.parametrize("stops", [False, True])
def test_a_vm_whose_time_was_over_before_delays_nobody_on_a_host_that_fails_later(make_cloud, stops):
    """An incident stays open as long as its host is away: weeks later nobody knows what has become of its VMs."""
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=30.0, tier_stops=stops))
    write(cloud, 31, ready=PORT)
    write(cloud, 50, "31")
    cloud.unready[31] = CLOSED
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(100)
    assert cloud.told().count("and is not ready after") == 1
    cloud.inventory()
    cloud.kill(5, "off")
    cloud.run(15)
    assert cloud.state(5) == "recovered"


def test_who_is_not_ready_is_told_although_a_restart_came_before_that(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=20.0))
    write(cloud, 31, ready=PORT)
    cloud.unready[31] = CLOSED
    cloud.vms[30] = replace(cloud.vms[30], memory_mb=10**7)
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(60)
    cloud.restart()
    cloud.run(30)
    assert "and is not ready after" not in cloud.told()  # the order of starts tells it as long as VMs wait
    cloud.vms[30] = replace(cloud.vms[30], memory_mb=1024)
    cloud.inventory()
    cloud.run(40)
    assert cloud.state(3) == "recovered"
    assert cloud.told().count("and is not ready after") == 1


def test_an_answer_that_nobody_waits_for_any_more_says_nothing(make_cloud):
    cloud = make_cloud()
    cloud.deaf.add(AskReady)
    write(cloud, 31, ready=PORT)
    write(cloud, 30, "31")
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(10)
    incident, [at] = cloud.incident(3), asked(cloud)
    ready = ReadyRead(vm=31, incident=incident.id, asked_at=at, readiness=Readiness.READY)
    cloud.feed(replace(ready, readiness=Readiness.NOT_YET))
    cloud.feed(ready)
    cloud.run(1)
    assert moved(cloud) == [31]
