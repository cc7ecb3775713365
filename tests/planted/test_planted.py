"""A few planted bugs in every run, so that neither they nor the simulator rot; `make planted` runs them all."""

from __future__ import annotations

import pytest
from planted.bugs import BUGS, passes, seeds_until_caught

from ha_controller.sim.core_level import campaign
from ha_controller.sim.core_level.faults import FAULTS, BadFaults, Rates, load

QUICK = (
    "no budget", "no shared cause", "identity is not asked", "attempts are not recorded", "no boot id",
    "what lasts is not lifted", "the end of the lead is not heard", "hung is dead",
)  # fmt: skip


def test_the_same_seed_tells_the_same_story():
    task = campaign.Task(seed=3, hosts=6, hours=1.0, rates=Rates().times(10))
    story = campaign.trace(task)
    assert len(story) > 50
    assert campaign.trace(task) == story


@pytest.mark.parametrize("each", [each for each in BUGS if each.name in QUICK], ids=lambda each: each.name)
def test_a_planted_bug_is_found_and_the_core_as_it_is_passes_that_seed(each):
    seed, by = seeds_until_caught(each, 12)
    assert by in each.invariants
    assert passes(each, seed) == ""


def test_the_dead_are_powered_off_and_nothing_is_broken():
    tally = campaign.part(campaign.Task(seed=8, hosts=8, hours=2.0, rates=Rates().times(3)))
    assert tally.violations == []
    assert tally.counted["deaths"]
    assert tally.counted["fences"]
    assert not tally.idle


def test_a_run_in_which_nobody_is_powered_off_is_idle():
    tally = campaign.Tally()
    tally.counted.update({"deaths": 50, "fences": 3})
    assert tally.idle


def test_a_file_of_faults_changes_what_it_names_and_says_what_it_does_not_know(tmp_path):
    file = tmp_path / "faults.toml"
    file.write_text("others = 0\nhang = 0.5\n")
    rates = load(file)
    assert rates.of("hang") == 0.5
    assert {rates.of(fault.name) for fault in FAULTS} == {0.0, 0.5}
    file.write_text("hung = 0.5\nanswer-lost = 2\n")
    with pytest.raises(BadFaults, match=r"hung is no fault.*at most 1"):
        load(file)
