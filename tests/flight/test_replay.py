"""What another configuration would have done: the same, something else, or: the record cannot tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from world import SETTINGS, Cloud, seen

from ha_controller.cli.replay import _show
from ha_controller.core.effects import ReadHost
from ha_controller.core.events import InventoryRead, OnedReadFailed, SelfChecked, Verb
from ha_controller.core.model import Domain, Signal
from ha_controller.core.settings import Channel, Mode, Policy, Settings
from ha_controller.flight.replay import replay
from ha_controller.flight.verdict import compared


def dead_host(host: int = 3, seconds: float = 90.0, power: str = "on", **changes: Any) -> Cloud:
    """A cloud in which a host fell silent at 1006 s; single domain: powered off 60 s later."""
    cloud = Cloud(settings=replace(SETTINGS, **changes))
    cloud.recorder.held = True
    cloud.run(6)
    cloud.kill(host, power)
    cloud.run(seconds)
    return cloud


def decide(cloud: Cloud, settings: Settings | None = None, **changes: Any) -> dict[str, Any]:
    """Replay all that happened with settings that differ in this."""
    record = cloud.recorder.cut([1], cloud.now, "the test ends").record()
    settings = settings or replace(cloud.settings, **changes)
    return compared(record, replay(record, settings), settings)


def host(answer: dict[str, Any], name: str = "kvm-03") -> dict[str, Any]:
    (found,) = [each for each in answer["hosts"] if each["host"] == name]
    return found


def lines(answer: dict[str, Any], who: str, name: str = "kvm-03") -> str:
    return "\n".join(line["text"] for line in host(answer, name)["lines"] if line["who"] == who)


def test_less_patience_powers_it_off_earlier_and_from_there_the_record_cannot_tell():
    answer = decide(dead_host(), single_domain_after_s=30.0)
    found = host(answer)
    assert found["then"]["at"] - found["now"]["at"] == pytest.approx(30.0, abs=0.2)
    assert found["cannot_tell_from"] == found["now"]["at"]
    assert found["cannot_tell_why"] == "what is done now was not done then"
    assert "FENCED" in lines(answer, "then")
    assert "FENCED" not in lines(answer, "now")
    assert answer["settings"] == [{"name": "single_domain_after_s", "then": 60.0, "now": 30.0}]


def test_more_patience_has_not_powered_it_off_when_then_did_and_what_came_of_that_is_no_evidence():
    """Its BMC reads off soon after then's order; that must not condemn it now."""
    answer = decide(dead_host(), single_domain_after_s=90.0)
    found = host(answer)
    assert (found["then"]["ordered_off"], found["now"]["ordered_off"]) == (True, False)
    assert found["now"]["at"] == found["then"]["at"] == found["cannot_tell_from"]
    assert found["now"]["why"] == "unclear: silent for 60 of 90 s"
    assert "powered off" not in lines(answer, "now")


def test_a_host_that_came_back_after_45_seconds_would_have_been_shot_by_a_shorter_limit():
    cloud = dead_host(seconds=45)
    del cloud.dead[3]
    cloud.run(20)
    assert not host(decide(cloud))["then"]["ordered_off"]
    assert decide(cloud)["same"]
    found = host(decide(cloud, single_domain_after_s=30.0))
    assert (found["then"]["ordered_off"], found["now"]["ordered_off"]) == (False, True)
    assert "OK again" in found["then"]["why"]


def test_a_guard_with_another_limit_says_no_now_and_is_named():
    answer = decide(dead_host(), max_failed_share=0.01)
    assert not host(answer)["now"]["ordered_off"]
    (line,) = [line for line in host(answer)["lines"] if line["who"] == "now"]
    assert line["said_no"] == [
        "✗ storm: 1 of 8 hosts silent or fenced, over the limit of 1%: more likely the network than the hosts"
    ]


def test_a_guard_that_said_no_then_lets_all_of_them_pass_with_another_limit():
    cloud = Cloud(hosts=8)
    cloud.recorder.held = True
    cloud.run(6)
    for each in (1, 2, 3):
        cloud.kill(each)
    cloud.run(70)
    assert decide(cloud)["same"]
    answer = decide(cloud, max_failed_share=0.5, fences_max=5)
    assert {each["host"] for each in answer["hosts"] if each["then"]["ordered_off"]} == set()
    assert {each["host"] for each in answer["hosts"] if each["now"]["ordered_off"]} == {"kvm-01", "kvm-02", "kvm-03"}
    assert any("rests on what they showed in the world of then" in note for note in answer["notes"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mode": Mode.OBSERVE}, "observing only: would power it off now"),
        ({"mode": Mode.APPROVE}, "waits for approval"),
        ({"policies": {"dead": Policy.APPROVE}}, "waits for approval"),
        ({"policies": {"dead": Policy.TELL}}, "dead: management"),
    ],
)
def test_another_mode_or_policy_does_nothing_and_says_why(changes: dict[str, Any], why: str):
    found = host(decide(dead_host(), **changes))
    assert not found["now"]["ordered_off"]
    assert found["now"]["why"].startswith(why)


def test_a_setting_that_decides_nothing_here_changes_nothing():
    answer = decide(dead_host(), hung_after_s=20.0)
    assert answer["same"]
    assert host(answer)["cannot_tell_from"] is None


def test_more_misses_make_it_suspect_later_and_give_the_same_orders():
    answer = decide(dead_host(), misses=5)
    assert not answer["same"]
    assert host(answer)["same_orders"]
    assert "SUSPECT: looked at closely: 5 probes" in lines(answer, "now")


def test_a_new_channel_has_no_evidence_and_that_is_said():
    cloud = dead_host()
    channels = (*SETTINGS.channels, Channel(name="storage", domain=Domain.STORAGE))
    answer = decide(cloud, channels=channels)
    assert any("nothing of channel storage" in note for note in answer["notes"])
    assert not host(answer)["now"]["ordered_off"]


def test_without_a_channel_its_life_vetoes_no_more():
    cloud = seen()
    cloud.recorder.held = True
    cloud.kill(3)
    cloud.elsewhere["neighbours"][3] = Signal.ALIVE
    cloud.elsewhere["heartbeat"][3] = Signal.SILENT
    cloud.run(70)
    assert not host(decide(cloud))["then"]["ordered_off"]
    kept = tuple(channel for channel in cloud.settings.channels if channel.name != "neighbours")
    answer = decide(cloud, channels=kept)
    assert host(answer)["now"]["ordered_off"]
    assert {"name": "channels", "then": "icmp, ssh, bmc, oned, neighbours, heartbeat, boot-id",
            "now": "icmp, ssh, bmc, oned, heartbeat, boot-id"} in answer["settings"]  # fmt: skip


def test_a_person_said_yes_then_and_the_yes_counts_for_the_incident_of_now():
    cloud = dead_host(mode=Mode.APPROVE)
    cloud.operator(Verb.APPROVE, incident=1)
    cloud.run(10)
    assert decide(cloud)["same"]
    answer = decide(cloud, misses=5)
    assert host(answer)["same_orders"]
    assert host(answer)["now"]["ordered_off"]


def test_incidents_that_have_other_numbers_now_are_not_mixed_up():
    """Host 5 comes back after 45 s: no incident then; with less patience it has number 1 now, and host 3 number 2."""
    cloud = dead_host(5, seconds=45, mode=Mode.APPROVE)
    del cloud.dead[5]
    cloud.run(20)
    cloud.kill(3)
    cloud.run(70)
    cloud.operator(Verb.APPROVE, incident=1)
    cloud.run(10)
    assert cloud.incident(3).id == 1
    answer = decide(cloud, single_domain_after_s=40.0)
    assert "waits for approval" in lines(answer, "now", "kvm-05")
    assert not host(answer, "kvm-05")["now"]["ordered_off"]
    assert host(answer)["same_orders"]
    assert host(answer)["now"]["ordered_off"]


def test_a_new_configuration_that_came_in_then_is_not_taken_over_now():
    cloud = dead_host(seconds=20)
    cloud.reconfigure(replace(SETTINGS, single_domain_after_s=25.0))
    cloud.run(40)
    record = cloud.recorder.cut([1], cloud.now, "the test ends").record()
    as_then = compared(record, replay(record), None)
    assert as_then["same"]
    assert host(as_then)["now"]["ordered_off"]
    assert not host(decide(cloud, settings=SETTINGS))["now"]["ordered_off"]


def test_opennebula_that_did_not_answer_then_does_not_answer_now():
    cloud = Cloud()
    cloud.recorder.held = True
    cloud.run(6)
    cloud.feed(OnedReadFailed(detail="no answer"))
    cloud.deaf.add(ReadHost)
    cloud.kill(3)
    cloud.run(70)
    answer = decide(cloud, single_domain_after_s=30.0)
    assert not host(answer)["now"]["ordered_off"]
    assert not any("OpenNebula is asked" in note for note in answer["notes"])


def test_a_reading_of_opennebula_that_is_needed_earlier_now_is_taken_from_the_record_and_said():
    answer = decide(dead_host(), single_domain_after_s=30.0)
    assert host(answer)["now"]["ordered_off"]
    assert any("OpenNebula is asked about kvm-03 when it was not asked then" in note for note in answer["notes"])


def test_a_cut_off_controller_stays_cut_off_in_the_replay():
    cloud = dead_host(seconds=20)
    cloud.feed(SelfChecked(ok=False, detail="gateway does not answer"))
    cloud.run(60)
    found = host(decide(cloud, single_domain_after_s=30.0))
    assert not found["now"]["ordered_off"]
    assert "self-check" in found["now"]["why"]


def test_a_host_that_was_deleted_in_the_middle_is_replayed():
    cloud = dead_host(seconds=20)
    cloud.deleted.add(3)
    cloud.inventory()
    cloud.run(20)
    cloud.feed(InventoryRead(hosts=()))
    assert decide(cloud)["same"]


def test_the_text_says_it_to_a_tired_operator(capsys: pytest.CaptureFixture[str]):
    _show(decide(dead_host(), single_domain_after_s=30.0), Path("new.toml"))
    text = capsys.readouterr().out
    assert "With new.toml other orders are given about: kvm-03." in text
    assert "single_domain_after_s: 60 then, 30 now" in text
    assert "ordered off at 00:17:16.2, 30.0 s earlier" in text
    assert "From here on the record cannot tell about kvm-03: what is done now was not done then." in text
    assert text.index("From here on") > text.index("00:17:16.2  now   ORDER power off with bmc, attempt 1")
    assert text.index("From here on") < text.index("00:17:46.2  then  ORDER power off with bmc, attempt 1")


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str], accept: bool):
    """`make test ARGS=--accept` writes the example anew; read the difference before you commit it."""
    _show(decide(dead_host(), single_domain_after_s=30.0), Path("new.toml"))
    printed = capsys.readouterr().out.strip()
    page = Path(__file__).parents[2] / "docs/replay.md"
    if accept:
        before, _, after = page.read_text().split("```\n", 2)
        page.write_text(f"{before}```\n{printed}\n```\n{after}")
    assert page.read_text().split("```\n", 2)[1].strip() == printed
