"""The words with which a guard lets through or holds back, and why a host is left off: one state, one answer each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ha_controller.core import guard, trust
from ha_controller.core.effects import Answer
from ha_controller.core.events import Verb
from ha_controller.core.incident import Proof
from ha_controller.core.model import HostState, Identity
from ha_controller.core.rejoin import why_not_powered_on
from ha_controller.core.settings import Mode


@pytest.fixture
def waiting(make_cloud, settings):
    """A silent host that waits for an approval."""
    cloud = make_cloud(settings=replace(settings, mode=Mode.APPROVE))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(20)
    return cloud


def says(cloud, name: str, *, incident=None, host=None) -> tuple[bool, str]:
    state = cloud.controller.state
    known = incident or state.incidents[3]
    [result] = [each for each in guard.check(state, host or state.hosts[3], known, cloud.now) if each.guard == name]
    return result.passes, result.reason


def test_what_the_operator_waived_passes_with_these_words(waiting):
    state = waiting.controller.state
    state.settings = replace(state.settings, second_master_waived=True, self_check_needed=False)
    state.self_check, state.second_master = None, None
    assert says(waiting, "second master") == (True, "the operator states that nobody else acts")
    assert says(waiting, "self-check") == (True, "waived by the operator")


def test_what_cannot_be_told_holds_back(waiting):
    state = waiting.controller.state
    state.settings = replace(state.settings, second_master_waived=False, self_check_needed=True)
    state.self_check, state.self_check_detail = None, "not looked yet"
    state.second_master, state.second_master_detail = None, "OpenNebula does not answer"
    assert says(waiting, "self-check") == (False, "not looked yet")
    assert says(waiting, "second master") == (
        False, "cannot tell whether somebody else acts: OpenNebula does not answer")  # fmt: skip


def test_a_spent_budget_is_opened_by_an_approval_only(waiting):
    state = waiting.controller.state
    state.settings = replace(state.settings, fences_max=1)
    state.cloud = replace(state.cloud, fences=((waiting.now - 5, 4),))
    passes, reason = says(waiting, "budget")
    assert not passes
    approved = replace(state.incidents[3], approved_by="ann")
    assert says(waiting, "budget", incident=approved) == (True, f"{reason}; approved by ann")


def test_an_excluded_host_and_one_without_a_device_are_held(waiting):
    host = waiting.controller.state.hosts[3]
    assert says(waiting, "maintenance", host=replace(host, excluded="HA_IGNORE=YES")) == (False, "HA_IGNORE=YES")
    assert says(waiting, "readiness", host=replace(host, levels=())) == (
        False, "no fence device is configured for it")  # fmt: skip


def test_an_approval_does_not_wait_for_a_crash_dump(waiting):
    state = waiting.controller.state
    state.settings = replace(state.settings, dump_await_s=1000.0)
    approved = replace(state.incidents[3], approved_by="ann", verdict="dead")
    assert says(waiting, "crash dump", incident=approved) == (True, "approved by ann")
    unapproved = replace(approved, approved_by="")
    assert says(waiting, "crash dump", incident=unapproved)[0] is False


# --- why a host is left off -------------------------------------------------------------------------------------------


@pytest.fixture
def recovered(cloud):
    cloud.kill(3, "off")
    cloud.run(40)
    assert cloud.state(3) is HostState.RECOVERED
    return cloud


def left_off(cloud, **changes: object) -> str:
    state = cloud.controller.state
    incident = replace(state.incidents[3], **changes)
    return why_not_powered_on(state, state.hosts[3], incident, cloud.now)


def test_a_host_may_be_powered_on_when_nothing_speaks_against_it(recovered):
    assert left_off(recovered) == ""


def test_why_a_host_is_left_off(recovered):
    state = recovered.controller.state
    assert left_off(recovered, proof=None) == "we did not power it off"
    assert left_off(recovered, proof=Proof(at=1.0, text="confirmed by ann")) == "we did not power it off"
    other = replace(state.incidents[3].proof, fingerprints=("another",))
    assert left_off(recovered, proof=other) == "its devices have other settings now"
    assert left_off(recovered, stopped="it answered after its power-off") == "it answered after its power-off"
    assert "hold" in left_off(recovered, held_by="ann").lower() or "ann" in left_off(recovered, held_by="ann")
    state.cloud = replace(state.cloud, storm_at=recovered.now - 1)
    assert left_off(recovered) == "there was a storm just now"
    state.cloud = replace(state.cloud, storm_at=0.0, paused_by="ann")
    assert "ann" in left_off(recovered)


def test_a_restless_cloud_is_left_alone(recovered):
    recovered.kill(5, "on")
    recovered.run(6)
    assert "host 5 is SUSPECT" in left_off(recovered)


# --- readmission ------------------------------------------------------------------------------------------------------


def test_a_silent_host_in_which_nothing_was_done_is_not_readmitted(waiting):
    waiting.operator(Verb.UNFENCE, host=3)
    assert waiting.ordered(Answer)[-1].code == 4
    assert "kvm-03 does not answer. Power it on first" in waiting.ordered(Answer)[-1].text


def test_a_host_whose_vms_wait_is_not_readmitted(waiting):
    state = waiting.controller.state
    state.incidents[3] = replace(state.incidents[3], state=HostState.FENCED)
    waiting.operator(Verb.UNFENCE, host=3)
    assert "still wait for an outcome" in waiting.ordered(Answer)[-1].text


# --- trust ------------------------------------------------------------------------------------------------------------


def test_how_a_device_is_trusted_in_one_word(cloud):
    state = cloud.controller.state
    host = state.hosts[3]
    device = host.levels[0][0]
    trust.mismatch(state, host, device.name, "it names another machine")
    assert trust.how_trusted(state, host, device) == "MISMATCH"
    assert not trust.is_trusted(state, host, device)
    noted = replace(device, name="other", identity_noted=True)
    assert trust.how_trusted(state, host, noted) == "noted"
    assert trust.how_trusted(state, host, replace(noted, identity_noted=False)) == "unproven"


def test_a_host_that_is_gone_proves_nothing(cloud):
    assert trust.why_unproven(cloud.controller.state, None, ["bmc"]) == "the host is no longer in OpenNebula"


def test_what_was_proven_is_not_written_at_every_check_and_a_new_identity_voids_it(cloud):
    state = cloud.controller.state
    host = state.hosts[3]
    trust.note_trust(state, 3, "bmc", "f", trust.PROVEN, 1.0)
    before = state.trust(3)
    trust.note_trust(state, 3, "bmc", "f", trust.PROVEN, 2.0)
    assert state.trust(3) == before
    trust.note_trust(state, 3, "bmc", "f", trust.DRILLED, 3.0)
    assert [(each.how, each.at) for each in state.trust(3).devices if each.fingerprint == "f"] == [("drilled", 3.0)]
    first, second = Identity(serial="a"), Identity(serial="b")
    trust.note_host(state, host, first, "ssh")
    known = state.trust(3)
    trust.note_host(state, host, first, "ssh")
    assert state.trust(3) is known
    trust.note_host(state, host, second, "ssh")
    assert state.trust(3).identity == second
    assert not [each for each in state.trust(3).devices if each.how == trust.PROVEN]
