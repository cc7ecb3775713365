"""What placement is told of hosts, VMs and groups, and how a VM with a PCI device is moved: over the wire."""

from __future__ import annotations

import pytest

from ha_controller.adapters.recoverer import Recoverer, Scope
from ha_controller.core.effects import MoveVm, ReadHost
from ha_controller.core.events import HostRead, InventoryRead, OrderResult, VmOrderReported
from ha_controller.core.placement.screen import values_of

HOST = (
    "<HOST><ID>4</ID><NAME>kvm-4</NAME><STATE>2</STATE><IM_MAD>kvm</IM_MAD><VM_MAD>kvm</VM_MAD><CLUSTER_ID>100</CLUSTER_ID>"
    "<CLUSTER>prod</CLUSTER><HOST_SHARE><MAX_CPU>1600</MAX_CPU><MAX_MEM>1048576</MAX_MEM></HOST_SHARE>"
    "<VMS><ID>7</ID></VMS><TEMPLATE><TIER>gold</TIER></TEMPLATE><MONITORING></MONITORING></HOST>"
)
VM = (
    "<VM><ID>7</ID><NAME>gpu</NAME><STATE>3</STATE><LCM_STATE>16</LCM_STATE><TEMPLATE><CPU>1</CPU><MEMORY>64</MEMORY>"
    "<AUTOMATIC_REQUIREMENTS>(CLUSTER_ID = 100)</AUTOMATIC_REQUIREMENTS>"
    "<DISK><DISK_ID>0</DISK_ID><IMAGE_ID>1</IMAGE_ID><DATASTORE_ID>1</DATASTORE_ID><TM_MAD>ceph</TM_MAD></DISK>{pci}"
    "<VMGROUP><ROLE>web</ROLE><VMGROUP_ID>3</VMGROUP_ID></VMGROUP></TEMPLATE>"
    "<USER_TEMPLATE><SCHED_REQUIREMENTS>TIER = gold</SCHED_REQUIREMENTS></USER_TEMPLATE>"
    "<HISTORY_RECORDS><HISTORY><SEQ>0</SEQ><HID>4</HID><CID>100</CID><DS_ID>100</DS_ID><VM_MAD>kvm</VM_MAD>"
    "<TM_MAD>ceph</TM_MAD></HISTORY></HISTORY_RECORDS></VM>"
)
PCI = "<PCI><VENDOR>10de</VENDOR></PCI>"
GROUPS = (
    "<VM_GROUP_POOL><VM_GROUP><ID>3</ID><NAME>shop</NAME><ROLES><ROLE><ID>0</ID><NAME>web</NAME><VMS>7</VMS></ROLE></ROLES>"
    "<TEMPLATE></TEMPLATE></VM_GROUP></VM_GROUP_POOL>"
)


def store(number: int, clusters: str) -> str:
    return (
        f"<DATASTORE><ID>{number}</ID><NAME>ceph</NAME><TM_MAD>ceph</TM_MAD><TYPE>1</TYPE><CLUSTERS>{clusters}</CLUSTERS>"
        "<TEMPLATE><SHARED>YES</SHARED></TEMPLATE></DATASTORE>"
    )


IMAGES, SYSTEM = store(1, "<ID>100</ID><ID>101</ID>"), store(100, "<ID>100</ID><ID>102</ID>")
STORES = f"<DATASTORE_POOL>{IMAGES}{SYSTEM}</DATASTORE_POOL>"


async def leads(term: int | None) -> bool:
    del term
    return True


@pytest.fixture
def told(serve, client_of, ok):
    """A recoverer against one oned, and what it reports."""

    async def make(pci: str = "", groups: str | None = GROUPS):
        vm = VM.format(pci=pci)
        replies = {
            "one.hostpool.info": ok(f"<HOST_POOL>{HOST}</HOST_POOL>"),
            "one.hostpool.monitoring": ok(
                "<MONITORING_DATA><MONITORING><TIMESTAMP>5</TIMESTAMP><ID>4</ID>"
                "<CAPACITY><FREE_MEMORY>77</FREE_MEMORY></CAPACITY></MONITORING></MONITORING_DATA>"
            ),
            "one.host.info": ok(HOST),
            "one.datastorepool.info": ok(STORES),
            "one.clusterpool.info": ok(
                "<CLUSTER_POOL><CLUSTER><ID>100</ID><NAME>prod</NAME><TEMPLATE><ZONE>north</ZONE></TEMPLATE></CLUSTER>"
                "</CLUSTER_POOL>"
            ),
            "one.vmpool.infoset": ok(f"<VM_POOL>{vm}</VM_POOL>"),
            "one.vm.info": ok(vm),
            "one.vm.migrate": ok(7),
        }
        if groups is not None:
            replies["one.vmgrouppool.info"] = ok(groups)
        peer, reports = await serve(replies), []
        client = client_of(peer)
        await client.__aenter__()
        recoverer = Recoverer(
            client,
            report=reports.append,
            may_act=leads,
            clock=lambda: 100.0,
            scope=Scope(),
            poll_s=10,
            equip=lambda _: {},
        )
        return recoverer, reports, peer, client

    return make


async def test_hosts_groups_and_vms_tell_all_that_a_plan_needs(told):
    recoverer, reports, _, client = await told()
    await recoverer.read_inventory()
    await recoverer.read_host(ReadHost(host=4))
    await client.__aexit__(None, None, None)
    [inventory] = [each for each in reports if isinstance(each, InventoryRead)]
    [host] = inventory.hosts
    expected = {
        "TIER": ("gold",),
        "FREE_MEMORY": ("77",),
        "ZONE": ("north",),
        "MAX_CPU": ("1600",),
        "CLUSTER": ("prod",),
        "NOTHING": (),
    }
    assert {name: values_of(host, name) for name in expected} == expected
    assert [group.id for group in inventory.groups] == [3]
    [vm] = next(each for each in reports if isinstance(each, HostRead)).vms
    assert (vm.automatic_requirements, vm.requirements, vm.group) == ("(CLUSTER_ID = 100)", "TIER = gold", 3)
    assert vm.reach == {100}  # both datastores are there
    assert vm.obstacle == ""


async def test_groups_that_cannot_be_read_are_unknown_and_hide_no_host(told):
    recoverer, reports, _, client = await told(groups=None)
    await recoverer.read_inventory()
    await client.__aexit__(None, None, None)
    [inventory] = reports
    assert inventory.groups is None
    assert inventory.hosts


@pytest.mark.parametrize(("pci", "kind"), [(PCI, "2"), ("", "0")])
async def test_a_vm_with_a_pci_device_is_moved_with_a_hard_power_off(told, pci, kind):
    recoverer, reports, peer, client = await told(pci)
    await recoverer.order_vm(MoveVm(vm=7, incident=1, attempt=1, source=4, destination=5, not_after=101.0))
    await client.__aexit__(None, None, None)
    [report] = [each for each in reports if isinstance(each, VmOrderReported)]
    assert report.result is OrderResult.ACCEPTED
    [values] = [values for method, values in peer.requests if method == "one.vm.migrate"]
    assert values[-1][1] == kind
