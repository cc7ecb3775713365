"""Mistakes that somebody could make where several controllers share a record and ask each other what they see.

The simulator's second level, with two or three controllers on one pretended etcd or in one pretended zone of
OpenNebula, must find each of them.

Three mistakes are planted for both engines of the lead (`OF_BOTH`), a fourth where logins are revoked, and the process
stands still at the effects that they are about. What stands for the token of a term differs: etcd compares the key of
the leader in each transaction, and OpenNebula knows the login token that a take-over revokes.

python tests/planted/shared_bugs.py [--seeds 30]      # a line for each; exit code 1 if one survives
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
from planted.bugs import Bug, main

from ha_controller import engine
from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.arbiter.gateway import Gateway
from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter
from ha_controller.adapters.opennebula import Client, Unauthenticated
from ha_controller.adapters.opennebula.gate import Lane
from ha_controller.app import pretended
from ha_controller.app.order_login import OrderLogin
from ha_controller.app.shared_ledger import SharedLedger
from ha_controller.core import sight
from ha_controller.plugin import ArbiterUnreachable, NotLeading, SecretStr

HOURS, HOSTS = 0.15, 4
ZONE_HOURS = 0.1
BUGS: list[Bug] = []
Patch = Callable[[], Any]


def bug(
    name: str, text: str, *invariants: str, lead: str = "etcd", controllers: int = 2,
    stands_still: str = "", **rates: float,
) -> Callable[[Patch], Patch]:  # fmt: skip
    """Plant one; of several at the same place each is a line of its own. `stands_still`: a fault by which it has to."""

    def note(patch: Patch) -> Patch:
        aimed = {key.replace("_", "-"): rate for key, rate in rates.items()}
        BUGS.append(
            Bug(
                name=name, text=text, invariants=invariants, patch=patch, rates=aimed, part=pretended.part,
                hours=HOURS if lead == "etcd" else ZONE_HOURS, hosts=HOSTS, controllers=controllers, lead=lead,
                strikes=stands_still,
            )
        )  # fmt: skip
        return patch

    return note


@bug("no token", "the shared record is written without asking whether this very term goes on", "G2",
     stands_still="pause-in-an-order", power_loss=4.0, share_late=0.9, pause_in_an_order=0.03)  # fmt: skip
def _() -> Any:
    real = Gateway.put_if

    async def put_if(self: Gateway, expected: Any, values: Any) -> bool:
        asked = {key: each for key, each in expected.items() if not (key.endswith("/leader") and isinstance(each, str))}
        return await real(self, asked, values)

    return mock.patch.object(Gateway, "put_if", put_if)


@bug("no deadline of its own", "whoever stood still for longer than its lead goes on with what it had begun", "G2",
     stands_still="pause-at-the-packet", power_loss=4.0, pause_at_the_packet=0.5)  # fmt: skip
@bug("no deadline of its own, of three", "the same, and two others may lead meanwhile", "G2", controllers=3,
     stands_still="pause-at-the-packet", power_loss=4.0, pause_at_the_packet=0.5)  # fmt: skip
@bug("no deadline of its own, in a zone", "whoever stood still goes on with what it had begun", "G2",
     lead="opennebula", stands_still="pause-at-the-packet", power_loss=12.0,
     pause_at_the_packet=0.5)  # fmt: skip
@bug("no deadline of its own, in a zone of three", "the same, and two others may lead meanwhile", "G2",
     lead="opennebula", controllers=3, stands_still="pause-at-the-packet", power_loss=12.0,
     pause_at_the_packet=0.5)  # fmt: skip
def _() -> Any:
    return mock.patch.object(Leadership, "_is_over", lambda *_: False)


@bug("the lead is not read again", "an order leaves because we led a moment ago", "G2",
     stands_still="pause-in-an-order", power_loss=4.0, pause_in_an_order=0.05)  # fmt: skip
@bug("the lead is not read again, in a zone", "an order leaves because we led a moment ago", "G2",
     lead="opennebula", stands_still="pause-in-an-order", power_loss=12.0,
     pause_in_an_order=0.05)  # fmt: skip
def _() -> Any:
    async def may_act(self: Leadership, term: int | None) -> bool:
        return self.holds(term)

    return mock.patch.object(Leadership, "may_act", may_act)


@bug("sent before it is shared", "an order leaves while its record is on the way to the next leader", "D1",
     power_loss=4.0)  # fmt: skip
def _() -> Any:
    real, under_way = SharedLedger._share, set[Any]()

    async def later(self: SharedLedger, term: int) -> None:
        with contextlib.suppress(NotLeading, ArbiterUnreachable):
            await real(self, term)

    async def share(self: SharedLedger, term: int) -> None:
        task = asyncio.get_running_loop().create_task(later(self, term))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    return mock.patch.object(SharedLedger, "_share", share)


@bug("what is not confirmed is sent", "nobody knows whether it is on the shared record, and it is ordered", "D1", "G2",
     power_loss=4.0, share_late=0.9)  # fmt: skip
def _() -> Any:
    return mock.patch.object(engine, "not_shared", lambda effects, why: tuple(effects))


@bug("a new leader begins anew", "the record of the leader before is not taken up", "D1", "L2", "G1",
     power_loss=4.0, crash_in_an_order=0.3)  # fmt: skip
def _() -> Any:
    real = SharedLedger.take_over

    async def take_over(self: SharedLedger, term: int) -> str:
        with mock.patch.object(self, "_post", lambda event: None):
            return await real(self, term)

    return mock.patch.object(SharedLedger, "take_over", take_over)


@bug("another controller's word is not heard", "what only the other one sees alive is powered off", "S2",
     vantage_cut=6.0)  # fmt: skip
def _() -> Any:
    return mock.patch.object(sight, "against", lambda *_, **__: ())


# --- with kind "opennebula" -------------------------------------------------------------------------------------------


@bug("repeated login", "a leader of before brings its order to its end, with a new login for the revoked one", "G2",
     lead="opennebula", stands_still="deposed-at-the-packet", power_loss=12.0,
     deposed_at_the_packet=0.3)  # fmt: skip
def _() -> Any:
    real = Client._made

    async def made(self: Client, lane: Lane, *what: Any) -> None:
        if self._may_send is None or lane is not Lane.ORDER or not isinstance(self._orders, OrderLogin):
            await real(self, lane, *what)
            return
        account = self._orders._account
        with anyio.CancelScope(shield=True):
            try:
                await real(self, lane, *what)
            except Unauthenticated:
                user, anew = account.auth.get_secret_value().partition(":")[0], self.as_user(account.auth)
                anew._may_send = None  # it was proven a moment ago
                token = await anew.login(user, "", 600)
                await real(anew.as_user(SecretStr(f"{user}:{token}")), lane, *what)

    return mock.patch.object(Client, "_made", made)


@bug("orders by the password", "what a take-over revokes is not what orders are sent with", "G2",
     lead="opennebula", stands_still="deposed-at-the-packet", power_loss=12.0,
     deposed_at_the_packet=0.3)  # fmt: skip
def _() -> Any:
    real = OpenNebulaArbiter.acquire

    async def acquire(self: OpenNebulaArbiter) -> int | None:
        term = await real(self)
        if term is not None:
            self._account.orders = self._account.auth
        return term

    return mock.patch.object(OpenNebulaArbiter, "acquire", acquire)


#: mistake -> engine of the lead -> what is planted for it
OF_BOTH = {
    "no token": {"etcd": "no token", "opennebula": "orders by the password"},
    "no deadline of its own": {"etcd": "no deadline of its own", "opennebula": "no deadline of its own, in a zone"},
    "no re-read before an effect": {
        "etcd": "the lead is not read again",
        "opennebula": "the lead is not read again, in a zone",
    },
    "repeated login": {"opennebula": "repeated login"},
}


if __name__ == "__main__":
    main(BUGS)
