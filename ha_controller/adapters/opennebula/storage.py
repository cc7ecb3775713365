"""Where the disks of a VM lie, by the transfer drivers of its datastores, and what that means when its host is dead.

Facts about OpenNebula's drivers (src/tm_mad of 7.4): which of them leave bytes on a host, and which call the dead host
for a VM that is moved while POWEROFF or SUSPENDED. What cannot be told counts as lying on the dead host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ha_controller.adapters.opennebula.models import OnedDatastore, OnedDisk, OnedVm
from ha_controller.adapters.opennebula.states import VmState

#: the bytes lie on the host; oned skips such disks in silence when it moves a VM off a dead host
LOCAL_DRIVERS: Final = frozenset({"ssh", "local"})
#: disks are shared, the VM's folder with its saved memory is not, or is emptied when the dead host cannot be asked
FOLDER_ON_HOST: Final = frozenset({"ceph", "fs_lvm_ssh"})
#: nothing is done for a VM that moves within the same datastore
SHARED_FOLDER: Final = frozenset({"shared", "qcow2"})


def datastores_of(vm: OnedVm) -> tuple[int, ...] | None:
    """Where a VM's disks are: the datastores of their images, and the system datastore for what is made there.

    That is a volatile disk, or the copy of an image whose driver puts it there (TM_MAD_SYSTEM). None: not told.
    """
    on_system = any(disk.volatile or disk.ds_id is None or disk.tm_mad_system for disk in vm.disks)
    if on_system and vm.ds_id is None:
        return None
    images = {disk.ds_id for disk in vm.disks if disk.ds_id is not None}
    return tuple(sorted(images | ({vm.ds_id} if on_system and vm.ds_id is not None else set())))


class _Obstacle(NamedTuple):
    reason: str
    is_known: bool = True  #: False: it is only feared, because something cannot be told


def why_without_disks(vm: OnedVm, datastores: Mapping[int, OnedDatastore]) -> str:
    """Why a VM would start without its disks, or with others, on another host; empty if it has them there."""
    return next((obstacle.reason for obstacle in _obstacles(vm, datastores)), "")


def disks_are_lost(vm: OnedVm, datastores: Mapping[int, OnedDatastore]) -> bool:
    """Whether it is known that disks lie on the dead host. What is only feared may be shared, and hold data."""
    known = [obstacle.is_known for obstacle in _obstacles(vm, datastores)]
    return bool(known) and all(known)


def _obstacles(vm: OnedVm, datastores: Mapping[int, OnedDatastore]) -> Iterator[_Obstacle]:
    system = datastores.get(-1 if vm.ds_id is None else vm.ds_id)
    if system is None:
        yield _Obstacle(f"its system datastore {vm.ds_id} is not visible to us, so it may be local", is_known=False)
    elif not system.shared:
        said = "SHARED=NO" if system.shared is False else "it has no SHARED attribute"
        text = f"its system datastore {system.name} is not shared ({said}): its disks lie on the dead host"
        yield _Obstacle(text, is_known=system.shared is False)
    elif driver := next((each for each in (vm.tm_mad, system.tm_mad) if each.lower() in LOCAL_DRIVERS), ""):
        yield _Obstacle(f"its disks lie on the dead host (TM_MAD={driver})")
    for disk in vm.disks:
        yield from _obstacles_of(disk, datastores)


def _obstacles_of(disk: OnedDisk, datastores: Mapping[int, OnedDatastore]) -> Iterator[_Obstacle]:
    """Of one disk: the driver for this system datastore goes first, then its own, then that of its image's store."""
    if disk.tm_mad_system:
        if disk.tm_mad_system.lower() in LOCAL_DRIVERS:
            yield _Obstacle(f"disk {disk.id} lies on the dead host (TM_MAD_SYSTEM={disk.tm_mad_system})")
        return
    if disk.tm_mad.lower() in LOCAL_DRIVERS:
        yield _Obstacle(f"disk {disk.id} lies on the dead host (TM_MAD={disk.tm_mad})")
    image = None if disk.ds_id is None else datastores.get(disk.ds_id)
    if disk.ds_id is not None and image is None:
        text = f"disk {disk.id} is on datastore {disk.ds_id}, which is not visible to us, so it may be local"
        yield _Obstacle(text, is_known=False)
    elif image is not None and image.tm_mad.lower() in LOCAL_DRIVERS:
        yield _Obstacle(f"disk {disk.id} lies on the dead host (datastore {image.name}, TM_MAD={image.tm_mad})")


def why_without_memory(vm: OnedVm, datastores: Mapping[int, OnedDatastore]) -> str:
    """Why the saved memory of a SUSPENDED VM would be lost when it is moved off a dead host; empty if it would not."""
    if vm.state != VmState.SUSPENDED:
        return ""
    system = datastores.get(-1 if vm.ds_id is None else vm.ds_id)
    driver = "" if system is None else system.tm_mad.lower()
    if driver in SHARED_FOLDER:
        return ""
    if driver in FOLDER_ON_HOST:
        return f"it is SUSPENDED, and its saved memory is in a folder of the dead host ({driver})"
    return f"it is SUSPENDED, and it is not known where {driver or 'its datastore'} keeps its saved memory"
