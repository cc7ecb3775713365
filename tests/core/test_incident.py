"""One failure from silence to the last VM, and the ways it must not go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core import trust
from ha_controller.core.controller import Controller
from ha_controller.core.effects import Answer, Fence, HostStep, MoveVm, OrderHost, Tell
from ha_controller.core.events import (
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    Verb,
)
from ha_controller.core.incident import Lever, VmStage
from ha_controller.core.machine import TABLE, Trigger
from ha_controller.core.model import Device, Domain, HostState, PowerState, Reading, Signal


def test_the_transition_table_is_total():
    assert all(set(TABLE[state]) == set(Trigger) for state in HostState)


def test_a_host_without_power_is_fenced_at_once_and_its_vms_run_elsewhere(cloud):
    cloud.kill(3, "off")
    begun = cloud.now
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.first(Fence) - begun < 2.0
    assert {record.stage for record in cloud.incident(3).vms} == {VmStage.RUNNING}
    assert all(vm.host != 3 for vm in cloud.vms.values())


def test_the_last_message_of_an_incident_says_that_nobody_has_to_care_any_more(cloud):
    cloud.kill(3, "off")
    cloud.run(10)
    assert [tell.ends for tell in cloud.ordered(Tell)][-1]
    assert sum(tell.ends for tell in cloud.ordered(Tell)) == 1


def test_an_incident_with_a_vm_left_alone_is_not_over_for_people(cloud):
    cloud.vms[30] = replace(cloud.vms[30], obstacle="its disks are on host-local storage")
    cloud.kill(3, "off")
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED
    assert not any(tell.ends for tell in cloud.ordered(Tell))


def test_a_silent_host_whose_power_is_on_waits_for_the_single_domain_time(cloud):
    cloud.kill(3)
    cloud.run(59)
    assert cloud.state(3) is HostState.SUSPECT
    assert not cloud.ordered(Fence)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_nothing_is_moved_before_off_was_read(cloud):
    cloud.kill(3, "off")
    cloud.run(10)
    kinds = [type(effect) for _, effect in cloud.effects]
    assert kinds.index(Fence) < kinds.index(OrderHost) < kinds.index(MoveVm)


def test_the_lever_goes_offline_enable_disable(cloud):
    cloud.kill(3, "off")
    cloud.run(10)
    assert [order.step for order in cloud.ordered(OrderHost)] == [HostStep.OFFLINE, HostStep.ENABLE, HostStep.DISABLE]
    assert cloud.incident(3).lever is Lever.DONE


def test_a_host_that_answers_again_before_the_shot_is_left_alone(cloud):
    cloud.kill(3)
    cloud.run(30)
    del cloud.dead[3]
    cloud.run(2)
    assert cloud.state(3) is HostState.OK
    assert not cloud.ordered(Fence)


def test_life_in_any_channel_vetoes(cloud):
    cloud.kill(3, "off")
    for _ in range(40):
        cloud.run(0.2)
        cloud.feed(EvidenceTaken(channel="ssh", readings=(Reading(host=3, signal=Signal.ALIVE, sent_at=cloud.now),)))
    assert not cloud.ordered(Fence)


def test_an_acknowledged_but_unread_power_off_moves_nothing_and_ends_in_a_hold(cloud):
    cloud.kill(3, "mute")
    cloud.run(90)
    assert cloud.state(3) is HostState.FAILED
    assert "fence attempts exhausted" in cloud.incident(3).stopped
    assert "confirm-off kvm-03" in cloud.incident(3).stopped
    assert len(cloud.ordered(Fence)) == cloud.settings.fence_rounds_max
    assert not cloud.ordered(MoveVm)


def test_a_person_confirms_the_power_is_off_and_the_vms_move(cloud):
    cloud.kill(3, "mute")
    cloud.run(90)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    assert cloud.ordered(Answer)[-1].code == 0
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_confirm_off_is_refused_while_a_device_reads_on(cloud):
    cloud.kill(3)
    cloud.run(30)
    cloud.deaf.add(Fence)
    cloud.run(40)
    cloud.operator(Verb.CONFIRM_OFF, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    assert cloud.state(3) is HostState.FAILED


def test_confirm_off_of_a_healthy_host_finds_no_incident(cloud):
    cloud.operator(Verb.CONFIRM_OFF, 3)
    assert cloud.ordered(Answer)[-1].code == 3


def test_life_after_off_was_read_voids_the_proof_and_bars_the_device(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(Fence)
    cloud.run(3)
    order = cloud.ordered(Fence)[0]
    cloud.feed(
        FenceReported(
            host=3,
            incident=order.incident,
            attempt=order.attempt,
            result=FenceResult.OFF_READ,
            off_read_at=cloud.now,
            detail="",
        )
    )
    del cloud.dead[3]
    cloud.run(5)
    assert cloud.incident(3).barred == ("bmc",)
    assert "belongs to another machine" in cloud.incident(3).stopped
    assert not cloud.ordered(MoveVm)


def test_a_host_alive_after_an_unverified_power_off_is_held_for_a_person(cloud):
    cloud.kill(3)
    cloud.deaf.add(Fence)
    cloud.run(62)
    order = cloud.ordered(Fence)[0]
    keys = {"host": 3, "incident": order.incident, "attempt": order.attempt}
    del cloud.dead[3]
    cloud.run(1)
    cloud.feed(FenceReported(**keys, result=FenceResult.UNVERIFIED, off_read_at=None, detail="no answer"))
    cloud.run(10)
    assert "alive after an unverified power-off" in cloud.incident(3).stopped
    assert len(cloud.ordered(Fence)) == 1


def test_a_host_alive_after_a_definite_refusal_is_ok_again(cloud):
    cloud.kill(3)
    cloud.deaf.add(Fence)
    cloud.run(62)
    order = cloud.ordered(Fence)[0]
    keys = {"host": 3, "incident": order.incident, "attempt": order.attempt}
    del cloud.dead[3]
    cloud.run(1)
    cloud.feed(FenceReported(**keys, result=FenceResult.REFUSED, off_read_at=None, detail="wrong password"))
    cloud.run(2)
    assert cloud.state(3) is HostState.OK


def test_power_offs_that_never_left_use_up_no_attempts_and_are_told_once(cloud):
    """The disk or the proof of the lead took too long: no device was asked, so none has failed."""
    cloud.deaf.add(Fence)
    cloud.kill(3)
    cloud.run(62)
    begun = cloud.first(Fence)
    for number in range(1, 9):  # four times as often as all levels are tried
        while len(cloud.ordered(Fence)) < number:
            assert cloud.now - begun < 60
            cloud.run(0.2)
        order = cloud.ordered(Fence)[-1]
        assert order.attempt == number
        keys = {"host": 3, "incident": order.incident, "attempt": order.attempt}
        cloud.feed(FenceReported(**keys, result=FenceResult.NOT_SENT, off_read_at=None, detail="not sent: too late"))
    assert cloud.now - begun >= 7 * cloud.settings.fence_retry_s, "not in a hurry: whatever was slow is slow"
    assert len(cloud.incident(3).attempts) == 1, "those that left nothing behind are on the trail alone"
    assert cloud.incident(3).untouched
    assert cloud.told().count("power-off by bmc was not sent") == 1
    cloud.deaf.clear()
    cloud.run(20)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_late_report_of_an_old_attempt_changes_nothing(cloud):
    cloud.kill(3, "mute")
    cloud.run(90)
    keys = {"host": 3, "incident": cloud.incident(3).id, "attempt": 1}
    cloud.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=cloud.now, detail=""))
    cloud.run(5)
    assert cloud.state(3) is HostState.FAILED


def test_a_second_level_is_tried_when_the_first_does_not_verify(make_cloud):
    cloud = make_cloud(levels=((Device(name="bmc", identity_noted=True),), (Device(name="pdu", identity_noted=True),)))
    cloud.run(6)
    cloud.kill(3, "mute")
    cloud.run(90)
    assert [order.devices for order in cloud.ordered(Fence)] == [("bmc",), ("pdu",), ("bmc",), ("pdu",)]


BMC = Device(name="bmc", identity_noted=True)
PDU_A, PDU_B = (Device(name=f"pdu-{feed}", identity_noted=True, outlet=True) for feed in "ab")


def test_an_outlet_that_is_still_on_does_not_contradict_a_bmc(make_cloud):
    """The usual wiring: the BMC switches the host off, and the PDU behind it was not asked for anything."""
    cloud = make_cloud(levels=((BMC,), (PDU_A,)))
    cloud.run(6)
    cloud.device_power[PDU_A.name] = PowerState.ON
    cloud.kill(3, "off")
    cloud.run(15)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.incident(3).proof.devices == ("bmc",)


@pytest.mark.parametrize(
    ("levels", "on"),
    [
        (((PDU_A,), (PDU_B,)), "pdu-b"),  # a second feed
        (((PDU_A, Device(name="ssh", identity_noted=True, proves_off=False)), (PDU_B,)), "pdu-b"),
        (((PDU_A,), (BMC,)), "bmc"),  # it knows better than an outlet
        (((Device(name="dummy", weak_off=True, identity_noted=True),), (PDU_A,)), "pdu-a"),
    ],
)
def test_an_outlet_that_is_still_on_contradicts_whatever_else(make_cloud, levels, on):
    cloud = make_cloud(levels=levels)
    cloud.run(6)
    cloud.device_power[on] = PowerState.ON
    cloud.kill(3, "off")
    cloud.run(120)
    assert f"{on} reads ON" in cloud.told()
    assert not cloud.ordered(MoveVm)


def test_a_level_of_weak_devices_is_never_used_as_a_proof(make_cloud):
    cloud = make_cloud(levels=((Device(name="dummy", weak_off=True, identity_noted=True),),))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(90)
    assert cloud.ordered(Fence)  # it may help a person, who has the last word
    assert "weak evidence" in cloud.incident(3).stopped
    assert not cloud.ordered(MoveVm)


def test_what_cannot_be_read_helps_a_level_and_does_not_stop_the_moves(make_cloud):
    helper = Device(name="ssh", identity_noted=True, proves_off=False)
    cloud = make_cloud(levels=((Device(name="bmc", identity_noted=True), helper),))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(150)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_device_that_was_never_read_on_proves_nothing(cloud):
    cloud.controller.state.trusts.clear()
    cloud.kill(3, "off")
    cloud.run(150)
    assert cloud.ordered(Fence)
    assert "bmc was never read on" in cloud.incident(3).stopped
    assert not cloud.ordered(MoveVm)


def test_that_a_device_was_read_on_is_remembered_over_a_restart(cloud):
    again = Controller(cloud.settings, cloud.now)
    again.restore([], cloud.cloud, cloud.now, cloud.trusts.values())
    assert trust.was_seen_on(again.state, 3, cloud.levels[0][0])
    assert not trust.was_seen_on(again.state, 3, Device(name="bmc", fingerprint="another"))


# --- restart ----------------------------------------------------------------------------------------------------------


def test_a_restart_after_the_acknowledgement_reads_back_and_does_not_send_again(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(Fence)
    cloud.run(3)
    order = cloud.ordered(Fence)[0]
    cloud.feed(FenceAccepted(host=3, incident=order.incident, attempt=order.attempt))
    cloud.deaf.clear()
    cloud.restart()
    cloud.run(15)
    assert [order.send for order in cloud.ordered(Fence)] == [True, False]
    assert cloud.state(3) is HostState.RECOVERED


def test_a_restart_at_any_moment_ends_the_same_way(make_cloud):
    for tick in range(40):
        cloud = make_cloud()
        cloud.run(6)
        cloud.kill(3, "off")
        cloud.run(0.2 * tick + 0.2)
        cloud.restart()
        cloud.run(40)
        assert cloud.state(3) is HostState.RECOVERED, tick
        moves = [order.vm for order in cloud.ordered(MoveVm)]
        assert sorted(moves) == sorted(set(moves)), tick
        assert cloud.incident(3).id == 1 or tick < 15


def test_single_domain_is_what_the_settings_say(settings):
    assert settings.deciding_domains == {Domain.MANAGEMENT}
