"""A real controller that serves the page over TCP, and the embedded cloud that it guards.

Tests break machines of the cloud, not rows of the page, and look at the hardware where the page says something of it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from ha_controller.demo import demo_config
from ha_controller.sim.cloud import EmbeddedCloud
from ha_controller.sim.hardware import Fault
from ha_controller.sim.oned_model import Timings
from ha_controller.sim.oned_users import OnedUser
from tests.whole.test_serve import Served

TIMINGS = Timings(ssh_timeout_s=0.5, boot_s=0.2, monitor_host_s=1.0)
#: OpenNebula's own administrator, an admin here
ADMIN = ("oneadmin", "embedded-cloud")
#: a user of OpenNebula's group `users`, whose role a site may choose
USER = ("ursula", "a password of hers")
WELL_WITHIN_S = 120.0
_BMC = """\
agent = "ipmi"
identity = "noted"
address = "{FENCE_IP}"
port = 7623
username = "admin"
password = { file = "FOLDER/bmc_password" }
"""


class Site:
    """The controller's process, its cloud and its address."""

    def __init__(self, controller: Served, cloud: EmbeddedCloud, port: int) -> None:
        self.controller, self.cloud = controller, cloud
        self.url = f"http://127.0.0.1:{port}"

    def break_host(self, name: str, fault: Fault) -> None:
        """Let a fault hit a host, now."""
        self.cloud.break_host(self.number(name), fault)

    def number(self, name: str) -> int:
        """The id of a host."""
        return next(host.id for host in self.cloud.hosts if host.name == name)

    def orders_off(self, name: str) -> int:
        """How often the hardware was really ordered off."""
        number = self.number(name)
        return sum(each.machine == number and each.what == "ordered off" for each in self.cloud.hardware.log)

    def runs_where(self, vm: int) -> list[int]:
        """The machines on which a process of a VM runs: the truth."""
        return [number for number, machine in self.cloud.hardware.machines.items() if vm in machine.vms]

    def vms_of(self, name: str) -> list[int]:
        """The VMs that were started on a host at first."""
        first = self.number(name) * self.cloud.vms_per_host
        return [*range(first, first + self.cloud.vms_per_host)]

    async def reads(self, what: str) -> Any:
        """Ask the API, as the administrator of this machine."""
        connector = aiohttp.UnixConnector(str(self.controller.folder / "socket"))
        timeout = aiohttp.ClientTimeout(total=20)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://controller/api/v1/{what}") as answer,
        ):
            return await answer.json()

    async def is_told(self, what: str, wanted: Callable[[Any], bool], within_s: float = WELL_WITHIN_S) -> Any:
        """Wait until the API says something."""
        found: Any = None
        with anyio.move_on_after(within_s):
            while not (found is not None and wanted(found)):
                try:
                    found = await self.reads(what)
                except (aiohttp.ClientError, OSError):  # it is starting
                    found = None
                await anyio.sleep(0.1)
        assert found is not None and wanted(found), (found, self.controller.log[-3000:])
        return found

    async def is_well(self) -> None:
        """Wait until every host could be powered off."""
        await self.is_told("status", lambda status: status.get("code") == 0)

    async def restart(self) -> None:
        """Begin anew after `kill`."""
        await self.controller.start()
        await self.is_told("status", lambda status: "verdict" in status)


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@asynccontextmanager
async def site(
    folder: Path,
    *,
    hosts: int = 6,
    vms_per_host: int = 3,
    users: str = "viewer",
    prepare: Callable[[EmbeddedCloud], None] = lambda _: None,
    edits: dict[str, str] | None = None,
) -> AsyncIterator[Site]:
    """Serve one. `users`: the role of OpenNebula's group of that name; `edits`: old and new text of its settings."""
    port = free_port()
    changes = {
        "[api]\n": f'[api]\nlisten = "127.0.0.1:{port}"\ngroups = {{ oneadmin = "admin", users = "{users}" }}\n',
        'single_domain_after = "10s"': 'single_domain_after = "4s"\nfail_after = "4s"',
        **(edits or {}),
    }
    async with EmbeddedCloud(hosts=hosts, vms_per_host=vms_per_host, timings=TIMINGS) as cloud:
        cloud.server.users.add(OnedUser(id=2, name=USER[0], password=USER[1], admin=False))
        prepare(cloud)
        demo_config(folder, cloud)
        path = folder / "config.toml"
        text = path.read_text()
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)
        controller = Served(folder)
        await controller.start()
        try:
            yield Site(controller, cloud, port)
        finally:
            if controller.process is not None and controller.process.returncode is None:
                await controller.kill()
    assert "Traceback" not in controller.log, controller.log


def of_many(folder: Path) -> dict[str, str]:
    """Settings for a thousand hosts on a busy machine: nobody logs in at a thousand BMCs."""
    return {
        'channels = ["echo", "ssh", "bmc", "oned"]': 'channels = ["echo", "oned"]\ninterval = "1300ms"',
        'poll = "2s"': 'poll = "15s"\ntimeout = "20s"',  # the embedded OpenNebula takes seconds to write them down
        _BMC.replace("FOLDER", str(folder)): 'agent = "manual"\ninstructions = "ask the technician"\n',
    }
