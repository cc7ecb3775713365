"""An incident of many words, as it stands on a shared record."""

from __future__ import annotations

from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import HostState


def incident(number: int, vms: int = 2, *, host: int = 1, stage: VmStage = VmStage.WAITING) -> Incident:
    records = tuple(
        VmRecord(
            id=number * 1000 + each, name=f"a-virtual-machine-with-a-name-{each}", was_state=3, was_lcm_state=3,
            was_label="ACTIVE, RUNNING", datastores=(0, 100, 101), stage=stage, destination=4, ordered_to=(4, 5),
            reason="host kvm-04 has room, and its group allows it",
        )
        for each in range(vms)
    )  # fmt: skip
    return Incident(
        id=number, host=host, host_name=f"kvm-{host:02}", opened_at=1.0, state=HostState.FENCED, verdict="dead",
        evidence=("no answer for 12 s",) * 6, guards=("leader: we lead",) * 12, vms=records,
    )  # fmt: skip
