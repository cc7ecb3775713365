"""The way to the embedded OpenNebula, and the disk of the journal: what takes time there, is lost, or fails."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Callable
from typing import TYPE_CHECKING

from ha_controller.sim.oned_server import OnedServer

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life
    from ha_controller.sim.engine_level.world import World

SESSION = "oneadmin:s3cret-of-opennebula"
ORDERS = frozenset({"one.vm.migrate", "one.vm.action", "one.vm.recover", "one.host.status", "one.vm.lock"})
CALLS_KEPT = 100


class ConnectionRefused(Exception):
    """Nothing listens there: what was to be sent never left."""


class FrontEnd:
    """oned's door."""

    def __init__(self, world: World) -> None:
        """Open."""
        self.world = world
        self.server = OnedServer(world.oned, session=SESSION, clock=lambda: world.now)

    async def call(self, life: Life, method: str, body: bytes) -> bytes:
        """One call of a controller, and its answer.

        Raises:
            ConnectionRefused: it did not leave.
        """
        world, trouble, is_order = self.world, self.world.trouble, method in ORDERS
        called_at = world.now
        await life.takes(world.dice.uniform(0.001, 0.01))
        if trouble.oned_down:
            if world.dice.random() < 0.5:
                raise ConnectionRefused
            await life.never()
        if is_order:
            await life.risk(f"{method} is about to leave", may_pause=False)
            await life.at_the_packet()
            if world.zone is not None:
                await world.zone.deposes(life)
            with world.judged():
                arguments, _ = xmlrpc.client.loads(body)
                world.judge.oned_ordered(life.process, method, arguments[1:], called_at)
            life.here()
            if trouble.strikes("order-late"):
                world.agenda.later(world.dice.uniform(1, 15), lambda: self._late(life.process.index, body))
                await life.never()
        on_its_way_s = world.dice.uniform(1, 6) if trouble.oned_slow else world.dice.uniform(0.005, 0.05)
        answer = await self._answered(life, body, on_its_way_s, is_order=is_order)
        if is_order:
            await life.risk(f"{method} was taken, and nobody knows yet")
            if trouble.strikes("answer-lost"):
                await life.never()
        return answer

    async def _answered(self, life: Life, body: bytes, on_its_way_s: float, *, is_order: bool) -> bytes:
        if (zone := self.world.zone) is not None:
            return await zone.front_ends.exchange(life, life.process.index, body, on_its_way_s, may_be_lost=is_order)
        await life.takes(on_its_way_s)
        with self.world.judged():
            answer = self.answer(body)
        life.here()
        return answer

    def _late(self, process: int, body: bytes) -> None:
        with self.world.judged():
            if (zone := self.world.zone) is not None:
                zone.front_ends.arrive(process, process, body)
            else:
                self.answer(body)

    def answer(self, body: bytes) -> bytes:
        """What oned does and says."""
        calls = self.server.calls
        if len(calls) > CALLS_KEPT:
            calls.clear()
        before = len(calls)
        hosts = {number: vm.host for number, vm in self.world.oned.vms.items()} if b"one.vm.m" in body else {}
        answer = self.server.answer(body).encode()
        for call in calls[before:]:
            if call.ok and call.method == "one.vm.migrate":
                vm, destination = int(call.arguments[0]), int(call.arguments[1])
                self.world.judge.move_accepted(vm, hosts[vm], destination)
                self.world.trouble.move_accepted(destination)
            elif call.ok and call.method == "one.vm.action" and call.arguments[0] == "resume":
                self.world.judge.resume_accepted(int(call.arguments[1]))
        return answer


class Disk:
    """Where the journal of one process lies."""

    def __init__(self, life: Life) -> None:
        """Well."""
        self.life = life

    def write(self, write: Callable[[], bool], fail: Callable[[], None], *, has_orders: bool) -> None:
        """One commit: it is written a little later, or fails, or hangs; the process may die at either side of it.

        `write` says whether it is on disk.
        """
        life, trouble, dice = self.life, self.life.world.trouble, self.life.world.dice
        life.here()

        def due() -> None:
            if has_orders and trouble.strikes("crash-before-record"):
                life.process.kill(trouble.down_s(), "before the record of an order")
            elif trouble.journal_fails:
                fail()
            elif write() and has_orders and life.alive:
                if trouble.strikes("crash-after-record"):
                    life.process.kill(trouble.down_s(), "after the record of an order")
                elif trouble.strikes("pause-before-order"):
                    life.process.pause(dice.uniform(1, dice.choice((12, 30))))  # a lead outlasts twelve seconds

        if trouble.strikes("journal-hangs"):
            return
        life.loop.call_later(dice.uniform(0.2, 4.0) if trouble.journal_slow else 0.002, due)
