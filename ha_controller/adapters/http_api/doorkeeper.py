"""Says who is asking, from whatever a request shows: a token, the user at the other end of the socket, a session, or
what a reverse proxy that is named in the configuration says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import anyio
from aiohttp import web

from ha_controller.adapters.http_api.access import NOBODY, SESSION_COOKIE, Caller, Role, address_of, challenge
from ha_controller.adapters.http_api.local_peers import LocalPeers
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.http_api.sessions import Sessions
from ha_controller.adapters.http_api.tokens import Kept, Tokens
from ha_controller.showable import one_line

NAME_MAX = 100  #: characters


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """Reverse proxies whose headers are believed. From any other address the headers mean nothing."""

    addresses: frozenset[str] = frozenset()
    user_header: str = "X-Forwarded-User"
    groups_header: str = "X-Forwarded-Groups"
    roles: Mapping[str, Role] = field(default_factory=dict)  #: by group


class Doorkeeper:
    """Knows everybody who may come in."""

    def __init__(
        self,
        kept: Kept,
        *,
        clock: Callable[[], float],
        proxies: Proxies | None = None,
        session_s: float = 12 * 3600.0,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        """`clock` gives seconds since 1970, `now` monotonic ones."""
        self.tokens = Tokens(kept, clock)
        self.sessions = Sessions(session_s, now)
        self._proxies = proxies or Proxies()
        self._peers = LocalPeers()

    async def identify(self, request: web.Request) -> Caller:
        """The caller; `NOBODY` if nothing says who it is. What is shown and not valid is never passed over.

        Raises:
            Problem: what it shows is not valid.
        """
        if "Authorization" in request.headers:
            return self._bearer(request)
        local = await self._peers.caller(request)
        if local is not NOBODY:
            return local
        if SESSION_COOKIE in request.cookies:
            return self.sessions.caller(request) or NOBODY
        return self._by_proxy(request)

    def still_valid(self, caller: Caller) -> bool:
        """Whether what it has shown is valid now."""
        match caller.via:
            case "token":
                return self.tokens.still_valid(caller)
            case "login":
                return self.sessions.still_valid(caller)
        return True

    def address(self, request: web.Request) -> str:
        """Where a request comes from; of one that came by a named proxy, what the proxy says."""
        address = address_of(request)
        if address not in self._proxies.addresses:
            return address
        # proxies add a part to the line, or a line: the last one is theirs, what is before it may be anybody's
        told = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
        try:
            return str(ip_address(told))
        except ValueError:
            return address

    def is_encrypted_outside(self, request: web.Request) -> bool:
        """Whether a named proxy says that the browser's connection is encrypted."""
        return (
            address_of(request) in self._proxies.addresses
            and request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        )

    def _bearer(self, request: web.Request) -> Caller:
        given = request.headers.getall("Authorization")
        scheme, _, presented = given[0].partition(" ")
        known = None
        if len(given) == 1 and scheme.lower() == "bearer":
            known = self.tokens.caller(presented.strip(), self.address(request))
        if known is None:
            raise Problem(401, "This token is not known, or has expired or was revoked.", headers=challenge())
        return known

    def _by_proxy(self, request: web.Request) -> Caller:
        proxies = self._proxies
        names = request.headers.getall(proxies.user_header, [])
        if address_of(request) not in proxies.addresses or not names:
            return NOBODY
        name = one_line(names[0], characters_max=NAME_MAX)
        if len(names) > 1 or not name:
            raise Problem(401, f"The proxy must send one {proxies.user_header}.", headers=challenge())
        listed = request.headers.getall(proxies.groups_header, [])
        if len(listed) > 1:  # one of them may be the client's
            raise Problem(401, f"The proxy must send one {proxies.groups_header}.", headers=challenge())
        groups = re.split(r"[\s,;|]+", "".join(listed))
        role = role_of(groups, proxies.roles)
        return Caller(name=name, role=role, via="proxy", address=self.address(request))


def role_of(groups: list[str] | frozenset[str], roles: Mapping[str, Role]) -> Role:
    """The highest role that any of the groups has."""
    return max((roles[group] for group in groups if group in roles), default=Role.NOBODY)
