"""A controller of its own and the order of starts: foreseen, a real port that opens late, and a person who goes on."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import anyio
import pytest

from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from tests.whole.test_serve import served
from tests.whole.test_simulate import until, until_not

APP, DATABASE = 2, 3  #: of host 1


@pytest.fixture
def own_address() -> str:
    """An address of this machine that others may reach; VMs are never asked at loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has loopback only")
        address: str = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has loopback only")
    return address


@pytest.mark.slow
async def test_an_application_waits_for_the_port_of_its_database(tmp_path: Path, own_address: str):
    with socket.create_server((own_address, 0)) as server:
        port = server.getsockname()[1]

    def prepare(cloud: EmbeddedCloud) -> None:
        vms = cloud.oned.vms
        vms[APP].attributes["HA_AFTER"] = "vm-003, nobody"
        vms[DATABASE].attributes["HA_READY"] = f"tcp:{port}"
        vms[DATABASE].address = own_address

    async with served(tmp_path, prepare=prepare) as (controller, cloud):
        await controller.ready()
        await until(controller, "All hosts are well", "status")
        await until_not(controller, "not shown life", "simulate", "fail", "kvm-02")
        answer = json.loads((await controller.cli("simulate", "fail", "kvm-02", "-o", "json"))[1])
        assert [(each["vm"], each["after"]) for each in answer["order"]] == [(DATABASE, []), (APP, ["vm-003"])]
        shown = (await controller.cli("simulate", "fail", "kvm-02"))[1]
        assert f"port {port} of {own_address} answers, 1 s later" in shown
        assert "Not followed: vm-002: HA_AFTER names nobody: no VM and no OneFlow role has that name" in shown
        cloud.hardware.break_machine(1, Fault.POWER_LOSS)
        refuses = f"not ready: port {port} of {own_address} refuses connections"
        shown = await until(controller, refuses, "explain", "kvm-02")
        assert "waits for vm-003 (tier 0)" in shown
        assert await until(controller, "Not followed vm-002: HA_AFTER names nobody", "explain", "kvm-02")
        assert cloud.oned.vms[APP].host == 1
        with socket.create_server((own_address, port)), anyio.fail_after(30):
            while cloud.oned.vms[APP].host == 1:
                await anyio.sleep(0.2)


@pytest.mark.slow
async def test_a_person_lets_the_next_tier_go_on(tmp_path: Path):
    def prepare(cloud: EmbeddedCloud) -> None:
        cloud.oned.vms[APP].attributes["HA_AFTER"] = "vm-003"
        cloud.oned.vms[DATABASE].attributes["HA_READY"] = "agent"

    stop = '[recover]\ntier_timeout = "3s"\ntier_on_timeout = "stop"\n[api]'
    async with served(tmp_path, prepare=prepare, **{"[api]": stop}) as (controller, cloud):
        await controller.ready()
        await until(controller, "All hosts are well", "status")
        await until_not(controller, "not shown life", "simulate", "fail", "kvm-02")
        cloud.hardware.break_machine(1, Fault.POWER_LOSS)
        shown = await until(controller, "To let the others start", "explain", "kvm-02")
        assert "order of starts: vm-003 (guest agent cannot be asked" in shown
        assert "ha-controller pending approve 1" in (await controller.cli("incidents", "show", "1"))[1]
        assert (await controller.cli("pending", "list"))[0] == 5
        assert (await controller.cli("status"))[0] == 5
        assert cloud.oned.vms[APP].host == 1
        code, text = await controller.cli("pending", "approve", "1", "--reason", "seen by hand")
        assert (code, "other VMs of kvm-02 start before vm-003" in text) == (0, True)
        with anyio.fail_after(30):
            while cloud.oned.vms[APP].host == 1:
                await anyio.sleep(0.2)
        events = (await controller.cli("events"))[1]
        assert "orders approve: seen by hand" in events
        assert "others start before vm-003" in events
