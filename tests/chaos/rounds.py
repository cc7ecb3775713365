"""One round of chaos, as a story: all is well, something dies amid troubles, all is healed, all is well again.

What a round is judged by: the disks of the VMs, the processes, the power supplies and what reached the BMCs. The
controller is asked only whether it has come to rest, and how it verified its power-offs.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from ha_controller.core.incident import VmStage
from ha_controller.sim import netns
from ha_controller.sim.hardware import Fault
from ha_controller.sim.oned_model import ACTIVE, DISABLED, ERROR, MONITORED, POWEROFF, RUNNING
from ha_controller.sim.oned_recover import BOOT_FAILS, FILES_END, RETRY, SUCCESS
from ha_controller.sim.oned_state import START_FAILURES
from tests.chaos import faults
from tests.chaos.cloud import LivingCloud, fill_disk
from tests.chaos.controller import Controller
from tests.chaos.faults import Blow, Death, Moment, Trouble
from tests.peers.etcd import Etcd

STARTING = frozenset({*BOOT_FAILS, *FILES_END})
MOMENT_WITHIN_S = 40.0  #: a moment that has not come by then does not come
CARED_FOR_WITHIN_S = 300.0  #: a busy machine takes its time; who is stuck is so for ever
WELL_WITHIN_S = 240.0
POWER_ON_WITHIN_S = 30.0  #: the controller powers hosts on itself; a person presses the button where it does not
PERSON_COMES_AFTER_S = 3.0
ENABLED_AFTER_S = 20.0
LOOK_EVERY_S = 0.25
ANSWERS_WITHIN_S = 60.0


@dataclass(kw_only=True)
class Round:
    """What a round was, and what was seen in it."""

    number: int
    seed: str
    plan: list[str]
    seconds: float = 0.0
    verified_fences: int = 0
    moves: int = 0
    shots: int = 0
    delivered: dict[str, int] = field(default_factory=dict)  #: how often each fault came
    person: list[str] = field(default_factory=list)  #: what a person was asked, or had to do
    left_alone: list[str] = field(default_factory=list)  #: VMs that a person was told to start, and why
    double_writers: list[str] = field(default_factory=list)
    lost_vms: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    healthy_shot: list[str] = field(default_factory=list)
    controller_trouble: list[str] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether nothing was proven by it."""
        return not (self.verified_fences and self.moves)

    @property
    def problems(self) -> list[str]:
        found = [*self.double_writers, *self.lost_vms, *self.stuck, *self.healthy_shot, *self.controller_trouble]
        return [*found, *(["idle: no verified fence or no move"] if self.idle else [])]


class Play:
    """A cloud and its controllers, round after round."""

    def __init__(self, cloud: LivingCloud, controllers: Sequence[Controller], etcd: Etcd | None) -> None:
        """All is started already."""
        self.cloud, self.controllers, self.etcd = cloud, controllers, etcd
        self.controller = controllers[0]  #: the one that led when that was last looked at
        self._asked_since: dict[str, float] = {}
        self._ends_seen = [0] * len(controllers)
        self._seen = (0, 0, 0)
        self._to_die = 0  #: deaths of this round that are still to come

    async def round(self, number: int, seed: str) -> Round:
        """Play one; it ends when all is well again, or when that takes too long."""
        dice = random.Random(seed)
        self._renew()
        await self.well()
        with_vms = sorted(host for host, known in self.cloud.hardware.machines.items() if known.vms)
        plan = faults.draw(dice, len(self.cloud.hosts), with_vms, etcd=self.etcd is not None)
        told = Round(number=number, seed=seed, plan=[str(blow) for blow in (*plan.deaths, *plan.troubles)])
        began, fences, calls, shots = time.monotonic(), await self._fences(), self._migrates(), len(self.cloud.shots)
        outages, self._to_die = len(self.cloud.disks.outages), len(plan.deaths)
        async with anyio.create_task_group() as group:
            for blow in (*plan.deaths, *plan.troubles):
                group.start_soon(self._strike, blow, told, calls, shots)
            await self._cared_for(told)
        await self._repair(told)
        await self._settle(told)
        told.verified_fences = len(await self._fences() - fences)
        told.moves = sum(outage.since != outage.on for outage in self.cloud.disks.outages[outages:])
        told.shots = len(self.cloud.shots) - shots
        self._judge(told)
        told.seconds = round(time.monotonic() - began, 1)
        return told

    # --- strike ---

    async def _strike(self, blow: Blow, told: Round, calls: int, shots: int) -> None:
        """Wait for the moment, and let it happen."""
        came: Callable[[], bool] = {
            Moment.SOON: lambda: True,
            Moment.ORDERED_OFF: lambda: len(self.cloud.shots) > shots,
            Moment.MOVED: lambda: self._migrates() > calls,
        }[blow.moment]
        with anyio.move_on_after(MOMENT_WITHIN_S) as waiting:
            while not came():
                await anyio.sleep(0.01)
        if not waiting.cancelled_caught:
            await anyio.sleep(blow.after_s)
        if isinstance(blow.what, Death):
            self._to_die -= 1
        if waiting.cancelled_caught:
            return
        if isinstance(blow.what, Death):
            self._kill_host(blow)
        else:
            await self._trouble(blow)
        told.delivered[blow.what.value] = told.delivered.get(blow.what.value, 0) + 1

    def _kill_host(self, blow: Blow) -> None:
        assert blow.host is not None
        act = {
            Death.POWER_LOSS: self.cloud.lose_power,
            Death.CRASH: self.cloud.crash,
            Death.HANG: self.cloud.hang,
            Death.FREEZE: self.cloud.freeze,
            Death.SEVERED: self.cloud.sever,
        }
        act[Death(blow.what)](blow.host)

    async def _trouble(self, blow: Blow) -> None:
        cloud, host, for_s = self.cloud, blow.host, blow.for_s
        match blow.what:
            case Trouble.KILL:
                await self.controller.kill(for_s)
            case Trouble.PAUSE:
                self.controller.send_signal(signal.SIGSTOP)
                await anyio.sleep(for_s)
                self.controller.send_signal(signal.SIGCONT)
            case Trouble.CUT_OFF:
                await self._cut_off_controller(for_s)
            case Trouble.DISK_FULL:
                await fill_disk(self.controller.state, for_s)
            case Trouble.ONED_RESTART:
                await cloud.restart_oned(for_s, lose=1, finish=blow.flag)
            case Trouble.ETCD_MEMBER:
                await self._break_etcd(for_s, frozen=blow.flag)
            case _:
                assert host is not None
                await self._trouble_of_host(blow, host)

    async def _trouble_of_host(self, blow: Blow, host: int) -> None:
        cloud, for_s = self.cloud, blow.for_s
        match blow.what:
            case Trouble.BMC_DEAD | Trouble.BMC_THAWS:
                await cloud.break_bmc(host, for_s, thaw=blow.what is Trouble.BMC_THAWS)
            case Trouble.BMC_IGNORES:
                await cloud.stick_bmc(host, for_s)
            case Trouble.BMC_SLOW:
                cloud.living[host].slow(for_s)  # until the round's repairs
            case Trouble.STANDSTILL:
                await cloud.stand_still(host, for_s)
            case Trouble.REBOOT:
                await anyio.to_thread.run_sync(cloud.living[host].switch, "reboot")
            case _:
                requests = blow.what is not Trouble.ANSWERS_LOST
                answers = blow.what is not Trouble.REQUESTS_LOST
                if blow.flag:  # OpenNebula does not reach it either
                    cloud.hardware.break_machine(host, Fault.PARTITION)
                cloud.living[host].lose(requests=requests, answers=answers)
                await anyio.sleep(for_s)
                cloud.mend(host)

    async def _break_etcd(self, for_s: float, *, frozen: bool) -> None:
        """Its leader is stopped, or killed and started again."""
        if self.etcd is None:
            return
        member = await anyio.to_thread.run_sync(self.etcd.leader)
        act = self.etcd.freeze if frozen else self.etcd.kill
        await anyio.to_thread.run_sync(act, member)
        await anyio.sleep(for_s)
        await anyio.to_thread.run_sync(self.etcd.heal)

    async def _cut_off_controller(self, for_s: float) -> None:
        """From every host and from its witness; OpenNebula and the BMCs are on other networks."""
        netns._run("ip", "link", "set", netns.link_of(-1), "down")
        whole = [host for host in self.cloud.living.values() if not self.cloud.hardware.machines[host.number].cut_off]
        for host in whole:
            host.lose(requests=True, answers=True)
        await anyio.sleep(for_s)
        for host in whole:
            if not self.cloud.hardware.machines[host.number].cut_off:
                host.lose(requests=False, answers=False)
        netns._run("ip", "link", "set", netns.link_of(-1), "up")

    # --- wait and help ---

    async def _until(self, what: Callable[[], Awaitable[str]], within_s: float, told: Round) -> str:
        """Wait until nothing is missing; returns what still is. A person answers questions meanwhile."""
        deadline = time.monotonic() + within_s
        while missing := await what():
            if time.monotonic() > deadline:
                return missing
            await self._answer_questions(told)
            await anyio.sleep(LOOK_EVERY_S)
            await self._find_leader()
        return ""

    async def _find_leader(self) -> None:
        for controller in self.controllers:
            if (await controller.asks("leader") or {}).get("leads"):
                self.controller = controller

    async def _cared_for(self, told: Round) -> None:
        """Until the dead are off and every VM writes."""

        async def missing() -> str:
            on = [host for host in sorted(self.cloud.doomed) if self.cloud.hardware.machines[host].powered]
            silent = {vm for vm in self.cloud.vms if not self._lives(vm)}
            if silent and not on:
                silent -= {vm for vm, _ in await self._left_alone()}
            text = f"hosts {on} have power, VMs {sorted(silent)} do not live, {self._to_die} deaths are to come"
            return text if on or silent or self._to_die else ""

        if still := await self._until(missing, CARED_FOR_WITHIN_S, told):
            told.stuck.append(f"after {CARED_FOR_WITHIN_S:g} s: {still}; {await self._unwell()}")

    def _lives(self, vm: int) -> bool:
        """Whether it is written, and not by what is about to be powered off."""
        last = self.cloud.disks.last(vm)
        dying = {self.cloud.hosts[host].name for host in self.cloud.doomed}
        return last is not None and self.cloud.disks.writes(vm) and last.host not in dying

    async def _repair(self, told: Round) -> None:
        """Everything is whole again; hosts that the controller does not power on get power from a person."""
        for host in self.cloud.living.values():
            host.slow(None)
            self.cloud.mend(host.number)
        deadline = time.monotonic() + POWER_ON_WITHIN_S
        while off := [host for host, known in self.cloud.hardware.machines.items() if not known.powered]:
            if time.monotonic() > deadline:
                for host in off:
                    told.person.append("power button: the controller did not power the host on")
                    self.cloud.press_power_button(host)
            await self._answer_questions(told)
            await anyio.sleep(LOOK_EVERY_S)

    async def _settle(self, told: Round) -> None:
        async def unwell_after_help() -> str:
            if unwell := await self._unwell():
                await self._help(told)
            return unwell

        if unwell := await self._until(unwell_after_help, WELL_WITHIN_S, told):
            told.stuck.append(f"not well {WELL_WITHIN_S:g} s after all was repaired: {unwell}")

    async def well(self) -> None:
        """Wait until all is well at the beginning, and every VM is known."""

        async def unwell() -> str:
            if missing := await self._unwell():
                return missing
            rows = {row["id"]: row["vms"] for row in await self.controller.asks("hosts") or ()}
            known = all(rows.get(host) == len(machine.vms) for host, machine in self.cloud.hardware.machines.items())
            return "" if known else f"VMs that the controller knows of: {rows}"

        nobody = Round(number=0, seed="", plan=[])
        if missing := await self._until(unwell, WELL_WITHIN_S, nobody):
            raise RuntimeError(f"the cloud did not get well before the round: {missing}")

    async def _unwell(self) -> str:
        """Why the controller has not come to rest yet; empty if it has."""
        rows: list[dict[str, Any]] | None = await self.controller.asks("hosts")
        if rows is None:
            return "the controller does not answer"
        for row in sorted(rows, key=lambda row: str(row["name"])):
            in_use = self.cloud.oned.hosts[row["id"]].state == MONITORED
            if row["state"] != "ok" or row["incident"] is not None or row["one_state"] != MONITORED or not in_use:
                return await self._why(row)
            if not row["fencing"] or not all(each["ready"] for each in row["fencing"]):
                return f"{row['name']}: its fence device is not ready"
        status = await self.controller.asks("status")
        if len(rows) != len(self.cloud.hosts) or status is None or status["code"] != 0:
            return str(status)
        return "; ".join(self._lost())

    async def _why(self, row: dict[str, Any]) -> str:
        """What stands between a host and being well, in the words of the controller."""
        explained = await self.controller.asks(f"hosts/{row['name']}/explain") or {}
        closed = [
            f"{each['condition']}: {each['reason']}" for each in explained.get("rejoin", ()) if not each["passes"]
        ]
        evidence = explained.get("evidence", ())
        return f"{row['name']}: {row['state']}, OpenNebula {row['one_state']}, {row['note']} {closed} {evidence}"

    async def _left_alone(self) -> set[tuple[int, str]]:
        """VMs that the controller told a person to start, and why."""
        found = [each for controller in self.controllers for each in await controller.asks("incidents") or ()]
        return {
            (vm["id"], f"{vm['name']}: {vm['reason']}")
            for each in found
            for vm in each["vms"]
            if vm["stage"] == VmStage.LEFT and vm["id"] in self.cloud.vms
        }

    async def _help(self, told: Round) -> None:
        """A person starts what the controller left alone, and has fence devices checked that were repaired."""
        for vm, why in await self._left_alone():
            known, now = self.cloud.oned.vms[vm], self.cloud.oned_now()
            if not self.cloud.hardware.answers(known.host):
                continue
            if known.state == POWEROFF:
                self.cloud.oned.lifecycle.action(vm, "resume", now)
            elif known.lcm_state in START_FAILURES:
                self.cloud.oned.lifecycle.recover(vm, RETRY, now)
            elif known.lcm_state in STARTING:  # for ever: nobody may log in and ask, so a person looks at the host
                runs = vm in self.cloud.hardware.machines[known.host].vms
                self.cloud.oned.lifecycle.recover(vm, SUCCESS if runs else RETRY, now)
            else:
                continue
            told.left_alone.append(why)
        rows = await self.controller.asks("hosts") or ()
        for row in rows:  # a host that another controller powered off is not given back by this one
            known, now = self.cloud.oned.hosts[row["id"]], self.cloud.oned_now()
            is_well = row["state"] == "ok" and row["incident"] is None
            if not (is_well and known.state in (DISABLED, ERROR) and self._for_long(row["name"])):
                continue
            told.person.append(f"onehost enable: {row['name']} is {'DISABLED' if known.state == DISABLED else 'ERROR'}")
            if known.state == ERROR:  # its monitoring is started anew; the controller does that once in ten minutes
                self.cloud.oned.set_status(row["id"], 2, now)
            self.cloud.oned.set_status(row["id"], 0, now)
        if any(row["state"] == "ok" and not all(each["ready"] for each in row["fencing"]) for row in rows):
            await self.controller.checks_devices()

    def _for_long(self, name: str) -> bool:
        since = self._asked_since.setdefault(name, time.monotonic())
        if time.monotonic() - since < ENABLED_AFTER_S:
            return False
        del self._asked_since[name]
        return True

    def _renew(self) -> None:
        """VMs that died twice are replaced: on the third host that dies under it a VM is taken for what kills hosts."""
        for vm in self.cloud.vms:
            if self.cloud.disks.moves(vm) >= 2:
                self.cloud.replace_vm(vm)

    async def _answer_questions(self, told: Round) -> None:
        """A person looks at the hosts themselves, and orders what follows from that."""
        for asked in await self.controller.asks("pending") or ():
            name = f"{self.controller.folder.name} {asked['id']}"
            since = self._asked_since.setdefault(name, time.monotonic())
            if time.monotonic() - since < PERSON_COMES_AFTER_S:
                continue
            del self._asked_since[name]
            host = next(each.id for each in self.cloud.hosts if each.name == asked["host"])
            dead = host in self.cloud.doomed
            match asked["state"]:
                case _ if asked["question"].startswith("takeover"):
                    verb = "release"
                case "suspect":
                    verb = "approve" if dead else "reject"
                case "failed":
                    verb = "release" if dead else "unfence"
                case "recovered":
                    verb = "unfence"
                case _:
                    verb = "release"
            answer = await self.controller.order(verb, asked["id"], asked["host"])
            told.person.append(f"{verb} at {asked['state']}: {asked['question']} -> {answer}")

    # --- judge ---

    def _judge(self, told: Round) -> None:
        """What is wrong now, or went wrong on the way."""
        cloud = self.cloud
        cloud.follow()
        cloud.disks.look()
        double, locks, innocent = self._seen
        found = cloud.disks
        told.double_writers = [*found.double[double:], *found.lock_taken[locks:]]
        told.healthy_shot = cloud.innocent[innocent:]
        self._seen = (len(found.double), len(found.lock_taken), len(cloud.innocent))
        told.lost_vms = self._lost()
        for index, controller in enumerate(self.controllers):
            ends, self._ends_seen[index] = controller.ends[self._ends_seen[index] :], len(controller.ends)
            disk_full = Trouble.DISK_FULL.value in told.delivered
            if ends and not disk_full:
                told.controller_trouble.append(f"the controller ended by itself: {ends}")
            for line in controller.new_lines():
                if "Traceback" in line and not (disk_full and "could not be written" in line):
                    told.controller_trouble.append(f"a traceback in the controller's log: {line[:300]}")

    def _lost(self) -> list[str]:
        """VMs that nobody runs, or that run where OpenNebula does not know of."""
        lost = []
        for vm in self.cloud.vms:
            known, last = self.cloud.oned.vms[vm], self.cloud.disks.last(vm)
            host = self.cloud.hosts[known.host].name
            if (known.state, known.lcm_state) != (ACTIVE, RUNNING):
                lost.append(f"VM {vm} is {known.label} on {host}")
            elif last is None or not self.cloud.disks.writes(vm) or self.cloud.disks.holder(vm) is None:
                lost.append(f"VM {vm} is RUNNING on {host}, and no process writes to its disk")
            elif last.host != host:
                lost.append(f"VM {vm} is RUNNING on {host}, and is written by {last.host}")
        return lost

    async def _fences(self) -> set[tuple[int, int]]:
        """Incidents whose power-off was verified, from the record of each controller."""
        found = set()
        for index, controller in enumerate(self.controllers):
            known = await answer_of(controller, "incidents")
            found |= {(index, each["id"]) for each in known if each["fenced_at"] is not None and each["proof"]}
        return found

    def _migrates(self) -> int:
        return sum(call.method == "one.vm.migrate" and call.ok for call in self.cloud.server.calls)


async def answer_of(controller: Controller, path: str) -> list[Any]:
    """Ask for a list until it comes: no answer, or a refusal for now, does not say that there is nothing.

    Raises:
        TimeoutError: it does not come.
    """
    with anyio.fail_after(ANSWERS_WITHIN_S):
        while not isinstance(told := await controller.asks(path), list):
            await anyio.sleep(LOOK_EVERY_S)
    return told
