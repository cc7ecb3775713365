"""Sequences that left VMs behind, or started them where they should not: found by looking for them, each by a test."""

from __future__ import annotations

from dataclasses import replace

from world import SETTINGS, Cloud, seen

from ha_controller.core.effects import Fence, MoveVm, ReadHost, RecoverVm, ResumeVm
from ha_controller.core.events import OrderResult, Verb, VmOrderReported
from ha_controller.core.incident import Lever, VmStage
from ha_controller.core.model import Signal
from ha_controller.core.resources import Startup
from ha_controller.core.settings import Mode


def until(cloud, kind, vm=None, most=100):
    for _ in range(most * 5):
        if any(vm is None or order.vm == vm for order in cloud.ordered(kind)):
            return
        cloud.run(0.2)
    raise AssertionError(f"no {kind}")


def report(cloud, order, result, detail=""):
    keys = {"vm": order.vm, "incident": order.incident, "attempt": order.attempt}
    cloud.feed(VmOrderReported(**keys, result=result, detail=detail))


def moves(cloud, vm):
    return [order for order in cloud.ordered(MoveVm) if order.vm == vm]


def test_a_migration_begun_while_the_incident_waits_is_asked_about():
    cloud = Cloud(settings=replace(SETTINGS, mode=Mode.APPROVE))
    cloud.run(6)
    cloud.kill(3, "on")
    cloud.run(80)
    number = cloud.incident(3).id
    cloud.become(30, 3, 4, host=5, previous_host=3)  # a person evacuates it, live
    cloud.run(5)
    cloud.become(30, 3, 3, host=3, previous_host=None)  # the driver fails; oned reverts; but the domain runs on 5
    cloud.domains[5, 30] = "running"
    cloud.run(5)
    cloud.operator(Verb.APPROVE, incident=number)
    cloud.run(30)
    assert cloud.ordered(Fence)
    assert not moves(cloud, 30), moves(cloud, 30)


def test_a_restart_gives_a_vm_its_time_anew(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    until(cloud, MoveVm)
    cloud.deaf.clear()
    cloud.now += 300  # crash between the record and the order; back after 5 min
    cloud.restart()
    cloud.run(60)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_pause_does_not_use_up_the_time_of_a_vm_that_waits(cloud):
    cloud.become(30, 3, 6)  # SAVE_SUSPEND: recover 0, after the driver had its time
    cloud.run(2)
    cloud.kill(3, "off")
    for _ in range(100):
        cloud.run(0.2)
        if cloud.incidents and cloud.incident(3).lever is Lever.DONE:
            break
    cloud.run(2)
    cloud.operator(Verb.PAUSE)
    cloud.run(400)
    cloud.operator(Verb.RESUME)
    cloud.run(60)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_an_outage_of_oned_does_not_use_up_the_time_of_a_vm(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    until(cloud, MoveVm)
    for order in cloud.ordered(MoveVm):
        report(cloud, order, OrderResult.UNKNOWN, "connection reset")
    cloud.deaf.add(ReadHost)
    cloud.run(180)
    cloud.deaf.clear()
    cloud.run(60)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_bmc_that_is_silent_for_some_minutes_does_not_use_up_the_time_of_a_vm(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    until(cloud, MoveVm)
    for order in cloud.ordered(MoveVm):
        report(cloud, order, OrderResult.UNKNOWN, "no answer within 15 s")
    cloud.dead[3] = "mute"
    cloud.run(180)
    cloud.dead[3] = "off"
    cloud.deaf.clear()
    cloud.run(60)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_vm_that_was_refused_once_waits_for_room_without_an_end(cloud):
    cloud.deaf.add(MoveVm)
    cloud.vms[30] = replace(cloud.vms[30], memory_mb=60000)
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    until(cloud, MoveVm, 30)
    for host in range(8):  # somebody else took the room
        if host != 3:
            cloud.vms[host * 10] = replace(cloud.vms[host * 10], memory_mb=30000)
    for order in cloud.ordered(MoveVm):
        report(cloud, order, OrderResult.REFUSED, "not enough capacity")
    cloud.deaf.clear()
    cloud.inventory()
    cloud.run(150)
    cloud.vms[50] = replace(cloud.vms[50], memory_mb=100)
    cloud.inventory()
    cloud.run(20)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_clock_set_back_does_not_hold_up_the_next_tier():
    cloud = Cloud(settings=replace(SETTINGS, ready_delay_s=5.0), now=100000.0)
    cloud.vms[30] = replace(cloud.vms[30], startup=Startup(priority=10))
    cloud.run(6)
    cloud.kill(3, "off")
    for _ in range(200):
        cloud.run(0.2)
        if cloud.incidents and cloud.incident(3).vm(30).stage is VmStage.RUNNING:
            break
    assert cloud.incident(3).vm(31).stage is VmStage.WAITING
    cloud.now -= 7200
    cloud.restart()
    cloud.run(900)
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING


def test_what_its_owner_switched_off_after_a_reboot_stays_off_when_the_host_dies():
    cloud = seen()
    cloud.reboot(3)
    cloud.run(3)
    cloud.deaf.add(ResumeVm)
    cloud.oned_notices(3)
    cloud.vms[30] = replace(cloud.vms[30], found_missing_at=0.0)  # its owner switched it off after the reboot
    cloud.run(5)
    assert "switched it off" in cloud.incident(3).vm(30).reason
    cloud.deaf.clear()
    for channel in cloud.elsewhere.values():
        channel[3] = Signal.SILENT
    cloud.deaf.add(ResumeVm)
    cloud.kill(3, "off")
    cloud.run(30)
    assert not [order for order in cloud.ordered(ResumeVm) if order.vm == 30]


def test_a_vm_that_kills_its_host_while_it_boots_is_not_started_for_ever():
    calm = replace(SETTINGS, fences_max=20, fences_per_day_max=50, max_failed_share=1.0, storm_cooldown_s=0.0)
    cloud = Cloud(settings=calm)
    cloud.run(6)
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    done, killed = 0, [3]
    for _ in range(5 * 900):
        cloud.run(0.2)
        for order in cloud.ordered(MoveVm)[done:]:
            done += 1
            cloud.vms[order.vm] = replace(cloud.vms[order.vm], host=order.destination)
            if order.vm == 30:
                cloud.become(30, 3, 2)  # BOOT, and its host dies
                cloud.kill(order.destination, "off")
                killed.append(order.destination)
            else:
                cloud.become(order.vm, 3, 3)
            report(cloud, order, OrderResult.ACCEPTED)
    assert len(killed) <= 3


def test_a_host_that_is_asked_and_silent_for_a_moment_does_not_end_a_long_wait_for_room(cloud):
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,), memory_mb=10**6)
    cloud.kill(3, "off")
    cloud.run(330)
    assert "fit" in cloud.incident(3).vm(30).reason or "memory" in cloud.incident(3).vm(30).reason
    cloud.no_answer.add(5)
    cloud.run(40)
    assert cloud.incident(3).vm(30).stage is VmStage.WAITING
    cloud.no_answer.clear()
    cloud.vms[30] = replace(cloud.vms[30], memory_mb=1024)
    cloud.inventory()
    cloud.run(30)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_but_a_host_that_stays_silent_does(cloud):
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,), memory_mb=10**6)
    cloud.kill(3, "off")
    cloud.run(100)
    cloud.no_answer.add(5)
    cloud.run(330)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "host 5, where it may run, could not be asked" in cloud.incident(3).vm(30).reason


# --- destinations of before -------------------------------------------------------------------------------------------


def ordered_twice(cloud):
    """Two orders for VM 30, to two hosts, and no answer to either; returns the first destination."""
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    until(cloud, MoveVm, 30)
    report(cloud, moves(cloud, 30)[-1], OrderResult.UNKNOWN, "no answer within 15 s")
    first = moves(cloud, 30)[-1].destination
    cloud.run(16)
    cloud.kill(first)  # it is silent for a moment
    cloud.run(8)
    cloud.dead.pop(first)
    cloud.run(2)
    second = moves(cloud, 30)[-1].destination
    assert second != first
    return first


def test_an_order_that_is_carried_out_late_at_a_destination_of_before_is_ours(cloud):
    first = ordered_twice(cloud)
    ordered = len(moves(cloud, 30))
    cloud.become(30, 3, 2, host=first)  # BOOT
    cloud.run(5)
    assert cloud.incident(3).vm(30).stage is VmStage.MOVING
    cloud.become(30, 3, 3)
    cloud.run(5)
    assert cloud.incident(3).vm(30).reason == f"runs on kvm-{first:02}"
    assert len(moves(cloud, 30)) == ordered


def test_an_order_of_before_whose_start_fails_is_repeated_where_it_was_carried_out(cloud):
    first = ordered_twice(cloud)
    cloud.become(30, 3, 36, host=first)  # BOOT_FAILURE
    cloud.run(30)
    assert {order.host for order in cloud.ordered(RecoverVm) if order.vm == 30} == {first}
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_late_order_that_moves_it_on_from_there_to_the_other_destination_is_ours_too(cloud):
    first = ordered_twice(cloud)
    second = moves(cloud, 30)[-1].destination
    cloud.become(30, 3, 7, host=first)  # SAVE_MIGRATE: on its way to the second
    cloud.run(3)
    cloud.become(30, 3, 2, host=second)
    cloud.run(3)
    cloud.become(30, 3, 3)
    cloud.run(5)
    assert cloud.incident(3).vm(30).reason == f"runs on kvm-{second:02}"


def test_where_nobody_of_us_ever_ordered_it_somebody_else_moved_it(cloud):
    first = ordered_twice(cloud)
    third = next(host for host in range(8) if host not in (3, first, moves(cloud, 30)[-1].destination))
    cloud.become(30, 3, 2, host=third)
    cloud.run(5)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert f"somebody else moved it to host {third}" in cloud.incident(3).vm(30).reason
