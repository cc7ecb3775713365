"""What a person orders is done or refused with the reason and the way out; life always wins over a person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core import report
from ha_controller.core.commands import why_no_drill
from ha_controller.core.effects import Answer, Fence, MarkMaintenance, ReadPower
from ha_controller.core.events import (
    DrillReported,
    LeadChanged,
    MaintenanceMarked,
    OnedReadFailed,
    PowerRead,
    SightTold,
    Verb,
)
from ha_controller.core.model import HostState, PowerState, SeenAlive
from ha_controller.core.settings import Mode
from ha_controller.core.state import PendingCommand

DONE, NO_SUCH, REFUSED, LOOK_AGAIN = 0, 3, 4, 6


def answer(cloud) -> Answer:
    return cloud.ordered(Answer)[-1]


@pytest.fixture
def waiting(make_cloud, settings):
    """A silent host whose power-off waits for an approval."""
    cloud = make_cloud(settings=replace(settings, mode=Mode.APPROVE))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(20)
    assert cloud.state(3) is HostState.SUSPECT
    assert cloud.incident(3).hold_needs_person
    return cloud


@pytest.mark.parametrize("verb", [Verb.FENCE, Verb.DRILL, Verb.MAINTENANCE_ON, Verb.MAINTENANCE_OFF])
def test_an_order_about_no_host_is_told_so(cloud, verb):
    for host in (None, 99):
        cloud.operator(verb, host=host)
        assert (answer(cloud).code, answer(cloud).text) == (NO_SUCH, "There is no such host.")
    assert not cloud.ordered(Fence)


@pytest.mark.parametrize("verb", [Verb.APPROVE, Verb.REJECT, Verb.HOLD, Verb.RELEASE, Verb.CONFIRM_OFF])
def test_an_order_about_no_incident_is_told_so(cloud, verb):
    for keys in ({"host": 3}, {"incident": 99}, {}):
        cloud.operator(verb, **keys)
        assert answer(cloud).code == NO_SUCH
    assert not cloud.ordered(Fence)


def test_a_rejected_power_off_is_not_sent(waiting):
    waiting.operator(Verb.REJECT, host=3)
    assert answer(waiting).code == DONE
    assert "it is not powered off" in answer(waiting).text
    waiting.run(60)
    assert not waiting.ordered(Fence)
    waiting.operator(Verb.APPROVE, host=3)  # the last word counts
    waiting.run(20)
    assert waiting.state(3) is HostState.RECOVERED


def test_what_is_done_can_neither_be_approved_nor_rejected_nor_confirmed(cloud):
    cloud.kill(3, "off")
    cloud.run(40)
    assert cloud.state(3) is HostState.RECOVERED
    for verb, words in (
        (Verb.APPROVE, "nothing to approve"),
        (Verb.REJECT, "too late to reject. To stop its moves: ha-controller hold kvm-03"),
        (Verb.CONFIRM_OFF, "there is nothing to confirm"),
    ):
        cloud.operator(verb, host=3)
        assert answer(cloud).code == REFUSED
        assert words in answer(cloud).text


def test_a_host_that_answers_is_not_powered_off_for_anybody(cloud):
    cloud.operator(Verb.FENCE, host=3)
    assert answer(cloud).code == REFUSED
    assert "a host that shows life is never powered off" in answer(cloud).text
    cloud.run(30)
    assert not cloud.ordered(Fence)


def test_a_host_out_of_scope_is_not_powered_off_for_anybody(cloud):
    cloud.excluded = {3: "HA_IGNORE=YES on the host in OpenNebula"}
    cloud.inventory()
    cloud.operator(Verb.FENCE, host=3)
    assert (answer(cloud).code, answer(cloud).text) == (
        REFUSED, "kvm-03 is out of scope: HA_IGNORE=YES on the host in OpenNebula")  # fmt: skip


def test_a_word_that_it_is_off_is_refused_while_a_device_reads_on(make_cloud, settings):
    cloud = make_cloud(settings=replace(settings, mode=Mode.APPROVE))
    cloud.run(6)
    cloud.kill(3, "on")
    cloud.run(90)
    cloud.operator(Verb.CONFIRM_OFF, host=3)
    cloud.run(10)
    assert answer(cloud).code == REFUSED
    assert "bmc reads ON. Power kvm-03 off first" in answer(cloud).text
    assert cloud.state(3) is HostState.SUSPECT


def test_maintenance_needs_the_lead(cloud):
    cloud.feed(LeadChanged(term=None, leader="one-2"))
    cloud.operator(Verb.MAINTENANCE_ON, host=3)
    assert (answer(cloud).code, answer(cloud).text) == (9, "Nothing was done: one-2 leads, not this controller.")
    assert not cloud.ordered(MarkMaintenance)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda cloud: None, "not in maintenance"),
        (lambda cloud: cloud.kill(3, "off") or cloud.run(20), "not in maintenance"),
    ],
)
def test_a_drill_of_a_host_that_works_is_refused(cloud, prepare, why):
    prepare(cloud)
    cloud.operator(Verb.DRILL, host=3)
    assert answer(cloud).code == REFUSED
    assert why in answer(cloud).text


def test_a_drill_that_did_nothing_is_told_loudly(cloud):
    cloud.feed(DrillReported(host=3, request=1, results=(), is_back=True))
    assert (answer(cloud).code, answer(cloud).text) == (REFUSED, "Nothing was done.")
    assert "kvm-03: drill NOT passed: nothing was done" in cloud.told()


def test_a_drill_of_a_host_that_is_gone_is_told_by_its_number(cloud):
    cloud.feed(DrillReported(host=99, request=1, results=(("bmc", "f", True, "off and on"),)))
    assert answer(cloud).code == DONE
    assert "host 99: drill passed: bmc: off and on" in cloud.told()


# --- the one sentence of `status` -------------------------------------------------------------------------------------


def said(cloud) -> tuple[int, str]:
    shown = report.status(cloud.controller.state, cloud.now)
    return shown["code"], shown["verdict"]


def test_status_says_who_waits_for_a_person(waiting):
    code, sentence = said(waiting)
    assert code == report.WAITS
    assert sentence.startswith("kvm-03 waits for a person: ")


def test_status_says_that_the_cloud_is_paused(cloud):
    cloud.operator(Verb.PAUSE)
    assert said(cloud) == (report.GUARDED, "Paused by ann: nothing is powered off or moved.")


def test_status_says_that_a_silent_host_is_looked_at(cloud):
    cloud.kill(3, "on")
    cloud.run(6)
    assert said(cloud) == (report.DEGRADED, "kvm-03 does not answer; looking closely. Nothing for you to do.")


def test_status_says_what_is_being_done(cloud):
    seen = set()
    cloud.kill(3, "off")
    for _ in range(600):
        cloud.run(0.1)
        seen.add(said(cloud)[1].partition(" Nothing")[0])
    assert any(sentence.startswith("kvm-03 is being powered off (attempt 1)") for sentence in seen)
    assert any("kvm-03 is off; " in sentence and "VMs run elsewhere" in sentence for sentence in seen)
    assert said(cloud) == (report.WELL, "All VMs are cared for. kvm-03 waits for repair.")


def test_status_says_that_opennebula_cannot_be_read(cloud):
    cloud.feed(OnedReadFailed(detail="no answer"))
    assert said(cloud) == (report.DEGRADED, "OpenNebula cannot be read: no answer")


def test_status_says_that_another_one_leads_or_why_nobody_does(cloud):
    cloud.feed(LeadChanged(term=None, leader="pid 1 on b"))
    assert "pid 1 on b leads; this controller stands by" in said(cloud)[1]
    cloud.feed(LeadChanged(term=None, trouble="etcd does not answer"))
    code, sentence = said(cloud)
    assert code == report.GUARDED
    assert "does not lead: etcd does not answer" in sentence


def test_status_says_which_guard_holds_it_back(cloud):
    for host in (1, 2, 3):
        cloud.kill(host, "off")
    cloud.run(30)
    code, sentence = said(cloud)
    assert code in (report.GUARDED, report.WAITS)
    assert "storm" in sentence


def test_status_before_anything_was_read(make_cloud):
    cloud = make_cloud()
    cloud.controller.state.hosts.clear()
    code, sentence = said(cloud)
    assert code == report.DEGRADED
    assert sentence.startswith("OpenNebula has not been read yet")


# --- what comes too late ----------------------------------------------------------------------------------------------


def test_a_word_about_an_incident_that_ended_meanwhile_is_told_so(cloud):
    state = cloud.controller.state
    pending = PendingCommand(request=7, host=3, incident=1, devices=("bmc",), who="ann", asked_at=cloud.now)
    state.confirming.append(pending)
    cloud.feed(PowerRead(host=3, asked_at=cloud.now, states=(("bmc", PowerState.OFF),)))
    assert (answer(cloud).request, answer(cloud).code) == (7, NO_SUCH)
    assert not state.confirming


@pytest.mark.parametrize("who", ["we", "another controller"])
def test_a_word_that_a_host_is_off_is_not_taken_for_what_came_after_it(cloud, who):
    """Its devices took their time to say nothing, and meanwhile the host answered for a moment."""
    cloud.kill(3, "mute")
    cloud.run(120)
    cloud.deaf = {ReadPower}
    cloud.operator(Verb.CONFIRM_OFF, host=3)
    cloud.run(3)
    if who == "we":
        del cloud.dead[3]
        cloud.run(2)
        cloud.kill(3, "mute")
    else:
        cloud.feed(SightTold(controller="one-2", alive=(SeenAlive(host=3, channel="icmp", at=cloud.now),)))
    cloud.run(30)
    assert answer(cloud).code == REFUSED
    assert "alive since you said so" in answer(cloud).text
    assert cloud.incident(3).proof is None
    cloud.deaf = set()
    cloud.operator(Verb.CONFIRM_OFF, host=3)
    cloud.run(60)
    assert cloud.state(3) is HostState.RECOVERED, "said once more, of what is so now"


def test_a_mark_that_opennebula_does_not_take_is_told_to_who_asked(cloud):
    cloud.feed(MaintenanceMarked(host=3, request=7, failure="no answer"))
    assert answer(cloud).code == LOOK_AGAIN
    assert "OpenNebula does not take the mark on kvm-03: no answer" in answer(cloud).text


def test_why_a_host_in_maintenance_is_not_drilled(waiting):
    state = waiting.controller.state
    silent = replace(state.hosts[3], maintenance=True, vms=())
    state.view(3).vms.clear()
    assert why_no_drill(state, silent) == "there is an open incident"
    empty = replace(state.hosts[5], maintenance=True, vms=())
    state.view(5).vms.clear()
    assert why_no_drill(state, empty) == ""
    state.cloud = replace(state.cloud, paused_by="ann")
    assert why_no_drill(state, empty) == "we do not lead, or the cloud is paused"


@pytest.mark.parametrize("paused", [False, True])
def test_what_an_order_to_power_off_would_come_to_is_told_before_it_is_given(cloud, paused):
    def told(host: int):
        return report.explain(cloud.controller.state, cloud.host(host), cloud.now)["if_ordered"]

    cloud.run(6)
    assert "not silent: icmp, ssh answers" in told(3)["refused"]
    cloud.kill(3)
    cloud.run(4)
    if paused:
        cloud.operator(Verb.PAUSE)
    found = told(3)
    assert found["refused"] == ""
    assert found["hold"] == ("paused: ann" if paused else "")
    said_yes = all(each["passes"] for each in found["guards"]) and not paused
    cloud.operator(Verb.FENCE, host=3)
    cloud.run(3)
    assert bool(cloud.ordered(Fence)) is said_yes


@pytest.mark.parametrize("verb", [Verb.CONFIRM_OFF, Verb.UNFENCE])
def test_what_a_person_says_of_one_incident_is_not_taken_for_another(waiting, verb):
    """A dialog may stay open while the incident ends and the host falls silent anew."""
    meant = waiting.incident(3).id
    for host, incident in ((3, meant + 1), (4, meant)):
        waiting.operator(verb, host=host, incident=incident)
        assert answer(waiting).code == NO_SUCH
    assert waiting.state(3) is HostState.SUSPECT


def test_a_silent_host_gets_no_incident_for_what_was_said_of_an_earlier_one(cloud):
    cloud.run(6)
    cloud.kill(3, "hang")
    cloud.run(4)
    assert cloud.state(3) is HostState.SUSPECT
    cloud.operator(Verb.CONFIRM_OFF, host=3, incident=1)
    assert answer(cloud).code == NO_SUCH
    assert 3 not in cloud.controller.state.incidents
