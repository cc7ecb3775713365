"""A term is on disk before anything is done in it, and what was decided in an older one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from world import SETTINGS

from ha_controller.adapters.journal import Journal, JournalError
from ha_controller.app.ledger import Ledger
from ha_controller.core.controller import Controller
from ha_controller.core.effects import Effect
from ha_controller.core.events import LeadChanged
from ha_controller.core.incident import CloudRecord
from ha_controller.engine import Engine


async def test_the_highest_term_outlives_a_restart(tmp_path: Path):
    for last, term in ((0, 3), (3, 5)):
        journal = Journal.open(tmp_path / "journal.db")
        ledger = Ledger(journal)
        await ledger.load()
        assert ledger.term == last
        await ledger.commit([], None, [], [], term)
        assert ledger.term == term
        await journal.close()


async def test_a_decision_of_a_term_that_is_over_is_not_written(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal.db")
    ledger = Ledger(journal)
    await ledger.commit([], None, [], [], 5)
    with pytest.raises(JournalError, match="terms never go back"):
        await ledger.commit([], CloudRecord(paused_by="old"), [], [], 4)
    await ledger.commit([], None, [], [], None)
    assert ledger.term == 5
    _, cloud, _ = await ledger.load()
    assert cloud.paused_by == ""
    await journal.close()


async def test_a_new_term_is_committed_before_anything_of_it_is_dispatched():
    happened: list[Any] = []

    class Record:
        async def commit(self, *records: Any) -> None:
            happened.append(records[-1])

    def dispatch(effect: Effect) -> None:
        happened.append(effect)

    controller = Controller(SETTINGS, 0.0)
    engine = Engine(
        controller, journal=Record(), dispatch=dispatch, record=lambda events, effects, now: None, clock=lambda: 1.0
    )
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        engine.post(LeadChanged(term=4, inherited="one led in term 3"))
        with anyio.fail_after(5):
            while len(happened) < 2:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert happened[0] == 4
    assert "one led in term 3" in happened[1].text
