"""What placement needs of OpenNebula beside hosts and VMs, and what changes rarely: clusters and VM groups.

Read once a minute. A pool that cannot be read is left as it was; groups that were never read are unknown, not empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from ha_controller.adapters.opennebula import Client, OnedDatastore, OnedHost, OnedVm, OpenNebulaError
from ha_controller.core.resources import VmGroup

log = structlog.get_logger(__name__)

EVERY_S = 60.0


class Pools:
    """The last of each."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        """Nothing is read yet."""
        self._client, self._clock = client, clock
        self._read_at: float | None = None
        self._clusters: dict[int, Mapping[str, str]] = {}
        self.groups: tuple[VmGroup, ...] | None = None

    async def refresh(self) -> None:
        """Read them again if it is time."""
        if self._read_at is not None and self._clock() - self._read_at < EVERY_S:
            return
        try:
            self._clusters = {cluster.id: cluster.template for cluster in await self._client.clusters()}
            self.groups = tuple(await self._client.vm_groups())
            self._read_at = self._clock()
        except OpenNebulaError as error:
            log.warning("clusters and VM groups could not be read: what is known of them stays", error=str(error))

    def for_requirements(self, host: OnedHost) -> dict[str, Any]:
        """The attributes of a host in the order in which OpenNebula's scheduler looks them up."""
        cluster = self._clusters.get(host.cluster_id, {})
        return {"attributes": (host.share, host.template, host.monitoring, cluster), "repeated": host.repeated}


def reach_of(vm: OnedVm, datastores: Mapping[int, OnedDatastore]) -> frozenset[int] | None:
    """The clusters that have all datastores of a VM; None if that is not known."""
    images = {disk.ds_id for disk in vm.disks if disk.ds_id is not None}
    known = [datastores.get(number) for number in images | {-1 if vm.ds_id is None else vm.ds_id}]
    clusters = [frozenset(datastore.cluster_ids) for datastore in known if datastore is not None]
    if len(clusters) < len(known) or not all(clusters):
        return None
    return frozenset.intersection(*clusters)
