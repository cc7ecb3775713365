"""What was acknowledged before a restart is read back, and not sent again."""

from __future__ import annotations

import pytest
from taken_over import followed, goes_on, unanswered_power_off

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Fence, MoveVm, OrderHost
from ha_controller.core.events import FenceAccepted, FenceReported, FenceResult, LeadChanged
from ha_controller.core.incident import AttemptOutcome
from ha_controller.core.model import Device, HostState


def test_an_acknowledged_power_off_is_read_back_only_when_the_lead_is_held():
    """Found by the simulator: OpenNebula was read before the lead was taken, and nobody may carry such an order out."""
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceAccepted(**keys))
    records = [incident for incident in cloud.incidents.values() if incident.open]
    cloud.controller = Controller(cloud.settings, cloud.now)
    cloud.controller.restore(records, cloud.cloud, cloud.now, cloud.trusts.values())
    cloud.controller.resume(cloud.now)
    cloud.effects.clear()
    cloud.inventory()
    cloud.run(1)
    assert cloud.ordered(Fence) == []
    cloud.feed(LeadChanged(term=2))
    cloud.run(1)
    assert [(again.send, again.term) for again in cloud.ordered(Fence)] == [(False, 2)]


def test_an_acknowledged_power_off_is_not_read_back_by_a_device_with_other_settings():
    """What it reads says nothing of the machine that was ordered off; the new one is ordered for itself."""
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceAccepted(**keys))
    cloud.levels = ((Device(name="bmc", identity_noted=True, fingerprint="another address"),),)
    cloud.deaf = set()
    cloud.restart()
    cloud.run(30)
    assert [again.send for again in cloud.ordered(Fence)] == [True, True]
    first, second = cloud.incident(2).attempts
    assert (first.outcome, first.detail) == (AttemptOutcome.UNVERIFIED, "its device was changed meanwhile")
    assert (second.outcome, second.fingerprints) == (AttemptOutcome.OFF_READ, ("another address",))
    assert cloud.state(2) is HostState.RECOVERED


def test_an_off_that_was_read_by_a_device_whose_settings_changed_since_proves_nothing():
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=cloud.now, detail="off, off"))
    cloud.levels = ((Device(name="bmc", identity_noted=True, fingerprint="another address"),),)
    cloud.inventory()
    cloud.run(20)
    assert cloud.state(2) is HostState.FAILED
    assert not cloud.ordered(OrderHost)
    assert not cloud.ordered(MoveVm)
    attempt = cloud.incident(2).attempts[0]
    assert (attempt.outcome, attempt.detail) == (AttemptOutcome.UNVERIFIED, "its device was changed meanwhile")


@pytest.mark.parametrize("way", ["a restart", "a take-over"])
def test_an_off_that_was_read_before_another_controller_took_over_is_read_anew_twice(way: str):
    """Somebody may have powered the host on meanwhile: that it was off once is no reason to ask for less."""
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=cloud.now, detail="off, off"))
    assert cloud.incident(2).attempts[-1].outcome is AttemptOutcome.OFF_READ
    if way == "a restart":
        cloud.effects.clear()
        cloud.restart()
    else:
        record, cloud.deaf = followed(cloud), {Fence}
        goes_on(cloud, record)
    cloud.run(8)
    (back,) = cloud.ordered(Fence)
    assert (cloud.state(2), back.attempt, back.send) == (HostState.FAILED, keys["attempt"], False)
    assert not cloud.ordered(OrderHost)
    cloud.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=cloud.now, detail="off, off"))
    cloud.run(60)
    assert cloud.state(2) is HostState.RECOVERED
    assert not [each for each in cloud.ordered(Fence) if each.send]


@pytest.mark.parametrize("answer", [FenceResult.UNVERIFIED, FenceResult.REFUSED, None])
def test_a_host_that_was_powered_on_after_it_was_read_off_is_not_shot_again_by_the_next_leader(answer):
    """A person may have repaired it, and it is silent while it boots: only a person knows."""
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=cloud.now, detail="off, off"))
    record, cloud.deaf = followed(cloud), {Fence}
    goes_on(cloud, record)
    cloud.run(8)
    if answer is not None:
        cloud.feed(FenceReported(**keys, result=answer, off_read_at=None, detail="bmc reads ON"))
    cloud.run(200)
    assert cloud.state(2) is HostState.FAILED
    assert "somebody may have powered the host on" in cloud.incident(2).stopped
    assert [each.send for each in cloud.ordered(Fence)] == [False]
    assert not cloud.ordered(MoveVm)


def test_what_was_to_be_read_back_when_the_lead_was_in_doubt_is_read_back_later_and_not_ordered_again():
    cloud, keys = unanswered_power_off()
    cloud.feed(FenceAccepted(**keys))
    cloud.effects.clear()
    cloud.restart()
    cloud.run(4)
    cloud.feed(FenceReported(**keys, result=FenceResult.NOT_SENT, off_read_at=None, detail="we no longer lead"))
    cloud.run(4)
    assert [each.send for each in cloud.ordered(Fence)] == [False, False]
