"""Registers the channels that come with the controller, through the same hook as anybody else's. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ha_controller.adapters.prober.bmc import BmcProbe
from ha_controller.adapters.prober.boot_id import BootIdProbe
from ha_controller.adapters.prober.icmp import IcmpProbe
from ha_controller.adapters.prober.kdump import KdumpProbe
from ha_controller.adapters.prober.libvirt import LibvirtProbe
from ha_controller.adapters.prober.neighbours import NeighboursProbe
from ha_controller.adapters.prober.oned import OnedProbe
from ha_controller.adapters.prober.storage import StorageProbe
from ha_controller.adapters.prober.tcp import SshProbe, TcpProbe
from ha_controller.plugin import Probe, hookimpl


@hookimpl
def ha_controller_probes() -> Sequence[type[Probe[Any]]]:
    """Return the built-in channel classes."""
    asked: list[type[Probe[Any]]] = [IcmpProbe, SshProbe, TcpProbe, BmcProbe, OnedProbe, StorageProbe, NeighboursProbe]
    return [*asked, BootIdProbe, LibvirtProbe, KdumpProbe]
