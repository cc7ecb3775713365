"""What is written on VMs and hosts in OpenNebula for people: what became of them, for Sunstone and `onevm show`.

Made of an incident as it was and as it is, once for each outcome. Nothing here decides anything, and nothing reads what
was written.
"""

from __future__ import annotations

from collections.abc import Iterator

from ha_controller.core.effects import WriteAttributes
from ha_controller.core.incident import Incident, VmRecord, VmStage


def of(before: Incident | None, after: Incident) -> Iterator[WriteAttributes]:
    """What an incident's last change is worth writing down."""
    unchanged = set() if before is None else {id(record) for record in before.vms}  # hundreds, and one has changed
    changed = [record for record in after.vms if id(record) not in unchanged and record.settled]
    for record in changed:
        was = None if before is None else before.vm(record.id)
        if was is None or not was.settled:
            yield _of_vm(after, record)
    if after.fenced_at is not None and (before is None or before.fenced_at is None):
        yield _of_host(after, f"fenced, it was {after.verdict}", after.fenced_at)
    if after.recovered_at is not None and (before is None or before.recovered_at is None):
        yield _of_host(after, f"{_cause(after)}; {_counts(after)}", after.recovered_at)


def _of_vm(incident: Incident, record: VmRecord) -> WriteAttributes:
    state, text = _words(record)
    return WriteAttributes(
        host=incident.host,
        incident=incident.id,
        vm=record.id,
        state=state,
        text=f"{text}, {incident.host_name} {_cause(incident)} (incident {incident.id})",
        at=record.settled_at,
    )


def _words(record: VmRecord) -> tuple[str, str]:
    match record.stage:
        case VmStage.RUNNING if record.order:
            return "RESTARTED", f"restarted, {record.reason}"
        case VmStage.RUNNING:
            return "RUNNING", record.reason
        case VmStage.KEPT:
            return "KEPT", f"moved, not started, {record.reason}"
        case _:
            return f"LEFT: {record.reason}", f"left alone: {record.reason}"


def _of_host(incident: Incident, text: str, at: float) -> WriteAttributes:
    return WriteAttributes(
        host=incident.host, incident=incident.id, vm=None, text=f"{text} (incident {incident.id})", at=at
    )


def _cause(incident: Incident) -> str:
    return "rebooted by itself" if incident.rebooted else "failed"


def _counts(incident: Incident) -> str:
    words = {VmStage.RUNNING: "run", VmStage.KEPT: "moved as they were", VmStage.LEFT: "left alone"}
    counts = [(sum(record.stage is stage for record in incident.vms), word) for stage, word in words.items()]
    some = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"of its {len(incident.vms)} VMs {some}" if some else "it had no VMs"
