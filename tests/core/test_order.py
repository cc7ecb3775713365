"""In which order VMs start: tiers, dependencies, readiness and throttles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from world import SETTINGS, Cloud

from ha_controller.core import report
from ha_controller.core.effects import Answer, AskNames, Explain, MoveVm, ReadPower
from ha_controller.core.events import NamesRead, Readiness, Verb
from ha_controller.core.incident import VmRecord, VmStage
from ha_controller.core.order import order_of, starts
from ha_controller.core.order_faults import ANSWER_MAX_S, ASK_AGAIN_S
from ha_controller.core.resources import ReadyBy, ReadyGate, Role, Startup, VmGroup


def write(cloud: Cloud, vm: int, *after: str, **startup: object) -> None:
    """Write on a VM in which order it starts."""
    cloud.vms[vm] = replace(cloud.vms[vm], startup=Startup(after=after, **startup))


def first_moves(cloud: Cloud) -> list[int]:
    return list(dict.fromkeys(order.vm for order in cloud.ordered(MoveVm)))


def begun(cloud: Cloud) -> dict[int, float]:
    return {effect.vm: at for at, effect in reversed(cloud.effects) if isinstance(effect, MoveVm)}


def record(number: int, *after: str, **startup: object) -> VmRecord:
    known = VmRecord(id=number, name=f"vm-{number}", was_state=3, was_lcm_state=3)
    return replace(known, startup=Startup(after=after, **startup))


def fail(cloud: Cloud, seconds: float = 20, *hosts: int) -> None:
    cloud.inventory()
    cloud.run(6)
    for host in hosts or (3,):
        cloud.kill(host, "off")
    cloud.run(seconds)


def settled(cloud: Cloud, host: int = 3) -> bool:
    return all(each.settled for each in cloud.incident(host).vms)


# --- tiers ---


def test_a_higher_tier_is_running_before_the_next_one_begins(make_cloud):
    cloud = make_cloud(vms_per_host=4)
    write(cloud, 33, priority=10)
    write(cloud, 30, priority=-5)
    fail(cloud)
    at, settled_at = begun(cloud), {each.id: each.settled_at for each in cloud.incident(3).vms}
    assert settled(cloud)
    assert at[33] < settled_at[33] <= at[31] == at[32] < settled_at[31] <= at[30]


def test_ready_is_so_long_after_running_as_the_vm_says(make_cloud):
    cloud = make_cloud()
    write(cloud, 31, priority=1, ready_delay_s=7.0)
    fail(cloud)
    assert begun(cloud)[30] >= cloud.incident(3).vm(31).settled_at + 7
    assert settled(cloud)


def test_who_waits_says_for_whom(make_cloud):
    cloud = make_cloud()
    write(cloud, 31, priority=7, ready_delay_s=60.0)
    fail(cloud)
    assert cloud.incident(3).vm(30).reason == "waits for vm-31 (tier 7)"


def test_a_vm_that_fits_nowhere_does_not_keep_the_lower_tiers_waiting(make_cloud):
    cloud = make_cloud()
    write(cloud, 31, priority=7)
    cloud.vms[31] = replace(cloud.vms[31], memory_mb=1_000_000)
    fail(cloud)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING
    assert cloud.incident(3).vm(31).stage is VmStage.WAITING


def test_a_vm_that_is_left_alone_does_not_keep_the_lower_tiers_waiting(make_cloud):
    cloud = make_cloud()
    write(cloud, 31, priority=7)
    cloud.vms[31] = replace(cloud.vms[31], obstacle="a device that stays")
    fail(cloud)
    assert cloud.incident(3).vm(31).stage is VmStage.LEFT
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_a_tier_without_progress_is_passed_over_and_told_once(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=8.0))
    write(cloud, 31, priority=7, ready_delay_s=0.0)
    cloud.deaf.add(MoveVm)
    fail(cloud, 15)
    assert cloud.told().count("others start before vm-31") == 1
    assert 30 in first_moves(cloud)


def test_with_stop_the_incident_is_held_until_the_vm_has_an_outcome(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=8.0, tier_stops=True))
    write(cloud, 31, priority=7)
    cloud.deaf.add(MoveVm)
    fail(cloud, 20)
    assert first_moves(cloud) == [31]
    assert cloud.incident(3).hold.startswith("order of starts: vm-31 not ready. To let the others start: ha-controller")
    assert cloud.incident(3).hold_needs_person
    cloud.deaf.clear()
    cloud.run(150)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


def test_after_a_restart_in_the_middle_the_order_goes_on(make_cloud):
    cloud = make_cloud()
    write(cloud, 31, priority=7, ready_delay_s=30.0)
    fail(cloud)
    assert first_moves(cloud) == [31]
    cloud.restart()
    cloud.run(5)
    assert first_moves(cloud) == [31]
    cloud.run(60)
    assert begun(cloud)[30] >= cloud.incident(3).vm(31).settled_at + 30
    assert settled(cloud)


def test_waiting_for_its_turn_is_no_reason_to_leave_a_vm_alone(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, vm_wait_max_s=5.0, vm_timeout_s=10.0))
    write(cloud, 31, priority=7, ready_delay_s=40.0)
    fail(cloud, 80)
    assert cloud.incident(3).vm(30).stage is VmStage.RUNNING


# --- dependencies ---


def test_an_application_starts_after_its_database_on_another_dead_host(make_cloud):
    cloud = make_cloud()
    write(cloud, 30, "vm-51")
    write(cloud, 51, ready_delay_s=6.0)
    fail(cloud, 40, 3, 5)
    assert begun(cloud)[30] >= cloud.incident(5).vm(51).settled_at + 6
    assert settled(cloud) and settled(cloud, 5)


@pytest.mark.parametrize("name", ["no-such-vm", "999", "vm-70", "group:none", "service:1/db", ""])
def test_who_is_not_being_recovered_is_not_waited_for(make_cloud, name):
    cloud = make_cloud()
    write(cloud, 30, name)
    fail(cloud)
    assert settled(cloud)


def shop(*vms: int) -> VmGroup:
    return VmGroup(id=1, name="shop", roles=(Role(name="db", vms=vms),))


@pytest.mark.parametrize("name", ["no-such-vm", "999", "group:none", "group:shop/web", "service:1/db", "role:db"])
def test_a_name_that_nobody_has_is_told_once_and_delays_nobody(make_cloud, name):
    cloud = make_cloud(groups=(shop(51),))
    write(cloud, 30, name)
    fail(cloud, 6)
    cloud.restart()
    cloud.run(40)
    assert settled(cloud)
    assert cloud.told().count(f"vm-30: HA_AFTER names {name}: ") == 1
    assert len(cloud.incident(3).order_faults) == 1


@pytest.mark.parametrize("name", ["vm-70", "70", "group:shop", "group:shop/db", "service:4/db"])
def test_a_name_that_somebody_has_who_runs_elsewhere_is_not_told(make_cloud, name):
    cloud = make_cloud(groups=(shop(51),))
    write(cloud, 30, name)
    cloud.vms[51] = replace(cloud.vms[51], startup=Startup(service=4, role="db"))
    fail(cloud, 40)
    assert settled(cloud)
    assert "HA_AFTER" not in cloud.told()


def test_names_that_are_looked_up_only_when_all_vms_run_are_told_then(make_cloud):
    cloud = make_cloud()
    write(cloud, 30, "nobody", *[f"nobody-{number}" for number in range(9)])
    cloud.deaf.add(AskNames)
    fail(cloud)
    assert cloud.state(3) == "recovered"
    [asked] = cloud.ordered(AskNames)
    cloud.feed(NamesRead(host=3, incident=asked.incident, names=asked.names, missing=asked.names))
    assert cloud.told().count("HA_AFTER names nobody, ") == 1
    assert "nobody-3 and 5 more: no VM and no OneFlow role has that name" in cloud.told()


def test_vm_groups_that_could_not_be_read_are_not_called_missing(make_cloud):
    cloud = make_cloud(groups=None)
    write(cloud, 30, "group:none")
    fail(cloud, 40)
    assert settled(cloud)
    assert "HA_AFTER" not in cloud.told()


def test_names_that_cannot_be_looked_up_are_not_called_missing_and_are_looked_up_again(make_cloud):
    cloud = make_cloud(hosts=3, settings=replace(SETTINGS, max_failed_share=0.5))
    write(cloud, 20, "nobody")
    cloud.vms[21] = replace(cloud.vms[21], memory_mb=10**7)  # so that the incident goes on
    cloud.deaf.add(AskNames)
    fail(cloud, 20, 2)
    cloud.run(ANSWER_MAX_S - 30)
    [asked] = cloud.ordered(AskNames)  # to look them up takes long, and the next question waits for the answer
    keys = {"host": 2, "incident": asked.incident, "names": ("nobody",)}
    cloud.feed(NamesRead(**keys, failure="no answer"))
    cloud.run(ASK_AGAIN_S + 1)
    assert len(cloud.ordered(AskNames)) == 2
    assert "HA_AFTER" not in cloud.told()
    cloud.feed(NamesRead(**{**keys, "incident": 77}, missing=("nobody",)))  # another incident's
    cloud.run(1)
    assert "HA_AFTER" not in cloud.told()
    cloud.feed(NamesRead(**keys, missing=("nobody",)))
    cloud.run(2 * ASK_AGAIN_S)
    assert cloud.told().count("HA_AFTER names nobody") == 1
    assert len(cloud.ordered(AskNames)) == 2


def test_what_cannot_be_read_is_told_once_by_name(make_cloud):
    cloud = make_cloud()
    write(cloud, 30, wrong=("HA_READY=tcp:0 is not understood",))
    fail(cloud)
    assert settled(cloud)
    assert cloud.told().count("vm-30: HA_READY=tcp:0 is not understood") == 1
    assert cloud.incident(3).order_faults == ("vm-30: HA_READY=tcp:0 is not understood",)


# --- a person goes on ---


def stopped(make_cloud, **settings: object) -> Cloud:
    """VM 31 is in the way of the others of its host."""
    cloud = make_cloud(vms_per_host=3, settings=replace(SETTINGS, tier_timeout_s=8.0, tier_stops=True, **settings))
    write(cloud, 31, priority=7, ready_delay_s=0.0)
    write(cloud, 32, priority=3)
    cloud.deaf.add(MoveVm)
    fail(cloud, 20)
    assert first_moves(cloud) == [31]
    return cloud


def answer(cloud: Cloud) -> str:
    return cloud.ordered(Answer)[-1].text


def test_approve_lets_the_next_tier_go_on_and_the_one_after_it_is_asked_about_again(make_cloud):
    cloud = stopped(make_cloud)
    number = cloud.incident(3).id
    assert f"pending approve {number}" in cloud.told()
    assert report.pending(cloud.controller.state)[0]["can_approve"]
    cloud.operator(Verb.APPROVE, incident=number)
    assert (
        answer(cloud)
        == "Approved: other VMs of kvm-03 start before vm-31 (UNKNOWN, leads to PROLOG_MIGRATE_UNKNOWN, BOOT, RUNNING)."
    )
    assert cloud.incident(3).passed_over == (31,)
    cloud.run(2)
    assert first_moves(cloud) == [31, 32]
    assert cloud.incident(3).hold == ""
    cloud.restart()
    cloud.run(30)
    assert first_moves(cloud) == [31, 32]
    assert "order of starts: vm-32 not ready" in cloud.incident(3).hold
    cloud.operator(Verb.APPROVE, incident=number)
    cloud.run(2)
    assert first_moves(cloud) == [31, 32, 30]
    assert any("others start before vm-32" in each.what and "ann" in each.because for each in cloud.ordered(Explain))


def test_the_next_tier_has_its_whole_time_when_the_one_before_is_passed_over(make_cloud):
    cloud = stopped(make_cloud, moves_parallel=1)
    cloud.run(60)  # far beyond its time, and nobody has an answer
    cloud.operator(Verb.APPROVE, host=3)
    cloud.run(1)
    assert "order of starts" not in cloud.incident(3).hold
    assert cloud.incident(3).passed_over == (31,)


@pytest.mark.parametrize("end", ["release", "resume", "restart"])
def test_a_tier_has_its_whole_time_when_nobody_could_do_anything(make_cloud, end):
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=20.0))
    write(cloud, 31, priority=7, ready_delay_s=15.0)
    fail(cloud, 8)
    assert first_moves(cloud) == [31]
    cloud.operator(Verb.PAUSE if end == "resume" else Verb.HOLD, None if end == "resume" else 3)
    cloud.run(100)
    if end == "restart":
        cloud.restart()
    cloud.operator(Verb.RESUME if end == "resume" else Verb.RELEASE, None if end == "resume" else 3)
    cloud.run(10)
    assert "others start before" not in cloud.told()
    assert settled(cloud)


def test_a_device_that_does_not_answer_now_and_then_keeps_nobody_waiting_for_ever(make_cloud):
    """Without a fresh proof nothing moves, and that time does not count; what was spent before it does."""
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=100.0))
    write(cloud, 31, ready=ReadyGate(by=ReadyBy.TCP, port=22, address="192.0.2.7"))
    write(cloud, 30, "31")
    cloud.unready[31] = (Readiness.NOT_YET, "it does not answer")
    fail(cloud, 12)
    assert first_moves(cloud) == [31]
    for _ in range(2):
        cloud.deaf.add(ReadPower)
        cloud.run(45)
        cloud.deaf.discard(ReadPower)
        cloud.run(45)
    assert first_moves(cloud) == [31]  # it had 90 of its 100 seconds
    cloud.deaf.add(ReadPower)
    cloud.run(45)
    cloud.deaf.discard(ReadPower)
    cloud.run(25)
    assert first_moves(cloud) == [31, 30]


def test_the_second_stop_is_told_like_the_first(make_cloud):
    cloud = stopped(make_cloud)
    cloud.operator(Verb.APPROVE, host=3)
    cloud.run(30)
    assert cloud.told().count("order of starts: vm-31 not ready") == 1
    assert cloud.told().count("order of starts: vm-32 not ready") == 1


@pytest.mark.parametrize("settings", [{"tier_stops": False}, {"tier_timeout_s": 300.0}])
def test_approve_does_nothing_where_nothing_is_asked(make_cloud, settings):
    cloud = make_cloud(settings=replace(SETTINGS, **{"tier_timeout_s": 8.0, "tier_stops": True, **settings}))
    write(cloud, 31, priority=7)
    cloud.deaf.add(MoveVm)
    fail(cloud, 10)
    cloud.operator(Verb.APPROVE, host=3)
    assert answer(cloud) == "kvm-03 is FENCED: nothing to approve."
    assert 30 not in cloud.incident(3).passed_over or not settings.get("tier_stops", True)


@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.PAUSE])
def test_approve_does_not_pass_over_what_it_was_not_asked_about(make_cloud, verb):
    """While people hold everything, VMs are not ready because of that."""
    cloud = make_cloud(settings=replace(SETTINGS, tier_timeout_s=8.0, tier_stops=True))
    write(cloud, 31, priority=7)
    cloud.deaf.add(MoveVm)
    fail(cloud, 9)
    cloud.operator(verb, None if verb is Verb.PAUSE else 3)
    cloud.run(60)
    assert not any(each["can_approve"] for each in report.pending(cloud.controller.state))
    cloud.operator(Verb.APPROVE, host=3)
    assert answer(cloud) == "kvm-03 is FENCED: nothing to approve."
    assert cloud.incident(3).passed_over == ()


def test_hundreds_in_the_way_are_a_short_hold(make_cloud):
    cloud = make_cloud(hosts=20, vms_per_host=9, settings=replace(SETTINGS, tier_timeout_s=8.0, tier_stops=True))
    for vm in range(31, 39):
        write(cloud, vm, priority=7, ready_delay_s=0.0)
    cloud.deaf.add(MoveVm)
    fail(cloud, 20)
    assert cloud.incident(3).hold.startswith("order of starts: vm-31, vm-32, vm-33, vm-34, vm-35 and 3 more not ready")
    cloud.operator(Verb.APPROVE, host=3)
    assert answer(cloud).endswith(" and 3 more.")
    assert cloud.incident(3).passed_over == (*range(31, 39),)


def test_a_tier_that_is_stopped_is_shown_before_vms_that_find_no_room(make_cloud):
    """It is the one of the two that needs a person."""
    cloud = make_cloud(vms_per_host=3, settings=replace(SETTINGS, tier_timeout_s=8.0, tier_stops=True))
    write(cloud, 31, priority=7)
    write(cloud, 32, priority=9)
    cloud.vms[32] = replace(cloud.vms[32], memory_mb=10**7)
    cloud.deaf.add(MoveVm)
    fail(cloud, 20)
    assert cloud.incident(3).hold.startswith("order of starts: vm-31 not ready")
    assert "fits on no host" in cloud.incident(3).vm(32).reason
    assert "no room" in cloud.told()


def test_a_circle_is_cut_and_told(make_cloud):
    cloud = make_cloud()
    write(cloud, 30, "31")
    write(cloud, 31, "30")
    fail(cloud)
    assert first_moves(cloud) == [31, 30]
    assert settled(cloud)


def test_a_circle_among_vms_that_fit_nowhere_is_told_once(make_cloud):
    """What is told again and again is also written to disk again and again."""
    cloud = make_cloud()
    for vm, other in ((30, "31"), (31, "30")):
        write(cloud, vm, other)
        cloud.vms[vm] = replace(cloud.vms[vm], memory_mb=10**7)
    fail(cloud, 60)
    assert "no room" in cloud.incident(3).hold
    assert cloud.told().count("leads in a circle") == 1
    assert len(cloud.ordered(Explain)) < 20


def test_who_is_waited_for_is_in_a_tier_at_least_as_high():
    order = order_of([record(1, "2", priority=9), record(2, "3"), record(3), record(4)], None, 0)
    assert order.tiers == {1: 9, 2: 9, 3: 9, 4: 0}


def test_groups_roles_and_services_are_names_for_their_vms():
    group = VmGroup(id=1, name="shop", roles=(Role(name="db", vms=(2,)), Role(name="web", vms=(3, 77))))
    records = [
        record(1, "group:shop/db"),
        record(2),
        record(3),
        record(4, "group:shop"),
        record(5, service=8, role="db"),
        record(6, "role:db", service=8, role="app"),
        record(7, "role:db", service=9, role="app"),
        record(8, "service:8/db"),
    ]
    assert order_of(records, [group], 0).after == {1: (2,), 4: (2, 3), 6: (5,), 8: (5,)}


@given(st.lists(st.tuples(st.integers(-3, 3), st.sets(st.integers(0, 11), max_size=4)), min_size=1, max_size=12))
def test_no_dependencies_make_a_circle_or_a_tier_that_waits_for_a_lower_one(written):
    records = [record(n, *map(str, sorted(after)), priority=p) for n, (p, after) in enumerate(written)]
    order = order_of(records, None, 0)
    done: set[int] = set()
    for _ in records:
        done |= {each.id for each in records if done.issuperset(order.after.get(each.id, ()))}
    assert done == {each.id for each in records}
    assert all(order.tiers[vm] <= order.tiers[other] for vm, others in order.after.items() for other in others)
    assert all(order.tiers[n] >= p for n, (p, _) in enumerate(written))
    shown = starts(order, range(len(written)))
    assert sorted(shown) == [*range(len(written))]
    assert all(shown.index(other) < shown.index(vm) for vm, others in order.after.items() for other in others)
    assert [order.tiers[vm] for vm in shown] == sorted(order.tiers.values(), reverse=True)


@hypothesis_settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.sets(st.integers(0, 8), max_size=3)), min_size=6, max_size=6))
def test_whatever_is_written_every_vm_runs_in_the_end(written):
    cloud = Cloud(hosts=5, vms_per_host=3)
    vms = [30, 31, 32, 40, 41, 42]
    for vm, (priority, after) in zip(vms, written, strict=True):
        write(cloud, vm, *[str((*vms, 0, 10, 99)[n]) for n in sorted(after)], priority=priority, ready_delay_s=0.5)
    cloud.settings = replace(SETTINGS, max_failed_share=0.9)
    cloud.reconfigure(cloud.settings)
    fail(cloud, 60, 3, 4)
    assert [cloud.vms[vm].host in (0, 1, 2) for vm in vms] == [True] * 6
    assert settled(cloud, 3) and settled(cloud, 4)


# --- throttles ---


def test_hosts_that_die_together_share_one_limit(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, moves_parallel=3), vms_per_host=4)
    cloud.deaf.add(MoveVm)
    fail(cloud, 15, 3, 5)
    assert len(first_moves(cloud)) == 3
    cloud.deaf.clear()
    cloud.run(200)
    assert settled(cloud) and settled(cloud, 5)


def test_a_destination_starts_only_so_many_at_once(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, moves_per_host=1), hosts=4, vms_per_host=6)
    cloud.deaf.add(MoveVm)
    fail(cloud, 15)
    destinations = [order.destination for order in cloud.ordered(MoveVm) if order.attempt == 1]
    assert len(destinations) == len(set(destinations)) == 3
    assert "start on kvm-0" in " ".join(each.reason for each in cloud.incident(3).vms)


def test_a_datastore_starts_only_so_many_at_once(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, moves_per_datastore=2), vms_per_host=4)
    for vm in (30, 31, 32, 33):
        cloud.vms[vm] = replace(cloud.vms[vm], datastores=(1, 100 if vm < 33 else 101))
    cloud.deaf.add(MoveVm)
    fail(cloud, 15)
    assert len(first_moves(cloud)) == 2
    assert "from datastore 1 already" in cloud.incident(3).vm(33).reason


def test_the_canary_is_of_the_highest_tier(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, canary_above=2), vms_per_host=4)
    write(cloud, 33, priority=1)
    cloud.deaf.add(MoveVm)
    fail(cloud, 10)
    assert first_moves(cloud) == [33]


def test_a_free_start_goes_to_the_higher_tier_of_another_host(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, moves_parallel=1), vms_per_host=3)
    for vm in (50, 51, 52):
        write(cloud, vm, priority=5)
    fail(cloud, 60, 3, 5)
    moves = first_moves(cloud)
    assert settled(cloud) and settled(cloud, 5)
    assert max(moves.index(vm) for vm in (50, 51, 52)) <= 3  # the first of all may leave before there is a plan
    assert moves[-2:] == sorted(moves[-2:]) and set(moves[-2:]) < {30, 31, 32}


def test_the_higher_tier_gets_the_last_room(make_cloud):
    cloud = make_cloud(hosts=3, settings=replace(SETTINGS, max_failed_share=0.5))
    write(cloud, 21, priority=5)
    for vm in (20, 21):
        cloud.vms[vm] = replace(cloud.vms[vm], memory_mb=60_000)
    cloud.vms[0] = replace(cloud.vms[0], memory_mb=40_000)
    fail(cloud, 20, 2)
    assert cloud.incident(2).vm(21).stage is VmStage.RUNNING
    assert cloud.incident(2).vm(20).stage is VmStage.WAITING
