"""A few of the bugs planted around the core in every run; `make planted` runs them all."""

from __future__ import annotations

import pytest
from planted.bugs import seeds_until_caught
from planted.engine_bugs import BUGS

QUICK = (
    "sent before it is on record",
    "a full disk is no reason to stop",
    "late orders are sent",
    "no deadline",
    "probes wait for a device",
    "readings are trusted",
    "the lead is not proven",
    "one device at a time",
    "plugins are trusted",
    "a secret is logged",
)


@pytest.mark.parametrize("each", [each for each in BUGS if each.name in QUICK], ids=lambda each: each.name)
def test_a_bug_around_the_core_is_found(each):
    _, by = seeds_until_caught(each, 12)
    assert by in each.invariants


def test_each_of_them_names_what_finds_it():
    assert {name for each in BUGS for name in each.invariants} == {"D1", "G1", "G2", "L2", "P1", "X"}
    assert {*QUICK} <= {each.name for each in BUGS}
