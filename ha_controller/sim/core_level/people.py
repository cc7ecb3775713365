"""People: they look now and then, see with their own eyes, repair, and answer what the controller asks of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ha_controller.core.effects import DONE, LOOK_AGAIN, Answer
from ha_controller.core.events import OperatorCommanded, Verb
from ha_controller.core.incident import Incident
from ha_controller.core.leftovers import HELD_BY
from ha_controller.core.model import HostState
from ha_controller.sim import oned_model as one
from ha_controller.sim.oned_model import OnedRefusal

if TYPE_CHECKING:
    from ha_controller.sim.core_level.stage import Controlling, Stage

REPAIRED_AFTER_S, ENOUGH_S, AGAIN_S = 420.0, 1800.0, 3.0


class People:
    """Sensible ones. They talk to the controller that leads."""

    def __init__(self, world: Stage) -> None:
        """Nobody has looked yet."""
        self.world = world
        self._requests = 0
        self._asked: dict[int, OperatorCommanded] = {}
        self._forced: set[int] = set()  #: hosts of which the controller wants to hear that a person has seen to them
        self._seen_to: set[tuple[int, int]] = set()
        self._seen: dict[tuple[int, int], float] = {}  #: (controller, incident) -> when somebody first looked at it

    def answered(self, answer: Answer) -> None:
        """A command was answered."""
        self.world.story(f"answer {answer.code}: {answer.text}")
        command = self._asked.pop(answer.request, None)
        if command is None:
            return
        verb, host = command.verb, command.host
        if answer.code == LOOK_AGAIN and command.reason != "again":
            self.world.agenda.later(AGAIN_S, lambda: self._again(command))
        if host is not None and answer.code == DONE and verb in (Verb.APPROVE, Verb.FENCE):
            self.world.judge.allowed.add(host)
        if host is not None and verb is Verb.UNFENCE:
            (self._forced.add if "--force" in answer.text else self._forced.discard)(host)

    def vm_lost(self, vm: int, machine: int) -> None:
        """A VM ended with its machine; who works on that knows."""
        if machine in self.world.trouble.maintained:
            self.world.judge.excused.add(vm)

    def begin(self) -> None:
        """Look now and then, from now on."""

        def due() -> None:
            self.begin()
            if self._has_work():
                self.world.happen(self._attend, is_news=False)

        every_s = 60.0 if self.world.trouble.healing else self.world.trouble.dice.uniform(120, 600)
        self.world.agenda.later(every_s, due)

    def _has_work(self) -> bool:
        leader = self.world.arbiter.leader
        if leader is None:
            return bool(self.world.truth.died_at)
        is_paused = bool(leader.record.cloud.paused_by) and self.world.trouble.healing
        return (
            is_paused or bool(self.world.truth.died_at) or any(each.open for each in leader.record.incidents.values())
        )

    def _attend(self) -> None:
        leader, truth = self.world.arbiter.leader, self.world.truth
        if leader is not None:
            if leader.record.cloud.paused_by and self.world.trouble.healing:
                self.order(leader, Verb.RESUME)
            for incident in [each for each in leader.record.incidents.values() if each.open]:
                self._look_at(leader, incident)
        for host, since in list(truth.died_at.items()):
            is_known = leader is not None and leader.record.open_of(host) is not None
            if self.world.now - since > ENOUGH_S and not is_known:
                self._repair(host)

    def _repair(self, host: int) -> None:
        """Off and on again, whatever it was: nothing of it runs after that."""
        self.world.truth.supply(host, chassis=False)
        self.world.trouble.power_on(host)

    def _look_at(self, leader: Controlling, incident: Incident) -> None:
        world, host = self.world, incident.host
        is_off = not world.truth.machines[host].powered
        alive = world.truth.answers(host)
        waits_s = world.now - self._seen.setdefault((leader.index, incident.id), world.now)
        if host in world.trouble.maintained:
            return
        if incident.foreign or (incident.held_by and world.trouble.healing):
            self.order(leader, Verb.RELEASE, incident)
        elif incident.state is HostState.RECOVERED:
            self._bring_back(leader, incident, alive)
        elif incident.state is HostState.FENCED and incident.stopped:
            if alive or not is_off:
                world.truth.supply(host, chassis=False)
            self.order(leader, Verb.CONFIRM_OFF, incident)
        elif incident.stopped and alive:
            self._bring_back(leader, incident, alive)
        elif incident.stopped or incident.hold_needs_person:
            self._decide(leader, incident, is_off)
        elif incident.hold.startswith("no room") and waits_s > REPAIRED_AFTER_S:
            world.add_memory()
        elif waits_s > ENOUGH_S and incident.hold and incident.state in (HostState.SUSPECT, HostState.FAILED):
            self._decide(leader, incident, is_off)

    def _bring_back(self, leader: Controlling, incident: Incident, alive: bool) -> None:
        world, host = self.world, incident.host
        if not alive:
            if world.now - world.truth.died_at.get(host, world.now) > REPAIRED_AFTER_S:
                self._repair(host)
            return
        if incident.hold.startswith(HELD_BY):
            world.truth.strays.pop(host, None)  # virsh destroy
            return
        if host in self._forced and (leader.index, incident.id) not in self._seen_to:
            self._seen_to.add((leader.index, incident.id))
            world.devices.cut_storage(host, False)
            self._repair(host)
            return
        self.order(leader, Verb.UNFENCE, incident, force=host in self._forced)

    def _decide(self, leader: Controlling, incident: Incident, is_off: bool) -> None:
        host, truth = incident.host, self.world.truth
        if is_off:
            truth.supply(host, chassis=False, **{"pdu-a": False, "pdu-b": False})  # she pulls its cords, to be sure
            self.order(leader, Verb.CONFIRM_OFF, incident)
        elif host in truth.died_at and self.world.trouble.dice.random() < 0.5:
            truth.supply(host, chassis=False)  # she pulls the cord, and says so at her next look
        elif host in truth.died_at or incident.state is HostState.OK:
            self.order(leader, Verb.APPROVE, incident)

    def order(
        self,
        leader: Controlling,
        verb: Verb,
        incident: Incident | None = None,
        host: int | None = None,
        *,
        force: bool = False,
    ) -> None:
        """Give the controller that leads an order."""
        about = host if incident is None else incident.host
        self.world.story(f"a person orders {verb.value} {'' if about is None else about}")
        self._send(leader, OperatorCommanded(request=0, verb=verb, who="ann", host=about, repaired=True, force=force))

    def _send(self, leader: Controlling, command: OperatorCommanded) -> None:
        self._requests += 1
        command = replace(command, request=self._requests)
        self._asked[command.request] = command
        self.world.news()
        leader.post(command)

    def _again(self, command: OperatorCommanded) -> None:
        """What was being looked at is known by now."""
        if (leader := self.world.arbiter.leader) is not None:
            self._send(leader, replace(command, reason="again"))

    def end_maintenance(self, host: int) -> None:
        """What ran on it is started by hand before it is given back."""
        oned, truth = self.world.oned, self.world.truth
        if host in truth.died_at:
            self._repair(host)
        oned.advance(self.world.now)
        for vm in list(oned.vms.values()):
            if vm.host == host and vm.id in self.world.judge.excused and not truth.runs_on[vm.id]:
                try:
                    oned.lifecycle.action(vm.id, "resume", self.world.now)
                except OnedRefusal:
                    continue
        self.world.story(f"host {host} is out of maintenance, in OpenNebula {oned.hosts[host].state == one.MONITORED}")
