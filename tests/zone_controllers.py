"""Controllers beside the front-ends of a zone, and what can be seen of them in OpenNebula."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from pydantic import SecretStr
from zones import BROADCAST_S, Zone

from ha_controller.adapters.arbiter.opennebula import OpenNebulaArbiter, OpenNebulaConfig
from ha_controller.lead import OpenNebulaAccount
from ha_controller.plugin import ArbiterContext, ArbiterUnreachable, NotLeading

TAKEOVER_S = 0.4


class Controller:
    """The one that runs beside a front-end."""

    def __init__(
        self, zone: Zone, machine: int, *, name: str = "", session: str = "", beside: int | None = None
    ) -> None:
        self.machine, self.name = machine, name or f"c{machine}"
        self.last_term = 0
        endpoints = zone.zone.endpoints(viewer=machine)
        auth = SecretStr(session or zone.session)
        self.account = OpenNebulaAccount(
            endpoint=endpoints[machine if beside is None else beside], auth=auth, orders=auth
        )
        context = ArbiterContext(
            name=self.name,
            instance=f"id-{self.name}",
            state_dir=Path("/nowhere"),
            last_term=lambda: self.last_term,
            opennebula=self.account,
        )
        config = OpenNebulaConfig.model_construct(servers=(), timeout_s=0.8, takeover_s=TAKEOVER_S)
        self.arbiter = OpenNebulaArbiter(config, context)

    async def lead(self, within_s: float = 10.0) -> int:
        """Ask until it leads, and put the term on record."""
        with anyio.fail_after(within_s):
            while True:
                try:
                    term = await self.arbiter.acquire()
                except ArbiterUnreachable:
                    term = None
                if term is not None:
                    self.last_term = term
                    return term
                await anyio.sleep(0.05)

    async def claim(self) -> None:
        """Ask until it has claimed, and waits."""
        with anyio.fail_after(10):
            while self.arbiter._held is None:
                with suppress(ArbiterUnreachable):
                    assert await self.arbiter.acquire() is None
                await anyio.sleep(0.01)

    async def leads(self, term: int) -> bool:
        try:
            await self.arbiter.prove(term)
        except (NotLeading, ArbiterUnreachable):
            return False
        return True

    async def never_leads(self, for_s: float) -> None:
        with anyio.move_on_after(for_s):
            while True:
                with suppress(ArbiterUnreachable):
                    assert await self.arbiter.acquire() is None
                await anyio.sleep(0.05)


Beside = Callable[..., Controller]


async def leading(zone: Zone, controllers: list[Controller]) -> tuple[Controller, int]:
    one = controllers[await zone.elected()]
    return one, await one.lead()


def attributes(zone: Zone) -> dict[str, Any]:
    return zone.cloud.server.users.all[0].template


def tokens(zone: Zone) -> list[str]:
    return list(zone.cloud.server.users.all[0].tokens)


def secret(controller: Controller) -> str:
    return controller.account.orders.get_secret_value().partition(":")[2]


def writes(zone: Zone) -> int:
    return sum(call.method == "one.user.update" for call in zone.cloud.server.calls)


async def elect(zone: Zone, machine: int) -> None:
    server = zone.zone.raft.servers[machine]
    zone.zone.raft.elect(server, zone.zone._clock())
    assert server.state == 3
    await anyio.sleep(3 * BROADCAST_S)
