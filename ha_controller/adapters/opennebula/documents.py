"""OpenNebula's documents: which element becomes which field of a model.

It reads only what a decision needs; unknown elements and states pass. Names of secrets are left out, and no text that a
VM's owner wrote is shown by `repr`.

Element names: share/doc/xsd of OpenNebula, and what oned 7.4 was seen to send.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from sys import intern

from ha_controller.adapters.opennebula.hardware import asked_devices, asked_topology, free_devices, numa_nodes
from ha_controller.adapters.opennebula.models import (
    Monitoring,
    OnedCluster,
    OnedDatastore,
    OnedDisk,
    OnedHook,
    OnedHost,
    OnedStay,
    OnedUser,
    OnedVm,
    OnedZone,
    RaftStatus,
)
from ha_controller.adapters.opennebula.reader import BadDocument, Fields, Kind
from ha_controller.core.resources import Role, VmGroup

_MONITOR = 44  #: HISTORY/ACTION
#: what requirements can look at of a host's share
_SHARE = ("MAX_CPU", "CPU_USAGE", "TOTAL_CPU", "MAX_MEM", "MEM_USAGE", "TOTAL_MEM", "RUNNING_VMS", "VMS_THREAD")
_CORES_MAX = 1e6
_SECRET = re.compile("PASSWORD|TOKEN|SECRET|PRIVATE_KEY")


def _user(user: Fields) -> OnedUser:
    attributes = user.below("TEMPLATE").attributes()
    return OnedUser(
        id=user.integer("ID"),
        name=user.line("NAME"),
        group_id=user.integer("GID"),
        group_name=user.line("GNAME"),
        group_ids=user.ids("GROUPS"),
        template={name: value for name, value in attributes.items() if not _SECRET.search(name)},
        login_tokens=tuple(token.text("TOKEN") for token in user.every("LOGIN_TOKEN")),
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
        repeated=template.repeated(),
        share=host.some("IM_MAD", "CLUSTER") | share.some(*_SHARE),
        monitoring=_told(host.below("MONITORING")),
        pci=free_devices(share),
        numa=numa_nodes(share, pinned=template.text("PIN_POLICY").upper() == "PINNED"),
    )


def _told(monitoring: Fields) -> dict[str, str]:
    """What requirements can look at of a host's monitoring."""
    return monitoring.below("CAPACITY").attributes() | monitoring.below("SYSTEM").attributes()


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
        stays=tuple(_stay(record) for record in history[:-1]),
        seq=last.integer("SEQ", 0),
        placed_at=last.integer("STIME", 0),
        cluster_id=last.optional("CID"),
        ds_id=last.optional("DS_ID"),
        vm_mad=last.line("VM_MAD"),
        tm_mad=last.line("TM_MAD"),
        deploy_id=vm.line("DEPLOY_ID"),
        os_uuid=template.below("OS").line("UUID").lower(),
        cpu=_cores(template.text("CPU")),
        memory_mb=template.integer("MEMORY", 0),
        locked=lock_level > 0,
        lock_level=lock_level,
        pci=asked_devices(template),
        numa=asked_topology(template),
        disks=_disks(template),
        addresses=_addresses(template),
        automatic_requirements=intern(template.text("AUTOMATIC_REQUIREMENTS")),
        sched_requirements=user_template.text("SCHED_REQUIREMENTS") or template.text("SCHED_REQUIREMENTS"),
        vmgroup_id=group.optional("VMGROUP_ID"),
        vmgroup_role=group.line("ROLE"),
        started_at=last.integer("RSTIME", 0),
        found_missing_at=_found_missing_at(last),
        resched=vm.integer("RESCHED", 0) != 0,
        attributes=user_template.attributes(),
    )


def _stay(record: Fields) -> OnedStay:
    ran = record.integer("RSTIME", 0) > 0
    return OnedStay(host_id=record.integer("HID"), ended_at=record.integer("ETIME", 0), ran=ran)


def _found_missing_at(last: Fields) -> int:
    """oned writes its own action 44, of nobody, when a VM is not there any more (recording 119)."""
    is_its_own = last.integer("ACTION", 0) == _MONITOR and last.integer("UID", 0) == -1
    return last.integer("RETIME", 0) if is_its_own else 0


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


def _addresses(template: Fields) -> tuple[str, ...]:
    """Of cards in virtual networks, that OpenNebula has leased to them; an alias comes after all cards."""
    cards = [card for name in ("NIC", "NIC_ALIAS") for card in template.every(name) if card.text("NETWORK_ID")]
    return tuple(address for card in cards for address in _leased(card))


def _leased(card: Fields) -> list[str]:
    """IP and IP6 are checked against the network's ranges, whoever wrote them into the template.

    The other two are made of a prefix and the card's MAC address. In a network without such a prefix oned keeps what
    the owner of the VM wrote there (`AddressRange::set_ip6`), which may be the address of anything.
    """
    made = [card.line(name) for name in ("IP6_GLOBAL", "IP6_ULA")]
    checked = [card.line("IP"), card.line("IP6")]
    return [*filter(None, checked), *(address for address in made if _is_of_mac(address, card.line("MAC")))]


def _is_of_mac(address: str, mac: str) -> bool:
    """Whether the last half of an address is the modified EUI-64 of a MAC address."""
    try:
        last, octets = IPv6Address(address).packed[8:], bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        return False
    return len(octets) == 6 and last == bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])


def _cores(text: str) -> float:
    """Owners write it, in any way that C++ reads; what is no number is more than any host has."""
    if not text:
        return 0.0
    is_number = re.fullmatch(r"\s*\+?([0-9]{1,9}\.?[0-9]{0,18}|\.[0-9]{1,18})([eE][+-]?[0-9]{1,2})?\s*", text)
    return min(float(text), _CORES_MAX) if is_number else _CORES_MAX


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
    return Monitoring(id=record.integer("ID"), monitored_at=record.integer("TIMESTAMP"), values=_told(record))


def _zone(zone: Fields) -> OnedZone:
    servers = zone.below("SERVER_POOL").every("SERVER")
    return OnedZone(
        id=zone.integer("ID"),
        name=zone.line("NAME"),
        servers={server.integer("ID"): server.line("ENDPOINT") for server in servers},
    )


def _raft(status: Fields) -> RaftStatus:
    return RaftStatus(
        id=status.integer("SERVER_ID"),
        state=status.integer("STATE"),
        term=status.integer("TERM"),
        commit=status.integer("COMMIT"),
        log_index=status.integer("LOG_INDEX"),
    )


def _vm_group(group: Fields) -> VmGroup:
    template = group.below("TEMPLATE")
    rules = {name: (value,) for name, value in template.some("AFFINED", "ANTI_AFFINED").items()} | template.repeated()
    return VmGroup(
        id=group.integer("ID"),
        name=group.line("NAME"),
        roles=tuple(_role(role) for role in group.below("ROLES").every("ROLE")),
        affined=tuple(_words(rule) for rule in rules.get("AFFINED", ())),
        anti_affined=tuple(_words(rule) for rule in rules.get("ANTI_AFFINED", ())),
    )


def _role(role: Fields) -> Role:
    return Role(
        name=role.line("NAME"),
        vms=_numbers(role, "VMS"),
        policy=role.line("POLICY").upper(),
        hosts=_numbers(role, "HOST_AFFINED"),
        not_hosts=_numbers(role, "HOST_ANTI_AFFINED"),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _numbers(role: Fields, name: str) -> tuple[int, ...]:
    words = _words(role.text(name))
    if not all(re.fullmatch("-?[0-9]{1,18}", word) for word in words):
        raise BadDocument(f"{name} is not a list of numbers")
    return tuple(map(int, words))


USER = Kind(root="USER", item="USER", build=_user)
HOST = Kind(root="HOST", item="HOST", build=_host)
HOSTS = Kind(root="HOST_POOL", item="HOST", build=_host)
VM = Kind(root="VM", item="VM", build=_vm)
VMS = Kind(root="VM_POOL", item="VM", build=_vm)
DATASTORES = Kind(root="DATASTORE_POOL", item="DATASTORE", build=_datastore)
CLUSTERS = Kind(root="CLUSTER_POOL", item="CLUSTER", build=_cluster)
VM_GROUPS = Kind(root="VM_GROUP_POOL", item="VM_GROUP", build=_vm_group)
HOOKS = Kind(root="HOOK_POOL", item="HOOK", build=_hook)
MONITORING = Kind(root="MONITORING_DATA", item="MONITORING", build=_monitoring)
ZONES = Kind(root="ZONE_POOL", item="ZONE", build=_zone)
RAFT = Kind(root="RAFT", item="RAFT", build=_raft)
