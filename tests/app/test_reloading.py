"""What a running controller takes over of a changed configuration, and what waits for a restart."""

from __future__ import annotations

from typing import Any

import pytest

from ha_controller.adapters.plugins import Registry, find_plugins
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
    ],
)
def test_what_sockets_and_probes_were_built_from_waits_for_a_restart(
    registry: Registry, tables: dict[str, Any], waits: set[str]
):
    assert waiting(registry, configured(), configured(**tables)) == waits


def test_fence_devices_of_a_kind_that_was_installed_meanwhile_wait_and_those_in_force_stay(registry: Registry):
    before = configured()
    after = configured(fence=[{"name": "new", "agent": "installed-meanwhile"}], mode="approve")
    taken = as_taken_over(Runtime(before, registry), after)
    assert (taken.fence, taken.mode) == ((), "approve")
    assert "fence.0.agent" in {each.name for each in differences(taken, after)}
