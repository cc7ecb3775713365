"""Whose turn it is: tiers, dependencies and throttles over all open incidents, as things are in one step of the core.

It only ever delays a first order. Nothing is waited for without an end: who made no progress for `tier_timeout_s` is
passed over, unless the operator says stop; then people are told what is in the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, takewhile

from ha_controller.core import readiness
from ha_controller.core.effects import Severity
from ha_controller.core.incident import Incident, Lever, VmRecord, VmStage
from ha_controller.core.model import HostState
from ha_controller.core.order import order_of, some_of
from ha_controller.core.outcome import wants_running
from ha_controller.core.state import State
from ha_controller.core.tries import is_under_way

ORDER_OF_STARTS = "order of starts"  #: the kind of the hold when a tier is not ready, and others are not to go on
STOOD_STILL_S = 30.0  #: nobody looked for so long, since nothing could be done: that is no time in which VMs got ready


class Turns:
    """Answers whether a VM may get its first order now."""

    def __init__(self, state: State, now: float) -> None:
        """As things are at this moment."""
        self._state, self._now = state, now
        incidents = sorted(state.incidents.values(), key=lambda incident: incident.id)  # of a VM in two, the newer
        self._records = {
            record.id: (incident, record)
            for incident in incidents
            for record in incident.vms
            if wants_running(record) and record.stage not in (VmStage.LEFT, VmStage.KEPT)
        }
        self.order = order_of(
            [record for _, record in self._records.values()], state.groups, state.settings.vm_priority
        )
        self._progress = {incident.id: self._last_progress(incident) for incident in incidents}
        self._pending = {vm for vm in self._records if not self._is_ready(vm)}
        self._queues = {
            incident.id: sorted(
                {each.id for each in incident.vms if each.id in self._pending}.difference(incident.passed_over),
                key=lambda vm: (-self.tier(vm), vm),
            )
            for incident in incidents
        }
        self._claims: dict[int, list[int]] | None = None
        self._by_host: Counter[int] = Counter()
        self._by_datastore: Counter[int] = Counter()
        self.under_way = 0
        for incident in incidents:
            for record in incident.vms:
                # one that a stopped incident has left half-way does not keep the others waiting for ever
                if is_under_way(record) and now - record.ordered_at <= state.settings.vm_timeout_s:
                    self.ordered(record)

    def tier(self, vm: int) -> int:
        """The tier of a VM: what was not running before is in none, and comes last."""
        return self.order.tiers.get(vm, self._state.settings.vm_priority)

    def ordered(self, record: VmRecord) -> None:
        """Count a VM that is under way."""
        self.under_way += 1
        self._by_host[-1 if record.destination is None else record.destination] += 1
        self._by_datastore.update(record.datastores or ())

    # --- order ---

    def waits_for(self, incident: Incident, record: VmRecord, most: int | None = None) -> list[VmRecord]:
        """The VMs that must be ready before this one may start, the most important first; `most` of each kind."""
        if record.id not in self._records:
            return []
        waiting = {*islice(self._above(incident, self.tier(record.id)), most), *self._named(incident, record.id)}
        return [self._records[vm][1] for vm in sorted(waiting, key=lambda vm: (-self.tier(vm), vm))]

    def _above(self, incident: Incident, tier: int) -> Iterator[int]:
        """VMs in higher tiers that are not ready, the highest first."""
        return takewhile(lambda vm: self.tier(vm) > tier, self._queues[incident.id])

    def _named(self, incident: Incident, vm: int) -> set[int]:
        """VMs that its HA_AFTER names and that are not ready."""
        named = self._pending.intersection(self.order.after.get(vm, ())).difference(incident.passed_over)
        return {other for other in named if not self._is_past(incident, other)}

    def _is_past(self, incident: Incident, vm: int) -> bool:
        """Whether its time to become ready was over when this host failed: people know, and nobody starts it anew."""
        record = self._records[vm][1]
        longest_s = self._state.settings.tier_timeout_s + self._delay_s(record)
        return record.stage is VmStage.RUNNING and incident.opened_at - record.settled_at > longest_s

    def pass_over(self, incident: Incident) -> Incident:
        """Give up waiting for VMs that make no progress, and tell it once. With "stop", nobody is passed over."""
        settings, view = self._state.settings, self._state.view(incident.host)
        if self._now - view.turned_at > STOOD_STILL_S:
            self._begin_anew(incident, spent_s=max(0.0, view.turned_at - self._progress[incident.id]))
        view.turned_at = self._now
        stuck = {} if settings.tier_stops else self._stuck(incident)
        if not stuck:
            return incident
        names = _in_words(stuck.values())
        self._state.tell_of(
            incident,
            Severity.WARNING,
            f"{incident.host_name}: nothing was ready for {settings.tier_timeout_s:g} s, and others start before "
            f"{names}",
            "Look at them; recover.tier_on_timeout says what is done then.",
        )
        return self._pass_over(incident, stuck)

    def _begin_anew(self, incident: Incident, spent_s: float = 0.0) -> None:
        """What is in the way from now on has its whole time, but for what was spent before nobody could do anything.

        Else a device that does not answer for half a minute now and then would keep VMs waiting for ever.
        """
        self._state.view(incident.host).turns_since = self._progress[incident.id] = self._now - spent_s

    def _pass_over(self, incident: Incident, stuck: Iterable[int]) -> Incident:
        self._begin_anew(incident)
        passed_over = {*incident.passed_over, *stuck}
        self._queues[incident.id] = [vm for vm in self._queues[incident.id] if vm not in passed_over]
        return self._state.save(replace(incident, passed_over=tuple(sorted(passed_over))))

    def why_stopped(self, incident: Incident) -> str:
        """With "stop": what is in the way for longer than it may take; empty if nothing is."""
        stuck = self._stuck(incident) if self._state.settings.tier_stops else {}
        whys = sorted({(each.name, readiness.why_not(each)) for each in stuck.values()})
        names = some_of([f"{name} ({why})" if why else name for name, why in whys])
        return f"{names} not ready" if names else ""

    def overrule(self, incident: Incident, who: str) -> str:
        """With "stop", and at a person's word: the others start before what is in the way. Returns what that is.

        Only where that is asked, and for what is in the way at this moment: the next tier that is not ready in time is
        asked about again.
        """
        stuck = self._stuck(incident) if self._state.settings.tier_stops and asks(incident) else {}
        names = _in_words(stuck.values())
        if stuck:
            self._pass_over(replace(incident, hold="", hold_needs_person=False), stuck)
            self._state.view(incident.host).told = ""
            self._state.explain(incident.host, f"others start before {names}", f"approved by {who}", self._now)
        return names

    def _stuck(self, incident: Incident) -> dict[int, VmRecord]:
        """VMs that others wait for, and with which nothing has happened for too long.

        Of this incident not those that wait themselves: who is in their way is in the way.
        """
        if self._now - self._progress[incident.id] <= self._state.settings.tier_timeout_s:
            return {}
        waiting = [each.id for each in incident.vms if each.stage is VmStage.WAITING and each.id in self._records]
        blockers = {*self._above(incident, min(map(self.tier, waiting), default=0))} if waiting else set()
        blockers.update(*(self._named(incident, vm) for vm in waiting))
        return {
            vm: blocker
            for vm, (_, blocker) in ((vm, self._records[vm]) for vm in sorted(blockers))
            if self._is_overdue(incident, blocker) and not self._waits_here(incident, blocker)
        }

    def _waits_here(self, incident: Incident, blocker: VmRecord) -> bool:
        other = self._records[blocker.id][0]
        is_here = other.id == incident.id and blocker.stage is VmStage.WAITING
        return is_here and bool(self.waits_for(incident, blocker, most=1))

    def in_words(self, blockers: list[VmRecord]) -> str:
        """Like "waits for db-1 (tier 10) and others"."""
        first = blockers[0]
        more = " and others" if len(blockers) > 1 else ""
        return f"waits for {first.name} (tier {self.tier(first.id)}){more}"

    def records_of(self, incident: Incident) -> list[VmRecord]:
        """Those of its VMs that are in the order."""
        return [record for known, record in self._records.values() if known.id == incident.id]

    @property
    def names(self) -> dict[int, str]:
        """Of all VMs in the order."""
        return {vm: record.name for vm, (_, record) in self._records.items()}

    def _is_ready(self, vm: int) -> bool:
        incident, record = self._records[vm]
        if record.stage is VmStage.RUNNING:
            since = readiness.since(self._state, incident, record)
            return since is not None and self._now >= since + self._delay_s(record)
        if is_under_way(record) or record.stage is VmStage.RECOVERING:
            return False
        refused = record.refusals >= self._state.settings.move_tries_max  # tried once a minute: nobody waits for that
        return refused or (record.stage is VmStage.WAITING and self._has_no_place(incident, vm))

    def _delay_s(self, record: VmRecord) -> float:
        written = record.startup.ready_delay_s
        return self._state.settings.ready_delay_s if written is None else written

    def _has_no_place(self, incident: Incident, vm: int) -> bool:
        """Nobody waits for a VM that waits for room itself."""
        planned = self._state.planned
        place = None if planned is None or incident.lever is not Lever.DONE else planned.plan.of(vm)
        return place is not None and place.destination is None

    def _is_overdue(self, incident: Incident, blocker: VmRecord) -> bool:
        other = self._records[blocker.id][0]
        delay_s = self._delay_s(blocker) if blocker.stage is VmStage.RUNNING else 0.0
        since = max(self._progress[incident.id], self._progress[other.id]) + delay_s
        return self._now - since > self._state.settings.tier_timeout_s

    def _last_progress(self, incident: Incident) -> float:
        """When something last happened to one of its VMs, or to OpenNebula's view of its host.

        An order that OpenNebula did not take is no progress, however often it is repeated.
        """
        taken = [record.ordered_at for record in incident.vms if not record.refusals and not record.put_off]
        at = [*taken, *(record.settled_at for record in incident.vms)]
        view = self._state.views.get(incident.host)
        since = incident.opened_at if view is None else max(incident.opened_at, view.turns_since)
        return max(since, incident.lever_since, readiness.last_at(self._state, incident), *at)

    # --- throttles ---

    def free(self, incident: Incident, record: VmRecord) -> int:
        """How many more may be ordered, when those of other hosts that are more important have theirs."""
        return self._state.settings.moves_parallel - self.under_way - self._claimed(incident, self.tier(record.id))

    def _claimed(self, incident: Incident, tier: int) -> int:
        if len(self._state.incidents) < 2:
            return 0
        if self._claims is None:
            self._claims = {known.id: self._claims_of(known) for known in self._state.incidents.values()}
        return sum(known > tier for other, tiers in self._claims.items() if other != incident.id for known in tiers)

    def _claims_of(self, incident: Incident) -> list[int]:
        """The tiers of those of its VMs that could be ordered now."""
        if not self._goes_on(incident):
            return []
        waiting = [record for record in incident.vms if record.stage is VmStage.WAITING and record.id in self._pending]
        return [self.tier(record.id) for record in waiting if not self.waits_for(incident, record, most=1)]

    def _goes_on(self, incident: Incident) -> bool:
        moves = incident.state is HostState.FENCED and incident.lever is Lever.DONE and not incident.stopped
        return moves and self._now - self._progress[incident.id] < self._state.settings.tier_timeout_s

    def why_full(self, record: VmRecord, destination: int) -> str:
        """Why a VM may not start there yet; empty if it may."""
        settings = self._state.settings
        if 0 < settings.moves_per_host <= self._by_host[destination]:
            host = self._state.hosts.get(destination)
            return f"waits: {self._by_host[destination]} VMs start on {host.name if host else destination} already"
        for datastore in record.datastores or ():
            if 0 < settings.moves_per_datastore <= self._by_datastore[datastore]:
                return f"waits: {self._by_datastore[datastore]} VMs start from datastore {datastore} already"
        return ""


def asks(incident: Incident) -> bool:
    """Whether a person is asked to let others start before VMs that are not ready."""
    return incident.hold.startswith(ORDER_OF_STARTS)


def _in_words(stuck: Iterable[VmRecord]) -> str:
    """The VMs that are in the way, and why, by their ids."""
    return some_of([f"{each.name} ({each.reason or each.stage})" for each in sorted(stuck, key=lambda each: each.id)])
