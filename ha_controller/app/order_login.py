"""The login of orders: a token that each new leader takes, once it has had all of before revoked.

So a call of the leader before that still waits somewhere is refused by OpenNebula. It does that before anything else
that a new leader does, and for every kind of arbiter that gives the lead from one controller to another, unless the
arbiter sees to it by itself (`opennebula`). The password serves to read and to do this; it never leaves with an order,
for the old leader has it, too.

A login that is a token itself cannot do that: it would end with the others. Orders go by it then, as they do where
OpenNebula goes on refusing to make tokens, and `doctor` tells both. It must never let a token be seen.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog
from pydantic import SecretStr

from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.opennebula import Client, NoAnswer, OnedUser, OpenNebulaError, Unauthenticated
from ha_controller.app.refusals import LooksWhenRefused
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterUnreachable, NotLeading

log = structlog.get_logger(__name__)

TOKEN_VALID_S = 365 * 86400  #: it ends earlier, with the next lead
WITHIN_S = 4.0  #: the lead must last for the record behind it
SHOWN_AGAIN_S = 0.1  #: a front-end that follows may have heard of neither yet
REFUSED_FOR_S = 30.0  #: an election, or a master zone that is not there, may take this long
REFUSED_AGAIN_S = 10.0  #: a refusal so long after the last one begins anew: another one may have led meanwhile


class OrderLogin(LooksWhenRefused):
    """What orders are sent with: "user:token", or the configured login (`why_configured`); empty without a lead."""

    def __init__(
        self,
        account: OpenNebulaAccount,
        leadership: Leadership,
        *,
        client: Callable[[], Client],
        clock: Callable[[], float],
    ) -> None:
        """`client` reads, by the password; `clock`: monotonic seconds. From now on a new leader revokes by it."""
        super().__init__()
        self._account, self._leadership, self._client, self._clock = account, leadership, client, clock
        self._sees_to_it = leadership.arbiter.regains and account.orders is account.auth  # else the arbiter sees to it
        self.why_own = ""  #: why orders go by the configured login where they should not; empty if they do not
        self._term: int | None = None  #: in which the token was taken
        self._token: SecretStr | None = None  #: as a session; None: the configured login
        self._refused_since: float | None = None
        self._refused_at = float("-inf")
        if self._sees_to_it:
            leadership.revoke_logins = self.revoke_and_log_in

    def get_secret_value(self) -> str:
        """The session of orders. A token is good for the lead that it was taken for, and no other."""
        if not self._sees_to_it:
            return self._account.get_secret_value()
        if self._term is None or self._leadership.term != self._term:
            return ""
        return (self._token or self._account).get_secret_value()

    async def revoke_and_log_in(self, term: int) -> None:
        """Have all logins of before revoked, and take one for this term.

        Raises:
            NotLeading: this term is over, or OpenNebula refuses the login that we are configured with.
            ArbiterUnreachable: it is not known to be done.
        """
        self._term = self._token = None
        self.why_own, refused_since, self._refused_since = "", self._refused_since, None
        try:
            with anyio.fail_after(WITHIN_S):
                self._token = await self._taken(term)
        except TimeoutError:
            raise ArbiterUnreachable(f"OpenNebula did not do it within {WITHIN_S:g} s") from None
        except Unauthenticated as error:  # another controller may have the one that is good by now
            raise NotLeading(str(error)) from error
        except NoAnswer as error:
            raise ArbiterUnreachable(str(error)) from error
        except OpenNebulaError as error:
            self._refused_since = refused_since
            if not self._refuses_for_long():
                raise ArbiterUnreachable(str(error)) from error
            self.why_own = f"OpenNebula makes no login token for them ({error})"
            self.look_soon()  # and try again while it leads
        self._term = term
        if self.why_own:
            log.warning("orders are sent with the configured login", term=term, why=self.why_own)

    def why_configured(self, user: OnedUser) -> str:
        """Why orders go, or would go if we led, by the configured login; empty: they go by a token of their own."""
        if self._sees_to_it and user.has_token(self._account.auth):
            return "opennebula.auth is a login token, so a new leader cannot revoke those of the one before"
        return self.why_own

    async def _taken(self, term: int) -> SecretStr | None:
        """A token beside which there is no other; None where the configured login is one, which would end with them."""
        client = self._client()
        user = await client.user()
        if user.has_token(self._account.auth):
            self.why_own = "opennebula.auth is a login token, which cannot have the others revoked"
            return None
        await self._leadership.arbiter.prove(term)  # late, it would revoke the next one's
        await client.login(user.name, "", 0)
        token = SecretStr(f"{user.name}:{await client.login(user.name, '', TOKEN_VALID_S)}")
        await self._until_alone(client, token)
        return token

    async def _until_alone(self, client: Client, token: SecretStr) -> None:
        """Until the OpenNebula that we order from shows it: a "true" of one in a zone had not revoked anything yet."""
        _, _, ours = token.get_secret_value().partition(":")
        while True:
            try:
                if (await client.as_user(token).user()).login_tokens == (ours,):
                    return
            except Unauthenticated:
                pass
            await anyio.sleep(SHOWN_AGAIN_S)

    def _refuses_for_long(self) -> bool:
        """Whether it has refused each time that we asked, for so long."""
        now = self._clock()
        if self._refused_since is None or now - self._refused_at > REFUSED_AGAIN_S:
            self._refused_since = now
        self._refused_at = now
        return now - self._refused_since >= REFUSED_FOR_S

    # --- while it leads ---

    async def _look(self) -> None:
        term = self._term
        if term is None or self._leadership.term != term:
            if self._refused_since is not None:
                self.look_soon()  # the lead is about to be told
            return
        try:
            if self._token is not None:
                await self._replace(term, self._token)
            elif self._refused_since is not None:
                await self._try_again(term)
        except (OpenNebulaError, ArbiterUnreachable, NotLeading, TimeoutError) as error:
            log.warning("no other login token for orders could be taken", why=str(error) or "no answer in time")
            self.look_soon()

    async def _replace(self, term: int, token: SecretStr) -> None:
        """Where somebody has revoked ours. The others stay: a leader of another zone may have the same user."""
        client = self._client()
        try:
            await client.as_user(token).user()
        except Unauthenticated:
            name = token.get_secret_value().partition(":")[0]
            if not await self._leadership.may_act(term):
                return
            taken = SecretStr(f"{name}:{await client.login(name, '', TOKEN_VALID_S)}")
            if self._token is token:
                self._token = taken
            log.warning("the login token of orders was revoked by somebody else; another one was taken", term=term)

    async def _try_again(self, term: int) -> None:
        """Where OpenNebula made none: the leader before has the password that orders go by, too."""
        with anyio.fail_after(WITHIN_S):
            token = await self._taken(term)
        if self._term == term and token is not None:
            self._token, self.why_own, self._refused_since = token, "", None
            log.info("orders are sent with a login of their own again", term=term)
