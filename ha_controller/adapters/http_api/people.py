"""Logging in and out, and tokens of programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import anyio
from aiohttp import web

from ha_controller.adapters.http_api import people_answers as answers
from ha_controller.adapters.http_api import questions
from ha_controller.adapters.http_api.access import (
    SESSION_COOKIE,
    Caller,
    Role,
    challenge,
    require_own_site,
)
from ha_controller.adapters.http_api.attempts import LoginAttempts
from ha_controller.adapters.http_api.doorkeeper import Doorkeeper, role_of
from ha_controller.adapters.http_api.operations import Call, Operation
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.http_api.sources import BASE, Json, Sources
from ha_controller.adapters.opennebula import OpenNebulaError

#: asks OpenNebula for the groups of a user; None: it does not take the password
AskOpenNebula = Callable[[str, str], Awaitable[frozenset[str] | None]]
LOGINS_WAITING_MAX = 10


class People:
    """Who comes in by a password, and what programs come in with."""

    def __init__(
        self,
        doorkeeper: Doorkeeper,
        sources: Sources,
        *,
        ask: AskOpenNebula,
        roles: Mapping[str, Role],
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        """`roles`: by groups of OpenNebula, their names or numbers; without any nobody logs in."""
        self._doorkeeper = doorkeeper
        self._sources = sources
        self._ask = ask
        self._roles = roles
        self._attempts = LoginAttempts(now)
        self._one = anyio.CapacityLimiter(1)  # OpenNebula serves few connections: logins never take more than one

    def operations(self) -> list[Operation]:
        """All of them."""
        session, tokens, admin = f"{BASE}/session", f"{BASE}/tokens", Role.ADMIN
        return [
            Operation(method="GET", path=session, handler=self._session, answer=answers.Session, role=Role.NOBODY,
                      problems=frozenset({401})),
            Operation(method="POST", path=session, handler=self._log_in, answer=answers.Session, role=Role.NOBODY,
                      body=questions.LoginBody, problems=frozenset({401, 403, 429, 503})),
            Operation(method="DELETE", path=session, handler=self._log_out, role=Role.NOBODY, status=204,
                      problems=frozenset({401, 403})),
            Operation(method="GET", path=tokens, handler=self._tokens, answer=list[answers.TokenRow], role=admin),
            Operation(method="POST", path=tokens, handler=self._create_token, answer=answers.NewToken, role=admin,
                      body=questions.TokenBody, status=201, problems=frozenset({409})),
            Operation(method="DELETE", path=f"{tokens}/{{name}}", handler=self._revoke_token, role=admin, status=204),
        ]  # fmt: skip

    async def _session(self, call: Call) -> Json:
        """Who is asking, what they may do, and what a change by a browser must carry."""
        return _shown(call.caller)

    async def _log_in(self, call: Call) -> web.Response:
        """Log in with the name and the password, or a token, of an OpenNebula user."""
        require_own_site(call.request)
        sent, address = call.sent(questions.LoginBody), self._doorkeeper.address(call.request)
        self._attempts.admit(address, sent.user)
        caller = await self._asked(sent.user, sent.password.get_secret_value(), address)
        await self._note(caller, "log in", f"as {caller.role.word}")
        value, caller = self._doorkeeper.sessions.begin(caller)
        response = web.json_response(_shown(caller))
        is_encrypted = call.request.secure or self._doorkeeper.is_encrypted_outside(call.request)
        response.set_cookie(SESSION_COOKIE, value, httponly=True, samesite="Strict", path="/", secure=is_encrypted)
        return response

    async def _asked(self, user: str, password: str, address: str) -> Caller:
        if self._one.statistics().tasks_waiting >= LOGINS_WAITING_MAX:
            raise Problem(503, "Too many log in at the same time. Try again.", headers={"Retry-After": "5"})
        try:
            async with self._one:
                groups = await self._ask(user, password) if self._roles else None
        except OpenNebulaError as error:
            raise Problem(503, f"OpenNebula does not answer: {error}", code=7) from None
        if groups is None:
            self._attempts.failed(address, user)
            raise Problem(401, "OpenNebula does not know this user with this password.", headers=challenge())
        role = role_of(groups, self._roles)
        if role is Role.NOBODY:
            raise Problem(403, f"No group of {user} has a role here. See [api] groups.")
        return Caller(name=user, role=role, via="login", address=address)

    async def _log_out(self, call: Call) -> None:
        """End the session."""
        self._doorkeeper.sessions.end(call.caller)
        if call.caller.via == "login":
            await self._note(call.caller, "log out")

    async def _note(self, caller: Caller, what: str, result: str = "") -> None:
        await self._sources.note(who=caller.who, origin=caller.origin, what=what, code=0, result=result)

    async def _tokens(self, call: Call) -> Json:
        """The tokens of programs, without what would let anybody use one."""
        del call
        return self._doorkeeper.tokens.shown()

    async def _create_token(self, call: Call) -> Json:
        """Make a token for a program. It is in the answer, and can never be read again."""
        sent = call.sent(questions.TokenBody)
        return await self._doorkeeper.tokens.create(sent.name, Role.named(sent.role), sent.for_s, call.caller)

    async def _revoke_token(self, call: Call) -> None:
        """Let nobody use a token any more, from now on; streams that it opened end."""
        await self._doorkeeper.tokens.revoke(call.path["name"], call.caller)


def _shown(caller: Caller) -> Json:
    return {"name": caller.name, "role": caller.role.word, "via": caller.via, "csrf": caller.csrf}
