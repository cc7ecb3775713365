"""People: they look now and then, see with their own eyes, repair, and answer what the controller asks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ha_controller.core.effects import Answer
from ha_controller.core.events import OperatorCommanded, Verb
from ha_controller.core.incident import Incident
from ha_controller.core.model import HostState

if TYPE_CHECKING:
    from ha_controller.sim.core_level.world import World

REPAIRED_AFTER_S = 420.0


class People:
    """Sensible ones."""

    def __init__(self, world: World) -> None:
        """Nobody has looked yet."""
        self.world = world
        self.answers = 0

    def answered(self, answer: Answer) -> None:
        """A command was answered."""
        self.answers += 1
        self.world.story(f"answer {answer.code}: {answer.text}")

    def begin(self) -> None:
        """Look now and then, from now on."""

        def due() -> None:
            self.begin()
            if self.world.process.record.cloud.paused_by and self.world.trouble.healing:
                self._order(Verb.RESUME)
            if self._has_work():
                self.world.happen(self._attend)

        every_s = 60.0 if self.world.trouble.healing else self.world.trouble.dice.uniform(120, 600)
        self.world.agenda.later(every_s, due)

    def _has_work(self) -> bool:
        truth = self.world.truth
        return bool(truth.died_at) or any(each.open for each in self.world.process.record.incidents.values())

    def _attend(self) -> None:
        for incident in [each for each in self.world.process.record.incidents.values() if each.open]:
            self._look_at(incident)
        for host, since in list(self.world.truth.died_at.items()):
            if self.world.now - since > 1800 and self.world.process.record.open_of(host) is None:
                self._repair(host)

    def _repair(self, host: int) -> None:
        """Off and on again, whatever it was: nothing of it runs after that."""
        self.world.truth.supply(host, chassis=False)
        self.world.trouble.power_on(host)

    def _look_at(self, incident: Incident) -> None:
        world, host = self.world, incident.host
        is_off = not world.truth.machines[host].powered
        alive = world.truth.answers(host)
        if incident.foreign:
            self._order(Verb.RELEASE, incident)
        elif incident.state is HostState.RECOVERED:
            if not alive and world.now - world.truth.died_at.get(host, world.now) > REPAIRED_AFTER_S:
                self._repair(host)
            elif alive:
                self._order(Verb.UNFENCE, incident)
        elif incident.state is HostState.FENCED and incident.stopped:
            if alive or not is_off:
                world.truth.supply(host, chassis=False)
            self._order(Verb.CONFIRM_OFF, incident)
        elif incident.stopped and alive:
            self._order(Verb.UNFENCE, incident)
        elif incident.stopped or incident.hold_needs_person:
            self._decide(incident, is_off)

    def _decide(self, incident: Incident, is_off: bool) -> None:
        host, truth = incident.host, self.world.truth
        if is_off:
            truth.supply(host, chassis=False, **{"pdu-a": False, "pdu-b": False})  # she pulls its cords, to be sure
            self._order(Verb.CONFIRM_OFF, incident)
        elif host in truth.died_at and self.world.trouble.dice.random() < 0.5:
            truth.supply(host, chassis=False)  # she pulls the cord, and says so at her next look
        elif host in truth.died_at or incident.state is HostState.OK:
            self._order(Verb.APPROVE, incident)

    def _order(self, verb: Verb, incident: Incident | None = None) -> None:
        host = None if incident is None else incident.host
        if host is not None and verb is Verb.APPROVE:
            self.world.judge.allowed.add(host)
        self.world.story(f"a person orders {verb.value} {'' if host is None else host}")
        event = OperatorCommanded(request=1, verb=verb, who="ann", host=host, repaired=True, force=verb is Verb.UNFENCE)
        self.world.process.post(event)
