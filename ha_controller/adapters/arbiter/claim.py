"""What stands in OpenNebula about who leads, and proofs that are shared by those who ask for one at the same time."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from ha_controller.adapters.opennebula import OnedUser
from ha_controller.plugin import ArbiterUnreachable, NotLeading, SecretStr

CLAIM, PROOF = "HA_LEADER", "HA_PROOF"  #: attributes of our OpenNebula user


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who took the lead last."""

    term: int  #: ours: only ever grows
    raft_term: int
    instance: str
    nonce: str
    name: str

    def __str__(self) -> str:
        """As it stands in OpenNebula."""
        return f"{self.term} {self.raft_term} {self.instance} {self.nonce} {self.name}"

    @classmethod
    def of(cls, user: OnedUser) -> Claim | None:
        """The one that stands on the user; None: there is none.

        Raises:
            ArbiterUnreachable: what stands there is no claim, and terms must never go back.
        """
        text = user.template.get(CLAIM, "")
        if not text:
            return None
        found = re.fullmatch(r"(\d{1,15}) (\d{1,15}) (\S+) (\S+) (.*)", text)
        if found is None:
            remedy = "Remove it when nobody leads: the next leader leaves what is open to a person"
            raise ArbiterUnreachable(f"{CLAIM} of the OpenNebula user {user.name} is no claim of ours. {remedy}")
        return cls(term=int(found[1]), raft_term=int(found[2]), instance=found[3], nonce=found[4], name=found[5])


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """Who proved a claim last.

    Written with the login token of the lead, so never by a call of an old one that was late. A claim may be: it is
    written with the password, and hides those after it.
    """

    term: int
    instance: str
    nonce: str

    def __str__(self) -> str:
        """As it stands in OpenNebula."""
        return f"{self.term} {self.instance} {self.nonce}"

    @classmethod
    def of(cls, user: OnedUser) -> Proof:
        """The one that stands on the user; of nobody in term 0 if there is none that can be read."""
        found = re.fullmatch(r"(\d{1,15}) (\S+) (\S+)", user.template.get(PROOF, ""))
        return cls(
            term=int(found[1]) if found else 0, instance=found[2] if found else "", nonce=found[3] if found else ""
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A lead as we took it."""

    claim: Claim
    server: int  #: the oned beside us
    user: int
    user_name: str
    token: SecretStr
    usable_at: float  #: when all that the leader before sent is over, by the monotonic clock
    meanwhile: str  #: who led since our own record ends; empty if nobody

    @property
    def session(self) -> SecretStr:
        """The token, as a call takes it."""
        return SecretStr(f"{self.user_name}:{self.token.get_secret_value()}")

    def stands_on(self, user: OnedUser) -> bool:
        """Whether the claim is the very one that we wrote, and our login token one of the user's."""
        return user.template.get(CLAIM) == str(self.claim) and self.token.get_secret_value() in user.login_tokens


class SharedProofs:
    """One proof at a time. Whoever asks while one is made gets the next: an old one is no proof."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._last: tuple[int, Exception | None] = (0, None)  #: number of the last that came to an end, and how

    async def prove(self, make: Callable[[], Awaitable[None]]) -> None:
        """Raises what `make` raises."""
        asked = self._begun
        async with self._lock:
            number, error = self._last
            if number <= asked:
                self._begun = number = self._begun + 1
                error = None
                try:
                    await make()
                except (NotLeading, ArbiterUnreachable) as raised:
                    error = raised
                self._last = (number, error)
        if error is not None:
            raise type(error)(str(error))


def last_in_words(claim: Claim | None) -> str:
    return (
        "there is none" if claim is None else f"{claim.name} claimed term {claim.term}, or our login token was revoked"
    )


def led_in_words(last: Claim | None, seen_term: int) -> str:
    """Who led last, as far as that is known."""
    if last is None or last.term != seen_term:
        seen = f": term {seen_term} was seen before" if seen_term else ""
        return f"who led before is not on record in OpenNebula{seen}"
    return f"{last.name} led in term {last.term}"
