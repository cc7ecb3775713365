"""Whether a name in HA_AFTER means anybody: all VMs of OpenNebula are looked through, once for an incident.

Reads in the lane of pools, which no order waits for, and for one incident after the other: hosts are read there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio
import structlog

from ha_controller.adapters.opennebula import Client, OnedVm, OpenNebulaError
from ha_controller.adapters.recoverer.startup import SERVICE, startup_of
from ha_controller.core.effects import AskNames
from ha_controller.core.events import Event, NamesRead
from ha_controller.core.order import names_of
from ha_controller.core.resources import NOTHING_WRITTEN

log = structlog.get_logger(__name__)

READ_MAX_S = 120.0  #: waiting for other incidents included


class NameReader:
    """Carries out `AskNames`."""

    def __init__(self, client: Client, *, report: Callable[[Event], None]) -> None:
        """Nothing is read yet."""
        self._client, self._report = client, report
        self._one = anyio.Lock()

    async def read(self, order: AskNames) -> None:
        """Look them up, and report exactly one answer."""
        missing: tuple[str, ...] = ()
        failure = ""
        try:
            missing = await self.missing(order.names)
        except (OpenNebulaError, TimeoutError) as error:
            failure = str(error) or f"not all VMs could be read within {READ_MAX_S:g} s"
            log.warning("names in HA_AFTER cannot be looked up", host=order.host, error=failure)
        self._report(
            NamesRead(host=order.host, incident=order.incident, names=order.names, missing=missing, failure=failure)
        )

    async def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those that no VM and no OneFlow role has.

        Raises:
            OpenNebulaError: the VMs cannot be read.
            TimeoutError: it takes too long.
        """
        with anyio.fail_after(READ_MAX_S):
            async with self._one:
                vms = await self._client.all_vms()
        return names_of_nobody(names, vms)


def names_of_nobody(names: Iterable[str], vms: Iterable[OnedVm]) -> tuple[str, ...]:
    """Those that none of these VMs has."""
    known: set[str] = set()
    for vm in vms:  # ten thousand, and only few belong to a service
        known.update(names_of(vm.id, vm.name, startup_of(vm) if SERVICE in vm.attributes else NOTHING_WRITTEN))
    return tuple(name for name in names if name not in known)
