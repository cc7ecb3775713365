"""The front-ends of an OpenNebula zone: who of them leads, and whether a majority has what was written.

A "true" of oned proves nothing: a leader that falls answers so for writes that are lost, and one that is cut off says
that it leads without end. What stands with a majority of the servers, all in the term of the one leader, behind
everything that was in its log before, cannot be lost any more.

It must never have more than one write under way, and starts none that cannot be committed: blocked writes hold the
connections of oned, and fifteen of them stop its whole API. A time-out is no proof. It decides nothing about leads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import anyio

from ha_controller.adapters.arbiter.front_ends import WORDS, FrontEnd, FrontEnds
from ha_controller.adapters.opennebula import (
    Client,
    NoSuchObject,
    OnedUser,
    OpenNebulaError,
    RaftState,
    RaftStatus,
    Unauthenticated,
    Unauthorized,
)
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterUnreachable, NotLeading, SecretStr

LOOK_AGAIN_S = 0.05  #: at a follower that has not got it yet; it hears of it every 0.5 s
_NOTHING: Mapping[int, Mapping[str, str]] = MappingProxyType({})

Result = TypeVar("Result")


class NoSuchHost(Exception):
    """OpenNebula says that there is no such host, or none that our user has a right to."""


class _Refused(ArbiterUnreachable):
    """OpenNebula has said no, for what was named: nothing was written."""


class Zone(FrontEnds):
    """All front-ends. Writes go through the one beside us, and it is the one that must lead."""

    def __init__(self, account: OpenNebulaAccount, addresses: tuple[str, ...], timeout_s: float) -> None:
        """No I/O here. `addresses`: as of `FrontEnds`."""
        super().__init__(account, addresses, timeout_s)
        self._writing = anyio.Lock()
        self.has_unanswered = False  #: a write that may still hold a connection of oned

    # --- a majority ---

    def must_lead(self, status: RaftStatus, term: int, server: int) -> None:
        """Raises NotLeading: the oned beside us is not, or not any more, the leader in that term of Raft."""
        if status.id != server:
            raise NotLeading(
                f"opennebula.endpoint was server {server} and is {status.id} now: it must be the oned of this machine"
            )
        if status.state != RaftState.LEADER or status.term != term:
            what = WORDS.get(status.state, "is in a state that we do not know")
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
        self,
        term: int,
        attributes: Mapping[str, str],
        host: int,
        session: SecretStr,
        sends: Callable[[], None] = lambda: None,
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


async def _shown_on_hosts(client: Client, hosts: Mapping[int, Mapping[str, str]]) -> bool:
    for host, attributes in hosts.items():
        found = (await client.host(host)).template
        if any(found.get(name, "") != value for name, value in attributes.items()):
            return False
    return True
