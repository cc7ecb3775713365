"""An oned that only answers what is asked of it in a pool: documents of a large cloud, made once and sent from files.

`python -m bench.canned FOLDER` serves what `make_pools` wrote and prints its port. Element names are those of
OpenNebula's share/doc/xsd; the sizes are those of hosts with 64 cores and of VMs with two disks and two cards. What
owners of VMs may write holds markup that looks like another VM: a reader that is taken in counts wrong.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from bench.harness import ROOT, Wrong, environment

CORES, FAKE = 64, "]] ></VM><VM><ID>77777777</ID></VM>"
_HEAD = (
    "<?xml version='1.0' encoding='UTF-8'?>\n<methodResponse>\n<params>\n<param><value><array><data>\n"
    "<value><boolean>1</boolean></value>\n<value><string>"
)
_TAIL = "</string></value>\n<value><i4>0</i4></value>\n</data></array></value></param>\n</params>\n</methodResponse>\n"
_EMPTY = {
    "datastorepool.info": "<DATASTORE_POOL></DATASTORE_POOL>",
    "clusterpool.info": "<CLUSTER_POOL></CLUSTER_POOL>",
    "vmgrouppool.info": "<VM_GROUP_POOL></VM_GROUP_POOL>",
    "hookpool.info": "<HOOK_POOL></HOOK_POOL>",
    "zonepool.info": "<ZONE_POOL></ZONE_POOL>",
    "system.version": "7.4.0",
    "user.info": "<USER><ID>0</ID><GID>0</GID><GROUPS><ID>0</ID></GROUPS><NAME>oneadmin</NAME><TEMPLATE/></USER>",
}


def host_of(vm: int, hosts: int) -> int:
    """Where a VM runs: this is what a reader has to find out."""
    return vm % hosts


def make_pools(hosts: int, vms: int, *, address: str = "127.1.{0}.{1}", extended: bool = True) -> Path:
    """Write the answers unless they are there; returns their folder. `extended`: the VMs' own documents, too."""
    folder = ROOT / f".bench/pools/{hosts}-{vms}-{address.split('.')[0]}"
    kinds = {"hostpool.info": _hosts(hosts, vms, address), "hostpool.monitoring": _monitoring(hosts)}
    if extended:
        kinds["vmpool.infoextended"] = _vms(hosts, range(vms))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cloud").write_text(f"{hosts} {vms} {address}")
    for name, pieces in kinds.items():
        if not (folder / name).exists():
            with (folder / f"{name}.new").open("w") as file:
                file.write(_HEAD)
                file.writelines(escape(piece) for piece in pieces)
                file.write(_TAIL)
            (folder / f"{name}.new").rename(folder / name)
    return folder


def _hosts(hosts: int, vms: int, address: str) -> Iterator[str]:
    yield "<HOST_POOL>"
    yield from (_host(number, hosts, vms, address) for number in range(hosts))
    yield "</HOST_POOL>"


def _host(number: int, hosts: int, vms: int, address: str) -> str:
    cores = "".join(
        f"<CORE><CPUS><![CDATA[{core}:-1,{core + CORES}:-1]]></CPUS><DEDICATED><![CDATA[NO]]></DEDICATED>"
        f"<FREE><![CDATA[2]]></FREE><ID><![CDATA[{core}]]></ID></CORE>"
        for core in range(CORES // 2)
    )
    nodes = "".join(
        f"<NODE>{cores}<HUGEPAGE><PAGES><![CDATA[0]]></PAGES><SIZE><![CDATA[2048]]></SIZE><USAGE><![CDATA[0]]></USAGE>"
        f"</HUGEPAGE><MEMORY><DISTANCE><![CDATA[{number} {1 - number}]]></DISTANCE><TOTAL><![CDATA[263999999]]></TOTAL>"
        f"<USAGE><![CDATA[0]]></USAGE></MEMORY><NODE_ID><![CDATA[{number}]]></NODE_ID></NODE>"
        for number in range(2)
    )
    stores = "".join(
        f"<DS><FREE_MB><![CDATA[3333260]]></FREE_MB><ID><![CDATA[{number}]]></ID><TOTAL_MB><![CDATA[4796800]]></TOTAL_MB>"
        "<USED_MB><![CDATA[1429920]]></USED_MB></DS>"
        for number in range(2)
    )
    more = "".join(f"<{name}><![CDATA[value of {name}]]></{name}>" for name in _TEMPLATE)
    own = "".join(f"<ID>{vm}</ID>" for vm in range(number, vms, hosts))
    at = address.format(number >> 8, number & 255)
    return (
        f"<HOST><ID>{number}</ID><NAME>kvm-{number:05}</NAME><STATE>2</STATE><PREV_STATE>2</PREV_STATE>"
        "<IM_MAD><![CDATA[kvm]]></IM_MAD><VM_MAD><![CDATA[kvm]]></VM_MAD><CLUSTER_ID>0</CLUSTER_ID>"
        "<CLUSTER>default</CLUSTER><HOST_SHARE><MEM_USAGE>41943040</MEM_USAGE><CPU_USAGE>2000</CPU_USAGE>"
        "<TOTAL_MEM>527999999</TOTAL_MEM><TOTAL_CPU>12800</TOTAL_CPU><MAX_MEM>527999999</MAX_MEM>"
        "<MAX_CPU>12800</MAX_CPU><RUNNING_VMS>20</RUNNING_VMS><VMS_THREAD>1</VMS_THREAD>"
        f"<DATASTORES>{stores}<DISK_USAGE><![CDATA[0]]></DISK_USAGE></DATASTORES><PCI_DEVICES></PCI_DEVICES>"
        f"<NUMA_NODES>{nodes}</NUMA_NODES></HOST_SHARE><VMS>{own}</VMS><TEMPLATE>"
        f"<HA_ADDRESS><![CDATA[{at}]]></HA_ADDRESS><HOSTNAME><![CDATA[kvm-{number:05}]]></HOSTNAME>{more}</TEMPLATE>"
        "<MONITORING></MONITORING></HOST>"
    )


_TEMPLATE = (
    "ARCH", "CGROUPS_VERSION", "CPUSPEED", "HYPERVISOR", "IM_MAD", "KVM_CPU_MODEL", "KVM_CPU_MODELS", "KVM_MACHINES",
    "MODELNAME", "RESERVED_CPU", "RESERVED_MEM", "TOTALCPU", "TOTALMEMORY", "VERSION", "VM_MAD", "RACK", "ROOM",
)  # fmt: skip


def _monitoring(hosts: int) -> Iterator[str]:
    yield "<MONITORING_DATA>"
    for number in range(hosts):
        yield (
            f"<MONITORING><TIMESTAMP>1790000000</TIMESTAMP><ID>{number}</ID><CAPACITY><FREE_CPU><![CDATA[9000]]></FREE_CPU>"
            "<FREE_MEMORY><![CDATA[400000000]]></FREE_MEMORY><USED_CPU><![CDATA[3800]]></USED_CPU>"
            "<USED_MEMORY><![CDATA[127999999]]></USED_MEMORY></CAPACITY><SYSTEM><NETRX><![CDATA[1000]]></NETRX>"
            "<NETTX><![CDATA[1000]]></NETTX></SYSTEM></MONITORING>"
        )
    yield "</MONITORING_DATA>"


def _vms(hosts: int, numbers: Iterable[int]) -> Iterator[str]:
    yield "<VM_POOL>"
    yield from (_vm(number, hosts) for number in numbers)
    yield "</VM_POOL>"


def _vm(number: int, hosts: int) -> str:
    disks = "".join(
        f"<DISK><ALLOW_ORPHANS><![CDATA[NO]]></ALLOW_ORPHANS><CLONE><![CDATA[YES]]></CLONE><DATASTORE><![CDATA[images]]>"
        f"</DATASTORE><DATASTORE_ID><![CDATA[1]]></DATASTORE_ID><DEV_PREFIX><![CDATA[vd]]></DEV_PREFIX>"
        f"<DISK_ID><![CDATA[{number}]]></DISK_ID><DRIVER><![CDATA[qcow2]]></DRIVER><IMAGE><![CDATA[alma]]></IMAGE>"
        f"<IMAGE_ID><![CDATA[{number}]]></IMAGE_ID><SIZE><![CDATA[10240]]></SIZE><SOURCE><![CDATA[/var/lib/one//datastores"
        f"/1/5c3a]]></SOURCE><TARGET><![CDATA[vd{number}]]></TARGET><TM_MAD><![CDATA[shared]]></TM_MAD></DISK>"
        for number in range(2)
    )
    cards = "".join(
        f"<NIC><AR_ID><![CDATA[0]]></AR_ID><BRIDGE><![CDATA[br{number}]]></BRIDGE><IP><![CDATA[192.0.2.7]]></IP>"
        f"<MAC><![CDATA[02:00:c0:00:02:07]]></MAC><NETWORK><![CDATA[lan]]></NETWORK><NETWORK_ID><![CDATA[{number}]]>"
        f"</NETWORK_ID><NIC_ID><![CDATA[{number}]]></NIC_ID><VN_MAD><![CDATA[bridge]]></VN_MAD></NIC>"
        for number in range(2)
    )
    notes = "".join(f"<NOTE_{number}><![CDATA[{FAKE} and more]]></NOTE_{number}>" for number in range(20))
    context = "".join(f"<VAR_{number}><![CDATA[$USER[NAME_{number}] {FAKE}]]></VAR_{number}>" for number in range(20))
    host = host_of(number, hosts)
    return (
        f"<VM><ID>{number}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
        f"<NAME>vm-{number}</NAME><PERMISSIONS><OWNER_U>1</OWNER_U><OWNER_M>1</OWNER_M></PERMISSIONS>"
        "<LAST_POLL>0</LAST_POLL><STATE>3</STATE><LCM_STATE>3</LCM_STATE><PREV_STATE>3</PREV_STATE>"
        "<PREV_LCM_STATE>3</PREV_LCM_STATE><RESCHED>0</RESCHED><STIME>1790000000</STIME><ETIME>0</ETIME>"
        f"<DEPLOY_ID>one-{number}</DEPLOY_ID><MONITORING><CPU><![CDATA[2.5]]></CPU></MONITORING><TEMPLATE>"
        f"<AUTOMATIC_REQUIREMENTS><![CDATA[(CLUSTER_ID = 0) & !(PIN_POLICY = PINNED)]]></AUTOMATIC_REQUIREMENTS>"
        f"<CONTEXT>{context}</CONTEXT><CPU><![CDATA[1]]></CPU>{disks}<MEMORY><![CDATA[2048]]></MEMORY>{cards}"
        f"<VCPU><![CDATA[2]]></VCPU><VMID><![CDATA[{number}]]></VMID></TEMPLATE><USER_TEMPLATE>{notes}</USER_TEMPLATE>"
        f"<HISTORY_RECORDS><HISTORY><OID>{number}</OID><SEQ>0</SEQ><HOSTNAME>kvm-{host:05}</HOSTNAME><HID>{host}</HID>"
        "<CID>0</CID><STIME>1790000000</STIME><ETIME>0</ETIME><VM_MAD><![CDATA[kvm]]></VM_MAD>"
        "<TM_MAD><![CDATA[shared]]></TM_MAD><DS_ID>0</DS_ID><RSTIME>1790000000</RSTIME><RETIME>0</RETIME>"
        "<ACTION>0</ACTION></HISTORY></HISTORY_RECORDS></VM>"
    )


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """It serves that folder in a process of its own; yields the endpoint."""
    command = [sys.executable, "-m", "bench.canned", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not (port := process.stdout.readline().strip()):
                raise Wrong("the canned oned did not start")
            yield f"http://127.0.0.1:{port}/RPC2"
        finally:
            process.kill()


def _small(folder: Path, method: str, body: bytes) -> str:
    """What is asked about one host or some VMs is made when it is asked for."""
    hosts, vms, address = (folder / "cloud").read_text().split()
    given = [
        int(number)
        for number in re.findall(r"\d+", re.findall(rb"<(?:int|i4|string)>([\d,]+)<", body + b"<int>0<")[0].decode())
    ]
    if method == "host.info":
        return _host(given[0], int(hosts), int(vms), address)
    if method == "vmpool.infoset":
        return "".join(_vms(int(hosts), given))
    return _EMPTY.get(method, "")


async def _answer(folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One call per connection, as oned does."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = await reader.readexactly(int(re.search(r"content-length: *(\d+)", head)[1]))  # type: ignore[index]
        method = re.search(rb"<methodName>one\.([\w.]+)<", body)[1].decode()  # type: ignore[index]
        file = folder / method
        small = "" if file.exists() else _HEAD + escape(_small(folder, method, body)) + _TAIL
        size = file.stat().st_size if file.exists() else len(small)
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        if small:
            writer.write(small.encode())
        else:
            with file.open("rb") as opened:
                await asyncio.get_running_loop().sendfile(writer.transport, opened)
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError, TypeError):
        pass
    finally:
        writer.close()


async def _serve(folder: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: _answer(folder, reader, writer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
