"""Who leads a pretended world of one controller: an engine outside of it, and the arbiter that asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ha_controller.lead import Arbiter, ArbiterConfig, ArbiterUnreachable, Member, NotLeading

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life, Process
    from ha_controller.sim.engine_level.world import World

LEAD_S, GRANT_S = 12.0, 15.0  #: a controller counts less than the engine waits
OTHER = "the other controller"


class Election:
    """Gives the lead to one at a time."""

    lead_s = LEAD_S

    def __init__(self, world: World) -> None:
        """Nobody leads yet."""
        self.world = world
        self.term = 0
        self.holder = ""
        self.ends_at = 0.0
        self.down = False
        self.cut: set[int] = set()  #: controllers that do not reach it
        self.before = ""  #: who led last before the holder
        self.proven: dict[str, float] = {}  #: who -> when they asked for what was last proven to them
        self.kept: dict[str, float] = {}  #: who -> when they asked for what last kept their lead

    def holds(self, who: str, term: int) -> bool:
        """Whether somebody leads in a term, now."""
        return (self.holder, self.term) == (who, term) and self.world.now < self.ends_at

    @property
    def leader(self) -> Process | None:
        """The controller that holds the lead, knows it, and runs. One that sleeps in a calm cloud is woken in time."""
        (process,) = self.world.controllers
        if process.controller is None or (self.holder, process.controller.state.term) != (process.name, self.term):
            return None
        return process if self.world.sleeps or (process.runs and self.world.now < self.ends_at) else None

    def before_a_change(self) -> None:
        """A controller keeps its lead by itself."""

    def grant(self, who: str) -> int | None:
        """The lead, if nobody else has it."""
        now = self.world.now
        if self.holder not in ("", who) and now < self.ends_at:
            return None
        self.term, self.before = self.term + 1, self.holder or self.before
        self.holder, self.ends_at = who, now + GRANT_S
        self.world.story(f"{who} leads in term {self.term}")
        return self.term

    def take_away(self, for_s: float) -> None:
        """Somebody else leads for a while."""
        self.term, self.before = self.term + 1, self.holder
        self.holder, self.ends_at = OTHER, self.world.now + for_s
        self.world.story(f"{OTHER} leads in term {self.term}")


class PretendedConfig(ArbiterConfig):
    """Nothing to set."""


class PretendedArbiter(Arbiter[PretendedConfig]):
    """Asks the pretended engine."""

    kind: ClassVar[str] = "pretended"
    config_model: ClassVar[type[ArbiterConfig]] = PretendedConfig
    lead_s = LEAD_S
    renew_every_s = 3.0
    life: ClassVar[Life]

    @property
    def _who(self) -> str:
        return self.life.process.name

    async def _reach(self) -> Election:
        life = self.life
        election = life.world.arbiter
        if not isinstance(election, Election):
            raise ArbiterUnreachable("there is none")
        await life.takes(life.world.dice.uniform(0.001, 0.02))
        if election.down or life.process.index in election.cut:
            if life.world.dice.random() < 0.5:
                await life.never()
            raise ArbiterUnreachable("no quorum answers")
        return election

    async def acquire(self) -> int | None:
        """Ask for the lead."""
        asked_at, election = self.life.world.now, await self._reach()
        election.kept[self._who] = asked_at
        return election.grant(self._who)

    async def renew(self, term: int) -> None:
        """Keep it."""
        asked_at, election = self.life.world.now, await self._reach()
        if not election.holds(self._who, term):
            raise NotLeading(f"term {term} is over")
        election.ends_at = election.world.now + GRANT_S
        election.kept[self._who] = asked_at

    async def prove(self, term: int) -> None:
        """Whether it is held, now."""
        asked_at = self.life.world.now
        election = await self._reach()
        if not election.holds(self._who, term):
            raise NotLeading(f"term {term} is over")
        election.proven[self._who] = asked_at
        await self.life.risk("the lead was proven, and nothing has left yet")

    async def release(self, term: int) -> None:
        """Give it back."""
        election = await self._reach()
        if election.holds(self._who, term):
            election.before, election.holder, election.ends_at = self._who, "", 0.0

    async def members(self) -> Sequence[Member]:
        """Who takes part."""
        election = await self._reach()
        mine = Member(
            name=self._who,
            instance=self.context.instance,
            leads=election.holder == self._who,
            term=election.term if election.holder == self._who else None,
        )
        if election.holder != OTHER:
            return [mine]
        return [Member(name=OTHER, instance="0" * 12, leads=True, term=election.term), mine]

    def led_meanwhile(self) -> str:
        """Nobody, if the term before was ours, too: what was ordered in it is on our record."""
        election = self.life.world.arbiter
        before = election.before if isinstance(election, Election) else ""
        return "" if before in ("", self._who) else before


def arbiters_of(life: Life) -> dict[str, type[Arbiter[ArbiterConfig]]]:
    """The class that one life of a controller finds."""
    made: dict[str, Any] = {"pretended": type("Pretended", (PretendedArbiter,), {"life": life})}
    return made
