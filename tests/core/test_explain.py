"""What `explain` prints in twelve situations: docs/explain.md has it as it really is. `--accept` writes it anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from world import SETTINGS, Cloud, say, seen

from ha_controller.cli import show
from ha_controller.core.effects import Explain
from ha_controller.core.events import SecondMasterLooked, SelfChecked, Verb
from ha_controller.core.model import Device, Signal
from ha_controller.core.settings import Mode
from ha_controller.engine import EXPLAINED

PAGE = Path(__file__).parents[2] / "docs/explain.md"
BEGIN = """\
# What `explain` says

`ha-controller explain HOST` tells why a host is in its state now. Every decision, also "nothing, because ...", is on
record: `explain HOST --at "2026-11-26 03:10"` shows the last one before a time, `--incident 12` all of an incident,
`--last 5` the newest, `-o json` all of it for programs. `explain VM` tells where a VM is, whether it would run again
if its host failed and why not, and what became of it in incidents. Here is what is printed about hosts in twelve
situations; the page is made by `tests/core/test_explain.py`.
"""


def settled(**changes: object) -> Cloud:
    cloud = Cloud(**changes)  # type: ignore[arg-type]
    cloud.run(6)
    return cloud


def seen_from_elsewhere() -> Cloud:
    return seen()


def a_dead_host() -> Cloud:
    cloud = seen_from_elsewhere()
    cloud.kill(3)
    say(cloud, 3, neighbours=Signal.SILENT, heartbeat=Signal.SILENT)
    cloud.run(11)
    return cloud


def a_host_without_power() -> Cloud:
    cloud = settled()
    cloud.kill(3, "off")
    cloud.run(2)
    return cloud


def a_host_that_fell_silent_just_now() -> Cloud:
    cloud = settled()
    cloud.kill(3)
    cloud.run(20)
    return cloud


def a_host_that_answers_again() -> Cloud:
    cloud = a_host_that_fell_silent_just_now()
    del cloud.dead[3]
    cloud.run(1)
    return cloud


def an_isolated_host() -> Cloud:
    cloud = seen_from_elsewhere()
    cloud.kill(3)
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(30)
    return cloud


def a_controller_that_is_cut_off() -> Cloud:
    cloud = settled()
    cloud.feed(SelfChecked(ok=False, detail="0 of 2 witnesses answer (need 2)"))
    cloud.kill(3)
    cloud.run(65)
    return cloud


def a_switch_that_reboots() -> Cloud:
    places = {host: (("HA_RACK", "east" if host < 4 else "west"),) for host in range(16)}
    cloud = settled(hosts=16, places=places)
    for host in (2, 3):
        cloud.kill(host)
    cloud.run(65)
    return cloud


def another_master() -> Cloud:
    cloud = settled()
    cloud.feed(SecondMasterLooked(present=True, detail="hook 4 host_error is active in OpenNebula"))
    cloud.kill(3, "off")
    cloud.run(3)
    return cloud


def mode_observe() -> Cloud:
    cloud = settled(settings=replace(SETTINGS, mode=Mode.OBSERVE))
    cloud.kill(3, "off")
    cloud.run(3)
    return cloud


def a_host_whose_device_nobody_vouches_for() -> Cloud:
    cloud = settled(levels=((Device(name="bmc"),),))
    cloud.kill(3)
    cloud.run(65)
    return cloud


def a_paused_cloud() -> Cloud:
    cloud = settled()
    cloud.operator(Verb.PAUSE)
    cloud.kill(3, "off")
    cloud.run(3)
    return cloud


def all_vms_are_cared_for() -> Cloud:
    cloud = settled()
    cloud.kill(3, "off")
    cloud.run(10)
    return cloud


SITUATIONS: tuple[tuple[str, Callable[[], Cloud]], ...] = (
    ("A dead host: silent here, for its neighbours and on its storage", a_dead_host),
    ("A host without power", a_host_without_power),
    ("A host that is silent, not yet for long enough", a_host_that_fell_silent_just_now),
    ("A host that answers again", a_host_that_answers_again),
    ("A host that is isolated", an_isolated_host),
    ("The controller itself is cut off", a_controller_that_is_cut_off),
    ("Two hosts of one rack, when its switch reboots", a_switch_that_reboots),
    ("Somebody else acts", another_master),
    ("Mode observe", mode_observe),
    ("A host whose fence device nobody vouches for", a_host_whose_device_nobody_vouches_for),
    ("A paused cloud", a_paused_cloud),
    ("All VMs are cared for", all_vms_are_cared_for),
)


def printed(cloud: Cloud, last: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What `explain kvm-03 --last ...` prints."""
    found = [(at, effect) for at, effect in cloud.effects if isinstance(effect, Explain) and effect.host == 3]
    lines = [{"at": at, "data": {name: getattr(effect, name) for name in EXPLAINED}} for at, effect in found]
    capsys.readouterr()
    show.decisions(lines[-last:])
    return re.sub(r"(?m)^\d[\d:TZ-]+   ", "", capsys.readouterr().out)


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str], accept: bool):
    parts = [BEGIN]
    for title, play in SITUATIONS:
        text = printed(play(), 3 if play is a_dead_host else 1, capsys)
        parts.append(f"## {title}\n\n```\n{text}```\n")
    page = "\n".join(parts)
    if accept:
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def test_a_decision_is_on_record_once_and_again_when_it_changes(cloud: Cloud):
    cloud.kill(3)
    cloud.run(65)
    said = [effect.what for effect in cloud.ordered(Explain) if effect.host == 3]
    assert said == [
        "SUSPECT: looked at closely",
        "nothing is done: unclear",
        "condemned as dead: it is powered off",
        "attempt 1: power off with bmc",
        "FENCED: off is verified",
        "plan: all 2 VMs have a place",
        "RECOVERED",
    ]


def test_what_is_not_used_is_named_with_its_reason(cloud: Cloud):
    cloud = settled(levels=((Device(name="bmc", identity_noted=True),), (Device(name="pdu"),)))
    cloud.kill(3)
    cloud.run(65)
    (attempt,) = [effect for effect in cloud.ordered(Explain) if effect.what.startswith("attempt")]
    assert attempt.rejected == ("pdu: nobody vouches that it is this host's",)


def test_what_stops_an_incident_is_the_last_decision_on_record(cloud: Cloud):
    cloud.kill(3, "mute")
    cloud.run(70)
    last = [effect for effect in cloud.ordered(Explain) if effect.host == 3][-1]
    assert last.what == "stopped: a person must decide"
    assert "fence attempts exhausted (bmc: no answer)" in last.because
    assert "confirm-off kvm-03" in last.next_step
