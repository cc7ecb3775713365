"""An incident of a controller process is exported while it runs, and replayed when it is gone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from tests.whole.test_serve import ENVIRONMENT, LAUNCH, Served, served


async def _recovered(controller: Served, host: int) -> None:
    with anyio.fail_after(60):
        while True:
            code, text = await controller.cli("hosts", "-o", "json")
            if code == 0 and any(row["id"] == host and row["state"] == "recovered" for row in json.loads(text)):
                return
            await anyio.sleep(0.3)


async def test_an_incident_is_exported_and_replayed_with_the_same_and_with_another_configuration(tmp_path: Path):
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        with anyio.fail_after(20):
            while (await controller.cli("status"))[0] != 0:
                await anyio.sleep(0.2)
            while "4 of 4 devices ready" not in (await controller.cli("fencing", "status"))[1]:
                await anyio.sleep(0.2)  # one that was never read on proves no off
        cloud.break_host(2, "power-loss")
        await _recovered(controller, 2)
        code, text = await controller.cli("incidents", "export", "1")
        assert code == 0
        record = tmp_path / "incident-1.jsonl"
        record.write_text(text)
        assert not any(secret in text for secret in (cloud.bmc_password, cloud.session, cloud.session.split(":")[1]))
        code, text = await controller.cli("simulate", "replay", "1")
        assert (code, "everything is decided as it was" in text) == (0, True), text
        assert (await controller.cli("incidents", "export", "2"))[0] == 3
        assert await controller.stop() == 0
        kept = list(tmp_path.rglob("flight-*.jsonl.gz"))
        assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]

        code, text = await controller.cli("simulate", "replay", str(record), "-o", "json")
        found = json.loads(text)
        assert (code, found["same"], found["incidents"]) == (0, True, [1])
        name = cloud.hosts[2].name
        (host,) = [each for each in found["hosts"] if each["host"] == name]
        assert host["then"]["ordered_off"]
        assert host["now"]["ordered_off"]

        other = tmp_path / "other.toml"
        other.write_text((tmp_path / "config.toml").read_text().replace('mode = "auto"', 'mode = "observe"'))
        words = ["simulate", "replay", str(record), "--config", str(other)]
        code, text = await controller.cli(*words)
        assert (code, "echo" in text) == (78, True)  # of the embedded cloud only
        done = await anyio.run_process([sys.executable, "-c", LAUNCH, *words], check=False, env=ENVIRONMENT)
        text = done.stdout.decode()
        assert done.returncode == 0, done.stderr
        assert f"other orders are given about: {name}" in text
        assert "mode: auto then, observe now" in text
        assert "would power it off now" in text
        assert f"From here on the record cannot tell about {name}" in text
