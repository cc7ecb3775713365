"""What becomes of the VMs of a fenced host: the lever, destinations, orders and outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud

from ha_controller.adapters.opennebula import LcmState
from ha_controller.core.effects import Answer, Fence, HostStep, MoveVm, OrderHost, ReadHost, RecoverVm, ResumeVm
from ha_controller.core.events import (
    FenceReported,
    FenceResult,
    InventoryRead,
    OnedReadFailed,
    OrderResult,
    Verb,
)
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState


@pytest.mark.parametrize(("state", "label"), [(8, "POWEROFF"), (5, "SUSPENDED")])
def test_what_did_not_run_is_moved_and_not_started(cloud, state, label):
    cloud.become(30, state)
    cloud.kill(3, "off")
    cloud.run(10)
    assert cloud.incident(3).vm(30).stage is VmStage.KEPT
    assert (cloud.vms[30].state, cloud.vms[30].host) == (state, 1)
    assert 30 not in [order.vm for order in cloud.ordered(ResumeVm)]
    assert f"vm-30 is on kvm-01, {label} as it was" in cloud.told()
    assert "1 VMs run elsewhere, 1 moved as they were" in cloud.told()


def test_what_did_not_run_stays_where_it_is_if_the_operator_says_so(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, powered_off_moved=False))
    cloud.become(30, 8)
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(10)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "POWEROFF before" in cloud.incident(3).vm(30).reason
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
    del cloud.dead[3]
    cloud.deaf.clear()
    cloud.run(15)
    cloud.operator(Verb.UNFENCE, 3, force=True)
    cloud.run(10)
    assert [order.step for order in cloud.ordered(OrderHost)][-1] is HostStep.RESTORE, (
        "it was OFFLINE and ENABLEd by us"
    )
    assert cloud.state(3) is HostState.OK


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
    cloud.operator(Verb.UNFENCE, 3)
    assert not cloud.incident(3).open
    assert "no longer in OpenNebula" in cloud.incident(3).closing


# --- repeat offenders -------------------------------------------------------------------------------------------------


def die(cloud, host):
    cloud.kill(host, "off")
    cloud.run(15)


def test_a_vm_that_killed_three_hosts_in_a_row_is_held(make_cloud, settings):
    cloud = make_cloud(hosts=20, vms_per_host=1, settings=replace(settings, fences_max=10))
    cloud.run(6)
    for _ in range(2):
        die(cloud, cloud.vms[30].host)
    third = cloud.vms[30].host
    die(cloud, third)
    assert cloud.vms[30].host == third
    record = cloud.incident(third).vm(30)
    assert "it may be what kills them" in record.reason
    assert "Start it by hand" in record.reason
    others = [vm for vm in cloud.incident(third).vms if vm.id != 30]
    assert all(vm.stage is VmStage.RUNNING for vm in others)


def test_it_is_remembered_over_a_restart_and_forgotten_after_an_hour(make_cloud, settings):
    cloud = make_cloud(hosts=20, vms_per_host=1, settings=replace(settings, fences_max=10))
    cloud.run(6)
    die(cloud, cloud.vms[30].host)
    cloud.restart()
    cloud.run(10)
    assert len(cloud.cloud.deaths) == 1
    cloud.run(3600)
    for _ in range(2):
        before = cloud.vms[30].host
        die(cloud, before)
        assert cloud.vms[30].host != before


def test_a_host_that_flaps_is_told_and_takes_no_vms(cloud):
    for _ in range(4):
        cloud.kill(2)
        cloud.run(3)
        del cloud.dead[2]
        cloud.run(3)
    assert cloud.told().count("kvm-02 flaps: 4 times silent and back within 10 min") == 1
    for host in (0, 1, 4, 5, 6, 7):
        cloud.one_states[host] = 4  # disabled by people: only the flapping one is left
    cloud.inventory()
    die(cloud, 3)
    assert all(vm.host == 3 for vm in cloud.vms.values() if vm.id // 10 == 3)
    assert "no room" in cloud.incident(3).hold
    cloud.run(600)
    assert all(vm.host == 2 for vm in cloud.vms.values() if vm.id // 10 == 3)


class Unnoticing(Cloud):
    """OpenNebula's ssh goes on trying to reach hosts, for ever."""

    notices = False

    def ssh_gives_up(self) -> None:
        if self.notices:
            super().ssh_gives_up()


def test_an_opennebula_that_does_not_notice_is_asked_twice_and_then_a_person_is_called():
    cloud = Unnoticing()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(130)
    asked = [HostStep.OFFLINE, HostStep.ENABLE]
    assert [order.step for order in cloud.ordered(OrderHost)] == [*asked, *asked]
    assert "OpenNebula does not notice that the host is gone" in cloud.incident(3).stopped
    assert cloud.state(3) is HostState.FENCED
    assert not cloud.ordered(MoveVm)
    cloud.notices = True
    cloud.operator(Verb.RELEASE, 3)
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_vm_that_did_not_run_and_fits_nowhere_is_left_in_the_end(cloud, settings):
    cloud.become(30, 8, memory_mb=10_000_000)
    cloud.kill(3, "off")
    cloud.run(settings.vm_wait_max_s - 10)
    assert cloud.incident(3).vm(30).stage is VmStage.WAITING
    cloud.run(30)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "it is POWEROFF, and it" in cloud.incident(3).vm(30).reason
    assert cloud.state(3) is HostState.RECOVERED


class Ineffective(Cloud):
    """OpenNebula takes every order to end a state, and the state stays."""

    def _do(self, effect):
        if isinstance(effect, RecoverVm):
            self._reported(effect, OrderResult.ACCEPTED)
        else:
            super()._do(effect)


def test_orders_to_end_a_state_that_lead_nowhere_have_an_end(settings):
    cloud = Ineffective(settings=replace(settings, vm_timeout_s=1000.0))
    cloud.run(6)
    cloud.become(30, 3, LcmState.HOTPLUG.value)
    cloud.kill(3, "off")
    cloud.run(400)
    assert len(cloud.ordered(RecoverVm)) == settings.recovers_max
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "orders to end its state led nowhere" in cloud.incident(3).vm(30).reason
