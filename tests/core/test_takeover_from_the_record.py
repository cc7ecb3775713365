"""A controller that leads after another one and has its record: it goes on with what is open there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from returned import away, back, failing
from taken_over import INHERITED, acted, commanded, followed, followed_from_the_start, goes_on, left_by
from world import SETTINGS, Cloud, say, seen

from ha_controller.core.effects import (
    Answer,
    Drill,
    Fence,
    HostStep,
    LiftOrders,
    MoveVm,
    Order,
    OrderHost,
    ReadHost,
    ReadPower,
    ResumeVm,
    Severity,
    Tell,
)
from ha_controller.core.events import EvidenceTaken, LeadChanged, RecordTakenOver, SightTold, Verb
from ha_controller.core.incident import CloudRecord, Death, Lever, VmStage
from ha_controller.core.model import HostState, Reading, SeenAlive, Signal
from ha_controller.core.settings import Mode


@pytest.fixture
def leader(make_cloud) -> Cloud:
    cloud = make_cloud()
    cloud.run(10)
    return cloud


def test_a_standby_that_knows_nothing_goes_on_with_the_incident_of_the_leader(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    theirs = leader.incident(3)
    chosen = {record.id: record.destination for record in theirs.vms if record.stage is VmStage.MOVING}
    assert (theirs.state, bool(chosen)) == (HostState.FENCED, True)
    goes_on(leader, followed(leader))
    taken = leader.incident(3)
    assert (taken.id, taken.state, taken.foreign) == (theirs.id, HostState.FENCED, "")
    assert all(record.maybe_done for record in taken.vms if record.id in chosen)
    leader.run(120)
    assert leader.state(3) is HostState.RECOVERED
    assert not [effect for effect in acted(leader) if isinstance(effect, Fence) and effect.send], "it was verified off"
    moves = [effect for effect in acted(leader) if isinstance(effect, MoveVm)]
    assert {move.vm: move.destination for move in moves} | chosen == {move.vm: move.destination for move in moves}
    text = f"this controller leads now, term 2, and {INHERITED}. Its record was read; open on it: kvm-03"
    assert text in leader.told()


def test_a_move_without_an_answer_waits_until_it_has_surely_ended(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    goes_on(leader, followed(leader))
    taken_at = leader.now
    leader.run(120)
    assert leader.first(MoveVm) - taken_at >= SETTINGS.order_timeout_s


def test_a_power_off_that_was_announced_and_has_no_answer_is_sent_again(leader):
    leader.deaf = {Fence}
    leader.kill(3, "off")
    leader.run(30)
    theirs = leader.incident(3)
    assert theirs.state is HostState.FAILED
    goes_on(leader, followed(leader))
    leader.run(60)
    sent = [effect for effect in acted(leader) if isinstance(effect, Fence)]
    assert sent[0].send
    assert sent[0].attempt == theirs.attempts[-1].number + 1
    assert (leader.state(3), leader.incident(3).id) == (HostState.RECOVERED, theirs.id)


def test_a_host_that_answers_is_not_powered_off_whatever_the_record_says(leader):
    leader.deaf = {Fence}
    leader.kill(3, "off")
    leader.run(30)
    record = left_by(leader)
    del leader.dead[3]
    leader.deaf = set()
    leader.other_controller()
    leader.run(10)
    goes_on(leader, record)
    leader.run(60)
    assert not acted(leader), "an attempt with an unknown outcome, and life: a person decides"
    assert leader.incident(3).stopped


def test_what_the_leader_paused_stays_so(leader):
    leader.operator(Verb.PAUSE)
    goes_on(leader, followed(leader))
    leader.kill(2, "off")
    leader.run(60)
    assert leader.controller.state.cloud.paused_by
    assert not acted(leader)


@pytest.mark.parametrize("is_fenced", [True, False])
def test_life_that_this_controller_saw_voids_a_proof_that_the_leader_took_for_good(leader, is_fenced):
    """The leader did not see it, or could not write it any more. That it is silent again is no excuse."""
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    record = left_by(leader)
    theirs = leader.incident(3)
    assert theirs.state is HostState.FENCED
    if not is_fenced:
        theirs = replace(theirs, state=HostState.FAILED, proof=None, fenced_at=None)
        record = replace(record, incidents=(theirs,))
    leader.other_controller()
    leader.deaf = set()
    del leader.dead[3]
    leader.run(2)
    leader.kill(3, "off")
    leader.run(20)
    goes_on(leader, record)
    leader.run(60)
    assert not acted(leader)
    assert leader.state(3) is HostState.FAILED
    assert "answers" in leader.incident(3).stopped
    assert leader.incident(3).barred == ("bmc",)


def test_life_from_before_the_proof_voids_nothing(leader):
    """A standby that saw the host die, as the leader did."""
    record = followed_from_the_start(leader)
    goes_on(leader, record)
    leader.run(120)
    assert leader.state(3) is HostState.RECOVERED


def test_life_that_a_third_controller_saw_since_the_proof_voids_it_also_for_the_next_leader(leader):
    """Said to the one that stood by; the one that asked for the proof was gone by then."""
    record = followed_from_the_start(leader)
    (theirs,) = record.incidents
    seen_at = theirs.proof.at + 2
    leader.feed(SightTold(controller="one-3", alive=(SeenAlive(host=3, channel="icmp", at=seen_at),)))
    assert leader.now > seen_at
    goes_on(leader, record)
    leader.run(60)
    assert not acted(leader)
    assert leader.state(3) is HostState.FAILED
    assert "icmp from one-3 answers" in leader.incident(3).stopped


def test_a_host_whose_maintenance_ended_and_that_never_answered_since_is_not_shot_by_the_next_leader(leader):
    leader.excluded[3] = "a person works on it"
    leader.kill(3, "on")
    leader.other_controller()
    leader.run(10)
    del leader.excluded[3]
    leader.inventory()
    leader.run(90)
    record = left_by(leader)
    assert [incident.host for incident in record.incidents] == [3]
    leader.effects.clear()
    goes_on(leader, record)
    leader.run(90)
    assert not acted(leader)


def test_a_boot_that_each_controller_accounts_for_by_itself_is_known_from_the_moment_it_was_noticed():
    """Where no boots are on the record, the host that is back must not be taken for one that was never off."""
    cloud = seen()
    silent, alive = ({"neighbours": each, "heartbeat": each} for each in (Signal.SILENT, Signal.ALIVE))
    cloud.kill(3, "off")
    say(cloud, 3, **silent)
    cloud.run(30)
    record, fenced_at = replace(left_by(cloud), trusts=()), cloud.now
    del cloud.dead[3]
    say(cloud, 3, **alive)
    cloud.now, cloud.one_states[3] = fenced_at - 40, 2
    cloud.other_controller()
    cloud.run(10)
    cloud.kill(3, "off")
    say(cloud, 3, **silent)
    cloud.run(40)
    del cloud.dead[3]
    say(cloud, 3, **alive)
    cloud.boots[3] = "second"
    cloud.run(10)
    cloud.one_states[3] = 4
    cloud.effects.clear()
    goes_on(cloud, record)
    cloud.run(30)
    assert "never off" not in cloud.told()
    cloud.operator(Verb.UNFENCE, host=3)
    cloud.run(30)
    assert cloud.state(3) is HostState.OK, "it was given back"


@pytest.mark.parametrize("clock_ahead_s", [0.0, 60.0])
def test_a_boot_that_only_the_standby_accounted_for_is_not_the_one_from_before_the_power_off(clock_ahead_s):
    """The record names the boot before as long as the host is not given back, and has its moments by another clock."""
    cloud = seen()
    silent, alive = ({"neighbours": each, "heartbeat": each} for each in (Signal.SILENT, Signal.ALIVE))
    cloud.kill(3, "off")
    say(cloud, 3, **silent)
    cloud.run(30)
    record, fenced_at = left_by(cloud), cloud.now
    assert cloud.state(3) is HostState.RECOVERED
    del cloud.dead[3]
    say(cloud, 3, **alive)
    cloud.now = fenced_at - 40 + clock_ahead_s
    cloud.one_states[3] = 2
    cloud.other_controller()
    cloud.run(10)
    cloud.kill(3, "off")
    say(cloud, 3, **silent)
    cloud.run(40)
    del cloud.dead[3]
    say(cloud, 3, **alive)
    if clock_ahead_s:
        cloud.controller.state.view(3).boot_known_at = 0.0  # from before its start
        del cloud.boots[3]  # it answers, and nobody could log in yet
    else:
        cloud.boots[3] = "second"
    cloud.run(10)
    cloud.one_states[3] = 4
    cloud.effects.clear()
    goes_on(cloud, record)
    cloud.run(20)
    assert "never off" not in cloud.told()
    cloud.boots[3] = "first-3"
    cloud.run(20)
    assert "never off" in cloud.told(), "it would be, if that boot answered"


@pytest.mark.parametrize(("boot", "on_record"), [("second-3", True), ("second-3", False), ("first-3", True)])
def test_the_new_boot_that_a_standby_took_for_a_reboot_is_not_the_one_on_the_record(boot: str, on_record: bool):
    """For the standby the host has rebooted by itself. The leader, who waits for its return, knows the boot before."""
    cloud = away(seen())
    record = left_by(cloud) if on_record else replace(left_by(cloud), trusts=())
    cloud.other_controller()
    before = Reading(host=3, signal=Signal.ALIVE, sent_at=cloud.now - 60, boot_id="first-3")
    cloud.feed(EvidenceTaken(channel="boot-id", readings=(before,)))
    back(cloud, boot=boot)
    known = cloud.controller.state.trusts[3]
    assert (known.boot_id, "rebooted by itself" in cloud.told()) == (boot, boot == "second-3")
    goes_on(cloud, record)
    cloud.run(14)
    assert ("it was never off" in cloud.told()) == (boot == "first-3")
    assert failing(cloud) == ([] if boot == "second-3" else ["new boot"])


def test_a_pause_with_an_end_goes_over_and_no_standby_tells_of_its_end(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.run(10)
    cloud.controller.round([replace(commanded(Verb.PAUSE), for_s=60.0)], cloud.now)
    record = left_by(cloud)
    cloud.feed(LeadChanged(term=None, leader="two"))
    cloud.run(70)
    assert "the pause has ended" not in cloud.told(), "the other one may have paused for longer"
    cloud.kill(2, "off")
    still = replace(record.cloud, paused_until=cloud.now + 30)
    goes_on(cloud, replace(record, cloud=still, term=3))
    cloud.run(28)
    assert not acted(cloud)
    cloud.run(60)
    assert "the pause has ended" in cloud.told()
    assert cloud.state(2) is HostState.RECOVERED


def test_an_old_incident_of_ours_that_is_over_on_the_record_is_closed_here(leader):
    leader.kill(3, "off")
    leader.run(40)
    ours = leader.incident(3)
    assert leader.state(3) is HostState.RECOVERED
    leader.feed(LeadChanged(term=None, leader="two"))
    del leader.dead[3]
    leader.run(20)
    leader.effects.clear()
    empty = RecordTakenOver(term=4, led_meanwhile="two led in term 3", incidents=(), cloud=CloudRecord(), trusts=())
    goes_on(leader, empty)
    assert 3 not in leader.controller.state.incidents
    closed = leader.incidents[ours.id]
    assert (closed.open, "the shared record" in closed.closing) == (False, True)
    assert leader.controller.state.cloud.next_incident > ours.id, "no number is given twice"
    leader.run(60)
    assert leader.state(3) is HostState.OK
    assert not acted(leader)


def unreadable(cloud: Cloud, *, knows_host: bool = True) -> RecordTakenOver:
    """Another one has led meanwhile, and what stands on the record of the incident of host 3 is damaged."""
    number = cloud.incident(3).id
    cloud.feed(LeadChanged(term=None, leader="two"))
    cloud.run(20)
    cloud.effects.clear()
    unread = ((number, 3 if knows_host else None),)
    return replace(left_by(cloud, 4, "two led in term 3"), incidents=(), unread=unread)


@pytest.mark.parametrize("knows_host", [True, False])
def test_an_incident_of_ours_that_cannot_be_read_on_the_record_stays_open_and_waits_for_a_person(leader, knows_host):
    """The other one may have chosen destinations."""
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    ours = leader.incident(3)
    record = unreadable(leader, knows_host=knows_host)
    leader.deaf = set()
    goes_on(leader, record)
    leader.run(60)
    assert (leader.incident(3).id, leader.incident(3).open, leader.state(3)) == (ours.id, True, HostState.FENCED)
    assert not acted(leader)
    assert "two led in term 3" in leader.incident(3).hold
    told = [effect for effect in leader.ordered(Tell) if effect.severity is Severity.CRITICAL]
    assert [effect.text.split(";")[0] for effect in told] == [
        f"incident {ours.id} (kvm-03) on the shared record cannot be read"
    ]
    assert "ha-controller release kvm-03" in told[0].next_step
    leader.operator(Verb.RELEASE, host=3)
    leader.run(120)
    assert (leader.incident(3).id, leader.state(3)) == (ours.id, HostState.RECOVERED)


@pytest.mark.parametrize("begun", ["", "lifted", "restored"])
def test_nothing_is_ordered_of_an_unreadable_incident_before_it_is_released(begun: str):
    """Not with a person's `unfence` either, nor with one that was said before: the next leader could not read of it."""
    cloud = away(seen(record_is_shared=True))
    if begun:
        cloud.deaf = {OrderHost, LiftOrders}
        ours = replace(cloud.incident(3), in_force=(("bmc", ""),) if begun == "lifted" else ())
        ours = replace(ours, lifting=begun == "lifted", lever=Lever.RESTORE if begun == "restored" else ours.lever)
        cloud.controller.state.incidents[3] = cloud.incidents[ours.id] = ours
    record = unreadable(cloud)
    back(cloud, seconds=30)
    cloud.effects.clear()
    cloud.deaf = set()
    goes_on(cloud, record)
    cloud.run(20)
    cloud.operator(Verb.UNFENCE, host=3)
    cloud.run(5)
    (answer,) = cloud.ordered(Answer)
    assert (answer.code, "release kvm-03" in answer.text) == (4, True)
    assert not acted(cloud)
    assert not cloud.ordered(LiftOrders)
    cloud.operator(Verb.RELEASE, host=3)
    cloud.operator(Verb.UNFENCE, host=3, force=True)
    cloud.run(20)
    assert cloud.state(3) is HostState.OK


@pytest.mark.parametrize("verb", [Verb.CONFIRM_OFF, Verb.APPROVE, Verb.FENCE])
def test_of_an_unreadable_incident_no_word_is_taken_that_its_record_would_not_keep(leader, verb):
    leader.deaf = {Fence}
    leader.reconfigure(replace(SETTINGS, mode=Mode.APPROVE))
    leader.kill(3, "off")
    leader.run(30)
    assert leader.state(3) is HostState.SUSPECT
    goes_on(leader, unreadable(leader))
    before = leader.incident(3)
    leader.effects.clear()
    leader.operator(verb, host=3)
    leader.run(5)
    assert [(each.code, "release kvm-03" in each.text) for each in leader.ordered(Answer)] == [(4, True)]
    assert (leader.incident(3).proof, leader.incident(3).approved_by) == (before.proof, "")


def test_a_confirmation_that_was_under_way_at_the_take_over_is_not_taken_for_an_unreadable_incident(leader):
    leader.deaf = {Fence, ReadPower}
    leader.kill(3, "off")
    leader.run(30)
    leader.operator(Verb.CONFIRM_OFF, host=3)
    goes_on(leader, unreadable(leader))
    leader.run(30)
    assert leader.incident(3).proof is None


def test_a_host_that_answers_after_an_unverified_power_off_is_released_and_stays_stopped(leader):
    """Else neither `release` nor `unfence` would be taken."""
    leader.deaf = {Fence}
    leader.kill(3, "off")
    leader.run(30)
    del leader.dead[3]
    leader.run(10)
    assert leader.incident(3).stopped
    goes_on(leader, unreadable(leader))
    leader.run(30)
    leader.effects.clear()
    leader.operator(Verb.UNFENCE, host=3)
    leader.operator(Verb.RELEASE, host=3)
    assert (leader.incident(3).foreign, bool(leader.incident(3).stopped)) == ("", True)
    leader.operator(Verb.UNFENCE, host=3)
    leader.run(20)
    assert [each.code for each in leader.ordered(Answer)] == [4, 0, 0]
    assert leader.state(3) is HostState.OK


def test_an_incident_of_ours_that_nobody_else_can_have_gone_on_with_needs_no_record(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    ours = leader.incident(3)
    record = replace(unreadable(leader), led_meanwhile="")
    leader.deaf = set()
    goes_on(leader, record)
    leader.run(120)
    assert (leader.incident(3).id, leader.state(3)) == (ours.id, HostState.RECOVERED)
    assert "cannot be read" not in leader.told()


@pytest.mark.parametrize("why", ["another incident of the host", "ours is of another host"])
def test_an_incident_of_ours_that_cannot_be_the_unreadable_one_is_closed_with_the_truth(leader, why):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    ours, is_same = leader.incident(3), why.startswith("another")
    record = unreadable(leader)
    changes = {"incidents": (replace(ours, id=77),)} if is_same else {"unread": ((ours.id, 5),)}
    record = replace(record, **changes)
    goes_on(leader, record)
    closed = leader.incidents[ours.id]
    assert (closed.open, "cannot be read" in closed.closing) == (False, is_same)
    assert leader.controller.state.cloud.next_incident > ours.id
    host = "kvm-03" if is_same else "kvm-05"
    assert f"incident {ours.id} ({host}) on the shared record cannot be read; we have nothing of it" in leader.told()


@pytest.mark.parametrize(("theirs", "is_kept"), [((30, 31), True), ((50, 51), False)])
def test_a_number_that_a_standby_gave_to_another_host_is_not_the_unreadable_incident(theirs, is_kept: bool):
    """The host stands in the part that is gone; VMs are left over."""
    cloud, record = rebooted_under_another_leader()
    ours = cloud.incident(3)
    goes_on(cloud, replace(record, unread=((ours.id, None),), unread_vms=((ours.id, theirs),)))
    cloud.run(60)
    known = "what this controller has noted of it itself" if is_kept else "nothing of it"
    assert f"on the shared record cannot be read; we have {known}" in cloud.told()
    assert (cloud.incidents[ours.id].open, cloud.incident(3).open) == (is_kept, is_kept)
    assert is_kept or "2 VMs run again" in cloud.incident(3).closing


def test_an_incident_that_cannot_be_read_and_that_we_do_not_have_is_told_and_its_number_not_given_again(leader):
    record = replace(followed(leader), unread=((40, None), (41, 99)))
    goes_on(leader, record)
    told = [effect for effect in leader.ordered(Tell) if effect.severity is Severity.CRITICAL]
    texts = ["incident 40 on the shared record", "incident 41 (host 99) on the shared record"]
    assert [effect.text.split(" cannot")[0] for effect in told] == texts
    assert leader.controller.state.cloud.next_incident == 42
    leader.kill(2, "off")
    leader.run(30)
    assert leader.incident(2).id == 42


def test_a_host_of_which_nothing_is_on_the_record_needs_no_person(leader):
    record = left_by(leader)
    leader.kill(3, "off")
    leader.other_controller()
    leader.run(20)
    goes_on(leader, record)
    leader.run(60)
    assert leader.state(3) is HostState.RECOVERED, "nothing was ordered before"


@pytest.mark.parametrize("trusts", ["on the record", "on the record, without boots", "each controller's own"])
def test_vms_of_a_host_that_rebooted_when_nobody_led_are_not_forgotten(trusts: str):
    """The standby had accounted for that boot, with an incident that the record has not."""
    cloud = seen(record_is_shared=True)
    record = left_by(cloud)
    if trusts == "on the record, without boots":  # who wrote it could log in to no host
        record = replace(record, trusts=tuple(replace(each, boot_id="") for each in record.trusts))
    elif trusts != "on the record":
        record = replace(record, trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    cloud.reboot(3)
    cloud.run(20)
    assert cloud.incident(3).open
    assert not acted(cloud)
    goes_on(cloud, record)
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.state(3) is HostState.OK


def rebooted_under_another_leader(late_s: float = 0.0, *, reads: bool = True) -> tuple[Cloud, RecordTakenOver]:
    """Its record has no incident: that is over when we take over, or was never opened. OpenNebula keeps no boots.

    `late_s`: the OpenNebula that we read is so far behind. `reads`: whether it answers at all.
    """
    cloud = seen(record_is_shared=True)
    record = replace(left_by(cloud), trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    cloud.effects.clear()
    cloud.deaf = set() if reads else {ReadHost}
    cloud.reboot(3)
    cloud.unheard[3] -= late_s
    cloud.run(5)
    return cloud, record


def started_by_the_leader(cloud: Cloud, *vms: int) -> None:
    cloud.oned_notices(3)
    cloud.run(3)
    for vm in vms:
        cloud.become(vm, 3, 3)


def shut_down_by_its_guest(cloud: Cloud, vm: int) -> None:
    """OpenNebula tells it like one that was lost with its host."""
    cloud.become(vm, 8, found_missing_at=cloud.now)


def test_vms_that_a_standby_saw_run_again_after_a_reboot_are_no_news_when_it_leads():
    cloud, record = rebooted_under_another_leader()
    assert cloud.incident(3).open
    started_by_the_leader(cloud, 30, 31)
    cloud.run(3)
    assert not cloud.incident(3).open, "it sees that all run"
    assert "runs again on" not in cloud.told()
    shut_down_by_its_guest(cloud, 30)
    cloud.run(20)
    goes_on(cloud, record)
    cloud.run(60)
    assert not acted(cloud)
    assert len(cloud.incidents) == 1
    assert cloud.cloud.deaths == record.cloud.deaths


def test_a_standby_takes_for_running_again_only_what_opennebula_says_since():
    """RUNNING is what it believed before the reboot, and a standby may read a late oned."""
    cloud, record = rebooted_under_another_leader()
    cloud.run(120)
    assert cloud.incident(3).open
    assert not any(record.settled for record in cloud.incident(3).vms)
    assert not acted(cloud)
    goes_on(cloud, record)
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing


def test_a_standby_does_not_take_for_running_again_what_ran_before_the_reboot_by_a_late_opennebula():
    """It catches up, and what it hears then is older than the reboot, and newer than what it had said."""
    cloud, record = rebooted_under_another_leader(late_s=40)
    assert cloud.incident(3).open
    cloud.unheard[3] += 35
    cloud.run(10)
    assert not any(record.settled for record in cloud.incident(3).vms)
    cloud.oned_notices(3)
    cloud.run(20)
    goes_on(cloud, record)
    cloud.run(60)
    assert {order.vm for order in acted(cloud)} == {30, 31}
    assert "2 VMs run again" in cloud.incident(3).closing


def runs_again_and_its_follower_never_hears_when(cloud: Cloud) -> None:
    """The monitoring times are written by the leader of the zone alone; states of VMs go to all."""
    heard_at = cloud.unheard[3]
    started_by_the_leader(cloud, 30, 31)
    cloud.unheard[3] = heard_at


@pytest.mark.parametrize("later_s", [30.0, 400.0])
def test_a_standby_hears_from_the_host_itself_that_its_vms_run_again(later_s: float):
    cloud, record = rebooted_under_another_leader()
    runs_again_and_its_follower_never_hears_when(cloud)
    cloud.run(5)
    assert not cloud.incident(3).open
    cloud.run(later_s)
    goes_on(cloud, record)
    cloud.run(60)
    assert not acted(cloud)
    assert len(cloud.incidents) == 1


@pytest.mark.parametrize("later_s", [30.0, 400.0])
def test_a_new_leader_asks_a_host_that_rebooted_before_it_has_opennebula_do_so(later_s: float):
    """Its VMs run: it must not go OFFLINE."""
    cloud, record = rebooted_under_another_leader()
    cloud.no_answer.add(3)
    runs_again_and_its_follower_never_hears_when(cloud)
    cloud.run(later_s)
    assert cloud.incident(3).open
    cloud.no_answer.clear()
    cloud.deaf.add(ReadHost)  # OpenNebula is slow at first
    goes_on(cloud, record)
    cloud.run(20)
    cloud.deaf.clear()
    cloud.run(60)
    assert not acted(cloud)
    assert "2 VMs run again" in cloud.incident(3).closing


def test_a_new_leader_has_opennebula_ask_a_host_anew_that_rebooted_and_does_not_say_what_runs_there():
    cloud, record = rebooted_under_another_leader()
    cloud.no_answer.add(3)
    goes_on(cloud, record)
    cloud.run(60)
    steps = [order.step for order in acted(cloud) if isinstance(order, OrderHost)]
    assert steps == [HostStep.OFFLINE, HostStep.ENABLE]
    assert "2 VMs run again" in cloud.incident(3).closing


def test_of_a_reboot_in_which_the_leader_died_only_what_did_not_run_again_is_started():
    cloud, record = rebooted_under_another_leader()
    started_by_the_leader(cloud, 30)
    cloud.run(3)
    shut_down_by_its_guest(cloud, 30)
    cloud.run(20)
    goes_on(cloud, record)
    cloud.run(60)
    assert [order.vm for order in acted(cloud)] == [31]
    assert "1 VMs run again" in cloud.incident(3).closing


def test_a_standby_that_did_not_see_what_became_of_an_old_reboot_starts_nothing_that_its_guest_may_have_ended():
    """It could read neither OpenNebula nor the host meanwhile, and another one led."""
    cloud, record = rebooted_under_another_leader()
    cloud.deaf.add(ReadHost)
    cloud.no_answer.add(3)
    started_by_the_leader(cloud, 30, 31)
    cloud.run(200)
    shut_down_by_its_guest(cloud, 30)
    cloud.run(200)
    cloud.deaf.clear()
    cloud.no_answer.clear()
    goes_on(cloud, record)
    cloud.run(60)
    assert not acted(cloud)
    assert "vm-30 is left alone: it ended before this controller led: it cannot be told" in cloud.told()
    assert cloud.incident(3).vm(31).stage is VmStage.RUNNING


@pytest.mark.parametrize("meanwhile", ["nobody led", "one led"])
def test_vms_of_an_old_reboot_are_started_when_nobody_else_has_led_since(meanwhile: str):
    cloud, record = rebooted_under_another_leader()
    cloud.oned_notices(3)
    cloud.run(400)
    goes_on(cloud, replace(record, led_meanwhile="" if meanwhile == "nobody led" else INHERITED))
    cloud.run(60)
    is_started = meanwhile == "nobody led"
    assert {order.vm for order in acted(cloud)} == ({30, 31} if is_started else set())
    next_step = "What that ended is started again there" if is_started else "What is off by now is not started"
    assert f"2 VMs have no outcome yet: vm-30, vm-31 | {next_step}" in cloud.told()


def test_a_reboot_that_waits_for_a_person_says_so_when_the_lead_is_taken():
    cloud, record = rebooted_under_another_leader()
    cloud.run(20)
    seen_at = cloud.incident(3).opened_at
    inherited = replace(record.cloud, inherited_at=seen_at + 1, inherited=INHERITED)
    goes_on(cloud, replace(record, cloud=inherited))
    cloud.run(30)
    assert not acted(cloud)
    assert "2 VMs have no outcome yet: vm-30, vm-31 | See what was done, then: ha-controller release" in cloud.told()


def test_what_a_standby_saw_that_is_no_business_of_that_host_any_more_is_told_by_the_next_leader():
    """The leader died before it could say so."""
    cloud, record = rebooted_under_another_leader()
    cloud.oned_notices(3)
    cloud.vms[30] = replace(cloud.vms[30], host=5, state=3, lcm_state=3, label="RUNNING")
    del cloud.domains[3, 30]
    cloud.run(3)
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT
    assert "vm-30 is" not in cloud.told()
    goes_on(cloud, record)
    assert "vm-30 was left alone before this controller led: somebody else moved it to host 5" in cloud.told()


def test_a_boot_that_waits_to_be_looked_at_when_the_lead_is_taken_is_old_in_the_same_way():
    """A standby that cannot read OpenNebula has no incident of it."""
    cloud = seen(record_is_shared=True)
    record = replace(left_by(cloud), trusts=())
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(6)
    cloud.effects.clear()
    cloud.deaf.add(ReadHost)
    cloud.reboot(3)
    cloud.run(5)
    started_by_the_leader(cloud, 30, 31)
    cloud.run(400)
    shut_down_by_its_guest(cloud, 30)
    cloud.run(60)
    cloud.deaf.clear()
    goes_on(cloud, record)
    cloud.run(60)
    assert not [order for order in acted(cloud) if isinstance(order, ResumeVm)]
    assert "it cannot be told whether vm-30 ran until then" in cloud.told()


@pytest.mark.parametrize("counted", [True, False])
def test_a_reboot_counts_once_as_a_death_of_its_host(counted: bool):
    cloud, record = rebooted_under_another_leader()
    theirs = Death(at=cloud.now - 2, host=3, host_name="kvm-03", vms=(30, 31))
    deaths = (*record.cloud.deaths, *((theirs,) if counted else ()))
    goes_on(cloud, replace(record, cloud=replace(record.cloud, deaths=deaths)))
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert [death.host for death in cloud.cloud.deaths] == [3]


def test_a_reboot_that_a_standby_noticed_late_counts_once_as_a_death_of_its_host():
    """OpenNebula could not be read for a minute; who led has counted it then."""
    cloud, record = rebooted_under_another_leader(reads=False)
    theirs = Death(at=cloud.now, host=3, host_name="kvm-03", vms=(30, 31))
    cloud.run(60)
    cloud.deaf.clear()
    cloud.run(5)
    assert cloud.incident(3).opened_at - theirs.at > 50
    goes_on(cloud, replace(record, cloud=replace(record.cloud, deaths=(theirs,))))
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.cloud.deaths == (theirs,)


def test_a_reboot_counts_once_also_if_the_lead_is_taken_twice_before_its_vms_run():
    """Nothing of the first time could be put on the record."""
    cloud, record = rebooted_under_another_leader()
    theirs = Death(at=cloud.now - 2, host=3, host_name="kvm-03", vms=(30, 31))
    record = replace(record, cloud=replace(record.cloud, deaths=(theirs,)))
    cloud.run(60)
    goes_on(cloud, record)
    cloud.feed(LeadChanged(term=None, trouble="it could not be shared"))
    cloud.run(5)
    goes_on(cloud, replace(record, term=3))
    cloud.run(60)
    assert "2 VMs run again" in cloud.incident(3).closing
    assert cloud.cloud.deaths == (theirs,)


def test_a_crash_after_the_take_over_forgets_no_vm_of_such_a_reboot():
    """Before OpenNebula could be read once."""
    cloud, record = rebooted_under_another_leader()
    cloud.deaf.add(ReadHost)
    goes_on(cloud, record)
    cloud.run(1)
    cloud.deaf.clear()
    cloud.restart()
    cloud.run(60)
    assert {order.vm for order in acted(cloud) if isinstance(order, ResumeVm)} == {30, 31}
    assert "2 VMs run again" in cloud.incident(3).closing


def test_a_record_that_is_not_whole_is_taken_over_and_waits_for_a_person(leader):
    leader.deaf = {MoveVm}
    leader.kill(3, "off")
    leader.run(30)
    theirs = leader.incident(3)
    goes_on(leader, followed(leader), inherited=INHERITED)
    leader.run(60)
    assert not acted(leader)
    assert leader.incident(3).id == theirs.id
    assert leader.incident(3).hold.startswith("takeover: one led in term 1")


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.RESUME, Verb.HOLD, Verb.RELEASE, Verb.CONFIRM_OFF, Verb.FENCE])
def test_a_standby_refuses_what_only_the_record_of_the_leader_would_keep(make_cloud, verb):
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.feed(LeadChanged(term=None, leader="one"))
    cloud.run(5)
    before = cloud.controller.state.cloud, dict(cloud.controller.state.incidents)
    cloud.operator(verb, host=3)
    (answer,) = cloud.ordered(Answer)
    assert answer.code == 9
    assert answer.text.startswith("One leads, not this controller")
    assert (cloud.controller.state.cloud, cloud.controller.state.incidents) == before


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.CONFIRM_OFF])
def test_nobody_hears_that_an_order_is_done_which_came_in_with_the_end_of_the_lead(make_cloud, verb):
    """The lead ends while the round is on its way: what that decides is on no record that the next leader reads."""
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.feed(LeadChanged(term=1))
    cloud.deaf = {Fence}
    cloud.kill(3, "off")
    cloud.run(30)
    cloud.controller.state.hosts[3] = replace(cloud.controller.state.hosts[3], levels=())  # nothing to be read first
    decision = cloud.controller.round([commanded(verb), LeadChanged(term=None, trouble="etcd is gone")], cloud.now)
    (answer,) = [each for each in decision.effects if isinstance(each, Answer)]
    assert decision.term is None, "so it goes to no shared record"
    assert (answer.code, "it may not count" in answer.text) == (6, True)


def test_what_was_decided_before_the_record_is_taken_over_leaves_in_no_later_term(make_cloud):
    """One slow commit, and all of it is in one round."""
    cloud = make_cloud(settings=replace(SETTINGS, record_is_shared=True))
    cloud.run(10)
    state = cloud.controller.state
    state.out.append(Drill(host=3, request=8, devices=("bmc",), not_after=cloud.now + 3))
    record = RecordTakenOver(term=2, led_meanwhile="", incidents=(), cloud=CloudRecord(next_incident=5), trusts=())
    events = [commanded(Verb.PAUSE), LeadChanged(term=None), record, LeadChanged(term=2)]
    decision = cloud.controller.round(events, cloud.now)
    assert (decision.term, state.cloud.paused_by) == (2, "")
    assert not [each for each in decision.effects if isinstance(each, Order)]
    assert [each.code for each in decision.effects if isinstance(each, Answer)] == [6]
