"""What stands behind other checks, so that no story ever reaches it alone: each barrier is asked by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from taken_over import unanswered_power_off
from world import SETTINGS, Cloud

from ha_controller.core import lever
from ha_controller.core.detector import ChannelView, silence_awaited
from ha_controller.core.effects import Fence, OrderHost
from ha_controller.core.events import FenceAccepted
from ha_controller.core.model import Domain, HostState, Signal
from ha_controller.core.settings import Channel


def test_without_a_proof_nothing_is_fresh_and_no_vm_is_moved(cloud: Cloud):
    cloud.kill(2, "off")
    cloud.deaf = {OrderHost}
    cloud.run(8)
    assert cloud.state(2) is HostState.FENCED
    state, fenced = cloud.controller.state, cloud.incident(2)
    assert not lever.life_stops(state, fenced, cloud.now)
    unproven = replace(fenced, proof=None)
    assert lever.life_stops(state, unproven, cloud.now)
    assert not lever.proof_is_fresh(state, state.hosts[2], unproven, cloud.now)


@pytest.mark.parametrize("order", [("disk-1", "disk-2"), ("disk-2", "disk-1")])
def test_a_host_that_said_on_one_disk_that_it_would_stop_is_awaited_on_the_other(order: tuple[str, str]):
    disks = tuple(Channel(name=name, domain=Domain.STORAGE) for name in order)
    ours = tuple(channel for channel in SETTINGS.channels if channel.domain is Domain.MANAGEMENT)
    views = {channel.name: ChannelView(signal=Signal.SILENT, sent_at=20.0, silent_since=1.0) for channel in ours}
    views["disk-1"] = ChannelView(signal=Signal.SILENT, sent_at=5.0, leaving_since=5.0)
    views["disk-2"] = ChannelView(signal=Signal.SILENT, sent_at=5.0)
    settings = replace(SETTINGS, channels=(*ours, *disks))
    assert silence_awaited(views, settings, 10.0) == ["disk-2 has not looked since"]
    views["disk-2"].sent_at = 11.0
    assert silence_awaited(views, settings, 10.0) == []


def test_a_power_off_that_is_read_back_has_time_for_it():
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceAccepted(**keys))
    cloud.effects.clear()
    cloud.restart()
    cloud.run(4)
    (again,) = cloud.ordered(Fence)
    assert (again.send, again.identity) == (False, None)
    assert again.not_after > cloud.now
