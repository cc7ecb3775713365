"""What the core knows between two steps. Only the core's own modules change it.

What must survive a crash is in `incidents` and `cloud`; everything else is learned again from fresh evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ha_controller.core import attributes, sight
from ha_controller.core.detector import TroubleKind, Views, describe
from ha_controller.core.effects import Answer, Effect, Explain, Severity, Tell, WatchClosely
from ha_controller.core.events import ReserveAssessed
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.machine import Trigger, following
from ha_controller.core.model import Host, HostState, HostTrust, PowerState, Vm
from ha_controller.core.placement import Plan
from ha_controller.core.resources import VmGroup
from ha_controller.core.settings import Mode, Settings


@dataclass(slots=True)
class DeviceView:
    """What the checks have shown of one fence device."""

    ok: bool = False
    passed_at: float | None = None
    checked_at: float | None = None
    summary: str = "not checked yet"
    mismatch: str = ""  #: it belongs to another machine: in words
    contradicted: bool = False  #: people were told that it feeds something else


@dataclass(frozen=True, kw_only=True, slots=True)
class NewBoot:
    """A host answers that was booted since it was last seen."""

    boot_id: str
    noticed_at: float
    lost_since: float | None  #: a VM that ended later ended with the old boot; None: not known


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainsView:
    """What a host last said of the VMs on it."""

    asked_at: float
    running: frozenset[int]
    others: frozenset[int]


@dataclass(slots=True)
class ReadyView:
    """What is known of the readiness of a VM that runs."""

    settled_at: float  #: since when it runs: another start is another question
    since: float  #: since when it is asked for
    asked_at: float = -1e9
    awaited: bool = False  #: an answer is on its way
    ready_at: float | None = None
    why_not: str = ""  #: empty: no answer yet
    shown_at: float = -1e9  #: when that was last put on record
    told: bool = False  #: people know that it is not ready in time


@dataclass(slots=True)
class NamesView:
    """Which names in HA_AFTER of an incident's VMs nobody has."""

    incident: int
    ask_at: float = 0.0  #: not before
    answered: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


@dataclass(slots=True)
class HostView:
    """What is known of one host and is forgotten at a restart."""

    state: HostState = HostState.OK
    since: float = 0.0
    views: Views = field(default_factory=dict)
    seen_by: sight.SeenBy = field(default_factory=dict)  #: what other controllers see; life there only ever says no
    devices: dict[str, DeviceView] = field(default_factory=dict)
    read_at: float | None = None  #: when the last complete HostRead was asked for
    read_asked_at: float = -1e9
    read_failed: str = ""  #: why the last reading gave nothing
    one_state: int | None = None
    marked: bool = False  #: carries our HA_STATE, as of the last HostRead
    monitoring_restarting: bool = False  #: as of the last HostRead, which may be newer than the inventory
    enabled_told: bool = False  #: people were told that somebody enabled it although it is off
    vms: dict[int, Vm] = field(default_factory=dict)  #: of the last HostRead
    #: VM -> its place and state, and since when it was seen so
    vm_states: dict[int, tuple[tuple[int | None, int, int], float]] = field(default_factory=dict)
    domains: DomainsView | None = None
    domains_asked_at: float = -1e9
    domains_failed: str = ""  #: why it last gave no answer
    off_while_alive: dict[str, float] = field(default_factory=dict)  #: device -> when it read OFF
    power: dict[str, tuple[float, PowerState]] = field(default_factory=dict)  #: device -> (asked at, state)
    power_asked_at: float = -1e9
    off_since: dict[str, float] = field(default_factory=dict)  #: device -> asked at, of the first of its OFFs in a row
    renew_due_at: float = 0.0  #: when lasting orders are renewed again
    renewal_told: str = ""
    lift_due_at: float = 0.0  #: when lifting is ordered again at the earliest
    lift_number: int = 0
    lifts: int = 0  #: tries of this readmission
    read_back_due: bool = False  #: an acknowledged power-off from before the restart waits to be read back
    troubles: dict[TroubleKind, str] = field(default_factory=dict)
    boot_seen_at: float = 0.0  #: when the boot that is on record was last seen alive
    boot_known_at: float = 0.0  #: when it was first heard which boot that is; 0: before our start
    monitored_at: float = 0.0  #: of OpenNebula's data about it, as of the last HostRead
    waits_from: float = 0.0  #: since then nothing but OpenNebula has held up the VMs that it lost in a reboot
    advanced_at: float = 0.0
    new_boot: NewBoot | None = None  #: another one answers: its VMs are looked at next
    monitoring_restart_due_at: float = 0.0  #: when its monitoring may be started anew
    cause_at: float = 0.0  #: when others were last silent with it by what they share
    awaits_life: bool = False  #: it was out of our scope until now, and has not answered since
    turned_at: float = -1e9  #: when it was last looked whose turn it is among its VMs
    turns_since: float = 0.0  #: tiers wait since then at the earliest; time in which nothing could be done is left out
    flaps: tuple[float, ...] = ()  #: when it came back by itself
    calm_at: float = 0.0  #: until then it flaps, and takes no VMs
    explained: str = ""  #: the last decision that was put on record
    told: str = ""  #: the last hold that people were told about
    destroys: dict[int, tuple[int, float]] = field(
        default_factory=dict
    )  #: leftover VM -> (tries, next at the earliest)
    leftovers_told: tuple[int, ...] = ()
    answers_since: float | None = None  #: alive without a gap since then


@dataclass(slots=True)
class PendingCommand:
    """An operator's command that waits for a reading of devices."""

    request: int
    host: int
    incident: int
    devices: tuple[str, ...]
    who: str
    asked_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The plan that is followed, and what it was made from."""

    plan: Plan
    at: float
    oned_at: float | None  #: of the inventory
    usable: frozenset[int]  #: hosts that could take VMs then
    vms: Mapping[int, Vm]  #: as they were then


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing happens with an incident now, and what comes next."""

    kind: str  #: people are told once for each new kind
    reason: str
    next_step: str
    needs_person: bool = False  #: nothing will happen until somebody decides
    is_news: bool = True  #: people are told

    @property
    def text(self) -> str:
        """As people read it."""
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


def unconfirmed_silence(kind: str, missing: list[str], incident: Incident) -> Hold:
    """Not every probe has looked and seen nothing."""
    confirm = f"if you have seen that it is off: ha-controller confirm-off {incident.host_name}"
    return Hold(kind, "; ".join(missing), f"Look at our own probes with ha-controller doctor; {confirm}", True)


@dataclass(slots=True)
class State:
    """All of it. `out` and the dirty ones collect what the current step has to say."""

    settings: Settings
    hosts: dict[int, Host] = field(default_factory=dict)
    views: dict[int, HostView] = field(default_factory=dict)
    incidents: dict[int, Incident] = field(default_factory=dict)  #: open incidents by host
    trusts: dict[int, HostTrust] = field(default_factory=dict)
    cloud: CloudRecord = field(default_factory=CloudRecord)
    settle_until: float = 0.0
    term: int | None = None
    led_term: int | None = None  #: the last term in which we led
    leader: str = ""  #: another controller that leads
    lead_trouble: str = ""  #: why nobody may lead
    self_check: bool | None = None
    self_check_detail: str = "not done yet"
    second_master: bool | None = None
    second_master_detail: str = "not looked yet"
    own_hosts: tuple[int, ...] | None = None  #: on which this controller runs; None: not known
    own_place: str = "not looked yet"
    oned_at: float | None = None
    oned_detail: str = "not reached yet"
    groups: tuple[VmGroup, ...] | None = None
    zombies: dict[int, tuple[int, ...]] = field(default_factory=dict)  #: VM -> hosts where it is a zombie
    planned: Planned | None = None
    readiness: dict[tuple[int, int], ReadyView] = field(default_factory=dict)  #: by (incident, VM)
    names: dict[int, NamesView] = field(default_factory=dict)  #: by host
    reserve: ReserveAssessed | None = None  #: the last that could be computed
    reserve_failure: str = ""  #: why it could not be computed since
    reserve_told: dict[int, tuple[object, ...]] = field(default_factory=dict)  #: cluster -> what is not kept
    watched: set[int] = field(default_factory=set)
    confirming: list[PendingCommand] = field(default_factory=list)
    out: list[Effect] = field(default_factory=list)
    dirty: dict[int, Incident] = field(default_factory=dict)
    dirty_trusts: dict[int, HostTrust] = field(default_factory=dict)
    cloud_dirty: bool = False

    def rules(self, host: int) -> Settings:
        """By which settings a host is judged: those of its cluster."""
        if not self.settings.clusters:
            return self.settings
        known = self.hosts.get(host)
        return self.settings if known is None else self.settings.of_cluster(known.cluster_name)

    def view(self, host: int) -> HostView:
        """What is known of a host."""
        return self.views[host]

    def save(self, incident: Incident) -> Incident:
        """Take over a changed incident; it is written to disk before any effect of this step leaves."""
        before = self.incidents.get(incident.host)
        if incident == before:
            return incident
        acts = self.term is not None and self.settings.mode is not Mode.OBSERVE
        if self.settings.write_attributes and acts:
            self.out.extend(attributes.of(before, incident))
        if incident.open:
            self.incidents[incident.host] = incident
        else:
            self.incidents.pop(incident.host, None)
        self.dirty[incident.id] = incident
        return incident

    def trust(self, host: int) -> HostTrust:
        """What is on record about a host's identity."""
        return self.trusts.get(host, HostTrust(host=host))

    def save_trust(self, trust: HostTrust) -> None:
        """Take over changed trust; durable like an incident."""
        if trust != self.trust(trust.host):
            self.trusts[trust.host] = self.dirty_trusts[trust.host] = trust

    def save_cloud(self, cloud: CloudRecord) -> None:
        """Take over a changed cloud record."""
        if cloud != self.cloud:
            self.cloud, self.cloud_dirty = cloud, True

    def enter(self, incident: Incident, trigger: Trigger, now: float) -> Incident:
        """Move the incident's host along the table."""
        view = self.view(incident.host)
        after = following(view.state, trigger)
        if after is not view.state:
            view.state, view.since = after, now
        return incident if incident.state is after else replace(incident, state=after)

    def tell(
        self, severity: Severity, text: str, next_step: str, *, host: int | None = None, incident: int | None = None
    ) -> None:
        """Tell people."""
        self.out.append(Tell(severity=severity, text=text, next_step=next_step, host=host, incident=incident))

    def tell_of(self, incident: Incident, severity: Severity, text: str, next_step: str, *, ends: bool = False) -> None:
        """Tell people about an incident; `text` names the host. `ends`: nobody has to care for it any more."""
        of = {"host": incident.host, "incident": incident.id}
        self.out.append(Tell(severity=severity, text=text, next_step=next_step, ends=ends, **of))

    def answer(self, request: int, code: int, text: str) -> None:
        """Answer an operator's command."""
        self.out.append(Answer(request=request, code=code, text=text))

    def explain(
        self,
        host: int,
        what: str,
        because: str,
        now: float,
        *,
        next_step: str = "",
        guards: Sequence[str] = (),
        rejected: Sequence[str] = (),
    ) -> None:
        """Put a decision on record with its evidence, once until another one is made about the host."""
        view, incident = self.view(host), self.incidents.get(host)
        if view.explained == what:
            return
        view.explained = what
        self.out.append(
            Explain(
                host=host,
                incident=None if incident is None else incident.id,
                what=what,
                because=because,
                next_step=next_step,
                evidence=self.evidence(host, now),
                guards=tuple(guards),
                rejected=tuple(rejected),
            )
        )

    def evidence(self, host: int, now: float) -> tuple[str, ...]:
        """What is seen of a host, from here and from elsewhere, one line for each."""
        view, rules = self.view(host), self.rules(host)
        return (*describe(view.views, rules, now), *sight.describe(view.seen_by, rules, now))

    def hold(self, incident: Incident, hold: Hold, now: float, guards: Sequence[str] = ()) -> Incident:
        """Say why nothing happens now. People are told once for each new kind of reason."""
        view = self.view(incident.host)
        what = f"nothing is done: {hold.kind}"
        self.explain(incident.host, what, hold.reason, now, next_step=hold.next_step, guards=guards)
        if hold.is_news and view.told != hold.kind:
            self.tell_of(incident, Severity.WARNING, f"{incident.host_name}: {hold.text}", hold.next_step)
            view.told = hold.kind
        text = f"{hold.text}. {hold.next_step}" if hold.needs_person else hold.text  # wherever it is shown, what to do
        return self.save(replace(incident, hold=text, hold_needs_person=hold.needs_person))

    def brake(self, incident: Incident) -> Hold | None:
        """What stops every order of an incident, however far it is: a person, the mode, the scope."""
        if self.cloud.paused_by:
            return Hold("paused", self.cloud.paused_by, "Nothing is done until: ha-controller resume")
        if incident.held_by:
            release = f"ha-controller release {incident.host_name}"
            return Hold("held", incident.held_by, f"Nothing is done until: {release}")
        if incident.foreign:
            return Hold(
                "takeover",
                incident.foreign,
                f"See what was done, then: ha-controller release {incident.host_name}",
                needs_person=True,
            )
        if incident.rejected_by:
            return Hold("rejected", incident.rejected_by, f"To decide anew: ha-controller release {incident.host_name}")
        if (host := self.hosts.get(incident.host)) is not None and host.excluded:
            return Hold("out of scope", host.excluded, "Nothing is done with it.")
        if self.settings.mode is Mode.OBSERVE:
            acts = {HostState.FENCED: "move its VMs", HostState.OK: "start its VMs again"}
            act = acts.get(incident.state, "power it off")
            because = f" ({incident.evidence[0]})" if incident.evidence else ""
            return Hold("observing only", f"would {act} now{because}", "Nothing is done in mode observe.")
        return None

    def stop(self, incident: Incident, reason: str, next_step: str, now: float) -> Incident:
        """Stop until a person decides. Durable."""
        self.view(incident.host).told = reason
        self.explain(incident.host, "stopped: a person must decide", reason, now, next_step=next_step)
        self.tell_of(incident, Severity.CRITICAL, f"{incident.host_name}: {reason}", next_step)
        return self.save(replace(incident, stopped=f"{reason}. {next_step}", hold="", hold_needs_person=False))

    @property
    def stands_by(self) -> bool:
        """Whether another one leads, or may, and the record of who leads takes the place of ours."""
        return self.term is None and self.settings.record_is_shared

    @property
    def why_not_leading(self) -> str:
        """Who leads instead of us, or why nobody may."""
        if self.leader:
            return f"{self.leader} leads, not this controller"
        return f"this controller does not hold the lead{f': {self.lead_trouble}' if self.lead_trouble else ''}"

    def watch(self, host: int, on: bool) -> None:
        """Start or end the close watch of a host."""
        if (host in self.watched) is not on:
            (self.watched.add if on else self.watched.discard)(host)
            self.out.append(WatchClosely(host=host, on=on))


def bar(incident: Incident, devices: Iterable[str]) -> Incident:
    """Use these devices no more in this incident: what they read turned out to be wrong."""
    return replace(incident, barred=tuple(sorted({*incident.barred, *devices})))
