"""The Raft of a zone of embedded oneds, clock-driven and without I/O, as observed on three oneds 7.4.0.

What was seen: a leader without followers never steps down and never fails a write; a lone follower's TERM climbs; a
leader that falls answers the writes that it could not commit with "true", although nobody has them. An entry that a
later leader still has in its log is carried out after all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

SOLO, CANDIDATE, FOLLOWER, LEADER = 0, 1, 2, 3


@dataclass(eq=False, kw_only=True)
class Entry:
    """One write in a log."""

    term: int
    commit: Callable[[], None]  #: carries it out, once
    fall: Callable[[], None]  #: its leader has fallen before it was committed
    done: bool = False


@dataclass(eq=False, kw_only=True)
class Server:
    """What one server knows."""

    id: int
    state: int = FOLLOWER
    term: int = 0
    voted_for: int = -1
    log: list[Entry] = field(default_factory=list)
    commit: int = 0
    heard_at: float = 0.0
    broadcast_at: float = 0.0
    leader: int | None = None
    replicates: bool = False  #: was just elected, and takes no writes yet
    frozen: bool = False

    @property
    def up_to(self) -> tuple[int, int]:
        """How far its log goes; who asks for a vote must not be behind."""
        return (self.log[-1].term if self.log else 0, len(self.log))


class Raft:
    """The servers and what they tell each other. A message arrives at once, or never."""

    def __init__(
        self,
        count: int,
        *,
        now: float,
        election_s: float,
        broadcast_s: float,
        seen: Callable[[Collection[Server]], None],
    ) -> None:
        """`seen`: these servers have by now all that is committed."""
        self.servers = [Server(id=number, heard_at=now) for number in range(count)]
        self.cut: set[frozenset[int]] = set()  #: pairs that do not hear each other
        self._election_s, self._broadcast_s, self._seen = election_s, broadcast_s, seen
        self.ticked_at = now

    # --- looking ---

    def peers(self, server: Server) -> list[Server]:
        """Those that hear it and answer."""
        return [
            each
            for each in self.servers
            if each is not server and not each.frozen and frozenset({each.id, server.id}) not in self.cut
        ]

    def is_majority(self, servers: Collection[Server]) -> bool:
        """Whether so many decide."""
        return 2 * len(servers) > len(self.servers)

    @property
    def leader(self) -> Server | None:
        """The one that could commit a write now."""
        leaders = [each for each in self.servers if each.state == LEADER and not each.frozen]
        able = [each for each in leaders if self.is_majority([each, *self._followers(each)])]
        return max(able, key=lambda each: each.term, default=None)

    def _followers(self, leader: Server) -> list[Server]:
        return [peer for peer in self.peers(leader) if peer.term <= leader.term]

    # --- time ---

    def due(self) -> float:
        """When somebody wants to say something, or has heard nothing for too long."""
        awake = [each for each in self.servers if not each.frozen]
        wanted = [each.broadcast_at if each.state == LEADER else self._asks_at(each) for each in awake]
        return min(wanted, default=float("inf"))

    def _asks_at(self, server: Server) -> float:
        return server.heard_at + self._election_s * (1 + 0.3 * server.id)

    def tick(self, now: float) -> None:
        """Do what is due. A busy process of ours that ticks late is no silence of a leader."""
        late_s, self.ticked_at = now - self.ticked_at, now
        for server in self.servers:
            server.heard_at += late_s if late_s > self._broadcast_s else 0.0
            if server.frozen:
                continue
            if server.state == LEADER:
                if server.broadcast_at <= now:
                    self.broadcast(server, now)
            elif now >= self._asks_at(server):
                self.elect(server, now)

    def broadcast(self, leader: Server, now: float) -> None:
        """Heartbeat: logs, and what is committed."""
        leader.broadcast_at = now + self._broadcast_s
        reached = self._replicate(leader, now)
        if leader.state != LEADER or not self.is_majority([leader, *reached]):
            return
        leader.replicates = False
        for server in reached:
            server.commit = leader.commit
        self._seen([leader, *reached])

    def _replicate(self, leader: Server, now: float) -> list[Server]:
        """Send the log to all that hear; returns who has it. What a majority has is committed and carried out."""
        reached = []
        for peer in self.peers(leader):
            if peer.term > leader.term:
                self._follow(leader, peer.term, None, now)
                return []
            self._follow(peer, leader.term, leader.id, now)
            peer.log = list(leader.log)
            peer.commit = min(peer.commit, len(peer.log))
            reached.append(peer)
        if self.is_majority([leader, *reached]) and leader.log and leader.log[-1].term == leader.term:
            leader.commit = len(leader.log)
            for entry in leader.log:
                if not entry.done:
                    entry.done = True
                    entry.commit()
        return reached

    def _follow(self, server: Server, term: int, leader: int | None, now: float) -> None:
        """Become a follower, or stay one."""
        has_fallen = server.state == LEADER
        if term > server.term:
            server.term, server.voted_for = term, -1
        server.state, server.leader = FOLLOWER, leader
        if leader is not None or has_fallen:  # not for one who only asks for votes, or it could do so without end
            server.heard_at = now
        if has_fallen:
            for entry in server.log[server.commit :]:
                entry.fall()

    def elect(self, server: Server, now: float) -> None:
        """Ask for votes; without a majority the term has risen, and no more."""
        server.term += 1
        server.state, server.voted_for, server.leader, server.heard_at = CANDIDATE, server.id, None, now
        votes = [server]
        for peer in self.peers(server):
            if peer.term > server.term:
                self._follow(server, peer.term, None, now)
                return
            if peer.term < server.term:
                self._follow(peer, server.term, None, now)
            if peer.voted_for in (-1, server.id) and server.up_to >= peer.up_to:
                peer.voted_for, peer.heard_at = server.id, now
                votes.append(peer)
        if self.is_majority(votes):
            server.state, server.leader = LEADER, server.id
            server.log.append(Entry(term=server.term, commit=lambda: None, fall=lambda: None))
            server.replicates, server.broadcast_at = True, now + self._broadcast_s

    # --- writes ---

    def propose(self, leader: Server, entry: Entry, now: float) -> None:
        """Append to a leader's log; it is carried out as soon as a majority has it, which may be never."""
        leader.log.append(entry)
        self._replicate(leader, now)
