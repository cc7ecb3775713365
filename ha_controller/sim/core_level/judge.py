"""The checkers: after every step, by the truth and by what was told, recorded and sent; never by the core's word.

S1 no VM runs twice. S2 nobody powers off what shows life. S3 no VM is started while its host may run it. D1 no order
without a record of it. G1 limits and budgets hold. G2 nothing without the lead. L1 every VM of a dead host has an
outcome. L2 nobody waits untold. L3 what is healed is given back, whole and clean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ha_controller.core.controller import Decision
from ha_controller.core.effects import DestroyDomain, Effect, Fence, MoveVm, Order, OrderHost, PowerOn, ResumeVm, Tell
from ha_controller.core.events import (
    Event,
    InventoryRead,
    LeadChanged,
    OrderResult,
    PowerRead,
    SettingsChanged,
    VmOrderReported,
)
from ha_controller.core.incident import AttemptOutcome, Incident, VmRecord, VmStage
from ha_controller.core.model import HostState, PowerState
from ha_controller.sim.core_level.layout import BMC, PDU_A, PDU_B

if TYPE_CHECKING:
    from ha_controller.sim.core_level.stage import Controlling, Stage

SEEN_S = 5.0  #: a host that could be reached for so long must have been heard: an order is valid for 3 s
UNTOLD_MAX_S = 400.0
PROOF_SLACK_S = 1.0
IN_PLAY_S = 19.0  #: a lost order may arrive so late


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class Ledger:
    """What the checkers note of one controller."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.read: dict[tuple[int, str], tuple[float, PowerState]] = {}  #: what the core was told of devices
        self.term: int | None = None  #: in which it was told that it leads
        self.excluded: set[int] = set()  #: hosts that it was told to keep its hands off
        self.fences: list[tuple[float, int]] = []
        self.waiting: dict[int, tuple[object, float]] = {}
        self.hold_kinds: dict[int, str] = {}
        self.fenced: set[int] = set()  #: incidents in which off was verified

    def note(self, event: PowerRead) -> None:
        """What was asked later counts, also when an older question was answered after it."""
        for name, power in event.states:
            known = self.read.get((event.host, name))
            if known is None or event.asked_at >= known[0] or power is PowerState.ON:
                self.read[(event.host, name)] = (event.asked_at, power)

    def started(self, now: float) -> None:
        """A new process knows nothing of what the last one was told."""
        self.read.clear()
        self.term = None
        # a clock that was set ahead empties the budget: docs/known-flaws.md
        self.fences = [(min(at, now), host) for at, host in self.fences]
        self.waiting.clear()


class Judge:
    """Looks at everything, and trusts nobody."""

    def __init__(self, world: Stage) -> None:
        """Nothing has happened."""
        self.world = world
        self.counted: Counter[str] = Counter()
        self.holds: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()  #: by what killed a host for a minute or more
        self.verified: Counter[str] = Counter()  #: those of them that were verified off
        self.allowed: set[int] = set()  #: hosts of which a person said that they may be powered off
        self.excused: set[int] = set()  #: VMs that were lost while a person worked on their host
        #: VM -> controller, incident, attempt of each move that may still arrive -> its destination, and when it left
        self.doubtful: defaultdict[int, dict[tuple[str, int, int], tuple[int, float]]] = defaultdict(dict)
        self.said: list[str] = []
        self._died: set[tuple[int, float]] = set()
        self._looked_at = 0.0

    def told(self, process: Controlling, event: Event) -> None:
        """A core takes in an event."""
        if isinstance(event, PowerRead):
            process.ledger.note(event)
        elif isinstance(event, InventoryRead):
            process.ledger.excluded = {host.id for host in event.hosts if host.excluded}
        elif isinstance(event, LeadChanged):
            process.ledger.term = event.term
        elif isinstance(event, SettingsChanged):
            process.settings = event.settings

    def after_a_step(self) -> None:
        """After every step."""
        if self.world.truth.twice:
            raise Violation("S1", self.world.truth.twice[0])

    def decided(self, process: Controlling, decision: Decision) -> None:
        """After every step that wants something."""
        self.after_a_step()
        for effect in decision.effects:
            if not isinstance(effect, Order):
                continue
            if effect.term != process.ledger.term or (effect.term is None and not isinstance(effect, OrderHost)):
                raise Violation("G2", f"{type(effect).__name__} was decided without the lead")

    def recorded(self, process: Controlling, decisions: list[Decision]) -> None:
        """A round is on disk: what is new about its incidents?"""
        kinds = process.ledger.hold_kinds
        for incident in [each for decision in decisions for each in decision.incidents]:
            if incident.id not in kinds:
                self.counted["incidents"] += 1
            kind = incident.hold.partition(":")[0]
            if kind and kind != kinds.get(incident.id):
                self.holds[kind] += 1
                self.world.story(f"{process.name}, incident {incident.id}: hold {incident.hold}")
            kinds[incident.id] = kind
            if incident.fenced_at is not None and incident.id not in process.ledger.fenced:
                process.ledger.fenced.add(incident.id)
                self.verified[self.world.trouble.cause_of(incident.host)] += 1
            if not incident.open:
                self.allowed.discard(incident.host)

    # --- orders ---

    def leaves(self, process: Controlling, effect: Effect) -> None:
        """An effect leaves a controller."""
        if isinstance(effect, Order):
            self.world.story(f"ORDER of {process.name}: {effect}")
        match effect:
            case Fence():
                self._fence_leaves(process, effect)
            case MoveVm():
                self._move_leaves(process, effect)
            case ResumeVm():
                record = self._record(process, effect)
                if (record.order, record.stage) != (effect.attempt, VmStage.RESUMING):
                    raise Violation("D1", f"a start of VM {effect.vm} left that no record announced")
            case _:
                return
        incident, what = self._incident(process, effect.incident), type(effect).__name__
        if process.record.cloud.paused_by:
            raise Violation("G1", f"{what} left although people have paused the controller")
        if incident.held_by:
            raise Violation("G1", f"{what} left although people hold incident {incident.id}")
        if incident.host in process.ledger.excluded:
            raise Violation("G1", f"{what} left although host {incident.host} is in maintenance")

    def _move_leaves(self, process: Controlling, order: MoveVm) -> None:
        record = self._record(process, order)
        if (record.destination, record.order, record.stage) != (order.destination, order.attempt, VmStage.MOVING):
            raise Violation("D1", f"a move of VM {order.vm} left that no record announced: {record}")
        for destination, left_at in self.doubtful[order.vm].values():
            if destination != order.destination and self.world.now - left_at < IN_PLAY_S:
                raise Violation("D1", f"VM {order.vm} has two destinations in play: {destination}, {order.destination}")
        if process.clock() <= order.not_after:  # nobody carries it out later
            self._stands_on_a_proof(process, order.incident, order.source)
        self.doubtful[order.vm][process.name, order.incident, order.attempt] = (order.destination, self.world.now)

    def _incident(self, process: Controlling, number: int) -> Incident:
        found = process.record.incidents.get(number)
        if found is None:
            raise Violation("D1", f"an order of incident {number} left, which is not on record")
        return found

    def _record(self, process: Controlling, effect: MoveVm | ResumeVm) -> VmRecord:
        record = self._incident(process, effect.incident).vm(effect.vm)
        if record is None:
            raise Violation("D1", f"an order for VM {effect.vm} left, which is not on record")
        return record

    def _fence_leaves(self, process: Controlling, effect: Fence) -> None:
        incident, settings, now = self._incident(process, effect.incident), process.settings, self.world.now
        attempt = next((each for each in incident.attempts if each.number == effect.attempt), None)
        outcomes = (AttemptOutcome.ORDERED, AttemptOutcome.ACCEPTED)
        if attempt is None or attempt.devices != effect.devices or attempt.outcome not in outcomes:
            raise Violation("D1", f"a power-off of host {effect.host} left that no record announced")
        if not effect.send:
            return
        if now - process.started_at < settings.settle_s:
            raise Violation("G1", f"host {effect.host} is powered off within the settle time")
        clock, fences = process.clock(), process.ledger.fences
        lately = {host for at, host in fences if clock - at < settings.fences_per_s} - {effect.host}
        lately |= self._powered_off_by_others(process, settings.fences_per_s) - {effect.host}
        if len(lately) >= settings.fences_max and effect.host not in self.allowed:
            raise Violation("G1", f"host {effect.host} is over the budget of {settings.fences_max} power-offs")
        if effect.host not in self.allowed:
            fences.append((clock, effect.host))
        if effect.host in process.executor.fencing:
            raise Violation("G1", f"host {effect.host} is powered off while another attempt is under way")
        tried = len(incident.attempts) - incident.attempts_forgiven
        if tried > len(self.world.layout.levels[effect.host]) * settings.fence_rounds_max:
            raise Violation("G1", f"attempt {tried} on host {effect.host}: more than the rounds that are allowed")

    def _powered_off_by_others(self, process: Controlling, within_s: float) -> set[int]:
        """Hosts whose power-offs by other controllers count as ours do: none, where each has a record of its own."""
        del process, within_s
        return set()

    def fence_begins(self, process: Controlling, order: Fence) -> None:
        """A power-off is about to be sent to devices."""
        self.counted["fences"] += 1
        truth, host, now = self.world.truth, order.host, self.world.now
        since = self._known_since(process, host)
        if since is not None and now - since > SEEN_S and now - process.paused_until > SEEN_S:
            self.counted["false fences"] += 1
            raise Violation("S2", f"host {host} is ordered off, and could be reached for {now - since:.0f} s")
        behind = self.world.trouble.switched_off
        if host in behind and len(behind) > 1 and truth.lives(host) and host not in self.allowed:
            self.counted["false fences"] += 1
            raise Violation("S2", f"host {host} lives behind a switch that is out, and is ordered off")
        if truth.machines[host].frozen and truth.kernel_answers(host) and host not in self.allowed:
            raise Violation("S2", f"the kernel of host {host} answers, nobody has approved, and it is ordered off")
        seen = host in truth.cut_here and truth.neighbours_see(host) and truth.lives(host)
        if seen and "neighbours" in process.probing.channels and host not in self.allowed:
            raise Violation("S2", f"host {host} is seen alive by its neighbours, and is ordered off")
        if host not in self.allowed and truth.beats_seen_for(host) > SEEN_S and "storage" in process.probing.channels:
            raise Violation("S2", f"host {host} writes its heartbeat, and is ordered off")

        self._no_storm(process, host)

    def _known_since(self, process: Controlling, host: int) -> float | None:
        """Since when a controller must hear of a host's life without a gap; None: it need not."""
        del process
        return self.world.truth.reachable_since.get(host)

    def _no_storm(self, process: Controlling, host: int) -> None:
        """What is silent for so long is known to be silent, and counted, unless the process stood still."""
        now, hosts = self.world.now, self.world.layout.hosts
        silent = [
            each
            for each, since in self.world.truth.silent_since.items()
            if now - max(since, process.paused_until, process.started_at) > 2 * SEEN_S
            and each not in process.ledger.excluded
        ]
        is_storm = len(silent) > 1 and len(silent) > process.settings.max_failed_share * hosts
        if is_storm and host not in self.allowed:
            raise Violation("G1", f"host {host} is ordered off while {len(silent)} of {hosts} hosts are silent")

    def sent(self, host: int, machine: int) -> None:
        """An order is on its way to a device."""
        if host != machine and self.world.truth.lives(machine):
            self.counted["false fences"] += 1
            raise Violation("S2", f"the device of host {host} is wired to the healthy host {machine}, and was used")

    def lands(self, host: int, machine: int, name: str) -> None:
        """A power-off takes effect."""
        records = [process.record.open_of(host) for process in self.world.controllers]
        if self.world.truth.answers(machine) and not any(records):
            raise Violation("S2", f"{name} powers host {machine} off although its record is OK")

    def _stands_on_a_proof(self, process: Controlling, number: int, source: int) -> None:
        """Every device that can be read was read since, the proving ones OFF, none ON but the outlets of a BMC."""
        incident = self._incident(process, number)
        if incident.proof is None or incident.fenced_at is None:
            raise Violation("S3", f"a move from host {source} left without a proof on record")
        longest_s = process.settings.proof_age_max_s + PROOF_SLACK_S
        readable = [device.name for device in self.world.layout.devices(incident.host) if device.proves_off]
        for name in readable:
            asked_at, power = process.ledger.read.get((incident.host, name), (0.0, PowerState.UNKNOWN))
            is_fresh = process.clock() - asked_at <= longest_s
            is_proving = name in incident.proof.devices
            feeds_only = name in (PDU_A, PDU_B) and BMC in incident.proof.devices
            is_against = power is PowerState.ON and not feeds_only
            if is_against or (is_proving and (power is not PowerState.OFF or not is_fresh)):
                raise Violation("S3", f"a move from host {incident.host} left, and {name} was last read {power.value}")

    def move_accepted(self, vm: int, source: int, destination: int) -> None:
        """oned has taken a move: the newest of those that lead there, which does not arrive once more."""
        self.counted["vms moved"] += 1
        arrived = [order for order, (leads_to, _) in self.doubtful[vm].items() if leads_to == destination]
        if arrived:
            del self.doubtful[vm][arrived[-1]]
        machine = self.world.truth.machines[source]
        if machine.powered and vm in machine.vms:
            raise Violation("S3", f"VM {vm} is moved from host {source}, where it lives")

    def resume_accepted(self, vm: int) -> None:
        """oned has taken a start."""
        self.counted["vms resumed"] += 1
        if self.world.truth.runs_on[vm]:
            raise Violation("S3", f"VM {vm} is started although it runs")

    def vm_reported(self, process: Controlling, event: VmOrderReported) -> None:
        """An order for a VM has its answer."""
        if event.result is not OrderResult.UNKNOWN:
            self.doubtful[event.vm].pop((process.name, event.incident, event.attempt), None)

    def powers_on(self, process: Controlling, order: PowerOn) -> None:
        """A host is powered on by us."""
        self.counted["hosts powered on"] += 1
        incident = self._incident(process, order.incident)
        if incident.state is not HostState.RECOVERED or incident.powered_on_at is None:
            raise Violation("D1", f"host {order.host} is powered on while its incident is {incident.state}")

    def destroys(self, order: DestroyDomain) -> None:
        """A domain is about to be ended."""
        self.counted["leftovers destroyed"] += 1
        if order.vm in self.world.truth.machines[order.host].vms:
            raise Violation("S3", f"VM {order.vm} is destroyed on host {order.host}, where it runs")

    def given_back(self, host: int) -> None:
        """OpenNebula may use a host again."""
        self.counted["hosts given back"] += 1
        if strays := self.world.truth.strays.get(host):
            raise Violation("L3", f"host {host} is given back with the domains of VMs {sorted(strays)} still on it")
        if host in self.world.devices.san_cut:
            raise Violation("L3", f"host {host} is given back, and is still cut off from its storage")

    def told_people(self, tell: Tell) -> None:
        """People hear something."""
        self.world.story(f"TOLD {tell.text} | {tell.next_step}")
        self.said.append(tell.text)

    # --- waiting ---

    def look(self) -> None:
        """Does anybody wait untold, and what became of the dead?"""
        now = self.world.now
        self.after_a_step()
        for host, since in self.world.truth.died_at.items():
            if now - since > 60 and (host, since) not in self._died:
                self._died.add((host, since))
                self.counted["deaths"] += 1
                self.deaths[self.world.trouble.cause_of(host)] += 1
        is_new = now - self._looked_at > 310.0  # nobody looked meanwhile, because all was calm
        self._looked_at = now
        for process in self.world.controllers:
            if is_new or not process.runs or now - process.started_at < UNTOLD_MAX_S:
                process.ledger.waiting.clear()
            else:
                self._look_at(process, now)

    def _look_at(self, process: Controlling, now: float) -> None:
        waiting = process.ledger.waiting
        open_ones = {each.host: each for each in process.record.incidents.values() if each.open}
        for host in waiting.keys() - open_ones.keys():
            del waiting[host]
        for incident in open_ones.values():
            mark = (incident.id, incident.state, incident.lever, incident.attempts, incident.vms)
            known, since = waiting.setdefault(incident.host, (mark, now))
            is_told = incident.hold or incident.stopped or incident.held_by or incident.foreign
            if known != mark or is_told or incident.state is HostState.RECOVERED:
                waiting[incident.host] = (mark, now)
            elif now - since > UNTOLD_MAX_S:
                raise Violation("L2", f"incident {incident.id} of host {incident.host} waits, and does not say why")

    def at_the_end(self) -> None:
        """Everything is healed, and everybody has had time."""
        truth, names = self.world.truth, "\n".join(self.said)
        for vm, (_, machine) in sorted(truth.lost.items()):
            name = self.world.oned.vms[vm].name
            if vm not in self.excused and name not in names:
                self.counted["vms lost"] += 1
                raise Violation("L1", f"VM {vm} was lost with host {machine}, does not run, and nobody was told")
        leader = self.world.arbiter.leader
        if leader is None or leader.controller is None:
            raise Violation("L2", "nobody leads")
        for incident in leader.record.incidents.values():
            if incident.open:
                why = incident.hold or incident.stopped or "no reason"
                raise Violation(
                    "L2", f"incident {incident.id} of host {incident.host} ({incident.state}) does not end: {why}"
                )
        for host in range(self.world.layout.hosts):
            view = leader.controller.state.views.get(host)
            if not view or view.state is not HostState.OK:
                raise Violation("L3", f"host {host} is well and does not come back")
