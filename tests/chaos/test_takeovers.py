"""The smoke of `make takeovers`: a handful of faults, each in a phase where it could do most harm, at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from json import dumps
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos import rounds, takeover_faults
from tests.chaos.controller import Controller
from tests.chaos.takeover_faults import Fault, Phase
from tests.chaos.takeovers import NEEDED, PROBLEMS, Takeovers, table

PAIRS = (
    (Fault.FROZEN, Phase.FAILED),  # it wakes when the order that it had sent is long carried out by another one
    (Fault.KILLED, Phase.HALF_MOVED),
    (Fault.MINORITY, Phase.VERIFIED),  # a member that is cut off with it may say for a moment that all is well
)


@pytest.mark.peer
@pytest.mark.slow
async def test_whatever_befalls_the_lead_in_an_incident_one_controller_ends_it_and_no_vm_starts_twice(
    tmp_path: Path, require_peer: Callable[[str], str]
) -> None:
    for program in NEEDED:
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    dice = Random(7)
    strikes = [takeover_faults.strike(fault, phase, dice) for fault, phase in PAIRS]
    document = await Takeovers(strikes, clouds=len(strikes), folder=tmp_path, quiet=True).run()
    assert document["passed"], "\n".join(table(document))
    assert {kind: document[kind] for kind in PROBLEMS} == dict.fromkeys(PROBLEMS, 0)
    ordered = {found["fault"]: found["terms"] for found in document["played"]}
    # more than two: the lead may go over once more when the member that was cut off comes back, and etcd votes anew
    assert all(len(terms) >= 2 for terms in ordered.values()), f"who follows orders something, too: {ordered}"


def test_every_fault_is_drawn_once_in_every_phase_before_one_comes_again() -> None:
    pairs = len(Fault) * len(Phase)
    drawn = list(islice(takeover_faults.draw(3), 2 * pairs))
    for turn in (drawn[:pairs], drawn[pairs:]):
        assert len({(each.fault, each.phase) for each in turn}) == pairs
    assert [takeover_faults.from_json(dumps(asdict(each))) for each in drawn] == drawn


async def test_a_controller_that_gives_no_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be busy, or begin anew; to count that as nothing would hide what it had ordered."""
    answers: list[Any] = [None, {"title": "busy", "status": 503}, [{"id": 7}]]

    async def asks(controller: Controller, path: str) -> Any:
        return answers.pop(0)

    monkeypatch.setattr(Controller, "asks", asks)
    monkeypatch.setattr(rounds, "LOOK_EVERY_S", 0.0)
    assert await rounds.answer_of(object.__new__(Controller), "incidents") == [{"id": 7}]
