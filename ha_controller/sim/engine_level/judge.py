"""The checkers of the second level: those of the first, and what only a whole controller can do wrong.

G2 no order leaves without a proof of the lead that is fresh. L2 no device, no plugin and no host delays another; every
order ends by its deadline; what was told to end ends. P1 no secret in what is logged or told. X no bug of the
controller ends it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ha_controller.core.effects import Effect, Fence, MoveVm, Tell
from ha_controller.core.events import Event, VmOrderReported
from ha_controller.sim.core_level.judge import Judge, Violation
from ha_controller.sim.engine_level.agents import PASSWORD
from ha_controller.sim.engine_level.front_end import SESSION

if TYPE_CHECKING:
    from ha_controller.sim.core_level.stage import Controlling
    from ha_controller.sim.engine_level.process import Process
    from ha_controller.sim.engine_level.world import World

PROOF_MAX_S = 2.5  #: an order leaves at most 2 s after its proof was asked for, and has a way to go
ASKED_WITHIN_S = 3.0  #: every host is asked every second, whatever hangs
LATE_MAX_S = 4.5  #: what may pass between the last look at the clock and the order: whose it is, a proof of the lead
SENT_WITHIN_S = 12.0  #: from the record of a power-off to each of its devices: a proof of the lead, whose it is
FENCE_ENDS_WITHIN_S = 32.0  #: the device's own deadline and what is read before and after
ORDER_ENDS_WITHIN_S = 90.0
SECRETS = (PASSWORD, SESSION.partition(":")[2])


class EngineJudge(Judge):
    """Looks at everything, and trusts nobody."""

    world: World

    def __init__(self, world: World) -> None:
        """Nothing has happened."""
        super().__init__(world)
        self._under_way: dict[int, tuple[Effect, float]] = {}
        self._asked: dict[tuple[str, int], float] = {}
        self._waits_for: defaultdict[int, dict[str, float]] = defaultdict(dict)  #: host -> device -> ordered when

    def started(self) -> None:
        """A new process has nothing under way."""
        self._under_way.clear()
        self._asked.clear()
        self._waits_for.clear()

    # --- orders ---

    def leaves(self, process: Controlling, effect: Effect) -> None:
        """An effect is dispatched."""
        super().leaves(process, effect)
        if isinstance(effect, Fence) and effect.send:
            self._waits_for[effect.host] = dict.fromkeys(effect.devices, self.world.now)

    def begins(self, effect: Effect) -> None:
        """Somebody carries it out."""
        self._under_way[id(effect)] = (effect, self.world.now)

    def ends(self, effect: Effect) -> None:
        """It was carried out, or given up."""
        self._under_way.pop(id(effect), None)
        if isinstance(effect, Fence):
            self._waits_for.pop(effect.host, None)

    def device_asked(self, process: Process, host: int, name: str) -> None:
        """A device's agent is called to power off."""
        del process
        self._waits_for[host].pop(name, None)

    def power_off_sent(self, process: Process, host: int, machine: int, *, stood_still: bool) -> None:
        """A power-off leaves the controller. `stood_still`: since its agent was called, for which nobody can stand."""
        orders = [each for each, _ in self._under_way.values() if isinstance(each, Fence) and each.host == host]
        if not orders:
            raise Violation("D1", f"host {host} is powered off, which nobody ordered")
        if not stood_still:
            self._leads(process, f"a power-off of host {host}")
            if (late_s := process.clock() - orders[-1].not_after) > LATE_MAX_S:
                raise Violation("G1", f"a power-off of host {host} is sent {late_s:.0f} s after its time")
            self.fence_begins(process, orders[-1])
        else:
            self.counted["fences"] += 1
        self.sent(host, machine)

    def oned_ordered(self, process: Process, method: str, arguments: tuple[Any, ...]) -> None:
        """An order leaves for OpenNebula, by what was decided lately."""
        self._leads(process, method)
        if method != "one.vm.migrate":
            return
        moves = [each for each, _ in self._under_way.values() if isinstance(each, MoveVm) and each.vm == arguments[0]]
        if not moves or all(each.destination != arguments[1] for each in moves):
            raise Violation("D1", f"VM {arguments[0]} is moved to host {arguments[1]}, which nobody ordered")
        super()._stands_on_a_proof(process, moves[-1].incident, moves[-1].source)

    def _stands_on_a_proof(self, process: Controlling, number: int, source: int) -> None:
        """Not when a move is dispatched, which may wait: when it is sent."""

    def _leads(self, process: Process, what: str) -> None:
        election = self.world.arbiter
        asked_at = election.proven.get(process.name, 0.0)
        if self.world.now - asked_at > PROOF_MAX_S:
            ago = self.world.now - asked_at
            raise Violation("G2", f"{what} left, and the lead was proven last {min(ago, 9999):.1f} s ago")

    # --- words ---

    def told(self, process: Controlling, event: Event) -> None:
        """The core will hear of it."""
        super().told(process, event)
        if isinstance(event, VmOrderReported):
            self.vm_reported(event.vm, event.result)

    def told_people(self, tell: Tell) -> None:
        """People hear something."""
        super().told_people(tell)
        self.said_aloud(tell.text + tell.next_step)

    def said_aloud(self, text: str) -> None:
        """Something is written where people read it."""
        for secret in SECRETS:
            if secret in text:
                raise Violation("P1", f"a secret is in a line: {text.replace(secret, '(the secret)')[:200]}")

    # --- time ---

    def host_asked(self, process: Process, channel: str, host: int) -> None:
        """A probe asks a host."""
        del process
        if channel == "icmp":
            self._asked[(channel, host)] = self.world.now

    def look(self) -> None:
        """Does anybody wait for somebody else's trouble?"""
        super().look()
        process, now = self.world.process, self.world.now
        since = max(process.paused_until, process.started_at)
        if not process.runs or now - since < 20.0:
            return
        for (_, host), at in self._asked.items():
            if now - max(at, since) > ASKED_WITHIN_S:
                raise Violation("L2", f"host {host} was not asked for {now - at:.0f} s")
        for effect, at in self._under_way.values():
            longest_s = FENCE_ENDS_WITHIN_S if isinstance(effect, Fence) else ORDER_ENDS_WITHIN_S
            if now - max(at, since) > longest_s:
                raise Violation("L2", f"{type(effect).__name__} does not end: begun {now - at:.0f} s ago")
        for host, devices in self._waits_for.items():
            for name, at in devices.items():
                if now - max(at, since) > SENT_WITHIN_S:
                    raise Violation("L2", f"{name} of host {host} was not ordered off for {now - at:.0f} s")
