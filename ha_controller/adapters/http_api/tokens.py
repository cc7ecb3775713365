"""Bearer tokens of programs: made once, shown once, kept as a hash.

A token is 256 random bits, so a plain SHA-256 of it tells nobody anything; no slow hash is needed. Tokens are on record
in the state directory of this controller, and every change of them is in the trail.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ha_controller.adapters.http_api.access import Caller, Role
from ha_controller.adapters.http_api.problems import Problem
from ha_controller.adapters.journal_schema import JournalError

PREFIX: Final = "hac_"  #: so that scanners for secrets find one that got lost
_SHOWN_BY_MISTAKE: Final = re.compile(rf"{PREFIX}[\w%.~-]+")
RECORD: Final = "token/"
TOKENS_MAX: Final = 1000

Json = Any


class Kept(Protocol):
    """The durable record."""

    async def kept(self, prefix: str) -> Mapping[str, str]:
        """Texts on record, by their keys, of those that begin like this."""

    async def keep(self, key: str, text: str | None, *, who: str, origin: str, what: str) -> None:
        """Put a text on record (None: remove it), together with who did it."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """What is on record of a token."""

    name: str
    role: Role
    digest: str = field(repr=False)
    created_at: float
    created_by: str
    expires_at: float | None


class Tokens:
    """All tokens that were made and not revoked."""

    def __init__(self, kept: Kept, now: Callable[[], float]) -> None:
        """`now` gives seconds since 1970."""
        self._kept = kept
        self._now = now
        self._by_name: dict[str, Token] = {}
        self._revoked: set[str] = set()  #: names whose revocation is not on record yet

    async def load(self) -> None:
        """Read them from the record, at start."""
        for key, text in (await self._kept.kept(RECORD)).items():
            name, told = key.removeprefix(RECORD), json.loads(text)
            self._by_name[name] = Token(
                name=name,
                role=Role.named(told["role"]),
                digest=told["sha256"],
                created_at=told["created_at"],
                created_by=told["created_by"],
                expires_at=told["expires_at"],
            )

    def caller(self, presented: str, address: str) -> Caller | None:
        """Who presents a token; None if it is not known, or too old."""
        digest = _digest(presented)
        for token in self._by_name.values():
            if hmac.compare_digest(token.digest, digest) and self._is_valid(token):
                return Caller(name=token.name, role=token.role, via="token", address=address, proof=digest)
        return None

    def still_valid(self, caller: Caller) -> bool:
        """Whether the token that was presented is valid now."""
        token = self._by_name.get(caller.name)
        return token is not None and token.digest == caller.proof and self._is_valid(token)

    def shown(self) -> list[Json]:
        """All of them, without what would let anybody use one."""
        return [
            {
                "name": token.name,
                "role": token.role.word,
                "created_at": token.created_at,
                "created_by": token.created_by,
                "expires_at": token.expires_at,
                "expired": not self._is_valid(token),
            }
            for _, token in sorted(self._by_name.items())
        ]

    async def create(self, name: str, role: Role, for_s: float | None, by: Caller) -> Json:
        """Make one; the answer holds it, and nothing else ever will.

        Raises:
            Problem: there is one of that name, or too many.
        """
        if name in self._by_name:
            raise Problem(409, f"There is a token {name} already. Revoke it first: ha-controller token revoke {name}")
        if len(self._by_name) >= TOKENS_MAX:
            raise Problem(409, f"There are {TOKENS_MAX} tokens already. Revoke those that nobody uses.")
        presented, now = PREFIX + secrets.token_urlsafe(32), self._now()
        token = Token(
            name=name,
            role=role,
            digest=_digest(presented),
            created_at=now,
            created_by=by.who,
            expires_at=None if for_s is None else now + for_s,
        )
        record = {
            "role": role.word,
            "sha256": token.digest,
            "created_at": now,
            "created_by": by.who,
            "expires_at": token.expires_at,
        }
        self._by_name[name] = token  # before it is on record, so that a second one of the name is refused meanwhile
        done = False
        try:
            await self._keep(name, json.dumps(record), by, f"token create {name} --role {role.word}")
            done = True
        finally:
            if not done:
                self._by_name.pop(name, None)
        return {"name": name, "role": role.word, "token": presented, "expires_at": token.expires_at}

    async def revoke(self, name: str, by: Caller) -> None:
        """Let nobody use it any more, from now on.

        Raises:
            Problem: there is none of that name; or this is not on record, so that a restart would make it valid again.
                Nobody can use it until then, and to revoke it once more is to put that on record.
        """
        if name not in self._by_name:
            raise Problem(404, "There is no such token. See: ha-controller token list")
        self._revoked.add(name)
        try:
            await self._keep(name, None, by, f"token revoke {name}")
        except JournalError as error:
            text = f"Nobody can use it now, but that is not on record ({error}): revoke it again, or it is valid after"
            raise Problem(503, f"{text} the next start.", code=1) from None
        self._by_name.pop(name, None)
        self._revoked.discard(name)

    async def _keep(self, name: str, text: str | None, by: Caller, what: str) -> None:
        await self._kept.keep(RECORD + name, text, who=by.who, origin=by.origin, what=what)

    def _is_valid(self, token: Token) -> bool:
        return token.name not in self._revoked and (token.expires_at is None or self._now() < token.expires_at)


def without_tokens(text: str) -> str:
    """A text in which somebody may have put a token where its name belongs."""
    return _SHOWN_BY_MISTAKE.sub(f"{PREFIX}...", text)


def _digest(presented: str) -> str:
    return hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
