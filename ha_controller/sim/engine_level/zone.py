"""The pretended OpenNebula of several controllers that lead by its Raft: who leads, what they share, what goes wrong.

The controllers come with the production arbiter, record and client; their questions are answered here, by three
front-ends (`zone_front_ends`). On the way there answers are lost, and writes arrive when their sender has given them
up. The checkers look at each write at the moment at which a majority has it, whoever waits for an answer.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.engine_level.lead_engine import LeadEngine
from ha_controller.sim.engine_level.oned_texts import Texts, texts_in
from ha_controller.sim.engine_level.zone_front_ends import ENDPOINTS, ZoneFrontEnds
from ha_controller.sim.oned_front_ends import READS, Write

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life, Process
    from ha_controller.sim.engine_level.world import World

CLAIM = "HA_LEADER"  #: attribute of the controllers' user
LEAD_S = 5.0  #: what a controller counts, from when it asked
BY_PASSWORD = ("one.user.update", "one.user.login")  #: what a claim is made of


class Zone(LeadEngine):
    """A zone of OpenNebula, and the ways of the controllers to it."""

    lead_s = LEAD_S

    def __init__(self, world: World) -> None:
        """Nobody leads yet."""
        super().__init__(world)
        self.front_ends = ZoneFrontEnds(world, self._committed)
        self.cut = self.front_ends.cut_here
        self._led_until: dict[str, float] = {}  #: who -> when another claim came after theirs
        self._cleared = ""  #: the claim after which all logins of before were revoked
        self._out: list[int] = []  #: front-ends that stand still while there is no quorum

    # --- who leads ---

    def in_the_lead(self) -> tuple[str, int]:
        """Name and term of who leads by what is committed."""
        words = self._claim().split(" ", 4)
        return (words[4], int(words[0])) if len(words) == 5 else ("", 0)

    def _claim(self) -> str:
        return str(self.world.front_end.server.users.all[0].template.get(CLAIM, ""))

    def is_told(self, process: Process, asked_at: float) -> None:
        """A controller hears that it leads. Raises Violation: another one did, from before it asked."""
        name, _ = self.in_the_lead()
        if name != process.name and self._led_until.get(process.name, -1.0) < asked_at:
            raise Violation("G2", f"{process.name} has proven its lead, and {name or 'nobody'} leads")

    # --- what goes wrong ---

    def before_a_change(self) -> None:
        """A controller keeps its lead by itself."""

    def take_away(self, for_s: float) -> None:
        """Another front-end is elected."""
        del for_s
        self.front_ends.elect_another()

    def stands_still(self, process: Process) -> None:
        """A controller does, for a while, and its front-end may lose the votes meanwhile."""
        if self.front_ends.leader == process.index and self.world.trouble.strikes("elected-meanwhile"):
            self.world.agenda.later(self.world.dice.uniform(0.1, 1.0), self.front_ends.elect_another)

    async def deposes(self, life: Life) -> None:
        """The last moment before an order leaves: a process that stands still there by its own clock still leads."""
        is_ours = life.alive and self.front_ends.leader == life.process.index
        if is_ours and self.world.trouble.strikes("deposed-at-the-packet"):
            self.front_ends.elect_another()
            life.process.pause(self.world.dice.uniform(2.0, 3.5))
            await asyncio.sleep(0)

    def strike(self, name: str) -> None:
        """A fault of the table, that ends by itself."""
        front_ends, dice, trouble, count = self.front_ends, self.world.dice, self.world.trouble, len(ENDPOINTS)
        leader = front_ends.leader
        one = dice.randrange(count) if leader is None or dice.random() < 0.3 else leader
        match name:
            case "front-end-stops":
                front_ends.stop(one)
                trouble.lasts(dice.uniform(3, 60), partial(front_ends.go_on, one))
            case "front-end-cut":
                front_ends.sever(one)
                trouble.lasts(dice.uniform(3, 60), partial(front_ends.sever, one, -1))
            case _:
                for other in [each for each in range(count) if each != one]:
                    front_ends.stop(other)
                    trouble.lasts(dice.uniform(2, 20), partial(front_ends.go_on, other))

    @property
    def down(self) -> bool:
        """Whether it has no quorum."""
        return bool(self._out)

    @down.setter
    def down(self, is_down: bool) -> None:
        front_ends, (out, self._out) = self.front_ends, (self._out, [])
        if not is_down:
            for server in out:
                front_ends.go_on(server)
            return
        kept = self.world.dice.randrange(len(ENDPOINTS)) if front_ends.leader is None else front_ends.leader
        self._out = out or [each for each in range(len(ENDPOINTS)) if each != kept]
        for server in self._out if not out else ():
            front_ends.stop(server)

    # --- what is shared ---

    def shared(self) -> Texts:
        """The record as it is committed."""
        hosts = {number: host.attributes for number, host in self.world.oned.hosts.items()}
        return texts_in(self.world.front_end.server.users.all[0].template, hosts)

    def _committed(self, write: Write) -> str:
        process, claim, led = self.world.controllers[write.viewer], self._claim(), self.in_the_lead()
        before = self.shared()
        answer = self.world.front_end.answer(write.body).decode()
        if "<boolean>1</boolean>" not in answer:
            return answer
        if self._claim() != claim:
            self._led_until[led[0]] = self.world.now
            self.world.story("{} claims the lead, for term {}".format(*self.in_the_lead()))
        if write.method not in BY_PASSWORD and led[0] != process.name and self._cleared == claim:
            raise Violation("G2", f"{write.method} of {process.name} was taken in, and {led[0] or 'nobody'} leads")
        if write.method == "one.user.login" and write.arguments[2:4] == ("", 0) and process.name == led[0]:
            self._cleared = claim
        after = self.shared()
        if after != before:
            self.world.judge.shared(process, before, after, led)
        return answer

    # --- questions ---

    async def call(self, life: Life, server: int, method: str, body: bytes) -> bytes:
        """A question of an arbiter to a front-end, and the answer.

        Raises:
            ConnectionError: nothing listens there.
        """
        world, trouble, is_write = self.world, self.world.trouble, not method.endswith(READS)
        await life.takes(world.dice.uniform(0.001, 0.01))
        if trouble.oned_down:
            if world.dice.random() < 0.5:
                raise ConnectionRefusedError("nothing listens there")
            await life.never()
        if is_write:
            await life.risk(f"{method} is about to reach OpenNebula")
            if trouble.strikes("share-late"):
                late = partial(self._late, life.process.index, server, body)
                world.agenda.later(world.dice.uniform(1, 12), late)
                await life.never()
        on_its_way_s = world.dice.uniform(1, 6) if trouble.oned_slow else world.dice.uniform(0.005, 0.05)
        answer = await self.front_ends.exchange(life, server, body, on_its_way_s, may_be_lost=b"HA_RECORD" in body)
        if is_write:
            await life.risk(f"{method} was taken in, and nobody knows yet")
            if trouble.strikes("share-answer-lost"):
                await life.never()
        return answer

    def _late(self, viewer: int, server: int, body: bytes) -> None:
        with self.world.judged():
            self.front_ends.arrive(viewer, server, body)
