"""The front-ends of an OpenNebula zone: who of them leads, and whether a majority has what was written.

A "true" of oned proves nothing: a leader that falls answers so for writes that are lost, and one that is cut off says
that it leads without end. What stands with a majority of the servers, all in the term of the one leader, behind
everything that was in its log before, cannot be lost any more.

It must never have more than one write under way, and starts none that cannot be committed: blocked writes hold the
connections of oned, and fifteen of them stop its whole API. A time-out is no proof. It decides nothing about leads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, TypeVar

import anyio

from ha_controller.adapters.opennebula import (
    Client,
    NoSuchObject,
    OnedUser,
    OnedZone,
    OpenNebulaError,
    RaftState,
    RaftStatus,
    Unauthenticated,
    Unauthorized,
)
from ha_controller.lead import Login, OpenNebulaAccount
from ha_controller.plugin import ArbiterUnreachable, NotLeading, SecretStr

CONNECTIONS = 3  #: to each front-end, of its fifteen
VOTERS_MIN = 3
LOOK_S = 1.0  #: a front-end that hangs holds up a renewal by no more
LOOK_AGAIN_S = 0.05  #: at a follower that has not got it yet; it hears of it every 0.5 s
ONE_BY_ONE_MAX = 16  #: hosts; more are read with all others, in one call
REST_S = 5.0  #: one that does not answer is asked that seldom: what is asked piles up in its sockets
_WORDS: Mapping[int, str] = MappingProxyType(
    {RaftState.SOLO: "is alone", RaftState.CANDIDATE: "asks for votes", RaftState.FOLLOWER: "follows",
     RaftState.LEADER: "says that it leads"}
)  # fmt: skip
_NOTHING: Mapping[int, Mapping[str, str]] = MappingProxyType({})

Result = TypeVar("Result")


class NoSuchHost(Exception):
    """OpenNebula says that there is no such host, or none that our user has a right to."""


class _Refused(ArbiterUnreachable):
    """OpenNebula has said no, for what was named: nothing was written."""


@dataclass(eq=False, kw_only=True)
class FrontEnd:
    """One server of the zone, as it is reached from here."""

    address: str
    client: Client
    number: int | None = None  #: SERVER_ID, once it told it
    seen: str = "not asked yet"
    silent_since: float | None = None


class Zone:
    """All front-ends. The first is the one beside us: writes go through it, and it is the one that must lead."""

    client_class: ClassVar[type[Client]] = Client

    def __init__(self, account: OpenNebulaAccount, addresses: tuple[str, ...], timeout_s: float) -> None:
        """No I/O here. `addresses`: of all front-ends; none: where OpenNebula itself says that they are."""
        self._login, self._addresses, self._timeout_s = Login(account=account), addresses, timeout_s
        self._voters: frozenset[int] = frozenset()
        self._writing = anyio.Lock()
        self._is_open: set[Client] = set()
        self.local = self._front_end(account.endpoint)
        self._others: dict[str, FrontEnd] = {}
        self._unusable = 0  #: how many have an address that is none
        self.has_unanswered = False  #: a write that may still hold a connection of oned

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
        front_end.seen = f"{_WORDS.get(status.state, 'is in a state that we do not know')}, its term is {status.term}"
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

    # --- a majority ---

    def must_lead(self, status: RaftStatus, term: int, server: int) -> None:
        """Raises NotLeading: the oned beside us is not, or not any more, the leader in that term of Raft."""
        if status.id != server:
            raise NotLeading(
                f"opennebula.endpoint was server {server} and is {status.id} now: it must be the oned of this machine"
            )
        if status.state != RaftState.LEADER or status.term != term:
            what = _WORDS.get(status.state, "is in a state that we do not know")
            raise NotLeading(f"OpenNebula beside us {what} in term {status.term} of Raft, and led in term {term}")

    async def has_majority(self, term: int) -> None:
        """Raises ArbiterUnreachable: no majority of the zone is in that term of Raft now."""

        async def is_in_term(front_end: FrontEnd) -> bool:
            status = await self._status(front_end)
            return status.id in self._voters and status.term == term

        await self._of_majority(is_in_term, f"is in term {term} of Raft")

    async def write(self, term: int, attributes: Mapping[str, str], user: int, session: SecretStr) -> None:
        """Write on our user through the oned beside us; returns when it said "true", which proves nothing.

        Raises:
            NotLeading: the session is not valid any more.
            ArbiterUnreachable: it was not sent, or what became of it is not known.
        """
        await self._send(lambda client: client.update_user(user, attributes), term, session)

    async def write_host(
        self, term: int, attributes: Mapping[str, str], host: int, session: SecretStr, sends: Callable[[], object] = int
    ) -> None:
        """The same on a host. `sends` is called right before it is sent. Raises NoSuchHost, too."""

        def order(client: Client) -> Awaitable[None]:
            sends()
            return client.update_host(host, attributes)

        try:
            await self._send(order, term, session)
        except _Refused as error:
            raise NoSuchHost(str(error)) from error

    async def login(self, term: int, user: str, token: str, valid_s: int, session: SecretStr) -> str:
        """The same with a login token: a new one, or with `valid_s` 0 that one revoked, an empty one: all."""
        return await self._send(lambda client: client.login(user, token, valid_s), term, session)

    async def _send(self, order: Callable[[Client], Awaitable[Result]], term: int, session: SecretStr) -> Result:
        client = (await self._opened(self.local)).as_user(session)
        async with self._writing:
            await self.has_majority(term)
            await self._nothing_is_blocked()
            self.has_unanswered = True
            try:
                result = await order(client)
            except Unauthenticated as error:
                self.has_unanswered = False
                raise NotLeading(f"our login is not valid any more: {error}") from error
            except (NoSuchObject, Unauthorized) as error:
                self.has_unanswered = False
                raise _Refused(f"OpenNebula refuses a write: {error}") from error
            except OpenNebulaError as error:
                raise ArbiterUnreachable(f"a write to OpenNebula is not proven: {error}") from error
            self.has_unanswered = False
            return result

    async def _nothing_is_blocked(self) -> None:
        """After a write without an answer: wait until the log has moved on, or send nothing."""
        if not self.has_unanswered:
            return
        now = first = await self._status(self.local)
        with anyio.move_on_after(self._timeout_s):
            while now.commit < first.log_index:
                await anyio.sleep(LOOK_AGAIN_S)
                now = await self._status(self.local)
            self.has_unanswered = False
        if self.has_unanswered:
            raise ArbiterUnreachable("a write to OpenNebula has no answer yet: no second one is sent behind it")

    async def confirm(
        self,
        term: int,
        server: int,
        shows: Callable[[OnedUser], bool],
        session: SecretStr,
        hosts: Mapping[int, Mapping[str, str]] = _NOTHING,
    ) -> None:
        """Wait until a majority, the oned beside us among it, shows something that was written on our user in a term.

        `hosts`: what was written on hosts before that, and is to be seen, too.

        Raises:
            NotLeading: the oned beside us does not lead in that term any more.
            ArbiterUnreachable: no majority shows it in time.
        """
        written = await self._status(self.local)
        self.must_lead(written, term, server)

        async def has_it(front_end: FrontEnd) -> bool:
            client = (await self._opened(front_end)).as_user(session)
            while True:
                try:
                    is_shown = shows(await client.user()) and await _shown_on_hosts(client, hosts)
                except Unauthenticated:
                    is_shown = False  # a new token comes to a follower a little later
                except OpenNebulaError as error:
                    raise self._unreachable(front_end, f"does not answer ({error})") from error
                status = await self._status(front_end)  # after the look: its term never goes back
                if is_shown and status.term == term and status.commit >= written.log_index:
                    return status.id in self._voters
                if status.term > term:
                    return False
                await anyio.sleep(LOOK_AGAIN_S)

        await self._of_majority(has_it, "has what was written")
        self.must_lead(await self._status(self.local), term, server)

    async def _of_majority(self, holds: Callable[[FrontEnd], Awaitable[bool]], what: str) -> None:
        """Ask all at once; done as soon as a majority, with the one beside us, says yes. Raises ArbiterUnreachable."""
        needed = len(self._voters) // 2 + 1
        yes: set[int] = set()
        why: list[str] = []

        async def ask(front_end: FrontEnd, scope: anyio.CancelScope) -> None:
            try:
                if await holds(front_end) and front_end.number is not None:
                    yes.add(front_end.number)
            except ArbiterUnreachable as error:
                why.append(str(error))
            if len(yes) >= needed and self.local.number in yes:
                scope.cancel()

        with anyio.move_on_after(2 * self._timeout_s):
            async with anyio.create_task_group() as group:
                for front_end in self._worth_asking(needed):
                    group.start_soon(ask, front_end, group.cancel_scope)
        if not self._voters or len(yes) < needed or self.local.number not in yes:
            told = f": {why[0]}" if why else ""
            raise ArbiterUnreachable(
                f"{len(yes)} of {len(self._voters)} servers of the zone (need {needed}, the one beside us among them) "
                f"say that it {what}{told}"
            )

    def _worth_asking(self, needed: int) -> list[FrontEnd]:
        """Without those that are silent, unless needed. The one beside us may be among the others, too."""
        every = [self.local, *self._others.values()]
        awake = [each for each in every if each.silent_since is None or each is self.local]
        return awake if len({each.number for each in awake} - {None}) >= needed else every


async def _shown_on_hosts(client: Client, hosts: Mapping[int, Mapping[str, str]]) -> bool:
    for host, attributes in hosts.items():
        found = (await client.host(host)).template
        if any(found.get(name, "") != value for name, value in attributes.items()):
            return False
    return True


def _only_zone(zones: list[OnedZone]) -> OnedZone:
    if len(zones) != 1:
        raise ArbiterUnreachable(
            f"this OpenNebula is a federation of {len(zones)} zones: users and their tokens are written by its master "
            'zone, so the leader of a zone proves nothing with them. Run a controller for each zone, with kind "etcd"'
        )
    return zones[0]


def _number(front_end: FrontEnd) -> str:
    return "?" if front_end.number is None else str(front_end.number)
