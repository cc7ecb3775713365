"""The incident protocol as guarded steps: a host with a VM, its BMC, OpenNebula, two controllers, each with its record.

A step is named like the function of the code that does it, or says what the world does. A tick is the only measure of
time (about five seconds): whoever does nothing for some ticks is slow, paused or frozen. An order and its effect are
two steps, with ticks between them, in which its sender may die, lose the lead, or be followed by another one.

`Rules` are the right ones; each variant switches one off. What is left out stands in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protocol_model.checker import Step

# --- time, in ticks ---
VALID = 1  #: an order leaves within this after it was decided, or never
IN_FLIGHT = 1  #: and has its effect within this after it left, or never
PROOF_AGE = 1  #: a reading of power is fresh for so long
SETTLE = 3  #: a new leader powers nothing off: longer than VALID and IN_FLIGHT of the one before
REPEAT = 3  #: a move without a sign of it is ordered again: longer than both, too
REJOIN = 3  #: a host answers for so long before it is given back
BOOT = 4  #: from the power button to a host on which a VM can run: longer than PROOF_AGE, VALID and IN_FLIGHT
OLD = 2  #: where ages stop counting
ONCE, APART, FENCE = (
    3,
    4,
    5,
)  #: instead of an age: OFF was read once after a gap, in this tick; in the one before; by the fence
PROOF_LATER = {0: 1, 1: OLD, OLD: OLD, ONCE: APART, APART: OLD, FENCE: APART}

A, B, C = 0, 1, 2  #: the host, and two that may take its VM
NAMES = "ABC"
RUNNING, UNKNOWN, POWEROFF, BOOTING = "RUNNING", "UNKNOWN", "POWEROFF", "BOOT"  #: the VM, as OpenNebula shows it


class Record(NamedTuple):
    """What one controller has on disk, and what it has in mind: both end differently in a crash."""

    phase: str = "OK"  #: on disk; OK, FAILED, OFF_READ, FENCED, RECOVERED, or STOPPED: waits for a person, who was told
    destination: int = 0  #: on disk; 0: none is chosen
    foreign: bool = False  #: on disk: another one may have acted, a person has to say "go on"
    seen: bool = True  #: on disk: the host showed life since the lead was taken
    term: int = 0  #: in which it believes to lead; 0: it does not
    settle: int = 0
    wait: int = 0  #: until an order without a sign of it may be repeated
    proof: int = OLD  #: age of the last reading of OFF after the proof, or what there is instead
    unshared: bool = False  #: on disk here, and not yet on the shared record: the decision loop waits
    doing: str = ""  #: how far the executor is with an order
    age: int = 0  #: of that order; of its end, once it was sent


class Order(NamedTuple):
    """On its way, by one controller in one term."""

    kind: str  #: "off" or "move"
    destination: int
    sender: int
    term: int
    left: int  #: ticks


class Faults(NamedTuple):
    """How often each may still happen."""

    power_cut: int = 0
    silence: int = 0  #: the host lives and does not answer: frozen, or cut off
    power_on: int = 0  #: by a person
    ignored: int = 0  #: the BMC acknowledges and does nothing
    stale: int = 0  #: the BMC restarts and reads OFF until it has looked
    crash: int = 0  #: of a controller
    lead_lost: int = 0  #: while the leader lives: frozen, or cut off from the engine
    hiccup: int = 0  #: OpenNebula does not hear of a VM that runs at its destination


class World(NamedTuple):
    """All of it."""

    faults: Faults
    power: bool = True
    silent: bool = False
    boot: int = 0  #: ticks until a host that was powered on is up
    answered: int = 0  #: ticks for which it has answered, up to REJOIN
    reads_on: bool = True  #: what its BMC reads
    runs: frozenset[int] = frozenset({A})  #: where a process of the VM is
    place: int = A  #: where OpenNebula believes the VM
    shown: str = RUNNING
    orders: tuple[Order, ...] = ()
    holder: int = 0  #: whom the engine holds for the leader; 0: nobody
    term: int = 0
    led_last: int = 0
    sent_term: int = 0  #: the highest term in which an order left
    sent_by: int = 0  #: and whose it was
    first: Record = Record()
    second: Record = Record()
    shared: tuple[str, int] = ("OK", 0)  #: phase and destination on the shared record
    known_to: frozenset[int] = frozenset({1, 2})  #: who has read or written what is there

    @property
    def answers(self) -> bool:
        """Whether a probe of host A is answered."""
        return self.power and not self.silent and not self.boot

    def record(self, who: int) -> Record:
        """Of controller 1 or 2."""
        return self.first if who == 1 else self.second

    def having(self, who: int, record: Record, **changes: object) -> World:
        """The same world after a step of one controller."""
        return self._replace(**{"first" if who == 1 else "second": record, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All true: the protocol. One of them false: a naive variant of it."""

    order_is_read_back: bool = True
    off_is_read_twice: bool = True
    off_is_always_sent: bool = True
    unverified_goes_on: bool = True
    proof_is_read_again: bool = True
    gap_is_bridged_by_two: bool = True
    orders_expire: bool = True
    age_counts_from_the_question: bool = True
    record_comes_first: bool = True
    record_survives: bool = True
    lead_is_proven: bool = True
    new_leader_settles: bool = True
    takeover_asks: bool = True
    vm_is_looked_at: bool = True
    destination_is_kept: bool = True
    restart_waits: bool = True
    running_is_seen: bool = True
    outcome_comes_first: bool = True
    release_waits: bool = True
    # of the shared record
    record_is_shared: bool = False
    shared_comes_first: bool = True
    shared_compares_term: bool = True
    takeover_reads: bool = True
    # what the protocol relies on: false is a world that is worse than it was made for
    calls_end: bool = True
    hosts_start_nothing: bool = True


Steps = Iterator[Step[World]]


class Protocol:
    """The steps from a world, by the given rules."""

    def __init__(self, rules: Rules) -> None:
        """Nothing is kept but the rules."""
        self.rules = rules

    def steps(self, world: World) -> Steps:
        """Everything that may happen next."""
        if not self.rules.record_is_shared:
            yield from self.each_step(world)
            return
        for told, after, broken in self.each_step(world):
            yield told, _noted(world, after), broken
        for who in (1, 2):
            yield from self.shares(world, who)

    def each_step(self, world: World) -> Steps:
        """Everything but the writing of the shared record."""
        yield "time passes", self.tick(world), ""
        yield from self.world_goes_on(world)
        for index, order in enumerate(world.orders):
            yield from self.arrives(world._replace(orders=world.orders[:index] + world.orders[index + 1 :]), order)
        for who in (1, 2):
            yield from self.leads(world, who)
            if world.record(who).unshared and self.rules.shared_comes_first:
                continue
            yield from self.fences(world, who)
            yield from self.moves(world, who)
            yield from self.is_told(world, who)

    # --- the world ---

    def tick(self, world: World) -> World:
        """Every age and every deadline goes on; the BMC looks at the power."""
        answered = min(REJOIN, world.answered + 1) if world.answers else 0

        def later(record: Record) -> Record:
            return record._replace(
                seen=record.seen or world.answers,
                settle=max(0, record.settle - 1),
                wait=max(0, record.wait - 1),
                proof=PROOF_LATER[record.proof],
                age=min(OLD, record.age + 1) if record.doing else 0,
            )

        return world._replace(
            boot=max(0, world.boot - 1),
            answered=answered,
            reads_on=world.power,
            orders=tuple(order._replace(left=order.left - 1) for order in world.orders if order.left)
            if self.rules.calls_end
            else world.orders,
            first=later(world.first),
            second=later(world.second),
        )

    def world_goes_on(self, world: World) -> Steps:
        """Faults, people, and OpenNebula by itself."""
        left = world.faults
        if left.power_cut and world.power:
            yield "A loses its power", _off(world)._replace(faults=left._replace(power_cut=left.power_cut - 1)), ""
        if left.silence and world.answers:
            spent = left._replace(silence=left.silence - 1)
            yield "A falls silent and lives", world._replace(silent=True, answered=0, faults=spent), ""
        if world.silent:
            yield "A answers again", world._replace(silent=False), ""
        if left.power_on and not world.power:
            spent = left._replace(power_on=left.power_on - 1)
            yield "a person powers A on", world._replace(power=True, boot=BOOT, faults=spent), ""
        is_up = world.power and not world.boot and A not in world.runs
        if is_up and world.place == A and not world.runs and world.shown != RUNNING:
            yield "a person starts the VM on A by hand", world._replace(runs=frozenset({A})), ""
        if is_up and not self.rules.hosts_start_nothing:
            yield "A starts by itself the VM it had", world._replace(runs=world.runs | {A}), ""
        if left.stale and world.reads_on:
            spent = left._replace(stale=left.stale - 1)
            yield (
                "the BMC restarts, and reads OFF until it has looked",
                world._replace(reads_on=False, faults=spent),
                "",
            )
        if left.hiccup and world.place != A and world.shown == RUNNING:
            spent = left._replace(hiccup=left.hiccup - 1)
            yield (
                f"OpenNebula hears nothing of the VM on {NAMES[world.place]}: UNKNOWN",
                world._replace(shown=UNKNOWN, faults=spent),
                "",
            )
        if world.place != A and world.shown == UNKNOWN:
            yield "OpenNebula hears of the VM again", world._replace(shown=RUNNING), ""
        if world.shown == BOOTING:
            runs = world.runs | {world.place}
            yield f"the VM boots on {NAMES[world.place]}", world._replace(shown=RUNNING, runs=runs), ""
        if world.place == A and world.shown == RUNNING and not world.answers:
            yield "OpenNebula misses A (lever.pull): the VM is UNKNOWN", world._replace(shown=UNKNOWN), ""
        hears = RUNNING if A in world.runs else POWEROFF
        if world.place == A and world.answers and world.shown != hears:
            yield f"OpenNebula hears of A: the VM is {hears}", world._replace(shown=hears), ""

    def arrives(self, world: World, order: Order) -> Steps:
        """An order has its effect, late or not. Whether its answer is lost makes no difference: only looks count."""
        record = world.record(order.sender)
        on_record = [(record.phase, record.destination)] + [world.shared] * self.rules.record_is_shared
        announced = all(phase != "OK" and order.destination in (0, chosen) for phase, chosen in on_record)
        broken = "" if announced else "D1"
        broken = broken or ("G2" if order.term < world.sent_term and order.sender != world.sent_by else "")
        whose = f"of C{order.sender}, term {order.term},"
        if order.kind == "off":
            if not self.rules.order_is_read_back and record.doing == "off sent":
                world = world.having(order.sender, record._replace(phase="FENCED", proof=0, doing=""))
            if world.power:
                broken = broken or ("S2" if world.answered >= REJOIN else "")
                yield f"the OFF {whose} takes effect", _off(world), broken
            left = world.faults
            if left.ignored and world.power:
                spent = left._replace(ignored=left.ignored - 1)
                yield f"the OFF {whose} is acknowledged and ignored", world._replace(faults=spent), ""
            return
        told = f"OpenNebula accepts the move {whose} to {NAMES[order.destination]}"
        if world.place == order.destination or world.shown == BOOTING:
            return
        if world.place == A:
            broken = broken or ("S3" if world.power and A in world.runs else "")
            if world.shown != RUNNING or broken:
                yield told, world._replace(place=order.destination, shown=BOOTING), broken
        elif world.shown == UNKNOWN:
            yield told, world._replace(place=order.destination, shown=BOOTING), broken
        else:
            yield f"{told}, live", world._replace(place=order.destination, runs=frozenset({order.destination})), broken

    # --- the lead ---

    def leads(self, world: World, who: int) -> Steps:
        """Taking the lead, losing it, and being killed."""
        record, left, me = world.record(who), world.faults, f"C{who}"
        if record.term == 0 and world.holder == 0 and (world.led_last or who == 1):  # both are alike: 1 is who began
            term = world.term + 1
            if self.rules.record_is_shared:
                yield self.takes_over(world, who, term)
                return
            inherits = self.rules.takeover_asks and world.led_last not in (0, who)
            yield (
                f"{me} takes the lead, term {term} (takeover.lead_changed)",
                world.having(
                    who,
                    record._replace(
                        term=term,
                        settle=SETTLE if self.rules.new_leader_settles else 0,
                        foreign=record.foreign or (inherits and record.phase != "OK"),
                        seen=(record.seen or not world.led_last or world.led_last == who) and not inherits,
                    ),
                    holder=who,
                    term=term,
                    led_last=who,
                ),
                "",
            )
        if world.holder == who and record.term == 0:
            yield f"the lease of {me} ends", world._replace(holder=0), ""
        if left.lead_lost and world.holder == who and record.term == world.term:
            spent = left._replace(lead_lost=left.lead_lost - 1)
            yield f"the lease of {me} ends, which does not know", world._replace(holder=0, faults=spent), ""
        if record.term and not _leads(world, who):
            yield (
                f"{me} learns that it does not lead (Leadership._lose)",
                world.having(who, record._replace(term=0, doing="", age=0)),
                "",
            )
        if left.crash and (record.phase != "OK" or record.doing):
            after = record if self.rules.record_survives else Record()
            wait = REPEAT if after.destination and self.rules.restart_waits else 0
            after = after._replace(term=0, settle=0, wait=wait, proof=OLD, doing="", age=0)
            spent = left._replace(crash=left.crash - 1)
            yield f"{me} is killed and starts again (Controller.resume)", world.having(who, after, faults=spent), ""

    # --- the shared record ---

    def takes_over(self, world: World, who: int, term: int) -> Step[World]:
        """The record is read before anything is decided, and gone on from as after a restart."""
        (phase, destination), known_to = world.shared, world.known_to | {who}
        record = world.record(who)
        if not self.rules.takeover_reads:
            phase, destination, known_to = record.phase, record.destination, world.known_to
        settle = SETTLE if self.rules.new_leader_settles else 0
        wait = REPEAT if destination and self.rules.restart_waits else 0
        after = Record(phase=phase, destination=destination, term=term, settle=settle, wait=wait)
        changes: dict[str, object] = {"holder": who, "term": term, "led_last": who, "known_to": known_to}
        told = f"C{who} takes the lead, term {term}, and reads the record (handover.take_over)"
        return told, world.having(who, after, **changes), ""

    def shares(self, world: World, who: int) -> Steps:
        """One transaction: it is taken in while the lead is held, and otherwise the lead is given up."""
        record, me, left = world.record(who), f"C{who}", world.faults
        if not record.unshared:
            return
        given_up = record._replace(unshared=False, term=0, doing="", age=0)
        if not _leads(world, who) and self.rules.shared_compares_term:
            told = f"{me}: nothing is taken in, it does not lead (SharedLedger.commit)"
            yield told, world.having(who, given_up), ""
            return
        broken = "" if who in world.known_to else "D2"
        on_it: dict[str, object] = {
            "shared": (record.phase, record.destination), "known_to": frozenset({who})
        }  # fmt: skip
        done = record._replace(unshared=False)
        yield f"{me}: it is on the shared record (SharedLedger.commit)", world.having(who, done, **on_it), broken
        if left.lead_lost:
            spent = left._replace(lead_lost=left.lead_lost - 1)
            told = f"{me}: it is on the shared record, and the answer is lost (SharedLedger.commit)"
            yield told, world.having(who, given_up, faults=spent, **on_it), broken

    # --- fence and verify ---

    def fences(self, world: World, who: int) -> Steps:
        """From silence to a host that is verified off."""
        record, me = world.record(who), f"C{who}"
        may_decide = record.term and not record.settle and not record.doing and not world.answers
        if may_decide and record.phase == "OK" and not record.seen:
            yield (
                f"{me}: A is silent since the take-over: a person is asked (takeover.why_foreign)",
                world.having(who, record._replace(phase="FAILED", foreign=True)),
                "",
            )
        elif may_decide and record.phase in ("OK", "FAILED") and not record.foreign:
            yield from self.orders_off(world, who)
        if record.phase == "FAILED" and world.answers and not record.doing:
            yield (
                f"{me}: A is alive after a power-off (fencing._alive_again)",
                world.having(who, record._replace(phase="STOPPED")),
                "",
            )
        if record.doing == "off" and (_leads(world, who) or not self.rules.lead_is_proven):
            yield f"{me}: its lead is proven (Leadership.may_act)", world.having(who, self.proven(record)), ""
        if record.doing == "off proven":
            order = Order("off", 0, who, record.term, IN_FLIGHT)
            yield from self.sends(world, who, order, record._replace(doing="off sent"))
        if record.doing.startswith("off "):
            yield from self.reads_back(world, who)
        if record.phase == "OFF_READ":
            yield from self.confirms(world, who)

    def orders_off(self, world: World, who: int) -> Steps:
        """The incident and the attempt go on record, then the executor has its order."""
        record, me = world.record(who), f"C{who}"
        if not self.rules.off_is_always_sent and not world.reads_on:
            yield f"{me}: the BMC reads OFF already", world.having(who, record._replace(phase="OFF_READ", proof=0)), ""
            return
        phase = "FAILED" if self.rules.record_comes_first else record.phase
        yield (
            f"{me}: A is silent; on record, then ordered off (fencing._order_power_off)",
            world.having(who, record._replace(phase=phase, doing="off", age=0)),
            "",
        )

    def proven(self, record: Record) -> Record:
        """The lead was proven. The age of what it allows has counted since before the question."""
        age = record.age if self.rules.age_counts_from_the_question else 0
        return record._replace(doing=f"{record.doing.split()[0]} proven", age=age)

    def sends(self, world: World, who: int, order: Order, after: Record) -> Steps:
        """The order leaves, unless its time is over."""
        me, record = f"C{who}", world.record(who)
        if record.age > VALID and self.rules.orders_expire:
            yield f"{me}: too late, nothing is sent", world.having(who, record._replace(doing="", age=0)), ""
            return
        what = "OFF" if order.kind == "off" else f"the move to {NAMES[order.destination]}"
        yield (
            f"{me} sends {what}",
            world.having(
                who,
                after._replace(age=0),
                orders=tuple(sorted((*world.orders, order))),
                sent_term=max(world.sent_term, order.term),
                sent_by=who if order.term >= world.sent_term else world.sent_by,
            ),
            "",
        )

    def reads_back(self, world: World, who: int) -> Steps:
        """OFF twice, the second one after the BMC has looked since the end of the order; else it is not verified."""
        record, me = world.record(who), f"C{who}"
        if record.phase == "OK" and record.doing != "off proven":  # only where the record comes late
            yield f"{me}: on record now", world.having(who, record._replace(phase="FAILED")), ""
            return
        if record.doing == "off sent" and not world.reads_on and self.rules.off_is_read_twice:
            yield f"{me} reads OFF (Switch._read_back)", world.having(who, record._replace(doing="off once", age=0)), ""
        is_due = record.age == 1 if self.rules.off_is_read_twice else True  # later the device's time is over
        last = "off once" if self.rules.off_is_read_twice else "off sent"
        if record.doing == last and is_due and not world.reads_on:
            done = record._replace(phase="OFF_READ", doing="", age=0, proof=FENCE)
            yield f"{me} has read OFF as often as it asks for (Switch._read_back)", world.having(who, done), ""
        if record.age >= OLD:
            phase = record.phase if self.rules.unverified_goes_on else "FORGOTTEN"
            yield (
                f"{me}: not verified (fencing.reported)",
                world.having(who, record._replace(phase=phase, doing="", age=0)),
                "",
            )

    def confirms(self, world: World, who: int) -> Steps:
        """Off was read; what answers since voids it."""
        record, me = world.record(who), f"C{who}"
        if world.answers:
            yield (
                f"{me}: A answers, the device lies (fencing._confirm_off)",
                world.having(who, record._replace(phase="STOPPED")),
                "",
            )
        else:
            yield (
                f"{me}: A is FENCED, with its proof on record (fencing.off_is_verified)",
                world.having(who, record._replace(phase="FENCED")),
                "",
            )

    # --- move ---

    def moves(self, world: World, who: int) -> Steps:
        """From FENCED to a VM that was seen running elsewhere."""
        record, me = world.record(who), f"C{who}"
        if record.phase == "FENCED" and record.term and not record.foreign:
            if world.answers:
                yield (
                    f"{me}: A answers, the proof is void (lever.life_stops)",
                    world.having(who, record._replace(phase="STOPPED", proof=OLD)),
                    "",
                )
            elif world.reads_on:
                yield (
                    f"{me}: the BMC reads ON, everything stops (lever.proof_is_fresh)",
                    world.having(who, record._replace(phase="STOPPED", proof=OLD)),
                    "",
                )
            elif record.proof == OLD and self.rules.gap_is_bridged_by_two:
                yield (
                    f"{me} reads OFF, the first time after a gap (lever.proof_is_fresh)",
                    world.having(who, record._replace(proof=ONCE)),
                    "",
                )
            elif record.proof not in (0, ONCE):
                yield (
                    f"{me} reads OFF once more (lever.proof_is_fresh)",
                    world.having(who, record._replace(proof=0)),
                    "",
                )
            is_done = world.shown == RUNNING or (world.shown == BOOTING and not self.rules.running_is_seen)
            if world.place != A and is_done and not record.doing:
                runs = world.place in world.runs
                yield (
                    f"{me}: the VM has its outcome, RECOVERED (moving._recovered)",
                    world.having(who, record._replace(phase="RECOVERED")),
                    "" if runs else "L0",
                )
            yield from self.orders_move(world, who)
        if record.doing == "move":
            yield from self.looks(world, who)
        if record.doing == "move looked" and (_leads(world, who) or not self.rules.lead_is_proven):
            yield f"{me}: its lead is proven (Leadership.may_act)", world.having(who, self.proven(record)), ""
        if record.doing == "move proven":
            order = Order("move", record.destination, who, record.term, IN_FLIGHT)
            yield from self.sends(world, who, order, record._replace(doing=""))

    def orders_move(self, world: World, who: int) -> Steps:
        """The destination goes on record and stays there while an earlier order may arrive."""
        record, me = world.record(who), f"C{who}"
        is_fresh = record.proof <= PROOF_AGE or not self.rules.proof_is_read_again
        is_here = world.place == A and world.shown != RUNNING
        if world.answers or record.doing or not is_fresh or not (is_here or not self.rules.vm_is_looked_at):
            return
        age = record.proof if self.rules.proof_is_read_again else 0  # it ends with the proof (lever.proven_until)
        if record.wait and (self.rules.destination_is_kept or not record.destination):
            return
        for destination in (B, C) if record.destination else (B,):  # both are alike: B is the first that was chosen
            yield (
                f"{me}: {NAMES[destination]} is on record, then the move is ordered (moving._migrate)",
                world.having(who, record._replace(destination=destination, doing="move", age=age, wait=REPEAT)),
                "",
            )

    def looks(self, world: World, who: int) -> Steps:
        """The VM is read right before the order leaves."""
        record, me = world.record(who), f"C{who}"
        if (world.place == A and world.shown != RUNNING) or not self.rules.vm_is_looked_at:
            yield (
                f"{me} looks: the VM is still there (Recoverer._order_vm)",
                world.having(who, record._replace(doing="move looked")),
                "",
            )
        else:
            yield (
                f"{me} looks: the VM is not as decided, nothing is sent (vms.not_as_decided)",
                world.having(who, record._replace(doing="", age=0)),
                "",
            )

    # --- people ---

    def is_told(self, world: World, who: int) -> Steps:
        """What a person says to a controller, after a look at the host and at the other controller's journal."""
        record, other = world.record(who), 3 - who
        if self.rules.record_is_shared and not record.term:
            return  # refused (commands.obey)
        is_quiet = not world.record(other).doing and not any(order.sender == other for order in world.orders)
        if record.foreign and record.term and is_quiet and not world.answers:
            yield (
                f"a person has looked: C{who} may go on (commands._release)",
                world.having(who, record._replace(foreign=False, seen=True)),
                "",
            )
        if record.phase == "STOPPED" and not world.answers and not record.doing:
            yield (
                f"a person releases A to C{who}: a new round (commands._release)",
                world.having(who, record._replace(phase="FAILED")),
                "",
            )
        has_outcome = record.phase in ("RECOVERED", "STOPPED") or not self.rules.outcome_comes_first
        answered = world.answered >= REJOIN or (world.answers and not self.rules.release_waits)
        if record.phase != "OK" and has_outcome and answered and not record.doing.startswith("off"):
            is_lost = record.phase == "FENCED"
            yield (
                f"a person gives A back to C{who} (rejoin.unfence)",
                world.having(who, record._replace(phase="OK", destination=0, foreign=False, wait=0, proof=OLD)),
                "L0" if is_lost else "",
            )


def broken(world: World) -> str:
    """The invariant that a state breaks by itself."""
    return "S1" if len(world.runs) > 1 else ""


def has_outcome(world: World) -> bool:
    """The VM runs where OpenNebula shows it, and nothing is left to do for the controller that leads."""
    runs = world.shown == RUNNING and world.place in world.runs and (world.place != A or world.answers)
    return runs and world.holder > 0 and world.record(world.holder).phase in ("OK", "RECOVERED", "STOPPED")


def _noted(before: World, after: World) -> World:
    """What a leader has put on its own record waits for the shared one; what another one changes is its own."""
    for who in (1, 2):
        was, now = before.record(who), after.record(who)
        took = now.term != was.term
        changed = (now.phase, now.destination) != (was.phase, was.destination)
        unshared = bool(now.term) and not took and (now.unshared or changed)
        if unshared is not now.unshared:
            after = after.having(who, now._replace(unshared=unshared))
    return after


def _leads(world: World, who: int) -> bool:
    return world.holder == who and world.record(who).term == world.term


def _off(world: World) -> World:
    return world._replace(power=False, silent=False, boot=0, answered=0, runs=world.runs - {A})
