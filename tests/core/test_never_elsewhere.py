"""The next step for a VM that did not start at its destination: never elsewhere while it may come up there.

Asked of `next_step` itself: in whole stories these states follow each other within one reading.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.adapters.opennebula import LcmState
from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.model import Vm
from ha_controller.core.outcome import RESUMES_MAX, Next, Presence, Situation, next_step
from ha_controller.core.vm_table import Recover, Step

DEAD, THERE = 3, 5
RECORD = VmRecord(id=30, name="vm-30", was_state=3, was_lcm_state=3, stage=VmStage.MOVING, destination=THERE)
every_answer = pytest.mark.parametrize("answer", Presence, ids=lambda answer: answer.name)


def step(record: VmRecord, state: int, lcm_state: int = 0, **now: object) -> Next:
    vm = Vm(id=30, name="vm-30", state=state, lcm_state=lcm_state, host=THERE, label="its state")
    return next_step(record, vm, Situation(source=DEAD, **now))  # type: ignore[arg-type]


def failed(boots: int = 2, **changes: object) -> VmRecord:
    """Its start was repeated as often as that is done."""
    return replace(RECORD, boots=boots, **changes)  # type: ignore[arg-type]


@every_answer
def test_a_start_that_failed_too_often_is_ended_only_where_the_host_says_that_it_is_not_there(answer):
    found = step(failed(), 3, LcmState.BOOT_FAILURE, arrived=answer)
    if answer is Presence.ABSENT:
        assert (found.step, found.call) == (Step.RECOVER, Recover.SUCCESS)
        return
    assert found.step is Step.WAIT
    assert (found.ask is None) == (answer is Presence.RUNS)


@every_answer
def test_after_a_second_start_it_is_left_where_it_is_or_told_that_it_runs(answer):
    found = step(failed(second_starts=1), 3, LcmState.BOOT_FAILURE, arrived=answer)
    if answer is Presence.RUNS:
        assert (found.step, found.call) == (Step.RECOVER, Recover.SUCCESS)
    elif answer is Presence.ABSENT:
        assert found.step is Step.LEAVE
        assert "Never start it elsewhere" in found.reason
    else:
        assert (found.step, found.ask) == (Step.WAIT, THERE)


def test_a_move_that_failed_too_often_is_left_to_people_whoever_says_what():
    for answer in Presence:
        found = step(failed(), 3, LcmState.PROLOG_MIGRATE_UNKNOWN_FAILURE, arrived=answer)
        assert found.step is Step.LEAVE


@every_answer
@pytest.mark.parametrize("second_starts", [0, 1])
@pytest.mark.parametrize("why", ["its word is doubted", "it falls back to POWEROFF"])
def test_it_is_moved_on_only_where_the_host_says_that_it_is_not_there(answer, second_starts, why):
    again = {"doubted": True} if why == "its word is doubted" else {"stage": VmStage.RESUMING, "tries": RESUMES_MAX}
    found = step(replace(RECORD, second_starts=second_starts, **again), 8, arrived=answer)
    if answer is not Presence.ABSENT:
        assert (found.step, found.ask) == (Step.WAIT, THERE)
    elif second_starts:
        assert found.step is Step.LEAVE
    else:
        assert (found.step, found.elsewhere) == (Step.MOVE, True)


def test_one_resume_less_is_tried_where_it_is():
    assert step(replace(RECORD, stage=VmStage.RESUMING, tries=RESUMES_MAX - 1), 8).step is Step.RESUME


@pytest.mark.parametrize(
    ("lcm_state", "expected"),
    [
        (LcmState.BOOT_FAILURE, (Step.RECOVER, Recover.SUCCESS, None)),
        (LcmState.UNKNOWN, (Step.WAIT, None, THERE)),
        (LcmState.RUNNING, (Step.WAIT, None, THERE)),
    ],
)
def test_what_is_false_there_is_ended_or_waited_for(lcm_state, expected):
    found = step(replace(RECORD, doubted=True), 3, lcm_state, arrived=Presence.ABSENT)
    assert (found.step, found.call, found.ask) == expected


def test_running_there_is_believed_of_the_host_alone():
    doubted = replace(RECORD, doubted=True)
    assert step(doubted, 3, LcmState.RUNNING, arrived=Presence.RUNS).step is Step.RUNNING
    assert step(doubted, 3, LcmState.BOOT_FAILURE, arrived=Presence.RUNS).step is Step.WAIT


@pytest.mark.parametrize("state", [LcmState.BOOT, LcmState.BOOT_UNKNOWN, LcmState.PROLOG_MIGRATE_UNKNOWN])
def test_no_third_start_is_ordered_beside_two_that_have_no_end(state):
    first = step(RECORD, 3, state, arrived=Presence.ABSENT, overdue=True)
    assert (first.step, first.call, first.second_start) == (Step.RECOVER, Recover.RETRY, True)
    again = step(replace(RECORD, second_starts=1), 3, state, arrived=Presence.ABSENT, overdue=True)
    assert (again.step, again.call) == (Step.WAIT, None)
