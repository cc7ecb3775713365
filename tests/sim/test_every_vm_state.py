"""Every state of a VM on a host that dies, from the core through the real executor to the embedded OpenNebula.

What comes of it is written down here by hand, and not read off the table: one can be held against the other.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from oned_world import OnedCloud

from ha_controller.core.effects import AskDomains, RecoverVm
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState
from ha_controller.core.vm_table import LCM, STATES

RUNS = {2, 3, 5, 6, 15, 16, 17, 19, 20, 21, 24, 25, 26, 32, 36, 47, 57, 59, 60, 61, 62, 66, 69}
KEPT = {18, 27, 28, 33, 34, 43, 44, 45, 46, 51, 53, 54, 56, 63, 65, 70}
TRAVEL = {4, 7, 8, 35, 37, 38}
LEFT = {0, 1, 9, 10, 11, 12, 13, 14, 22, 23, 29, 30, 31, 39, 40, 41, 42, 48, 49, 50, 52, 55, 58, 64, 67, 68, 71}
CAME_FROM_ELSEWHERE = {43, 44, 45, 46, 60, 61}


def test_every_number_is_in_one_group():
    assert sorted([*RUNS, *KEPT, *TRAVEL, *LEFT]) == list(LCM)


def dies(state: int, lcm_state: int, *, hosts: tuple[int, ...] = (0,), runs_on: int | None = None) -> OnedCloud:
    """Host 0 dies while its VM 0 is in this state; time passes until the incident has ended."""
    cloud = OnedCloud()
    cloud.run(6)
    cloud.runs_on(0, runs_on)
    cloud.put(0, state, lcm_state, hosts=hosts)
    cloud.inventory()
    cloud.run(2)
    cloud.kill(0)
    cloud.run(140)
    assert cloud.ran_twice() == []
    assert cloud.state(0) is HostState.RECOVERED
    return cloud


def running_on(cloud: OnedCloud) -> list[int]:
    return [host for host, machine in cloud.hardware.machines.items() if 0 in machine.vms]


@pytest.mark.parametrize("lcm_state", sorted(RUNS), ids=lambda number: LCM[number].name)
def test_what_ran_or_was_about_to_runs_elsewhere(lcm_state):
    cloud = dies(3, lcm_state, hosts=(1, 0) if lcm_state in CAME_FROM_ELSEWHERE else (0,), runs_on=0)
    vm = cloud.oned.vms[0]
    assert cloud.record(0).stage is VmStage.RUNNING
    assert (vm.label, running_on(cloud)) == ("RUNNING", [vm.host])
    assert vm.host != 0


@pytest.mark.parametrize("lcm_state", sorted(KEPT), ids=lambda number: LCM[number].name)
def test_what_did_not_run_is_moved_and_not_started(lcm_state):
    cloud = dies(3, lcm_state, hosts=(1, 0) if lcm_state in CAME_FROM_ELSEWHERE else (0,))
    vm = cloud.oned.vms[0]
    assert cloud.record(0).stage is VmStage.KEPT
    assert vm.label in ("POWEROFF", "SUSPENDED")
    assert (running_on(cloud), vm.host != 0) == ([], True)


@pytest.mark.parametrize("lcm_state", sorted(LEFT), ids=lambda number: LCM[number].name)
def test_what_cannot_be_helped_is_left_alone_with_a_reason(lcm_state):
    cloud = dies(3, lcm_state)
    assert cloud.record(0).stage is VmStage.LEFT
    assert cloud.record(0).reason in cloud.told()
    assert running_on(cloud) == []
    assert cloud.oned.vms[0].state != 6  # DONE: nothing is ended by us
    expected = [("recover", 1)] if lcm_state == 29 else []  # its owner had it undeployed
    assert cloud.calls(0) == expected


@pytest.mark.parametrize("state", sorted(STATES), ids=lambda number: STATES[number].name)
def test_a_vm_that_is_not_active(state):
    cloud = dies(state, 0)
    if state in (1, 6, 9):  # PENDING, DONE, UNDEPLOYED hold no capacity there
        assert cloud.incident(0).vm(0) is None
        assert cloud.calls(0) == []
    elif state in (5, 8):
        assert cloud.record(0).stage is VmStage.KEPT
        assert (cloud.oned.vms[0].state, cloud.oned.vms[0].host != 0) == (state, True)
    else:
        assert cloud.record(0).stage is VmStage.LEFT
        assert cloud.calls(0) == []
    assert running_on(cloud) == [cloud.oned.vms[0].host] * (state == 1)  # the scheduler placed that one


@pytest.mark.parametrize(("state", "lcm_state"), [(3, 72), (3, 99), (77, 0)])
def test_an_unknown_number_is_left_alone(state, lcm_state):
    cloud = dies(state, lcm_state)
    assert "is not known to this version" in cloud.record(0).reason
    assert cloud.calls(0) == []


# --- migrations in flight ---------------------------------------------------------------------------------------------


def test_a_live_migration_that_had_ended_on_the_target_is_finished_there():
    cloud = dies(3, 4, hosts=(0, 1), runs_on=1)
    assert cloud.calls(0) == [("recover", 1)]
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [1])
    assert "runs on kvm-02" in cloud.record(0).reason


def test_a_live_migration_that_died_with_its_source_is_started_elsewhere():
    cloud = dies(3, 4, hosts=(0, 1), runs_on=0)
    assert [what for what, _ in cloud.calls(0)] == ["recover", "migrate"]
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [cloud.oned.vms[0].host])


def test_a_live_migration_whose_target_died_stays_on_its_source():
    cloud = dies(3, 4, hosts=(1, 0), runs_on=1)
    assert cloud.calls(0) == [("recover", 0)]
    assert (cloud.record(0).stage, running_on(cloud), cloud.oned.vms[0].host) == (VmStage.RUNNING, [1], 1)


def test_a_live_migration_that_had_ended_on_the_target_that_died_is_started_elsewhere():
    cloud = dies(3, 4, hosts=(1, 0), runs_on=0)
    assert cloud.calls(0)[0] == ("recover", 1)
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [cloud.oned.vms[0].host])


@pytest.mark.parametrize(
    ("hosts", "runs_on"), [((0, 1), 0), ((0, 1), 1), ((1, 0), 0), ((1, 0), 1)], ids=lambda value: str(value)
)
def test_a_live_migration_is_left_alone_when_the_other_host_does_not_say_what_runs_there(hosts, runs_on):
    cloud = OnedCloud(no_answer={1})
    cloud.run(6)
    cloud.runs_on(0, runs_on)
    cloud.put(0, 3, 4, hosts=hosts)
    cloud.inventory()
    cloud.run(2)
    cloud.kill(0)
    cloud.run(140)
    assert cloud.record(0).stage is VmStage.LEFT
    assert "host 1, where it may run, could not be asked (no answer)" in cloud.record(0).reason
    assert cloud.calls(0) == []


def test_a_vm_that_runs_on_the_target_is_never_started_although_opennebula_shows_it_on_the_dead_source():
    """oned's own call failed first, and wrote it back to the source."""
    cloud = OnedCloud()
    cloud.run(6)
    cloud.runs_on(0, 1)
    cloud.put(0, 3, 4, hosts=(0, 1))
    cloud.inventory()
    cloud.run(2)
    cloud.deaf.add(AskDomains)
    cloud.kill(0)
    cloud.run(3)
    cloud.put(0, 3, 3, hosts=(0, 1, 0))
    cloud.deaf.clear()
    cloud.run(140)
    assert cloud.record(0).stage is VmStage.LEFT
    assert "Never start it" in cloud.record(0).reason
    assert cloud.calls(0) == []
    assert running_on(cloud) == [1]


def taken_back(*, runs_on: int | None, silent: bool = False, at_last: int = 0) -> OnedCloud:
    """A person migrates VM 0 from host 0 to host 1; OpenNebula takes that back before anybody of us has read it.

    Then host 0 dies.
    """
    cloud = OnedCloud(no_answer={1} if silent else set())
    cloud.run(6)
    cloud.oned.lifecycle.migrate(0, cloud.oned.hosts[1], live=True, enforce=True, datastore=-1, now=cloud.now)
    cloud.oned.lifecycle.forget_drivers()  # its driver was killed
    cloud.runs_on(0, runs_on)
    cloud.oned.lifecycle.recover(0, 0, cloud.now)
    cloud.oned.advance(cloud.now)
    assert (cloud.oned.vms[0].host, cloud.oned.vms[0].label) == (0, "RUNNING")
    cloud.oned.lifecycle._due.clear()
    cloud.kill(at_last)
    cloud.run(140)
    assert cloud.ran_twice() == []
    assert cloud.state(0) is HostState.RECOVERED
    return cloud


def test_a_vm_whose_migration_was_taken_back_unseen_is_not_started_where_it_may_run_twice():
    cloud = taken_back(runs_on=1)
    assert "it runs on host 1, although OpenNebula shows it on the host that failed. Never" in cloud.record(0).reason
    assert (cloud.record(0).stage, cloud.calls(0), running_on(cloud)) == (VmStage.LEFT, [], [1])
    assert cloud.record(1).stage is VmStage.RUNNING


def test_a_vm_whose_migration_was_taken_back_is_moved_when_its_other_end_says_that_it_is_not_there():
    cloud = taken_back(runs_on=0)
    assert [what for what, _ in cloud.calls(0)] == ["migrate"]
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [cloud.oned.vms[0].host])


def test_a_vm_whose_migration_was_taken_back_is_left_alone_when_its_other_end_cannot_be_asked():
    cloud = taken_back(runs_on=1, silent=True)
    assert "host 1, where it may run, could not be asked (no answer)" in cloud.record(0).reason
    assert (cloud.record(0).stage, cloud.calls(0)) == (VmStage.LEFT, [])


def test_a_vm_that_waits_for_room_is_not_given_up_because_an_answer_has_become_old():
    cloud = OnedCloud()
    cloud.run(6)
    cloud.put(0, 3, 3, hosts=(0, 1, 0))
    cloud.oned.vms[0].memory_mb = 10**6
    cloud.inventory()
    cloud.kill(0)
    cloud.run(300)
    assert cloud.record(0).stage is VmStage.WAITING
    cloud.oned.vms[0].memory_mb = 1024
    cloud.inventory()
    cloud.run(60)
    assert cloud.record(0).stage is VmStage.RUNNING


def test_a_vm_that_never_migrated_is_moved_without_a_question():
    cloud = dies(3, 3, runs_on=0)
    assert cloud.ordered(AskDomains) == []
    assert cloud.record(0).stage is VmStage.RUNNING


def test_a_vm_that_opennebula_calls_a_zombie_elsewhere_is_not_started_once_more():
    cloud = OnedCloud()
    cloud.run(6)
    cloud.oned.hosts[2].attributes |= {"TOTAL_ZOMBIES": "1", "ZOMBIES": "0"}
    cloud.runs_on(0, 2)
    cloud.inventory()
    cloud.kill(0)
    cloud.run(140)
    assert "it runs on host 2" in cloud.record(0).reason
    assert (cloud.record(0).stage, cloud.calls(0), running_on(cloud)) == (VmStage.LEFT, [], [2])


def test_a_zombie_of_yesterday_is_asked_for_and_keeps_nothing_back():
    cloud = OnedCloud()
    cloud.run(6)
    cloud.oned.hosts[2].attributes |= {"TOTAL_ZOMBIES": "1", "ZOMBIES": "0"}
    cloud.inventory()
    cloud.kill(0)
    cloud.run(140)
    assert {order.host for order in cloud.ordered(AskDomains)} == {2}
    assert cloud.record(0).stage is VmStage.RUNNING


def test_a_host_that_is_off_since_needs_not_be_asked_for_a_migration_that_was_taken_back():
    cloud = OnedCloud(hosts=5)
    cloud.run(6)
    cloud.kill(1)
    cloud.run(60)
    assert cloud.state(1) is HostState.RECOVERED
    cloud.put(0, 3, 3, hosts=(0, 1, 0))
    cloud.inventory()
    cloud.settings = replace(cloud.settings, fences_max=5, max_failed_share=1.0)
    cloud.reconfigure(cloud.settings)
    cloud.kill(0)
    cloud.run(140)
    assert cloud.record(0).stage is VmStage.RUNNING


def test_both_ends_of_a_live_migration_die_and_one_incident_starts_the_vm():
    cloud = OnedCloud(hosts=8)
    cloud.run(6)
    cloud.put(0, 3, 4, hosts=(0, 1))
    cloud.inventory()
    cloud.run(2)
    cloud.kill(0)
    cloud.run(0.4)
    cloud.kill(1)
    cloud.run(160)
    vm = cloud.oned.vms[0]
    assert (vm.label, running_on(cloud)) == ("RUNNING", [vm.host])
    assert vm.host not in (0, 1)
    assert {cloud.record(0, host).stage for host in (0, 1)} == {VmStage.RUNNING}
    assert cloud.ran_twice() == []


@pytest.mark.parametrize("lcm_state", [8, 35, 37, 38])
def test_a_cold_migration_goes_on_at_its_living_target(lcm_state):
    cloud = OnedCloud()
    cloud.run(6)
    cloud.runs_on(0, None)
    cloud.put(0, 3, 7, hosts=(0, 1))
    cloud.inventory()
    cloud.run(2)
    cloud.no_answer.add(1)
    cloud.kill(0)
    cloud.run(4)
    cloud.no_answer.clear()
    cloud.put(0, 3, lcm_state, hosts=(0, 1))
    cloud.run(1)
    if lcm_state in (8, 35):  # oned goes on by itself
        assert cloud.calls(0) == []
        cloud.put(0, 3, 3, hosts=(0, 1))
        cloud.runs_on(0, 1)
    cloud.run(60)
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [1])


@pytest.mark.parametrize("lcm_state", [8, 35, 37, 38])
def test_a_cold_migration_whose_target_died_runs_again(lcm_state):
    cloud = dies(3, lcm_state, hosts=(1, 0))
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [cloud.oned.vms[0].host])


def test_a_cold_migration_is_left_to_its_living_source_that_saves_it():
    cloud = dies(3, 7, hosts=(1, 0), runs_on=1)
    assert "its living source saves it" in cloud.record(0).reason
    assert cloud.calls(0) == []


# --- starts that fail -------------------------------------------------------------------------------------------------


def moved(*refusing: int) -> OnedCloud:
    """VM 0 of host 0 is moved, and does not start on these hosts."""
    cloud = OnedCloud(hosts=6)
    cloud.run(6)
    for host in refusing:
        cloud.hardware.machines[host].refuses.add(0)
    cloud.kill(0)
    cloud.run(300)
    assert cloud.ran_twice() == []
    return cloud


def test_a_vm_that_does_not_start_is_tried_again_there_and_then_elsewhere():
    cloud = moved(1)
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [cloud.oned.vms[0].host])
    assert cloud.record(0).failed_on == (1,)
    calls = cloud.calls(0)
    assert calls[:4] == [("migrate", 1), ("recover", 2), ("recover", 2), ("recover", 1)]
    assert [what for what, _ in calls[4:]] == ["migrate", "action"]


def test_a_vm_that_starts_nowhere_is_given_up_and_told():
    cloud = moved(1, 2, 3, 4, 5)
    assert cloud.record(0).stage is VmStage.LEFT
    assert len({destination for what, destination in cloud.calls(0) if what == "migrate"}) == 3
    assert "did not start" in cloud.told()
    assert cloud.state(0) is HostState.RECOVERED


def test_a_vm_that_does_not_start_is_not_moved_on_when_its_host_does_not_say_what_runs_there():
    cloud = OnedCloud(no_answer={1})
    cloud.run(6)
    cloud.hardware.machines[1].refuses.add(0)
    cloud.kill(0)
    cloud.run(200)
    assert cloud.record(0).stage is VmStage.LEFT
    assert "its start failed: BOOT_FAILURE on host 1" in cloud.record(0).reason
    assert [what for what, _ in cloud.calls(0)] == ["migrate", "recover", "recover"]


def test_disks_that_cannot_be_moved_are_tried_once_more_and_then_believed_to_be_shared():
    cloud = OnedCloud()
    cloud.run(6)
    cloud.oned.lifecycle.files_fail.add(0)
    cloud.kill(0)
    cloud.run(60)
    assert cloud.calls(0) == [("migrate", 1), ("recover", 2), ("recover", 1)]
    assert (cloud.record(0).stage, running_on(cloud)) == (VmStage.RUNNING, [1])


@pytest.mark.parametrize(("state", "label"), [(8, "POWEROFF"), (5, "SUSPENDED")])
def test_disks_of_a_vm_that_did_not_run_are_believed_to_be_shared(state, label):
    cloud = OnedCloud()
    cloud.run(6)
    cloud.runs_on(0, None)
    cloud.put(0, state)
    cloud.oned.lifecycle.files_fail.add(0)
    cloud.inventory()
    cloud.kill(0)
    cloud.run(60)
    assert [what for what, _ in cloud.calls(0)] == ["migrate", "recover"]
    assert (cloud.record(0).stage, cloud.oned.vms[0].label) == (VmStage.KEPT, label)


# --- a destination that dies, too -------------------------------------------------------------------------------------


def test_the_destination_dies_meanwhile_and_its_incident_goes_on_with_the_vm():
    cloud = OnedCloud(hosts=8)
    cloud.run(6)
    cloud.kill(0)
    while not cloud.calls(0):
        cloud.run(0.2)
    (_, first), *_ = cloud.calls(0)
    cloud.kill(first)
    cloud.run(200)
    vm = cloud.oned.vms[0]
    assert (vm.label, running_on(cloud)) == ("RUNNING", [vm.host])
    assert vm.host not in (0, first)
    assert {cloud.record(0, host).stage for host in (0, first)} == {VmStage.RUNNING}
    assert cloud.ran_twice() == []
    assert cloud.state(0) is HostState.RECOVERED


# --- oned's own calls fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["suspend", "poweroff-hard", "terminate-hard"])
def test_what_falls_back_to_running_on_the_dead_host_becomes_unknown_and_is_moved_or_left(action):
    cloud = OnedCloud()
    cloud.run(6)
    cloud.kill(0)
    cloud.oned.lifecycle.action(0, action, cloud.now)
    cloud.inventory()
    cloud.run(140)
    expected = {"suspend": VmStage.RUNNING, "poweroff-hard": VmStage.LEFT, "terminate-hard": VmStage.LEFT}
    assert cloud.record(0).stage is expected[action]
    assert cloud.state(0) is HostState.RECOVERED
    assert cloud.ran_twice() == []


# --- a restart of the controller in the middle ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize(("lcm_state", "hosts"), [(6, (0,)), (36, (0,)), (61, (1, 0)), (4, (1, 0)), (18, (0,))])
def test_a_restart_after_any_order_changes_nothing_about_the_end(lcm_state, hosts, after):
    expected = dies(3, lcm_state, hosts=hosts, runs_on=0)
    cloud = OnedCloud()
    cloud.run(6)
    cloud.runs_on(0, 0)
    cloud.put(0, 3, lcm_state, hosts=hosts)
    cloud.inventory()
    cloud.run(2)
    cloud.kill(0)
    for _ in range(700):
        cloud.run(0.2)
        if len(cloud.calls(0)) >= min(after, len(expected.calls(0))):
            break
    cloud.restart()
    cloud.run(200)
    assert cloud.record(0).stage is expected.record(0).stage
    assert [what for what, _ in cloud.calls(0)] == [what for what, _ in expected.calls(0)]
    assert cloud.ran_twice() == []


def test_an_order_to_end_a_state_that_is_lost_is_repeated_after_a_look():
    cloud = OnedCloud()
    cloud.run(6)
    cloud.put(0, 3, 36)
    cloud.inventory()
    cloud.deaf.add(RecoverVm)
    cloud.kill(0)
    cloud.run(30)
    assert cloud.calls(0) == []
    cloud.deaf.clear()
    cloud.run(60)
    assert [what for what, _ in cloud.calls(0)] == ["recover", "migrate"]
    assert cloud.record(0).stage is VmStage.RUNNING


def test_orders_that_lead_nowhere_are_counted_and_given_up():
    cloud = OnedCloud()
    cloud.run(6)
    cloud.put(0, 3, 36)
    cloud.inventory()
    cloud.deaf.add(RecoverVm)
    cloud.kill(0)
    cloud.run(400)
    assert cloud.record(0).stage is VmStage.LEFT
    assert cloud.record(0).recovers <= cloud.settings.recovers_max
    assert cloud.state(0) is HostState.RECOVERED
