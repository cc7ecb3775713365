"""Most of the bugs planted between two controllers in every run; `make planted` runs them all."""

from __future__ import annotations

import pytest
from planted.bugs import seeds_until_caught
from planted.shared_bugs import BUGS

QUICK = (
    "the lead is not read again",
    "sent before it is shared",
    "what is not confirmed is sent",
    "a new leader begins anew",
    "another controller's word is not heard",
    "repeated login",
    "orders by the password",
)


@pytest.mark.parametrize("each", [each for each in BUGS if each.name in QUICK], ids=lambda each: each.name)
def test_a_bug_between_controllers_is_found(each):
    _, by = seeds_until_caught(each, 2)
    assert by in each.invariants


def test_each_of_them_names_what_finds_it():
    assert {name for each in BUGS for name in each.invariants} == {"D1", "G1", "G2", "L2", "S2"}
    assert {*QUICK} <= {each.name for each in BUGS}
