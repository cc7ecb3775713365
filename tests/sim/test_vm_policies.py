"""Policies of VMs, locks and disks, from the VM's own attributes to what the embedded OpenNebula is asked to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oned_world import OnedCloud, finish

from ha_controller.core.effects import LockVm, MoveVm, RecoverVm, ResumeVm
from ha_controller.core.events import OrderResult
from ha_controller.core.incident import VmStage
from ha_controller.core.model import VmPolicy
from ha_controller.core.vm_table import Recover

LOCAL_STORE = 102


def cloud_with(policy: str = "", **settings: object) -> OnedCloud:
    cloud = OnedCloud()
    cloud.settings = replace(cloud.settings, **settings)  # type: ignore[arg-type]
    cloud.reconfigure(cloud.settings)
    if policy:
        cloud.oned.vms[0].attributes["HA_POLICY"] = policy
    cloud.run(6)
    return cloud


def dies(cloud: OnedCloud, seconds: float = 60.0) -> OnedCloud:
    cloud.kill(0)
    cloud.run(seconds)
    assert cloud.ran_twice() == []
    return cloud


# --- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["leave", "LEAVE", " Leave "])
def test_a_vm_that_is_to_be_left_is_left(written):
    cloud = dies(cloud_with(written))
    assert (cloud.record(0).stage, cloud.calls(0)) == (VmStage.LEFT, [])
    assert "policy is `leave`" in cloud.record(0).reason
    assert cloud.record(1).stage is VmStage.RUNNING


def test_with_opt_in_only_vms_that_ask_for_it_are_restarted():
    cloud = dies(cloud_with("restart", vm_policy=VmPolicy.LEAVE))
    assert (cloud.record(0).stage, cloud.record(1).stage) == (VmStage.RUNNING, VmStage.LEFT)


def test_a_cluster_may_have_a_policy_of_its_own_and_the_vms_goes_over_it():
    cloud = dies(cloud_with("restart", vm_policies={"default": VmPolicy.LEAVE}))
    assert (cloud.record(0).stage, cloud.record(1).stage) == (VmStage.RUNNING, VmStage.LEFT)


def test_a_policy_that_nobody_knows_leaves_the_vm_alone_and_says_which_there_are():
    cloud = dies(cloud_with("restrat"))
    assert (cloud.record(0).stage, cloud.calls(0)) == (VmStage.LEFT, [])
    assert "HA_POLICY=restrat on the VM is not known: restart, recreate, leave or poweroff" in cloud.told()


def test_a_vm_that_is_to_stay_off_is_never_started():
    cloud = dies(cloud_with("poweroff"))
    assert (cloud.record(0).stage, cloud.calls(0)) == (VmStage.LEFT, [])
    assert "stays so until it is started by hand" in cloud.record(0).reason


def test_a_vm_that_is_to_stay_off_is_moved_when_opennebula_shows_it_off():
    cloud = cloud_with("poweroff")
    cloud.kill(0)
    cloud.runs_on(0, None)
    cloud.put(0, 8)
    cloud.run(30)
    assert (cloud.record(0).stage, [what for what, _ in cloud.calls(0)]) == (VmStage.KEPT, ["migrate"])


# --- made anew --------------------------------------------------------------------------------------------------------


def test_a_vm_with_local_disks_is_left_with_the_reason():
    cloud = cloud_with("recreate")
    cloud.oned.vms[0].datastore = LOCAL_STORE
    dies(cloud)
    assert cloud.record(0).stage is VmStage.LEFT
    assert "its system datastore local is not shared (SHARED=NO)" in cloud.record(0).reason
    assert cloud.calls(0) == []


def test_a_vm_with_local_disks_is_made_anew_only_if_it_and_the_operator_say_so():
    cloud = cloud_with("recreate", recreate_allowed=True)
    cloud.oned.vms[0].datastore = LOCAL_STORE
    dies(cloud)
    assert ("recover", 4) in cloud.calls(0)
    assert cloud.record(0).stage is VmStage.RUNNING
    assert cloud.oned.vms[0].host != 0
    assert ("recover", 4) not in cloud.calls(1)


@pytest.mark.parametrize("shared", [None, "gone"])
def test_a_vm_whose_datastore_cannot_be_told_is_not_made_anew(shared):
    """What is not known to be lost may be there, and making it anew would empty it."""
    cloud = cloud_with("recreate", recreate_allowed=True)
    known = cloud.recoverer._cache.datastores
    store = cloud.oned.vms[0].datastore
    if shared == "gone":
        del known[store]
    else:
        known[store] = replace(known[store], shared=None)
    dies(cloud)
    assert cloud.record(0).stage is VmStage.LEFT
    assert ("recover", 4) not in cloud.calls(0)


def test_a_vm_that_can_be_moved_is_not_made_anew():
    cloud = dies(cloud_with("recreate", recreate_allowed=True))
    assert [what for what, _ in cloud.calls(0)] == ["migrate"]
    assert cloud.record(0).stage is VmStage.RUNNING


@pytest.mark.parametrize("lcm_state", [1, 39])
def test_a_vm_that_was_just_being_made_is_made_anew_if_that_is_allowed(lcm_state):
    cloud = cloud_with("recreate", recreate_allowed=True)
    cloud.runs_on(0, None)
    cloud.put(0, 3, lcm_state)
    cloud.inventory()
    dies(cloud)
    assert cloud.calls(0)[-1 if lcm_state == 39 else 1] == ("recover", 4)
    assert cloud.record(0).stage is VmStage.RUNNING


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_locked_vm_is_left_alone_by_default():
    cloud = cloud_with()
    cloud.oned.vms[0].locked = True
    dies(cloud)
    assert (cloud.record(0).stage, cloud.calls(0)) == (VmStage.LEFT, [])
    assert "it is locked in OpenNebula" in cloud.record(0).reason


def test_a_locked_vm_is_unlocked_moved_and_locked_again_if_the_operator_says_so():
    cloud = cloud_with(locked_moved=True)
    cloud.oned.vms[0].locked = True
    dies(cloud)
    assert cloud.calls(0) == [("unlock", None), ("migrate", 1), ("lock", 4)]
    assert cloud.record(0).stage is VmStage.RUNNING
    assert cloud.oned.vms[0].locked


def test_a_lock_that_cannot_be_put_on_again_is_told():
    cloud = cloud_with(locked_moved=True)
    cloud.oned.vms[0].locked = True
    cloud.deaf.add(LockVm)
    dies(cloud, 120)
    assert cloud.record(0).stage is VmStage.RUNNING
    assert "vm-000 runs on kvm-02; its lock could not be put on again | Lock it again: onevm lock." in cloud.told()


def test_a_restart_of_the_controller_in_between_does_not_lose_the_lock():
    cloud = cloud_with(locked_moved=True)
    cloud.oned.vms[0].locked = True
    cloud.deaf.add(LockVm)
    cloud.kill(0)
    while ("migrate", 1) not in cloud.calls(0):
        cloud.run(0.2)
    cloud.restart()
    cloud.deaf.clear()
    cloud.run(60)
    assert cloud.oned.vms[0].locked
    assert cloud.record(0).stage is VmStage.RUNNING


# --- the executor looks first -----------------------------------------------------------------------------------------

KEYS = {"vm": 0, "incident": 1, "attempt": 1, "not_after": 1e9}


@pytest.mark.parametrize(
    ("order", "state", "lcm_state", "said"),
    [
        (RecoverVm(host=0, lcm_state=36, operation=Recover.SUCCESS, **KEYS), 3, 3, "it is RUNNING on host 0"),
        (RecoverVm(host=1, lcm_state=36, operation=Recover.SUCCESS, **KEYS), 3, 36, "it is BOOT_FAILURE on host 0"),
        (RecoverVm(host=0, lcm_state=16, operation=Recover.SUCCESS, **KEYS), 3, 16, "never used on UNKNOWN"),
        (RecoverVm(host=0, lcm_state=61, operation=Recover.FAILURE, **KEYS), 3, 61, "never used on PROLOG_MIGRATE"),
        (RecoverVm(host=0, lcm_state=0, operation=Recover.RECREATE, **KEYS), 6, 0, "never used on DONE"),
        (MoveVm(source=0, destination=1, **KEYS), 3, 3, "not moved: it is RUNNING on host 0"),
        (MoveVm(source=1, destination=2, **KEYS), 3, 16, "not moved: it is UNKNOWN on host 0"),
        (ResumeVm(host=0, **KEYS), 5, 0, "not resumed: it is SUSPENDED on host 0"),
        (ResumeVm(host=0, from_state=5, **KEYS), 8, 0, "not resumed: it is POWEROFF on host 0"),
    ],
)  # fmt: skip
def test_nothing_is_sent_when_the_vm_is_not_what_the_decision_was_made_for(order, state, lcm_state, said):
    cloud = OnedCloud()
    cloud.put(0, state, lcm_state)
    result, detail = finish(cloud.recoverer._order_vm(order))
    assert result is OrderResult.SKIPPED
    assert said in detail
    assert cloud.calls(0) == []


@pytest.mark.parametrize("kind", [MoveVm, ResumeVm, RecoverVm])
def test_a_vm_that_was_locked_meanwhile_is_not_touched(kind):
    more = {MoveVm: {"source": 0, "destination": 1}, ResumeVm: {"host": 0},
            RecoverVm: {"host": 0, "lcm_state": 36, "operation": Recover.SUCCESS}}[kind]  # fmt: skip
    cloud = OnedCloud()
    cloud.oned.vms[0].locked = True
    assert finish(cloud.recoverer._order_vm(kind(**more, **KEYS))) == (
        OrderResult.SKIPPED,
        "it is locked in OpenNebula",
    )
    assert cloud.calls(0) == []


def test_a_vm_that_has_its_lock_is_not_locked_twice():
    cloud = OnedCloud()
    cloud.oned.vms[0].locked = True
    order = LockVm(host=0, level=4, **KEYS)
    assert finish(cloud.recoverer._order_vm(order))[0] is OrderResult.SKIPPED
