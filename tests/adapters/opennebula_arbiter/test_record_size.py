"""How much fits into the shared record in OpenNebula, and how long it takes."""

from __future__ import annotations

from typing import Any

import pytest
from records import (
    MOVING,
    OPENED,
    OVER,
    incident,
    on_host,
    one_wrote,
    open_on,
    record,
    the_next,
    write,
)
from zone_controllers import Controller, attributes, leading
from zones import Zone

from ha_controller.adapters.arbiter import front_ends, oned_record
from ha_controller.adapters.arbiter.oned_texts import RECORD, SLOTS
from ha_controller.plugin import ArbiterUnreachable


async def test_five_hundred_vms_of_one_host(zone: Zone, controllers: list[Controller]):
    one, _ = await one_wrote(zone, controllers, many := incident(1, vms=500))
    assert len(on_host(zone)[SLOTS[0]]) < 60_000
    assert len(attributes(zone)[RECORD]) < 600, "it is in OpenNebula's log again with every proof"
    _, _, found = await the_next(zone, controllers, one)
    assert (found.whole, open_on(found)) == (True, (many,))


async def test_what_is_too_long_is_refused(zone: Zone, controllers: list[Controller], monkeypatch: pytest.MonkeyPatch):
    one, term = await one_wrote(zone, controllers, OPENED)
    monkeypatch.setattr(oned_record, "BLOCK_MAX", 100)
    with pytest.raises(ArbiterUnreachable, match="incident 1 is longer than 100 characters"):
        await write(one, term, MOVING)
    _, _, found = await the_next(zone, controllers, one)
    assert open_on(found) == (OPENED,)


async def test_many_hosts_at_once_are_written_some_at_a_time_so_that_a_slow_oned_gets_on(
    zone: Zone, controllers: list[Controller], monkeypatch: pytest.MonkeyPatch
):
    """All of fifty hosts in one write would never end in time, and be begun anew by each leader."""
    monkeypatch.setattr(oned_record, "HOSTS_AT_ONCE", 1)
    one, term = await leading(zone, controllers)
    await record(one).read(term)
    await write(one, term, next_incident=2)
    real, zone_of_one, seen = one.arbiter._zone.write, one.arbiter._zone, 0

    async def fails_at_the_second(raft_term: int, values: dict[str, str], *rest: Any) -> None:
        nonlocal seen
        seen += RECORD in values
        if seen == 2:
            raise ArbiterUnreachable("no time is left")
        await real(raft_term, values, *rest)

    zone_of_one.write = fails_at_the_second  # type: ignore[method-assign]
    with pytest.raises(ArbiterUnreachable, match="no time is left"):
        await write(one, term, OPENED, incident(2, host=0))
    two, second, found = await the_next(zone, controllers, one)
    assert (found.whole, open_on(found)) == (True, (OPENED,))
    await write(two, second, OVER, incident(3), incident(2, host=0))
    assert open_on(await record(two).read(second)) == (incident(2, host=0), incident(3))


async def test_hosts_of_many_incidents_are_read_in_one_call(
    zone: Zone, controllers: list[Controller], monkeypatch: pytest.MonkeyPatch
):
    """A new leader has five seconds to take up hundreds; one that could not would never lead."""
    one, _ = await one_wrote(zone, controllers, OPENED, incident(2, host=0))
    monkeypatch.setattr(front_ends, "ONE_BY_ONE_MAX", 1)
    calls = zone.cloud.server.calls
    before = len(calls)
    _, _, found = await the_next(zone, controllers, one)
    assert (found.whole, open_on(found)) == (True, (OPENED, incident(2, host=0)))
    assert "one.host.info" not in {call.method for call in calls[before:]}
