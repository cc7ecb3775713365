"""What the controller knows of OpenNebula's things: frozen models, with their units and what oned leaves open.

They hold only what a decision needs. `documents.py` fills them; everybody else reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydantic import SecretStr

from ha_controller.core.resources import NumaNode, NumaRequest, PciDevice, PciRequest

DIGITS = re.compile("[0-9]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedUser:
    """The user whose session is used."""

    id: int
    name: str
    group_id: int
    group_ids: tuple[int, ...]
    template: dict[str, str] = field(repr=False)  #: without passwords and tokens
    login_tokens: tuple[str, ...] = field(repr=False, default=())
    group_name: str = ""  #: of the primary group

    def has_token(self, auth: SecretStr) -> bool:
        """Whether this login ("user:token") is by one of its tokens, in place of the password."""
        return auth.get_secret_value().partition(":")[2] in self.login_tokens

    @property
    def in_oneadmin(self) -> bool:
        """Whether pools, hooks and the configuration are shown whole; others see a part, without an error."""
        return self.group_id == 0 or 0 in self.group_ids

    @property
    def groups(self) -> frozenset[str]:
        """The primary group's name, and all groups by their numbers.

        A group may be called "105". Its number alone stands for it, or its users would be taken for those of group 105.
        """
        names = set() if DIGITS.fullmatch(self.group_name) else {self.group_name}
        return frozenset(names | {str(number) for number in (self.group_id, *self.group_ids)})


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedHost:
    """A host as oned shows it. Capacity is what VMs may be promised, not what is in use at the moment."""

    id: int
    name: str
    state: int  #: see OnedHostState; other numbers may come
    cluster_id: int
    cluster: str
    im_mad: str
    vm_mad: str
    vm_ids: tuple[int, ...]  #: every VM that holds capacity here, also POWEROFF; one that moves is on two hosts
    max_cpu: int  #: hundredths of a core, after RESERVED_CPU; 0 while OFFLINE
    cpu_usage: int  #: hundredths of a core promised to VMs
    max_mem_kb: int  #: after RESERVED_MEM; 0 while OFFLINE
    mem_usage_kb: int
    running_vms: int
    monitored_at: int  #: when oned last had news, seconds of the front-end's wall clock; 0 = never
    zombies: tuple[str, ...]  #: VMs (ids or deploy ids) that run here although oned moved them elsewhere
    template: dict[str, str] = field(repr=False)  #: attributes; a vector's members as "NAME/MEMBER"
    repeated: dict[str, tuple[str, ...]] = field(repr=False, default_factory=dict)  #: those it has several times, whole
    share: dict[str, str] = field(repr=False, default_factory=dict)  #: its own elements and capacity, by their names
    monitoring: dict[str, str] = field(repr=False, default_factory=dict)  #: what it last told of itself
    pci: tuple[PciDevice, ...] = ()  #: those that no VM has
    numa: tuple[NumaNode, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedDisk:
    """A disk of a VM."""

    id: int
    ds_id: int | None  #: the image's datastore; None for some volatile disks
    tm_mad: str
    tm_mad_system: str | None  #: the disk's own, else the VM's; "ssh" or "local": the bytes lie on the host
    volatile: bool  #: made with the VM, lives on the system datastore


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedStay:
    """A history record of a VM that has ended."""

    host_id: int
    ended_at: int  #: ETIME, seconds of the front-end's wall clock
    ran: bool  #: RSTIME is set: oned saw it start there, or arrive; not so of a migration that it took back


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedVm:
    """A VM as oned shows it. Pools tell only the last history record, so `stays` is empty there."""

    id: int
    name: str
    state: int  #: see VmState; other numbers may come
    lcm_state: int  #: see LcmState; means something only while ACTIVE
    host_id: int | None  #: HID of the last history record; PENDING, UNDEPLOYED and DONE keep the old one
    stays: tuple[OnedStay, ...]  #: the records before, oldest first
    seq: int  #: SEQ of the last history record: so many came before it
    placed_at: int  #: STIME of the last history record: when it came to this host, or came back; the same clock
    cluster_id: int | None
    ds_id: int | None  #: system datastore
    vm_mad: str
    tm_mad: str
    deploy_id: str
    os_uuid: str  #: which machine it is to its guest, lower case; empty: not said
    cpu: float  #: cores promised
    memory_mb: int
    locked: bool
    lock_level: int  #: 0 none, 1 use, 2 manage, 3 admin, 4 all
    pci: tuple[PciRequest, ...]  #: with one, it is migrated with type 1 or 2 only
    numa: NumaRequest | None
    disks: tuple[OnedDisk, ...]
    addresses: tuple[str, ...]  #: of its network cards, in their order; only what OpenNebula itself has given
    automatic_requirements: str
    sched_requirements: str
    vmgroup_id: int | None
    vmgroup_role: str
    started_at: int  #: RSTIME of the last history record, seconds of the front-end's wall clock; 0 = not yet
    found_missing_at: int  #: when oned itself saw that it runs no more, the same clock; 0 = it did not end like that
    resched: bool
    attributes: dict[str, str] = field(repr=False)  #: USER_TEMPLATE: written by the VM's owner


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedDatastore:
    """A datastore."""

    id: int
    name: str
    type: int  #: 0 images, 1 system, 2 files
    tm_mad: str
    shared: bool | None  #: None: not said (image datastores never do)
    cluster_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedCluster:
    """A cluster."""

    id: int
    name: str
    host_ids: tuple[int, ...]
    datastore_ids: tuple[int, ...]
    template: dict[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedHook:
    """A hook: a script that oned starts by itself."""

    id: int
    name: str
    type: str  #: "state" or "api"
    resource: str  #: "HOST", "VM", ...; empty for api hooks
    state: str
    command: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitoring:
    """When oned last had news of a host."""

    id: int  #: of the host
    monitored_at: int  #: seconds of the front-end's wall clock
    values: dict[str, str] = field(repr=False, default_factory=dict)  #: FREE_MEMORY, USED_CPU and the like


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedZone:
    """A zone of a federation, or the only one."""

    id: int
    name: str
    servers: dict[int, str]  #: addresses of its front-ends by their numbers; none if oned is alone


@dataclass(frozen=True, kw_only=True, slots=True)
class RaftStatus:
    """What one server of a zone says about itself, and may think differently of a second later."""

    id: int  #: of the server; -1 if it is alone
    state: int  #: see RaftState
    term: int
    commit: int  #: its log is known to be with a majority up to here
    log_index: int
