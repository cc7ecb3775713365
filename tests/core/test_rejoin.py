"""The way back of a fenced host: nothing that speaks against it is passed over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from returned import ASKED, away, back, change, conditions, failing, made, restored, shows, unfenced
from world import say, seen

from ha_controller.core import report
from ha_controller.core.effects import (
    Fence,
    HostStep,
    OrderHost,
    Tell,
)
from ha_controller.core.events import EvidenceTaken, InventoryRead, Verb
from ha_controller.core.incident import Lever, Proof
from ha_controller.core.model import HostState, Reading, Signal

# --- each condition ---------------------------------------------------------------------------------------------------


def test_a_host_that_is_well_passes_everything_that_is_asked():
    cloud = back(away(seen(**ASKED)))
    assert failing(cloud) == []
    assert len(conditions(cloud)) == 7


def test_a_host_that_does_not_answer_or_only_just_does_is_not_readmitted():
    cloud = away(made())
    assert failing(cloud) == ["answers"]
    back(cloud, seconds=5)
    assert "for 5 s only" in conditions(cloud)["answers"].reason
    assert unfenced(cloud, force=True).code == 4
    cloud.run(6)
    assert failing(cloud) == []


def test_the_same_boot_as_before_the_power_off_is_never_taken_for_a_new_one():
    cloud = back(away(seen()), boot="first-3")
    assert failing(cloud) == ["new boot"]
    assert "it was never off" in conditions(cloud)["new boot"].reason
    assert unfenced(cloud, force=True).code == 4, "nobody may answer for it who cannot see what runs there"
    assert not restored(cloud)


def test_a_boot_from_before_the_power_off_is_not_new_because_it_was_new_once():
    cloud = seen()
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    cloud.run(3)
    state = cloud.controller.state
    assert cloud.state(3) is HostState.FAILED
    reading = Reading(host=3, signal=Signal.ALIVE, sent_at=cloud.now - 2, boot_id="second-3")
    cloud.feed(EvidenceTaken(channel="boot-id", readings=(reading,)))
    assert state.views[3].new_boot is not None
    state.incidents[3] = replace(state.incidents[3], fenced_at=cloud.now + 1)
    assert not conditions(cloud)["new boot"].passed


def test_a_boot_that_is_not_known_blocks_only_if_no_power_device_has_proven_that_it_was_off():
    cloud = back(away(made()))
    assert conditions(cloud)["new boot"].passed
    change(cloud, proof=Proof(at=cloud.now, text="confirmed off by ann"))
    assert not conditions(cloud)["new boot"].passed
    change(cloud, proof=None)
    assert not conditions(cloud)["new boot"].passed
    assert "--force" in unfenced(cloud).text
    assert unfenced(cloud, force=True).code == 0, "a person who rebooted it may say so"


def test_a_host_whose_heartbeat_on_the_storage_stands_still_is_not_readmitted():
    cloud = back(away(seen()))
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(14)
    assert "storage" in failing(cloud)
    assert unfenced(cloud).code == 4
    say(cloud, 3, heartbeat=Signal.ALIVE)
    cloud.run(12)
    assert failing(cloud) == []


def test_a_host_that_never_wrote_a_heartbeat_is_not_judged_by_one():
    cloud = back(away(made()))
    assert "no heartbeat" in conditions(cloud)["storage"].reason


@pytest.mark.parametrize("answered", [True, False])
def test_an_order_for_one_of_its_vms_that_is_under_way_is_waited_for(answered):
    cloud = back(away(made()))
    [first, *others] = cloud.controller.state.incidents[3].vms
    change(cloud, vms=(replace(first, answered=answered, ordered_at=cloud.now - 1), *others))
    assert failing(cloud) == ([] if answered else ["no order under way"])


def test_an_order_whose_answer_was_lost_long_ago_is_not_waited_for_without_end():
    cloud = back(away(made()))
    [first, *others] = cloud.controller.state.incidents[3].vms
    change(cloud, vms=(replace(first, answered=False, ordered_at=cloud.now - 60), *others))
    assert failing(cloud) == []


def test_a_host_that_dies_again_and_again_stays_out_until_a_person_says_that_it_is_repaired():
    cloud = away(made(quarantine_after=1))
    back(cloud)
    assert failing(cloud) == ["not in quarantine"]
    assert unfenced(cloud, force=True).code == 4
    assert unfenced(cloud, repaired=True).code == 0


def test_explain_shows_the_list_as_long_as_the_host_is_away():
    cloud = away(made())
    state = cloud.controller.state
    shown = report.explain(state, state.hosts[3], cloud.now)["rejoin"]
    assert [each["condition"] for each in shown if not each["passes"]] == ["answers"]
    assert report.explain(state, state.hosts[4], cloud.now)["rejoin"] == []


# --- by itself --------------------------------------------------------------------------------------------------------


def test_by_default_a_host_is_readmitted_by_a_person_only():
    cloud = back(away(seen(**ASKED)), seconds=120)
    assert not restored(cloud)


def test_with_auto_it_is_readmitted_as_soon_as_it_passes_the_gate():
    cloud = back(away(seen(**ASKED, rejoins_itself=True)), seconds=5)
    assert not restored(cloud)
    cloud.run(15)
    assert restored(cloud)
    assert cloud.state(3) is HostState.OK
    assert "given back to OpenNebula" in cloud.told()


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.HOLD])
def test_nothing_is_readmitted_by_itself_while_a_person_says_stop(verb):
    cloud = away(seen(rejoins_itself=True))
    cloud.operator(verb, 3)
    back(cloud, seconds=60)
    assert not restored(cloud)


# --- what people do in OpenNebula meanwhile ---------------------------------------------------------------------------


def enabled_texts(cloud):
    return [each.text for each in cloud.ordered(Tell) if "taken it out of DISABLED" in each.text]


def test_a_dead_host_that_somebody_enables_is_told_once(cloud):
    cloud.kill(3, "off")
    cloud.run(40)
    cloud.inventory()
    assert enabled_texts(cloud) == []
    cloud.one_states[3] = 2
    for _ in range(3):
        cloud.inventory()
        cloud.run(2)
    assert len(enabled_texts(cloud)) == 1
    cloud.one_states[3] = 4
    cloud.inventory()
    cloud.run(2)
    cloud.one_states[3] = 3
    cloud.inventory()
    cloud.run(2)
    assert len(enabled_texts(cloud)) == 2, "disabled again, and enabled once more"


def test_a_host_that_somebody_set_offline_is_kept_out_as_well(cloud):
    cloud.kill(3, "off")
    cloud.run(40)
    cloud.one_states[3] = 8
    for _ in range(3):
        cloud.inventory()
        cloud.run(2)
    assert enabled_texts(cloud) == []


def test_an_inventory_from_before_it_was_disabled_is_no_news(cloud):
    cloud.kill(3, "off")
    while not any(each.step is HostStep.DISABLE for each in cloud.ordered(OrderHost)):
        cloud.run(0.2)
    cloud.one_states[3] = 4
    cloud.run(2)
    host = replace(cloud.host(3), one_state=3)
    others = tuple(cloud.host(other) for other in range(8) if other != 3)
    cloud.feed(InventoryRead(hosts=(host, *others)))
    cloud.run(2)
    assert enabled_texts(cloud) == []


def test_a_host_is_not_given_back_before_our_mark_is_gone(cloud):
    cloud.kill(3, "off")
    cloud.run(30)
    cloud.dead.pop(3)
    cloud.run(20)
    cloud.marked.add(3)  # the second call of RESTORE is lost
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(12)
    assert cloud.incident(3).lever is Lever.RESTORE
    assert len([each for each in cloud.ordered(OrderHost) if each.step is HostStep.RESTORE]) > 1
    cloud.marked.discard(3)
    cloud.run(10)
    assert not cloud.incident(3).open
