"""Whether a VM would have its disks on another host, disk by disk, and where its saved memory is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ha_controller.adapters.opennebula.storage import disks_are_lost, why_without_disks, why_without_memory

STORES = {
    number: SimpleNamespace(id=number, name=name, tm_mad=driver, shared=shared)
    for number, name, driver, shared in (
        (0, "nfs", "shared", True), (1, "qcow", "qcow2", True), (2, "rbd", "ceph", True), (3, "lvm", "fs_lvm", True),
        (4, "lvm-ssh", "fs_lvm_ssh", True), (5, "local", "ssh", False), (6, "lies", "ssh", True),
        (7, "silent", "shared", None), (8, "netapp", "netapp", True), (10, "images", "shared", None),
        (11, "rbd-images", "ceph", None), (12, "ssh-images", "ssh", None), (13, "iscsi", "iscsi_libvirt", None),
    )
}  # fmt: skip


def disk(number=0, store: int | None = 10, driver="shared", system: str | None = None, volatile=False):
    return SimpleNamespace(id=number, ds_id=store, tm_mad=driver, tm_mad_system=system, volatile=volatile)


def vm(*disks, store: int | None = 0, driver="shared", state=3):
    return SimpleNamespace(ds_id=store, tm_mad=driver, disks=disks, state=state)


@pytest.mark.parametrize(
    "known",
    [
        vm(disk()),
        vm(disk(system="shared"), driver="shared"),
        vm(disk(store=None, driver="", volatile=True)),  # on the system datastore, which is shared
        vm(disk(store=11, driver="ceph"), store=2, driver="ceph"),
        vm(disk(store=11, driver="ceph"), disk(1), store=0),  # an image on Ceph beside one on a shared folder
        vm(disk(store=11, driver="ceph", system="shared")),  # cloned to the shared folder
        vm(disk(store=13, driver="iscsi_libvirt"), store=3, driver="fs_lvm"),
        vm(disk(), store=4, driver="fs_lvm_ssh"),
        vm(disk(store=10, driver="netapp"), store=8, driver="netapp"),
        vm(),  # a VM that boots from the network
    ],
)
def test_shared_disks_are_there_on_every_host(known):
    assert why_without_disks(known, STORES) == ""


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (vm(disk(), store=5, driver="ssh"), "system datastore local is not shared (SHARED=NO)"),
        (vm(disk(), store=6, driver="ssh"), "TM_MAD=ssh"),  # SHARED=YES is written there, its driver says otherwise
        (vm(disk(), store=6, driver=""), "TM_MAD=ssh"),
        (vm(disk(), driver="ssh"), "TM_MAD=ssh"),  # of the history record
        (vm(disk(), store=7), "it has no SHARED attribute"),
        (vm(disk(), store=99), "system datastore 99 is not visible to us"),
        (vm(disk(), store=None), "system datastore None is not visible to us"),
        (vm(disk(), disk(1, system="ssh")), "disk 1 lies on the dead host (TM_MAD_SYSTEM=ssh)"),
        (vm(disk(store=11, driver="ceph", system="SSH")), "disk 0 lies on the dead host (TM_MAD_SYSTEM=SSH)"),
        (vm(disk(), disk(1, driver="local")), "disk 1 lies on the dead host (TM_MAD=local)"),
        (vm(disk(), disk(1, store=12, driver="")), "disk 1 lies on the dead host (datastore ssh-images, TM_MAD=ssh)"),
        (vm(disk(store=98)), "disk 0 is on datastore 98, which is not visible to us"),
    ],
)
def test_a_vm_that_would_start_without_a_disk_is_refused_with_the_reason(known, reason):
    assert reason in why_without_disks(known, STORES)
    feared = ("not visible to us", "no SHARED attribute")
    assert disks_are_lost(known, STORES) is not any(words in reason for words in feared)


def test_disks_of_which_one_may_be_shared_are_not_called_lost():
    assert not disks_are_lost(vm(disk(store=98), store=5, driver="ssh"), STORES)
    assert not disks_are_lost(vm(disk(), driver="shared"), STORES)


@pytest.mark.parametrize(("store", "driver"), [(0, "shared"), (1, "qcow2")])
def test_saved_memory_in_a_shared_folder_goes_along(store, driver):
    assert why_without_memory(vm(disk(), store=store, driver=driver, state=5), STORES) == ""


@pytest.mark.parametrize("store", [2, 3, 4, 8, 99])
def test_saved_memory_that_is_or_may_be_on_the_dead_host_keeps_the_vm_there(store):
    assert "SUSPENDED" in why_without_memory(vm(disk(), store=store, state=5), STORES)
    assert why_without_memory(vm(disk(), store=store, state=8), STORES) == ""  # off: there is none
