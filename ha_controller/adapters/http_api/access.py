"""Who is asking, and what they may do.

Three roles, each with all that the one before it may: viewer (look), operator (pause, hold, approve, maintenance) and
admin (power off, confirm-off, give back, the lead, tokens). An identity comes from one of four places, and what is
wrong in one of them never falls through to the next: a token that is not known is refused, whoever connects.

It must never show or log a credential, and never ask anybody outside before the caller was counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum

from aiohttp import web

from ha_controller.adapters.http_api.problems import Problem
from ha_controller.showable import one_line

SESSION_COOKIE = "ha_session"
CSRF_HEADER = "X-HA-CSRF"
SAFE_METHODS = frozenset({"GET", "HEAD"})


class Role(IntEnum):
    """What a caller may do; a higher one may all that a lower one may."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """Its name."""
        return self.name.lower()

    @classmethod
    def named(cls, word: str) -> Role:
        """The role of that name. Raises KeyError: there is none."""
        return cls[word.upper()]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who is asking."""

    name: str
    role: Role
    via: str  #: "socket", "token", "login", "proxy" or "": nobody
    address: str = ""  #: from where; empty: this machine's own socket
    csrf: str = field(default="", repr=False)  #: what a request of this session that changes something must carry
    proof: str = field(default="", repr=False)  #: the hash of what it has shown, to look again whether that is valid

    @property
    def who(self) -> str:
        """As it is put on record."""
        return f"token {self.name}" if self.via == "token" else self.name

    @property
    def origin(self) -> str:
        """From where, as it is put on record."""
        where = self.address or "local socket"
        return where if self.via in ("", "socket") else f"{where}, by {self.via}"


NOBODY = Caller(name="nobody", role=Role.NOBODY, via="")


def address_of(request: web.Request) -> str:
    """Where a request comes from; empty: from this machine's own socket."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def require(caller: Caller, role: Role) -> None:
    """Let nobody pass who may not.

    Raises:
        Problem: 401 for nobody, 403 for somebody.
    """
    if caller.role >= role:
        return
    if not caller.via:
        raise Problem(401, f"This needs the role {role.word}. Log in, or send a token.", headers=challenge())
    raise Problem(403, f"This needs the role {role.word}; {caller.name} is {caller.role.word}.")


def challenge() -> dict[str, str]:
    """How to say who you are."""
    return {"WWW-Authenticate": 'Bearer realm="ha-controller"'}


def require_own_page(request: web.Request, caller: Caller) -> None:
    """Let a browser's request that changes something pass only if our own page sent it.

    A browser sends a session's cookie, and a proxy's, with requests of any page; but it says which page, and lets none
    but ours set a header. This machine's own socket is trusted by who connects: where `ssh -L` leads a browser to it,
    any page could use that, so there it must be called by a name that no foreign page can have.

    Raises:
        Problem: 403.
    """
    if caller.via == "socket":
        _require_own_name(request)
        if request.method not in SAFE_METHODS:
            require_own_site(request)
        return
    if request.method in SAFE_METHODS or caller.via not in ("login", "proxy"):
        return
    require_own_site(request)
    carried = request.headers.get(CSRF_HEADER, "")
    if not carried or (caller.csrf and carried != caller.csrf):
        raise Problem(403, f"A change needs the header {CSRF_HEADER} as GET /api/v1/session tells it.")


def _require_own_name(request: web.Request) -> None:
    """A page of another site may let its own name stand for this address (DNS rebinding), and its name has a dot."""
    host = request.headers.get("Host", "")
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
    if "." in name and name not in ("127.0.0.1", "") and not name.endswith(".localhost"):
        raise Problem(403, f"Not by the name {one_line(name)}. Say localhost for what SSH forwards to the socket.")


def require_own_site(request: web.Request) -> None:
    """Let a browser's request pass only if our own page sent it, as far as the browser says.

    Raises:
        Problem: 403.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    is_foreign = site not in (None, "same-origin", "none")
    if is_foreign or (origin is not None and origin.partition("://")[2] != request.host):
        raise Problem(403, "Another site's page sent this.")
