"""Three controllers that are broken on purpose, against the same cloud: the demo's checker must fail each of them."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from ha_controller_ipmi.agent import IpmiAgent, IpmiConfig
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client, HostStatus
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_model import Timings

FAST = Timings(ssh_timeout_s=0.3, boot_s=0.1)


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    with anyio.fail_after(seconds):
        while not true():
            await anyio.sleep(0.02)


def agent(cloud: EmbeddedCloud, host: int) -> IpmiAgent:
    return IpmiAgent(
        IpmiConfig(
            address=cloud.hosts[host].bmc_address,
            port=cloud.bmc_port,
            username=cloud.bmc_user,
            password=cloud.bmc_password,
        )
    )


async def move_everything(cloud: EmbeddedCloud, source: int, destination: int) -> None:
    """Pull the lever and move all VMs, as a controller would that believes the host is off."""
    async with Client(cloud.endpoint, SecretStr(cloud.session)) as client:
        await client.set_host_status(source, HostStatus.OFFLINE)
        await client.set_host_status(source, HostStatus.ENABLE)
        vms = [vm.id for vm in cloud.oned.vms.values() if vm.host == source]
        await until(lambda: all(cloud.oned.vms[vm].lcm_state == 16 for vm in vms))
        for vm in vms:
            await client.migrate(vm, destination)
        await until(lambda: all(vm in cloud.hardware.machines[destination].vms for vm in vms))


async def test_a_good_order_of_things_passes():
    async with EmbeddedCloud(hosts=3, vms_per_host=2, timings=FAST) as cloud:
        cloud.break_host(1, "hang")
        await agent(cloud, 1).power_off()
        await move_everything(cloud, 1, 2)
        assert cloud.check(vms_must_wait=False) == []


async def test_moving_before_the_power_is_off_is_caught():
    async with EmbeddedCloud(hosts=3, vms_per_host=2, timings=FAST) as cloud:
        cloud.break_host(1, "hang")
        await move_everything(cloud, 1, 2)
        await agent(cloud, 1).power_off()
        told = "\n".join(cloud.check(vms_must_wait=False))
        assert "ran on machines [1, 2] at once" in told
        assert "while machine 1 had power" in told


async def test_trusting_the_acknowledgement_is_caught():
    async with EmbeddedCloud(hosts=3, vms_per_host=2, timings=FAST) as cloud:
        cloud.hardware.machines[1].bmc_stuck = True
        cloud.break_host(1, "hang")
        await agent(cloud, 1).power_off()
        await move_everything(cloud, 1, 2)
        assert "ran on machines [1, 2] at once" in "\n".join(cloud.check(vms_must_wait=False))


async def test_shooting_a_second_host_is_caught():
    async with EmbeddedCloud(hosts=3, vms_per_host=2, timings=FAST) as cloud:
        cloud.break_host(1, "power-loss")
        await agent(cloud, 1).power_off()
        await agent(cloud, 0).power_off()
        await move_everything(cloud, 1, 2)
        assert "machine 0 was healthy and was ordered off" in "\n".join(cloud.check(vms_must_wait=False))


async def test_starting_vms_without_any_proof_is_caught():
    async with EmbeddedCloud(hosts=3, vms_per_host=2, timings=FAST) as cloud:
        cloud.break_host(1, "cord-pulled")
        await move_everything(cloud, 1, 2)
        assert "nothing proved that machine 1 is off" in "\n".join(cloud.check(vms_must_wait=True))
