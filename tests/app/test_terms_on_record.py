"""A term is on disk before anything is done in it, and what was decided in an older one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from world import SETTINGS

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.journal import Journal, JournalError
from ha_controller.app.ledger import Ledger
from ha_controller.app.standing import StateDirectory
from ha_controller.core.controller import Controller
from ha_controller.core.effects import Effect
from ha_controller.core.events import LeadChanged
from ha_controller.core.incident import CloudRecord
from ha_controller.engine import Commit, Engine


async def test_the_highest_term_outlives_a_restart(tmp_path: Path):
    for last, term in ((0, 3), (3, 5)):
        journal = Journal.open(tmp_path / "journal.db")
        ledger = Ledger(journal)
        await ledger.load()
        assert ledger.term == last
        await ledger.commit(Commit(term=term))
        assert ledger.term == term
        await journal.close()


async def test_a_decision_of_a_term_that_is_over_is_not_written(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal.db")
    ledger = Ledger(journal)
    await ledger.commit(Commit(term=5))
    with pytest.raises(JournalError, match="terms never go back"):
        await ledger.commit(Commit(cloud=CloudRecord(paused_by="old"), term=4))
    await ledger.commit(Commit())
    assert ledger.term == 5
    _, cloud, _ = await ledger.load()
    assert cloud.paused_by == ""
    await journal.close()


async def test_a_controller_that_goes_back_from_etcd_to_single_leads_in_a_higher_term(tmp_path: Path):
    """The terms of etcd are on record; those of the lock would begin at 1, and the journal refuse every decision."""
    journal = Journal.open(tmp_path / "journal.db")
    ledger = Ledger(journal)
    await ledger.commit(Commit(term=57))
    directory = StateDirectory(tmp_path, lambda: 0 if not loaded else ledger.term)
    loaded = False
    await directory.lock()  # before the journal is opened, which knows the terms
    loaded = True
    await directory.lock()
    told: list[LeadChanged] = []
    leadership = Leadership(arbiter=directory.arbiter, report=told.append)
    async with anyio.create_task_group() as group:
        group.start_soon(leadership.run)
        group.start_soon(directory.watch, leadership.end)
        with anyio.fail_after(5):
            while not told:
                await anyio.sleep(0.01)
        assert await leadership.may_act(58)
        group.cancel_scope.cancel()
    assert told == [LeadChanged(term=58)]
    await ledger.commit(Commit(term=58))
    await journal.close()
    await directory.unlock()
    again = StateDirectory(tmp_path, lambda: 0)
    await again.lock()
    assert again.number == 59, "it was written down"


async def test_a_new_term_is_committed_before_anything_of_it_is_dispatched():
    happened: list[Any] = []

    class Record:
        async def commit(self, commit: Commit) -> None:
            happened.append(commit.term)

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


async def test_a_lead_in_which_nothing_was_decided_is_on_record(tmp_path: Path):
    """Restarted, it would take itself for another controller, and leave what died meanwhile to a person."""
    journal = Journal.open(tmp_path / "journal.db")
    ledger = Ledger(journal)
    engine = Engine(
        Controller(SETTINGS, 0.0),
        journal=ledger,
        dispatch=lambda effect: pytest.fail("there was nothing to do"),
        record=lambda events, effects, now: None,
        clock=lambda: 1.0,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        for term in (5, 6):
            written = journal.transactions
            engine.post(LeadChanged(term=term))
            with anyio.fail_after(5):
                while ledger.term != term:
                    await anyio.sleep(0.01)
            assert journal.transactions == written + 1, "once"
            engine.post(LeadChanged(term=None))
        group.cancel_scope.cancel()
    await journal.close()
