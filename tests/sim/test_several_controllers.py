"""The simulator's second level with several controllers: they share a record and tell each other what they see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ha_controller.app import pretended
from ha_controller.core.effects import Fence, MoveVm
from ha_controller.core.model import HostState
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.engine_level.quorum import LEADER, RECORD, Quorum, incidents_in
from ha_controller.sim.engine_level.world import World
from tests.sim.etcd_answers import put


def states_of(world: World) -> dict[int, str]:
    """The states of open incidents by host, as they stand on the shared record."""
    assert isinstance(world.arbiter, Quorum)
    return {each["host"]: each["state"] for each in incidents_in(world.arbiter.shared()).values()}


def pass_until(world: World, what: Any, within_s: float = 120.0) -> None:
    ends = world.now + within_s
    while not what():
        assert world.violation is None, str(world.violation)
        assert world.now < ends, "it did not come about"
        world.drive(world.now + 0.5)


def test_the_next_leader_goes_on_with_the_incident_from_the_record():
    with pretended.world(3, 4, Rates().only(), controllers=2) as world:
        pass_until(world, lambda: world.arbiter.leader is not None)
        world.drive(world.now + 60)
        first = world.arbiter.leader
        assert first is not None
        world.truth.supply(2, chassis=False)
        pass_until(world, lambda: states_of(world).get(2) == HostState.FENCED)
        fences = world.judge.counted["fences"]
        first.kill(600, "for a test")
        pass_until(world, lambda: world.arbiter.leader not in (None, first))
        pass_until(world, lambda: states_of(world).get(2) == HostState.RECOVERED, 300)
        assert world.judge.counted["fences"] == fences, "it is off by the record"
        assert not [vm for vm, (_, machine) in world.truth.lost.items() if machine == 2]


def test_what_only_a_standby_sees_alive_is_not_powered_off_and_the_lead_goes_to_who_sees_more():
    with pretended.world(3, 5, Rates().only(), controllers=2) as world:
        pass_until(world, lambda: world.arbiter.leader is not None)
        first = world.arbiter.leader
        assert first is not None
        world.drive(world.now + 80)
        for host in (0, 1, 2):
            world.sight.cut_host(first.index, host)
        pass_until(world, lambda: world.arbiter.leader not in (None, first))
        assert world.judge.counted["fences"] == 0


@pytest.fixture
def leading():
    """A world in which somebody leads, and what stands on the shared record then."""
    with pretended.world(3, 4, Rates().only(), controllers=2) as world:
        pass_until(world, lambda: world.arbiter.leader is not None)
        world.drive(world.now + 5)
        yield world


def on_record(**more: Any) -> dict[str, str]:
    vm = {"id": 7, "destination": 2, "order": 3}
    incident = {
        "host": 1,
        "opened_at": 5.0,
        "attempts": [{"number": 1, "devices": ["bmc"], "outcome": "ordered"}],
        "held_by": "",
        **more,
    }
    return {
        "incident/4": json.dumps({"vms": 1, "incident": incident}),
        "incident/4/vms/0000": json.dumps([vm]),
        "written": json.dumps({"term": 1}),
    }


def test_the_checker_of_the_shared_record_sees_what_is_written_by_the_wrong_one_or_forgotten(leading):
    record, before = leading.judge.record, on_record()
    name, term = leading.arbiter.in_the_lead()
    before["written"] = json.dumps({"term": term})
    record.written(name, before, before, (name, term))
    with pytest.raises(Violation, match=r"G2.*controller-b leads|G2.*controller-a leads"):
        record.written("controller-c", before, before, (name, term))
    with pytest.raises(Violation, match=r"G2.*in term 99"):
        record.written(name, before, before | {"written": json.dumps({"term": 99})}, (name, term))
    for more, why in (
        ({"host": 9}, "another incident 4 over the one of host 1"),
        ({"attempts": []}, "forgets power-off 1"),
    ):
        with pytest.raises(Violation, match=rf"D1.*{why}"):
            record.written(name, before, on_record(**more) | {"written": before["written"]}, (name, term))
    older = json.dumps([{"id": 7, "destination": 2, "order": 2}])
    with pytest.raises(Violation, match=r"D1.*forgets what was ordered for VM 7"):
        record.written(name, before, before | {"incident/4/vms/0000": older}, (name, term))


def test_the_checker_sees_who_leads_again_in_a_term_that_was_over(leading):
    about = leading.arbiter.store.text(LEADER)
    leading.arbiter.take_away(0.0)
    with pytest.raises(Violation, match=r"G2.*leads in term \d+, and that was over"):
        leading.arbiter._taken_in(leading.controllers[0], "/v3/kv/put", put(LEADER, about))


def put_on_record(world: World, texts: dict[str, str]) -> None:
    assert isinstance(world.arbiter, Quorum)
    for key, text in texts.items():
        world.arbiter.store.answer("/v3/kv/put", put(RECORD + key, text))


def test_the_checker_of_the_shared_record_sees_what_is_ordered_and_not_announced(leading):
    record = leading.judge.record
    put_on_record(leading, on_record())
    fence = Fence(host=1, incident=4, attempt=1, devices=("bmc",), send=True, not_after=99.0)
    move = MoveVm(vm=7, incident=4, source=1, destination=2, attempt=3, not_after=99.0)
    record.announces(fence)
    record.announces(move)
    for order, why in (
        (Fence(host=1, incident=5, attempt=1, devices=("bmc",), send=True, not_after=99.0), "not on the shared record"),
        (Fence(host=1, incident=4, attempt=2, devices=("bmc",), send=True, not_after=99.0), "does not announce it"),
        (MoveVm(vm=7, incident=4, source=1, destination=3, attempt=3, not_after=99.0), "does not announce it"),
    ):
        with pytest.raises(Violation, match=rf"D1.*{why}"):
            record.announces(order)
    put_on_record(leading, {"cloud": json.dumps({"paused_by": "ann"})})
    with pytest.raises(Violation, match=r"G1.*paused"):
        record.announces(move)
    with pytest.raises(Violation, match=r"L2.*stays open"):
        record.at_the_end()
