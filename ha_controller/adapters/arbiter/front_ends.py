"""The front-ends of an OpenNebula zone, as they are reached from here: who votes, and what each says of itself.

It reads only, and must never let a front-end that hangs hold up a renewal of the lead. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import anyio

from ha_controller.adapters.opennebula import (
    Client,
    NoSuchObject,
    OnedUser,
    OnedZone,
    OpenNebulaError,
    RaftState,
    RaftStatus,
    Unauthorized,
)
from ha_controller.lead import Login, OpenNebulaAccount
from ha_controller.plugin import ArbiterUnreachable

CONNECTIONS = 3  #: to each front-end, of its fifteen
VOTERS_MIN = 3
LOOK_S = 1.0  #: a front-end that hangs holds up a renewal by no more
ONE_BY_ONE_MAX = 16  #: hosts; more are read with all others, in one call
REST_S = 5.0  #: one that does not answer is asked that seldom: what is asked piles up in its sockets
WORDS: Mapping[int, str] = MappingProxyType(
    {RaftState.SOLO: "is alone", RaftState.CANDIDATE: "asks for votes", RaftState.FOLLOWER: "follows",
     RaftState.LEADER: "says that it leads"}
)  # fmt: skip


@dataclass(eq=False, kw_only=True)
class FrontEnd:
    """One server of the zone, as it is reached from here."""

    address: str
    client: Client
    number: int | None = None  #: SERVER_ID, once it told it
    seen: str = "not asked yet"
    silent_since: float | None = None


class FrontEnds:
    """All of them. The first is the one beside us."""

    client_class: ClassVar[type[Client]] = Client

    def __init__(self, account: OpenNebulaAccount, addresses: tuple[str, ...], timeout_s: float) -> None:
        """No I/O here. `addresses`: of all front-ends; none: where OpenNebula itself says that they are."""
        self._login, self._addresses, self._timeout_s = Login(account=account), addresses, timeout_s
        self._voters: frozenset[int] = frozenset()
        self._is_open: set[Client] = set()
        self.local = self._front_end(account.endpoint)
        self._others: dict[str, FrontEnd] = {}
        self._unusable = 0  #: how many have an address that is none

    def _front_end(self, address: str) -> FrontEnd:
        client = self.client_class(address, self._login, timeout_s=self._timeout_s, connections=CONNECTIONS)
        return FrontEnd(address=address, client=client)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._is_open:
            await client.__aexit__(None, None, None)
        self._is_open.clear()

    async def _opened(self, front_end: FrontEnd) -> Client:
        if front_end.client not in self._is_open:
            await front_end.client.__aenter__()
            self._is_open.add(front_end.client)
        return front_end.client

    def in_words(self) -> list[str]:
        """What was last seen of each."""
        found = sorted([self.local, *self._others.values()], key=lambda each: (each.number is None, each.number or 0))
        told = [f"front-end {_number(each)} at {each.address}: {each.seen}" for each in found]
        if self._unusable:
            told.append(f"{self._unusable} more, whose address cannot be used: see onezone show")
        return told

    # --- looking ---

    async def local_status(self) -> RaftStatus:
        """What the oned beside us says of itself. Raises ArbiterUnreachable."""
        return await self._status(self.local)

    async def user(self) -> OnedUser:
        """Our user as the oned beside us has it. Raises ArbiterUnreachable."""
        try:
            return await (await self._opened(self.local)).user()
        except OpenNebulaError as error:
            raise ArbiterUnreachable(f"OpenNebula beside us: {error}") from error

    async def host_attributes(self, hosts: Collection[int]) -> Mapping[int, Mapping[str, str]]:
        """Attributes of those of the hosts that there are for us, as the oned beside us has them.

        Raises ArbiterUnreachable.
        """
        client, found = await self._opened(self.local), dict[int, Mapping[str, str]]()
        try:
            if len(hosts) > ONE_BY_ONE_MAX:
                return {host.id: host.template for host in await client.hosts()}
            for host in hosts:
                with suppress(NoSuchObject, Unauthorized):
                    found[host] = (await client.host(host)).template
        except OpenNebulaError as error:
            raise ArbiterUnreachable(f"OpenNebula beside us: {error}") from error
        return found

    async def _status(self, front_end: FrontEnd) -> RaftStatus:
        try:
            status = await (await self._opened(front_end)).raft_status()
        except Unauthorized as error:
            remedy = "Let our user see it: oneacl create '#USER_ID ZONE/* ADMIN *'"
            raise self._unreachable(front_end, f"does not tell us its state ({error}). {remedy}") from error
        except OpenNebulaError as error:
            front_end.silent_since = anyio.current_time()
            raise self._unreachable(front_end, f"does not answer ({error})") from error
        front_end.number, front_end.silent_since = status.id, None
        front_end.seen = f"{WORDS.get(status.state, 'is in a state that we do not know')}, its term is {status.term}"
        return status

    @staticmethod
    def _unreachable(front_end: FrontEnd, what: str) -> ArbiterUnreachable:
        front_end.seen = what
        return ArbiterUnreachable(f"front-end {_number(front_end)} at {front_end.address} {what}")

    async def find_voters(self) -> None:
        """Learn who votes, from the oned beside us, and where each is reached.

        Raises:
            ArbiterUnreachable: it cannot be told, or it is no zone in which a majority decides.
        """
        try:
            zones = await (await self._opened(self.local)).zones()
        except OpenNebulaError as error:
            raise ArbiterUnreachable(f"OpenNebula does not tell its zone: {error}") from error
        servers = _only_zone(zones).servers
        if len(servers) < VOTERS_MIN:
            raise ArbiterUnreachable(
                f"the zone has {len(servers)} servers, and fewer than {VOTERS_MIN} cannot decide by majority. Add "
                'front-ends to it (onezone server-add), or use leader.kind = "single" or "etcd"'
            )
        self._voters = frozenset(servers)
        listed = ", ".join(f"{number} at {endpoint}" for number, endpoint in sorted(servers.items()))
        if self.local.number not in self._voters:
            raise ArbiterUnreachable(
                f"opennebula.endpoint is server {self.local.number}, which is none of this zone ({listed})"
            )
        elsewhere = {number: endpoint for number, endpoint in servers.items() if number != self.local.number}
        known = self._addresses or tuple(elsewhere.values())
        others = {address: self._others.get(address) or self._made(address) for address in known}
        self._others = {address: front_end for address, front_end in others.items() if front_end is not None}
        self._unusable = len(others) - len(self._others)
        if not self._addresses:
            for number, endpoint in elsewhere.items():
                if endpoint in self._others:
                    self._others[endpoint].number = number

    def _made(self, address: str) -> FrontEnd | None:
        """None: a person gave OpenNebula an address that is none; it may hold a password. That server is silent."""
        try:
            return self._front_end(address)
        except ValueError:
            return None

    async def look(self) -> None:
        """Ask every front-end who it is; those that were silent are asked here and not by proofs, if others suffice.

        Raises:
            ArbiterUnreachable: two addresses are one server, so they are of two zones, or one is listed twice.
        """
        answered: dict[int, str] = {}
        waiting: set[FrontEnd] = set()

        async def ask(front_end: FrontEnd) -> None:
            try:
                status = await self._status(front_end)
            except ArbiterUnreachable:
                waiting.discard(front_end)
                return
            waiting.discard(front_end)
            first = answered.setdefault(status.id, front_end.address)
            if status.id != self.local.number and first != front_end.address:
                twice.append(f"{first} and {front_end.address} both say that they are server {status.id}")
            elif status.id not in self._voters:
                twice.append(f"{front_end.address} says that it is server {status.id}, which this zone has not")

        twice: list[str] = []
        now = anyio.current_time()
        with anyio.move_on_after(LOOK_S):
            async with anyio.create_task_group() as group:
                for front_end in self._others.values():
                    if front_end.silent_since is None or now - front_end.silent_since >= REST_S:
                        waiting.add(front_end)
                        group.start_soon(ask, front_end)
        for front_end in waiting:
            front_end.silent_since, front_end.seen = anyio.current_time(), f"does not answer within {LOOK_S:g} s"
        if twice:
            raise ArbiterUnreachable(
                f"{twice[0]}. All front-ends must be of one zone: a controller serves one zone, and each has its own"
            )

    def _worth_asking(self, needed: int) -> list[FrontEnd]:
        """Without those that are silent, unless needed. The one beside us may be among the others, too."""
        every = [self.local, *self._others.values()]
        awake = [each for each in every if each.silent_since is None or each is self.local]
        return awake if len({each.number for each in awake} - {None}) >= needed else every


def _only_zone(zones: list[OnedZone]) -> OnedZone:
    if len(zones) != 1:
        raise ArbiterUnreachable(
            f"this OpenNebula is a federation of {len(zones)} zones: users and their tokens are written by its master "
            'zone, so the leader of a zone proves nothing with them. Run a controller for each zone, with kind "etcd"'
        )
    return zones[0]


def _number(front_end: FrontEnd) -> str:
    return "?" if front_end.number is None else str(front_end.number)
