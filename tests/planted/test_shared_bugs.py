"""Most of the bugs planted between controllers in every run; `make planted` runs them all."""

from __future__ import annotations

import contextlib

import pytest
from planted.bugs import Bug, seeds_until_caught
from planted.shared_bugs import BUGS, OF_BOTH

from ha_controller.sim.core_level.campaign import Tally

SEEDS = 16  #: one in two or three catches it; a change of the engine's timing gives every seed another course
QUICK = (
    "the lead is not read again",
    "sent before it is shared",
    "what is not confirmed is sent",
    "a new leader begins anew",
    "another controller's word is not heard",
    "no deadline of its own, of three",
    "no deadline of its own, in a zone of three",
    "repeated login",
    "orders by the password",
)


@pytest.mark.parametrize("each", [each for each in BUGS if each.name in QUICK], ids=lambda each: each.name)
def test_a_bug_between_controllers_is_found(each):
    _, by = seeds_until_caught(each, SEEDS)
    assert by in each.invariants


def test_each_of_them_names_what_finds_it():
    assert {name for each in BUGS for name in each.invariants} == {"D1", "G1", "G2", "L2", "S2"}
    assert {*QUICK} <= {each.name for each in BUGS}


def test_what_a_lead_must_not_do_is_planted_for_both_engines_with_a_process_that_stands_still():
    planted = {each.name: each for each in BUGS}
    for mistake, by_engine in OF_BOTH.items():
        assert {*by_engine} == {"etcd", "opennebula"} or mistake == "repeated login", "docs/known-flaws.md"
        for lead, name in by_engine.items():
            assert planted[name].lead == lead
            assert (planted[name].rates or {})[planted[name].strikes] > 0, "its process stands still"
    assert {each.lead for each in BUGS if each.controllers == 3} == {"etcd", "opennebula"}


@pytest.mark.parametrize(("delivered", "caught"), [(0, (0, "")), (1, (1, "G2"))], ids=["never", "once"])
def test_what_is_caught_counts_only_if_the_process_did_stand_still(delivered: int, caught: tuple[int, str]):
    ended = Tally(violations=[{"seed": 1, "invariant": "G2", "text": "G2: for a test"}])
    ended.delivered["pause-at-the-packet"] += delivered
    bug = Bug(
        name="one", text="", invariants=("G2",), patch=contextlib.nullcontext, part=lambda _: ended,
        strikes="pause-at-the-packet",
    )  # fmt: skip
    assert seeds_until_caught(bug, 3) == caught
