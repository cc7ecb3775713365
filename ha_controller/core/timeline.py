"""How long each part of an incident took: read from its record, for people and for metrics.

The clock begins at the last life that any channel saw. Where that is not known (the controller had just started), what
begins there is not known either, and never guessed.
"""

from __future__ import annotations

from ha_controller.core.incident import Incident, VmRecord, VmStage

PHASES = ("detect", "fence", "restart", "total")


def phases(incident: Incident) -> dict[str, float | None]:
    """Seconds from the last life to condemned, to verified off, to an outcome for every VM; and all of it.

    None: it did not come to that, or it is not known. A host that rebooted by itself is not powered off.
    """
    condemned_at = incident.opened_at if incident.rebooted else incident.failed_at
    off_at = incident.opened_at if incident.rebooted else incident.fenced_at
    return {
        "detect": _between(incident.last_life_at, condemned_at),
        "fence": None if incident.rebooted else _between(condemned_at, off_at),
        "restart": _between(off_at, settled_at(incident)),
        "total": _between(incident.last_life_at, settled_at(incident)),
    }


def settled_at(incident: Incident) -> float | None:
    """When the last of its VMs had an outcome; None: one has none yet, or there was no VM."""
    if not incident.vms or not all(record.settled for record in incident.vms):
        return None
    return max(record.settled_at for record in incident.vms) or None


def outage_s(incident: Incident, record: VmRecord) -> float | None:
    """From the last life of its host to where it was seen RUNNING again; None: it was not, or it is not known."""
    if record.stage is not VmStage.RUNNING or not record.settled_at:
        return None
    return _between(incident.last_life_at, record.settled_at)


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(max(0.0, end - begin), 3)
