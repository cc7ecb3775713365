"""When the reserve is computed, and what becomes of what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from ha_controller.adapters.opennebula import NoAnswer
from ha_controller.app.reserve import CHANGES_WAIT_S, ReserveWatch
from ha_controller.core.effects import Fence
from ha_controller.core.events import ReserveAssessed
from ha_controller.core.model import HostState
from tests.world import SETTINGS, Cloud

EVERY_S = 300.0


@pytest.fixture
def watch():
    """A watch of a small cloud; `error` is what the computing raises."""
    cloud = Cloud(hosts=3)
    cloud.run(6)
    it = SimpleNamespace(cloud=cloud, reports=[], error=None)

    async def assess() -> ReserveAssessed:
        if it.error is not None:
            raise it.error
        return ReserveAssessed(asked_at=cloud.now)

    it.watch = ReserveWatch(
        state=cloud.controller.state,
        every_s=lambda: EVERY_S,
        assess=assess,
        report=it.reports.append,
        clock=lambda: cloud.now,
    )
    return it


async def later(it, seconds: float) -> int:
    it.cloud.now += seconds
    await it.watch.look()
    return len(it.reports)


async def test_it_is_computed_again_when_its_time_has_come(watch):
    assert await later(watch, 0) == 1
    assert await later(watch, EVERY_S - 1) == 1
    assert await later(watch, 1) == 2


async def test_it_is_computed_earlier_after_a_change_but_not_at_each(watch):
    assert await later(watch, 0) == 1
    watch.cloud.vms[0] = replace(watch.cloud.vms[0], host=1)
    watch.cloud.inventory()
    assert await later(watch, CHANGES_WAIT_S - 1) == 1
    assert await later(watch, 1) == 2
    assert await later(watch, CHANGES_WAIT_S) == 2


async def test_it_is_not_computed_while_a_host_is_being_handled(watch):
    watch.cloud.deaf.add(Fence)
    watch.cloud.kill(0, "off")
    watch.cloud.run(20)
    assert watch.cloud.state(0) is HostState.FAILED
    assert await later(watch, EVERY_S) == 0


async def test_it_is_not_computed_right_after_a_host_fell_silent(watch):
    watch.cloud.kill(0, "mute")
    watch.cloud.run(5)
    assert watch.cloud.state(0) is HostState.SUSPECT
    assert await later(watch, 0) == 0
    watch.cloud.run(CHANGES_WAIT_S)
    assert watch.cloud.state(0) is HostState.SUSPECT  # one of three hosts: the storm guard holds it
    assert await later(watch, 0) == 1


async def test_it_is_not_computed_if_nobody_wants_a_reserve(watch):
    watch.cloud.reconfigure(replace(SETTINGS, reserve_hosts=0))
    assert await later(watch, EVERY_S) == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "it took too long"),
        (NoAnswer("one.vmpool.infoset", "no complete answer"), "OpenNebula does not tell its VMs"),
        (ZeroDivisionError(), "an error of ours"),
    ],
)
async def test_what_goes_wrong_is_reported_and_tried_again(watch, error, words):
    watch.error = error
    assert await later(watch, 0) == 1
    assert words in watch.reports[0].failure
    watch.error = None
    assert await later(watch, EVERY_S) == 2
    assert watch.reports[1].failure == ""
