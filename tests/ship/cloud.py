"""The embedded cloud as a process: tells where it is in one line of JSON, and does what it is told, a line each."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import anyio
import anyio.to_thread

from ha_controller.sim.cloud import EmbeddedCloud


def answer(cloud: EmbeddedCloud, words: list[Any]) -> Any:
    """Do it."""
    match words:
        case ["break", str(host), str(fault)]:
            cloud.break_host(next(each.id for each in cloud.hosts if each.name == host), fault)
            return "broken"
        case ["password", str(password)]:
            cloud.server.users.all[0].password = password
            return "changed"
        case ["check"]:
            return cloud.check(vms_must_wait=False)
        case ["moves"]:
            calls = cloud.server.calls
            return Counter(call.arguments[0] for call in calls if call.method == "one.vm.migrate" and call.ok)
        case ["orders"]:
            return sum(line.what == "ordered off" for line in cloud.hardware.log)
        case _:
            raise ValueError(f"not understood: {words}")


async def run(hosts: int) -> None:
    """Until the end of the standard input."""
    async with EmbeddedCloud(hosts=hosts, vms_per_host=3, namespaces=True) as cloud:
        facts = {
            "endpoint": cloud.endpoint,
            "session": cloud.session,
            "gateway": cloud.gateway_address,
            "bmc_port": cloud.bmc_port,
            "bmc_user": cloud.bmc_user,
            "bmc_password": cloud.bmc_password,
            "hosts": [host.name for host in cloud.hosts],
        }
        print(json.dumps(facts), flush=True)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(answer(cloud, json.loads(line))), flush=True)


if __name__ == "__main__":
    anyio.run(run, int(sys.argv[1]))
