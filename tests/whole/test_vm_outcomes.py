"""A whole controller and VMs that are not simply RUNNING when their host dies: over XML-RPC, to the hardware's log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from ha_controller.app import Runtime
from ha_controller.core.incident import VmStage
from ha_controller.core.model import HostState
from ha_controller.demo import demo_config
from ha_controller.sim.cloud import LOCAL_STORE, EmbeddedCloud
from ha_controller.sim.oned_model import History, Timings

FAST = Timings(ssh_timeout_s=0.3, boot_s=0.2)
END_MAX_S = 60.0
SAVED, OFF, LOCKED, LOCAL, MIGRATING, FAILED = range(6)


def _prepare(cloud: EmbeddedCloud) -> None:
    vms = cloud.oned.vms
    vms[SAVED].become(3, 6)
    vms[OFF].become(8)
    cloud.hardware.stop_vm(0, OFF)
    vms[LOCKED].locked = True
    vms[LOCAL].datastore = LOCAL_STORE
    vms[MIGRATING].become(3, 4)
    vms[MIGRATING].history.append(History(seq=1, host=1, started_at=0.0))
    vms[FAILED].become(3, 36)
    cloud.hardware.stop_vm(0, FAILED)


def _ready(runtime: Runtime) -> bool:
    views = runtime.controller.state.views.values()
    return len(views) == 4 and all(any(device.passed_at for device in view.devices.values()) for view in views)


def _recovered(runtime: Runtime) -> bool:
    incident = runtime.controller.state.incidents.get(0)
    return incident is not None and incident.state is HostState.RECOVERED


@pytest.mark.slow
async def test_each_vm_of_a_dead_host_reaches_its_outcome(tmp_path: Path):
    async with EmbeddedCloud(hosts=4, vms_per_host=6, timings=FAST) as cloud:
        config, registry = demo_config(tmp_path, cloud)
        changes = {
            "guard": config.guard.model_copy(update={"settle_s": 0.5}),
            "recover": config.recover.model_copy(update={"locked": "move"}),
            "opennebula": config.opennebula.model_copy(update={"ssh_timeout_s": 1.0}),
        }
        runtime = Runtime(config.model_copy(update=changes), registry)
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.run)
            with anyio.fail_after(END_MAX_S):
                while not _ready(runtime):
                    await anyio.sleep(0.05)
                _prepare(cloud)
                await runtime.recoverer.read_inventory()
                cloud.break_host(0, "power-loss")
                settings = runtime.controller.state.settings
                runtime.controller.state.settings = replace(settings, vm_wait_max_s=15.0)
                while not _recovered(runtime):
                    await anyio.sleep(0.05)
            group.cancel_scope.cancel()
        incident = runtime.controller.state.incidents[0]
        stages = {record.id: record.stage for record in incident.vms}
        running = {vm: machine.id for machine in cloud.hardware.machines.values() for vm in machine.vms}
        assert stages == {
            SAVED: VmStage.RUNNING, OFF: VmStage.KEPT, LOCKED: VmStage.RUNNING, LOCAL: VmStage.LEFT,
            MIGRATING: VmStage.LEFT, FAILED: VmStage.RUNNING,
        }  # fmt: skip
        assert {vm for vm in running if vm in stages} == {SAVED, LOCKED, FAILED}
        assert cloud.oned.vms[LOCKED].locked
        assert cloud.oned.vms[OFF].host != 0
        assert "identity.username is not set" in next(vm.reason for vm in incident.vms if vm.id == MIGRATING)
        assert [line for line in cloud.check(vms_must_wait=False) if "at once" in line or "had power" in line] == []
