"""The checkers: after every step, by the truth and by what was told, recorded and sent; never by the core's word.

S1 no VM runs twice. S2 nobody powers off what shows life. S3 no VM is started while its host may run it. D1 no order
without a record of it. G1 limits and budgets hold. L1 every VM of a dead host has an outcome. L2 nobody waits untold.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ha_controller.core.controller import Decision
from ha_controller.core.effects import Effect, Fence, MoveVm, Order, OrderHost, ResumeVm, Tell
from ha_controller.core.events import Event, OrderResult, PowerRead
from ha_controller.core.incident import AttemptOutcome, Incident, VmRecord, VmStage
from ha_controller.core.model import HostState, PowerState
from ha_controller.sim.core_level.layout import BMC, PDU_A, PDU_B

if TYPE_CHECKING:
    from ha_controller.sim.core_level.executor import VmOrder
    from ha_controller.sim.core_level.world import World

SEEN_S = 5.0  #: a host that could be reached for so long must have been heard: an order is valid for 3 s
UNTOLD_MAX_S = 400.0
PROOF_SLACK_S = 1.0


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class Judge:
    """Looks at everything, and trusts nobody."""

    def __init__(self, world: World) -> None:
        """Nothing has happened."""
        self.world = world
        self.counted: Counter[str] = Counter()
        self.holds: Counter[str] = Counter()
        self.allowed: set[int] = set()  #: hosts of which a person said that they may be powered off
        self.read: dict[tuple[int, str], tuple[float, PowerState]] = {}  #: what the core was told of devices
        self.doubtful: dict[int, tuple[int, float]] = {}  #: VM -> destination of an order that may still arrive, when
        self.fences: list[tuple[float, int]] = []
        self.said: list[str] = []
        self._died: set[tuple[int, float]] = set()
        self._waiting: dict[int, tuple[object, float]] = {}
        self._hold_kinds: dict[int, str] = {}
        self._looked_at = 0.0

    def started(self) -> None:
        """A new process knows nothing of what the last one was told."""
        self.read.clear()
        now = self.world.process.clock()  # a clock that was set ahead empties the budget: docs/known-flaws.md
        self.fences = [(min(at, now), host) for at, host in self.fences]
        self._waiting.clear()

    def told(self, event: Event) -> None:
        """The core takes in an event."""
        if isinstance(event, PowerRead):
            for name, power in event.states:
                self.read[(event.host, name)] = (event.asked_at, power)

    def decided(self, decisions: list[Decision]) -> None:
        """After every step."""
        if self.world.truth.twice:
            raise Violation("S1", self.world.truth.twice[0])
        for decision in decisions:
            for effect in decision.effects:
                if isinstance(effect, Order) and effect.term is None and not isinstance(effect, OrderHost):
                    raise Violation("G2", f"{type(effect).__name__} was decided without the lead")

    def recorded(self, decisions: list[Decision]) -> None:
        """A round is on disk: what is new about its incidents?"""
        for incident in [each for decision in decisions for each in decision.incidents]:
            self.counted["incidents"] = max(self.counted["incidents"], incident.id)
            kind = incident.hold.partition(":")[0]
            if kind and kind != self._hold_kinds.get(incident.id):
                self.holds[kind] += 1
                self.world.story(f"incident {incident.id}: hold {incident.hold}")
            self._hold_kinds[incident.id] = kind
            if not incident.open:
                self.allowed.discard(incident.host)

    # --- orders ---

    def leaves(self, effect: Effect) -> None:
        """An effect leaves the controller."""
        if isinstance(effect, Order):
            self.world.story(f"ORDER {effect}")
        match effect:
            case Fence():
                self._fence_leaves(effect)
            case MoveVm():
                record = self._record(effect)
                if (record.destination, record.order, record.stage) != (
                    effect.destination,
                    effect.attempt,
                    VmStage.MOVING,
                ):
                    raise Violation("D1", f"a move of VM {effect.vm} left that no record announced: {record}")
                doubt = self.doubtful.get(effect.vm)
                if doubt and doubt[0] != effect.destination and self.world.now - doubt[1] < 19.0:
                    raise Violation(
                        "D1", f"VM {effect.vm} has two destinations in play: {doubt[0]}, {effect.destination}"
                    )
                self._stands_on_a_proof(effect.incident, effect.source)
                self.doubtful[effect.vm] = (effect.destination, self.world.now)
            case ResumeVm():
                record = self._record(effect)
                if (record.order, record.stage) != (effect.attempt, VmStage.RESUMING):
                    raise Violation("D1", f"a start of VM {effect.vm} left that no record announced")
            case _:
                pass
        is_move = isinstance(effect, MoveVm | ResumeVm | Fence)
        if is_move and self.world.process.record.cloud.paused_by:
            raise Violation("G1", f"{type(effect).__name__} left although people have paused the controller")

    def _incident(self, number: int) -> Incident:
        found = self.world.process.record.incidents.get(number)
        if found is None:
            raise Violation("D1", f"an order of incident {number} left, which is not on record")
        return found

    def _record(self, effect: MoveVm | ResumeVm) -> VmRecord:
        record = self._incident(effect.incident).vm(effect.vm)
        if record is None:
            raise Violation("D1", f"an order for VM {effect.vm} left, which is not on record")
        return record

    def _fence_leaves(self, effect: Fence) -> None:
        incident, settings, now = self._incident(effect.incident), self.world.settings, self.world.now
        attempt = next((each for each in incident.attempts if each.number == effect.attempt), None)
        outcomes = (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED)
        if attempt is None or attempt.devices != effect.devices or attempt.outcome not in outcomes:
            raise Violation("D1", f"a power-off of host {effect.host} left that no record announced")
        if not effect.send:
            return
        if now - self.world.process.started_at < settings.settle_s:
            raise Violation("G1", f"host {effect.host} is powered off within the settle time")
        clock = self.world.process.clock()
        lately = {host for at, host in self.fences if clock - at < settings.fences_per_s} - {effect.host}
        if len(lately) >= settings.fences_max and effect.host not in self.allowed:
            raise Violation("G1", f"host {effect.host} is over the budget of {settings.fences_max} power-offs")
        if effect.host not in self.allowed:
            self.fences.append((clock, effect.host))
        if effect.host in self.world.executor.fencing:
            raise Violation("G1", f"host {effect.host} is powered off while another attempt is under way")
        tried = len(incident.attempts) - incident.attempts_forgiven
        if tried > len(self.world.layout.levels[effect.host]) * settings.fence_rounds_max:
            raise Violation("G1", f"attempt {tried} on host {effect.host}: more than the rounds that are allowed")

    def fence_begins(self, order: Fence) -> None:
        """A power-off is about to be sent to devices."""
        self.counted["fences"] += 1
        truth, host, now = self.world.truth, order.host, self.world.now
        since = truth.reachable_since.get(host)
        if since is not None and now - since > SEEN_S and self.world.now - self.world.process.paused_until > SEEN_S:
            self.counted["false fences"] += 1
            raise Violation("S2", f"host {host} is ordered off, and could be reached for {now - since:.0f} s")
        behind = self.world.trouble.switched_off
        if host in behind and len(behind) > 1 and truth.lives(host) and host not in self.allowed:
            self.counted["false fences"] += 1
            raise Violation("S2", f"host {host} lives behind a switch that is out, and is ordered off")
        seen = host in truth.cut_here and truth.neighbours_see(host) and truth.lives(host)
        if seen and "neighbours" in self.world.probing.channels and host not in self.allowed:
            raise Violation("S2", f"host {host} is seen alive by its neighbours, and is ordered off")

    def sent(self, host: int, machine: int) -> None:
        """An order is on its way to a device."""
        if host != machine and self.world.truth.lives(machine):
            self.counted["false fences"] += 1
            raise Violation("S2", f"the device of host {host} is wired to the healthy host {machine}, and was used")

    def lands(self, host: int, machine: int, name: str) -> None:
        """A power-off takes effect."""
        if self.world.truth.answers(machine) and self.world.process.record.open_of(host) is None:
            raise Violation("S2", f"{name} powers host {machine} off although its record is OK")

    def _stands_on_a_proof(self, number: int, source: int) -> None:
        """Every device that can be read was read since, the proving ones OFF, none ON but the outlets of a BMC."""
        incident = self._incident(number)
        if incident.proof is None or incident.fenced_at is None:
            raise Violation("S3", f"a move from host {source} left without a proof on record")
        longest_s = self.world.settings.proof_age_max_s + PROOF_SLACK_S
        readable = [device.name for device in self.world.layout.devices(incident.host) if device.proves_off]
        for name in readable:
            asked_at, power = self.read.get((incident.host, name), (0.0, PowerState.UNKNOWN))
            is_fresh = self.world.process.clock() - asked_at <= longest_s
            is_proving = name in incident.proof.devices
            feeds_only = name in (PDU_A, PDU_B) and BMC in incident.proof.devices
            is_against = power is PowerState.ON and not feeds_only
            if is_against or (is_proving and (power is not PowerState.OFF or not is_fresh)):
                raise Violation("S3", f"a move from host {incident.host} left, and {name} was last read {power.value}")

    def move_accepted(self, order: MoveVm, source: int) -> None:
        """oned has taken a move."""
        self.counted["vms moved"] += 1
        machine = self.world.truth.machines[source]
        if machine.powered and order.vm in machine.vms:
            raise Violation("S3", f"VM {order.vm} is moved from host {source}, where it lives")

    def resume_accepted(self, order: ResumeVm) -> None:
        """oned has taken a start."""
        self.counted["vms resumed"] += 1
        if self.world.truth.runs_on[order.vm]:
            raise Violation("S3", f"VM {order.vm} is started although it runs")

    def vm_reported(self, order: VmOrder, result: OrderResult) -> None:
        """An order for a VM has its answer."""
        if result is not OrderResult.UNKNOWN:
            self.doubtful.pop(order.vm, None)

    def told_people(self, tell: Tell) -> None:
        """People hear something."""
        self.world.story(f"TOLD {tell.text} | {tell.next_step}")
        self.said.append(tell.text)

    # --- waiting ---

    def look(self) -> None:
        """Does anybody wait untold, and what became of the dead?"""
        process, now = self.world.process, self.world.now
        if self.world.truth.twice:
            raise Violation("S1", self.world.truth.twice[0])
        for host, since in self.world.truth.died_at.items():
            if now - since > 60 and (host, since) not in self._died:
                self._died.add((host, since))
                self.counted["deaths"] += 1
        if not process.runs or now - process.started_at < UNTOLD_MAX_S:
            self._waiting.clear()
            return
        since_look_s, self._looked_at = now - self._looked_at, now
        if since_look_s > 10.0:  # nobody looked meanwhile, because all was calm
            self._waiting.clear()
        open_ones = {each.host: each for each in process.record.incidents.values() if each.open}
        for host in self._waiting.keys() - open_ones.keys():
            del self._waiting[host]
        for incident in open_ones.values():
            mark = (incident.id, incident.state, incident.lever, incident.attempts, incident.vms)
            known, since = self._waiting.setdefault(incident.host, (mark, now))
            if known != mark:
                self._waiting[incident.host] = (mark, now)
                continue
            is_told = incident.hold or incident.stopped or incident.held_by or incident.foreign
            if not is_told and incident.state is not HostState.RECOVERED and now - since > UNTOLD_MAX_S:
                raise Violation("L2", f"incident {incident.id} of host {incident.host} waits, and does not say why")

    def at_the_end(self) -> None:
        """Everything is healed, and everybody has had time."""
        truth, names = self.world.truth, "\n".join(self.said)
        for vm, (_, machine) in sorted(truth.lost.items()):
            known = self.world.oned.vms[vm]
            if f"{known.name} is left alone" not in names and known.name not in names:
                self.counted["vms lost"] += 1
                raise Violation("L1", f"VM {vm} was lost with host {machine}, does not run, and nobody was told")
        for incident in self.world.process.record.incidents.values():
            if incident.open:
                why = incident.hold or incident.stopped or "no reason"
                raise Violation(
                    "L2", f"incident {incident.id} of host {incident.host} ({incident.state}) does not end: {why}"
                )
        for host in range(self.world.layout.hosts):
            view = self.world.process.controller and self.world.process.controller.state.views.get(host)
            if not view or view.state is not HostState.OK:
                raise Violation("L2", f"host {host} is well and does not come back")
