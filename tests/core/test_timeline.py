"""How long each part of an incident took; what is not known is never guessed."""

from __future__ import annotations

from dataclasses import replace

from ha_controller.core import report, timeline
from ha_controller.core.incident import Incident, VmRecord, VmStage
from ha_controller.core.model import HostState


def vm(number: int, stage: VmStage, settled_at: float = 0.0) -> VmRecord:
    return VmRecord(id=number, name=f"vm-{number}", was_state=3, was_lcm_state=3, stage=stage, settled_at=settled_at)


INCIDENT = Incident(
    id=1, host=3, host_name="kvm-03", opened_at=104.0, state=HostState.RECOVERED, verdict="dead", last_life_at=100.0,
    failed_at=110.0, fenced_at=115.5, recovered_at=131.0,
    vms=(vm(1, VmStage.RUNNING, 121.0), vm(2, VmStage.RUNNING, 130.5), vm(3, VmStage.LEFT, 116.0)),
)  # fmt: skip


def test_each_phase_is_counted_from_the_last_life():
    assert timeline.phases(INCIDENT) == {"detect": 10.0, "fence": 5.5, "restart": 15.0, "total": 30.5}
    assert tuple(timeline.phases(INCIDENT)) == timeline.PHASES


def test_a_vm_was_down_from_the_last_life_until_it_was_seen_running():
    assert [timeline.outage_s(INCIDENT, record) for record in INCIDENT.vms] == [21.0, 30.5, None]


def test_what_is_not_known_or_not_reached_is_not_told():
    unknown = replace(INCIDENT, last_life_at=None)
    assert timeline.phases(unknown) == {"detect": None, "fence": 5.5, "restart": 15.0, "total": None}
    assert timeline.outage_s(unknown, unknown.vms[0]) is None
    under_way = replace(INCIDENT, vms=(*INCIDENT.vms, vm(4, VmStage.MOVING)))
    assert timeline.phases(under_way)["restart"] is None
    assert timeline.phases(replace(INCIDENT, vms=()))["total"] is None
    assert timeline.phases(replace(INCIDENT, fenced_at=None))["fence"] is None


def test_a_host_that_rebooted_by_itself_was_not_powered_off():
    rebooted = replace(INCIDENT, rebooted="a-boot", failed_at=None, fenced_at=None)
    assert timeline.phases(rebooted) == {"detect": 4.0, "fence": None, "restart": 26.5, "total": 30.5}


def test_the_answer_about_an_incident_has_both():
    shown = report.incident(INCIDENT)
    assert shown["phases_s"]["fence"] == 5.5
    assert [row["outage_s"] for row in shown["vms"]] == [21.0, 30.5, None]
