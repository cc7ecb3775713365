"""The pretended etcd of several controllers: who leads by it, what they share in it, what goes wrong on the way to it.

The controllers come with the production arbiter, record and client of etcd; their requests are answered here. The
checkers look at each write at the moment at which a quorum takes it in, whoever waits for an answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ha_controller.sim.core_level.judge import Violation
from ha_controller.sim.engine_level.lead_engine import LeadEngine
from ha_controller.sim.etcd_store import EtcdStore

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life, Process
    from ha_controller.sim.engine_level.world import World

PREFIX = "/ha-controller"
LEADER, RECORD = f"{PREFIX}/leader", f"{PREFIX}/record/"
ENDPOINTS = tuple(f"http://192.0.2.{240 + number}:2379" for number in (1, 2, 3))
LEASE_S = 10
LEAD_S = 8.0  #: what a controller counts, from when it asked: less than the lease
OUTLIVES_MAX_S = 1.5  #: etcd looks at leases now and then

Json = dict[str, Any]
Texts = dict[str, str]


class Quorum(LeadEngine):
    """All members of etcd as one, and the ways of the controllers to them."""

    lead_s = LEAD_S

    def __init__(self, world: World) -> None:
        """Nothing is in it."""
        super().__init__(world)
        self.store = EtcdStore(clock=lambda: world.now, outlives_s=lambda: world.dice.uniform(0.0, OUTLIVES_MAX_S))
        self.cut: set[int] = set()  #: controllers that do not reach it
        self._given = 0  #: the last term that anybody led in

    # --- who leads ---

    def in_the_lead(self) -> tuple[str, int]:
        """Name and term of who leads by what etcd holds."""
        about = json.loads(self.store.text(LEADER) or "{}")
        return about.get("name", ""), about.get("term", 0)

    def before_a_change(self) -> None:
        """A controller keeps its lead by itself."""

    def take_away(self, for_s: float) -> None:
        """Somebody ends the lease of who leads."""
        del for_s
        kept = self.store.keys.get(LEADER)
        if kept is not None:
            self.store.revoke(kept.lease)
            self.world.story("the lease of the lead is ended in etcd")

    @property
    def down(self) -> bool:
        """Whether it has no quorum: nothing is answered, and no lease ends."""
        return not self.store.has_quorum

    @down.setter
    def down(self, is_down: bool) -> None:
        if self.down and not is_down:
            self.store.prolong_all()
        self.store.has_quorum = not is_down

    # --- what is shared ---

    def shared(self) -> Texts:
        """The record as it stands there."""
        return {key.removeprefix(RECORD): kept.value for key, kept in self.store.keys.items() if key.startswith(RECORD)}

    # --- questions ---

    async def exchange(self, life: Life, path: str, body: Json) -> tuple[int, bytes]:
        """A question of a controller, and the answer: HTTP status and body.

        Raises:
            ConnectionError: nobody is reached.
        """
        world, trouble = self.world, self.world.trouble
        await life.takes(world.dice.uniform(0.001, 0.02))
        if self.down or life.process.index in self.cut:
            if world.dice.random() < 0.5:
                await life.never()
            raise ConnectionRefusedError("no member of etcd is reached")
        is_write = path == "/v3/kv/txn"
        if is_write:
            await life.risk("a transaction is about to reach etcd")
            leads = self.in_the_lead()[0] == life.process.name
            if leads and trouble.strikes("share-late"):
                world.agenda.later(world.dice.uniform(1, 12), lambda: self._late(life.process, path, body))
                await life.never()
        with world.judged():
            status, answer = self._taken_in(life.process, path, body)
        life.here()
        if is_write:
            await life.risk("a transaction was taken in, and nobody knows yet")
            if trouble.strikes("share-answer-lost"):
                await life.never()
        await life.takes(world.dice.uniform(0.001, 0.02))
        return status, json.dumps(answer).encode()

    def _late(self, process: Process, path: str, body: Json) -> None:
        """It has waited in a member that was cut off, and whoever sent it asks no more."""
        if not self.down:
            with self.world.judged():
                self._taken_in(process, path, body)

    def _taken_in(self, process: Process, path: str, body: Json) -> tuple[int, Json]:
        self.store.expire()
        before, led = self.shared(), self.in_the_lead()
        status, answer = self.store.answer(path, body)
        after = self.shared()
        if after != before:
            self.world.judge.shared(process, before, after, led)
        name, term = self.in_the_lead()
        if (name, term) != led:
            self.world.story(f"{name} leads in term {term}")
            if name and term <= self._given:
                raise Violation("G2", f"{name} leads in term {term}, and that was over")
            self._given = max(self._given, term)
        return status, answer


def incidents_in(texts: Texts) -> dict[int, Json]:
    """The incidents that stand on a shared record, as plain documents with their VMs by id."""
    found: dict[int, Json] = {}
    for key, text in texts.items():
        words = key.split("/")
        if words[0] != "incident":
            continue
        about = found.setdefault(int(words[1]), {"id": int(words[1]), "vms": {}, "is_whole": False})
        if len(words) == 2:
            head = json.loads(text)
            about |= {name: value for name, value in head["incident"].items() if name != "vms"}
            about["is_whole"] = True
        else:
            about["vms"] |= {vm["id"]: vm for vm in json.loads(text)}
    return {number: about for number, about in found.items() if about["is_whole"]}
