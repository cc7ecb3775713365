"""What a running controller takes over of a changed configuration, and what waits for a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from ha_controller.adapters.journal import Entry, Journal
from ha_controller.adapters.plugins import Registry, find_plugins
from ha_controller.app import reloading
from ha_controller.app.audit import REFUSALS_PER_MINUTE
from ha_controller.app.ledger import Ledger
from ha_controller.app.reloading import as_taken_over
from ha_controller.app.runtime import Runtime
from ha_controller.config import Config, differences


@pytest.fixture(scope="module")
def registry() -> Registry:
    return find_plugins(only={"builtin_channels", "builtin_arbiters"})


def configured(**tables: Any) -> Config:
    return Config.model_validate({"opennebula": {"auth": "a:b"}, **tables})


def waiting(registry: Registry, before: Config, after: Config) -> set[str]:
    taken = as_taken_over(Runtime(before, registry), after)
    return {each.name for each in differences(taken, after)}


@pytest.mark.parametrize(
    ("tables", "waits"),
    [
        ({"mode": "approve"}, set()),
        ({"detect": {"fail_after": "20s"}}, set()),
        ({"guard": {"settle": "50s"}, "recover": {"parallel": 9}, "drill": {"every": "90d"}}, set()),
        ({"detect": {"interval": "2s", "fail_after": "20s"}}, {"detect.interval"}),
        ({"guard": {"self_check": ["192.0.2.1"], "settle": "50s"}}, {"guard.self_check"}),
        ({"opennebula": {"auth": "a:c"}}, set()),
        ({"opennebula": {"auth": "a:c", "timeout": "3s"}}, {"opennebula.timeout"}),
        ({"log": {"level": "debug"}, "mode": "approve"}, {"log.level"}),
        ({"guard": {"self_check": ["192.0.2.1"]}, "mode": "auto"}, {"guard.self_check", "mode"}),
    ],
)
def test_what_sockets_and_probes_were_built_from_waits_for_a_restart(
    registry: Registry, tables: dict[str, Any], waits: set[str]
):
    assert waiting(registry, configured(), configured(**tables)) == waits


def test_a_controller_that_was_to_have_witnesses_does_not_act_without_them_and_stops_acting_at_once(registry: Registry):
    """A reload from `observe` took over the mode, and left the witnesses to a restart: nobody asked who is cut off."""
    armed = configured(mode="auto", guard={"self_check": ["192.0.2.1"]})
    assert as_taken_over(Runtime(configured(), registry), armed).mode == "observe"
    assert as_taken_over(Runtime(configured(mode="approve"), registry), armed).mode == "approve"
    assert as_taken_over(Runtime(armed, registry), armed).mode == "auto"
    calm = configured(mode="observe", guard={"self_check": ["192.0.2.1"]})
    assert as_taken_over(Runtime(configured(mode="auto"), registry), calm).mode == "observe"


def test_fence_devices_of_a_kind_that_was_installed_meanwhile_wait_and_those_in_force_stay(registry: Registry):
    before = configured()
    after = configured(fence=[{"name": "new", "agent": "installed-meanwhile"}], mode="approve")
    taken = as_taken_over(Runtime(before, registry), after)
    assert (taken.fence, taken.mode) == ((), "approve")
    assert "fence.0.agent" in {each.name for each in differences(taken, after)}


def running(registry: Registry, ledger: Ledger, new: Config, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime whose file says `new` by now."""
    runtime = Runtime(configured(), registry)
    runtime.config_path, runtime.ledger = Path("config.toml"), ledger
    monkeypatch.setattr(reloading, "load_config", lambda path: (new, registry))
    return runtime


async def test_what_cannot_be_put_on_record_in_time_is_not_taken_over_and_a_hung_disk_holds_nobody(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Hung(Ledger):
        async def note(self, entry: Entry) -> None:
            await anyio.sleep_forever()

    journal = Journal.open(tmp_path / "journal.db")
    runtime = running(registry, Hung(journal), configured(mode="auto"), monkeypatch)
    monkeypatch.setattr(reloading, "NOTE_MAX_S", 0.05, raising=False)
    with anyio.fail_after(5):
        answer = await runtime.reloader.reload(who="ann", origin="here")
    await journal.close()
    assert (answer["code"], runtime.config.mode) == (1, "observe")
    assert "could not be put on record" in answer["text"]


async def test_a_kind_of_fence_device_that_was_installed_and_not_named_at_the_start_needs_no_restart(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = Journal.open(tmp_path / "journal.db")
    new = configured(fence=[{"name": "door", "agent": "manual"}])
    runtime = running(find_plugins(only=set()), Ledger(journal), new, monkeypatch)
    found = find_plugins(only={"manual"})
    monkeypatch.setattr(reloading, "load_config", lambda path: (new, found))
    answer = await runtime.reloader.reload(who="ann", origin="here")
    await journal.close()
    assert (answer["code"], [device.name for device in runtime.config.fence]) == (0, ["door"])
    assert "manual" in runtime.armory.agents


async def test_a_reload_that_leaves_something_to_a_restart_is_no_refusal_and_is_on_record_in_a_flood_of_them(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = Journal.open(tmp_path / "journal.db")
    new = configured(mode="auto", log={"level": "debug"})
    runtime = running(registry, Ledger(journal), new, monkeypatch)
    for _ in range(REFUSALS_PER_MINUTE + 1):
        await runtime.audit.note(who="eve", origin="tcp", what="GET /", code=8, result="no")
    answer = await runtime.reloader.reload(who="ann", origin="here", reason="go live")
    entry = (await journal.entries())[-1]
    await journal.close()
    assert (answer["code"], runtime.config.mode) == (1, "auto")
    assert entry.text.startswith("ann orders reload: go live")
