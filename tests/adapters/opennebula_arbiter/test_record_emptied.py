"""Hosts whose incident is over are made empty: nothing that counts is, and no lead is lost by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from records import (
    OPENED,
    OVER,
    incident,
    made_empty,
    on_host,
    one_wrote,
    open_on,
    taken_over,
    write,
)
from zone_controllers import Controller, leading
from zones import Zone

from ha_controller.adapters.arbiter import Leadership, opennebula
from ha_controller.core.events import LeadChanged
from ha_controller.core.incident import VmStage
from ha_controller.plugin import ArbiterUnreachable, NotLeading


async def test_what_still_counts_is_not_made_empty(zone: Zone, controllers: list[Controller]):
    """A write that ends an incident has not been carried out, and the lead is renewed meanwhile."""
    one, term = await one_wrote(zone, controllers, OPENED)
    before, zone_of_one, waits = dict(on_host(zone)), one.arbiter._zone, anyio.Event()

    async def stands_still(*given: Any, **named: Any) -> None:
        waits.set()
        await anyio.sleep_forever()

    zone_of_one.confirm, real = stands_still, zone_of_one.confirm  # type: ignore[method-assign, assignment]
    async with anyio.create_task_group() as group:
        group.start_soon(write, one, term, OVER)
        await waits.wait()
        zone_of_one.confirm = real  # type: ignore[method-assign]
        await one.arbiter.renew(term)
        group.cancel_scope.cancel()
    assert on_host(zone) == before


async def test_hundreds_of_incidents_that_end_at_once_do_not_keep_the_decision_loop(
    zone: Zone, controllers: list[Controller]
):
    """A switch is back. Hosts are made empty with the renewals of the lead, some at a time."""
    one, term = await one_wrote(zone, controllers, OPENED, incident(2, host=0))
    calls = zone.cloud.server.calls
    before = len(calls)
    await write(one, term, OVER, replace(incident(2, host=0), closed_at=2.0))
    assert not [call for call in calls[before:] if call.method == "one.host.update"]
    await made_empty(zone, one, term, 0, 1)


@pytest.mark.parametrize("ends", ["no majority", "no time"])
async def test_a_host_that_was_not_made_empty_is_made_empty_later(
    zone: Zone, controllers: list[Controller], monkeypatch, ends: str
):
    """Nothing was sent: people would read of an incident there that is over, until the host has its next one."""
    one, term = await one_wrote(zone, controllers, OPENED)
    await write(one, term, OVER)

    async def has_none(raft_term: int) -> None:
        if ends == "no time":
            await anyio.sleep_forever()
        raise ArbiterUnreachable("no majority")

    with monkeypatch.context() as patched, anyio.move_on_after(0.1):
        patched.setattr(one.arbiter._zone, "has_majority", has_none)
        await one.arbiter._record.clear()
    assert on_host(zone)["HA_INCIDENT"]
    await made_empty(zone, one, term, 1)


MOMENTS = ("as an incident is sent", "as what makes it count is sent", "as a majority is asked")


@pytest.mark.parametrize("comes", MOMENTS)
async def test_a_host_that_may_still_be_made_empty_ends_what_is_written_of_it(
    zone: Zone, controllers: list[Controller], comes: str
):
    """No answer comes while a write is under way, in which the host has an incident again: it would lose that later."""
    one, term = await one_wrote(zone, controllers, OPENED)
    await write(one, term, OVER)
    zone_of_one, begun, over = one.arbiter._zone, anyio.Event(), anyio.Event()
    real = {name: getattr(zone_of_one, name) for name in ("write_host", "write", "confirm")}
    sent: list[str] = []

    async def has_no_answer(raft_term: int, values: dict[str, str], host: int, session: object, sends: Any) -> None:
        zone_of_one.write_host = passed("write_host", MOMENTS[0])  # type: ignore[method-assign]
        sends()
        zone_of_one.has_unanswered = True
        begun.set()
        await over.wait()
        raise ArbiterUnreachable("no answer")

    def passed(name: str, moment: str) -> Callable[..., Awaitable[None]]:
        async def stands_in(*given: Any, **named: Any) -> None:
            sent.append(name)
            if moment == comes:
                over.set()
                await cleared.wait()
            await real[name](*given, **named)

        return stands_in

    zone_of_one.write_host = has_no_answer  # type: ignore[method-assign]
    zone_of_one.write = passed("write", MOMENTS[1])  # type: ignore[method-assign]
    zone_of_one.confirm = passed("confirm", MOMENTS[2])  # type: ignore[method-assign]
    cleared = anyio.Event()

    async def clear() -> None:
        await one.arbiter._record.clear()
        cleared.set()

    async with anyio.create_task_group() as group:
        group.start_soon(clear)
        await begun.wait()
        with pytest.raises(NotLeading, match="emptying host 1 in term 1 has no answer yet"):
            await write(one, term, incident(3))
    assert ("write" in sent) == (comes != MOMENTS[0]), "what could be held back was"
    with pytest.raises(NotLeading, match="nothing more is written"):
        await write(one, term, incident(4, host=0))


async def test_a_host_that_may_still_be_made_empty_holds_up_no_other(
    zone: Zone, controllers: list[Controller], monkeypatch
):
    """It is hours ago, and another host has its first decision."""
    one, term = await one_wrote(zone, controllers, OPENED)
    await write(one, term, OVER)

    async def has_no_answer(raft_term: int, values: dict[str, str], host: int, session: object, sends: Any) -> None:
        sends()
        raise ArbiterUnreachable("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(one.arbiter._zone, "write_host", has_no_answer)
        await one.arbiter._record.clear()
    for stage in (VmStage.WAITING, VmStage.MOVING):
        await write(one, term, incident(4, host=0, stage=stage))
    await one.arbiter._record.clear()
    before = dict(on_host(zone))
    with pytest.raises(NotLeading, match="emptying host 1 in term 1 has no answer yet"):
        await write(one, term, incident(3))
    assert on_host(zone) == before, "nothing was sent"
    await one.arbiter.release(term)
    second, found = await taken_over(one)
    assert (found.whole, open_on(found)) == (True, (incident(4, host=0, stage=VmStage.MOVING),))
    await write(one, second, incident(3))


async def test_making_hosts_empty_costs_no_lead(zone: Zone, controllers: list[Controller], monkeypatch):
    """The lead counts from when it was asked for. OpenNebula answers at once, but for what makes hosts empty: never."""
    one, term = await leading(zone, controllers)
    for fast in ("find_voters", "look"):
        monkeypatch.setattr(one.arbiter._zone, fast, anyio.lowlevel.checkpoint)
    monkeypatch.setattr(one.arbiter, "_prove", _at_once)
    begun, both = 0, anyio.Event()

    async def clear() -> None:
        nonlocal begun
        begun += 1
        try:
            await anyio.sleep_forever()
        finally:
            if begun == 2:
                both.set()

    monkeypatch.setattr(one.arbiter._record, "clear", clear)
    told: list[LeadChanged] = []
    async with anyio.create_task_group() as group:
        group.start_soon(Leadership(arbiter=one.arbiter, report=told.append).run)
        with anyio.fail_after(4 * opennebula.LEAD_S):
            await both.wait()
        await anyio.sleep(opennebula.AMPLE_S)
        group.cancel_scope.cancel()
    assert [each.term for each in told] == [term]


async def _at_once(held: object) -> None:
    """It is proven."""


async def test_a_renewal_that_was_late_makes_no_host_empty(zone: Zone, controllers: list[Controller], monkeypatch):
    """It does not count before it returns, and little of the lead before it is left."""
    one, term = await leading(zone, controllers)

    async def must_not_begin() -> None:
        pytest.fail("little of the lead is left")

    monkeypatch.setattr(one.arbiter._record, "clear", must_not_begin)
    one.arbiter._renewed_at -= opennebula.LEAD_S - opennebula.AMPLE_S
    await one.arbiter.renew(term)
