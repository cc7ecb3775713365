"""Who of the controllers leads, truthfully: one at a time, in terms that only grow.

A lead ends `TTL_S` after its holder could last keep it; the holder itself counts on less. A holder that stands still or
is killed loses it without knowing: what it has decided may be left lying about, and must then do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ha_controller.core.events import LeadChanged

if TYPE_CHECKING:
    from ha_controller.sim.core_level.process import Process
    from ha_controller.sim.core_level.world import World

LEAD_S, TTL_S = 5.0, 8.0
NOBODY, STRANGER = -1, -2


class Arbiter:
    """The engine outside of the controllers."""

    def __init__(self, world: World) -> None:
        """Nobody has led yet."""
        self.world = world
        self.holder = self.last_holder = NOBODY
        self.term = 0
        self.kept_at = 0.0  #: when the holder last could keep its lead
        self.cut: set[int] = set()  #: controllers that do not reach it
        self.stranger_until = 0.0  #: another program leads that long

    def holds(self, process: Process, term: int | None) -> bool:
        """Whether this controller leads in this very term, now: what is proven right before an order leaves."""
        return term is not None and (self.holder, self.term) == (process.index, term) and process.index not in self.cut

    @property
    def leader(self) -> Process | None:
        """The controller that holds the lead and runs."""
        found = next((each for each in self.world.controllers if each.index == self.holder), None)
        return found if found is not None and found.runs and found.term is not None else None

    def _able(self, process: Process) -> bool:
        return process.runs and process.index not in self.cut and process.term == self.term

    def before_a_change(self) -> None:
        """Somebody is about to be killed, to stand still or to be cut off: until now the lead was kept."""
        if self.holder >= 0 and self._able(self.world.controllers[self.holder]):
            self.kept_at = self.world.now

    def take_away(self, for_s: float) -> None:
        """Somebody else leads for a while: the stranger, or any other controller."""
        self.holder, self.term = STRANGER, self.term + 1
        self.stranger_until = self.world.now + for_s
        self.last_holder = STRANGER

    def turn(self, process: Process) -> None:
        """A controller keeps its lead, or asks for one."""
        self.before_a_change()
        now = self.world.now
        mine = self.holder == process.index and process.term == self.term
        if process.term is not None and not mine:
            process.lose_the_lead(LeadChanged(term=None, leader=self._name()))
        elif mine and process.index in self.cut:
            if now - self.kept_at > LEAD_S:
                process.lose_the_lead(LeadChanged(term=None, trouble="its quorum does not answer"))
        elif not mine and process.index not in self.cut and self._is_free(process):
            self._grant(process)

    def _is_free(self, process: Process) -> bool:
        if self.holder == STRANGER:
            return self.world.now >= self.stranger_until
        alone = len(self.world.controllers) == 1  # then it is a lock that ends with its process
        return (
            self.holder == NOBODY or self.world.now - self.kept_at > TTL_S or (alone and process.index == self.holder)
        )

    def _grant(self, process: Process) -> None:
        self.term += 1
        others = self.last_holder not in (NOBODY, process.index)
        self.holder = self.last_holder = process.index
        self.kept_at, process.term = self.world.now, self.term
        self.world.story(f"{process.name} leads, term {self.term}")
        process.post(LeadChanged(term=self.term, inherited="another controller has led" if others else ""))

    def _name(self) -> str:
        return "somebody else" if self.holder < 0 else self.world.controllers[self.holder].name
