"""What befalls the lead, and in which phase of an incident: every pair of them, in an order drawn from a seed."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.faults import Death


class Fault(StrEnum):
    """What is done to the controller that leads, or to etcd."""

    KILLED = "leader killed"
    FROZEN = "leader frozen"
    OFF_ETCD = "leader cut off from etcd"
    OFF_ONED = "leader cut off from OpenNebula"
    MINORITY = "leader cut off with one member of etcd"
    EXPIRED = "lease ends under the leader"
    MEMBER = "etcd's leader lost"
    APART = "members of etcd cut off from each other"
    QUORUM = "two members of etcd lost"
    RESTARTED = "all members of etcd restarted"


class Phase(StrEnum):
    """Where the incident is when the fault comes."""

    SUSPECT = "suspect"
    FAILED = "failed, the BMC silent"
    ORDERED = "OFF ordered"
    OFF_ONCE = "OFF read once"
    VERIFIED = "OFF verified"
    HALF_MOVED = "half of the VMs moved"
    GIVEN_BACK = "giving the host back"


#: after these the old lead is over: another term follows
ENDS_THE_LEAD = frozenset({Fault.KILLED, Fault.FROZEN, Fault.OFF_ETCD, Fault.MINORITY, Fault.EXPIRED})
#: the states of the incident in which a fault of that phase may come. A new verdict is faster than any look at it
STATES = {
    Phase.SUSPECT: ("suspect",),
    Phase.FAILED: ("failed",),
    Phase.ORDERED: ("failed",),
    Phase.OFF_ONCE: ("failed",),
    Phase.VERIFIED: ("fenced",),
    Phase.HALF_MOVED: ("fenced",),
    Phase.GIVEN_BACK: ("recovered",),
}
#: how much later than the beginning of the phase the fault comes, at most, in seconds
_LATEST_S = {
    Phase.SUSPECT: 1.5,
    Phase.FAILED: 2.0,
    Phase.ORDERED: 0.1,
    Phase.OFF_ONCE: 2.5,
    Phase.VERIFIED: 0.3,
    Phase.HALF_MOVED: 0.2,
    Phase.GIVEN_BACK: 2.0,
}
#: from and to; for faults that end the lead, after another one leads
_LASTS_S = {
    Fault.KILLED: (0.0, 4.0),
    Fault.FROZEN: (0.0, 6.0),
    Fault.OFF_ETCD: (0.0, 6.0),
    Fault.OFF_ONED: (2.0, 12.0),
    Fault.MINORITY: (0.0, 6.0),
    Fault.EXPIRED: (0.0, 0.0),
    Fault.MEMBER: (1.0, 10.0),
    Fault.APART: (1.0, 12.0),
    Fault.QUORUM: (1.0, 12.0),
    Fault.RESTARTED: (0.0, 3.0),
}
#: what dies at once by its BMC's word is suspect for no time, and a frozen host asks for a person
_DEATHS = (Death.CRASH, Death.HANG, Death.SEVERED, Death.POWER_LOSS)


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One fault in one phase."""

    fault: Fault
    phase: Phase
    death: Death
    after_s: float  #: after the phase began
    for_s: float
    flag: bool  #: the member is frozen, not killed; the BMC reads late what it was sent, and does not start anew

    def __str__(self) -> str:
        return f"{self.fault} at: {self.phase} +{self.after_s:.1f} s, {self.for_s:.1f} s; the host {self.death}"


def draw(seed: int) -> Iterator[Strike]:
    """All pairs in turn, then all again in another order; without end."""
    dice = random.Random(seed)
    while True:
        pairs = list(itertools.product(Fault, Phase))
        dice.shuffle(pairs)
        for fault, phase in pairs:
            yield strike(fault, phase, dice)


def strike(fault: Fault, phase: Phase, dice: random.Random) -> Strike:
    """This pair; the rest by lot."""
    earliest_s = 0.5 if phase is Phase.OFF_ONCE else 0.0
    return Strike(
        fault=fault,
        phase=phase,
        death=dice.choice(_DEATHS[:3] if phase is Phase.SUSPECT else _DEATHS),
        after_s=dice.uniform(earliest_s, _LATEST_S[phase]),
        for_s=dice.uniform(*_LASTS_S[fault]),
        flag=dice.random() < 0.5,
    )


def from_json(text: str) -> Strike:
    """One that was written as JSON."""
    found = json.loads(text)
    known = {"fault": Fault(found["fault"]), "phase": Phase(found["phase"]), "death": Death(found["death"])}
    return Strike(**{**found, **known})
