"""The nouns of a flight record: what the core was given, when, and what it decided.

Plain frozen values. Times are seconds on the controller's clock. No secret is in any of them: the core knows none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ha_controller import __version__
from ha_controller.core.effects import (
    Answer,
    AskDomains,
    AskNames,
    AskReady,
    Effect,
    MarkMaintenance,
    ReadPower,
    Tell,
    WatchClosely,
)
from ha_controller.core.events import Event, EvidenceTaken
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import Host, HostTrust, Reading
from ha_controller.core.resources import VmGroup
from ha_controller.core.settings import Settings

#: of what the core decided, this is not kept; the rest are orders, explanations, and the readings of hosts it asked for
NOT_KEPT = (Answer, AskDomains, AskNames, AskReady, MarkMaintenance, ReadPower, Tell, WatchClosely)


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryChanged:
    """An inventory was read: the hosts that differ from the one before, and the ids of those that are gone."""

    hosts: tuple[Host, ...] = ()
    gone: tuple[int, ...] = ()
    regrouped: bool = False  #: the VM groups are these from now on
    groups: tuple[VmGroup, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One moment: what the core was given, in this order, and what it wanted."""

    at: float
    events: tuple[Event | InventoryChanged, ...] = ()
    effects: tuple[Effect, ...] = ()
    ticking: bool = False  #: the core asked to be called again soon: whatever it was given next is on record


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Readings of one channel and host that all said the same. The first stands in its round, too, and the last is
    exact; those between are known by number."""

    channel: str
    last: Reading
    last_at: float  #: when the core was given it
    first_sent_at: float
    first_at: float
    count: int

    def readings(self, since: float) -> Iterator[tuple[float, Reading]]:
        """(when the core was given it, the reading) of each after the first, evenly spaced.

        Of a run that had begun at `since` already, those that came later, and the newest of then: it was still valid.
        """
        steps = self.count - 1
        every_s = (self.last_at - self.first_at) / steps if steps else 0.0
        begun = self.first_at <= since
        skipped = min(int((since - self.first_at) / every_s), steps) if begun and every_s > 0 else 0
        for number in range(skipped if begun else 1, steps):
            share = number / steps
            sent_at = self.first_sent_at + share * (self.last.sent_at - self.first_sent_at)
            yield self.first_at + share * (self.last_at - self.first_at), _sent(self.last, sent_at)
        if begun or steps:
            yield self.last_at, self.last


def _sent(reading: Reading, sent_at: float) -> Reading:
    """The same reading at another moment; `dataclasses.replace` takes four times as long."""
    return Reading(
        host=reading.host,
        signal=reading.signal,
        sent_at=sent_at,
        detail=reading.detail,
        boot_id=reading.boot_id,
        booted_at=reading.booted_at,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What a controller would know that was started at this moment with the journal of then, and looked around."""

    at: float
    settled_from: float  #: the start, or the last change of leader
    settings: Settings
    incidents: tuple[Incident, ...] = ()  #: open then
    cloud: CloudRecord
    trusts: tuple[HostTrust, ...] = ()
    hosts: tuple[Host, ...] = ()
    groups: tuple[VmGroup, ...] | None = None
    known: tuple[Event, ...] = ()  #: the newest word about the lead, ourselves, other masters and each fence device
    is_start: bool = False  #: it really was started then: nothing is missing


@dataclass(frozen=True, kw_only=True, slots=True)
class FlightRecord:
    """From a beginning to an end."""

    incidents: tuple[int, ...] = ()  #: those that it was written for
    beginning: Beginning
    rounds: tuple[Round, ...] = ()
    runs: tuple[Run, ...] = ()
    ends_at: float
    end: str = ""  #: why it goes no further, in words
    written_by: str = __version__

    def channels(self) -> frozenset[str]:
        """The channels that said anything."""
        told = {event.channel for each in self.rounds for event in each.events if isinstance(event, EvidenceTaken)}
        return frozenset(told | {run.channel for run in self.runs})
