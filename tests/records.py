"""What is on record in a zone of three, how tests have it written, and how they read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
from on_record import incident
from zone_controllers import Controller, leading
from zones import Zone

from ha_controller.adapters.arbiter.oned_texts import SLOTS
from ha_controller.app import ledger as texts
from ha_controller.core.incident import CloudRecord, Incident, VmStage
from ha_controller.lead import Shared, SharedRecord
from ha_controller.sim.oned_model import NOT_AUTHORIZED, OnedRefusal

OPENED = incident(1)
MOVING = incident(1, stage=VmStage.MOVING)
OVER = replace(OPENED, closed_at=2.0)


def record(controller: Controller) -> SharedRecord:
    assert controller.arbiter.record is not None
    return controller.arbiter.record


async def taken_over(controller: Controller) -> tuple[int, Shared]:
    term = await controller.lead()
    return term, await record(controller).read(term)


async def write(controller: Controller, term: int, *incidents: Incident, next_incident: int = 9) -> None:
    known = {"incident/1/vms/0000": ""}
    changes = texts.shared_changes(incidents, CloudRecord(next_incident=next_incident), [], known)
    await record(controller).write(term, changes)


def open_on(found: Shared) -> tuple[Incident, ...]:
    return texts.of_shared(dict(found.texts)).incidents


async def one_wrote(zone: Zone, controllers: list[Controller], *incidents: Incident) -> tuple[Controller, int]:
    """It leads, and has written that these are open."""
    one, term = await leading(zone, controllers)
    await record(one).read(term)
    await write(one, term, *incidents)
    return one, term


async def the_next(zone: Zone, controllers: list[Controller], one: Controller) -> tuple[Controller, int, Shared]:
    """The front-end of the leader is frozen, and another one has the lead and the record."""
    zone.zone.freeze(one.machine)
    two = controllers[await zone.elected(but_not=one.machine)]
    term, found = await taken_over(two)
    return two, term, found


def on_host(zone: Zone, host: int = 1) -> dict[str, Any]:
    return zone.cloud.oned.hosts[host].attributes


async def made_empty(zone: Zone, controller: Controller, term: int, *hosts: int) -> None:
    """Renew the lead until nothing stands on these hosts any more: a slow renewal leaves that to the next one."""
    with anyio.fail_after(10):
        while any(on_host(zone, host).get(name) for host in hosts for name in ("HA_INCIDENT", *SLOTS)):
            await controller.arbiter.renew(term)


def without_right_to_the_host(zone: Zone, before: dict[str, Any]) -> None:
    """Somebody moved it into a cluster of which our user has no host."""

    def authorize(call: str, user: Any, given: tuple[object, ...]) -> None:
        if call in ("one.host.info", "one.host.update") and given[0] == 1:
            raise OnedRefusal(NOT_AUTHORIZED, f"[{call}] User [{user.id}] : Not authorized to perform USE HOST [1].")

    zone.cloud.server.users.authorize = authorize  # type: ignore[method-assign]
