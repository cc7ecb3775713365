"""What several controllers of the simulator have of each other: etcd, and each other's word for what they see.

The arbiter, its client and its record are the production ones, and so is whoever asks other controllers and tells them;
only the way there is pretended. Nothing here is used when a controller serves.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from ha_controller.adapters.arbiter.etcd import EtcdArbiter, EtcdConfig
from ha_controller.adapters.arbiter.gateway import Gateway
from ha_controller.adapters.controllers import Other, Question
from ha_controller.app import vantage
from ha_controller.app.runtime import Runtime
from ha_controller.lead import Arbiter, ArbiterConfig, ArbiterContext
from ha_controller.sim.engine_level.process import Life
from ha_controller.sim.engine_level.quorum import ENDPOINTS, LEASE_S, Quorum

Others = Sequence[str] | None
_ETCD = {"kind": "etcd", "endpoints": list(ENDPOINTS), "lease": f"{LEASE_S}s"}
_RENEWS: ContextVar[bool] = ContextVar("renews", default=False)  #: the lead, in this very task
TOKEN = "s3cret-of-a-controller"


def peers_configured(others: Others, kind: str) -> dict[str, Any]:
    """The parts of a configuration that are about other controllers. `kind`: what they lead by, if there are any."""
    if others is None:
        return {"leader": {"kind": "pretended"}}
    return {
        "leader": {"kind": kind} if kind != "etcd" else {**_ETCD},
        "controller": [
            {"name": name, "url": f"https://192.0.2.{230 + number}:9931", "token": TOKEN}
            for number, name in enumerate(others)
        ],
    }


def name_instance(state_dir: Path, index: int) -> None:
    """The same id for a controller in each run: a seed decides everything."""
    state_dir.mkdir(parents=True, exist_ok=True)
    path = state_dir / "instance"
    if not path.exists():
        path.write_text(f"{index:012x}", "utf-8")


# --- etcd -------------------------------------------------------------------------------------------------------------


class _PretendedGateway(Gateway):
    """The client of etcd, up to the bytes that it would send."""

    life: ClassVar[Life]

    async def _exchanged(self, url: str, body: Any, headers: Mapping[str, str]) -> tuple[int, bytes]:
        del headers
        return await quorum_of(self.life).exchange(self.life, urlsplit(url).path, body)


class _PretendedEtcdArbiter(EtcdArbiter):
    """The arbiter; the checkers hear when it was told what."""

    life: ClassVar[Life]

    def __init__(self, config: EtcdConfig, context: ArbiterContext) -> None:
        super().__init__(config, replace(context, name=self.life.process.name))

    async def acquire(self) -> int | None:
        asked_at = self.life.world.now
        term = await super().acquire()
        if term is not None:
            quorum_of(self.life).kept[self.life.process.name] = asked_at
        return term

    async def renew(self, term: int) -> None:
        asked_at, mark = self.life.world.now, _RENEWS.set(True)
        try:
            await super().renew(term)
        finally:
            _RENEWS.reset(mark)
        quorum_of(self.life).kept[self.life.process.name] = asked_at

    async def prove(self, term: int) -> None:
        asked_at = self.life.world.now
        await super().prove(term)
        if _RENEWS.get():
            return  # a renewal is no proof for an order
        quorum_of(self.life).proven[self.life.process.name] = asked_at
        await self.life.risk("the lead was proven, and nothing has left yet")


def quorum_of(life: Life) -> Quorum:
    """The pretended etcd of a world that has one."""
    return cast(Quorum, life.world.arbiter)


def etcd_arbiter_of(life: Life) -> dict[str, type[Arbiter[ArbiterConfig]]]:
    """The class that one life of a controller finds."""
    gateway = type("LifesGateway", (_PretendedGateway,), {"life": life})
    made: dict[str, Any] = {
        "etcd": type("LifesEtcdArbiter", (_PretendedEtcdArbiter,), {"life": life, "gateway_class": gateway})
    }
    return made


# --- what the others see ----------------------------------------------------------------------------------------------


def way_from(life: Life) -> Callable[[Other], AbstractAsyncContextManager[Question]]:
    """How this controller asks the others."""

    @asynccontextmanager
    async def way(other: Other) -> AsyncIterator[Question]:
        yield partial(_asked, life, other.name)

    return way


async def _asked(life: Life, name: str) -> bytes:
    """What another controller says of what it sees, by its own code.

    Raises:
        ConnectionError: nothing listens there.
    """
    world = life.world
    teller = next(process for process in world.controllers if process.name == name)
    await life.takes(world.dice.uniform(0.001, 0.05))
    if not world.sight.reaches(life.process, teller) or (teller.is_up and not teller.runs):
        await life.never()
    if teller.life is None:
        raise ConnectionRefusedError("nothing listens there")
    document = {**vantage.told(cast(Runtime, teller.life.running)), "run": f"{name} {teller.lives}"}
    await life.takes(world.dice.uniform(0.001, 0.05))
    return json.dumps(document).encode()
