"""One failure from silence to the last VM, and the ways it must not go."""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import trust
from ha_controller.core.controller import Controller
from ha_controller.core.effects import Answer, Fence, HostStep, MoveVm, OrderHost, ReadHost, ResumeVm
from ha_controller.core.events import (
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    InventoryRead,
    LeadChanged,
    OnedReadFailed,
    SecondMasterLooked,
    SelfChecked,
    Verb,
)
from ha_controller.core.machine import TABLE, Trigger
from ha_controller.core.model import Device, Domain, HostState, Lever, Reading, Signal, VmStage
from ha_controller.core.settings import Mode


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


# --- guards -----------------------------------------------------------------------------------------------------------


def test_three_silent_hosts_of_eight_are_a_storm(cloud):
    for host in (1, 2, 3):
        cloud.kill(host, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    assert "storm" in cloud.incident(1).hold
    cloud.dead.clear()
    cloud.run(2)
    assert all(cloud.state(host) is HostState.OK for host in range(8))


def test_the_floor_lets_one_proven_host_of_three_be_handled(make_cloud):
    cloud = make_cloud(hosts=3)
    cloud.run(6)
    cloud.kill(1, "off")
    cloud.run(10)
    assert cloud.state(1) is HostState.RECOVERED


def test_the_floor_does_not_open_for_silence_alone(make_cloud):
    cloud = make_cloud(hosts=3)
    cloud.run(6)
    cloud.kill(1, "on")
    cloud.run(90)
    assert not cloud.ordered(Fence)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(1).id)
    cloud.run(10)
    assert cloud.state(1) is HostState.RECOVERED


def test_the_budget_stops_a_slow_cascade(make_cloud, settings):
    cloud = make_cloud(hosts=20, settings=replace(settings, fences_max=2))
    cloud.run(6)
    for host in (1, 2, 3):
        cloud.kill(host, "off")
        cloud.run(15)
    assert {order.host for order in cloud.ordered(Fence)} == {1, 2}
    assert "budget" in cloud.incident(3).hold


def test_a_cut_off_controller_shoots_nobody(cloud):
    cloud.feed(SelfChecked(ok=False, detail="gateway does not answer"))
    cloud.kill(3, "off")
    cloud.run(90)
    assert not cloud.ordered(Fence)
    assert "self-check" in cloud.incident(3).hold


def test_an_active_failure_hook_is_a_second_master(cloud):
    cloud.feed(SecondMasterLooked(present=True, detail="hook 3 host_error"))
    cloud.kill(3, "off")
    cloud.run(20)
    assert not cloud.ordered(Fence)
    cloud.feed(SecondMasterLooked(present=None, detail="no rights"))
    cloud.run(20)
    assert not cloud.ordered(Fence)


def test_without_the_lead_nothing_is_sent(cloud):
    cloud.feed(LeadChanged(term=None))
    cloud.kill(3, "off")
    cloud.run(20)
    assert not cloud.ordered(Fence)


def test_nothing_is_powered_off_shortly_after_start(make_cloud):
    cloud = make_cloud()
    cloud.kill(3, "off")
    cloud.run(4.5)
    assert not cloud.ordered(Fence)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_observe_only_tells(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, mode=Mode.OBSERVE))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    assert "would power it off now" in cloud.told()


def test_approve_asks_first(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, mode=Mode.APPROVE))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(30)
    assert not cloud.ordered(Fence)
    number = cloud.incident(3).id
    assert f"pending approve {number}" in cloud.told()
    cloud.operator(Verb.REJECT, incident=number)
    cloud.run(5)
    assert not cloud.ordered(Fence)
    cloud.operator(Verb.APPROVE, incident=number)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_pause_stops_the_moves_between_off_and_the_first_migrate(cloud):
    cloud.deaf.add(OrderHost)
    cloud.kill(3, "off")
    cloud.run(4)
    cloud.operator(Verb.PAUSE)
    cloud.deaf.clear()
    cloud.run(20)
    assert cloud.state(3) is HostState.FENCED
    assert not cloud.ordered(MoveVm)
    cloud.operator(Verb.RESUME)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


# --- VMs --------------------------------------------------------------------------------------------------------------


def test_what_was_powered_off_stays_so(cloud):
    cloud.vms[30] = replace(cloud.vms[30], state=8, lcm_state=0, label="POWEROFF")
    cloud.kill(3, "off")
    cloud.run(10)
    record = cloud.incident(3).vm(30)
    assert record.stage is VmStage.LEFT
    assert "POWEROFF before" in record.reason
    assert cloud.vms[30].host == 3


def test_what_was_running_and_is_powered_off_now_is_moved_and_resumed(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(Fence)
    cloud.run(3)
    cloud.vms[30] = replace(cloud.vms[30], state=8, lcm_state=0, label="POWEROFF")
    cloud.deaf.clear()
    order = cloud.ordered(Fence)[0]
    cloud.deaf.add(MoveVm)
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
    cloud.run(3)
    move = next(order for order in cloud.ordered(MoveVm) if order.vm == 30)
    cloud.vms[30] = replace(cloud.vms[30], host=move.destination)
    cloud.deaf.clear()
    cloud.run(10)
    assert [order.vm for order in cloud.ordered(ResumeVm)] == [30]
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_migrate_without_an_answer_is_repeated_to_the_same_destination_only(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(MoveVm)
    cloud.run(60)
    moves = [order for order in cloud.ordered(MoveVm) if order.vm == 30]
    assert len(moves) > 1
    assert len({order.destination for order in moves}) == 1


def test_vms_that_fit_nowhere_wait_and_are_placed_when_there_is_room(make_cloud):
    cloud = make_cloud(hosts=8, vms_per_host=2)
    cloud.vms[30] = replace(cloud.vms[30], memory_mb=60000)
    for host in range(8):
        if host != 3:
            cloud.vms[host * 10] = replace(cloud.vms[host * 10], memory_mb=30000)
    cloud.inventory()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(20)
    assert cloud.state(3) is HostState.FENCED
    assert "no room" in cloud.incident(3).hold
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING
    cloud.vms[50] = replace(cloud.vms[50], memory_mb=100)
    cloud.inventory()
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_vm_with_an_obstacle_is_left_alone_with_the_reason(cloud):
    cloud.vms[30] = replace(cloud.vms[30], obstacle="its disks are on host-local storage")
    cloud.kill(3, "off")
    cloud.run(10)
    assert cloud.incident(3).vm(30).reason == "its disks are on host-local storage"
    assert cloud.vms[30].host == 3


def test_a_vm_that_a_person_moved_meanwhile_is_left_alone(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(OrderHost)
    cloud.run(4)
    cloud.vms[30] = replace(cloud.vms[30], host=6)
    cloud.deaf.clear()
    cloud.run(10)
    assert "somebody else moved it" in cloud.incident(3).vm(30).reason
    assert 30 not in [order.vm for order in cloud.ordered(MoveVm)]


def test_a_host_that_opennebula_reaches_is_alive_and_nothing_moves(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(OrderHost)
    cloud.run(4)
    cloud.one_states[3] = 8
    cloud.run(1)
    cloud.one_states[3] = 2
    cloud.run(3)
    assert cloud.state(3) is HostState.FAILED
    assert "reached it over SSH" in cloud.incident(3).stopped
    assert not cloud.ordered(MoveVm)


def test_a_device_that_reads_on_again_stops_the_moves(cloud):
    cloud.kill(3, "off")
    cloud.deaf.add(MoveVm)
    cloud.run(5)
    cloud.dead[3] = "on"
    cloud.deaf.clear()
    cloud.run(5)
    assert "powered the host on" in cloud.incident(3).stopped
    assert all(vm.host == 3 for vm in cloud.vms.values() if vm.id in (30, 31))


def test_a_repaired_host_is_readmitted_on_order_only(cloud):
    cloud.kill(3, "off")
    cloud.run(10)
    del cloud.dead[3]
    cloud.run(5)
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(3)
    assert cloud.state(3) is HostState.OK
    assert cloud.one_states[3] == 2
    assert not cloud.incident(3).open


def test_a_host_is_not_readmitted_while_a_power_off_is_under_way(cloud):
    cloud.kill(3)
    cloud.deaf.add(Fence)
    cloud.run(62)
    del cloud.dead[3]
    cloud.run(12)
    cloud.operator(Verb.UNFENCE, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    assert "under way" in cloud.ordered(Answer)[-1].text


def test_a_dead_host_whose_vms_cannot_be_read_is_told_and_not_touched(cloud):
    cloud.deaf.add(ReadHost)
    cloud.feed(OnedReadFailed(detail="no answer within 5 s"))
    cloud.kill(3, "off")
    cloud.run(10)
    assert not cloud.ordered(Fence)
    assert cloud.told().count("its VMs cannot be read: no answer within 5 s") == 1


def test_an_excluded_host_opens_no_incident(cloud):
    hosts = [replace(cloud.host(host), excluded="HA_IGNORE=YES" if host == 3 else "") for host in range(8)]
    cloud.feed(InventoryRead(hosts=tuple(hosts)))
    cloud.kill(3, "off")
    cloud.run(30)
    assert cloud.state(3) is HostState.SUSPECT
    assert not cloud.incidents


def test_an_incident_of_a_host_that_was_deleted_is_still_told_after_a_restart(cloud):
    cloud.kill(3, "mute")
    cloud.run(61)
    assert cloud.state(3) is HostState.FAILED
    cloud.restart()
    cloud.controller.state.hosts.clear()
    cloud.feed(InventoryRead(hosts=tuple(cloud.host(host) for host in range(8) if host != 3)))
    cloud.run(90)
    assert cloud.incident(3).open
    assert "no longer in OpenNebula" in cloud.incident(3).hold


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
