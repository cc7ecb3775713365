"""The cloud in one sentence: what a person reads first at night."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core import report
from ha_controller.core.events import DeviceChecked
from ha_controller.core.model import HostState, PowerState
from ha_controller.core.settings import Mode


def said(cloud) -> tuple[int, str]:
    answer = report.status(cloud.controller.state, cloud.now)
    return answer["code"], answer["verdict"]


def checked(cloud, host: int, *, ok: bool) -> None:
    power = PowerState.ON if ok else PowerState.UNKNOWN
    cloud.feed(DeviceChecked(host=host, device="bmc", fingerprint="", ok=ok, power=power, summary="no answer"))


def test_a_cloud_whose_hosts_answer_and_could_be_powered_off_is_well(cloud):
    assert said(cloud) == (report.WELL, "All hosts are well.")


def test_hosts_that_could_not_be_powered_off_are_named_before_they_fail(cloud):
    checked(cloud, 2, ok=False)
    code, verdict = said(cloud)
    assert code == report.DEGRADED
    assert "could not be powered off if they failed: kvm-02. Why: ha-controller fencing list" in verdict
    checked(cloud, 2, ok=True)
    assert said(cloud) == (report.WELL, "All hosts are well.")


def test_before_any_device_was_checked_nothing_is_called_well(cloud):
    for view in cloud.controller.state.views.values():
        view.devices.clear()
    code, verdict = said(cloud)
    assert code == report.DEGRADED
    assert "kvm-00, kvm-01, kvm-02 and 5 more" in verdict


@pytest.mark.parametrize("excluded", [True, False])
def test_what_nobody_would_power_off_anyway_is_no_worry(cloud, excluded):
    if excluded:
        cloud.excluded = {2: "HA_IGNORE=YES on the host in OpenNebula"}
        cloud.inventory()
    else:
        cloud.reconfigure(replace(cloud.settings, mode=Mode.OBSERVE))
    checked(cloud, 2, ok=False)
    assert said(cloud)[0] == report.WELL


def test_of_a_host_that_is_off_no_guard_is_shown(cloud):
    def guards():
        return report.explain(cloud.controller.state, cloud.host(3), cloud.now)["guards"]

    assert guards()
    cloud.kill(3, "off")
    cloud.run(60)
    assert cloud.state(3) is HostState.RECOVERED
    assert guards() == []


def test_the_state_in_opennebula_is_the_one_that_was_read_last(cloud):
    """A suspect is read alone. What was read then is not shown for ever."""
    cloud.kill(2)
    cloud.run(3)
    del cloud.dead[2]
    cloud.run(3)
    assert cloud.controller.state.view(2).one_state == 2
    cloud.one_states[2] = 3
    cloud.inventory()
    [row] = [row for row in report.hosts(cloud.controller.state, cloud.now) if row["id"] == 2]
    assert row["one_state"] == 3


def test_a_host_that_is_well_fell_silent_with_nobody(cloud):
    shown = report.explain(cloud.controller.state, cloud.host(3), cloud.now)["guards"]
    assert [line for line in shown if "shared cause" in str(line)] == [
        line for line in shown if "no other host fell silent" in str(line)
    ]
    assert "no other host fell silent" in str(shown)


def test_the_evidence_in_columns_says_what_its_lines_say(cloud):
    def shown():
        return report.explain(cloud.controller.state, cloud.host(2), cloud.now)

    assert {row["signal"] for row in shown()["channels"] if row["domain"] == "management"} == {"alive"}
    assert shown()["silent"] == []
    cloud.kill(2)
    cloud.run(3)
    rows = shown()["channels"]
    silent = [row for row in rows if row["signal"] == "silent"]
    assert silent
    assert shown()["silent"] == [row["channel"] for row in silent]
    for row, line in zip(rows, shown()["evidence"], strict=True):
        assert line.startswith(f"{row['channel']}: {row['signal']}") or line == f"{row['channel']}: nothing yet"
        if row["silent_s"] is not None:
            assert f"for {row['silent_s']:.1f} s" in line
        if row["alive_s_ago"] is not None:
            assert f"last good {row['alive_s_ago']:.1f} s ago" in line


def test_several_hosts_that_wait_for_repair_are_all_named(cloud):
    for host in (3, 5):
        cloud.kill(host, "off")
        cloud.run(60)
    assert said(cloud) == (report.WELL, "All VMs are cared for. kvm-03, kvm-05 wait for repair.")


def test_a_host_that_is_called_like_the_number_of_another_is_never_taken_for_it(cloud):
    hosts = cloud.controller.state.hosts
    assert report.host_id(cloud.controller.state, "3") == 3
    hosts[5] = replace(hosts[5], name="3")
    assert report.host_id(cloud.controller.state, "3") is None
    assert report.host_id(cloud.controller.state, "5") == 5
    assert report.host_id(cloud.controller.state, "kvm-03") == 3


def test_a_controller_that_stands_still_calls_nothing_well(cloud):
    """Its journal hangs: the door still answers, with a state that no evidence reaches any more."""
    assert report.status(cloud.controller.state, cloud.now, 9.0)["code"] == report.WELL
    answer = report.status(cloud.controller.state, cloud.now, 12.0)
    assert answer["code"] == report.DEGRADED
    assert answer["verdict"].startswith("This controller stands still")
    assert "for 12 s nothing was decided" in answer["verdict"]
