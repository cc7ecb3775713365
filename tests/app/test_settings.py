"""What the core is told about the channels of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ha_controller.adapters.prober.builtin import ha_controller_probes
from ha_controller.app.settings import core_settings
from ha_controller.config import Config
from ha_controller.core.detector import ChannelView, VerdictKind, judge
from ha_controller.core.model import Domain, Reading, Signal
from ha_controller.core.settings import Settings

PROBES = {probe.kind: probe for probe in ha_controller_probes()}
CHANNELS = ("icmp", "storage", "boot-id", "libvirt", "kdump")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    login: dict[str, Any] = {"username": "x", "key_file": str(tmp_path / "gone"), "known_hosts": str(tmp_path / "gone")}
    channel = {"storage": {"folder": "/x"}, "boot-id": {**login, "every": "45s"}, "libvirt": login}
    config = Config.model_validate(
        {"opennebula": {"auth": "a:b"}, "detect": {"channels": CHANNELS}, "channel": channel}
    )
    return core_settings(config, PROBES)


def test_a_slow_channel_is_blind_after_three_rounds_only(settings: Settings) -> None:
    gaps_s = {channel.name: settings.gap_max_s(channel) for channel in settings.channels}
    assert gaps_s == {"icmp": 5.0, "storage": 5.0, "boot-id": 135.0, "libvirt": 180.0, "kdump": 5.0}


def test_libvirt_that_hung_before_the_host_fell_silent_is_no_second_proof(settings: Settings) -> None:
    views = {name: ChannelView() for name in ("icmp", "storage", "libvirt")}
    gaps_s = {channel.name: settings.gap_max_s(channel) for channel in settings.channels}

    def note(channel: str, signal: Signal, at: float) -> None:
        views[channel].note(Reading(host=1, signal=signal, sent_at=at), gaps_s[channel])

    note("libvirt", Signal.SILENT, 100.0)
    note("icmp", Signal.ALIVE, 102.0)
    for second in range(103, 118):
        note("icmp", Signal.SILENT, float(second))
        note("storage", Signal.UNKNOWN, float(second))
    assert judge(views, settings, 117.5, off_counts=False).kind is VerdictKind.UNCLEAR


def test_what_hosts_tell_of_themselves_decides_nothing(settings: Settings) -> None:
    assert Domain.SELF not in settings.deciding_domains


@pytest.mark.parametrize("login", [False, True])
def test_what_a_returned_host_has_to_pass_comes_from_the_configuration(tmp_path, login):
    (tmp_path / "key").touch()
    files = {"key_file": str(tmp_path / "key"), "known_hosts": str(tmp_path / "key")}
    tables = {"identity": {"username": "ha", **files}} if login else {}
    recover = {"rejoin": "auto", "destroy_leftovers": True, "power_on": True}
    made = core_settings(Config.model_validate({"opennebula": {"auth": "a:b"}, "recover": recover, **tables}), PROBES)
    assert (made.rejoins_itself, made.destroy_leftovers, made.power_on, made.hosts_asked) == (True, True, True, login)
    usual = core_settings(Config.model_validate({"opennebula": {"auth": "a:b"}}), PROBES)
    assert (usual.rejoins_itself, usual.destroy_leftovers, usual.power_on) == (False, False, False)
