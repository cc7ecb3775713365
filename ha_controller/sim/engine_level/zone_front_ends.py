"""The front-ends of the pretended zone: the sockets of each, the network between their machines, and what befalls them.

They are the very ones that tests ask over sockets (`oned_front_ends`). A question takes one of a front-end's places
until it is answered, whoever waits for that; one that stands still has its questions wait, and its answers, too.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from ha_controller.sim import oned_raft as raft
from ha_controller.sim.oned_door import MAX_CONN
from ha_controller.sim.oned_front_ends import Answered, FrontEnds, Write

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life
    from ha_controller.sim.engine_level.world import World

ENDPOINTS = tuple(f"http://192.0.2.{210 + number}:2633/RPC2" for number in (1, 2, 3))
TICK_MAX_S = 0.25
UNUSED_S, RESTART_S = 60.0, 8.0  #: a leader without a controller beside it is restarted by people

Act = Callable[[], None]
_REFUSAL = re.compile(r"<boolean>0</boolean></value>\s*<value><string>([^<]*)<")


class ZoneFrontEnds(FrontEnds):
    """All of them. Controller N is on the machine of front-end N."""

    def __init__(self, world: World, committed: Callable[[Write], str]) -> None:
        """Nobody leads yet. `committed` carries out what a majority has."""
        self.world, self._carry_out = world, committed
        self.cut_here: set[int] = set()  #: controllers that reach only the front-end beside them
        self._stopped, self._severed = Counter[int](), Counter[int]()  #: by how many troubles
        self._held = Counter[int]()  #: places that wait for an answer
        self._sockets: list[deque[Act]] = [deque() for _ in ENDPOINTS]
        self._answers: list[list[Act]] = [[] for _ in ENDPOINTS]  #: of those that stand still
        self._unused_since: float | None = None
        super().__init__(world.oned, world.front_end.server, clock=lambda: world.now, servers=len(ENDPOINTS))

    def endpoints(self, viewer: int = 0) -> dict[int, str]:
        """The same for everybody."""
        del viewer
        return dict(enumerate(ENDPOINTS))

    def committed(self, write: Write) -> str:
        """A majority has it."""
        return self._carry_out(write)

    def lost(self, write: Write) -> str:
        """Its sender hears that it is done."""
        self.world.judge.counted["writes lost"] += 1
        self.world.story(f"{write.method} is lost, and {self.world.controllers[write.viewer].name} hears it is done")
        return super().lost(write)

    # --- time ---

    def due(self) -> float:
        """When it wants to be woken."""
        return min(self.raft.due(), self.raft.ticked_at + TICK_MAX_S)

    def tick(self) -> None:
        """Let time pass."""
        super().tick()
        leader, now = self.leader, self.world.now
        if leader is None or leader < len(self.world.controllers):
            self._unused_since = None
        elif self._unused_since is None:
            self._unused_since = now
        elif now - self._unused_since > UNUSED_S:
            self._unused_since = None
            self.world.story(f"people restart front-end {leader}, beside which there is no controller")
            self.stop(leader)
            self.world.agenda.later(RESTART_S, lambda: self.go_on(leader))

    # --- what befalls them ---

    def stop(self, server: int) -> None:
        """One stands still, until every trouble that keeps it has ended."""
        self._stopped[server] += 1
        if self._stopped[server] == 1:
            self.world.story(f"front-end {server} stands still")
            self.freeze(server)

    def go_on(self, server: int) -> None:
        """A trouble has ended."""
        if not self._stopped[server]:
            return  # all was mended before
        self._stopped[server] -= 1
        if not self._stopped[server]:
            self.world.story(f"front-end {server} goes on")
            self.thaw(server)
            answers, self._answers[server] = self._answers[server], []
            for act in answers:
                act()
            self._serve(server)

    def sever(self, server: int, by: int = 1) -> None:
        """The machine of one, with the controller on it, does not hear the others; or does again (-1)."""
        self._note_what_is_committed()
        self._severed[server] = max(0, self._severed[server] + by)
        self.world.story(f"front-end {server} is {'cut off' if self._severed[server] else 'reached again'}")
        self.raft.cut.clear()
        for each in [number for number, count in self._severed.items() if count]:
            self.cut_off(each)

    def elect_another(self) -> None:
        """Another one, with a controller beside it, asks for votes."""
        able = [
            each
            for each in self.raft.servers[: len(self.world.controllers)]
            if each.state != raft.LEADER and not each.frozen and not self._severed[each.id]
        ]
        if able:
            chosen = self.world.dice.choice(able)
            self.world.story(f"front-end {chosen.id} asks for votes")
            self.raft.elect(chosen, self.world.now)

    def mend(self) -> None:
        """All of that is over."""
        self.cut_here.clear()
        for server, count in list(self._severed.items()):
            if count:
                self.sever(server, -count)
        for server, count in list(self._stopped.items()):
            if count:
                self._stopped[server] = 1
                self.go_on(server)

    # --- questions ---

    async def exchange(self, life: Life, server: int, body: bytes, on_its_way_s: float, *, may_be_lost: bool) -> bytes:
        """What has left a controller arrives, whoever waits for it; returns the answer, if there ever is one."""
        viewer, answer = life.process.index, cast("asyncio.Future[str]", life.loop.create_future())
        if not self._reaches(viewer, server):
            await life.never()

        def reached() -> None:
            with self.world.judged():
                if may_be_lost and self.leader == server and self.world.trouble.strikes("oned-forgets"):
                    self._fall_with(viewer, server, body, partial(_set, answer))
                else:
                    self.arrive(viewer, server, body, partial(_set, answer))

        self.world.agenda.later(on_its_way_s, reached)
        text = await answer
        life.here()
        if not self._reaches(viewer, server):
            await life.never()
        return text.encode()

    def _reaches(self, viewer: int, server: int) -> bool:
        if viewer == server:
            return True
        return viewer not in self.cut_here and frozenset({viewer, server}) not in self.raft.cut

    def _fall_with(self, viewer: int, server: int, body: bytes, answered: Answered) -> None:
        """A leader takes it in; before it can tell anybody, the others elect another one."""
        self.sever(server)
        self.arrive(viewer, server, body, answered)
        self.elect_another()
        self.sever(server, -1)
        if (leader := self.raft.leader) is not None:
            self.raft.broadcast(leader, self.world.now)

    def arrive(self, viewer: int, server: int, body: bytes, answered: Answered = lambda _: None) -> None:
        """It waits in a socket: for a place, and until its front-end does not stand still."""

        def begin() -> None:
            self._held[server] += 1
            self.ask(server, viewer, body, ended)

        def ended(text: str) -> None:
            self._held[server] -= 1
            if self.world.trace is not None and (why := _REFUSAL.search(text)):
                self.world.story(f"front-end {server} refuses {self.world.controllers[viewer].name}: {why[1]}")
            if self.raft.servers[server].frozen:
                self._answers[server].append(lambda: answered(text))
            else:
                answered(text)
            self._serve(server)

        self._sockets[server].append(begin)
        self._serve(server)

    def _serve(self, server: int) -> None:
        sockets = self._sockets[server]
        while sockets and not self.raft.servers[server].frozen and self._held[server] < MAX_CONN:
            sockets.popleft()()


def _set(answer: asyncio.Future[str], text: str) -> None:
    if not answer.done():
        answer.set_result(text)
