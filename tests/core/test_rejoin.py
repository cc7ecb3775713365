"""The way back of a fenced host: nothing that speaks against it is passed over, and no VM runs twice because of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from world import SETTINGS, Cloud, say, seen

from ha_controller.core import rejoin, report
from ha_controller.core.effects import (
    Answer,
    AskDomains,
    DestroyDomain,
    Fence,
    HostStep,
    MoveVm,
    OrderHost,
    PowerOn,
    ReadHost,
    ResumeVm,
    Tell,
)
from ha_controller.core.events import DomainDestroyed, EvidenceTaken, InventoryRead, Verb
from ha_controller.core.incident import Lever, Proof, VmStage
from ha_controller.core.model import Device, HostState, PowerState, Reading, Signal, VmPolicy
from ha_controller.core.state import DomainsView

ASKED = {"hosts_asked": True}


def away(cloud: Cloud) -> Cloud:
    """Host 3 died, was powered off, and its VMs run elsewhere."""
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    cloud.run(10)
    assert cloud.state(3) is HostState.RECOVERED
    return cloud


def shows(cloud: Cloud, signal: Signal) -> None:
    if cloud.elsewhere:
        say(cloud, 3, neighbours=signal, heartbeat=signal)


def back(cloud: Cloud, *, seconds: float = 14, boot: str = "second-3") -> Cloud:
    """It answers again, after another boot."""
    del cloud.dead[3]
    shows(cloud, Signal.ALIVE)
    if cloud.boots:
        cloud.boots[3] = boot
    cloud.run(seconds)
    return cloud


def made(**changes: object) -> Cloud:
    cloud = Cloud(settings=replace(SETTINGS, **changes))
    cloud.run(6)
    return cloud


def conditions(cloud: Cloud) -> dict[str, rejoin.Condition]:
    state = cloud.controller.state
    return {each.name: each for each in rejoin.gate(state, state.incidents[3], cloud.now)}


def failing(cloud: Cloud) -> list[str]:
    return [name for name, each in conditions(cloud).items() if not each.passed]


def unfenced(cloud: Cloud, **flags: bool) -> Answer:
    cloud.operator(Verb.UNFENCE, 3, **flags)
    return cloud.ordered(Answer)[-1]  # type: ignore[return-value]


def restored(cloud: Cloud) -> bool:
    return any(order.step is HostStep.RESTORE for order in cloud.ordered(OrderHost))  # type: ignore[union-attr]


def change(cloud: Cloud, **fields: object) -> None:
    """The record of the incident is another one."""
    state = cloud.controller.state
    state.incidents[3] = replace(state.incidents[3], **fields)


# --- each condition ---------------------------------------------------------------------------------------------------


def test_a_host_that_is_well_passes_everything_that_is_asked():
    cloud = back(away(seen(**ASKED)))
    assert failing(cloud) == []
    assert len(conditions(cloud)) == 7


def test_a_host_that_does_not_answer_or_only_just_does_is_not_readmitted():
    cloud = away(made())
    assert failing(cloud) == ["answers"]
    back(cloud, seconds=5)
    assert "for 5 s only" in conditions(cloud)["answers"].reason
    assert unfenced(cloud, force=True).code == 4
    cloud.run(6)
    assert failing(cloud) == []


def test_the_same_boot_as_before_the_power_off_is_never_taken_for_a_new_one():
    cloud = back(away(seen()), boot="first-3")
    assert failing(cloud) == ["new boot"]
    assert "it was never off" in conditions(cloud)["new boot"].reason
    assert unfenced(cloud, force=True).code == 4, "nobody may answer for it who cannot see what runs there"
    assert not restored(cloud)


def test_a_boot_from_before_the_power_off_is_not_new_because_it_was_new_once():
    cloud = seen()
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    cloud.run(3)
    state = cloud.controller.state
    assert cloud.state(3) is HostState.FAILED
    reading = Reading(host=3, signal=Signal.ALIVE, sent_at=cloud.now - 2, boot_id="second-3")
    cloud.feed(EvidenceTaken(channel="boot-id", readings=(reading,)))
    assert state.views[3].new_boot is not None
    state.incidents[3] = replace(state.incidents[3], fenced_at=cloud.now + 1)
    assert not conditions(cloud)["new boot"].passed


def test_a_boot_that_is_not_known_blocks_only_if_no_power_device_has_proven_that_it_was_off():
    cloud = back(away(made()))
    assert conditions(cloud)["new boot"].passed
    change(cloud, proof=Proof(at=cloud.now, text="confirmed off by ann"))
    assert not conditions(cloud)["new boot"].passed
    change(cloud, proof=None)
    assert not conditions(cloud)["new boot"].passed
    assert "--force" in unfenced(cloud).text
    assert unfenced(cloud, force=True).code == 0, "a person who rebooted it may say so"


def test_a_host_whose_heartbeat_on_the_storage_stands_still_is_not_readmitted():
    cloud = back(away(seen()))
    say(cloud, 3, heartbeat=Signal.SILENT)
    cloud.run(14)
    assert "storage" in failing(cloud)
    assert unfenced(cloud).code == 4
    say(cloud, 3, heartbeat=Signal.ALIVE)
    cloud.run(12)
    assert failing(cloud) == []


def test_a_host_that_never_wrote_a_heartbeat_is_not_judged_by_one():
    cloud = back(away(made()))
    assert "no heartbeat" in conditions(cloud)["storage"].reason


@pytest.mark.parametrize("answered", [True, False])
def test_an_order_for_one_of_its_vms_that_is_under_way_is_waited_for(answered):
    cloud = back(away(made()))
    [first, *others] = cloud.controller.state.incidents[3].vms
    change(cloud, vms=(replace(first, answered=answered, ordered_at=cloud.now - 1), *others))
    assert failing(cloud) == ([] if answered else ["no order under way"])


def test_an_order_whose_answer_was_lost_long_ago_is_not_waited_for_without_end():
    cloud = back(away(made()))
    [first, *others] = cloud.controller.state.incidents[3].vms
    change(cloud, vms=(replace(first, answered=False, ordered_at=cloud.now - 60), *others))
    assert failing(cloud) == []


def test_a_host_that_dies_again_and_again_stays_out_until_a_person_says_that_it_is_repaired():
    cloud = away(made(quarantine_after=1))
    back(cloud)
    assert failing(cloud) == ["not in quarantine"]
    assert unfenced(cloud, force=True).code == 4
    assert unfenced(cloud, repaired=True).code == 0


def test_explain_shows_the_list_as_long_as_the_host_is_away():
    cloud = away(made())
    state = cloud.controller.state
    shown = report.explain(state, state.hosts[3], cloud.now)["rejoin"]
    assert [each["condition"] for each in shown if not each["passes"]] == ["answers"]
    assert report.explain(state, state.hosts[4], cloud.now)["rejoin"] == []


# --- leftovers --------------------------------------------------------------------------------------------------------


def haunted(**changes: object) -> Cloud:
    """Host 3 is back, and vm-30, which runs elsewhere by now, is there as well."""
    cloud = away(seen(**{**ASKED, **changes}))
    cloud.domains[3, 30] = "running"
    return back(cloud)


@pytest.mark.parametrize("what", ["running", "paused"])
def test_a_domain_of_a_vm_that_runs_elsewhere_blocks_whatever_anybody_says(what):
    cloud = away(seen(**ASKED))
    cloud.domains[3, 30] = what
    back(cloud)
    assert failing(cloud) == ["no leftover domains"]
    assert unfenced(cloud, force=True, repaired=True).code == 4
    assert not restored(cloud)
    assert cloud.one_states[3] == 4


def test_people_are_called_once_with_both_hosts_and_told_when_it_is_over():
    cloud = haunted()
    cloud.run(60)
    there = f"kvm-{cloud.vms[30].host:02}"
    said = f"kvm-03 is back and still has vm-30 (domain one-30; OpenNebula has it RUNNING on {there})"
    assert cloud.told().count(said) == 1
    assert cloud.incident(3).hold_needs_person
    cloud.domains[3, 30] = "absent"
    cloud.run(12)
    assert "no domain is left over there any more" in cloud.told()
    assert not cloud.incident(3).hold
    assert unfenced(cloud).code == 0


def test_the_end_of_leftovers_is_told_after_a_restart_too():
    """Which hold it is stands on record; what was told does not."""
    cloud = haunted()
    cloud.restart()
    cloud.domains[3, 30] = "absent"
    cloud.run(30)
    assert cloud.told().count("no domain is left over there any more") == 1
    assert not cloud.incident(3).hold


def test_a_host_whose_proof_was_void_is_looked_at_too_and_nothing_is_destroyed_there():
    cloud = seen(**ASKED, destroy_leftovers=True)
    cloud.domains[3, 30] = "running"
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    while cloud.vms[30].host == 3:
        cloud.run(0.2)
    back(cloud, boot="first-3", seconds=40)
    assert cloud.state(3) is HostState.FAILED
    assert cloud.told().count("is back and still has vm-30") == 1
    assert cloud.ordered(DestroyDomain) == []
    assert unfenced(cloud, force=True).code == 4


def test_a_host_that_does_not_say_what_runs_on_it_is_not_readmitted():
    cloud = away(seen(**ASKED))
    cloud.no_answer.add(3)
    back(cloud)
    assert failing(cloud) == ["no leftover domains"]
    assert unfenced(cloud).code == 4
    assert unfenced(cloud, force=True).code == 0, "it was off, and another boot answers"


def test_one_that_was_never_off_and_does_not_say_what_runs_on_it_cannot_be_forced():
    cloud = away(seen(**ASKED))
    cloud.no_answer.add(3)
    back(cloud, boot="first-3")
    assert unfenced(cloud, force=True).code == 4


def test_one_that_a_person_called_off_and_does_not_say_what_runs_on_it_cannot_be_forced():
    cloud = away(made(**ASKED))
    cloud.no_answer.add(3)
    back(cloud)
    change(cloud, proof=Proof(at=cloud.now, text="confirmed off by ann"))
    assert unfenced(cloud, force=True).code == 4


@pytest.mark.parametrize("asked", ["before the power-off", "long ago", "just now"])
def test_only_what_it_said_a_moment_ago_and_since_the_power_off_says_that_nothing_is_left(asked):
    cloud = back(away(made(**ASKED)))
    fenced_at = cloud.incident(3).fenced_at
    moments = {"before the power-off": fenced_at, "long ago": cloud.now - 16, "just now": cloud.now - 1}
    if asked == "before the power-off":
        cloud.now = fenced_at + 5
    said = DomainsView(asked_at=moments[asked], running=frozenset(), others=frozenset())
    cloud.controller.state.views[3].domains = said
    assert conditions(cloud)["no leftover domains"].passed is (asked == "just now")


def test_what_it_said_before_it_came_back_says_nothing():
    cloud = away(seen(**ASKED))
    cloud.deaf.add(AskDomains)
    back(cloud)
    assert unfenced(cloud).code == 6, "it is being asked"


def test_a_vm_that_is_still_its_own_is_no_leftover():
    cloud = away(seen(**ASKED))
    cloud.vms[30] = replace(cloud.vms[30], host=3)
    back(cloud)
    assert failing(cloud) == []


def test_without_a_login_the_zombies_of_opennebula_block():
    cloud = back(away(made()))
    assert failing(cloud) == []
    cloud.zombies[3] = (30,)
    cloud.inventory()
    assert failing(cloud) == ["no leftover domains"]
    assert unfenced(cloud, force=True).code == 4


# --- destroying them --------------------------------------------------------------------------------------------------


def test_nothing_is_destroyed_unless_the_operator_allows_it():
    cloud = haunted()
    cloud.run(60)
    assert cloud.ordered(DestroyDomain) == []


def test_a_leftover_is_destroyed_the_host_is_asked_again_and_only_then_it_goes_on():
    cloud = haunted(destroy_leftovers=True, rejoins_itself=True)
    cloud.run(30)
    [order] = cloud.ordered(DestroyDomain)
    assert (order.host, order.vm, order.runs_on) == (3, 30, cloud.vms[30].host)
    restores = [at for at, each in cloud.effects if isinstance(each, OrderHost) and each.step is HostStep.RESTORE]
    asked = [at for at, each in cloud.effects if each == AskDomains(host=3)]
    assert any(cloud.first(DestroyDomain) <= at <= restores[0] for at in asked)
    assert cloud.first(DestroyDomain) < restores[0]
    assert cloud.state(3) is HostState.OK


Doubt = Callable[[Cloud], object]
DOUBTS: dict[str, Doubt] = {
    "OpenNebula has it UNKNOWN": lambda cloud: cloud.become(30, 3, 16),
    "OpenNebula has it UNKNOWN, and it is there": lambda cloud: (
        cloud.domains.__setitem__((cloud.vms[30].host, 30), "running"),
        cloud.become(30, 3, 16),
    ),
    "OpenNebula has it POWEROFF": lambda cloud: cloud.become(30, 8),
    "that host does not have it": lambda cloud: cloud.domains.__setitem__((cloud.vms[30].host, 30), "absent"),
    "that host has it paused": lambda cloud: cloud.domains.__setitem__((cloud.vms[30].host, 30), "paused"),
    "that host does not say": lambda cloud: cloud.no_answer.add(cloud.vms[30].host),
    "the cloud is paused": lambda cloud: cloud.operator(Verb.PAUSE),
    "the incident is held": lambda cloud: cloud.operator(Verb.HOLD, 3),
    "OpenNebula cannot be read": lambda cloud: cloud.deaf.add(ReadHost),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_domain_that_may_be_the_only_one_of_its_vm_is_never_destroyed(doubt):
    cloud = away(seen(**ASKED, destroy_leftovers=True))
    cloud.domains[3, 30] = "running"
    DOUBTS[doubt](cloud)
    back(cloud, seconds=40)
    assert cloud.ordered(DestroyDomain) == []
    assert "no leftover domains" in failing(cloud)


def test_a_destroy_that_fails_is_tried_three_times_then_a_person_is_called():
    cloud = away(seen(**ASKED, destroy_leftovers=True, rejoins_itself=True))
    cloud.domains[3, 30], cloud.destroy_fails = "running", "no answer"
    back(cloud, seconds=150)
    assert [order.attempt for order in cloud.ordered(DestroyDomain)] == [1, 2, 3]
    assert "one-30 could not be destroyed: no answer" in cloud.told()
    assert not restored(cloud)


def test_a_late_report_of_an_earlier_try_changes_nothing():
    cloud = haunted(destroy_leftovers=True)
    before = cloud.controller.state.views[3].domains
    cloud.feed(DomainDestroyed(host=3, incident=cloud.incident(3).id, vm=30, attempt=7))
    assert cloud.controller.state.views[3].domains is before


# --- by itself --------------------------------------------------------------------------------------------------------


def test_by_default_a_host_is_readmitted_by_a_person_only():
    cloud = back(away(seen(**ASKED)), seconds=120)
    assert not restored(cloud)


def test_with_auto_it_is_readmitted_as_soon_as_it_passes_the_gate():
    cloud = back(away(seen(**ASKED, rejoins_itself=True)), seconds=5)
    assert not restored(cloud)
    cloud.run(15)
    assert restored(cloud)
    assert cloud.state(3) is HostState.OK
    assert "given back to OpenNebula" in cloud.told()


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.HOLD])
def test_nothing_is_readmitted_by_itself_while_a_person_says_stop(verb):
    cloud = away(seen(rejoins_itself=True))
    cloud.operator(verb, 3)
    back(cloud, seconds=60)
    assert not restored(cloud)


# --- VMs that were left behind ----------------------------------------------------------------------------------------


def behind(**changes: object) -> Cloud:
    """vm-30 cannot move, because its disks are on host 3; vm-31 was moved."""
    cloud = Cloud()
    cloud.vms[30] = replace(cloud.vms[30], storage_obstacle="its disks are on the host", **changes)
    cloud.run(6)
    return away(cloud)


def test_vms_that_could_not_move_run_again_when_their_host_is_readmitted():
    cloud = back(behind())
    cloud.oned_notices(3)
    assert unfenced(cloud).code == 0
    cloud.run(10)
    assert {order.vm for order in cloud.ordered(ResumeVm)} == {30}
    assert (cloud.vms[30].host, cloud.vms[30].label) == (3, "RUNNING")
    assert cloud.incident(3).closed_at


def test_that_death_of_the_host_is_counted_once():
    cloud = back(behind())
    deaths = cloud.cloud.deaths
    cloud.oned_notices(3)
    unfenced(cloud)
    cloud.run(10)
    assert cloud.cloud.deaths == deaths


@pytest.mark.parametrize("policy", [VmPolicy.LEAVE, VmPolicy.POWEROFF])
def test_a_vm_whose_policy_says_so_is_not_started(policy):
    cloud = back(behind(policy=policy))
    cloud.oned_notices(3)
    unfenced(cloud)
    cloud.run(10)
    assert cloud.ordered(ResumeVm) == []
    assert "is back: it is given back" not in cloud.told()


def ordered_away() -> Cloud:
    """An order to move vm-30 to host 5 was given once, and OpenNebula still has it on host 3."""
    cloud = back(behind())
    cloud.oned_notices(3)
    records = cloud.controller.state.incidents[3].vms
    ordered = {30: replace(records[0], order=1, ordered_to=(5,))}
    change(cloud, vms=tuple(ordered.get(each.id, each) for each in records))
    return cloud


@pytest.mark.parametrize(("there", "starts"), [("absent", {30}), ("running", set()), ("paused", set())])
def test_a_vm_that_was_ordered_away_is_started_only_if_it_is_not_where_it_was_ordered_to(there, starts):
    cloud = ordered_away()
    cloud.domains[5, 30] = there
    assert unfenced(cloud).code == 0
    cloud.run(20)
    assert {order.vm for order in cloud.ordered(ResumeVm)} == starts


def test_a_vm_that_was_ordered_to_a_host_that_cannot_be_asked_is_left_alone():
    cloud = ordered_away()
    cloud.no_answer.add(5)
    unfenced(cloud)
    cloud.run(330)
    assert cloud.ordered(ResumeVm) == []
    assert "vm-30 is left alone: not RUNNING after 300 s: host 5, where it may run, could not be asked" in cloud.told()


def test_a_vm_that_was_left_because_it_may_run_elsewhere_is_not_started_later_either():
    """When the host is back, OpenNebula has heard of it for long, and the history is no news any more."""
    cloud = Cloud()
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
    cloud.domains[5, 30] = "running"
    cloud.run(6)
    back(away(cloud))
    assert "it runs on host 5" in cloud.incident(3).vm(30).reason
    cloud.vms[30] = replace(cloud.vms[30], tried_on=())
    cloud.oned_notices(3)
    unfenced(cloud)
    cloud.run(20)
    assert cloud.ordered(ResumeVm) == []
    assert cloud.told().count("vm-30 is left alone: it runs on host 5") == 2


def on_the_way(state: int, lcm_state: int, *, here: str = "absent") -> Cloud:
    """Host 3 was proven off, and answers while vm-30 is on its way to another host; then it is given back."""
    cloud = seen()
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    shows(cloud, Signal.SILENT)
    while not cloud.ordered(MoveVm):
        cloud.run(0.2)
    for order in cloud.ordered(MoveVm):
        cloud._accepted(order)
        cloud.become(order.vm, *((state, lcm_state) if order.vm == 30 else (3, 3)), host=order.destination)
    cloud.domains[cloud.vms[30].host, 30] = "absent"
    cloud.domains[3, 30] = here
    back(cloud, seconds=30)
    assert cloud.state(3) is HostState.FAILED, "life has voided the proof"
    cloud.deaf.clear()
    assert unfenced(cloud).code == 0
    cloud.run(3)
    return cloud


def test_a_vm_on_its_way_when_its_host_answers_again_has_its_outcome_where_that_ends():
    cloud = on_the_way(3, 2)  # BOOT
    place = cloud.vms[30].host
    assert not cloud.incident(3).vm(30).settled
    cloud.become(30, 3, 3)
    cloud.run(5)
    assert cloud.incident(3).vm(30).reason == f"runs on kvm-{place:02}, where it was moved"
    assert not cloud.incident(3).open
    assert cloud.ordered(ResumeVm) == []


def test_one_that_arrived_powered_off_is_started_where_it_is():
    cloud = on_the_way(8, 0)
    place = cloud.vms[30].host
    cloud.run(10)
    assert [(order.vm, order.host) for order in cloud.ordered(ResumeVm)] == [(30, place)]
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_one_that_is_still_on_the_host_that_came_back_is_not_started_elsewhere():
    cloud = on_the_way(8, 0, here="running")
    cloud.run(330)
    assert cloud.ordered(ResumeVm) == []


def test_one_that_arrived_on_a_host_that_fails_then_does_not_wait_for_ever():
    cloud = on_the_way(8, 0, here="paused")
    place = cloud.vms[30].host
    cloud.kill(place, "mute")  # it cannot be powered off, so nobody moves its VMs
    for channel in ("neighbours", "heartbeat"):
        cloud.elsewhere[channel][place] = Signal.SILENT
    cloud.run(30)
    cloud.domains[3, 30] = "absent"
    cloud.run(200)
    assert not cloud.incident(3).vm(30).settled
    cloud.run(200)
    assert cloud.ordered(ResumeVm) == []
    assert "vm-30 is left alone: not RUNNING after 300 s" in cloud.told()


def test_one_whose_start_failed_there_is_left_with_the_reason():
    cloud = on_the_way(3, 36)
    assert "its start failed: BOOT_FAILURE on kvm-" in cloud.incident(3).vm(30).reason
    assert cloud.incident(3).vm(30).stage is VmStage.LEFT


def test_a_vm_that_somebody_switched_off_meanwhile_or_moved_is_not_started():
    for changed in ({"state": 8, "lcm_state": 0, "label": "POWEROFF"}, {"host": 5}):
        cloud = back(behind())
        cloud.vms[30] = replace(cloud.vms[30], **changed)
        unfenced(cloud)
        cloud.run(10)
        assert cloud.ordered(ResumeVm) == []
        assert "is back: it is given back" not in cloud.told()


# --- power on ---------------------------------------------------------------------------------------------------------


def test_by_default_no_host_is_powered_on():
    cloud = away(made())
    cloud.run(60)
    assert cloud.ordered(PowerOn) == []


def test_a_recovered_host_is_powered_on_once_by_the_devices_that_proved_it_off():
    cloud = made(power_on=True)
    cloud.kill(3, "off")
    cloud.run(60)
    [order] = cloud.ordered(PowerOn)
    assert (order.host, order.devices) == (3, ("bmc",))
    assert cloud.incident(3).powered_on_at is not None
    assert cloud.incident(3).recovered_at <= cloud.first(PowerOn)
    cloud.restart()
    cloud.run(60)
    assert len(cloud.ordered(PowerOn)) == 1


def test_one_that_cannot_be_powered_on_is_told_and_not_tried_again():
    cloud = made(power_on=True)
    cloud.power_on_fails = "it cannot switch on"
    away(cloud)
    cloud.run(60)
    assert len(cloud.ordered(PowerOn)) == 1
    assert "could not be powered on again (bmc: it cannot switch on)" in cloud.told()


def never(cloud: Cloud, why: str) -> None:
    cloud.run(60)
    assert cloud.ordered(PowerOn) == []
    state = cloud.controller.state
    assert why in rejoin.why_not_powered_on(state, state.hosts[3], state.incidents[3], cloud.now)


def test_a_host_in_quarantine_is_not_powered_on():
    never(away(made(power_on=True, quarantine_after=1)), "quarantine")


def test_no_host_is_powered_on_while_another_one_is_in_trouble():
    cloud = made(power_on=True)
    cloud.deaf.add(PowerOn)
    cloud.kill(5, "mute")
    cloud.run(30)
    assert cloud.state(5) is not HostState.OK
    away(cloud)
    never(cloud, "host 5 is")


def test_a_host_that_a_person_called_off_is_not_powered_on():
    cloud = made(power_on=True)
    cloud.operator(Verb.PAUSE)
    away_without_moves = cloud
    away_without_moves.kill(3, "off")
    cloud.run(5)
    cloud.operator(Verb.RESUME)
    cloud.deaf.add(PowerOn)
    cloud.run(20)
    change(cloud, proof=Proof(at=cloud.now, text="confirmed off by ann"), powered_on_at=None)
    state = cloud.controller.state
    why = rejoin.why_not_powered_on(state, state.hosts[3], state.incidents[3], cloud.now)
    assert why == "we did not power it off"


def test_a_host_of_which_another_device_reads_on_is_left_alone():
    levels = ((Device(name="bmc", identity_noted=True),), (Device(name="pdu", identity_noted=True),))
    cloud = Cloud(levels=levels)
    cloud.run(6)
    away(cloud)
    cloud.device_power["pdu"] = PowerState.ON
    cloud.reconfigure(replace(cloud.settings, power_on=True))
    cloud.run(30)
    assert cloud.ordered(PowerOn) == []


def test_what_reads_on_already_is_left_to_whoever_did_it():
    cloud = made(power_on=True)
    cloud.settings = replace(cloud.settings, power_on=False)
    cloud.reconfigure(cloud.settings)
    away(cloud)
    cloud.dead[3] = "on"
    cloud.reconfigure(replace(cloud.settings, power_on=True))
    cloud.run(30)
    assert cloud.ordered(PowerOn) == []


# --- what people do in OpenNebula meanwhile ---------------------------------------------------------------------------


def enabled_texts(cloud):
    return [each.text for each in cloud.ordered(Tell) if "taken it out of DISABLED" in each.text]


def test_a_dead_host_that_somebody_enables_is_told_once(cloud):
    cloud.kill(3, "off")
    cloud.run(40)
    cloud.inventory()
    assert enabled_texts(cloud) == []
    cloud.one_states[3] = 2
    for _ in range(3):
        cloud.inventory()
        cloud.run(2)
    assert len(enabled_texts(cloud)) == 1
    cloud.one_states[3] = 4
    cloud.inventory()
    cloud.run(2)
    cloud.one_states[3] = 3
    cloud.inventory()
    cloud.run(2)
    assert len(enabled_texts(cloud)) == 2, "disabled again, and enabled once more"


def test_a_host_that_somebody_set_offline_is_kept_out_as_well(cloud):
    cloud.kill(3, "off")
    cloud.run(40)
    cloud.one_states[3] = 8
    for _ in range(3):
        cloud.inventory()
        cloud.run(2)
    assert enabled_texts(cloud) == []


def test_an_inventory_from_before_it_was_disabled_is_no_news(cloud):
    cloud.kill(3, "off")
    while not any(each.step is HostStep.DISABLE for each in cloud.ordered(OrderHost)):
        cloud.run(0.2)
    cloud.one_states[3] = 4
    cloud.run(2)
    host = replace(cloud.host(3), one_state=3)
    others = tuple(cloud.host(other) for other in range(8) if other != 3)
    cloud.feed(InventoryRead(hosts=(host, *others)))
    cloud.run(2)
    assert enabled_texts(cloud) == []


def test_a_host_is_not_given_back_before_our_mark_is_gone(cloud):
    cloud.kill(3, "off")
    cloud.run(30)
    cloud.dead.pop(3)
    cloud.run(20)
    cloud.marked.add(3)  # the second call of RESTORE is lost
    cloud.operator(Verb.UNFENCE, 3)
    cloud.run(12)
    assert cloud.incident(3).lever is Lever.RESTORE
    assert len([each for each in cloud.ordered(OrderHost) if each.step is HostStep.RESTORE]) > 1
    cloud.marked.discard(3)
    cloud.run(10)
    assert not cloud.incident(3).open
