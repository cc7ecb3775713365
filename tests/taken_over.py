"""A controller that takes the lead: what the tests of that have in common."""

from __future__ import annotations

from dataclasses import replace

from world import Cloud, seen

from ha_controller.core.effects import Drill, Fence, MoveVm, OrderHost, ReadHost, ResumeVm
from ha_controller.core.events import LeadChanged, OperatorCommanded, RecordTakenOver, Verb
from ha_controller.core.model import HostState

INHERITED = "one led in term 1"


def acted(cloud: Cloud) -> list[object]:
    return [effect for _, effect in cloud.effects if isinstance(effect, Fence | OrderHost | MoveVm | ResumeVm | Drill)]


def left_by(cloud: Cloud, term: int = 2, led_meanwhile: str = INHERITED) -> RecordTakenOver:
    """The record as its leader leaves it."""
    state = cloud.controller.state
    return RecordTakenOver(
        term=term,
        led_meanwhile=led_meanwhile,
        incidents=tuple(state.incidents.values()),
        cloud=state.cloud,
        trusts=tuple(state.trusts.values()),
    )


def goes_on(cloud: Cloud, record: RecordTakenOver, inherited: str = "") -> None:
    """What the leadership reports: first the record, then the lead."""
    begin = len(cloud.effects)
    cloud.feed(record)
    cloud.feed(LeadChanged(term=record.term, inherited=inherited))
    cloud._carry_out(begin)


def followed(cloud: Cloud) -> RecordTakenOver:
    """Its leader dies, and another controller has looked for some seconds."""
    record = left_by(cloud)
    cloud.deaf = set()
    cloud.other_controller()
    cloud.run(10)
    assert not acted(cloud)
    return record


def followed_from_the_start(cloud: Cloud) -> RecordTakenOver:
    """The other controller looks all the time, and leads when the leader has verified the host off."""
    cloud.deaf = {MoveVm}
    ours = cloud.controller
    cloud.kill(3, "off")
    cloud.run(30)
    record = left_by(cloud)
    assert cloud.incident(3).state is HostState.FENCED
    end, cloud.now = cloud.now, cloud.now - 40
    cloud.deaf, cloud.one_states[3] = set(), 2
    del cloud.dead[3]
    cloud.other_controller()
    cloud.run(10)
    cloud.kill(3, "off")
    cloud.run(end - cloud.now)
    assert ours is not cloud.controller
    assert not acted(cloud)
    return record


def commanded(verb: Verb, request: int = 7) -> OperatorCommanded:
    return OperatorCommanded(request=request, verb=verb, who="ann", reason="test", host=3)


def rebooted_under_another_leader(late_s: float = 0.0, *, reads: bool = True) -> tuple[Cloud, RecordTakenOver]:
    """Its record has no incident: that is over when we take over, or was never opened. OpenNebula keeps no boots.

    `late_s`: the OpenNebula that we read is so far behind. `reads`: whether it answers at all.
    """
    cloud = seen(record_is_shared=True)
    record = replace(left_by(cloud), trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    cloud.effects.clear()
    cloud.deaf = set() if reads else {ReadHost}
    cloud.reboot(3)
    cloud.unheard[3] -= late_s
    cloud.run(5)
    return cloud, record


def unanswered_power_off() -> tuple[Cloud, dict[str, int]]:
    """Host 2 is off, and its power-off was ordered without any answer so far; what names that attempt."""
    cloud = Cloud()
    cloud.run(6)
    cloud.kill(2, "off")
    cloud.deaf = {Fence}
    cloud.run(4)
    order = cloud.ordered(Fence)[-1]
    return cloud, {"host": 2, "incident": order.incident, "attempt": order.attempt}
