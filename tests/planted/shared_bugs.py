"""Mistakes that somebody could make where several controllers share a record and ask each other what they see.

The simulator's second level, with two controllers on one pretended etcd, must find each of them.

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

from planted.bugs import Bug, main

from ha_controller import engine
from ha_controller.adapters.arbiter import Leadership
from ha_controller.adapters.arbiter.gateway import Gateway
from ha_controller.app import pretended
from ha_controller.app.shared_ledger import SharedLedger
from ha_controller.core import sight
from ha_controller.plugin import ArbiterUnreachable, NotLeading

HOURS, HOSTS = 0.15, 4
BUGS: list[Bug] = []


def bug(name: str, text: str, *invariants: str, hours: float = HOURS, **rates: float) -> Callable[[Any], None]:
    def note(patch: Callable[[], Any]) -> None:
        aimed = {key.replace("_", "-"): rate for key, rate in rates.items()}
        BUGS.append(
            Bug(
                name=name, text=text, invariants=invariants, patch=patch, rates=aimed, part=pretended.part,
                hours=hours, hosts=HOSTS, controllers=2,
            )
        )  # fmt: skip

    return note


@bug("no token", "the shared record is written without asking whether this very term goes on", "G2",
     power_loss=4.0, share_late=0.9)  # fmt: skip
def _() -> Any:
    real = Gateway.put_if

    async def put_if(self: Gateway, expected: Any, values: Any) -> bool:
        asked = {key: each for key, each in expected.items() if not (key.endswith("/leader") and isinstance(each, str))}
        return await real(self, asked, values)

    return mock.patch.object(Gateway, "put_if", put_if)


@bug("no deadline of its own", "whoever stood still for longer than its lead goes on with what it had begun", "G2",
     power_loss=4.0, pause_at_the_packet=0.5)  # fmt: skip
def _() -> Any:
    return mock.patch.object(Leadership, "_is_over", lambda *_: False)


@bug("the lead is not read again", "an order leaves because we led a moment ago", "G2", power_loss=4.0)
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


if __name__ == "__main__":
    main(BUGS)
