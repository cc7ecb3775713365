"""A small part of each campaign, so that it cannot rot; the whole is `make campaign`."""

from __future__ import annotations

from campaigns.healthy import REPAIRED_AFTER_S, Years, campaign
from ha_controller.core.detector import Verdict, VerdictKind, judge
from ha_controller.core.model import HostState


def test_no_healthy_host_is_condemned_and_the_dead_are_fenced():
    tally = campaign(host_hours=250.0, first_seed=1, hosts=50, processes=1)
    assert tally.condemned == []
    assert tally.late == []
    assert tally.untold == []
    assert tally.delivered["lost packets"] > 20_000
    assert tally.delivered["stalls of 500 ms"] > 5
    assert tally.fenced >= 1


def test_a_controller_that_shoots_too_early_is_caught(monkeypatch):
    """A planted bug: one missed probe in one channel is enough, and nobody looks whether another one answers."""
    monkeypatch.setattr("ha_controller.core.suspicion.suspicious", _missed)
    monkeypatch.setattr("ha_controller.core.suspicion.judge", _condemn)
    monkeypatch.setattr("ha_controller.core.guard.alive_channels", lambda views, settings, now: [])
    cloud = Years.of(seed=1, hosts=20)
    for _ in range(60):
        cloud._second()
    assert cloud.tally.condemned


def test_a_controller_that_never_acts_is_caught(monkeypatch):
    """Another one: nothing is ever condemned."""
    monkeypatch.setattr("ha_controller.core.settings.Settings.condemns", lambda self, verdict: False)
    cloud = Years.of(seed=1, hosts=20)
    cloud.kill(3, "on")
    cloud.dying[3] = cloud.now
    for _ in range(round(REPAIRED_AFTER_S) + 1):
        if 3 not in cloud.dying:
            break
        cloud._second()
    assert cloud.tally.late
    assert cloud.state(3) is not HostState.FENCED


def _missed(views, settings):
    return any(view.misses for view in views.values())


def _condemn(views, settings, now, *, off_counts, vms):
    if _missed(views, settings):
        return Verdict(kind=VerdictKind.DEAD, reason="planted")
    return judge(views, settings, now, off_counts=off_counts)
