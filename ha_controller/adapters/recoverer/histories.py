"""The history of VMs, where it matters: a migration that is under way, or that was begun lately and led back.

oned takes back a migration whose end it did not see, as a new record on the old host (seen on 7.4: a record on the
target, then one more on the source). The VM may run at the target all the same. If the source lives on, OpenNebula's
monitoring finds it missing there within minutes; if it dies before, only these records tell.

Pools have the last record only, and the others cost a call for each VM. So the last one decides whether they are read.
"""

from __future__ import annotations

from dataclasses import replace

from ha_controller.adapters.opennebula import Client, OnedHost, OnedStay, OnedVm
from ha_controller.adapters.recoverer.vms import travels

#: OpenNebula has heard from the host for so long since: it would have found the VM missing. Its agents tell changes
#: within seconds, but what they say in the first 30 s counts for nothing, and all VMs are told every 180 s only
WATCHED_S = 600.0
#: of a VM that was found missing, what was taken back: OpenNebula may have heard nothing for long before that, and this
#: is how it looks when the VM runs at the other end. One that went there and came back again ran there by its word
MISSING_S = 86400.0
KEPT_MAX = 5000


class Histories:
    """Completes VMs by their history. What has ended does not change, so it is read once."""

    def __init__(self, client: Client) -> None:
        """Nothing is read yet."""
        self._client = client
        self._known: dict[int, tuple[int, tuple[OnedStay, ...]]] = {}  #: VM -> SEQ of its last record, those before

    async def complete(self, vms: list[OnedVm], host: OnedHost) -> list[OnedVm]:
        """The VMs of a host, with the whole history of those whose history matters. Raises OpenNebulaError."""
        return [await self._whole(vm) if travels(vm) or _came_back_lately(vm, host) else vm for vm in vms]

    async def _whole(self, vm: OnedVm) -> OnedVm:
        seq, stays = self._known.get(vm.id, (-1, ()))
        if seq == vm.seq:
            return replace(vm, stays=stays)
        whole = await self._client.vm(vm.id)
        if len(self._known) >= KEPT_MAX:
            self._known.clear()
        self._known[vm.id] = whole.seq, whole.stays
        return whole


def tried_on(vm: OnedVm, host: OnedHost) -> tuple[int, ...]:
    """The hosts to which a migration of a VM was begun lately that led back to this host."""
    hosts = [stay.host_id for stay in vm.stays]
    if vm.host_id != host.id or host.id not in hosts:
        return ()
    later = vm.stays[hosts.index(host.id) :]
    lately = {stay.host_id for stay in later if not stay.ended_at or stay.ended_at >= _since(vm, host, ran=stay.ran)}
    return tuple(sorted(lately - {host.id}))


def _came_back_lately(vm: OnedVm, host: OnedHost) -> bool:
    """Whether that may be, by the last record alone: there are two before it."""
    return vm.host_id == host.id and vm.seq >= 2 and vm.placed_at >= _since(vm, host, ran=False)


def _since(vm: OnedVm, host: OnedHost, *, ran: bool) -> float:
    """What a VM did before that says nothing of where it is. A host that was never heard of: everything counts."""
    if vm.found_missing_at:
        return vm.found_missing_at - (WATCHED_S if ran else MISSING_S)
    return host.monitored_at - WATCHED_S
