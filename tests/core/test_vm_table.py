"""The table of VM states holds every number, and no row that could do harm."""

from __future__ import annotations

import pytest

from ha_controller.adapters.opennebula import LcmState, VmState
from ha_controller.core.vm_table import LCM, STATES, Ask, Recover, Row, Rule, Source, Step, Want, is_forbidden, row_of
from ha_controller.sim.oned_model import LCM_NAMES

ROWS = [*(pytest.param(3, number, id=row.name) for number, row in LCM.items()),
        *(pytest.param(number, 0, id=row.name) for number, row in STATES.items())]  # fmt: skip
every_row = pytest.mark.parametrize(("state", "lcm_state"), ROWS)


def rules_of(row: Row) -> list[Rule]:
    rules: list[Rule] = []
    for each in (row.here, row.arrived, row.leaving, row.overdue):
        if isinstance(each, Ask):
            rules += [rule for rule in (each.runs, each.absent, each.off) if rule is not None]
        elif each is not None:
            rules.append(each)
    return rules


def test_no_number_is_missing():
    assert list(LCM) == list(range(72))
    assert set(STATES) == set(range(12)) - {3}  # 3 is ACTIVE, where LCM_STATE says what the VM does


def test_the_names_are_opennebulas():
    obsolete = {13: "CANCEL", 14: "FAILURE"}
    assert {number: row.name for number, row in LCM.items()} == {
        state.value: state.name for state in LcmState
    } | obsolete
    assert {number: row.name for number, row in LCM.items()} == LCM_NAMES
    named = {state.value: state.name for state in VmState if state.name != "ACTIVE"}
    assert {number: row.name for number, row in STATES.items()} == named | {7: "FAILED"}


@every_row
def test_a_rule_says_what_it_leads_to_or_why_nothing_is_done(state, lcm_state):
    for rule in rules_of(row_of(state, lcm_state)):
        match rule.step:
            case Step.RECOVER:
                assert rule.call is not None
                assert rule.then
            case Step.MOVE:
                assert rule.then
            case Step.WAIT | Step.LEAVE:
                assert rule.reason
                assert rule.call is None


@every_row
def test_nothing_is_started_on_the_dead_host(state, lcm_state):
    here = row_of(state, lcm_state).here
    rules = [here] if isinstance(here, Rule) else [here.runs, here.absent, here.off]
    assert Recover.RETRY not in [rule.call for rule in rules if rule is not None]


@every_row
def test_no_rule_does_what_its_row_forbids(state, lcm_state):
    row = row_of(state, lcm_state)
    ordered = [rule.call for rule in rules_of(row) if rule.call is not None]
    assert [call for call in ordered if is_forbidden(state, lcm_state, call)] == []
    assert bool(row.never) <= bool(row.never_text)


@every_row
def test_a_vm_is_made_anew_only_where_the_operator_allows_it(state, lcm_state):
    recreating = [rule for rule in rules_of(row_of(state, lcm_state)) if rule.call is Recover.RECREATE]
    assert all(rule.recreates for rule in recreating)


@every_row
def test_only_an_active_vm_is_recovered(state, lcm_state):
    if state != 3:
        assert all(rule.step is not Step.RECOVER for rule in rules_of(row_of(state, lcm_state)))
        assert all(is_forbidden(state, lcm_state, call) for call in Recover)


@every_row
def test_what_is_left_alone_is_left_with_a_reason_and_nothing_is_ordered(state, lcm_state):
    row = row_of(state, lcm_state)
    if row.want is Want.LEFT:
        assert isinstance(row.here, Rule)
        assert (row.here.step, row.here.call) == (Step.LEAVE, None)


@pytest.mark.parametrize(
    ("lcm_state", "call"),
    [
        (16, Recover.FAILURE), (16, Recover.SUCCESS),  # write RUNNING and do nothing
        (61, Recover.FAILURE),  # boots on the old host
        (60, Recover.FAILURE),  # leads there
        (5, Recover.SUCCESS), (6, Recover.SUCCESS), (7, Recover.SUCCESS),  # the saved file may be half of it
        (11, Recover.SUCCESS), (12, Recover.SUCCESS), (40, Recover.SUCCESS),  # the VM is gone then
        (23, Recover.FAILURE), (23, Recover.SUCCESS),
        (44, Recover.FAILURE), (46, Recover.FAILURE),  # back to the dead host
        (31, Recover.RECREATE), (50, Recover.RECREATE),  # their disks hold data
        (1, Recover.SUCCESS), (39, Recover.SUCCESS),  # boots without complete disks
        (99, Recover.FAILURE), (99, Recover.SUCCESS), (99, Recover.RETRY),  # nobody knows what it does
    ],
)  # fmt: skip
def test_what_does_harm_is_forbidden(lcm_state, call):
    assert is_forbidden(3, lcm_state, call)


def test_deletes_are_no_operations_of_this_controller():
    assert {call.value for call in Recover} == {0, 1, 2, 4}


@pytest.mark.parametrize(("state", "lcm_state"), [(3, 72), (3, 99), (3, -1), (12, 0), (77, 0)])
def test_an_unknown_number_is_waited_for_and_then_left(state, lcm_state):
    row = row_of(state, lcm_state)
    assert row.want is Want.LEFT
    assert isinstance(row.here, Rule)
    assert row.here.step is Step.WAIT
    assert "not known" in row.here.reason


def test_rows_that_were_seen_say_so():
    seen = {
        number
        for number, row in LCM.items()
        if any(rule.source is Source.SEEN and rule.step is not Step.WAIT for rule in rules_of(row))
    }
    assert {1, 3, 4, 5, 6, 7, 15, 16, 18, 29, 36, 38, 39, 61} <= seen
