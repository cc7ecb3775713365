"""The peer of the placement measurement; runs in the peers' environment, which has nothing of the controller."""

from __future__ import annotations

import warnings
from typing import Any

from bench.harness import Cpu, memory_mb

_EVERYONE, _ALL, _NOT_DONE = -2, -1, -1


def placement(endpoint: str, hosts: int, vms: int) -> dict[str, Any]:
    """Every VM by pyone's objects, and on which host the last record of its history says it is."""
    warnings.simplefilter("ignore")
    import pyone

    server = pyone.OneServer(endpoint, session="oneadmin:password", timeout=300)
    server.system.version()
    cpu = Cpu()
    pool = server.vmpool.infoextended(_EVERYONE, _ALL, _ALL, _NOT_DONE)
    found = {vm.ID: vm.HISTORY_RECORDS.HISTORY[-1].HID for vm in pool.VM}
    sample = cpu.sample(rss_mb=memory_mb())
    right = sum(host == vm % hosts for vm, host in found.items())
    return {**sample, "right": right if len(found) == vms else -1}
