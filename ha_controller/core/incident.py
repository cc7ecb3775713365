"""The durable record of one failure: what was seen, ordered and reached, and what is durable beside it.

Plain frozen values; whoever changes one makes a new one. Times are seconds on the controller's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from ha_controller.core.model import HostState, OnedHostState, Vm
from ha_controller.core.resources import NOTHING_WRITTEN, Startup


class AttemptOutcome(StrEnum):
    """How far one attempt to power a host off came."""

    ORDERED = "ordered"  #: written down; the order may or may not have left
    ACCEPTED = "accepted"  #: every device of the level acknowledged, which proves nothing
    OFF_READ = "off read"  #: read back off as the protocol asks; life can still void it
    UNVERIFIED = "unverified"  #: sent or maybe sent, off was not read
    REFUSED = "refused"  #: every device definitely did nothing
    NOT_SENT = "not sent"  #: no device was told anything; does not count as tried
    VOIDED = "voided"  #: off was read, and then the host showed life


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One level of fence devices, ordered once."""

    number: int  #: counts from 1 within the incident
    level: int  #: index into Host.levels
    devices: tuple[str, ...]
    outcome: AttemptOutcome
    fingerprints: tuple[str, ...] = ()  #: of the devices, in their order
    ordered_at: float
    off_read_at: float | None = None
    detail: str = ""

    @property
    def had_no_effect(self) -> bool:
        """Whether it definitely did nothing."""
        return self.outcome in (AttemptOutcome.REFUSED, AttemptOutcome.NOT_SENT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """Why a host counts as off."""

    at: float
    text: str
    devices: tuple[str, ...] = ()  #: empty: a person confirmed it
    fingerprints: tuple[str, ...] = ()  #: of the devices, in their order


class Lever(StrEnum):
    """How far OpenNebula has been told that the host is gone."""

    NOT_BEGUN = "not begun"
    OFFLINE = "offline ordered"
    ENABLE = "enable ordered"
    WAIT = "waiting for ERROR"
    DISABLE = "disable ordered"
    DONE = "done"
    RESTORE = "restore ordered"  #: the way back, when the host is readmitted
    RESTORED = "restored"


class VmStage(StrEnum):
    """How far one VM's recovery came."""

    WAITING = "waiting"
    MOVING = "moving"  #: a migrate was ordered; the destination is sticky
    RECOVERING = "recovering"  #: a recover was ordered: OpenNebula's state had to be ended
    RESUMING = "resuming"
    LOCKING = "locking"  #: it is where it belongs, and gets its lock back
    RUNNING = "running"  #: outcome: seen RUNNING elsewhere
    KEPT = "moved, not started"  #: outcome: it did not run before
    LEFT = "left alone"  #: outcome: with a reason


@dataclass(frozen=True, kw_only=True, slots=True)
class VmRecord:
    """One VM of a failed host, from what it was to its outcome."""

    id: int
    name: str
    was_state: int  #: when the incident was opened: decides what the VM *was*
    was_lcm_state: int
    was_label: str = ""
    other_host: int | None = None  #: the other end of the migration that was under way
    datastores: tuple[int, ...] | None = None  #: where its disks were; None: not on record
    startup: Startup = NOTHING_WRITTEN  #: as it was written then
    stage: VmStage = VmStage.WAITING
    destination: int | None = None
    runs_on: int | None = None  #: where it was seen RUNNING, as its outcome
    tried_on: tuple[int, ...] = ()  #: hosts on which it may run all the same: asked before it is started
    ordered_to: tuple[int, ...] = ()  #: every host that it was ever ordered to: a lost order may be carried out late
    refused_on: tuple[int, ...] = ()  #: hosts that OpenNebula refused to move it to: the last resort
    ordered_at: float = 0.0
    first_ordered_at: float = 0.0  #: its way to an outcome is timed from here
    answered: bool = True  #: False while an order has no report
    maybe_done: bool = False  #: an order was lost: it may still arrive, so its destination stays
    tries: int = 0  #: orders of this stage
    order: int = 0  #: all orders so far: the number of the last one
    recovers: int = 0  #: orders of recover so far
    boots: int = 0  #: those of them since it is where it is, off the dead host
    second_starts: int = 0  #: starts ordered beside one that had no end: both may come to it, so it is not moved on
    failed_on: tuple[int, ...] = ()  #: hosts on which it did not start: not chosen again
    doubted: bool = False  #: RUNNING where it is was written down by us, and proves nothing
    recreated: bool = False  #: it is made anew: OpenNebula's scheduler chooses the host
    presumed_by: int = 0  #: the order that last added to what is presumed: `ordered_to`, `doubted` or `recreated`
    refusals: int = 0  #: orders that OpenNebula refused since it last took one
    put_off: int = 0  #: orders in a row that it did not take: nothing was done
    not_before: float = 0.0  #: the next order
    relock: int = 0  #: it was locked at this level, and has to be again
    reason: str = ""
    settled_at: float = 0.0

    @classmethod
    def of(cls, vm: Vm, host: int | None = None) -> Self:
        """What a VM of this host is now, as what it was."""
        return cls(
            id=vm.id,
            name=vm.name,
            was_state=vm.state,
            was_lcm_state=vm.lcm_state,
            was_label=vm.label,
            other_host=None if host is None else vm.previous_host if vm.host == host else vm.host,
            datastores=vm.datastores,
            startup=vm.startup,
        )

    def anew(self) -> VmRecord:
        """The same VM with nothing done yet; its orders are numbered on, so that late reports are recognised."""
        begun = replace(self, stage=VmStage.WAITING, destination=None, answered=True, maybe_done=False, tries=0)
        begun = replace(begun, refusals=0, put_off=0, not_before=0.0)
        return replace(begun, ordered_at=0.0, first_ordered_at=0.0, settled_at=0.0, reason="")

    def seen_as(self, vm: Vm, host: int) -> VmRecord:
        """What a VM of this host is now, as what it was; where it may run all the same stays on record."""
        other = () if self.other_host is None else (self.other_host,)
        others = {*self.tried_on, *self.ordered_to, *other} - {host, vm.host}
        return replace(VmRecord.of(vm, host), order=self.order, tried_on=tuple(sorted(others)))

    @property
    def settled(self) -> bool:
        """Whether the VM has an outcome."""
        return self.stage in (VmStage.RUNNING, VmStage.KEPT, VmStage.LEFT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One failure of one host: the durable record of what was seen, ordered and reached."""

    id: int
    host: int
    host_name: str
    opened_at: float
    state: HostState
    verdict: str  #: "dead", "powered off", "hung"
    evidence: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    vms: tuple[VmRecord, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    attempts_forgiven: int = (
        0  #: so many of them do not count as tried, since a person said `release`, or the lead was lost
    )
    barred: tuple[str, ...] = ()  #: devices that lied: no further shots with them
    in_force: tuple[tuple[str, str], ...] = ()  #: (device, fingerprint) whose lasting order may be in force
    lifting: bool = False  #: the way back has begun: they are being lifted
    proof: Proof | None = None
    prior_one_state: int = OnedHostState.MONITORED
    prior_marked: bool = False
    start_approved_by: str = ""  #: the VMs of a host that reboots again and again may be started there once more
    last_life_at: float | None = None  #: the last life that any channel saw before; None: not known
    lost_since: float | None = None  #: what ended later ended with the boot before; None: not known
    monitored_at: float = 0.0  #: of OpenNebula's data from before it was made to ask anew: only newer data counts
    rebooted: str = ""  #: the boot after which its VMs are started again: nothing was powered off
    noticed_at: float = 0.0  #: when we noted that boot, standing by; 0: in this very incident
    lever: Lever = Lever.NOT_BEGUN
    lever_since: float = 0.0
    lever_repeats: int = 0
    lever_pulls: int = 0  #: how often it was pulled again, for VMs that fell back to RUNNING
    passed_over: tuple[int, ...] = ()  #: VMs that nobody here waits for any more: they were not ready in time
    order_faults: tuple[str, ...] = ()  #: what is written on VMs about their order and not followed, as it was told
    hold: str = ""  #: why nothing happens right now; recomputed all the time
    hold_needs_person: bool = False
    stopped: str = ""  #: why nothing will happen until a person decides
    held_by: str = ""  #: operator's `hold`: who and why
    approved_by: str = ""
    ordered_by: str = ""  #: a person ordered the power-off of a silent host, before it was condemned
    rejected_by: str = ""
    foreign: str = ""  #: why another controller may have acted in it, which is not on our record; a person releases it
    cause_at: float = 0.0  #: when others were last silent with it by what they share
    suspect_at: float | None = None  #: it was silent to us from then on, though others may have seen it longer
    failed_at: float | None = None
    fenced_at: float | None = None
    recovered_at: float | None = None
    powered_on_at: float | None = None  #: it was ordered on again
    closed_at: float | None = None
    closing: str = ""

    @property
    def open(self) -> bool:
        """Whether the incident still counts."""
        return self.closed_at is None

    @property
    def tried(self) -> tuple[Attempt, ...]:
        """The attempts that left, or may have left."""
        return tuple(attempt for attempt in self.attempts if attempt.outcome is not AttemptOutcome.NOT_SENT)

    @property
    def untouched(self) -> bool:
        """Whether nothing that was ordered may have had an effect on the host, its VMs or OpenNebula."""
        return (
            all(attempt.had_no_effect for attempt in self.attempts)
            and (self.lever is Lever.NOT_BEGUN or bool(self.rebooted))
            and (all(record.order == 0 for record in self.vms) or bool(self.rebooted))
        )

    def with_attempt(self, attempt: Attempt) -> Incident:
        """The same, with what is known now of an attempt."""
        others = tuple(known for known in self.attempts if known.number != attempt.number)
        return replace(self, attempts=(*others, attempt))

    def not_after(self, now: float) -> Incident:
        """The same, with no moment in the future: for a clock that was set back while nobody ran."""
        return replace(
            self,
            opened_at=min(self.opened_at, now),
            last_life_at=None if self.last_life_at is None else min(self.last_life_at, now),
            cause_at=min(self.cause_at, now),
            noticed_at=min(self.noticed_at, now),
            lever_since=min(self.lever_since, now),
            suspect_at=None if self.suspect_at is None else min(self.suspect_at, now),
            fenced_at=None if self.fenced_at is None else min(self.fenced_at, now),
            failed_at=None if self.failed_at is None else min(self.failed_at, now),
            proof=None if self.proof is None else replace(self.proof, at=min(self.proof.at, now)),
            attempts=tuple(
                replace(
                    attempt,
                    ordered_at=min(attempt.ordered_at, now),
                    off_read_at=None if attempt.off_read_at is None else min(attempt.off_read_at, now),
                )
                for attempt in self.attempts
            ),
            vms=tuple(
                replace(
                    record,
                    ordered_at=min(record.ordered_at, now),
                    first_ordered_at=min(record.first_ordered_at, now),
                    not_before=min(record.not_before, now),
                    settled_at=min(record.settled_at, now),
                )
                for record in self.vms
            ),
        )

    def vm(self, vm_id: int) -> VmRecord | None:
        """The record of one VM, if it belongs to this incident."""
        return next((record for record in self.vms if record.id == vm_id), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """A host that was verified off, or rebooted by itself, and the VMs that ran on it."""

    at: float
    host: int
    host_name: str
    vms: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudRecord:
    """What is durable beside the incidents."""

    next_incident: int = 1
    paused_by: str = ""  #: who paused the cloud and why; empty = not paused
    paused_at: float = 0.0
    paused_until: float | None = None  #: the pause ends by itself then
    fences: tuple[tuple[float, int], ...] = ()  #: (time, host) of the power-offs that count for the budget
    storm_at: float = 0.0  #: when the storm guard last said no
    inherited_at: float = 0.0  #: when we took the lead after another controller; 0: every host was seen alive since
    inherited: str = ""  #: from whom
    deaths: tuple[Death, ...] = ()  #: of the last time, for VMs that kill one host after the other


@dataclass(frozen=True, kw_only=True, slots=True)
class TrailEntry:
    """One line of the trail: what was decided, ordered, reported or told. Never changed once written."""

    at: float
    kind: str  #: "intent", "report", "decision", "operator", "told"
    text: str
    host: int | None = None
    incident: int | None = None
    data: Mapping[str, object] = field(default_factory=dict)  #: of a decision: what it stands on
