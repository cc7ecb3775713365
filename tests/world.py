"""A small cloud in the core's own words, and a hand on its clock, for the tests of the core and the scenarios.

Plays every adapter: feeds probes, carries out what is ordered on a tiny model of BMCs and oned. No mocks: the core
takes values and gives values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ha_controller.adapters.opennebula import vm_state_name
from ha_controller.core.controller import Controller, Decision
from ha_controller.core.effects import (
    AskDomains,
    AskNames,
    AskReady,
    DestroyDomain,
    Effect,
    Fence,
    HostStep,
    LiftOrders,
    MoveVm,
    OrderHost,
    PowerOn,
    ReadHost,
    ReadPower,
    RecoverVm,
    RenewOrders,
    ResumeVm,
    Tell,
)
from ha_controller.core.events import (
    DeviceChecked,
    DomainDestroyed,
    DomainsRead,
    Event,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    HostOrderReported,
    HostRead,
    InventoryRead,
    LeadChanged,
    NamesRead,
    OperatorCommanded,
    OrderResult,
    OrdersLifted,
    OrdersRenewed,
    PoweredOn,
    PowerRead,
    Readiness,
    ReadyRead,
    SecondMasterLooked,
    SelfChecked,
    SettingsChanged,
    TimePassed,
    Verb,
    VmOrderReported,
)
from ha_controller.core.incident import CloudRecord, Incident
from ha_controller.core.model import Device, Domain, Host, HostState, HostTrust, PowerState, Reading, Signal, Vm
from ha_controller.core.order import names_of
from ha_controller.core.resources import PciDevice, VmGroup
from ha_controller.core.settings import Channel, Mode, Settings
from ha_controller.core.vm_table import Recover
from ha_controller.flight.recorder import Recorder
from ha_controller.sim import oned_recover
from ha_controller.sim.oned_recover import Then

QUIET = ("oned", "kdump")  #: channels that say nothing as long as nothing is said through them

SSH_GIVES_UP_S = 1.2  #: sooner than any real one, so that stories stay short

SETTINGS = Settings(
    mode=Mode.AUTO,
    channels=(
        Channel(name="icmp", domain=Domain.MANAGEMENT, proves_userland=False),
        Channel(name="ssh", domain=Domain.MANAGEMENT),
        Channel(name="bmc", domain=Domain.POWER),
        Channel(name="oned", domain=Domain.ONED),
    ),
    settle_s=5.0,
)


@dataclass
class Cloud:
    """Plays every adapter: feeds probes, carries out effects on a tiny model of oned, keeps what was ordered."""

    settings: Settings = SETTINGS
    hosts: int = 8
    vms_per_host: int = 2
    now: float = 1000.0
    dead: dict[int, str] = field(default_factory=dict)  #: host -> what its BMC says
    frozen: set[int] = field(default_factory=set)  #: their kernels answer, and nothing else of them
    one_states: dict[int, int] = field(default_factory=dict)
    asked_anew: dict[int, float] = field(default_factory=dict)  #: since when OpenNebula's ssh tries to reach a host
    vms: dict[int, Vm] = field(default_factory=dict)
    vms_of: dict[int | None, list[Vm]] = field(default_factory=dict)  #: host -> VMs, of the last inventory
    effects: list[tuple[float, Effect]] = field(default_factory=list)
    deaf: set[type] = field(default_factory=set)  #: kinds of effects that nobody carries out
    incidents: dict[int, Incident] = field(default_factory=dict)  #: as the journal would hold them
    cloud: CloudRecord = field(default_factory=CloudRecord)
    trusts: dict[int, HostTrust] = field(default_factory=dict)
    places: dict[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    device_power: dict[str, PowerState] = field(default_factory=dict)  #: where one reads something else than the BMC
    cluster_names: dict[int, str] = field(default_factory=dict)
    elsewhere: dict[str, dict[int, Signal | None]] = field(default_factory=dict)  #: channel -> host -> what it shows
    boots: dict[int, str] = field(default_factory=dict)  #: which boot each host says it is
    unheard: dict[int, float] = field(
        default_factory=dict
    )  #: hosts whose monitoring died, and when it last said a word
    booted_at: dict[int, float] = field(default_factory=dict)  #: and when that began, if it says so
    excluded: dict[int, str] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)  #: hosts that are no longer in OpenNebula
    restarting: set[int] = field(default_factory=set)
    marked: set[int] = field(default_factory=set)  #: hosts on which our mark stays
    domains: dict[tuple[int, int], str] = field(default_factory=dict)  #: (host, VM) -> "running", "paused", "absent"
    no_answer: set[int] = field(default_factory=set)  #: hosts that do not say which VMs are on them
    no_start: dict[int, set[int]] = field(default_factory=dict)  #: VM -> hosts on which it does not start
    unready: dict[int, tuple[Readiness, str]] = field(default_factory=dict)  #: VMs that run and are not ready, and why
    refusal: str = ""  #: in which words OpenNebula refuses to move VMs
    zombies: dict[int, tuple[int, ...]] = field(default_factory=dict)
    destroy_fails: str = ""
    power_on_fails: str = ""
    pci: dict[int, tuple[PciDevice, ...]] = field(default_factory=dict)  #: free devices of hosts
    groups: tuple[VmGroup, ...] | None = ()
    lift_fails: str = ""  #: why lasting orders cannot be lifted or renewed
    levels: tuple[tuple[Device, ...], ...] = ((Device(name="bmc", identity_noted=True),),)

    def __post_init__(self) -> None:
        for host in range(self.hosts):
            self.one_states[host] = 2
            for index in range(self.vms_per_host):
                vm = host * 10 + index
                self.vms[vm] = Vm(
                    id=vm,
                    name=f"vm-{vm}",
                    state=3,
                    lcm_state=3,
                    host=host,
                    cluster=0,
                    vm_mad="kvm",
                    cpu=100,
                    memory_mb=1024,
                    label="RUNNING",
                )
        self.controller = Controller(self.settings, self.now)
        self.recorder = Recorder(self.controller, self.now)
        self._begin()

    def _begin(self, lead: LeadChanged = LeadChanged(term=1)) -> None:  # noqa: B008 - frozen
        self.inventory()
        self.feed(lead)
        self.feed(SelfChecked(ok=True, detail="gateway answers"))
        self.feed(SecondMasterLooked(present=False, detail="no failure hook"))
        for host in range(self.hosts):
            for device in (device for level in self.levels for device in level):
                self.feed(
                    DeviceChecked(
                        host=host,
                        device=device.name,
                        fingerprint=device.fingerprint,
                        ok=True,
                        power=PowerState.ON,
                        summary="ok",
                    )
                )

    # --- what happens ---

    def feed(self, event: Event) -> Decision:
        """Give the core one event and take down what it decides."""
        decision = self.controller.step(event, self.now)
        self.recorder.note((event,), decision.effects, self.now)
        self._take_down(decision)
        return decision

    def _take_down(self, decision: Decision) -> None:
        for incident in decision.incidents:
            self.incidents[incident.id] = incident
        if decision.cloud:
            self.cloud = decision.cloud
        for trust in decision.trusts:
            self.trusts[trust.host] = trust
        for effect in decision.effects:
            self.effects.append((self.now, effect))

    def inventory(self) -> None:
        done = len(self.effects)
        self.vms_of = {host: [] for host in range(self.hosts)}
        for vm in self.vms.values():
            self.vms_of.setdefault(vm.host, []).append(vm)
        self.feed(
            InventoryRead(
                hosts=tuple(self.host(host) for host in range(self.hosts) if host not in self.deleted),
                groups=self.groups,
            )
        )
        self._carry_out(done)

    def host(self, host: int) -> Host:
        taken = sum(vm.memory_mb for vm in self.vms_of[host])
        return Host(
            id=host,
            name=f"kvm-{host:02}",
            cluster=0,
            cluster_name=self.cluster_names.get(host, "default"),
            monitoring_restarting=host in self.restarting,
            excluded=self.excluded.get(host, ""),
            one_state=self.one_states[host],
            zombies=self.zombies.get(host, ()),
            vm_mad="kvm",
            free_cpu=6400,
            free_memory_mb=65536 - taken,
            vms=tuple(vm.id for vm in self.vms_of[host]),
            pci=self.pci.get(host, ()),
            levels=self.levels,
            places=self.places.get(host, ()),
        )

    def run(self, seconds: float) -> None:
        """Let time pass: probes every 200 ms, adapters carry out what was ordered."""
        end = self.now + seconds
        while self.now < end:
            done = len(self.effects)
            self._probe()
            self.feed(TimePassed())
            self._carry_out(done)
            self.now = round(self.now + 0.2, 3)

    def _probe(self) -> None:
        self.ssh_gives_up()
        for channel, mute in (("icmp", {*self.dead}), ("ssh", {*self.dead} | self.frozen)):
            signals = {host: Signal.SILENT if host in mute else Signal.ALIVE for host in range(self.hosts)}
            self.feed(
                EvidenceTaken(
                    channel=channel,
                    readings=tuple(
                        Reading(host=host, signal=signal, sent_at=self.now) for host, signal in signals.items()
                    ),
                )
            )
        off = tuple(
            Reading(
                host=host,
                signal={"off": Signal.OFF, "on": Signal.ON}.get(power, Signal.UNKNOWN),
                sent_at=self.now,
            )
            for host, power in self.dead.items()
        )
        self.feed(EvidenceTaken(channel="bmc", readings=off))
        for channel, said in self.elsewhere.items():
            word = None if channel in QUIET else Signal.ALIVE  # where nobody said anything else
            told = {host: said.get(host, word) for host in range(self.hosts)}
            self.feed(
                EvidenceTaken(
                    channel=channel,
                    readings=tuple(
                        Reading(host=host, signal=signal, sent_at=self.now) for host, signal in told.items() if signal
                    ),
                )
            )
        booted = tuple(
            Reading(
                host=host, signal=Signal.ALIVE, sent_at=self.now, boot_id=boot, booted_at=self.booted_at.get(host, 0.0)
            )
            for host, boot in self.boots.items()
            if host not in self.dead and host not in self.frozen
        )
        self.feed(EvidenceTaken(channel="boot-id", readings=booted))

    def _carry_out(self, begin: int) -> None:
        index = begin
        while index < len(self.effects):
            effect = self.effects[index][1]
            index += 1
            if type(effect) not in self.deaf:
                self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case ReadHost(host=host, vms=vms):
                listed = {vm.id for vm in self.vms.values() if host in (vm.host, vm.previous_host)} | set(vms)
                self.feed(
                    HostRead(
                        host=host,
                        asked_at=self.now,
                        one_state=self.one_states[host],
                        monitored_at=self._monitored(host),
                        marked=host in self.marked,
                        monitoring_restarting=host in self.restarting,
                        vms=tuple(self.vms[vm] for vm in sorted(listed) if vm in self.vms),
                    )
                )
            case Fence(host=host):
                self._fence(effect)
            case ReadPower(host=host, devices=devices):
                power = PowerState(self.dead.get(host, "on")) if self.dead.get(host) != "mute" else PowerState.UNKNOWN
                states = tuple((name, self.device_power.get(name, power)) for name in devices)
                self.feed(PowerRead(host=host, asked_at=self.now, states=states))
            case RenewOrders(host=host, incident=incident, devices=devices):
                failed = tuple((name, self.lift_fails) for name in devices if self.lift_fails)
                self.feed(OrdersRenewed(host=host, incident=incident, failed=failed))
            case LiftOrders(host=host, incident=incident, devices=devices, number=number):
                failed = tuple((name, self.lift_fails) for name in devices if self.lift_fails)
                self.feed(OrdersLifted(host=host, incident=incident, number=number, failed=failed))
            case PowerOn(host=host, incident=incident, devices=devices):
                failed = tuple((name, self.power_on_fails) for name in devices if self.power_on_fails)
                self.feed(PoweredOn(host=host, incident=incident, failed=failed))
            case DestroyDomain(host=host, incident=incident, vm=vm, attempt=attempt):
                if not self.destroy_fails:
                    self.domains[host, vm] = "absent"
                keys = {"host": host, "incident": incident, "vm": vm, "attempt": attempt}
                self.feed(DomainDestroyed(**keys, failure=self.destroy_fails))
            case OrderHost():
                self._order_host(effect)
            case RecoverVm():
                self._recover(effect)
            case AskDomains(host=host):
                self._tell_domains(host)
            case AskReady(vm=vm, incident=incident):
                readiness, why = self.unready.get(vm, (Readiness.READY, ""))
                keys = {"vm": vm, "incident": incident, "asked_at": self.now}
                self.feed(ReadyRead(**keys, readiness=readiness, detail=why))
            case AskNames(host=host, incident=incident, names=names):
                known = {name for vm in self.vms.values() for name in names_of(vm.id, vm.name, vm.startup)}
                missing = tuple(name for name in names if name not in known)
                self.feed(NamesRead(host=host, incident=incident, names=names, missing=missing))
            case MoveVm() if self.refusal:
                self._reported(effect, OrderResult.REFUSED, self.refusal)
            case MoveVm(vm=vm, destination=destination):
                off = self.vms[vm].state != 3
                self.vms[vm] = replace(self.vms[vm], host=destination)
                if not off:
                    self.become(vm, *self._booted(vm))
                self._accepted(effect)
            case ResumeVm(vm=vm):
                self.become(vm, *self._booted(vm))
                self._accepted(effect)
            case _:
                pass

    def _accepted(self, order: MoveVm | ResumeVm | RecoverVm) -> None:
        self._reported(order, OrderResult.ACCEPTED)

    def _reported(self, order: MoveVm | ResumeVm | RecoverVm, result: OrderResult, detail: str = "") -> None:
        keys = {"vm": order.vm, "incident": order.incident, "attempt": order.attempt}
        self.feed(VmOrderReported(**keys, result=result, detail=detail))

    def _booted(self, vm: int, lcm_state: int = 2) -> tuple[int, int]:
        """What becomes of a start where the VM is."""
        host = self.vms[vm].host
        starts = host not in self.dead and host not in self.no_start.get(vm, ())
        return (3, 3) if starts else oned_recover.BOOT_FAILS[lcm_state]

    def become(self, vm: int, state: int, lcm_state: int = 0, **changes: object) -> None:
        """OpenNebula shows the VM in another state."""
        if (state, lcm_state) == (3, 3) and self.domains.get((self.vms[vm].host or 0, vm)) == "absent":
            del self.domains[self.vms[vm].host or 0, vm]
        known = replace(self.vms[vm], state=state, lcm_state=lcm_state, label=vm_state_name(state, lcm_state))
        self.vms[vm] = replace(known, **changes)  # type: ignore[arg-type]

    def _recover(self, order: RecoverVm) -> None:
        """As the embedded oned does, with everything that follows over at once."""
        vm = self.vms[order.vm]
        assert (vm.host, vm.lcm_state) == (order.host, order.lcm_state), "the executor would not have sent this"
        if order.operation is Recover.RECREATE:
            self.become(order.vm, 3, 15)
        elif change := oned_recover.change(vm.lcm_state, order.operation):
            state, home = change.state, vm.host
            if change.back:
                home = vm.previous_host
            self.become(order.vm, *state, host=home)
            if change.then in (Then.FILES, Then.FILES_READY, Then.BACK) and state[1] in oned_recover.FILES_END:
                self.become(order.vm, *oned_recover.FILES_END[state[1]])
            if self.vms[order.vm].lcm_state in oned_recover.BOOT_FAILS and change.then is not Then.NOTHING:
                self.become(order.vm, *self._booted(order.vm, self.vms[order.vm].lcm_state))
        self._accepted(order)

    def _tell_domains(self, host: int) -> None:
        """Unless a test says otherwise, a host runs what OpenNebula shows RUNNING there."""
        if host in self.dead or host in self.no_answer:
            self.feed(DomainsRead(host=host, asked_at=self.now, failure="no answer"))
            return
        shown = {vm.id for vm in self.vms.values() if vm.host == host and (vm.state, vm.lcm_state) == (3, 3)}
        there = {vm: what for (at, vm), what in self.domains.items() if at == host}
        running = {vm for vm in shown if vm not in there} | {vm for vm, what in there.items() if what == "running"}
        others = {vm for vm, what in there.items() if what == "paused"}
        self.feed(
            DomainsRead(host=host, asked_at=self.now, running=tuple(sorted(running)), others=tuple(sorted(others)))
        )

    def _fence(self, order: Fence) -> None:
        keys = {"host": order.host, "incident": order.incident, "attempt": order.attempt}
        if self.dead.get(order.host) == "mute":
            detail = "; ".join(f"{device}: no answer" for device in order.devices)  # as the fencer tells it
            self.feed(FenceReported(**keys, result=FenceResult.UNVERIFIED, off_read_at=None, detail=detail))
            return
        self.feed(FenceAccepted(**keys))
        if order.host in self.dead or order.host in self.frozen:
            self.dead[order.host] = "off"
        self.feed(FenceReported(**keys, result=FenceResult.OFF_READ, off_read_at=self.now, detail="off, off"))

    def reboot(self, host: int) -> None:
        """Faster than anybody sees its silence; OpenNebula still believes that all runs."""
        self.boots[host] = f"boot-after-{self.now}"
        self.unheard[host] = self.now
        self.domains |= {(host, vm.id): "absent" for vm in self.vms.values() if vm.host == host}

    def _monitored(self, host: int) -> float:
        return self.unheard.get(host, self.now)

    def oned_notices(self, host: int) -> None:
        """OpenNebula hears from a host that rebooted, and finds its VMs missing."""
        self.unheard.pop(host, None)
        for vm in [vm for vm in self.vms.values() if vm.host == host and vm.lcm_state in (3, 16)]:
            self.vms[vm.id] = replace(vm, state=8, lcm_state=0, label="POWEROFF", found_missing_at=self.now)

    def ssh_gives_up(self) -> None:
        """OpenNebula notices that hosts which it was made to ask anew do not answer it, or do again."""
        for host in [host for host, at in self.asked_anew.items() if self.now - at >= SSH_GIVES_UP_S]:
            del self.asked_anew[host]
            self.one_states[host] = 3 if host in self.dead else 2
            for vm in [vm for vm in self.vms.values() if vm.host == host and vm.lcm_state == 3 and host in self.dead]:
                self.vms[vm.id] = replace(vm, lcm_state=16, label="UNKNOWN")

    def _order_host(self, order: OrderHost) -> None:
        states = {HostStep.OFFLINE: 8, HostStep.ENABLE: 0, HostStep.DISABLE: 4}
        self.one_states[order.host] = states.get(order.step, order.state_before)
        self.asked_anew.pop(order.host, None)
        if order.step is HostStep.ENABLE and order.host not in self.dead:
            self.one_states[order.host] = 2
            self.oned_notices(order.host)
        elif order.step is HostStep.ENABLE:
            self.asked_anew[order.host] = self.now
        self.feed(
            HostOrderReported(
                host=order.host, incident=order.incident, step=order.step, result=OrderResult.ACCEPTED, detail=""
            )
        )

    def kill(self, host: int, power: str = "on") -> None:
        """The host falls silent; its BMC says `power` ("mute": nothing)."""
        self.dead[host] = power

    def operator(
        self, verb: Verb, host: int | None = None, incident: int | None = None, request: int = 1, **flags: bool
    ) -> None:
        done = len(self.effects)
        self.feed(OperatorCommanded(request=request, verb=verb, who="ann", host=host, incident=incident, **flags))
        self._carry_out(done)

    def reconfigure(self, settings: Settings) -> None:
        """The operator changes the configuration."""
        done = len(self.effects)
        self.feed(SettingsChanged(settings=settings))
        self._carry_out(done)

    def restart(self) -> None:
        """The controller dies and comes back with what the journal holds."""
        self.controller = Controller(self.settings, self.now)
        records = [incident for incident in self.incidents.values() if incident.open]
        self.controller.restore(records, self.cloud, self.now, self.trusts.values())
        done = len(self.effects)
        self.recorder = Recorder(self.controller, self.now)
        resumed = self.controller.resume(self.now)
        self.recorder.note((), resumed.effects, self.now)
        self._take_down(resumed)
        self._begin()
        self._carry_out(done)

    def other_controller(self) -> None:
        """Another one looks at the same cloud from now on; its journal is empty, and somebody else leads."""
        self.incidents, self.cloud, self.trusts = {}, CloudRecord(), {}
        self.effects = []
        self.controller = Controller(self.settings, self.now)
        self.recorder = Recorder(self.controller, self.now)
        self._begin(LeadChanged(term=None, leader="one"))

    # --- what is asserted ---

    def state(self, host: int) -> HostState:
        return self.controller.state.views[host].state

    def ordered(self, kind: type[Effect]) -> list[Effect]:
        return [effect for _, effect in self.effects if isinstance(effect, kind)]

    def first(self, kind: type[Effect]) -> float:
        return next(at for at, effect in self.effects if isinstance(effect, kind))

    def told(self) -> str:
        return "\n".join(f"{effect.text} | {effect.next_step}" for effect in self.ordered(Tell))  # type: ignore[union-attr]

    def incident(self, host: int) -> Incident:
        return max((known for known in self.incidents.values() if known.host == host), key=lambda known: known.id)


def seen(settings: Settings = SETTINGS, *, hosts: int = 8, **changes: object) -> Cloud:
    """A cloud that is seen from its neighbours and on its storage, too, and whose hosts tell their boots; settled."""
    channels = (
        *settings.channels,
        Channel(name="neighbours", domain=Domain.VANTAGE, proves_userland=False),
        Channel(name="heartbeat", domain=Domain.STORAGE),
        Channel(name="boot-id", domain=Domain.SELF),
    )
    cloud = Cloud(
        settings=replace(settings, channels=channels, **changes),
        hosts=hosts,
        elsewhere={"neighbours": {}, "heartbeat": {}},
        boots={host: f"first-{host}" for host in range(hosts)},
    )
    cloud.run(6)
    return cloud


def say(cloud: Cloud, host: int, **signals: Signal | None) -> None:
    """What neighbours or the storage show of a host from now on; None: they have no word yet."""
    for channel, signal in signals.items():
        cloud.elsewhere[channel][host] = signal
