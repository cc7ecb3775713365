"""`ha-controller serve` as a process of its own against the embedded cloud: commands, signals, secrets, kill -9."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.oned_model import Timings

FAST = Timings(ssh_timeout_s=0.5, boot_s=0.2)
LAUNCH = (
    "import sys; from ha_controller.sim import echo; from ha_controller.app import loading; "
    "find = loading.find_plugins; loading.find_plugins = lambda **how: find(extra_modules=[echo], **how); "
    "from ha_controller.cli import main; main()"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}


class Served:
    """A controller process and its command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: anyio.abc.Process | None = None

    async def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = await anyio.open_process(
            [sys.executable, "-c", LAUNCH, "serve", "-c", str(self.folder / "config.toml")],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=ENVIRONMENT,
        )  # fmt: skip
        log.close()

    async def cli(self, *words: str) -> tuple[int, str]:
        done = await anyio.run_process(
            [sys.executable, "-m", "ha_controller.cli", "--socket", str(self.folder / "socket"), *words],
            check=False, env=ENVIRONMENT,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).decode()

    async def ready(self) -> None:
        with anyio.fail_after(30):
            while not (self.folder / "socket").exists() or (await self.cli("status"))[0] == 7:
                await anyio.sleep(0.2)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        with anyio.fail_after(20):
            return await self.process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@asynccontextmanager
async def served(
    folder: Path, *, prepare: Callable[[EmbeddedCloud], object] = lambda _: None, **edits: str
) -> AsyncIterator[tuple[Served, EmbeddedCloud]]:
    folder.mkdir(exist_ok=True)
    async with EmbeddedCloud(hosts=4, vms_per_host=2, timings=FAST) as cloud:
        prepare(cloud)
        demo_config(folder, cloud)
        path = folder / "config.toml"
        text = path.read_text()
        for old, new in edits.items():
            text = text.replace(old, new)
        path.write_text(text)
        controller = Served(folder)
        await controller.start()
        try:
            yield controller, cloud
        finally:
            if controller.process is not None and controller.process.returncode is None:
                await controller.kill()


async def test_the_commands_show_a_well_cloud_and_sigterm_ends_cleanly(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        with anyio.fail_after(20):
            while (found := await controller.cli("status"))[0] != 0:
                await anyio.sleep(0.2)
        assert "All hosts are well" in found[1]
        code, text = await controller.cli("hosts", "-o", "json")
        assert (code, {host["state"] for host in json.loads(text)}) == (0, {"ok"})
        assert "is OK for" in (await controller.cli("explain", "kvm-02"))[1]
        assert (await controller.cli("explain", "nobody"))[0] == 3
        assert (await controller.cli("confirm-off", "kvm-02", "--yes"))[0] == 3
        assert (await controller.cli("pending", "list"))[0] == 0
        told = (await controller.cli("doctor"))[1]
        assert "in the group" not in told
        assert "hosts: 4 are seen in OpenNebula and in scope" in told
        assert "VMs: 8 of 8 would be recovered" in told
        assert "MiB free for" in told
        code, text = await controller.cli("vms", "kvm-0*", "-o", "name")
        assert (code, sorted(map(int, text.split()))) == (0, sorted(cloud.oned.vms))
        assert (await controller.cli("pause", "--reason", "test"))[0] == 0
        assert (await controller.cli("status"))[0] == 4
        assert (await controller.cli("resume"))[0] == 0
        assert "orders pause" in (await controller.cli("events"))[1]
        acts = json.loads((await controller.cli("audit", "list", "-o", "json"))[1])
        assert [(act["what"], act["host"], act["code"]) for act in acts] == [
            ("start", None, 0), ("confirm-off", "kvm-02", 3), ("pause", None, 0), ("resume", None, 0)
        ]  # fmt: skip
        assert {act["origin"] for act in acts[1:]} == {f"local socket, uid {os.getuid()}"}
        code, text = await controller.cli("audit", "verify")
        assert (code, "are as they were written" in text) == (0, True)
        (tmp_path / "trail").write_text((await controller.cli("audit", "export"))[1])
        assert (await controller.cli("audit", "verify", str(tmp_path / "trail")))[0] == 0
        assert "trail: the newest" in (await controller.cli("doctor"))[1]
        assert await controller.stop() == 0
        assert (await controller.cli("status"))[0] == 7
        secrets = (cloud.bmc_password, cloud.session)
        assert not any(secret in controller.log for secret in secrets)


async def test_secrets_stand_in_no_answer_and_no_process_list(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        shown = "".join(
            [(await controller.cli(*words))[1] for words in (["status", "-o", "json"], ["hosts", "-o", "json"],
             ["explain", "kvm-01", "-o", "json"], ["events", "-o", "json"], ["doctor"], ["incidents", "-o", "json"])]
        )  # fmt: skip
        assert controller.process is not None
        shown += Path(f"/proc/{controller.process.pid}/cmdline").read_text()
        for secret in (cloud.bmc_password, cloud.session, cloud.session.split(":")[1]):
            assert secret not in shown
            assert secret not in controller.log


async def test_a_bad_configuration_at_sighup_keeps_the_old_one(tmp_path: Path):
    async with served(tmp_path) as (controller, _):
        await controller.ready()
        path = tmp_path / "config.toml"
        good = path.read_text()
        path.write_text(good.replace('mode = "auto"', 'mode = "atuo"'))
        assert controller.process is not None
        controller.process.send_signal(signal.SIGHUP)
        with anyio.fail_after(10):
            while "the old one stays in force" not in controller.log:
                await anyio.sleep(0.1)
        assert "mode auto" in (await controller.cli("status"))[1]
        assert await reload_success(tmp_path) == "0"
        path.write_text(good.replace('mode = "auto"', 'mode = "observe"'))
        controller.process.send_signal(signal.SIGHUP)
        with anyio.fail_after(10):
            while "mode observe" not in (await controller.cli("status"))[1]:
                await anyio.sleep(0.1)
        with anyio.fail_after(10):
            while await reload_success(tmp_path) != "1":  # scrapes that soon follow each other get the same text
                await anyio.sleep(0.1)


async def reload_success(folder: Path) -> str:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(folder / "socket"))) as session,
        session.get("http://controller/metrics") as answer,
    ):
        found = re.search(r"^ha_controller_config_last_reload_success (\d)\.0$", await answer.text(), re.MULTILINE)
        assert found is not None
        return found[1]


async def test_a_second_controller_on_the_same_state_is_refused(tmp_path: Path):
    async with served(tmp_path) as (controller, _):
        await controller.ready()
        done = await anyio.run_process(
            [sys.executable, "-c", LAUNCH, "serve", "-c", str(tmp_path / "config.toml")], check=False, env=ENVIRONMENT
        )
        assert done.returncode == 1
        assert b"cannot run" in done.stderr
        assert b"Traceback" not in done.stderr


async def test_an_opennebula_that_is_not_there_is_told_and_nothing_is_done(tmp_path: Path):
    async with served(tmp_path, endpoint="endpoint") as (controller, cloud):
        cloud.server.close()
        await controller.ready()
        code, text = await controller.cli("status")
        assert code in (1, 4)
        assert re.search(r"Check that oned runs, and opennebula.endpoint \S+ \(\S*config.toml:\d+\)", text)
        assert "Traceback" not in controller.log


async def test_a_refused_login_is_told_with_its_remedy_and_no_secret(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        cloud.server.users.all[0].password = "changed-meanwhile"
        await controller.ready()
        with anyio.fail_after(20):
            while "refuses our login" not in (found := await controller.cli("status"))[1]:
                await anyio.sleep(0.3)
        assert found[0] in (1, 4)
        assert re.search(r"Check opennebula.auth \(\S*config.toml:\d+\)", found[1])
        assert "Traceback" not in controller.log
        assert cloud.session.split(":")[1] not in controller.log + found[1]


async def test_auto_does_nothing_beside_an_active_failure_hook(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        cloud.server.hooks[0] = {
            "NAME": "host_error", "TYPE": "state", "RESOURCE": "HOST", "STATE": "ERROR", "COMMAND": "ft/host_error.rb"
        }  # fmt: skip
        await controller.ready()
        cloud.break_host(2, "power-loss")
        with anyio.fail_after(40):
            while (found := await controller.cli("status"))[0] != 4:
                await anyio.sleep(0.3)
        assert "second master" in found[1]
        assert "onehook delete 0" in found[1]
        assert not [line for line in cloud.hardware.log if line.what == "ordered off"]


# --- kill -9 ----------------------------------------------------------------------------------------------------------

KILLS_EACH, RUNS, AT_ONCE = 2, 10, 5


async def _survive(folder: Path, seed: int) -> str:
    """One failure during which the controller is killed twice; returns what went wrong."""
    dice = random.Random(seed)
    async with served(folder) as (controller, cloud):
        await controller.ready()
        await anyio.sleep(4)
        cloud.break_host(2, "power-loss")
        for _ in range(KILLS_EACH):
            await anyio.sleep(dice.uniform(0.5, 9.0))
            await controller.kill()
            await controller.start()
        with anyio.move_on_after(90) as limit:
            while True:
                code, text = await controller.cli("hosts", "-o", "json")
                rows = json.loads(text) if code == 0 else []
                if any(row["id"] == 2 and row["state"] == "recovered" for row in rows):
                    break
                await anyio.sleep(0.5)
        if limit.cancelled_caught:
            return f"seed {seed}: not recovered. {(await controller.cli('status'))[1]}"
        moves = Counter(call.arguments[0] for call in cloud.server.calls if call.method == "one.vm.migrate" and call.ok)
        orders = sum(line.what == "ordered off" for line in cloud.hardware.log)
        problems = cloud.check(vms_must_wait=False)
        if max(moves.values()) > 1:
            problems.append(f"moved twice: {moves}")
        if orders > 1 + KILLS_EACH:
            problems.append(f"ordered off {orders} times")
        if "Traceback" in controller.log:
            problems.append("a traceback in the log")
        return f"seed {seed}: {problems}" if problems else ""


@pytest.mark.slow
async def test_kill_9_at_twenty_random_moments_ends_the_same_way(tmp_path: Path):
    failures: list[str] = []
    gate = anyio.Semaphore(AT_ONCE)

    async def one(seed: int) -> None:
        async with gate:
            if failure := await _survive(tmp_path / str(seed), seed):
                failures.append(failure)

    async with anyio.create_task_group() as group:
        for seed in range(RUNS):
            group.start_soon(one, seed)
    assert failures == []
