"""oned's documents: the same elements in the same order as a real oned 7.4.0 writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape

from ha_controller.sim.oned_model import Datastore, History, OnedHost, OnedVm, VmGroup
from ha_controller.sim.oned_state import Oned
from ha_controller.sim.oned_users import OnedUser


def cdata(text: object) -> str:
    """Text as oned wraps it."""
    return "<![CDATA[" + str(text).replace("]]>", "]]]]><![CDATA[>") + "]]>"


def tag(name: str, inner: object) -> str:
    """An element with ready content."""
    return f"<{name}>{inner}</{name}>"


def attributes(values: Mapping[str, str | dict[str, str]]) -> str:
    """A template; a vector attribute is an element of elements."""
    return "".join(
        tag(name, attributes({**value}) if isinstance(value, dict) else cdata(value))
        for name, value in sorted(values.items())
    )


def host(oned: Oned, known: OnedHost, *, in_pool: bool = False) -> str:
    """HOST; a pool leaves its monitoring data out."""
    cpu, mem_kb = oned.lifecycle.usage(known.id)
    total_cpu, total_mem = (known.total_cpu, known.total_mem_kb) if known.capacity_known else (0, 0)
    vms = [vm.id for vm in oned.lifecycle.on_host(known.id)]
    share = (
        f"<MEM_USAGE>{mem_kb}</MEM_USAGE><CPU_USAGE>{cpu}</CPU_USAGE><TOTAL_MEM>{total_mem}</TOTAL_MEM>"
        f"<TOTAL_CPU>{total_cpu}</TOTAL_CPU><MAX_MEM>{total_mem}</MAX_MEM><MAX_CPU>{total_cpu}</MAX_CPU>"
        f"<RUNNING_VMS>{len(vms)}</RUNNING_VMS><VMS_THREAD>1</VMS_THREAD><DATASTORES>"
        + "".join(tag(name, cdata(0)) for name in ("DISK_USAGE", "FREE_DISK", "MAX_DISK", "USED_DISK"))
        + "</DATASTORES><PCI_DEVICES></PCI_DEVICES><NUMA_NODES></NUMA_NODES>"
    )
    template: dict[str, str | dict[str, str]] = {
        "ARCH": "x86_64", "CPUSPEED": "3200", "HOSTNAME": known.name, "HYPERVISOR": "kvm", "IM_MAD": "kvm",
        "MODELNAME": "Example CPU", "RESERVED_CPU": "", "RESERVED_MEM": "", "VM_MAD": "kvm", **known.attributes,
    }  # fmt: skip
    if total_cpu:
        template |= {"TOTALCPU": str(total_cpu), "TOTALMEMORY": str(total_mem)}
    return _host(known, share, vms, template, "<MONITORING></MONITORING>" if in_pool else monitoring(known))


def monitoring(known: OnedHost) -> str:
    """MONITORING: the latest record of a host."""
    inner = (
        f"<TIMESTAMP>{int(known.monitored_at)}</TIMESTAMP><ID>{known.id}</ID><CAPACITY>"
        + "".join(tag(name, cdata(1000)) for name in ("FREE_CPU", "FREE_MEMORY", "USED_CPU", "USED_MEMORY"))
        + f"</CAPACITY><SYSTEM>{tag('NETRX', cdata(1000))}{tag('NETTX', cdata(1000))}</SYSTEM>"
    )
    return tag("MONITORING", inner)


def _host(
    known: OnedHost, share: str, vms: list[int], template: Mapping[str, str | dict[str, str]], monitored: str
) -> str:
    return (
        f"<HOST><ID>{known.id}</ID><NAME>{escape(known.name)}</NAME><STATE>{known.state}</STATE>"
        f"<PREV_STATE>{known.state}</PREV_STATE><IM_MAD>{cdata('kvm')}</IM_MAD><VM_MAD>{cdata('kvm')}</VM_MAD>"
        f"<CLUSTER_ID>{known.cluster}</CLUSTER_ID><CLUSTER>{escape(known.cluster_name)}</CLUSTER>"
        f"<HOST_SHARE>{share}</HOST_SHARE><VMS>{''.join(f'<ID>{vm}</ID>' for vm in vms)}</VMS>"
        f"<TEMPLATE>{attributes(template)}</TEMPLATE>{monitored}</HOST>"
    )


_PERMISSIONS = "".join(
    f"<{who}_{right}>{int(who == 'OWNER' and right != 'A')}</{who}_{right}>"
    for who in ("OWNER", "GROUP", "OTHER")
    for right in "UMA"
)


def vm(oned: Oned, known: OnedVm, *, all_history: bool) -> str:
    """VM, the full document; pools have the last history record only."""
    store = oned.datastores[known.datastore]
    disk = {
        "CLUSTER_ID": str(oned.hosts[known.host].cluster), "DATASTORE": "images", "DATASTORE_ID": "101",
        "DEV_PREFIX": "vd", "DISK_ID": "0", "DISK_TYPE": "FILE", "DRIVER": "qcow2", "SIZE": "1024", "TARGET": "vda",
        "TM_MAD": store.tm_mad, "TYPE": "FILE",
    }  # fmt: skip
    cluster = oned.hosts[known.host].cluster
    groups = "".join(
        tag("VMGROUP", attributes({"ROLE": role, "VMGROUP_ID": str(group)})) for group, role in known.groups
    )
    template = (
        tag("AUTOMATIC_REQUIREMENTS", cdata(f"(CLUSTER_ID = {cluster}) & !(PIN_POLICY = PINNED)"))
        + f"<CPU>{cdata(known.cpu / 100)}</CPU><DISK>{attributes(disk)}</DISK><MEMORY>{cdata(known.memory_mb)}</MEMORY>"
        f"<TEMPLATE_ID>{cdata(0)}</TEMPLATE_ID><TM_MAD_SYSTEM>{cdata(store.tm_mad)}</TM_MAD_SYSTEM>"
        f"<VCPU>{cdata(1)}</VCPU>"
        f"{groups}<VMID>{cdata(known.id)}</VMID>"
    )
    if known.address:
        card = {"IP": known.address, "NETWORK": "net", "NETWORK_ID": "0", "NIC_ID": "0"}
        template += tag("NIC", attributes(card))
    records = known.history if all_history else known.history[-1:]
    lock = "<LOCK><LOCKED>4</LOCKED><OWNER>0</OWNER><TIME>0</TIME><REQ_ID>-1</REQ_ID></LOCK>" if known.locked else ""
    return (
        f"<VM><ID>{known.id}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
        f"<NAME>{escape(known.name)}</NAME><PERMISSIONS>{_PERMISSIONS}</PERMISSIONS><LAST_POLL>0</LAST_POLL>"
        f"<STATE>{known.state}</STATE><LCM_STATE>{known.lcm_state}</LCM_STATE><PREV_STATE>{known.state}</PREV_STATE>"
        f"<PREV_LCM_STATE>{known.lcm_state}</PREV_LCM_STATE><RESCHED>{int(known.resched)}</RESCHED>"
        f"<STIME>{int(known.history[0].started_at)}</STIME><ETIME>0</ETIME><DEPLOY_ID>one-{known.id}</DEPLOY_ID>{lock}"
        f"<MONITORING></MONITORING><SCHED_ACTIONS></SCHED_ACTIONS><TEMPLATE>{template}</TEMPLATE>"
        f"<USER_TEMPLATE>{attributes(known.attributes)}</USER_TEMPLATE><HISTORY_RECORDS>"
        + "".join(_history(oned, known, record, store) for record in records)
        + "</HISTORY_RECORDS><BACKUPS><BACKUP_CONFIG/><BACKUP_IDS></BACKUP_IDS></BACKUPS></VM>"
    )


def _history(oned: Oned, known: OnedVm, record: History, store: Datastore) -> str:
    at = oned.hosts[record.host]
    numbers = {
        "DS_ID": store.id, "PLAN_ID": -2, "ACTION_ID": -1, "PSTIME": int(record.started_at),
        "PETIME": int(record.started_at), "RSTIME": int(record.started_at) if record.ran else 0,
        "RETIME": int(record.ended_at or record.found_missing_at), "ESTIME": 0,
        "EETIME": 0, "ACTION": 44 if record.found_missing_at else 0, "UID": -1, "GID": -1, "REQUEST_ID": -1,
    }  # fmt: skip
    return (
        f"<HISTORY><OID>{known.id}</OID><SEQ>{record.seq}</SEQ><HOSTNAME>{escape(at.name)}</HOSTNAME><HID>{at.id}</HID>"
        f"<CID>{at.cluster}</CID><STIME>{int(record.started_at)}</STIME><ETIME>{int(record.ended_at)}</ETIME>"
        f"<VM_MAD>{cdata('kvm')}</VM_MAD><TM_MAD>{cdata(store.tm_mad)}</TM_MAD>"
        + "".join(tag(name, value) for name, value in numbers.items())
        + "</HISTORY>"
    )


def datastore(known: Datastore) -> str:
    """DATASTORE."""
    template = {
        "SHARED": "YES" if known.shared else "NO", "TM_MAD": known.tm_mad,
        "TYPE": "SYSTEM_DS" if known.type == 1 else "IMAGE_DS",
    }  # fmt: skip
    return (
        f"<DATASTORE><ID>{known.id}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
        f"<NAME>{escape(known.name)}</NAME><PERMISSIONS>{_PERMISSIONS}</PERMISSIONS><DS_MAD>{cdata('-')}</DS_MAD>"
        f"<TM_MAD>{cdata(known.tm_mad)}</TM_MAD><BASE_PATH>{cdata(f'/var/lib/one//datastores/{known.id}')}</BASE_PATH>"
        f"<TYPE>{known.type}</TYPE><DISK_TYPE>0</DISK_TYPE><STATE>0</STATE>"
        f"<CLUSTERS>{''.join(f'<ID>{cluster}</ID>' for cluster in known.clusters)}</CLUSTERS>"
        "<TOTAL_MB>4796800</TOTAL_MB><FREE_MB>3333260</FREE_MB><USED_MB>1429920</USED_MB><IMAGES></IMAGES>"
        f"<TEMPLATE>{attributes(template)}</TEMPLATE></DATASTORE>"
    )


def cluster(number: int, name: str, hosts: Iterable[int], datastores: Iterable[int]) -> str:
    """CLUSTER."""
    ids = ["".join(tag("ID", item) for item in sorted(items)) for items in (hosts, datastores)]
    return (
        f"<CLUSTER><ID>{number}</ID><NAME>{escape(name)}</NAME><HOSTS>{ids[0]}</HOSTS><DATASTORES>{ids[1]}</DATASTORES>"
        f"<VNETS></VNETS><TEMPLATE>{attributes({'RESERVED_CPU': '', 'RESERVED_MEM': ''})}</TEMPLATE></CLUSTER>"
    )


def vm_group(known: VmGroup) -> str:
    """VM_GROUP."""
    roles = "".join(
        tag("ROLE", "".join(tag(name, cdata(value)) for name, value in {"ID": str(number), **role}.items()))
        for number, role in enumerate(known.roles)
    )
    return (
        f"<VM_GROUP><ID>{known.id}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
        f"<NAME>{escape(known.name)}</NAME><PERMISSIONS>{_PERMISSIONS}</PERMISSIONS><ROLES>{roles}</ROLES>"
        f"<TEMPLATE>{attributes({**known.rules})}</TEMPLATE></VM_GROUP>"
    )


def user(known: OnedUser) -> str:
    """USER; passwords are shown as zeros."""
    group, group_name = (0, "oneadmin") if known.admin else (1, "users")
    quotas = "".join(f"<{kind}_QUOTA></{kind}_QUOTA>" for kind in ("DATASTORE", "NETWORK", "VM", "IMAGE"))
    tokens = "".join(
        f"<LOGIN_TOKEN><TOKEN>{token}</TOKEN><EXPIRATION_TIME>{int(expires)}</EXPIRATION_TIME><EGID>-1</EGID></LOGIN_TOKEN>"
        for token, expires in known.tokens.items()
    )
    return (
        f"<USER><ID>{known.id}</ID><GID>{group}</GID><GROUPS><ID>{group}</ID></GROUPS><GNAME>{group_name}</GNAME>"
        f"<NAME>{escape(known.name)}</NAME><PASSWORD>{cdata('0' * 64)}</PASSWORD>"
        f"<AUTH_DRIVER>{cdata('core')}</AUTH_DRIVER><ENABLED>1</ENABLED>{tokens}<TEMPLATE>{attributes(known.template)}</TEMPLATE>{quotas}"
        f"<DEFAULT_USER_QUOTAS>{quotas}</DEFAULT_USER_QUOTAS></USER>"
    )


def zone(servers: Mapping[int, str]) -> str:
    """ZONE; the endpoints of its servers by their numbers, none if oned is alone."""
    template = {"ENDPOINT": "http://localhost:2633/RPC2", "ENDPOINT_GRPC": "localhost:2634"}
    pool = "".join(
        f"<SERVER><ENDPOINT>{cdata(endpoint)}</ENDPOINT><ID>{number}</ID><NAME>{cdata(f'server-{number}')}</NAME></SERVER>"
        for number, endpoint in servers.items()
    )
    return (
        f"<ZONE><ID>0</ID><NAME>OpenNebula</NAME><STATE>0</STATE><TEMPLATE>{attributes({**template})}</TEMPLATE>"
        f"<SERVER_POOL>{pool}</SERVER_POOL></ZONE>"
    )


def raft(**values: int) -> str:
    """RAFT: what a server says about itself."""
    return tag("RAFT", "".join(tag(name, str(value)) for name, value in values.items()))


def hook(number: int, template: Mapping[str, str | dict[str, str]]) -> str:
    """HOOK."""
    inner = attributes({key: value for key, value in template.items() if key not in ("NAME", "TYPE")})
    return (
        f"<HOOK><ID>{number}</ID><NAME>{escape(str(template['NAME']))}</NAME><TYPE>{escape(str(template['TYPE']))}</TYPE>"
        f"<TEMPLATE>{inner}</TEMPLATE></HOOK>"
    )


def pool(name: str, documents: Iterable[str]) -> str:
    """A pool; oned lists the newest id first."""
    return f"<{name}>{''.join(documents)}</{name}>"
