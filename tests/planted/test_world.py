"""The pretended world itself: who leads, what nobody orders there, and what a quiet time costs."""

from __future__ import annotations

import pytest

from ha_controller.core.effects import Drill
from ha_controller.core.events import OrderResult, VmOrderReported
from ha_controller.sim.core_level import campaign
from ha_controller.sim.core_level.arbiter import LEAD_S, TTL_S
from ha_controller.sim.core_level.faults import Rates
from ha_controller.sim.core_level.world import World


def world_of(controllers: int) -> World:
    """The first seed that draws so many."""
    worlds = (World(seed, 4, Rates().only()) for seed in range(1, 200))
    return next(world for world in worlds if len(world.controllers) == controllers)


def let_pass(world: World, seconds: float) -> None:
    ends = world.now + seconds
    while world.agenda.step(ends):
        pass


def test_one_controller_leads_and_another_one_when_it_stands_still():
    world = world_of(2)
    let_pass(world, 5)
    first = world.arbiter.leader
    assert first is not None
    first.pause(60.0)
    let_pass(world, LEAD_S)
    assert world.arbiter.leader is None
    let_pass(world, TTL_S)
    second = world.arbiter.leader
    assert second is not None
    assert second is not first
    assert second.term == first.term + 1
    assert not world.arbiter.holds(first, first.term)
    let_pass(world, 60)
    assert first.term is None
    assert world.arbiter.leader is second


def test_so_many_controllers_as_are_wanted_whatever_the_seed_says():
    for controllers in (1, 3):
        assert len(World(1, 4, Rates().only(), controllers=controllers).controllers) == controllers


def test_a_lone_controller_leads_again_after_a_restart_and_nobody_else_has():
    world = world_of(1)
    let_pass(world, 5)
    world.controllers[0].kill(1.0, "for a test")
    let_pass(world, 5)
    leader = world.arbiter.leader
    assert leader is not None
    assert leader.term == 2
    assert not leader.record.cloud.inherited


def test_an_order_that_nothing_here_leads_to_is_not_swallowed():
    world = world_of(1)
    with pytest.raises(NotImplementedError, match="Drill"):
        world.controllers[0].executor.carry_out(Drill(host=0, request=1, devices=("bmc",), not_after=0.0))


def test_an_order_that_may_arrive_later_is_in_play_until_it_has_arrived():
    judge = world_of(1).judge
    judge.doubtful[7] = {("1", 1, 1): (3, 0.0)}
    judge.move_accepted(7, source=1, destination=2)
    assert judge.doubtful[7] == {("1", 1, 1): (3, 0.0)}
    judge.move_accepted(7, source=1, destination=3)
    assert judge.doubtful[7] == {}


def test_an_order_that_may_arrive_later_stays_in_play_when_another_one_to_the_same_host_arrives():
    world = world_of(1)
    judge, controller = world.judge, world.controllers[0]
    name = controller.name
    judge.doubtful[7] = {(name, 1, 1): (3, 0.0), (name, 1, 2): (3, 5.0)}
    judge.move_accepted(7, source=1, destination=3)
    judge.vm_reported(controller, VmOrderReported(vm=7, incident=1, attempt=2, result=OrderResult.ACCEPTED, detail=""))
    assert judge.doubtful[7] == {(name, 1, 1): (3, 0.0)}


def test_a_calm_cloud_is_not_looked_at():
    world = world_of(1)
    let_pass(world, 700)
    looks = world.controllers[0].probing.steady_at
    let_pass(world, 3600 * 24)
    assert world.controllers[0].probing.steady_at == looks


@pytest.mark.parametrize("faults", [{"site-power": 0.05}, {"storage-out": 0.2}, {"one-way": 0.5}, {"maintenance": 0.5}])
def test_faults_of_many_hosts_at_once_break_nothing(faults):
    rates = Rates().only().with_rates({**faults, "power-loss": 0.05})
    tally = campaign.part(campaign.Task(seed=5, hosts=5, hours=3.0, rates=rates))
    assert tally.violations == []
    assert set(tally.delivered) >= {*faults}
