"""`ha-controller fencing` and `fence` against a running controller, an embedded cloud and BMCs that speak IPMI."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import anyio
import pytest

from ha_controller.sim.hardware import Fault
from tests.whole.test_serve import Served, served

OURS = 'identity = "noted"\n'


async def until(controller: Served, word: str, *words: str) -> str:
    with anyio.fail_after(40):
        while word not in (shown := (await controller.cli(*words))[1]):
            await anyio.sleep(0.3)
    return shown


async def test_devices_are_listed_and_checked_and_their_identity_is_proven(tmp_path: Path):
    async with served(tmp_path, **{OURS: ""}) as (controller, cloud):
        for host in cloud.hosts:
            cloud.oned.hosts[host.id].attributes["HA_UUID"] = host.system_uuid
        await controller.ready()
        await until(controller, "proven", "fencing", "list")
        code, shown = await controller.cli("fencing", "check")
        assert code == 0, shown
        assert shown.count("proven") == 4
        code, shown = await controller.cli("fencing", "list", "kvm-02", "-o", "json")
        (row,) = json.loads(shown)
        assert row["fencing"][0]["identity"] == "proven"
        assert (await controller.cli("fencing", "list", "nobody"))[0] == 3


async def test_a_bmc_of_another_machine_is_found_in_peace_time(tmp_path: Path):
    """Two addresses were swapped: both hosts are found, the others are well."""
    async with served(tmp_path) as (controller, cloud):
        for host in cloud.hosts:
            cloud.oned.hosts[host.id].attributes["HA_UUID"] = host.system_uuid
        first, second = (cloud.oned.hosts[number].attributes for number in (1, 2))
        first["FENCE_IP"], second["FENCE_IP"] = second["FENCE_IP"], first["FENCE_IP"]
        await controller.ready()
        await until(controller, "MISMATCH", "fencing", "list", "kvm-02")
        code, shown = await controller.cli("fencing", "check")
        assert code == 1
        assert shown.count("MISMATCH") == 2
        assert "it belongs to UUID" in shown
        assert "another machine's" in (await controller.cli("events"))[1]
        assert not [line for line in cloud.hardware.log if line.what.startswith("ordered")]


async def test_fence_refuses_a_host_that_answers_and_asks_for_its_name(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        await until(controller, "All hosts are well", "status")
        code, told = await controller.cli("fence", "kvm-02", "--reason", "test", "--yes")
        assert (code, "silent" in told) == (4, True), told  # "is not silent", or "is OK" if its last answer is just old
        assert (await controller.cli("fence", "kvm-02", "--reason", "test"))[0] == 2
        assert not [line for line in cloud.hardware.log if line.what.startswith("ordered")]


@pytest.mark.slow
async def test_a_drill_switches_a_host_in_maintenance_off_and_on_and_is_on_record(tmp_path: Path):
    async with served(tmp_path, **{OURS: ""}) as (controller, cloud):
        for vm in list(cloud.oned.vms.values()):
            if vm.host == 2:
                cloud.hardware.stop_vm(2, vm.id)
                del cloud.oned.vms[vm.id]
        await controller.ready()
        assert (await controller.cli("fencing", "test", "kvm-03", "--yes"))[0] == 2
        await until(controller, "4 ok", "status")
        code, told = await controller.cli("fencing", "test", "kvm-03", "--real", "--yes")
        assert (code, "not in maintenance" in told) == (4, True)
        cloud.oned.hosts[2].attributes["HA_IGNORE"] = "YES"
        await until(controller, "1 excluded", "status")
        code, told = await controller.cli("fencing", "test", "kvm-03", "--real", "--yes", "--reason", "new BMC")
        assert code == 0, told
        assert "the host fell silent; switched on again" in told
        assert [line.what for line in cloud.hardware.log if line.what.startswith("ordered")] == [
            "ordered off", "ordered on",
        ]  # fmt: skip
        assert "drilled" in (await controller.cli("fencing", "list", "kvm-03"))[1]
        code, shown = await controller.cli("fencing", "status")
        assert (code, "4 of 4 hosts can be powered off; 4 of 4 devices ready" in shown) == (0, True)
        assert "3 wait for an approval" in shown
        assert "3 have had no drill, or none lately" in shown
        code, shown = await controller.cli("drill", "schedule")
        assert code == 1  # three were never drilled
        assert "in 179d" in next(line for line in shown.splitlines() if line.startswith("kvm-03"))
        assert "not in maintenance" in next(line for line in shown.splitlines() if line.startswith("kvm-01"))
        shown = (await controller.cli("drill", "report"))[1]
        assert "the host fell silent; switched on again" in shown
        assert (await controller.cli("drill", "report", "kvm-02"))[1] == "No drill has been held.\n"
        history = (await controller.cli("fencing", "history", "kvm-03"))[1]
        assert "drill: power off and on with bmc" in history
        await controller.kill()
        await controller.start()
        await controller.ready()
        await until(controller, "drilled", "fencing", "list", "kvm-03")


async def test_metrics_tell_whether_each_device_is_ready_and_whose_it_is(tmp_path: Path):
    async with served(tmp_path) as (controller, _):
        await controller.ready()
        await until(controller, "noted", "fencing", "list")
        connector = aiohttp.UnixConnector(str(tmp_path / "socket"))
        async with aiohttp.ClientSession(connector=connector) as session:
            with anyio.fail_after(30):
                text = ""
                while 'fence_device_ready{device="bmc",host="kvm-01",identity="noted",one_host_id="0"} 1.0' not in text:
                    async with session.get("http://controller/metrics") as answer:
                        text = await answer.text()
                    await anyio.sleep(0.2)
        assert "ha_controller_fence_device_check_age_seconds" in text
        assert "embedded-bmc" not in text


async def test_maintenance_begins_is_listed_and_ends_by_itself(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        await until(controller, "4 ok", "status")
        assert (await controller.cli("maintenance", "list"))[1] == "No host is in maintenance.\n"
        code, told = await controller.cli(
            "maintenance", "on", "kvm-02", "kvm-03", "--for", "6s", "--reason", 'new "RAM"'
        )
        assert code == 0, told
        assert "until 20" in cloud.oned.hosts[1].attributes["HA_IGNORE"]
        shown = await until(controller, "kvm-03", "maintenance", "list")
        assert "new" in shown
        assert "kvm-02" in shown
        assert (await controller.cli("maintenance", "off", "kvm-02"))[0] == 0
        assert cloud.oned.hosts[1].attributes["HA_IGNORE"] == ""
        await until(controller, "No host is in maintenance", "maintenance", "list")
        events = (await controller.cli("events"))[1]
        assert "maintenance on (" in events
        assert events.count("maintenance has ended") == 2
        assert (await controller.cli("maintenance", "on", "nobody", "--reason", "x"))[0] == 3
        assert (await controller.cli("maintenance", "on", "kvm-02", "--for", "long", "--reason", "x"))[0] == 2


async def test_explain_tells_what_was_decided_and_why_also_later(tmp_path: Path):
    async with served(tmp_path, **{OURS: OURS}) as (controller, cloud):
        await controller.ready()
        await until(controller, "4 ok", "status")
        await until(controller, "4 of 4 devices ready", "fencing", "status")
        assert (await controller.cli("explain", "kvm-02", "--last", "1"))[0] == 3
        cloud.hardware.break_machine(1, Fault.POWER_LOSS)
        shown = await until(controller, "RECOVERED", "explain", "kvm-02", "--last", "20")
        for word in ("SUSPECT: looked at closely", "condemned as powered off", "✓ storm", "FENCED: off is verified"):
            assert word in shown
        assert shown.index("SUSPECT") < shown.index("condemned") < shown.index("FENCED") < shown.index("RECOVERED")
        code, shown = await controller.cli("explain", "kvm-02", "--incident", "1", "-o", "json")
        lines = json.loads(shown)
        assert code == 0
        assert {line["incident"] for line in lines} == {1}
        assert lines[0]["data"]["evidence"]
        moment = datetime.fromtimestamp(lines[-1]["at"] + 0.001, UTC).isoformat()
        assert lines[-1]["data"]["what"] in (await controller.cli("explain", "kvm-02", "--at", moment))[1]
        assert (await controller.cli("explain", "kvm-02", "--at", "2020-01-01"))[0] == 3
        assert (await controller.cli("explain", "kvm-02", "--at", "yesterday"))[0] == 2
