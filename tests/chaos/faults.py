"""The faults of a round: what kills a host, and what troubles everybody meanwhile, drawn from a seed.

A death is what must be fenced. A trouble ends by itself, and nobody may be powered off for it. Troubles come some time
after the first death, or at the moments that matter most: when a host is ordered off, when a VM is ordered to move.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Death(StrEnum):
    """What is done to a host that must be powered off then."""

    POWER_LOSS = "loses its power"
    CRASH = "crashes"
    HANG = "hangs, kernel and all"
    FREEZE = "freezes, its kernel answers"
    SEVERED = "is cut off with its heartbeat and writes on"


class Trouble(StrEnum):
    """What everybody has to live through."""

    KILL = "the controller is killed"
    PAUSE = "the controller is stopped"
    CUT_OFF = "the controller is cut off from all hosts"
    DISK_FULL = "the disk of the journal is full"
    ONED_RESTART = "oned restarts"
    BMC_DEAD = "the BMC of the victim is dead"
    BMC_THAWS = "the BMC of the victim is stopped and reads late what it was sent"
    BMC_IGNORES = "the BMC of the victim acknowledges and does nothing"
    BMC_SLOW = "the power supply of the victim takes its time"
    PARTITION = "another host is cut off"
    REQUESTS_LOST = "nothing comes to another host"
    ANSWERS_LOST = "nothing comes back from another host"
    STANDSTILL = "another host freezes and thaws"
    REBOOT = "another host reboots by itself"
    ETCD_MEMBER = "the leader of etcd is stopped or killed"


class Moment(StrEnum):
    """When a trouble comes."""

    SOON = "some time after the death"
    ORDERED_OFF = "when a host is ordered off"
    MOVED = "when a VM is ordered to move"


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One fault of a plan."""

    what: Death | Trouble
    host: int | None  #: the victim, or the other host
    moment: Moment = Moment.SOON
    after_s: float = 0.0  #: after that moment
    for_s: float = 0.0
    flag: bool = False  #: a detail that the fault itself explains

    def __str__(self) -> str:
        where = "" if self.host is None else f" (kvm-{self.host + 1:02})"
        when = "" if self.moment is Moment.SOON else f" {self.moment.value}"
        lasts = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.what.value}{where}{when} +{self.after_s:.1f} s{lasts}"


#: how long each lasts, from and to, in seconds
_LASTS: dict[Trouble, tuple[float, float]] = {
    Trouble.KILL: (0.0, 4.0),
    Trouble.PAUSE: (0.5, 10.0),
    Trouble.CUT_OFF: (1.0, 6.0),
    Trouble.DISK_FULL: (1.0, 6.0),
    Trouble.ONED_RESTART: (0.5, 4.0),
    Trouble.BMC_DEAD: (1.0, 10.0),
    Trouble.BMC_THAWS: (1.0, 10.0),
    Trouble.BMC_IGNORES: (2.0, 10.0),
    Trouble.BMC_SLOW: (0.5, 2.5),
    Trouble.PARTITION: (2.0, 12.0),
    Trouble.REQUESTS_LOST: (2.0, 12.0),
    Trouble.ANSWERS_LOST: (2.0, 12.0),
    Trouble.STANDSTILL: (0.3, 1.5),
    Trouble.REBOOT: (0.0, 0.0),
    Trouble.ETCD_MEMBER: (1.0, 8.0),
}
OF_THE_VICTIM = frozenset({Trouble.BMC_DEAD, Trouble.BMC_THAWS, Trouble.BMC_IGNORES, Trouble.BMC_SLOW})
OF_ANOTHER = frozenset(
    {Trouble.PARTITION, Trouble.REQUESTS_LOST, Trouble.ANSWERS_LOST, Trouble.STANDSTILL, Trouble.REBOOT}
)
SECOND_DEATH_SHARE = 0.15
TROUBLES_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will befall the cloud in one round."""

    deaths: tuple[Blow, ...]
    troubles: tuple[Blow, ...]


def draw(dice: random.Random, hosts: int, with_vms: list[int], *, etcd: bool = False) -> Plan:
    """A plan for a cloud; the first to die has VMs, so that something has to be moved."""
    victim = dice.choice(with_vms)
    others = [host for host in range(hosts) if host != victim]
    dice.shuffle(others)
    deaths = [Blow(what=dice.choice(list(Death)), host=victim)]
    if dice.random() < SECOND_DEATH_SHARE:
        moment = dice.choice([Moment.SOON, Moment.MOVED])
        after_s = dice.uniform(0.0, 8.0 if moment is Moment.SOON else 1.0)
        deaths.append(Blow(what=dice.choice(list(Death)), host=others.pop(), moment=moment, after_s=after_s))
    possible = [kind for kind in Trouble if etcd or kind is not Trouble.ETCD_MEMBER]
    kinds = dice.sample(possible, dice.randint(1, TROUBLES_MAX))
    troubles = []
    for kind in kinds:
        if kind in OF_ANOTHER and (len(deaths) > 1 or not others):
            continue  # half of the cloud at once is what the storm guard is there for
        host = victim if kind in OF_THE_VICTIM else others.pop() if kind in OF_ANOTHER else None
        moment = Moment.SOON if kind in OF_THE_VICTIM else dice.choice(list(Moment))
        latest_s = 3.0 if kind in OF_THE_VICTIM else 12.0 if moment is Moment.SOON else 1.5
        troubles.append(
            Blow(
                what=kind,
                host=host,
                moment=moment,
                after_s=dice.uniform(0.0, latest_s),
                for_s=dice.uniform(*_LASTS[kind]),
                flag=dice.random() < 0.5,
            )
        )
    return Plan(deaths=tuple(deaths), troubles=tuple(troubles))
