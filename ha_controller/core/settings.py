"""What the core needs of the configuration: the mode, the channels, the limits and the times, all in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from ha_controller.core.model import DECIDING_DOMAINS, Domain, VmPolicy


class Mode(StrEnum):
    """How much the controller may do without asking."""

    OBSERVE = "observe"
    APPROVE = "approve"
    AUTO = "auto"


class Policy(StrEnum):
    """What is done about a verdict."""

    FENCE = "fence"
    APPROVE = "approve"  #: a person is asked first, in every mode
    TELL = "tell"


#: By verdict. What is not here is never powered off.
POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "powered off": Policy.FENCE,
        "dead": Policy.FENCE,
        "hung": Policy.APPROVE,
        "isolated": Policy.TELL,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A probe channel as the core knows it."""

    name: str
    domain: Domain
    proves_userland: bool = True  #: False: its ALIVE says only that the kernel answers
    gap_max_s: float = 0.0  #: for a channel that is asked rarely; 0: `Settings.evidence_ttl_s`


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the core needs of the configuration."""

    mode: Mode = Mode.OBSERVE
    channels: tuple[Channel, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=lambda: POLICIES)
    misses: int = 3  #: silent readings in a row before a host is suspect
    evidence_ttl_s: float = 5.0  #: older evidence is unknown
    fail_after_s: float = 10.0  #: silence of two domains
    fail_after_per_vm_s: float = 0.02  #: longer by this for each VM, up to twice as long: a busy host answers late
    need: int = 2  #: the silent domains must weigh so much together
    weights: Mapping[Domain, int] = field(default_factory=dict)  #: 1 for a domain that is not named
    single_domain_after_s: float = 60.0  #: silence of the only deciding domain
    hung_after_s: float = 180.0
    record_is_shared: bool = False  #: incidents and what people ordered are kept for all controllers, by the leader
    lead_is_given_away: bool = False  #: to a fit controller that stands by, with all that is on record
    settle_s: float = 30.0  #: no power-off this soon after start or change of leader
    max_failed_share: float = 0.25
    fences_max: int = 2
    fences_per_s: float = 3600.0
    fences_per_day_max: int = 6
    storm_cooldown_s: float = 300.0
    self_check_needed: bool = True
    second_master_waived: bool = False
    fence_rounds_max: int = 2  #: how often all levels are tried
    fence_retry_s: float = 2.0  #: pause between two rounds
    proof_age_max_s: float = 5.0
    confirm_silence_max_s: float = 15.0
    levers_max: int = 10  #: hosts whose lever is under way at once
    ssh_timeout_s: float = 30.0  #: how long oned's ssh takes to give up on a dead host
    moves_parallel: int = 5  #: VMs of all hosts that are moved and started at once
    moves_per_host: int = 0  #: those of them with the same destination; 0: any number
    moves_per_datastore: int = 0  #: those of them with disks on the same datastore; 0: any number
    vm_priority: int = 0  #: of VMs that carry none
    ready_delay_s: float = 0.0  #: a VM is ready so long after it was seen RUNNING
    tier_timeout_s: float = 300.0  #: so long without any progress is waited for VMs that are to be ready first
    tier_stops: bool = False  #: then the others are not started before somebody has decided
    move_tries_max: int = 3  #: orders that were taken, without effect; and refusals before they are repeated slowly
    refusals_max: int = 30  #: slow repetitions of an order that OpenNebula refuses, before its VM is left
    put_offs_max: int = 360  #: orders in a row that OpenNebula did not take, before their VM is left
    vm_timeout_s: float = 120.0  #: from the first order to RUNNING
    vm_wait_max_s: float = 300.0  #: how long a VM may stay in a state from which it cannot be moved
    vm_policy: VmPolicy = VmPolicy.RESTART  #: of VMs that carry none
    vm_policies: Mapping[str, VmPolicy] = field(default_factory=dict)  #: the same by the name of the host's cluster
    recreate_allowed: bool = False  #: VMs with the policy `recreate` may be made anew
    powered_off_moved: bool = True  #: VMs that did not run are moved, too
    locked_moved: bool = False  #: locked VMs are unlocked, moved, and locked again
    recovers_max: int = 8  #: orders to end a VM's state, before it is left
    hosts_tried_max: int = 3  #: a VM that starts on none of so many hosts is left
    order_timeout_s: float = 20.0  #: the executor of an order to OpenNebula has reported or given up by then
    restores_max: int = 5  #: tries to give a readmitted host back to OpenNebula
    poison_after: int = 3  #: a VM that ran on so many hosts when they died is not started on another
    poison_within_s: float = 3600.0
    quarantine_after: int = 3  #: a host that died so often is not readmitted before a person says that it is repaired
    quarantine_within_s: float = 86400.0
    flaps_max: int = 4  #: a host that fell silent and came back so often takes no VMs for a while
    flaps_within_s: float = 600.0
    canary_above: int = 8  #: with more VMs than this, the first one must be RUNNING before the rest is moved
    destination_seen_s: float = 3.0  #: a destination must have shown life this recently
    rejoin_after_s: float = 10.0  #: how long a returned host must answer before it is readmitted
    rejoins_itself: bool = False  #: a returned host that passes the gate is readmitted without a person
    hosts_asked: bool = False  #: hosts can be asked over SSH which VMs are on them
    destroy_leftovers: bool = False  #: a domain of a VM that runs elsewhere may be destroyed on a returned host
    power_on: bool = False  #: a RECOVERED host that we powered off is powered on again, once
    soften_anti_affinity: bool = False  #: what fits nowhere else may be beside VMs it should be apart from
    reads_every_s: float = 0.5
    reserve_hosts: int = 1  #: so many hosts of each cluster may fail, and all that runs finds a place; 0: not looked at
    cluster_reserve_hosts: Mapping[str, int] = field(default_factory=dict)  #: the same by the cluster's name
    write_attributes: bool = True  #: what became of VMs and hosts is written on them in OpenNebula
    dump_await_s: float = 0.0  #: a host that fell silent may announce a crash dump within this; 0: none does
    dump_max_s: float = 600.0  #: no crash dump is waited for longer than this
    planned_reboot_max_s: float = 600.0  #: so long a host may be away that said so before
    clusters: Mapping[str, Settings] = field(default_factory=dict)  #: by name, where the rules of judging differ

    @property
    def driver_wait_s(self) -> float:
        """How long oned's own call to a dead host may take to fail."""
        return self.ssh_timeout_s * 1.5 + 5.0

    def policy_of(self, written: VmPolicy | None, cluster: str) -> VmPolicy:
        """What is done for a VM: what is written on it goes over its cluster's, that over the general one."""
        return written or self.vm_policies.get(cluster, self.vm_policy)

    def reserve_of(self, cluster: str) -> int:
        """How many hosts of a cluster are to be able to fail."""
        return self.cluster_reserve_hosts.get(cluster, self.reserve_hosts)

    @property
    def reserve_wanted(self) -> bool:
        """Whether any cluster is to keep a reserve."""
        return bool(self.reserve_hosts or any(self.cluster_reserve_hosts.values()))

    def of_cluster(self, name: str) -> Settings:
        """The rules for judging hosts of a cluster."""
        return self.clusters.get(name, self)

    def patience_s(self, vms: int) -> float:
        """How much longer than an idle one a host with so many VMs may be silent."""
        return min(self.fail_after_s, vms * self.fail_after_per_vm_s)

    def weight(self, domains: Iterable[Domain]) -> int:
        """What the silence of these domains weighs."""
        return sum(self.weights.get(domain, 1) for domain in domains)

    def condemns(self, verdict: str) -> bool:
        """Whether a host with this verdict is to be powered off, if no guard and nobody says no."""
        return self.policies.get(verdict, Policy.TELL) is not Policy.TELL

    def life_counts_s(self, name: str) -> float:
        """How long an ALIVE vetoes if its channel says nothing newer: longer for those that take seconds to ask."""
        return self.lives_s.get(name, self.evidence_ttl_s)

    def gap_max_s(self, channel: Channel) -> float:
        """How old the last word of a channel may be before nothing is known through it."""
        return channel.gap_max_s or self.evidence_ttl_s

    deciding_domains: frozenset[Domain] = field(init=False, default=frozenset())
    lives_s: Mapping[str, float] = field(init=False, default_factory=dict, compare=False)
    gaps_s: Mapping[str, float] = field(init=False, default_factory=dict, compare=False)
    by_domain: Mapping[Domain, tuple[Channel, ...]] = field(init=False, default_factory=dict, compare=False)
    here: tuple[str, ...] = field(init=False, default=(), compare=False)  #: the channels of the management path

    def __post_init__(self) -> None:
        """Derive which domains may decide."""
        domains = frozenset(channel.domain for channel in self.channels) & DECIDING_DOMAINS
        object.__setattr__(self, "deciding_domains", domains)
        slow = [each for each in self.channels if each.domain in (Domain.VANTAGE, Domain.STORAGE)]
        object.__setattr__(self, "lives_s", {each.name: self.gap_max_s(each) for each in slow})
        by_domain = {domain: tuple(each for each in self.channels if each.domain is domain) for domain in Domain}
        object.__setattr__(self, "by_domain", by_domain)
        object.__setattr__(self, "here", tuple(each.name for each in by_domain[Domain.MANAGEMENT]))
        object.__setattr__(self, "gaps_s", {each.name: self.gap_max_s(each) for each in self.channels})
