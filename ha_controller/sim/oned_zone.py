"""A zone of embedded oneds: front-ends of one OpenNebula that agree by Raft, with the faults that were observed.

Followers answer reads from a copy that is as old as the last broadcast, and hand writes to the leader. A server that
is frozen accepts connections and answers nothing until it thaws; then it serves what waits in its sockets first. One
that is cut off goes on in what it knew: it may say that it leads without end, takes tokens that were revoked since, and
blocks writes, each of which holds one of its connections.

Every front-end is seen through doors of its own by each viewer, so that the network between them can be cut, too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ha_controller.sim import oned_raft as raft
from ha_controller.sim import oned_xml as xml
from ha_controller.sim.oned_door import IDLE_S, MAX_CONN, Door
from ha_controller.sim.oned_model import INTERNAL, OnedRefusal
from ha_controller.sim.oned_raft import Entry, Raft, Server
from ha_controller.sim.oned_server import Fault, OnedServer, parse_call, refused, succeeded
from ha_controller.sim.oned_state import Oned

ELECTION_S, BROADCAST_S, FORWARD_S = 5.0, 0.5, 10.0  #: the stock values
TICK_S = 0.02
_READS = ("info", "infoset", "infoextended", "version", "config", "monitoring", "raftstatus")


@dataclass(eq=False, kw_only=True)
class FrontEnd:
    """A server, what it shows to readers, and what waits for it."""

    server: Server
    copy: OnedServer
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONN))
    answers: asyncio.Event = field(default_factory=asyncio.Event)  #: not while it is frozen
    inbox: list[tuple[bytes, asyncio.Future[str]]] = field(default_factory=list)  #: forwarded to it while it is frozen


class OnedZone:
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
        self._oned, self._live, self._clock, self._forward_s = oned, live, clock, forward_s
        self.raft = Raft(servers, now=clock(), election_s=election_s, broadcast_s=broadcast_s, seen=self._seen)
        self.front_ends = [FrontEnd(server=server, copy=self._taken()) for server in self.raft.servers]
        self._doors: list[Door] = []
        self._endpoints: dict[tuple[int, int], str] = {}
        self._open: dict[tuple[int, int], asyncio.Event] = {}

    async def start(self) -> None:
        """Open all doors: every viewer has its own to every front-end."""
        for front_end in self.front_ends:
            front_end.answers.set()
            for viewer in range(len(self.front_ends)):
                place = (viewer, front_end.server.id)
                self._open[place] = asyncio.Event()
                self._open[place].set()
                door = Door(
                    partial(self._respond, front_end, viewer),
                    places=front_end.places,
                    idle_s=IDLE_S,
                    opened=partial(self._reached, front_end, viewer),
                )
                port = await door.start("127.0.0.1", 0)
                self._doors.append(door)
                self._endpoints[place] = f"http://127.0.0.1:{port}/RPC2"

    def close(self) -> None:
        """Close all doors."""
        for door in self._doors:
            door.close()

    def tick(self) -> None:
        """Let time pass. Nothing happens in OpenNebula while nobody leads it."""
        now = self._clock()
        self.raft.tick(now)
        if self.raft.leader is not None:
            self._oned.advance(now)

    # --- looking ---

    def endpoints(self, viewer: int = 0) -> dict[int, str]:
        """Where a viewer reaches the front-ends; viewer N is the machine of front-end N."""
        return {server: endpoint for (seen_by, server), endpoint in self._endpoints.items() if seen_by == viewer}

    @property
    def leader(self) -> int | None:
        """The number of the front-end that could commit a write now."""
        leader = self.raft.leader
        return None if leader is None else leader.id

    # --- faults ---

    def freeze(self, *servers: int) -> None:
        """They stand still (SIGSTOP)."""
        self._note_what_is_committed()
        for server in servers:
            self.raft.servers[server].frozen = True
            self.front_ends[server].answers.clear()

    def thaw(self, *servers: int) -> None:
        """They go on. What waits in their sockets is served before they hear of anything."""
        for server in servers:
            front_end = self.front_ends[server]
            front_end.server.frozen = False
            front_end.answers.set()
            waiting, front_end.inbox = front_end.inbox, []
            for body, answer in waiting:
                self._write(front_end, body, answer)

    def cut_off(self, server: int) -> None:
        """The machine of a front-end hears no other, and nobody hears it; what runs beside it reaches it."""
        for other in range(len(self.front_ends)):
            if other != server:
                self.cut(server, other)

    def cut(self, one: int, other: int) -> None:
        """Two machines do not hear each other."""
        self._note_what_is_committed()
        self.raft.cut.add(frozenset({one, other}))
        for place in ((one, other), (other, one)):
            self._open[place].clear()

    def heal(self) -> None:
        """All cuts are mended. What was sent meanwhile arrives."""
        self.raft.cut.clear()
        for opened in self._open.values():
            opened.set()

    def _note_what_is_committed(self) -> None:
        if (leader := self.raft.leader) is not None:
            self._seen([leader])

    def blocked(self, server: int) -> int:
        """How many of its connections are held."""
        return MAX_CONN - self.front_ends[server].places._value

    # --- answers ---

    async def _reached(self, front_end: FrontEnd, viewer: int) -> None:
        await self._open[viewer, front_end.server.id].wait()
        await front_end.answers.wait()

    async def _respond(self, front_end: FrontEnd, viewer: int, body: bytes) -> str:
        await front_end.answers.wait()
        answer = await self._answer(front_end, viewer, body)
        await self._reached(front_end, viewer)
        return answer

    async def _answer(self, front_end: FrontEnd, viewer: int, body: bytes) -> str:
        shown = self._shown(front_end)
        try:
            method, _ = parse_call(body)
        except Fault:
            return shown.answer(body)
        if not method.endswith(_READS):
            return await self._written(front_end, body, method)
        documents = {
            "one.zone.raftstatus": lambda: self._status(front_end.server),
            "one.zone.info": lambda: xml.zone(self.endpoints(viewer)),
            "one.zonepool.info": lambda: xml.pool("ZONE_POOL", [xml.zone(self.endpoints(viewer))]),
        }
        answer = shown.answer(body)  # refuses whom it does not know
        is_refused = "<boolean>0</boolean>" in answer or "<fault>" in answer
        return answer if is_refused or method not in documents else succeeded(documents[method]())

    def _shown(self, front_end: FrontEnd) -> OnedServer:
        """What a front-end reads from: only the leader sees what is committed as soon as it is."""
        return self._live if self.raft.leader is front_end.server else front_end.copy

    def _status(self, server: Server) -> str:
        return xml.raft(
            SERVER_ID=server.id,
            STATE=server.state,
            TERM=server.term,
            VOTEDFOR=server.voted_for,
            COMMIT=server.commit,
            LOG_INDEX=len(server.log),
            LOG_TERM=server.log[-1].term if server.log else 0,
            FEDLOG_INDEX=-1,
        )

    def _seen(self, servers: Collection[Server]) -> None:
        taken = self._taken()
        for server in servers:
            self.front_ends[server.id].copy = taken

    def _taken(self) -> OnedServer:
        users = self._live.users.snapshot()
        return OnedServer(self._oned.snapshot(), session=":", clock=self._clock, users=users, is_copy=True)

    # --- writes ---

    async def _written(self, front_end: FrontEnd, body: bytes, method: str) -> str:
        """The leader takes a write in, all others hand it on."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        server = front_end.server
        if server.state == raft.LEADER:
            self._write(front_end, body, answer)
            return await answer
        if server.state == raft.CANDIDATE:
            return _internal(method, "oned cluster in election mode")
        if server.leader is None:
            return _internal(method, "no leader found")
        leader = self.front_ends[server.leader]
        if leader.server.frozen or leader.server not in self.raft.peers(server):
            leader.inbox.append((body, answer))
        else:
            self._write(leader, body, answer)
        await asyncio.wait([answer], timeout=self._forward_s)
        return answer.result() if answer.done() else _internal(method, "RPC call timed out and aborted")

    def _write(self, front_end: FrontEnd, body: bytes, answer: asyncio.Future[str]) -> None:
        method, arguments = parse_call(body)
        server, now = front_end.server, self._clock()
        if server.state != raft.LEADER:
            _set(answer, _internal(method, "no leader found"))
            return
        if server.replicates:
            _set(answer, _internal(method, "oned cluster is replicating log"))
            return
        try:
            self._shown(front_end).users.authenticate(method, str(arguments[0]) if arguments else "", now)
        except OnedRefusal as refusal:
            _set(answer, refused(refusal))
            return
        entry = Entry(
            term=server.term,
            commit=lambda: _set(answer, self._live.answer(body)),
            fall=lambda: _set(answer, succeeded(_plausible(method, arguments))),
        )
        self.raft.propose(server, entry, now)


def _set(answer: asyncio.Future[str], text: str) -> None:
    if not answer.done():
        answer.set_result(text)


def _internal(method: str, text: str) -> str:
    return refused(OnedRefusal(INTERNAL, f"[{method}] {text}"))


def _plausible(method: str, arguments: tuple[Any, ...]) -> object:
    """What oned answers to a write that it has lost: that it is done."""
    if method == "one.user.login":
        return secrets.token_hex(32) if int(arguments[3]) else ""
    return next((each for each in arguments[1:] if isinstance(each, int)), 0)
