"""Whose device it is: noted, proven by identity, drilled; a device of another machine is never used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import Cloud

from ha_controller.core.controller import Controller
from ha_controller.core.effects import Answer, Drill, Fence, MoveVm, Severity, Tell
from ha_controller.core.events import (
    DeviceChecked,
    DrillReported,
    FenceReported,
    FenceResult,
    HostIdentified,
    SelfChecked,
    Verb,
)
from ha_controller.core.model import Device, HostState, Identity, PowerState
from ha_controller.core.report import hosts
from ha_controller.core.trust import is_mismatched, is_trusted, was_seen_on

OURS, OTHERS = Identity(system_uuid="4c4c4544-0003"), Identity(system_uuid="4c4c4544-0099")
BMC = Device(name="bmc", tells_identity=True)


@pytest.fixture
def cloud() -> Cloud:
    """Nobody has noted anything about the devices."""
    made = Cloud(levels=((BMC,),))
    made.run(6)
    return made


def check(cloud: Cloud, identity: Identity | None, fingerprint: str = "", ok: bool = True, device: str = "bmc") -> None:
    cloud.feed(
        DeviceChecked(
            host=3, device=device, fingerprint=fingerprint, ok=ok, power=PowerState.ON, summary="s", identity=identity
        )
    )


def host_says(cloud: Cloud, identity: Identity) -> None:
    cloud.feed(HostIdentified(host=3, identity=identity, source="ssh"))


def trusted(cloud: Cloud) -> bool:
    return is_trusted(cloud.controller.state, cloud.controller.state.hosts[3], cloud.levels[0][0])


def test_a_device_that_names_the_hosts_own_identity_is_proven_and_used(cloud):
    host_says(cloud, OURS)
    check(cloud, Identity(system_uuid=OURS.system_uuid.upper()))
    assert trusted(cloud)
    cloud.kill(3, "off")
    cloud.run(15)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.ordered(Fence)[0].identity == OURS


def test_a_device_that_nobody_vouches_for_waits_for_a_person(cloud):
    cloud.kill(3, "off")
    cloud.run(70)
    assert not cloud.ordered(Fence)
    assert "never proven, drilled or noted" in cloud.incident(3).hold
    assert cloud.incident(3).hold_needs_person
    cloud.operator(Verb.APPROVE, 3)
    cloud.run(15)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_device_of_another_machine_is_told_and_never_used_not_even_when_approved(cloud):
    host_says(cloud, OURS)
    check(cloud, OTHERS)
    assert "fence device bmc is another machine's" in cloud.told()
    told = cloud.told().count("another machine's")
    check(cloud, OTHERS)
    assert cloud.told().count("another machine's") == told
    cloud.kill(3, "off")
    cloud.run(70)
    cloud.operator(Verb.APPROVE, 3)
    cloud.run(10)
    assert not cloud.ordered(Fence)


def test_a_noted_device_that_names_another_machine_is_not_used(cloud):
    cloud.levels = ((replace(BMC, identity_noted=True),),)
    cloud.inventory()
    host_says(cloud, OURS)
    check(cloud, OTHERS)
    assert not trusted(cloud)


def test_the_mismatch_ends_when_the_address_is_corrected(cloud):
    host_says(cloud, OURS)
    check(cloud, OTHERS)
    cloud.levels = ((replace(BMC, fingerprint="corrected"),),)
    cloud.inventory()
    check(cloud, OURS, fingerprint="corrected")
    assert trusted(cloud)


def test_what_was_proven_is_bound_to_the_settings_of_the_device(cloud):
    host_says(cloud, OURS)
    check(cloud, OURS)
    cloud.levels = ((replace(BMC, fingerprint="other"),),)
    cloud.inventory()
    assert not trusted(cloud)


def test_what_was_proven_survives_a_restart(cloud):
    host_says(cloud, OURS)
    check(cloud, OURS)
    restart(cloud)
    assert trusted(cloud)


def restart(cloud: Cloud) -> None:
    record = cloud.controller.state.trusts[3]
    restarted = Controller(cloud.settings, cloud.now)
    restarted.restore([], cloud.cloud, cloud.now, [record])
    cloud.controller = restarted
    cloud.inventory()


def test_a_device_that_named_another_machine_once_is_not_trusted_after_a_restart_either(cloud):
    """What was proven falls on record; the other device's proof stays."""
    other = Device(name="other", tells_identity=True)
    cloud.levels = ((BMC, other),)
    cloud.inventory()
    host_says(cloud, OURS)
    check(cloud, OURS)
    check(cloud, OURS, device="other")
    check(cloud, OTHERS)
    restart(cloud)
    state = cloud.controller.state
    assert not is_trusted(state, state.hosts[3], BMC)
    assert is_trusted(state, state.hosts[3], other)


def test_a_device_that_says_nothing_of_its_machine_proves_nothing(cloud):
    host_says(cloud, OURS)
    check(cloud, None)
    assert not trusted(cloud)
    assert not cloud.controller.state.trust(3).devices


def test_who_first_said_which_machine_a_host_is_stays_on_record_and_is_no_news(cloud):
    host_says(cloud, OURS)
    assert cloud.controller.state.trust(3).source == "ssh"
    assert "another machine" not in cloud.told()


@pytest.mark.parametrize(
    ("text", "severity", "next_step"),
    [
        ("is another machine's", Severity.CRITICAL, "Correct its address (FENCE_IP in OpenNebula, or [[fence]])"),
        ("is another machine than before", Severity.WARNING, "If it was exchanged, nothing to do"),
        ("reads OFF while the host answers", Severity.CRITICAL, "Check the cabling and the outlet"),
    ],
)
def test_what_people_are_told_of_devices_names_host_urgency_and_remedy(cloud, text, severity, next_step):
    host_says(cloud, OURS)
    check(cloud, OTHERS)
    host_says(cloud, OTHERS)
    reads(cloud, PowerState.OFF)
    cloud.run(6)
    (told,) = [tell for tell in cloud.ordered(Tell) if text in tell.text]
    assert (told.severity, told.host) == (severity, 3)
    assert told.next_step.startswith(next_step)


def test_a_host_that_was_exchanged_has_its_devices_proven_anew(cloud):
    host_says(cloud, OURS)
    check(cloud, OURS)
    host_says(cloud, OTHERS)
    assert not trusted(cloud)
    assert "another machine than before" in cloud.told()
    check(cloud, OTHERS)
    assert trusted(cloud)


def test_a_device_that_was_another_machines_is_so_no_more_when_its_host_was_exchanged(cloud):
    host_says(cloud, OURS)
    check(cloud, OTHERS)
    state, device = cloud.controller.state, cloud.levels[0][0]
    assert is_mismatched(state, 3, device)
    host_says(cloud, OTHERS)
    assert not is_mismatched(state, 3, device)
    assert not trusted(cloud), "it has to be proven first"
    check(cloud, OTHERS)
    assert trusted(cloud)


def test_what_the_operator_noted_goes_over_what_the_host_says(cloud):
    known = cloud.controller.state.hosts[3]
    cloud.controller.state.hosts[3] = replace(known, identity=OURS)
    host_says(cloud, OTHERS)
    assert cloud.controller.state.trust(3).identity is None


def test_a_device_that_names_another_machine_right_before_the_shot_is_barred(cloud):
    host_says(cloud, OURS)
    check(cloud, OURS)
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    cloud.run(3)
    order = cloud.ordered(Fence)[0]
    cloud.feed(
        FenceReported(
            host=3,
            incident=order.incident,
            attempt=order.attempt,
            result=FenceResult.REFUSED,
            off_read_at=None,
            detail="it belongs to UUID 4c4c4544-0099",
            mismatched=("bmc",),
        )
    )
    cloud.run(5)
    assert cloud.incident(3).barred == ("bmc",)
    assert len(cloud.ordered(Fence)) == 1
    assert "no usable fence device" in cloud.incident(3).stopped or cloud.incident(3).hold


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Identity(system_uuid="a"), Identity(system_uuid="A"), True),
        (Identity(system_uuid="a"), Identity(system_uuid="b"), False),
        (Identity(system_uuid="a", serial="1"), Identity(system_uuid="b", serial="1"), None),
        (Identity(system_uuid="a", serial="1"), Identity(system_uuid="b", serial="2"), False),
        (Identity(serial="1"), Identity(serial="1"), True),
        (Identity(serial="1"), Identity(serial="2"), False),
        (Identity(system_uuid="a"), Identity(serial="1"), None),
        (Identity(), Identity(), None),
    ],
)
def test_two_identities_are_compared_by_what_they_have_in_common(one, other, same):
    assert one.same_machine(other) is same


def test_a_check_that_goes_bad_is_told_once_and_so_is_its_repair(cloud):
    check(cloud, None, ok=False)
    check(cloud, None, ok=False)
    assert cloud.told().count("does not pass its check") == 1
    check(cloud, None)
    assert "passes its check again" in cloud.told()


def test_a_device_that_fails_its_very_first_check_is_told(cloud):
    cloud.controller.state.view(3).devices.clear()
    check(cloud, None, ok=False)
    check(cloud, None, ok=False)
    assert cloud.told().count("does not pass its check") == 1


def reads(cloud: Cloud, power: PowerState) -> None:
    cloud.feed(DeviceChecked(host=3, device="bmc", fingerprint="", ok=True, power=power, summary="s"))


def proves(cloud: Cloud) -> bool:
    return was_seen_on(cloud.controller.state, 3, cloud.levels[0][0])


def test_a_device_that_reads_off_between_two_answers_of_the_host_proves_nothing_and_is_told_once(cloud):
    for _ in range(2):
        reads(cloud, PowerState.OFF)
        cloud.run(6)
    assert not proves(cloud)
    assert cloud.told().count("reads OFF while the host answers") == 1
    reads(cloud, PowerState.ON)
    assert proves(cloud)


def test_a_host_that_was_off_and_has_booted_since_contradicts_nobody(cloud):
    cloud.kill(3, "off")
    cloud.run(0.2)
    reads(cloud, PowerState.OFF)  # true, although the last answer is still fresh
    cloud.run(8)
    cloud.dead.clear()
    cloud.run(20)
    assert proves(cloud)


@pytest.mark.parametrize("power", [PowerState.ON, PowerState.UNKNOWN])
def test_only_off_contradicts_a_host_that_answers(cloud, power):
    reads(cloud, power)
    cloud.run(20)
    assert proves(cloud)


def test_off_read_in_the_moment_in_which_a_host_dies_is_no_contradiction(cloud):
    reads(cloud, PowerState.OFF)
    cloud.kill(3, "off")
    cloud.run(20)
    assert proves(cloud)


def test_a_recabled_outlet_condemns_nobody_and_moves_nothing():
    made = Cloud(levels=((Device(name="bmc", identity_noted=True),),))
    made.run(6)
    reads(made, PowerState.OFF)
    made.run(6)
    made.kill(3, "off")
    made.run(150)
    assert not made.ordered(MoveVm)
    assert "off while the host answers" in made.incident(3).stopped


def test_an_exchanged_host_has_to_be_read_on_anew(cloud):
    host_says(cloud, OURS)
    assert proves(cloud)
    host_says(cloud, Identity(system_uuid="11111111-2222-3333-4444-555555555555"))
    assert not proves(cloud)


def test_the_hosts_are_listed_with_the_age_and_the_identity_of_their_devices(cloud):
    host_says(cloud, OURS)
    check(cloud, OURS)
    cloud.run(10)
    (row,) = (row for row in hosts(cloud.controller.state, cloud.now) if row["id"] == 3)
    assert row["fencing"][0]["identity"] == "proven"
    assert row["fencing"][0]["checked_s_ago"] >= 10


# --- fence and drill --------------------------------------------------------------------------------------------------


def answer(cloud: Cloud) -> Answer:
    return cloud.ordered(Answer)[-1]


def test_a_person_may_order_the_power_off_of_a_silent_host_before_it_is_condemned(cloud):
    cloud.kill(3)
    cloud.run(2)
    assert cloud.state(3) is HostState.SUSPECT
    cloud.operator(Verb.FENCE, 3)
    assert answer(cloud).code == 0
    cloud.run(12)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.incident(3).ordered_by == "ann"


def test_a_person_may_not_order_the_power_off_of_a_host_that_answers(cloud):
    cloud.operator(Verb.FENCE, 3)
    assert answer(cloud).code == 4
    assert "a host that shows life is never powered off" in answer(cloud).text
    cloud.run(10)
    assert not cloud.ordered(Fence)


def test_an_ordered_power_off_stops_at_life_and_at_guards_like_any_other(cloud):
    cloud.kill(3)
    cloud.run(2)
    cloud.feed(SelfChecked(ok=False, detail="the gateway does not answer"))
    cloud.operator(Verb.FENCE, 3)
    cloud.run(5)
    assert not cloud.ordered(Fence)
    del cloud.dead[3]
    cloud.run(3)
    cloud.feed(SelfChecked(ok=True, detail="the gateway answers"))
    cloud.run(5)
    assert not cloud.ordered(Fence)
    assert cloud.state(3) is HostState.OK


def in_maintenance(cloud: Cloud, vms: bool = False) -> None:
    if not vms:
        for number in (30, 31):
            del cloud.vms[number]
    known = cloud.host
    ours = {"excluded": "HA_IGNORE=YES", "maintenance": True}
    cloud.host = lambda host: replace(known(host), **(ours if host == 3 else {}))  # type: ignore[method-assign]
    cloud.inventory()


def test_a_drill_wants_a_host_in_maintenance_without_vms(cloud):
    cloud.operator(Verb.DRILL, 3)
    assert "not in maintenance" in answer(cloud).text
    in_maintenance(cloud, vms=True)
    cloud.operator(Verb.DRILL, 3)
    assert "2 VMs are there" in answer(cloud).text
    assert not cloud.ordered(Drill)


def test_a_drill_that_switched_the_host_makes_its_device_trusted(cloud):
    in_maintenance(cloud)
    cloud.operator(Verb.DRILL, 3)
    assert answer(cloud).code == 6  # its VMs are read first
    cloud.operator(Verb.DRILL, 3)
    (drill,) = cloud.ordered(Drill)
    cloud.feed(DrillReported(host=3, request=drill.request, results=(("bmc", "", True, "switched off and on"),)))
    assert answer(cloud).code == 0
    assert trusted(cloud)
    assert not cloud.ordered(Fence)


def test_a_host_that_stays_off_after_its_drill_is_an_alarm(cloud):
    in_maintenance(cloud)
    cloud.feed(
        DrillReported(host=3, request=1, results=(("bmc", "", True, "it does NOT read on again"),), is_back=False)
    )
    assert answer(cloud).code == 4
    assert "kvm-03: drill NOT passed: bmc: it does NOT read on again" in cloud.told()
    assert trusted(cloud)  # it is this host's, all the same


def test_a_drill_that_switched_another_machine_makes_nothing_trusted(cloud):
    in_maintenance(cloud)
    for _ in range(2):
        cloud.operator(Verb.DRILL, 3)
    (drill,) = cloud.ordered(Drill)
    cloud.feed(DrillReported(host=3, request=drill.request, results=(("bmc", "", False, "the host still answers"),)))
    assert answer(cloud).code == 4
    assert not trusted(cloud)
    assert "kvm-03: drill NOT passed: bmc: the host still answers" in cloud.told()


def test_a_host_that_is_out_of_our_scope_is_not_drilled(cloud):
    known = cloud.host
    cloud.host = lambda host: replace(known(host), excluded="its cluster is not in scope.clusters", vms=())  # type: ignore[method-assign]
    cloud.inventory()
    cloud.operator(Verb.DRILL, 3)
    assert "not in maintenance" in answer(cloud).text
