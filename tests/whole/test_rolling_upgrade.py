"""Two controllers on etcd are upgraded one after the other, the leader last, while an incident is open.

A release with other code cannot be had, so each "older version" is what it leaves behind: a journal of the first
schema, which the version of now finds at its start.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ha_controller.adapters.journal_schema import MIGRATIONS
from ha_controller.adapters.opennebula import HostStatus
from tests.whole.test_serve import Served
from tests.whole.test_two_controllers import LEASE_S, Controllers, two_controllers

pytestmark = [pytest.mark.peer, pytest.mark.slow]

NEWEST = len(MIGRATIONS)


@pytest.fixture(autouse=True)
def _etcd(require_peer: Callable[[str], str]) -> None:
    require_peer("etcd")


def journal(controller: Served) -> Path:
    return next(controller.folder.rglob("journal.db"))


def schema(controller: Served) -> int:
    with closing(sqlite3.connect(journal(controller))) as opened:
        return int(opened.execute("PRAGMA user_version").fetchone()[0])


def as_the_first_schema_had_it(controller: Served) -> None:
    """Take away what later schemas added."""
    with closing(sqlite3.connect(journal(controller))) as opened:
        opened.execute("ALTER TABLE entries DROP COLUMN seal")
        opened.execute("DROP TABLE writer")
        opened.execute("PRAGMA user_version = 1")
        opened.commit()


async def upgrade(both: Controllers, controller: Served) -> None:
    """Stop it, change its files, start it."""
    assert await controller.stop() == 0
    as_the_first_schema_had_it(controller)
    await controller.start()
    await controller.ready()
    await both.eventually(lambda: both.stands_by(controller), within_s=LEASE_S + 40)
    assert schema(controller) == NEWEST


def moves(both: Controllers) -> Counter[object]:
    return Counter(call.arguments[0] for call in both.cloud.server.calls if call.method == "one.vm.migrate" and call.ok)


async def test_an_incident_is_open_while_both_are_upgraded_and_each_vm_is_moved_once(tmp_path: Path):
    async with two_controllers(tmp_path) as both:
        oned = both.cloud.oned
        vms = {vm.id for vm in oned.vms.values() if vm.host == 2}
        others = [host for host in oned.hosts if host != 2]
        for host in others:  # no place for its VMs: the incident stays open, whatever time it takes to upgrade
            oned.set_status(host, HostStatus.DISABLE, 0.0)
        both.cloud.break_host(2, "power-loss")
        await both.eventually(lambda: is_in(both, both.first, "fenced"), within_s=60)

        await upgrade(both, both.second)
        assert await both.leads(both.first)
        assert await is_in(both, both.first, "fenced")
        await upgrade(both, both.first)  # the leader last
        assert await both.leads(both.second)
        assert moves(both) == Counter()

        # what began under another leader is on the shared record, and goes on without a person
        assert await is_in(both, both.second, "fenced")
        for host in others:
            oned.set_status(host, HostStatus.ENABLE, 0.0)
        await both.eventually(lambda: is_in(both, both.second, "recovered"), within_s=90)
        assert both.cloud.check(vms_must_wait=False) == []
        assert moves(both) == Counter(dict.fromkeys(vms, 1))
        shots = both.shots()

        # the first leads again, and has on record what became of it
        await both.eventually(lambda: steps_down(both.second))
        await both.eventually(lambda: both.leads(both.first))
        await both.eventually(lambda: is_in(both, both.first, "recovered"))
        assert (moves(both), both.shots()) == (Counter(dict.fromkeys(vms, 1)), shots)
        assert both.cloud.check(vms_must_wait=False) == []


async def is_in(both: Controllers, controller: Served, state: str) -> bool:
    return await both.state_of(controller, 2) == state


async def steps_down(controller: Served) -> bool:
    return (await controller.cli("leader", "step-down"))[0] == 0
