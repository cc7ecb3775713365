"""How a plan is followed: kept while it holds, made again when it does not, and put on record."""

from __future__ import annotations

from dataclasses import replace

from world import Cloud

from ha_controller.core.effects import Explain, MoveVm
from ha_controller.core.events import InventoryRead
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState
from ha_controller.core.resources import Role, VmGroup


def plans(cloud: Cloud) -> list[Explain]:
    return [effect for effect in cloud.ordered(Explain) if effect.what.startswith("plan:")]


def test_the_plan_is_on_record_before_the_first_order_and_once(cloud):
    cloud.kill(3, "off")
    cloud.run(15)
    [made] = plans(cloud)
    assert made.what == "plan: all 2 VMs have a place"
    assert [line.split(" → ")[0] for line in made.plan] == ["vm-30", "vm-31"]
    kinds = [type(effect) for _, effect in cloud.effects if effect is made or isinstance(effect, MoveVm)]
    assert kinds == [Explain, MoveVm, MoveVm]


def test_vms_of_a_group_are_moved_apart(cloud):
    group = VmGroup(id=1, name="web", roles=(Role(name="web", vms=(30, 31, 0), policy="ANTI_AFFINED"),))
    for vm in (30, 31):
        cloud.vms[vm] = replace(cloud.vms[vm], group=1)
    cloud.feed(InventoryRead(hosts=tuple(cloud.host(host) for host in range(8)), groups=(group,)))
    cloud.kill(3, "off")
    cloud.run(15)
    assert len({cloud.vms[30].host, cloud.vms[31].host, 0}) == 3


def test_a_vm_of_a_group_that_was_never_read_waits_with_the_reason(cloud):
    cloud.vms[30] = replace(cloud.vms[30], group=1)
    cloud.kill(3, "off")
    cloud.run(15)
    assert cloud.state(3) is HostState.FENCED
    assert "vm-30 its VM group 1 cannot be read" in cloud.incident(3).hold
    assert "VM group 1" in cloud.incident(3).vm(30).reason
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING


def test_a_requirement_is_followed_and_what_is_not_understood_waits(cloud):
    cloud.vms[30] = replace(cloud.vms[30], requirements='NAME = "kvm-06"')
    cloud.vms[31] = replace(cloud.vms[31], requirements="NAME =~ kvm")
    cloud.kill(3, "off")
    cloud.run(15)
    assert cloud.vms[30].host == 6
    assert cloud.vms[31].host == 3
    assert "SCHED_REQUIREMENTS cannot be evaluated" in cloud.incident(3).hold
    cloud.vms[31] = replace(cloud.vms[31], requirements="")  # its owner mends it
    cloud.inventory()
    cloud.run(5)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_planned_host_that_falls_silent_gets_nothing_more(make_cloud):
    """The plan is made for all VMs; the orders come a few at a time, and each place is looked at again."""
    cloud = make_cloud(hosts=4, vms_per_host=9)
    cloud.run(6)
    cloud.deaf.add(MoveVm)  # the canary is under way for ever
    cloud.kill(3, "off")
    cloud.run(8)
    planned = cloud.controller.state.planned.plan.placed
    victim = planned[38]
    cloud.kill(victim, "mute")
    cloud.run(2)
    cloud.deaf.clear()
    moved_before = {order.vm for order in cloud.ordered(MoveVm)}
    cloud.run(60)
    later = {order.vm: order.destination for order in cloud.ordered(MoveVm) if order.vm not in moved_before}
    assert later
    assert victim not in later.values()
