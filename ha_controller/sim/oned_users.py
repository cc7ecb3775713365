"""The users of the embedded oned: sessions, login tokens and the rights that were seen refused."""

from __future__ import annotations

import secrets
from copy import copy, deepcopy
from dataclasses import dataclass, field

from ha_controller.sim.oned_model import AUTHENTICATION, NOT_AUTHORIZED, OnedRefusal

#: method: the right it takes, and which argument after the session names the object
RIGHTS = {
    "one.host.info": ("USE HOST", 0),
    "one.host.status": ("ADMIN HOST", 0),
    "one.host.update": ("ADMIN HOST", 0),
    "one.vm.info": ("USE VM", 0),
    "one.vm.migrate": ("ADMIN VM", 0),
    "one.vm.recover": ("ADMIN VM", 0),
    "one.vm.update": ("MANAGE VM", 0),
    "one.vm.lock": ("MANAGE VM", 0),
    "one.vm.unlock": ("MANAGE VM", 0),
    "one.zone.raftstatus": ("ADMIN ZONE", -1),
}


@dataclass(kw_only=True)
class OnedUser:
    """A user; an admin is in the group oneadmin and may do everything."""

    id: int
    name: str
    password: str
    admin: bool = True
    sees_hosts: bool = False  #: an ACL rule grants USE, MANAGE and ADMIN of all hosts
    tokens: dict[str, float] = field(default_factory=dict)  #: token: expires at
    template: dict[str, str | dict[str, str]] = field(default_factory=dict)


class Users:
    """All users."""

    def __init__(self, session: str) -> None:
        """`session`: "name:password" of oneadmin."""
        name, _, password = session.partition(":")
        self.all = [OnedUser(id=0, name=name, password=password)]

    def snapshot(self) -> Users:
        """A copy, as a follower of a zone has it: tokens that are revoked later live on in it."""
        taken = copy(self)
        taken.all = deepcopy(self.all)
        return taken

    def add(self, user: OnedUser) -> OnedUser:
        """Create a user."""
        self.all.append(user)
        return user

    def authenticate(self, call: str, session: str, now: float) -> OnedUser:
        """The user of a session, by password or token; raises OnedRefusal."""
        name, _, secret = session.partition(":")
        for user in self.all:
            if user.name == name and (secret == user.password or user.tokens.get(secret, 0) > now):
                return user
        raise OnedRefusal(AUTHENTICATION, f"[{call}] User couldn't be authenticated, aborting call.")

    @staticmethod
    def authorize(call: str, user: OnedUser, given: tuple[object, ...]) -> None:
        """Raises OnedRefusal when the user lacks the right that a call takes."""
        right, index = RIGHTS.get(call, ("", 0))
        if not right or user.admin or (user.sees_hosts and right.endswith("HOST")):
            return
        object_id = given[index] if index >= 0 else 0
        raise OnedRefusal(
            NOT_AUTHORIZED, f"[{call}] User [{user.id}] : Not authorized to perform {right} [{object_id}]."
        )

    def login(self, name: str, token: str, period_s: int, now: float) -> str:
        """one.user.login: a new token, one of them revoked, or with an empty token and period 0 all."""
        user = next(user for user in self.all if user.name == name)
        if period_s > 0:
            token = secrets.token_hex(32)
            user.tokens[token] = now + period_s
            return token
        if token:
            user.tokens.pop(token, None)
        else:
            user.tokens.clear()
        return ""
