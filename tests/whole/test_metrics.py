"""A real Prometheus scrapes a running controller: an alert fires when a host is off, and ends when it is given back."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from ha_controller.sim.hardware import Fault
from tests.whole.test_serve import Served, served

#: what the failover of a host with two VMs comes to
COUNTED = {
    'sum(ha_controller_fences_total{result="off_read"})': 1,
    'sum(ha_controller_fence_attempts_total{agent="ipmi",result="off_read"})': 1,
    'sum(ha_controller_vm_outcomes_total{outcome="running"})': 2,
    "sum(ha_controller_vm_downtime_seconds_count)": 2,
    "count(ha_controller_incident_phase_seconds_count == 1)": 4,
    'sum(ha_controller_host_orders_total{step="disable",result="accepted"})': 1,
    'sum(ha_controller_oned_requests_total{method="one.vm.migrate",result="ok"})': 2,
    "sum(ha_controller_channel_up) > bool 0": 1,
    "sum(ha_controller_journal_commit_duration_seconds_count) > bool 5": 1,
    "sum(ha_controller_loop_lag_seconds_count) > bool 100": 1,
    "sum(ha_controller_counting_faults_total)": 0,
    "sum(ha_controller_oned_events_connected)": 1,
    'sum(ha_controller_oned_events_total{object="vm"}) > bool 2': 1,
}
RULES = Path(__file__).parents[2] / "packaging/prometheus/rules.yml"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def get(port: int, path: str) -> Any:
    def read() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read()

    return await asyncio.to_thread(read)


@asynccontextmanager
async def prometheus(program: str, folder: Path, target: int) -> AsyncIterator[int]:
    port, config = free_port(), folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES}]\n"
        f"scrape_configs: [{{job_name: ha-controller, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    process = await anyio.open_process([*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"])
    try:
        yield port
    finally:
        process.kill()
        await process.aclose()


async def until(port: int, path: str, holds: Callable[[Any], bool]) -> None:
    last: Any = None
    try:
        with anyio.fail_after(40):
            while True:
                await anyio.sleep(0.3)
                try:
                    last = json.loads(await get(port, path))["data"]
                except OSError:
                    continue  # it starts
                if holds(last):
                    return
    except TimeoutError:
        pytest.fail(f"{path} says {last}")


async def until_said(controller: Served, holds: Callable[[int, str], bool], *words: str) -> None:
    code, said = -1, ""
    try:
        with anyio.fail_after(60):
            while not holds(code, said):
                code, said = await controller.cli(*words)
                await anyio.sleep(0.5)
    except TimeoutError:
        pytest.fail(f"{words} says {code} {said}")


def is_value(value: float, data: Any) -> bool:
    return [float(row["value"][1]) for row in data["result"]] == [value]


def firing(data: Any) -> set[str]:
    return {alert["labels"]["alertname"] for alert in data["alerts"] if alert["state"] == "firing"}


@pytest.mark.peer
@pytest.mark.slow
async def test_an_alert_fires_and_ends(tmp_path: Path, require_peer: Callable[[str], str]) -> None:
    program, door = require_peer("prometheus"), free_port()
    published = f"tcp://127.0.0.1:{free_port()}"
    edits = {
        "[api]\n": f"[api]\nmetrics_port = {door}\n",
        "[opennebula]\n": f'[opennebula]\nevents = "{published}"\n',
    }

    async with (
        served(tmp_path, prepare=lambda cloud: cloud.publish(published), **edits) as (controller, cloud),
        prometheus(program, tmp_path, door) as port,
    ):
        await controller.ready()
        await until(port, "/api/v1/query?query=up", lambda data: [row["value"][1] for row in data["result"]] == ["1"])
        assert (await get(door, "/leader")) == b'{"leads": true}'
        cloud.hardware.break_machine(2, Fault.POWER_LOSS)
        off = "HaControllerHostPoweredOff"
        await until(port, "/api/v1/alerts", lambda data: off in firing(data))
        found = json.loads(await get(port, "/api/v1/alerts"))["data"]["alerts"]
        assert {alert["labels"]["host"] for alert in found if alert["labels"]["alertname"] == off} == {"kvm-03"}
        await until_said(controller, lambda code, said: '"recovered"' in said, "hosts", "-o", "json")
        for query, count in COUNTED.items():
            await until(port, f"/api/v1/query?query={quote(query)}", partial(is_value, count))
        page = await get(door, "/metrics")
        checked = await anyio.run_process([require_peer("promtool"), "check", "metrics"], input=page, check=False)
        assert (checked.returncode, checked.stderr) == (0, b"")
        cloud.hardware.power(2, True)
        await until_said(controller, lambda code, said: code == 0, "unfence", "kvm-03", "--yes", "--reason", "repaired")
        await until(port, "/api/v1/alerts", lambda data: off not in firing(data))
