"""What the models tell, where the recordings of a real oned have no example."""

from __future__ import annotations

import dataclasses

import pytest

from ha_controller.adapters.opennebula import (
    LcmState,
    OnedHostState,
    OnedStay,
    VmState,
    host_state_name,
    vm_state_name,
)
from ha_controller.adapters.opennebula.models import OnedUser

VM = """<VM><ID>7</ID><NAME>db</NAME><STATE>3</STATE><LCM_STATE>16</LCM_STATE><RESCHED>1</RESCHED>
<DEPLOY_ID>one-7</DEPLOY_ID><LOCK><LOCKED>4</LOCKED><OWNER>0</OWNER></LOCK>
<TEMPLATE><CPU><![CDATA[1.5]]></CPU><MEMORY><![CDATA[2048]]></MEMORY>
<AUTOMATIC_REQUIREMENTS><![CDATA[(CLUSTER_ID = 100)]]></AUTOMATIC_REQUIREMENTS>
<DISK><DISK_ID>0</DISK_ID><DATASTORE_ID>1</DATASTORE_ID><IMAGE_ID>4</IMAGE_ID><TM_MAD>qcow2</TM_MAD>
<TM_MAD_SYSTEM>ssh</TM_MAD_SYSTEM></DISK>
<DISK><DISK_ID>1</DISK_ID><TYPE>swap</TYPE></DISK>
<PCI><VENDOR>10de</VENDOR></PCI><TM_MAD_SYSTEM>shared</TM_MAD_SYSTEM>
<VMGROUP><ROLE>main</ROLE><VMGROUP_ID>3</VMGROUP_ID></VMGROUP></TEMPLATE>
<USER_TEMPLATE><HA_POLICY><![CDATA[leave]]></HA_POLICY><HA_POLICY><![CDATA[move]]></HA_POLICY>
<SCHED_REQUIREMENTS><![CDATA[ARCH="x"]]></SCHED_REQUIREMENTS></USER_TEMPLATE>
<HISTORY_RECORDS>
<HISTORY><SEQ>0</SEQ><HID>1</HID><ETIME>1794</ETIME><CID>100</CID><DS_ID>100</DS_ID><VM_MAD>kvm</VM_MAD><TM_MAD>a</TM_MAD></HISTORY>
<HISTORY><SEQ>1</SEQ><HID>2</HID><STIME>1794</STIME><CID>101</CID><DS_ID>102</DS_ID><VM_MAD>qemu</VM_MAD><TM_MAD>b</TM_MAD>
<RSTIME>1795</RSTIME></HISTORY></HISTORY_RECORDS></VM>"""

BARE_VM = "<VM><ID>8</ID><STATE>1</STATE><LCM_STATE>0</LCM_STATE></VM>"


@pytest.fixture
def reader_of(serve, client_of, ok):
    """Make a call whose answer is this document."""

    async def read(method: str, document: str, name: str, *arguments: object):
        peer = await serve({method: ok(document)})
        async with client_of(peer) as client:
            return await getattr(client, name)(*arguments)

    return read


async def test_a_vm_tells_what_decides_about_its_move(reader_of):
    vm = await reader_of("one.vm.info", VM, "vm", 7)
    assert (vm.host_id, vm.stays, vm.cluster_id, vm.ds_id) == (
        2,
        (OnedStay(host_id=1, ended_at=1794, ran=False),),
        101,
        102,
    )
    assert (vm.seq, vm.placed_at) == (1, 1794)
    assert (vm.vm_mad, vm.tm_mad, vm.deploy_id, vm.started_at) == ("qemu", "b", "one-7", 1795)
    assert (vm.locked, vm.lock_level, vm.resched) == (True, 4, True)
    assert (vm.cpu, vm.memory_mb) == (1.5, 2048)
    assert (vm.vmgroup_id, vm.vmgroup_role) == (3, "main")
    assert (vm.automatic_requirements, vm.sched_requirements) == ("(CLUSTER_ID = 100)", 'ARCH="x"')
    assert vm.attributes["HA_POLICY"] == "leave"  # the first one, as oned itself looks it up


async def test_a_disk_tells_where_its_bytes_are(reader_of):
    image, volatile = (await reader_of("one.vm.info", VM, "vm", 7)).disks
    assert (image.id, image.ds_id, image.tm_mad, image.tm_mad_system, image.volatile) == (0, 1, "qcow2", "ssh", False)
    assert (volatile.id, volatile.ds_id, volatile.tm_mad_system, volatile.volatile) == (1, None, "shared", True)


async def test_a_vm_that_never_had_a_host_has_none(reader_of):
    vm = await reader_of("one.vm.info", BARE_VM, "vm", 8)
    assert (vm.host_id, vm.stays, vm.cluster_id, vm.ds_id) == (None, (), None, None)
    assert (vm.locked, vm.pci, vm.numa, vm.disks, vm.vmgroup_id, vm.attributes) == (False, (), None, (), None, {})


@pytest.mark.parametrize(
    ("shared", "meaning"),
    [
        ("<SHARED><![CDATA[YES]]></SHARED>", True),
        ("<SHARED><![CDATA[no]]></SHARED>", False),
        ("", None),
        ("<SHARED><![CDATA[perhaps]]></SHARED>", None),
    ],
)
async def test_a_datastore_is_shared_not_shared_or_silent_about_it(reader_of, shared, meaning):
    document = (
        "<DATASTORE_POOL><DATASTORE><ID>100</ID><NAME>system</NAME><TM_MAD>ssh</TM_MAD><TYPE>1</TYPE>"
        f"<CLUSTERS><ID>0</ID><ID>100</ID></CLUSTERS><TEMPLATE>{shared}</TEMPLATE>"
        "</DATASTORE></DATASTORE_POOL>"
    )
    [datastore] = await reader_of("one.datastorepool.info", document, "datastores")
    assert datastore.shared is meaning
    assert (datastore.type, datastore.tm_mad, datastore.cluster_ids) == (1, "ssh", (0, 100))


async def test_a_hook_tells_when_it_starts_what(reader_of):
    document = (
        "<HOOK_POOL><HOOK><ID>0</ID><NAME>host_error</NAME><TYPE>state</TYPE><TEMPLATE>"
        "<ARGUMENTS>-m</ARGUMENTS><COMMAND>ft/host_error.rb</COMMAND><RESOURCE>HOST</RESOURCE><STATE>ERROR</STATE></TEMPLATE></HOOK>"
        "</HOOK_POOL>"
    )
    [hook] = await reader_of("one.hookpool.info", document, "hooks")
    assert (hook.type, hook.resource, hook.state) == ("state", "HOST", "ERROR")
    assert (hook.command, hook.arguments) == ("ft/host_error.rb", "-m")


async def test_a_group_is_oneadmin_by_its_number(reader_of):
    document = "<USER><ID>2</ID><GID>{}</GID><GROUPS>{}</GROUPS><NAME>ha</NAME><TEMPLATE/></USER>"
    for group, groups, admin in ((0, "", True), (1, "<ID>1</ID><ID>0</ID>", True), (1, "<ID>1</ID>", False)):
        user = await reader_of("one.user.info", document.format(group, groups), "user")
        assert user.in_oneadmin is admin


async def test_vector_attributes_are_found_below_their_name(reader_of):
    document = (
        "<HOST><ID>1</ID><NAME>n</NAME><STATE>2</STATE><TEMPLATE><A><![CDATA[1]]></A>"
        "<HA_FENCE><ADDRESS><![CDATA[192.0.2.1]]></ADDRESS></HA_FENCE></TEMPLATE></HOST>"
    )
    host = await reader_of("one.host.info", document, "host", 1)
    assert host.template == {"A": "1", "HA_FENCE/ADDRESS": "192.0.2.1"}


async def test_models_cannot_be_changed(reader_of):
    vm = await reader_of("one.vm.info", BARE_VM, "vm", 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        vm.state = 3


async def test_no_ids_need_no_call(serve, client_of):
    peer = await serve()
    async with client_of(peer) as client:
        assert await client.vms([]) == []
    assert peer.requests == []


@pytest.fixture
def pretended_pool(serve, client_of, ok, raw_reply):
    """A VM pool of these ids that answers ranges and the page of the newest two, as oned does."""

    async def start(ids: set[int], *, on_read=lambda ids: None):
        peer = await serve()

        async def answer(writer):
            _, [_, _, (_, start), (_, end), _] = peer.requests[-1]
            low, high = int(start), int(end)
            shown = sorted(ids)[-2:] if high == -2 else sorted(number for number in ids if low <= number <= high)
            body = "".join(f"<VM><ID>{number}</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE></VM>" for number in shown)
            await raw_reply(writer, ok(f"<VM_POOL>{body}</VM_POOL>"))
            on_read(ids)

        peer.replies["one.vmpool.infoextended"] = answer
        return peer, client_of(peer)

    return start


@pytest.mark.parametrize(
    "ids",
    [
        set(),
        {0},
        {5},
        {2**31 - 1},
        {0, 3_000_000},
        set(range(1234)),
        {*range(700), *range(9_000_000, 9_001_500)},
    ],
)
async def test_all_vms_are_found_whatever_gaps_their_ids_have(pretended_pool, ids):
    peer, client = await pretended_pool(ids)
    async with client:
        assert [vm.id for vm in await client.all_vms()] == sorted(ids)
    assert len(peer.requests) < 40


async def test_no_vm_is_missed_while_others_end_and_begin(pretended_pool):
    ids = set(range(3000))
    steady = set(range(0, 3000, 2))

    def churn(ids: set[int]) -> None:
        for _ in range(100):
            ids.discard(max(ids - steady))
        ids.add(max(ids) + 1)

    _, client = await pretended_pool(ids, on_read=churn)
    async with client:
        found = [vm.id for vm in await client.all_vms()]
    assert steady <= set(found)
    assert len(found) == len(set(found))


def test_every_known_state_has_the_name_that_people_know():
    assert vm_state_name(VmState.ACTIVE, LcmState.PROLOG_MIGRATE_UNKNOWN_FAILURE) == "PROLOG_MIGRATE_UNKNOWN_FAILURE"
    assert vm_state_name(8, 0) == "POWEROFF"
    assert host_state_name(OnedHostState.OFFLINE) == "OFFLINE"
    assert sorted(LcmState) == [number for number in range(72) if number not in {13, 14}]


@pytest.mark.parametrize(
    ("state", "lcm_state", "text"),
    [
        (3, 72, "LCM_STATE 72"),
        (3, 13, "LCM_STATE 13"),
        (99, 3, "STATE 99"),
        (-1, -1, "STATE -1"),
    ],
)
def test_a_state_that_is_not_known_is_named_by_its_number(state, lcm_state, text):
    assert vm_state_name(state, lcm_state) == text


# --- what placement needs ---------------------------------------------------------------------------------------------

HOST = """<HOST><ID>4</ID><NAME>gpu-1</NAME><STATE>2</STATE><IM_MAD>kvm</IM_MAD><VM_MAD>kvm</VM_MAD>
<CLUSTER_ID>100</CLUSTER_ID><CLUSTER>prod</CLUSTER>
<HOST_SHARE><MEM_USAGE>1024</MEM_USAGE><CPU_USAGE>100</CPU_USAGE><MAX_MEM>8388608</MAX_MEM><MAX_CPU>1600</MAX_CPU>
<RUNNING_VMS>1</RUNNING_VMS><VMS_THREAD>1</VMS_THREAD>
<PCI_DEVICES>
<PCI><ADDRESS>0000:03:00:0</ADDRESS><SHORT_ADDRESS>03:00.0</SHORT_ADDRESS><VENDOR>10de</VENDOR><DEVICE>20b5</DEVICE>
<CLASS>0302</CLASS><PROFILES>nvidia-256 (A100 5C),nvidia-257</PROFILES><VMID>-1</VMID></PCI>
<PCI><ADDRESS>0000:02:00:0</ADDRESS><VENDOR>10de</VENDOR><DEVICE>20b5</DEVICE><CLASS>0302</CLASS><VMID>17</VMID></PCI>
<PCI><ADDRESS>0000:01:00:0</ADDRESS><VENDOR>nonsense</VENDOR><VMID>-1</VMID></PCI>
</PCI_DEVICES>
<NUMA_NODES><NODE><NODE_ID>0</NODE_ID>
<CORE><CPUS>0:-1,4:-1</CPUS><DEDICATED>NO</DEDICATED><FREE>2</FREE><ID>0</ID></CORE>
<CORE><CPUS>1:9,5:-1</CPUS><DEDICATED>NO</DEDICATED><FREE>1</FREE><ID>1</ID></CORE>
<CORE><CPUS>2:9,6:-1</CPUS><DEDICATED>YES</DEDICATED><FREE>0</FREE><ID>2</ID></CORE>
<CORE><CPUS>3:-2,7:-2</CPUS><DEDICATED>NO</DEDICATED><FREE>0</FREE><ID>3</ID></CORE>
<HUGEPAGE><PAGES>100</PAGES><SIZE>2048</SIZE><USAGE>60</USAGE></HUGEPAGE>
<MEMORY><DISTANCE>0 1</DISTANCE><TOTAL>8388608</TOTAL><USAGE>1048576</USAGE></MEMORY></NODE></NUMA_NODES></HOST_SHARE>
<VMS><ID>17</ID></VMS>
<TEMPLATE><ARCH>x86_64</ARCH><TAG>gold</TAG><TAG>ssd</TAG><PIN_POLICY>PINNED</PIN_POLICY></TEMPLATE>
<MONITORING><TIMESTAMP>1795</TIMESTAMP><CAPACITY><FREE_MEMORY>4096</FREE_MEMORY></CAPACITY>
<SYSTEM><NETRX>5</NETRX></SYSTEM></MONITORING></HOST>"""


async def test_a_host_tells_what_of_its_hardware_is_free(reader_of):
    host = await reader_of("one.host.info", HOST, "host", 4)
    odd, gpu = host.pci  # by address; the one in use is not free
    assert (odd.address, odd.vendor) == ("0000:01:00:0", -1)  # suits nobody
    assert (gpu.short_address, gpu.vendor, gpu.device, gpu.kind) == ("03:00.0", 0x10DE, 0x20B5, 0x0302)
    assert gpu.profiles == ("nvidia-256", "nvidia-257")
    [node] = host.numa
    assert [(core.free, core.idle) for core in node.cores] == [(2, True), (1, False), (0, False), (0, False)]
    assert (node.threads_per_core, node.free_memory_kb, node.nearest) == (2, 7340032, (0, 1))
    assert [(pages.size_kb, pages.free) for pages in node.pages] == [(2048, 40)]


async def test_cores_are_read_of_hosts_for_pinned_vms_only(reader_of):
    other = HOST.replace("<PIN_POLICY>PINNED</PIN_POLICY>", "")
    [node] = (await reader_of("one.host.info", other, "host", 4)).numa
    assert node.cores == ()
    assert node.pages


async def test_a_host_tells_what_requirements_look_at(reader_of):
    host = await reader_of("one.host.info", HOST, "host", 4)
    assert host.share["MAX_CPU"] == "1600"
    assert host.share["CLUSTER"] == "prod"
    assert host.monitoring == {"FREE_MEMORY": "4096", "NETRX": "5"}
    assert host.template["TAG"] == "gold"
    assert host.repeated == {"TAG": ("gold", "ssd")}


async def test_a_vm_tells_its_devices_and_its_topology(reader_of):
    devices = (
        "<PCI><SHORT_ADDRESS>03:00.0</SHORT_ADDRESS></PCI>"
        "<TOPOLOGY><PIN_POLICY>thread</PIN_POLICY><HUGEPAGE_SIZE>2</HUGEPAGE_SIZE><THREADS>2</THREADS></TOPOLOGY>"
        "<NUMA_NODE><TOTAL_CPUS>4</TOTAL_CPUS><MEMORY>1048576</MEMORY></NUMA_NODE></TEMPLATE>"
    )
    vm = await reader_of("one.vm.info", VM.replace("</TEMPLATE>", devices, 1), "vm", 7)
    any_nvidia, certain = vm.pci
    assert (any_nvidia.vendor, any_nvidia.device, any_nvidia.kind) == (0x10DE, None, None)
    assert certain.short_address == "03:00.0"
    assert (vm.numa.nodes, vm.numa.pinned, vm.numa.dedicated) == (((4, 1048576),), True, False)
    assert (vm.numa.page_kb, vm.numa.threads, vm.numa.node) == (2048, 2, None)


@pytest.mark.parametrize("topology", ["", "<TOPOLOGY><PIN_POLICY>NONE</PIN_POLICY></TOPOLOGY>"])
async def test_a_virtual_topology_alone_binds_a_vm_to_nothing(reader_of, topology):
    nodes = f"{topology}<NUMA_NODE><TOTAL_CPUS>4</TOTAL_CPUS><MEMORY>1048576</MEMORY></NUMA_NODE></TEMPLATE>"
    assert (await reader_of("one.vm.info", VM.replace("</TEMPLATE>", nodes, 1), "vm", 7)).numa is None


async def test_a_vm_group_tells_its_roles_and_rules(reader_of):
    document = (
        "<VM_GROUP_POOL><VM_GROUP><ID>3</ID><NAME>shop</NAME><ROLES>"
        "<ROLE><ID>0</ID><NAME>web</NAME><POLICY>ANTI_AFFINED</POLICY><VMS>7,8</VMS>"
        "<HOST_AFFINED>1,2</HOST_AFFINED></ROLE>"
        "<ROLE><ID>1</ID><NAME>db</NAME><HOST_ANTI_AFFINED>4</HOST_ANTI_AFFINED></ROLE></ROLES>"
        "<TEMPLATE><AFFINED>db, cache</AFFINED><AFFINED>web,front</AFFINED>"
        "<ANTI_AFFINED>web,db</ANTI_AFFINED></TEMPLATE>"
        "</VM_GROUP></VM_GROUP_POOL>"
    )
    [group] = await reader_of("one.vmgrouppool.info", document, "vm_groups")
    web, db = group.roles
    assert (web.name, web.policy, web.vms, web.hosts) == ("web", "ANTI_AFFINED", (7, 8), (1, 2))
    assert (db.policy, db.vms, db.hosts, db.not_hosts) == ("", (), (), (4,))
    assert group.affined == (("db", "cache"), ("web", "front"))
    assert group.anti_affined == (("web", "db"),)


@pytest.mark.parametrize(
    ("name", "known_as"), [("ops", {"ops", "7", "1"}), ("105", {"7", "1"}), ("0", {"7", "1"}), ("", {"7", "1"})]
)
def test_a_group_that_is_called_like_a_number_gets_no_role_of_the_group_with_that_number(name: str, known_as: set[str]):
    user = OnedUser(id=3, name="eve", group_id=7, group_ids=(7, 1), template={}, group_name=name)
    assert user.groups == known_as
