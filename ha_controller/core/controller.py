"""The core's only door: `step(event, now)` gives orders, `resume(now)` takes up what a crash left, `next_deadline`
says when to come back even if nothing happens.

The same events at the same times give the same orders. The caller writes `Decision.incidents` and `Decision.cloud` to
disk before it carries out any effect of the same decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from ha_controller.core import (
    commands,
    device_checks,
    fencing,
    guard,
    handover,
    lasting,
    leftovers,
    lever,
    life,
    moving,
    order_faults,
    pause,
    power,
    readiness,
    reboot,
    rejoin,
    reserve,
    situation,
    suspicion,
    takeover,
    trust,
)
from ha_controller.core.detector import ChannelView
from ha_controller.core.effects import Effect, Order, unconfirmed
from ha_controller.core.events import (
    DeviceChecked,
    DomainDestroyed,
    DomainsRead,
    DrillReported,
    Event,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    HostIdentified,
    HostOrderReported,
    HostRead,
    HostReaddressed,
    InventoryRead,
    LeadChanged,
    MaintenanceMarked,
    MonitoringRestarted,
    NamesRead,
    OnedReadFailed,
    OperatorCommanded,
    OrdersLifted,
    OrdersRenewed,
    PoweredOn,
    PowerRead,
    ReadyRead,
    RecordTakenOver,
    ReserveAssessed,
    SecondMasterLooked,
    SelfChecked,
    SelfPlaced,
    SettingsChanged,
    SightTold,
    TimePassed,
    VmOrderReported,
)
from ha_controller.core.incident import CloudRecord, Incident, Lever
from ha_controller.core.model import Host, HostState, HostTrust, Signal
from ha_controller.core.settings import Settings
from ha_controller.core.state import HostView, State

Report = (
    FenceAccepted | FenceReported | OrdersRenewed | OrdersLifted | PoweredOn | DomainDestroyed
    | HostOrderReported | VmOrderReported | ReadyRead | NamesRead
)  # fmt: skip
Surroundings = (
    LeadChanged | RecordTakenOver | SelfChecked | SelfPlaced | SecondMasterLooked | SettingsChanged
    | MonitoringRestarted | DomainsRead | HostReaddressed
)  # fmt: skip

_ALIVE, _SILENT, _OK, _FENCED = Signal.ALIVE, Signal.SILENT, HostState.OK, HostState.FENCED  #: of each reading
_UNDECIDED = (HostState.OK, HostState.SUSPECT)
TICK_S = 0.1  #: how often the core wants to look while anything is going on


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What one step wants: first this on disk, then these effects."""

    effects: tuple[Effect, ...] = ()
    incidents: tuple[Incident, ...] = ()
    cloud: CloudRecord | None = None
    trusts: tuple[HostTrust, ...] = ()
    term: int | None = None  #: in which it was decided; None: we do not lead


_NOTHING = Decision()


class Controller:
    """Decides. Holds everything the controller knows."""

    def __init__(self, settings: Settings, now: float) -> None:
        """Begin with nothing known: every host has its full grace period."""
        self.state = State(settings=settings, settle_until=now + settings.settle_s)
        self._term: int | None = None  #: the last one that was told by a decision

    def restore(
        self, incidents: Iterable[Incident], cloud: CloudRecord, now: float, trusts: Iterable[HostTrust] = ()
    ) -> None:
        """Take over what the journal holds, before the first step."""
        handover.restore(self.state, incidents, cloud, now, trusts)

    def resume(self, now: float) -> Decision:
        """Take up open incidents after a restart. No deadline survives; unknown outcomes are looked at first."""
        handover.resume(self.state, now)
        return self._decided()

    def step(self, event: Event, now: float) -> Decision:
        """Take in one event and decide."""
        return self.round((event,), now)

    def round(self, events: Iterable[Event], now: float) -> Decision:
        """Take in all that is known at a moment, then decide: no silence counts of which the end is here already."""
        touched, time_passed = set[int](), False
        pause.end_when_due(self.state, now)
        for event in events:
            touched |= self._take_in(event, now)
            time_passed |= type(event) is TimePassed
        if self.state.confirming:
            commands.expire(self.state, now)
        for host in sorted(touched):
            self._advance(host, now, time_passed=time_passed)
        return self._decided()

    def taken_back(self, order: Effect, waiting: Iterable[Event]) -> FenceReported | VmOrderReported | None:
        """The report of an order that must not leave after all, by what came in while it was put on record."""
        return life.taken_back(self.state, order, waiting)

    def next_deadline(self, now: float) -> float | None:
        """When to call with TimePassed at the latest; None: evidence will come anyway."""
        return now + TICK_S if self.state.watched or self.state.incidents or self.state.confirming else None

    # --- taking in ---

    def _take_in(self, event: Event, now: float) -> set[int]:
        """Note the event; returns the hosts to look at."""
        state = self.state
        match event:
            case EvidenceTaken():
                return self._evidence(event, now)
            case SightTold():
                return life.told(state, event, now)
            case TimePassed():
                readiness.advance(state, now)
            case InventoryRead():
                self._inventory(event, now)
                return set(state.hosts)
            case HostRead():
                self._host_read(event)
                return {event.host}
            case VmOrderReported() | ReadyRead() | NamesRead():
                self._report(event, now)
                return set()  # hundreds may come at once, and each look costs milliseconds: the tick sees to it
            case (
                FenceAccepted() | FenceReported() | OrdersRenewed() | OrdersLifted() | PoweredOn() | DomainDestroyed()
                | HostOrderReported()
            ):  # fmt: skip
                self._report(event, now)
            case PowerRead():
                self._power_read(event, now)
                return {event.host}
            case DrillReported():
                commands.drill_reported(state, event, now)
            case HostIdentified():
                trust.host_identified(state, event)
            case ReserveAssessed():
                reserve.note(state, event)
            case MaintenanceMarked():
                commands.maintenance_marked(state, event)
            case DeviceChecked():
                device_checks.note(state, event, now)
            case OperatorCommanded():
                commands.obey(state, event, now)
            case OnedReadFailed():
                self._read_failed(event)
            case (
                LeadChanged() | RecordTakenOver() | SelfChecked() | SelfPlaced() | SecondMasterLooked()
                | SettingsChanged() | MonitoringRestarted() | DomainsRead() | HostReaddressed()
            ):  # fmt: skip
                self._surroundings(event, now)
            case _:
                assert_never(event)
        return state.watched | set(state.incidents)

    def _evidence(self, event: EvidenceTaken, now: float) -> set[int]:
        """The hot path: one reading a second for every host and channel, nearly all of them ALIVE.

        Word of a calm host is looked at when it is silence or ends one; what time brings about is for TimePassed.
        """
        touched: set[int] = set()
        state = self.state
        hosts, views, watched = state.hosts, state.views, state.watched
        gap_max_s = state.settings.gaps_s.get(event.channel, state.settings.evidence_ttl_s)
        is_here = event.channel in state.settings.here
        for reading in event.readings:
            host, signal = reading.host, reading.signal
            view = views.get(host)
            if view is None or host not in hosts:
                continue
            channel = view.views.get(event.channel)
            if channel is None:
                channel = view.views[event.channel] = ChannelView()
            ends_silence = channel.misses > 0
            channel.note(reading, gap_max_s)
            if signal is _ALIVE:
                view.awaits_life = False
                if reading.boot_id:
                    reboot.note(state, reading, now)
                if view.answers_since is None:
                    view.answers_since = now
            elif signal is _SILENT:
                if is_here:  # elsewhere it is a trouble of a host that answers, and no reason for haste
                    view.answers_since = None
                    state.watch(host, True)
                if view.state is not _FENCED:  # its silence is no news
                    touched.add(host)
            if view.state is _FENCED and signal is not _ALIVE:
                continue
            is_calm = view.state is _OK and not (view.troubles or view.off_while_alive or view.new_boot)
            if not is_calm or (ends_silence and host in watched) or host in state.incidents:
                touched.add(host)
        return touched

    def _inventory(self, event: InventoryRead, now: float) -> None:
        state = self.state
        state.oned_at, state.oned_detail, state.groups = now, "", event.groups
        known = {host.id: host for host in event.hosts}
        situation.note_zombies(state, event.hosts)
        for host_id, host in known.items():
            view = state.views.setdefault(host_id, HostView(since=now))
            device_checks.forget_changed(state, view, state.hosts.get(host_id), host)
            commands.maintenance_ended(state, state.hosts.get(host_id), host, now)
            if host.identity is not None:
                trust.note_host(state, host, host.identity, "noted in OpenNebula")
        takeover.forget_when_all_were_seen(state)
        # a host that vanished from OpenNebula with an open incident stays until the incident ends, and nothing is done
        gone = {
            incident.host: replace(
                state.hosts.get(incident.host) or Host(id=incident.host, name=incident.host_name),
                excluded=rejoin.GONE,
            )
            for incident in state.incidents.values()
        }
        state.hosts = {**gone, **known}
        for host_id in [host_id for host_id in state.views if host_id not in state.hosts | state.incidents]:
            del state.views[host_id]
            state.watched.discard(host_id)

    def _host_read(self, event: HostRead) -> None:
        view = self.state.views.get(event.host)
        if view is None or (view.read_at is not None and event.asked_at < view.read_at):
            return
        view.read_at, view.one_state, view.read_failed = event.asked_at, event.one_state, ""
        view.monitored_at, view.marked = event.monitored_at, event.marked
        view.monitoring_restarting = event.monitoring_restarting
        view.vms = {vm.id: vm for vm in event.vms}
        if (incident := self.state.incidents.get(event.host)) is not None:
            situation.note_travellers(self.state, incident)

    def _report(self, event: Report, now: float) -> None:
        """Results of orders; those that belong to no open incident are late and are dropped."""
        incident = next((known for known in self.state.incidents.values() if known.id == event.incident), None)
        if incident is None:
            return
        match event:
            case FenceAccepted():
                fencing.accepted(self.state, incident, event)
            case FenceReported():
                fencing.reported(self.state, incident, event, now)
            case OrdersRenewed():
                lasting.renewed(self.state, incident, event, now)
            case OrdersLifted():
                lasting.lifted(self.state, incident, event, now)
            case PoweredOn():
                rejoin.powered_on(self.state, incident, event)
            case DomainDestroyed():
                leftovers.destroyed(self.state, incident, event)
            case HostOrderReported():
                lever.host_order_reported(self.state, incident, event, now)
            case VmOrderReported():
                moving.vm_order_reported(self.state, incident, event, now)
            case ReadyRead():
                readiness.note(self.state, event, now)
            case NamesRead():
                order_faults.note(self.state, incident, event, now)

    def _power_read(self, event: PowerRead, now: float) -> None:
        view = self.state.views.get(event.host)
        if view is not None:
            power.note(view, event, gap_max_s=2 * self.state.settings.proof_age_max_s)
        commands.power_read(self.state, event, now)

    def _surroundings(self, event: Surroundings, now: float) -> None:
        state = self.state
        match event:
            case LeadChanged():
                takeover.lead_changed(state, event, now)
            case RecordTakenOver():
                handover.take_over(state, event, now)
            case SelfChecked():
                guard.self_checked(state, event, now)
            case SecondMasterLooked():
                state.second_master, state.second_master_detail = event.present, event.detail
            case SelfPlaced():
                state.own_hosts, state.own_place = event.hosts, event.detail
            case MonitoringRestarted():
                suspicion.monitoring_restarted(state, event)
            case DomainsRead():
                situation.note(state, event)
            case HostReaddressed():
                suspicion.readdressed(state, event, now)
            case SettingsChanged():
                state.settings = event.settings

    def _read_failed(self, event: OnedReadFailed) -> None:
        if event.host is None:
            self.state.oned_detail = event.detail
        elif (view := self.state.views.get(event.host)) is not None:
            view.read_failed = event.detail

    # --- deciding ---

    def _advance(self, host_id: int, now: float, *, time_passed: bool) -> None:
        state = self.state
        host, view = state.hosts.get(host_id), state.views.get(host_id)
        if host is None or view is None:
            return
        if view.off_while_alive:
            trust.look_for_contradictions(state, host, now)
        if view.state in _UNDECIDED:
            suspicion.advance(state, host, now)
        if view.new_boot is not None:
            reboot.take_up(state, host, now)
        incident = state.incidents.get(host_id)
        if incident is None:
            return
        if view.state is HostState.OK and incident.rebooted:
            reboot.advance(state, host, incident, now)
            return
        if incident.lifting:
            lasting.lift(state, incident, now)
            return
        lasting.renew(state, host, incident, now)
        if incident.lever in (Lever.RESTORE, Lever.RESTORED) and view.state in (HostState.FAILED, HostState.RECOVERED):
            rejoin.readmit(state, incident, now)
            return
        if view.state is HostState.FAILED:
            fencing.advance(state, host, incident, now)
            incident = state.incidents.get(host_id, incident)
        if view.state is HostState.FENCED:
            moving.advance(state, host, incident, now)
            incident = state.incidents.get(host_id, incident)
        if view.state in rejoin.AWAY and time_passed:  # a steady answer is no news, its duration is
            rejoin.advance(state, host, incident, now)
        lever.tell_if_enabled(state, host, incident)

    def _decided(self) -> Decision:
        state = self.state
        # a lead in which nothing happens is put on record, too: restarted, we must know that it was ours
        is_new_term = state.term is not None and state.term != self._term
        if not (state.out or state.dirty or state.dirty_trusts or state.cloud_dirty or is_new_term):
            return _NOTHING
        self._term = self._term if state.term is None else state.term
        effects = [replace(each, term=state.term) if isinstance(each, Order) else each for each in state.out]
        if state.stands_by:  # the lead ended while it was decided
            effects = [unconfirmed(each, state.why_not_leading) for each in effects]
        decision = Decision(
            effects=tuple(effects),
            incidents=tuple(state.dirty[number] for number in sorted(state.dirty)),
            cloud=state.cloud if state.cloud_dirty else None,
            trusts=tuple(state.dirty_trusts[host] for host in sorted(state.dirty_trusts)),
            term=state.term,
        )
        state.out, state.dirty, state.dirty_trusts, state.cloud_dirty = [], {}, {}, False
        return decision
