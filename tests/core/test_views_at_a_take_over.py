"""What becomes of all that is known of a host with an incident when the shared record takes the place of ours.

A field that is added to `HostView` has to be declared here. What is forgotten by mistake may be life that voids a
proof; what is kept by mistake may belong to an incident that another controller has gone on with.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from taken_over import left_by

from ha_controller.core import handover
from ha_controller.core.detector import ChannelView, TroubleKind
from ha_controller.core.incident import Incident
from ha_controller.core.model import HostState, PowerState, SeenAlive
from ha_controller.core.state import DeviceView, DomainsView, HostView, NewBoot

HOST = 3

#: by the record: the state of its incident, since when, and with whom it fell silent
GIVEN = {"state", "since", "cause_at"}

#: what this controller has seen or found out of the host itself, whoever led
KEPT = {
    "views", "seen_by",  # life since a proof voids it, here and elsewhere
    "awaits_life",  # out of scope until now, and never answered since: not shot
    "devices",  # what the checks of its fence devices have shown
    "answers_since", "flaps", "calm_at",  # whether it is a place for VMs
    "boot_seen_at", "boot_known_at", "new_boot",  # its VMs are gone with a boot; see `handover._doubt_boots`
}  # fmt: skip

#: what belongs to an incident that may have another number by now, or is asked for anew before anything is done
FORGOTTEN = {
    "read_at", "read_asked_at", "read_failed", "one_state", "marked", "monitoring_restarting", "monitored_at",
    "enabled_told", "vms", "vm_states", "domains", "domains_asked_at", "domains_failed",  # as it was read
    "off_while_alive", "power", "power_asked_at", "off_since", "read_back_due",  # no proof is older than the lead
    "renew_due_at", "renewal_told", "lift_due_at", "lift_number", "lifts",  # orders that last
    "troubles", "told", "explained", "leftovers_told", "destroys",  # told once more rather than never
    "waits_from", "advanced_at", "monitoring_restart_due_at", "turned_at", "turns_since",  # time begins anew
}  # fmt: skip


def known(now: float) -> HostView:
    """All fields are other than at the start."""
    return HostView(
        state=HostState.SUSPECT,
        since=now - 1,
        views={"icmp": ChannelView()},
        seen_by={("one-3", False): SeenAlive(host=HOST, channel="icmp", at=now - 1)},
        devices={"bmc": DeviceView(ok=True)},
        read_at=now - 1,
        read_asked_at=now - 1,
        read_failed="no answer",
        one_state=4,
        marked=True,
        monitoring_restarting=True,
        enabled_told=True,
        vms={30: None},  # type: ignore[dict-item]
        vm_states={30: ((HOST, 3, 3), now - 1)},
        domains=DomainsView(asked_at=now - 1, running=frozenset(), others=frozenset()),
        domains_asked_at=now - 1,
        domains_failed="no answer",
        off_while_alive={"bmc": now - 1},
        power={"bmc": (now - 1, PowerState.OFF)},
        power_asked_at=now - 1,
        off_since={"bmc": now - 1},
        renew_due_at=now + 1,
        renewal_told="it failed",
        lift_due_at=now + 1,
        lift_number=2,
        lifts=2,
        read_back_due=True,
        troubles={TroubleKind.STORAGE_LOST: "no heartbeat"},
        boot_seen_at=now - 1,
        boot_known_at=now - 1,
        monitored_at=now - 1,
        waits_from=now - 1,
        advanced_at=now - 1,
        new_boot=NewBoot(boot_id="second", noticed_at=now - 1, lost_since=now - 2),
        monitoring_restart_due_at=now + 1,
        cause_at=now - 1,
        awaits_life=True,
        turned_at=now - 1,
        turns_since=now - 1,
        flaps=(now - 1,),
        calm_at=now + 1,
        explained="looked at closely",
        told="storm",
        destroys={30: (1, now + 1)},
        leftovers_told=(30,),
        answers_since=now - 1,
    )


def content(view: HostView) -> dict[str, Any]:
    return {each.name: getattr(view, each.name) for each in fields(view)}


def test_what_becomes_of_each_field_is_declared():
    declared = sorted([*GIVEN, *KEPT, *FORGOTTEN])
    assert declared == sorted(each.name for each in fields(HostView)), "declare a new field above, once"


def test_all_of_them_are_other_than_at_the_start():
    """Else the tests below could not tell kept from forgotten."""
    at_start = HostView()
    view = known(100.0)
    assert [each.name for each in fields(HostView) if getattr(view, each.name) == getattr(at_start, each.name)] == []


@pytest.mark.parametrize("whose", ["open on the record", "ours alone"])
def test_a_take_over_keeps_what_we_have_seen_ourselves_and_nothing_of_an_incident(make_cloud, whose):
    cloud = make_cloud()
    cloud.run(10)
    now, state = cloud.now, cloud.controller.state
    ours = Incident(id=1, host=HOST, host_name="kvm-03", opened_at=now - 5, state=HostState.SUSPECT, verdict="dead")
    theirs = replace(ours, id=2, opened_at=now - 4, state=HostState.FAILED, cause_at=now - 3)
    is_theirs = whose.startswith("open")
    record = replace(left_by(cloud), incidents=(theirs,) if is_theirs else ())
    state.incidents[HOST], state.views[HOST] = ours, (before := known(now))
    handover.take_over(state, record, now)
    expected = {name: getattr(HostView(), name) for name in FORGOTTEN} | {name: getattr(before, name) for name in KEPT}
    if is_theirs:
        expected |= {"state": theirs.state, "since": theirs.opened_at, "cause_at": theirs.cause_at}
    else:
        expected |= {"state": HostState.OK, "since": now, "cause_at": 0.0}
    assert content(state.views[HOST]) == expected


def test_a_take_over_leaves_a_host_without_an_incident_as_it_is(make_cloud):
    """All of it is our own."""
    cloud = make_cloud()
    cloud.run(10)
    state = cloud.controller.state
    record = left_by(cloud)
    state.views[HOST] = known(cloud.now)
    handover.take_over(state, record, cloud.now)
    assert content(state.views[HOST]) == content(known(cloud.now))
