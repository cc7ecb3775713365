"""`reload`, `config` and `explain VM` at a controller that runs: what is in force, what a changed file means for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from ha_controller.app.printed import PRINTED
from ha_controller.sim.cloud import EmbeddedCloud
from tests.cli.pretended import Printed, called
from tests.cli.schemas import faults
from tests.whole.test_serve import served

#: what a controller that runs prints as JSON, held against the schemas; tests/cli has them all
SERVED = (
    "status", "hosts", "explain kvm-01", "explain --vm 0", "vms", "doctor", "leader show", "fencing list",
    "fencing status", "drill schedule", "events", "audit list --all", "audit verify", "notify list", "token list",
    "simulate fail kvm-02", "simulate capacity", "config show", "config diff",
)  # fmt: skip


def _command(line: str) -> str:
    return next(name for name in PRINTED if line == name or line.startswith(f"{name} "))


class Asked:
    """The command line in this process, which is faster, beside the loop on which the embedded OpenNebula answers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._socket, self._monkeypatch = str(folder / "socket"), monkeypatch

    async def __call__(self, *words: str) -> Printed:
        return await anyio.to_thread.run_sync(
            lambda: called("--socket", self._socket, *words, monkeypatch=self._monkeypatch)
        )

    async def out(self, *words: str) -> str:
        return (await self(*words)).out

    async def json(self, *words: str) -> Any:
        return json.loads(await self.out(*words, "-o", "json"))

    async def until(self, wanted: str, *words: str) -> None:
        with anyio.fail_after(20):
            while wanted not in await self.out(*words):
                await anyio.sleep(0.1)


async def test_what_a_changed_file_means_for_a_controller_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ask = Asked(tmp_path, monkeypatch)
    async with served(tmp_path) as (controller, cloud):
        await controller.ready()
        path = tmp_path / "config.toml"
        good = path.read_text()
        await _is_shown(ask, good, cloud, path)
        assert ((await ask("config", "diff")).code, await ask.out("config", "diff")) == (
            0,
            "Nothing differs from what is in force.\n",
        )

        path.write_text(good.replace('mode = "auto"', 'mode = "atuo"'))
        done = await ask("reload")
        assert (done.code, "stays in force" in done.out, "config.toml:1: mode" in done.out) == (78, True, True)
        assert "mode auto" in await ask.out("status")

        path.write_text(good.replace('mode = "auto"', 'mode = "observe"') + '\n[log]\nlevel = "debug"\n')
        changes = {row["name"]: row for row in (await ask.json("config", "diff"))["changes"]}
        assert changes["mode"] == {"name": "mode", "before": "auto", "after": "observe", "needs_restart": False}
        assert changes["log.level"]["needs_restart"]
        assert (await ask("config", "diff")).code == 1
        assert "mode auto" in await ask.out("status"), "to look changes nothing"

        done = await ask("reload", "--reason", "a look first")
        assert (done.code, "Not without a restart: log.level. Then: systemctl restart" in done.out) == (1, True)
        assert 'mode: "auto" -> "observe"' in done.out
        await ask.until("mode observe", "status")
        values = {row["name"]: row["value"] for row in (await ask.json("config", "show"))["values"]}
        assert values["log.level"] == "info", "what waits for a restart is not in force"
        acts = [(act["code"], act["why"]) for act in (await ask.json("audit", "list")) if act["what"] == "reload"]
        assert acts == [(78, ""), (0, "a look first")], "only what was ordered for real is on the audit trail"
        await _is_explained(ask, cloud)
        for line in SERVED:
            assert faults(_command(line), await ask.json(*line.split())) == [], line


async def _is_shown(ask: Asked, good: str, cloud: EmbeddedCloud, path: Path) -> None:
    shown = await ask.json("config", "show")
    values = {row["name"]: row for row in shown["values"]}
    assert shown["path"] == str(path)
    assert values["mode"] == {"name": "mode", "value": "auto", "origin": "config.toml:1"}
    assert values["drill.window"]["origin"] == "default"
    assert values["opennebula.auth"]["value"] == "**********"
    changed = await ask.out("config", "show", "--changed")
    assert "drill.window" not in changed
    assert 'mode = "auto"    # config.toml:1' in changed
    for secret in (cloud.bmc_password, cloud.session, cloud.session.split(":")[1]):
        assert secret not in await ask.out("config", "show") + await ask.out("config", "show", "-o", "json")


async def _is_explained(ask: Asked, cloud: EmbeddedCloud) -> None:
    """A VM by its name and by its number."""
    vm = min(cloud.oned.vms.values(), key=lambda vm: vm.id)
    await ask.until("mode observe: nothing is powered off or moved", "explain", vm.name)  # once its device is checked
    text = await ask.out("explain", vm.name)
    assert f"VM {vm.id} ({vm.name}) is RUNNING on kvm-" in text
    assert "Protected    yes: it would run on kvm-" in text
    assert "But          mode observe: nothing is powered off or moved" in text
    assert "Before       in no incident that is on record" in text
    found = await ask.json("explain", "--vm", str(vm.id))
    assert (found["id"], found["if_host_failed"]["outcome"], found["past"]) == (vm.id, "moved", [])
    assert (await ask("explain", "--vm", "no-such-vm")).code == 3
    done = await ask("explain", "no-such-thing")
    assert (done.code, "no host" in done.err) == (3, True)
