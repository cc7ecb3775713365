"""A host that rebooted by itself: what the tests of that have in common."""

from __future__ import annotations

from world import Cloud, say

from ha_controller.core.effects import ResumeVm
from ha_controller.core.model import Signal


def started(cloud: Cloud) -> set[int]:
    return {order.vm for order in cloud.ordered(ResumeVm) if isinstance(order, ResumeVm)}


def die(cloud: Cloud, power: str = "off") -> None:
    cloud.kill(3, power)
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)


def come_back(cloud: Cloud) -> None:
    del cloud.dead[3]
    say(cloud, 3, neighbours=Signal.ALIVE, heartbeat=Signal.ALIVE)
