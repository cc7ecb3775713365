"""A small part of each campaign, so that it cannot rot, and planted mistakes that it must catch.

The whole is `make campaign`. Mistakes are planted before the campaign starts its processes: they take them along.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from campaigns import healthy
from campaigns.healthy import Tally, campaign
from ha_controller.core.detector import Verdict, VerdictKind, judge
from ha_controller.core.settings import POLICIES, Policy


def test_no_healthy_host_is_condemned_and_the_dead_are_fenced():
    tally = campaign(host_hours=250.0, first_seed=1, hosts=50, processes=1)
    assert tally.failures() == []
    assert tally.late == []
    assert tally.delivered["lost packets"] > 20_000
    assert tally.delivered["stalls of 500 ms"] > 5
    assert tally.fenced >= 1


@pytest.fixture
def troubled(monkeypatch):
    """More troubles than a small campaign would have: every kind comes, and none changes."""
    for name in ("OUTAGE_EVERY_S", "HOST_OUTAGE_EVERY_S", "DEATH_EVERY_S"):
        monkeypatch.setattr(healthy, name, getattr(healthy, name) / 10)


def _small() -> Tally:
    return campaign(host_hours=100.0, first_seed=1, hosts=40, processes=1)


@pytest.mark.usefixtures("troubled")
def test_the_core_as_it_is_passes_the_small_campaign_that_catches_the_planted_mistakes():
    tally = _small()
    assert tally.failures() == []
    assert tally.fenced
    assert tally.held


@pytest.mark.usefixtures("troubled")
def test_a_controller_that_shoots_at_one_silent_channel_is_caught(monkeypatch):
    """One missed probe in one channel is enough, and nobody looks whether another one answers."""
    monkeypatch.setattr("ha_controller.core.suspicion.suspicious", _missed)
    monkeypatch.setattr("ha_controller.core.suspicion.judge", _condemn)
    monkeypatch.setattr("ha_controller.core.guard.alive_channels", lambda views, settings, now: [])
    tally = _small()
    assert tally.condemned
    assert "is alive and ordered off" in tally.failures()[0]


@pytest.mark.usefixtures("troubled")
def test_a_controller_that_shoots_what_only_it_cannot_reach_is_caught(monkeypatch):
    """No line of code is wrong here: the policy is, which takes a host for dead that its neighbours see alive."""
    policies = {**POLICIES, VerdictKind.ISOLATED: Policy.FENCE}
    monkeypatch.setattr(healthy, "SETTINGS", replace(healthy.SETTINGS, policies=policies))
    assert _small().condemned


@pytest.mark.usefixtures("troubled")
def test_a_controller_that_never_acts_is_caught(monkeypatch):
    monkeypatch.setattr("ha_controller.core.settings.Settings.condemns", lambda self, verdict: False)
    tally = _small()
    assert tally.condemned == []
    assert any("was never fenced" in line for line in tally.failures())


@pytest.mark.usefixtures("troubled")
def test_a_controller_that_acts_too_late_is_caught(monkeypatch):
    late = replace(healthy.SETTINGS, fail_after_s=60.0, misses=100)
    monkeypatch.setattr(healthy, "SETTINGS", late)
    assert "was fenced after" in _small().failures()[0]


def test_a_campaign_in_which_hardly_a_host_dies_says_nothing_and_fails():
    assert Tally(host_hours=1_000_000.0, fenced=999, delivered=healthy.Counter({healthy.DEATH: 999})).failures()
    assert not Tally(host_hours=1_000_000.0, fenced=1000, delivered=healthy.Counter({healthy.DEATH: 1000})).failures()


def _missed(views, settings):
    return any(view.misses for view in views.values())


def _condemn(views, settings, now, *, off_counts, vms):
    if _missed(views, settings):
        return Verdict(kind=VerdictKind.DEAD, reason="planted")
    return judge(views, settings, now, off_counts=off_counts, vms=vms)


def test_the_planner_places_more_than_the_simple_way_and_the_large_cloud_takes_no_two_seconds():
    from campaigns import placement

    gap = placement.small(60, hosts=4, vms=6, load=0.8, special=False)
    assert gap.simply < gap.placed == gap.best
    row = next(iter(placement.large(1)))
    assert row.placed == row.vms == 2000
    assert row.took_s < 2.0
