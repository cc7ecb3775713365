"""Other masters: failure hooks of OpenNebula and other controllers, seen through an embedded oned."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from ha_controller.adapters.opennebula import Client
from ha_controller.app.surroundings import HEARTBEAT, QUIET_LOOKS_MIN, SecondMaster
from ha_controller.sim.cloud import EmbeddedCloud


@pytest.fixture
async def cloud():
    async with EmbeddedCloud(hosts=3, vms_per_host=1) as cloud:
        yield cloud


@pytest.fixture
async def watch(cloud):
    async with Client(cloud.endpoint, SecretStr(cloud.session), timeout_s=5.0) as client:
        yield SecondMaster(client=client, instance="mine", acts=lambda: True, report=lambda event: None)


def beat(cloud: EmbeddedCloud, text: str) -> None:
    cloud.server.users.all[0].template[HEARTBEAT] = text


async def test_without_anybody_else_our_own_heartbeat_is_written(cloud, watch):
    await watch.look()
    assert watch.last.present is False
    assert cloud.server.users.all[0].template[HEARTBEAT] == "mine 1"
    await watch.look()
    assert watch.last.present is False


async def test_a_rival_whose_counter_moves_is_a_second_master_and_is_not_written_over(cloud, watch):
    for count in range(5):
        beat(cloud, f"other {count}")
        await watch.look()
    assert watch.last.present is True
    assert cloud.server.users.all[0].template[HEARTBEAT] == "other 4"


async def test_every_silent_predecessor_is_watched_for_the_whole_time(cloud, watch):
    """The second one is not passed sooner because the first one was waited for already."""
    for name in ("first", "second"):
        beat(cloud, f"{name} 7")
        looks = 0
        while watch.last.present is not False or looks == 0:
            await watch.look()
            looks += 1
        assert looks == QUIET_LOOKS_MIN + 1


async def test_a_failure_hook_is_a_second_master_with_its_remedy(cloud, watch):
    cloud.server.hooks[0] = {
        "NAME": "host_error",
        "TYPE": "state",
        "COMMAND": "ft/host_error.rb",
        "RESOURCE": "HOST",
        "STATE": "ERROR",
    }
    await watch.look()
    assert watch.last.present is True
    assert "onehook delete 0" in watch.last.detail


async def test_a_user_who_sees_no_hooks_cannot_exclude_them(cloud, watch):
    cloud.server.users.all[0].admin = False
    await watch.look()
    assert watch.last.present is None
    assert 'guard.second_master = "none"' in watch.last.detail


async def test_an_oned_that_is_gone_leaves_it_open(cloud, watch):
    cloud.server.close()
    await watch.look()
    assert watch.last.present is None
