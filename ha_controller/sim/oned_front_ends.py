"""The front-ends of a zone of embedded oneds, without a door: who answers what, who takes a write in, what is lost.

Followers answer reads from a copy that is as old as the last broadcast, and hand writes to the leader. A server that
is frozen answers nothing until it thaws. One that is cut off goes on in what it knew: it may say that it leads without
end, takes tokens that were revoked since, and blocks writes.

Clock-driven: whoever opens doors (`oned_zone`) or pretends them (the simulator) brings the questions and lets time
pass. An answer comes by a call, at once, later, or never.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from ha_controller.sim import oned_raft as raft
from ha_controller.sim import oned_xml as xml
from ha_controller.sim.oned_model import INTERNAL, OnedRefusal
from ha_controller.sim.oned_raft import Entry, Raft, Server
from ha_controller.sim.oned_server import Fault, OnedServer, parse_call, refused, succeeded
from ha_controller.sim.oned_state import Oned

ELECTION_S, BROADCAST_S, FORWARD_S = 5.0, 0.5, 10.0  #: the stock values
READS = ("info", "infoset", "infoextended", "version", "config", "monitoring", "raftstatus")

Answered = Callable[[str], None]


@dataclass(kw_only=True)
class Write:
    """One, on its way to be taken in."""

    viewer: int  #: the machine that it came from
    body: bytes
    method: str
    arguments: tuple[Any, ...]  #: the session first
    answered: Answered
    gives_up_at: float = float("inf")  #: the follower that has handed it on
    is_answered: bool = False

    def answer(self, text: str) -> None:
        """The first answer is the only one."""
        if not self.is_answered:
            self.is_answered = True
            self.answered(text)


@dataclass(eq=False, kw_only=True)
class FrontEnd:
    """A server, what it shows to readers, and what waits for it."""

    server: Server
    copy: OnedServer
    inbox: list[Write] = field(default_factory=list)  #: forwarded to it while it is frozen


class FrontEnds:
    """All of a zone. Viewer N is the machine of front-end N."""

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
        """`oned` and `live` are what is committed."""
        self._oned, self._live, self._clock, self._forward_s = oned, live, clock, forward_s
        self.raft = Raft(servers, now=clock(), election_s=election_s, broadcast_s=broadcast_s, seen=self._seen)
        self.front_ends = [FrontEnd(server=server, copy=self._taken()) for server in self.raft.servers]
        self._forwarded: list[Write] = []

    def tick(self) -> None:
        """Let time pass. Nothing happens in OpenNebula while nobody leads it."""
        now = self._clock()
        self.raft.tick(now)
        if self.raft.leader is not None:
            self._oned.advance(now)
        for write in [each for each in self._forwarded if each.gives_up_at <= now]:
            write.answer(_internal(write.method, "RPC call timed out and aborted"))
        self._forwarded = [each for each in self._forwarded if not each.is_answered]

    # --- looking ---

    def endpoints(self, viewer: int = 0) -> dict[int, str]:
        """Where a viewer reaches the front-ends."""
        raise NotImplementedError

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

    def thaw(self, *servers: int) -> None:
        """They go on. What waits in their sockets is served before they hear of anything."""
        for server in servers:
            front_end = self.front_ends[server]
            front_end.server.frozen = False
            waiting, front_end.inbox = front_end.inbox, []
            for write in waiting:
                self._write(front_end, write)

    def cut_off(self, server: int) -> None:
        """The machine of a front-end hears no other, and nobody hears it; what runs beside it reaches it."""
        for other in range(len(self.front_ends)):
            if other != server:
                self.cut(server, other)

    def cut(self, one: int, other: int) -> None:
        """Two machines do not hear each other."""
        self._note_what_is_committed()
        self.raft.cut.add(frozenset({one, other}))

    def heal(self) -> None:
        """All cuts are mended."""
        self.raft.cut.clear()

    def _note_what_is_committed(self) -> None:
        if (leader := self.raft.leader) is not None:
            self._seen([leader])

    # --- answers ---

    def ask(self, server: int, viewer: int, body: bytes, answered: Answered) -> None:
        """A question is read by a front-end."""
        front_end = self.front_ends[server]
        shown = self._shown(front_end)
        try:
            method, arguments = parse_call(body)
        except Fault:
            answered(shown.answer(body))
            return
        if not method.endswith(READS):
            write = Write(viewer=viewer, body=body, method=method, arguments=arguments, answered=answered)
            self._written(front_end, write)
            return
        documents = {
            "one.zone.raftstatus": lambda: self._status(front_end.server),
            "one.zone.info": lambda: xml.zone(self.endpoints(viewer)),
            "one.zonepool.info": lambda: xml.pool("ZONE_POOL", [xml.zone(self.endpoints(viewer))]),
        }
        answer = shown.answer(body)  # refuses whom it does not know
        is_refused = "<boolean>0</boolean>" in answer or "<fault>" in answer
        answered(answer if is_refused or method not in documents else succeeded(documents[method]()))

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

    def committed(self, write: Write) -> str:
        """A majority has it: carry it out."""
        return self._live.answer(write.body)

    def lost(self, write: Write) -> str:
        """Its leader has fallen before a majority had it, and says that it is done."""
        return succeeded(_plausible(write.method, write.arguments))

    def _written(self, front_end: FrontEnd, write: Write) -> None:
        """The leader takes a write in, all others hand it on."""
        server = front_end.server
        if server.state == raft.LEADER:
            self._write(front_end, write)
        elif server.state == raft.CANDIDATE:
            write.answer(_internal(write.method, "oned cluster in election mode"))
        elif server.leader is None:
            write.answer(_internal(write.method, "no leader found"))
        else:
            self._hand_on(server, self.front_ends[server.leader], write)

    def _hand_on(self, server: Server, leader: FrontEnd, write: Write) -> None:
        write.gives_up_at = self._clock() + self._forward_s
        self._forwarded.append(write)
        if leader.server.frozen or leader.server not in self.raft.peers(server):
            leader.inbox.append(write)
        else:
            self._write(leader, write)

    def _write(self, front_end: FrontEnd, write: Write) -> None:
        server, now, session = front_end.server, self._clock(), str((*write.arguments, "")[0])
        if server.state != raft.LEADER:
            write.answer(_internal(write.method, "no leader found"))
            return
        if server.replicates:
            write.answer(_internal(write.method, "oned cluster is replicating log"))
            return
        try:
            self._shown(front_end).users.authenticate(write.method, session, now)
        except OnedRefusal as refusal:
            write.answer(refused(refusal))
            return
        entry = Entry(
            term=server.term,
            commit=lambda: write.answer(self.committed(write)),
            fall=lambda: write.answer(self.lost(write)),
        )
        self.raft.propose(server, entry, now)


def _internal(method: str, text: str) -> str:
    return refused(OnedRefusal(INTERNAL, f"[{method}] {text}"))


def _plausible(method: str, arguments: tuple[Any, ...]) -> object:
    """What oned answers to a write that it has lost: that it is done."""
    if method == "one.user.login":
        return secrets.token_hex(32) if int(arguments[3]) else ""
    return next((each for each in arguments[1:] if isinstance(each, int)), 0)
