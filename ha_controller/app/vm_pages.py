"""What is known of one VM: where it is, what would become of it if its host failed, and what became of it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from ha_controller.core import timeline
from ha_controller.core.incident import Incident
from ha_controller.core.model import Host, Vm

if TYPE_CHECKING:
    from ha_controller.app.ledger import Ledger
    from ha_controller.app.runtime import Runtime

Json = Any
SCHEMA = "ha-controller/v1"
READ_MAX_S = 60.0
NOWHERE: Json = {"outcome": "left alone", "to": None, "reason": "", "softened": False}


async def vms_called(runtime: Runtime, word: str) -> list[int]:
    """The ids of the VMs that are called so, else of the one with this id, if OpenNebula has it.

    Raises:
        OpenNebulaError: they cannot be read.
        TimeoutError: it takes too long.
    """
    with anyio.fail_after(READ_MAX_S):
        if named := [vm.id for vm in await runtime.client.all_vms() if vm.name == word]:
            return named
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            return []
        return [vm.id for vm in await runtime.client.vms([int(word)])]


async def explain_vm(runtime: Runtime, number: int, ledger: Ledger) -> Json | None:
    """Everything about one VM; None: there is none any more.

    Raises:
        OpenNebulaError: it cannot be read.
        JournalError: what is on record cannot be read.
        TimeoutError: it takes too long.
    """
    with anyio.fail_after(READ_MAX_S):
        found = await runtime.recoverer.read_vms([number])
    if not found:
        return None
    (vm,) = found
    state = runtime.controller.state
    host = None if vm.host is None else state.hosts.get(vm.host)
    names = {known.id: known.name for known in state.hosts.values()}
    return {
        "schema": SCHEMA,
        "id": vm.id,
        "name": vm.name,
        "state": vm.label,
        "host": None if host is None else host.name,
        **await _foreseen(runtime, vm, host),
        "past": [each for past in await ledger.shown(lambda known: _past(known, vm.id, names)) for each in past],
    }


async def _foreseen(runtime: Runtime, vm: Vm, host: Host | None) -> Json:
    """What would become of it if its host failed now, and whether its host could be powered off."""
    if host is None:
        where = "on no host" if vm.host is None else f"on host {vm.host}, which is not in [scope]"
        return {"if_host_failed": {**NOWHERE, "reason": f"it is {where}"}, "order": None, "why_host_not_fenced": ""}
    answer = await runtime.foresight.fail([host.id])
    keys = ("outcome", "to", "reason", "softened")
    row = next((each for each in answer["vms"] if each["id"] == vm.id), None)
    order = next((each for each in answer["order"] if each["vm"] == vm.id), None)
    gone = {**NOWHERE, "reason": "it is not on its host's list in OpenNebula now"}
    return {
        "if_host_failed": gone if row is None else {key: row[key] for key in keys},
        "order": order,
        "why_host_not_fenced": _why_not_fenced(runtime, host),
    }


def _why_not_fenced(runtime: Runtime, host: Host) -> str:
    """Why its VMs would wait all the same; empty if nothing is known to stand in the way."""
    state = runtime.controller.state
    if host.excluded:
        return f"nothing is done with {host.name}: {host.excluded}"
    devices = state.view(host.id).devices.values()
    if not any(device.ok and not device.mismatch for device in devices):
        return f"no fence device of {host.name} is ready: ha-controller fencing list {host.name}"
    if state.cloud.paused_by:
        return f"the cloud is paused by {state.cloud.paused_by}"
    if state.settings.mode.value == "observe":
        return "mode observe: nothing is powered off or moved"
    return ""


def _past(known: Incident, number: int, names: dict[int, str]) -> list[Json]:
    return [
        {
            "incident": known.id,
            "host": known.host_name,
            "opened_at": known.opened_at,
            "open": known.open,
            "was": record.was_label,
            "stage": record.stage.value,
            "to": None if record.runs_on is None else names.get(record.runs_on, f"host {record.runs_on}"),
            "reason": record.reason,
            "settled_at": record.settled_at or None,
            "outage_s": timeline.outage_s(known, record),
        }
        for record in known.vms
        if record.id == number
    ]
