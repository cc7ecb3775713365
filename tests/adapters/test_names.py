"""Names in HA_AFTER are looked up among all VMs, for one incident after the other."""

from __future__ import annotations

import anyio

from ha_controller.adapters.opennebula import OnedVm
from ha_controller.adapters.recoverer import NameReader
from ha_controller.adapters.recoverer.names import READ_MAX_S
from ha_controller.core.effects import AskNames
from ha_controller.core.events import NamesRead
from ha_controller.core.order_faults import ANSWER_MAX_S


class Pool:
    """Plays the client, and counts how many read all VMs at once."""

    def __init__(self) -> None:
        self.at_once = self.most = 0

    async def all_vms(self) -> list[OnedVm]:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await anyio.sleep(0.02)
        self.at_once -= 1
        return []


async def test_many_incidents_at_once_read_all_vms_one_after_the_other():
    """Each reading holds a connection that the inventory needs, too."""
    pool, events = Pool(), list[NamesRead]()
    reader = NameReader(pool, report=events.append)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(reader.read, AskNames(host=number, incident=number, names=("db",)))
    assert pool.most == 1
    assert sorted((event.incident, event.missing) for event in events) == [(number, ("db",)) for number in range(6)]


async def test_waiting_for_others_has_an_end_and_is_a_failure(monkeypatch):
    monkeypatch.setattr("ha_controller.adapters.recoverer.names.READ_MAX_S", 0.05)
    pool, events = Pool(), list[NamesRead]()
    reader = NameReader(pool, report=events.append)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(reader.read, AskNames(host=number, incident=number, names=("db",)))
    failed = [event for event in events if event.failure]
    assert len(events) == 6
    assert failed
    assert not any(event.missing for event in failed)


def test_the_core_waits_longer_than_it_takes():
    assert READ_MAX_S < ANSWER_MAX_S
