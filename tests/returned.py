"""A host that was powered off and comes back: what the tests of its way back have in common."""

from __future__ import annotations

from dataclasses import replace

from world import SETTINGS, Cloud, say

from ha_controller.core import rejoin
from ha_controller.core.effects import (
    Answer,
    HostStep,
    OrderHost,
)
from ha_controller.core.events import Verb
from ha_controller.core.model import HostState, Signal

ASKED = {"hosts_asked": True}


def away(cloud: Cloud) -> Cloud:
    """Host 3 died, was powered off, and its VMs run elsewhere."""
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED
    return cloud


def shows(cloud: Cloud, signal: Signal) -> None:
    if cloud.elsewhere:
        say(cloud, 3, neighbours=signal, heartbeat=signal)


def back(cloud: Cloud, *, seconds: float = 14, boot: str = "second-3") -> Cloud:
    """It answers again, after another boot."""
    del cloud.dead[3]
    shows(cloud, Signal.ALIVE)
    if cloud.boots:
        cloud.boots[3] = boot
    cloud.run(seconds)
    return cloud


def made(**changes: object) -> Cloud:
    cloud = Cloud(settings=replace(SETTINGS, **changes))
    cloud.run(6)
    return cloud


def conditions(cloud: Cloud) -> dict[str, rejoin.Condition]:
    state = cloud.controller.state
    return {each.name: each for each in rejoin.gate(state, state.incidents[3], cloud.now)}


def failing(cloud: Cloud) -> list[str]:
    return [name for name, each in conditions(cloud).items() if not each.passed]


def unfenced(cloud: Cloud, **flags: bool) -> Answer:
    cloud.operator(Verb.UNFENCE, 3, **flags)
    return cloud.ordered(Answer)[-1]  # type: ignore[return-value]


def restored(cloud: Cloud) -> bool:
    return any(order.step is HostStep.RESTORE for order in cloud.ordered(OrderHost))  # type: ignore[union-attr]


def change(cloud: Cloud, **fields: object) -> None:
    """The record of the incident is another one."""
    state = cloud.controller.state
    state.incidents[3] = replace(state.incidents[3], **fields)
