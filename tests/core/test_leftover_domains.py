"""What still runs on a host that is back: it blocks, it is told, and it is destroyed only where nothing can be lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from returned import ASKED, away, back, change, conditions, failing, made, restored, shows, unfenced
from world import Cloud, seen

from ha_controller.core.effects import (
    AskDomains,
    DestroyDomain,
    HostStep,
    OrderHost,
    ReadHost,
)
from ha_controller.core.events import DomainDestroyed, Verb
from ha_controller.core.incident import Proof
from ha_controller.core.model import HostState, Signal
from ha_controller.core.state import DomainsView


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


def both_ends() -> Cloud:
    """Host 3 is back, and vm-30 is there as OpenNebula says; but a migration that was taken back led to host 5, too."""
    cloud = seen(**ASKED, destroy_leftovers=True)
    cloud.vms[30] = replace(cloud.vms[30], tried_on=(5,))
    cloud.domains[5, 30] = "running"
    away(cloud)
    cloud.domains[3, 30] = "running"
    return back(cloud)


def test_a_domain_blocks_whose_vm_runs_elsewhere_although_opennebula_has_it_here():
    cloud = both_ends()
    cloud.run(30)
    assert failing(cloud) == ["no leftover domains"]
    assert "vm-30 (domain one-30; OpenNebula has it here, and it is on kvm-05)" in cloud.told()
    assert unfenced(cloud, force=True).code == 4
    assert cloud.ordered(DestroyDomain) == []
    cloud.domains[5, 30] = "absent"
    cloud.run(20)
    assert failing(cloud) == []
    assert unfenced(cloud).code == 0


def test_a_domain_blocks_while_the_other_end_of_its_way_has_not_said_whether_it_runs_there():
    cloud = both_ends()
    cloud.no_answer.add(5)
    cloud.run(30)
    assert failing(cloud) == ["no leftover domains"]
    assert "kvm-05 has not said whether vm-30 runs there" in unfenced(cloud).text


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
