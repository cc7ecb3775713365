"""One round of take-overs: a host dies, the lead is hit in one phase of its incident, and somebody finishes it.

What is judged: the disks of the VMs, what reached OpenNebula and from whom, what reached the BMCs. The controllers are
asked in which phase they are, and by their trails in which term they ordered what.
"""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from ha_controller.adapters.arbiter.etcd import MARGIN_S
from tests.chaos.controller import LEASE_S, Controller
from tests.chaos.faults import Blow
from tests.chaos.network import Doors, Machine
from tests.chaos.rounds import Play, Round, answer_of
from tests.chaos.takeover_faults import ENDS_THE_LEAD, STATES, Fault, Phase, Strike
from tests.peers.etcd import Etcd, Member

TAKEOVER_MAX_S = LEASE_S + 5.0
PHASE_WITHIN_S = 90.0
LEADER_WITHIN_S = 60.0
ASKED_WITHIN_S = 0.5
LOOK_EVERY_S = 0.02
LEAD_S = LEASE_S - MARGIN_S  #: a lead lasts for so long after its holder began to ask for it
LEFT_ROUNDED_S = 0.1
ORDERS = ("one.host.status", "one.vm.migrate", "one.vm.action", "one.vm.recover")
WRITES = (*ORDERS, "one.host.update", "one.vm.update", "one.vm.lock", "one.vm.unlock")
"""What has to be announced. A login has not: it is taken before the first order of a term, and moves nothing."""
LEADER_KEY = "/ha-controller/leader"


@dataclass(kw_only=True)
class TakeoverRound(Round):
    """What a round of take-overs was, and what was seen in it."""

    fault: str
    phase: str
    state: str = ""  #: of the host, in the words of the leader, when the fault came
    took_s: float | None = None  #: without a leader: since the fault, or since etcd was whole again
    terms: list[int] = field(default_factory=list)  #: in which something was ordered
    double_orders: list[str] = field(default_factory=list)
    old_acts: list[str] = field(default_factory=list)  #: of a leader after its successor
    late: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  #: the fault did not come in its phase
    numbers: list[str] = field(default_factory=list)  #: the incident did not go on under its number

    @property
    def problems(self) -> list[str]:
        ours = [*self.double_orders, *self.old_acts, *self.late, *self.missed, *self.numbers]
        return [*super().problems, *ours]


class Places:
    """Who runs where, and who may be cut off from whom."""

    def __init__(self, controllers: Sequence[Machine], members: Sequence[Machine], doors: Doors) -> None:
        """In the order of the controllers and of etcd's members. `ports` are filled in when the doors are open."""
        self.controllers, self.members, self.doors = controllers, members, doors
        self.ports: dict[str, int] = {}


class TakeoverPlay(Play):
    """A cloud, two controllers and three members of etcd, each on a machine of its own."""

    def __init__(self, cloud: Any, controllers: Sequence[Controller], etcd: Etcd, places: Places) -> None:
        """All is started already."""
        super().__init__(cloud, controllers, etcd)
        self.cluster, self.places = etcd, places
        self._down: set[Controller] = set()  #: who is not to be asked
        self._struck = False

    async def take_over(self, number: int, seed: str, strike: Strike) -> TakeoverRound:
        """Play one; it ends when all is well again, or when that takes too long."""
        self._renew()
        await self.well()
        cloud = self.cloud
        host = max(cloud.hardware.machines, key=lambda each: (len(cloud.hardware.machines[each].vms), -each))
        told = TakeoverRound(number=number, seed=seed, plan=[str(strike)], fault=strike.fault, phase=strike.phase)
        told.delivered = {strike.death.value: 1}
        began, calls, shots = time.monotonic(), len(cloud.server.calls), len(cloud.shots)
        at, fences, outages = time.time(), await self._fences(), len(cloud.disks.outages)
        self._struck = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._hit, strike, host, calls, shots, told)
            if strike.phase is Phase.FAILED:
                cloud.bmcs[host].freeze()
            self._kill_host(Blow(what=strike.death, host=host))
            await self._cared_for(told)
            await self._repair(told)
            while not self._struck:
                await anyio.sleep(LOOK_EVERY_S)
        await self._settle(told)
        told.verified_fences = len(await self._fences() - fences)
        told.moves = sum(outage.since != outage.on for outage in cloud.disks.outages[outages:])
        told.shots = len(cloud.shots) - shots
        self._judge(told)
        await self._judge_leads(told, calls, at)
        opened = await self._numbers(at)
        if len(opened) != 1:
            told.numbers.append(f"incidents of this round, on the record of who leads now: {sorted(opened)}")
        told.seconds = round(time.monotonic() - began, 1)
        return told

    # --- strike ---

    async def _hit(self, strike: Strike, host: int, calls: int, shots: int, told: TakeoverRound) -> None:
        try:
            with anyio.move_on_after(PHASE_WITHIN_S) as waiting:
                await self._reached(strike.phase, host, calls, shots)
            if waiting.cancelled_caught:
                told.missed.append(f"the phase did not come within {PHASE_WITHIN_S:g} s")
                await self._wake_bmc(strike, host)
                return
            await anyio.sleep(strike.after_s)
            leader, term = await self._leads()
            told.state = await self._state(leader, host)
            if told.state not in STATES[strike.phase]:
                told.missed.append(f"the host is {told.state} as the fault comes")
            told.delivered[strike.fault.value] = 1
            async with anyio.create_task_group() as group:
                group.start_soon(self._wake_bmc, strike, host)
                told.took_s = await self._without_leader(strike, leader, term, told)
        finally:
            self._struck = True

    async def _wake_bmc(self, strike: Strike, host: int) -> None:
        """Some time after the fault; it reads late what the old leader sent, or has lost that."""
        if strike.phase is Phase.FAILED:
            await self.cloud.break_bmc(host, 1.0 + strike.for_s, thaw=strike.flag)

    async def _without_leader(self, strike: Strike, leader: Controller, term: int, told: TakeoverRound) -> float | None:
        """Let the fault come, wait for a leader, let it end; returns for how long nobody led."""
        index = self.controllers.index(leader)
        place, ended = self.places.controllers[index], strike.fault in ENDS_THE_LEAD
        if ended:
            end = self._strike_leader(strike.fault, leader, place)
            began = time.monotonic()
        elif strike.fault is Fault.OFF_ONED:
            place.cut_off_port(self.places.ports[leader.folder.name])
            await anyio.sleep(strike.for_s)
            place.join()
            return None
        else:
            await anyio.to_thread.run_sync(self._strike_etcd, strike)
            end, began = _nothing, time.monotonic()
            if strike.fault is not Fault.MEMBER:
                await anyio.sleep(strike.for_s)
                await anyio.to_thread.run_sync(self._heal_etcd)
                began = time.monotonic()
        with anyio.move_on_after(LEADER_WITHIN_S):
            await self._leads(newer_than=term if ended else 0, since=began)
        took_s = round(time.monotonic() - began, 2)
        if took_s > TAKEOVER_MAX_S:
            told.late.append(f"nobody led for {took_s:g} s")
        await anyio.sleep(strike.for_s)
        end()
        self._down.discard(leader)
        if strike.fault is Fault.MEMBER:
            await anyio.to_thread.run_sync(self._heal_etcd)
        return took_s

    def _strike_leader(self, fault: Fault, leader: Controller, place: Machine) -> Callable[[], None]:
        """Returns what ends it."""
        members = self.places.members
        match fault:
            case Fault.KILLED:
                self._down.add(leader)
                leader.take_down()
                return leader.let_up
            case Fault.FROZEN:
                self._down.add(leader)
                leader.send_signal(signal.SIGSTOP)
                return lambda: leader.send_signal(signal.SIGCONT)
            case Fault.OFF_ETCD:
                place.cut_off(members)
                return place.join
            case Fault.MINORITY:
                with_it = members[self.cluster.members.index(self.cluster.leader())]
                others = [each for each in members if each is not with_it]
                other_controllers = [each for each in self.places.controllers if each is not place]
                place.cut_off(others)
                with_it.cut_off([*others, *other_controllers])

                def together() -> None:
                    place.join()
                    with_it.join()

                return together
            case _:
                assert fault is Fault.EXPIRED
                assert self.cluster.end_lease(LEADER_KEY)
                return _nothing

    def _strike_etcd(self, strike: Strike) -> None:
        etcd = self.cluster
        act: Callable[..., None] = etcd.freeze if strike.flag else etcd.kill
        match strike.fault:
            case Fault.MEMBER:
                act(etcd.leader())
            case Fault.QUORUM:
                leading: Member = etcd.leader()
                act(leading, next(each for each in etcd.members if each is not leading))
            case Fault.RESTARTED:
                etcd.kill(*etcd.members)
            case _:
                assert strike.fault is Fault.APART
                for place in self.places.members:
                    place.cut_off(other for other in self.places.members if other is not place)

    def _heal_etcd(self) -> None:
        for place in self.places.members:
            place.join()
        self.cluster.heal()
        self.cluster.wait_until_well()

    # --- look ---

    async def _leads(self, *, newer_than: int = 0, since: float = -math.inf) -> tuple[Controller, int]:
        """Wait until somebody leads, in a newer term, and has asked etcd since a moment."""
        while True:
            for controller, told in await self._ask_all("leader"):
                if not told["leads"] or told["term"] <= newer_than or told["left_s"] is None:
                    continue
                asked_at = time.monotonic() + told["left_s"] + LEFT_ROUNDED_S - LEAD_S
                if asked_at > since:
                    self.controller = controller
                    return controller, told["term"]
            await anyio.sleep(LOOK_EVERY_S)

    async def _find_leader(self) -> None:
        for controller, told in await self._ask_all("leader"):
            if told["leads"]:
                self.controller = controller

    async def _ask_all(self, path: str) -> list[tuple[Controller, Any]]:
        """Everybody at once; who does not answer soon is left out."""
        answers: list[tuple[Controller, Any]] = []

        async def ask(controller: Controller) -> None:
            with anyio.move_on_after(ASKED_WITHIN_S):
                if (told := await controller.asks(path)) is not None:
                    answers.append((controller, told))

        async with anyio.create_task_group() as group:
            for controller in self.controllers:
                if controller not in self._down:
                    group.start_soon(ask, controller)
        return answers

    async def _state(self, leader: Controller, host: int) -> str:
        rows = await leader.asks("hosts") or ()
        return next((str(row["state"]) for row in rows if row["id"] == host), "unknown")

    async def _reached(self, phase: Phase, host: int, calls: int, shots: int) -> None:
        """Wait for the beginning of the phase."""
        cloud, leader = self.cloud, self.controller
        vms = len(cloud.hardware.machines[host].vms) or 1
        while True:
            cloud.follow()
            match phase:
                case Phase.ORDERED | Phase.OFF_ONCE:
                    came = len(cloud.shots) > shots
                case Phase.HALF_MOVED:
                    came = len(self._moved(calls)) >= math.ceil(vms / 2)
                case Phase.GIVEN_BACK:
                    came = cloud.hardware.machines[host].powered and await self._state(leader, host) == "recovered"
                case _:
                    came = await self._state(leader, host) in STATES[phase]
            if came:
                return
            await anyio.sleep(LOOK_EVERY_S)

    def _moved(self, since: int) -> Counter[int]:
        made = self.cloud.server.calls[since:]
        return Counter(int(call.arguments[0]) for call in made if call.method == "one.vm.migrate" and call.ok)

    async def _numbers(self, since: float) -> set[int]:
        """Of the incidents with a power-off that were opened since, on the record of whoever leads. A standby that
        suspects a host has a number for that, too, which is closed when it takes over; and of what is over, each
        has noted as much as it saw."""
        with anyio.fail_after(LEADER_WITHIN_S):
            leader, _ = await self._leads()
        found = await answer_of(leader, "incidents")
        return {int(each["id"]) for each in found if each["fenced_at"] is not None and each["opened_at"] >= since}

    # --- judge ---

    async def _judge_leads(self, told: TakeoverRound, since: int, at: float) -> None:
        """Nobody acts for an older term behind a newer one, and no VM is ordered to move twice."""
        twice = [vm for vm, times in self._moved(since).items() if times > 1]
        told.double_orders = [f"VM {vm} was ordered to move twice" for vm in twice]
        announced = {each.folder.name: await self._announced(each, at) for each in self.controllers}
        highest = 0
        for number, call in enumerate(self.cloud.server.calls[since:], start=since):
            if call.method not in WRITES:
                continue
            caller = self.places.doors.callers.get(number, "nobody known")
            terms = [term for said_at, term in announced.get(caller, ()) if said_at <= call.at]
            term = terms[-1] if terms else 0
            if not term:
                told.old_acts.append(f"{caller}: {call.method} {call.arguments} that it had not announced")
            elif term < highest:
                told.old_acts.append(f"{caller}: {call.method} {call.arguments} in term {term}, after term {highest}")
            highest = max(highest, term)
        told.terms = sorted({term for lines in announced.values() for _, term in lines})

    async def _announced(self, controller: Controller, at: float) -> list[tuple[float, int]]:
        """When it announced an order, and in which term."""
        lines = await answer_of(controller, "events?kind=intent&limit=1000&newest=true")
        return [(line["at"], line["data"]["term"]) for line in lines if line["at"] >= at and "term" in line["data"]]


def _nothing() -> None:
    pass
