"""OpenNebula's documents: XML into frozen models.

It must never trust a text: VM owners write names and attributes, so these stay data, are never shown by `repr`, and can
neither end an element nor start one. It reads only what a decision needs; unknown elements and states pass. The text
comes piece by piece from `xmlrpc.py`, the models go to the callers of `client.py`.

Element names: share/doc/xsd of OpenNebula, and what oned 7.4 was seen to send.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from sys import intern
from typing import Generic, Protocol, TypeVar

from lxml import etree

from ha_controller.adapters.opennebula.xmlrpc import one_line

# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedUser:
    """The user whose session is used."""

    id: int
    name: str
    group_id: int
    group_ids: tuple[int, ...]
    template: dict[str, str] = field(repr=False)  #: without passwords and tokens

    @property
    def in_oneadmin(self) -> bool:
        """Whether pools, hooks and the configuration are shown whole; others see a part, without an error."""
        return self.group_id == 0 or 0 in self.group_ids


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


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedDisk:
    """A disk of a VM."""

    id: int
    ds_id: int | None  #: the image's datastore; None for some volatile disks
    tm_mad: str
    tm_mad_system: str | None  #: the disk's own, else the VM's; "ssh" or "local": the bytes lie on the host
    volatile: bool  #: made with the VM, lives on the system datastore


@dataclass(frozen=True, kw_only=True, slots=True)
class OnedVm:
    """A VM as oned shows it. Pools tell only the last history record, so `previous_host_ids` is empty there."""

    id: int
    name: str
    state: int  #: see VmState; other numbers may come
    lcm_state: int  #: see LcmState; means something only while ACTIVE
    host_id: int | None  #: HID of the last history record; PENDING, UNDEPLOYED and DONE keep the old one
    previous_host_ids: tuple[int, ...]  #: of the records before, oldest first
    cluster_id: int | None
    ds_id: int | None  #: system datastore
    vm_mad: str
    tm_mad: str
    deploy_id: str
    cpu: float  #: cores promised
    memory_mb: int
    locked: bool
    lock_level: int  #: 0 none, 1 use, 2 manage, 3 admin, 4 all
    pci: bool  #: has a PCI device: migrate only with type 1 or 2
    disks: tuple[OnedDisk, ...]
    automatic_requirements: str
    sched_requirements: str
    vmgroup_id: int | None
    vmgroup_role: str
    started_at: int  #: RSTIME of the last history record, seconds of the front-end's wall clock; 0 = not yet
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


# --- reading ----------------------------------------------------------------------------------------------------------


class BadDocument(Exception):
    """A document that cannot be read. The text holds names of elements at most, never their contents."""


class Numbered(Protocol):
    """Everything in OpenNebula has an id."""

    @property
    def id(self) -> int:
        """OpenNebula's number for it."""


Model = TypeVar("Model", bound=Numbered)


class Fields:
    """The children of an element by name. The first of equal names wins, as oned itself looks attributes up."""

    def __init__(self, element: etree._Element | None) -> None:
        """Index the children; of nothing, there are none."""
        self._element = element
        self._children: dict[str, etree._Element] = {}
        for child in element if element is not None else ():
            self._children.setdefault(intern(str(child.tag)), child)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a child."""
        return name in self._children

    def below(self, name: str) -> Fields:
        """Go down to a child, which need not be there."""
        return Fields(self._children.get(name))

    def every(self, name: str) -> list[Fields]:
        """Return all children of this name, in their order."""
        return [Fields(child) for child in self._element.iterfind(name)] if self._element is not None else []

    def text(self, name: str) -> str:
        """Return a child's text; empty when it is missing."""
        child = self._children.get(name)
        return "" if child is None else child.text or ""

    def line(self, name: str) -> str:
        """Return a text that is shown to people: one line, no terminal escapes. Many are equal, and kept once."""
        return intern(one_line(self.text(name)))

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a number, the default when oned sent none. Raises BadDocument when there is neither."""
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            return int(text)
        except ValueError:
            raise BadDocument(f"{name} is not a number") from None

    def optional(self, name: str) -> int | None:
        """Return a number, None when oned sent none. Raises BadDocument when it is not a number."""
        return self.integer(name) if self.text(name) else None

    def ids(self, name: str) -> tuple[int, ...]:
        """Return the ids that are listed in a child. Raises BadDocument when one is not a number."""
        identifiers = self._children[name].iterfind("ID") if name in self._children else ()
        try:
            return tuple(int(identifier.text or "") for identifier in identifiers)
        except ValueError:
            raise BadDocument(f"an ID in {name} is not a number") from None

    def attributes(self) -> dict[str, str]:
        """Return all texts below, a vector's members as "NAME/MEMBER"."""
        found: dict[str, str] = {}
        for name, child in self._children.items():
            if len(child) == 0:
                found[name] = child.text or ""
            found.update({intern(f"{name}/{member.tag!s}"): member.text or "" for member in child})
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind(Generic[Model]):
    """How one kind of document is read: `item` elements directly below `root`, or the root itself if they are equal."""

    root: str
    item: str
    build: Callable[[Fields], Model]


class DocumentReader(Generic[Model]):
    """Builds models from a document while it arrives, and keeps nothing else of it."""

    def __init__(self, kind: Kind[Model]) -> None:
        """Prepare for one document."""
        self._kind = kind
        self._start = ""
        self._begun = False
        self._models: dict[int, Model] = {}
        self._parser = etree.XMLPullParser(
            events=("end",),
            tag=kind.item,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )

    def feed(self, text: str) -> None:
        """Take the next piece of text.

        Raises:
            BadDocument: this is not the document that was asked for.
        """
        if not self._begun:
            self._start += text
            opening = f"<{self._kind.root}"
            if len(self._start) <= len(opening):
                return
            # The root must come first, so there can be no document type and hence no entity.
            if not self._start.startswith(opening) or self._start[len(opening)] not in ">/ ":
                raise BadDocument(f"it does not begin with {self._kind.root}")
            text, self._start, self._begun = self._start, "", True
        try:
            self._parser.feed(text.encode())
            for _, element in self._parser.read_events():
                self._take(element)
        except etree.XMLSyntaxError as error:
            raise BadDocument(str(error)) from error

    def close(self) -> list[Model]:
        """Return the models, ascending by id. Of an id that came twice (pools shift while pages are read) the last.

        Raises:
            BadDocument: the document is not complete.
        """
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            raise BadDocument(str(error)) from error
        return [self._models[number] for number in sorted(self._models)]

    def _take(self, element: etree._Element) -> None:
        parent = element.getparent()
        pool = None if parent is None else parent.getparent()
        if pool is not None or (parent is None) != (self._kind.root == self._kind.item):
            return  # an element of the same name deeper down is somebody's attribute
        model = self._kind.build(Fields(element))
        self._models[model.id] = model
        if parent is not None:
            parent.remove(element)


_SECRET = re.compile("PASSWORD|TOKEN|SECRET|PRIVATE_KEY")


def _user(user: Fields) -> OnedUser:
    attributes = user.below("TEMPLATE").attributes()
    return OnedUser(
        id=user.integer("ID"),
        name=user.line("NAME"),
        group_id=user.integer("GID"),
        group_ids=user.ids("GROUPS"),
        template={name: value for name, value in attributes.items() if not _SECRET.search(name)},
    )


def _host(host: Fields) -> OnedHost:
    share, template = host.below("HOST_SHARE"), host.below("TEMPLATE")
    return OnedHost(
        id=host.integer("ID"),
        name=host.line("NAME"),
        state=host.integer("STATE"),
        cluster_id=host.integer("CLUSTER_ID", -1),
        cluster=host.line("CLUSTER"),
        im_mad=host.line("IM_MAD"),
        vm_mad=host.line("VM_MAD"),
        vm_ids=host.ids("VMS"),
        max_cpu=share.integer("MAX_CPU", 0),
        cpu_usage=share.integer("CPU_USAGE", 0),
        max_mem_kb=share.integer("MAX_MEM", 0),
        mem_usage_kb=share.integer("MEM_USAGE", 0),
        running_vms=share.integer("RUNNING_VMS", 0),
        monitored_at=host.below("MONITORING").integer("TIMESTAMP", 0),
        zombies=tuple(re.findall(r"[^\s,]+", template.line("ZOMBIES"))),
        template=template.attributes(),
    )


def _vm(vm: Fields) -> OnedVm:
    template, user_template = vm.below("TEMPLATE"), vm.below("USER_TEMPLATE")
    history = vm.below("HISTORY_RECORDS").every("HISTORY")
    last = history[-1] if history else Fields(None)
    lock_level = vm.below("LOCK").integer("LOCKED", 0)
    group = template.below("VMGROUP")
    return OnedVm(
        id=vm.integer("ID"),
        name=vm.line("NAME"),
        state=vm.integer("STATE"),
        lcm_state=vm.integer("LCM_STATE"),
        host_id=last.optional("HID"),
        previous_host_ids=tuple(record.integer("HID") for record in history[:-1]),
        cluster_id=last.optional("CID"),
        ds_id=last.optional("DS_ID"),
        vm_mad=last.line("VM_MAD"),
        tm_mad=last.line("TM_MAD"),
        deploy_id=vm.line("DEPLOY_ID"),
        cpu=_cores(template.text("CPU")),
        memory_mb=template.integer("MEMORY", 0),
        locked=lock_level > 0,
        lock_level=lock_level,
        pci="PCI" in template,
        disks=_disks(template),
        automatic_requirements=intern(template.text("AUTOMATIC_REQUIREMENTS")),
        sched_requirements=user_template.text("SCHED_REQUIREMENTS") or template.text("SCHED_REQUIREMENTS"),
        vmgroup_id=group.optional("VMGROUP_ID"),
        vmgroup_role=group.line("ROLE"),
        started_at=last.integer("RSTIME", 0),
        resched=vm.integer("RESCHED", 0) != 0,
        attributes=user_template.attributes(),
    )


def _disks(template: Fields) -> tuple[OnedDisk, ...]:
    system = template.line("TM_MAD_SYSTEM")
    return tuple(
        OnedDisk(
            id=disk.integer("DISK_ID"),
            ds_id=disk.optional("DATASTORE_ID"),
            tm_mad=disk.line("TM_MAD"),
            tm_mad_system=disk.line("TM_MAD_SYSTEM") or system or None,
            volatile="IMAGE" not in disk and "IMAGE_ID" not in disk,
        )
        for disk in template.every("DISK")
    )


def _cores(text: str) -> float:
    if not re.fullmatch(r"(\d{1,9}(\.\d*)?(e-\d\d?)?)?", text):
        raise BadDocument("CPU is not a number")
    return float(text or "0")


def _datastore(datastore: Fields) -> OnedDatastore:
    shared = datastore.below("TEMPLATE").text("SHARED").upper()
    return OnedDatastore(
        id=datastore.integer("ID"),
        name=datastore.line("NAME"),
        type=datastore.integer("TYPE"),
        tm_mad=datastore.line("TM_MAD"),
        shared={"YES": True, "NO": False}.get(shared),
        cluster_ids=datastore.ids("CLUSTERS"),
    )


def _cluster(cluster: Fields) -> OnedCluster:
    return OnedCluster(
        id=cluster.integer("ID"),
        name=cluster.line("NAME"),
        host_ids=cluster.ids("HOSTS"),
        datastore_ids=cluster.ids("DATASTORES"),
        template=cluster.below("TEMPLATE").attributes(),
    )


def _hook(hook: Fields) -> OnedHook:
    template = hook.below("TEMPLATE")
    return OnedHook(
        id=hook.integer("ID"),
        name=hook.line("NAME"),
        type=hook.line("TYPE"),
        resource=template.line("RESOURCE"),
        state=template.line("STATE"),
        command=template.line("COMMAND"),
        arguments=template.line("ARGUMENTS"),
    )


def _monitoring(record: Fields) -> Monitoring:
    return Monitoring(id=record.integer("ID"), monitored_at=record.integer("TIMESTAMP"))


USER = Kind(root="USER", item="USER", build=_user)
HOST = Kind(root="HOST", item="HOST", build=_host)
HOSTS = Kind(root="HOST_POOL", item="HOST", build=_host)
VM = Kind(root="VM", item="VM", build=_vm)
VMS = Kind(root="VM_POOL", item="VM", build=_vm)
DATASTORES = Kind(root="DATASTORE_POOL", item="DATASTORE", build=_datastore)
CLUSTERS = Kind(root="CLUSTER_POOL", item="CLUSTER", build=_cluster)
HOOKS = Kind(root="HOOK_POOL", item="HOOK", build=_hook)
MONITORING = Kind(root="MONITORING_DATA", item="MONITORING", build=_monitoring)
