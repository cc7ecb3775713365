"""What is written on VMs and hosts for people, and when."""

from __future__ import annotations

from dataclasses import replace

from oned_world import OnedCloud
from world import SETTINGS

from ha_controller.core.effects import Tell, WriteAttributes
from ha_controller.core.settings import Mode


def dies(cloud: OnedCloud) -> OnedCloud:
    cloud.run(6)
    cloud.kill(0)
    cloud.run(30)
    return cloud


def test_each_outcome_is_written_once_in_the_words_of_the_incident():
    cloud = OnedCloud(vms_per_host=3)
    cloud.put(1, 8)
    cloud.oned.vms[2].attributes["HA_POLICY"] = "leave"
    dies(cloud)
    written = {order.vm: (order.state, order.text) for order in cloud.ordered(WriteAttributes)}
    place = f"kvm-{cloud.oned.vms[0].host + 1:02}"
    kept = f"kvm-{cloud.oned.vms[1].host + 1:02}"
    assert written[0] == ("RESTARTED", f"restarted, runs on {place}, kvm-01 failed (incident 1)")
    assert written[1][0] == "KEPT"
    assert written[1][1] == f"moved, not started, is on {kept}, POWEROFF as it was, kvm-01 failed (incident 1)"
    assert written[2][0] == "LEFT: its policy is `leave`"
    assert written[None] == ("", "failed; of its 3 VMs 1 run, 1 moved as they were, 1 left alone (incident 1)")
    assert len(cloud.ordered(WriteAttributes)) == 5, "two on the host: when it was fenced, and at the end"
    assert cloud.oned.vms[0].attributes["HA_STATE"] == "RESTARTED"
    assert cloud.oned.vms[2].attributes["HA_POLICY"] == "leave"
    assert cloud.oned.hosts[0].attributes["HA_STATE"] == "FENCED 1"
    assert "of its 3 VMs" in cloud.oned.hosts[0].attributes["HA_LAST"]


def test_a_restart_of_the_controller_writes_nothing_again():
    cloud = dies(OnedCloud())
    before = len(cloud.ordered(WriteAttributes))
    cloud.restart()
    cloud.run(10)
    assert len(cloud.ordered(WriteAttributes)) == before


def test_an_opennebula_that_refuses_every_write_changes_nothing_else():
    def story(refuses: bool) -> list[tuple[float, object]]:
        cloud = OnedCloud()
        if refuses:
            cloud.deaf.add(WriteAttributes)
        dies(cloud)
        return [(at, effect) for at, effect in cloud.effects if not isinstance(effect, WriteAttributes)]

    assert story(refuses=True) == story(refuses=False)


def test_nothing_is_written_when_the_operator_says_so():
    cloud = dies(OnedCloud(settings=replace(OnedCloud().settings, write_attributes=False)))
    assert cloud.ordered(WriteAttributes) == []
    assert "runs on" in cloud.told()


def test_nothing_is_written_in_mode_observe():
    cloud = OnedCloud(settings=replace(SETTINGS, mode=Mode.OBSERVE))
    dies(cloud)
    for vm in (0, 1):  # a person moves them by hand
        cloud.put(vm, 3, 3, hosts=(0, 1))
    cloud.run(20)
    assert cloud.ordered(WriteAttributes) == []
    assert cloud.ordered(Tell)
