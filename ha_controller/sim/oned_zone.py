"""A zone of embedded oneds: front-ends of one OpenNebula that agree by Raft, with the faults that were observed.

A server that is frozen accepts connections and answers nothing until it thaws; then it serves what waits in its sockets
first. A blocked write holds one of its connections. What the front-ends answer is in `oned_front_ends`.

Every front-end is seen through doors of its own by each viewer, so that the network between them can be cut, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ha_controller.sim.oned_door import IDLE_S, MAX_CONN, Door
from ha_controller.sim.oned_front_ends import BROADCAST_S, ELECTION_S, FORWARD_S, FrontEnds
from ha_controller.sim.oned_server import OnedServer
from ha_controller.sim.oned_state import Oned

TICK_S = 0.02


class OnedZone(FrontEnds):
    """The front-ends. Use `start` and `close`, and `tick` in between."""

    def __init__(
        self,
        oned: Oned,
        live: OnedServer,
        *,
        clock: Callable[[], float],
        servers: int = 3,
        election_s: float = ELECTION_S,
        broadcast_s: float = BROADCAST_S,
        forward_s: float = FORWARD_S,
    ) -> None:
        """`oned` and `live` are what is committed; nothing is opened yet."""
        super().__init__(
            oned, live, clock=clock, servers=servers, election_s=election_s, broadcast_s=broadcast_s,
            forward_s=forward_s,
        )  # fmt: skip
        self._places = [asyncio.Semaphore(MAX_CONN) for _ in self.front_ends]
        self._answers = [asyncio.Event() for _ in self.front_ends]  #: not while it is frozen
        self._doors: list[Door] = []
        self._endpoints: dict[tuple[int, int], str] = {}
        self._open: dict[tuple[int, int], asyncio.Event] = {}

    async def start(self) -> None:
        """Open all doors: every viewer has its own to every front-end."""
        for server in range(len(self.front_ends)):
            self._answers[server].set()
            for viewer in range(len(self.front_ends)):
                place = (viewer, server)
                self._open[place] = asyncio.Event()
                self._open[place].set()
                door = Door(
                    partial(self._respond, server, viewer),
                    places=self._places[server],
                    idle_s=IDLE_S,
                    opened=partial(self._reached, server, viewer),
                )
                port = await door.start("127.0.0.1", 0)
                self._doors.append(door)
                self._endpoints[place] = f"http://127.0.0.1:{port}/RPC2"

    def close(self) -> None:
        """Close all doors."""
        for door in self._doors:
            door.close()

    # --- looking ---

    def endpoints(self, viewer: int = 0) -> dict[int, str]:
        """Where a viewer reaches the front-ends; viewer N is the machine of front-end N."""
        return {server: endpoint for (seen_by, server), endpoint in self._endpoints.items() if seen_by == viewer}

    def blocked(self, server: int) -> int:
        """How many of its connections are held."""
        return MAX_CONN - self._places[server]._value

    # --- faults ---

    def freeze(self, *servers: int) -> None:
        """They stand still (SIGSTOP)."""
        super().freeze(*servers)
        for server in servers:
            self._answers[server].clear()

    def thaw(self, *servers: int) -> None:
        """They go on."""
        for server in servers:
            self._answers[server].set()
        super().thaw(*servers)

    def cut(self, one: int, other: int) -> None:
        """Two machines do not hear each other."""
        super().cut(one, other)
        for place in ((one, other), (other, one)):
            self._open[place].clear()

    def heal(self) -> None:
        """All cuts are mended. What was sent meanwhile arrives."""
        super().heal()
        for opened in self._open.values():
            opened.set()

    # --- answers ---

    async def _reached(self, server: int, viewer: int) -> None:
        await self._open[viewer, server].wait()
        await self._answers[server].wait()

    async def _respond(self, server: int, viewer: int, body: bytes) -> str:
        await self._answers[server].wait()
        answer = await self._answer(server, viewer, body)
        await self._reached(server, viewer)
        return answer

    async def _answer(self, server: int, viewer: int, body: bytes) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ask(server, viewer, body, partial(_set, answer))
        return await answer


def _set(answer: asyncio.Future[str], text: str) -> None:
    if not answer.done():
        answer.set_result(text)
