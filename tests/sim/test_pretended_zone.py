"""The simulator's second level with controllers that lead by OpenNebula's own Raft: the zone that it pretends."""

from __future__ import annotations

import json
import xmlrpc.client
from collections.abc import Iterator
from typing import Any

import pytest

from ha_controller.app import pretended
from ha_controller.core.model import HostState
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.engine_level.front_end import SESSION
from ha_controller.sim.engine_level.quorum import incidents_in
from ha_controller.sim.engine_level.world import World
from ha_controller.sim.engine_level.zone import Zone
from ha_controller.sim.oned_door import MAX_CONN
from tests.sim.test_several_controllers import pass_until


@pytest.fixture
def world() -> Iterator[World]:
    """Somebody leads."""
    with pretended.world(3, 4, Rates().only(), controllers=2, lead="opennebula") as made:
        pass_until(made, lambda: made.arbiter.leader is not None)
        yield made


def zone_of(world: World) -> Zone:
    assert world.zone is not None
    return world.zone


def states_of(world: World) -> dict[int, str]:
    return {each["host"]: each["state"] for each in incidents_in(zone_of(world).shared()).values()}


def call(session: str, method: str, *arguments: Any) -> bytes:
    return xmlrpc.client.dumps((session, *arguments), method).encode()


def asked(world: World, viewer: int, body: bytes) -> list[str]:
    """What a front-end answers to a question of the controller beside it, as far as it has."""
    answers: list[str] = []
    zone_of(world).front_ends.arrive(viewer, viewer, body, answers.append)
    return answers


def token_of(world: World) -> str:
    return next(iter(world.front_end.server.users.all[0].tokens))


def test_the_next_leader_goes_on_with_the_incident_from_the_record(world: World):
    zone, first = zone_of(world), world.arbiter.leader
    assert first is not None
    world.drive(world.now + 40)
    world.truth.supply(2, chassis=False)
    pass_until(world, lambda: states_of(world).get(2) == HostState.FENCED)
    fences = world.judge.counted["fences"]
    zone.front_ends.elect_another()
    pass_until(world, lambda: world.arbiter.leader not in (None, first))
    pass_until(world, lambda: states_of(world).get(2) == HostState.RECOVERED, 300)
    assert world.judge.counted["fences"] == fences, "it is off by the record"
    assert not [vm for vm, (_, machine) in world.truth.lost.items() if machine == 2]


def test_one_that_is_cut_off_goes_on_to_say_that_it_leads_and_nothing_is_proven_to_the_controller_beside_it(
    world: World,
):
    zone, first = zone_of(world), world.arbiter.leader
    assert first is not None
    zone.front_ends.sever(first.index)
    proven = zone.kept[first.name]
    pass_until(world, lambda: world.arbiter.leader not in (None, first))
    assert zone.front_ends.raft.servers[first.index].state == 3
    assert zone.kept[first.name] - proven < 1.0
    zone.front_ends.mend()
    pass_until(world, lambda: zone.front_ends.raft.servers[first.index].state == 2)


def test_an_order_with_a_revoked_login_is_refused_and_one_that_is_taken_in_is_found(world: World):
    zone, first = zone_of(world), world.arbiter.leader
    assert first is not None
    other, token = 1 - first.index, token_of(world)
    order = ("one.host.update", 0, 'HA_NOTE="x"', 1)
    method, *arguments = order
    assert "<boolean>1</boolean>" in asked(world, first.index, call(f"oneadmin:{token}", method, *arguments))[0]
    with pytest.raises(Violation, match=r"G2.*one.host.update of controller-. was taken in, and controller-. leads"):
        asked(world, other, call(SESSION, method, *arguments))
    zone.front_ends.elect_another()
    pass_until(world, lambda: world.arbiter.leader not in (None, first))
    assert "<i4>256</i4>" in asked(world, first.index, call(f"oneadmin:{token}", method, *arguments))[0]


def test_a_lead_that_is_proven_while_another_one_has_it_is_found(world: World):
    first = world.arbiter.leader
    assert first is not None
    other = world.controllers[1 - first.index]
    zone_of(world).is_told(first, world.now)
    with pytest.raises(Violation, match=f"G2.*{other.name} has proven its lead, and {first.name} leads"):
        zone_of(world).is_told(other, world.now)


def test_a_leader_falls_with_a_write_that_it_says_is_done(world: World):
    first = world.arbiter.leader
    assert first is not None
    answers: list[str] = []
    body = call(f"oneadmin:{token_of(world)}", "one.host.update", 0, 'HA_NOTE="lost"', 1)
    zone_of(world).front_ends._fall_with(first.index, first.index, body, answers.append)
    assert "<boolean>1</boolean>" in answers[0]
    assert "HA_NOTE" not in world.oned.hosts[0].attributes
    assert world.judge.counted["writes lost"] == 1


def test_writes_without_followers_block_and_freeze_the_whole_front_end(world: World):
    zone, first = zone_of(world), world.arbiter.leader
    assert first is not None
    for server in {0, 1, 2} - {first.index}:
        zone.front_ends.stop(server)
    body = call(SESSION, "one.user.update", 0, 'HA_NOTE="x"', 1)
    held = MAX_CONN - zone.front_ends._held[first.index]
    assert [asked(world, first.index, body) for _ in range(held)] == [[]] * held
    status = asked(world, first.index, call(SESSION, "one.zone.raftstatus"))
    assert status == []
    zone.front_ends.mend()
    zone.front_ends.raft.broadcast(zone.front_ends.raft.servers[first.index], world.now)
    assert "TERM" in status[0]


def test_what_counts_of_the_record_is_what_the_user_names(world: World):
    zone = zone_of(world)
    world.drive(world.now + 40)
    world.truth.supply(1, chassis=False)
    pass_until(world, lambda: 1 in states_of(world))
    term = zone.in_the_lead()[1]
    assert json.loads(zone.shared()["written"])["term"] == term
    for slot in "01":
        world.oned.hosts[1].attributes.pop(f"HA_RECORD_{slot}", None)
    assert states_of(world) == {}
