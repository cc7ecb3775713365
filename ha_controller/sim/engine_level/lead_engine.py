"""Who leads of several pretended controllers, as the engine of the lead has it and as they know it themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Process
    from ha_controller.sim.engine_level.world import World


class LeadEngine(ABC):
    """What the engines have in common."""

    def __init__(self, world: World) -> None:
        """Nobody leads yet."""
        self.world = world
        self.proven: dict[str, float] = {}  #: who -> when they asked for what was last proven to them
        self.kept: dict[str, float] = {}  #: who -> when they asked for what last kept their lead
        self._last: Process | None = None

    @abstractmethod
    def in_the_lead(self) -> tuple[str, int]:
        """Name and term of who leads by what the engine holds."""

    @property
    def leader(self) -> Process | None:
        """The controller that leads, knows it, and runs. Those that sleep in a calm cloud are woken in time."""
        if self.world.sleeps:
            return self._last
        name, term = self.in_the_lead()
        for process in self.world.controllers:
            controller = process.controller
            if process.name == name and process.runs and controller is not None and controller.state.term == term:
                self._last = process
                return process
        return None
