"""The login to OpenNebula is changed while the controller runs: it goes on by itself, whichever is changed first."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio
import pytest

from ha_controller.sim.cloud import EmbeddedCloud
from tests.whole.test_serve import Served, served

pytestmark = [pytest.mark.slow]
NEW = "another-password"


async def becomes(controller: Served, code: int) -> str:
    """Wait until `status` ends with a code; what it says then."""
    with anyio.fail_after(40):
        while (found := await controller.cli("status"))[0] != code:
            await anyio.sleep(0.2)
    return found[1]


async def state_of(controller: Served, host: int) -> str:
    rows = json.loads((await controller.cli("hosts", "-o", "json"))[1])
    return next(row["state"] for row in rows if row["id"] == host)


async def recovers(controller: Served, cloud: EmbeddedCloud, host: int) -> None:
    cloud.break_host(host, "power-loss")
    with anyio.fail_after(60):
        while await state_of(controller, host) != "recovered":
            await anyio.sleep(0.2)
    assert cloud.check(vms_must_wait=False) == []


async def test_a_password_changed_in_oned_and_then_in_the_file_is_taken_over_without_a_restart(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        await becomes(controller, 0)
        cloud.server.users.all[0].password = NEW
        with anyio.fail_after(30):
            while "refuses our login" not in (await controller.cli("status"))[1]:
                await anyio.sleep(0.2)
        secret = tmp_path / "one_auth"
        secret.write_text(f"oneadmin:{NEW}\n")
        await becomes(controller, 0)
        await recovers(controller, cloud, 2)
        trail = (await controller.cli("events", "-n", "1000"))[1]
        assert trail.count("renew its login") == 1
        assert NEW not in controller.log + trail
        assert controller.process is not None and controller.process.returncode is None


async def test_a_token_that_is_renewed_in_time_is_taken_over_by_a_reload_and_no_call_is_refused(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        await becomes(controller, 0)
        user = cloud.server.users.all[0]
        user.tokens["a-new-token"] = float("inf")
        (tmp_path / "one_auth").write_text("oneadmin:a-new-token\n")
        assert controller.process is not None
        controller.process.send_signal(signal.SIGHUP)
        with anyio.fail_after(20):
            while "the login to OpenNebula was renewed" not in controller.log:
                await anyio.sleep(0.1)
        user.password = "nobody-has-it"
        before = len(cloud.server.calls)
        with anyio.fail_after(40):
            while len(cloud.server.calls) < before + 6:
                await anyio.sleep(0.2)
        assert all(call.ok for call in cloud.server.calls[before:])
        assert "need_restart=[]" in controller.log or "not taken over" not in (await controller.cli("events"))[1]
        assert "a-new-token" not in controller.log
