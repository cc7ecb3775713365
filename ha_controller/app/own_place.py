"""Looks on which host this controller runs: on one that it handles itself, or in a VM on one.

Reports `SelfPlaced`; decides nothing. What cannot be told is reported as None, and what was known stays while
OpenNebula does not answer.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
import structlog

from ha_controller import threads
from ha_controller.adapters.opennebula import OnedVm, OpenNebulaError
from ha_controller.config import Config
from ha_controller.core.events import SelfPlaced
from ha_controller.core.model import Host, Vm
from ha_controller.plugin import Target

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

log = structlog.get_logger(__name__)

Read = TypeVar("Read")

LOOK_EVERY_S = 15.0
FIND_AGAIN_S = 300.0  #: the pool of VMs is large, and read only until it was read once
FILES_WITHIN_S = 5.0
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


@dataclass(frozen=True)
class Machine:
    """Where this machine says which one it is."""

    uuid: Path = Path("/sys/class/dmi/id/product_uuid")  #: for root only
    routes: Path = Path("/proc/net/fib_trie")
    addresses6: Path = Path("/proc/net/if_inet6")
    hostname: Callable[[], str] = socket.gethostname

    def addresses(self) -> frozenset[str]:
        """All that are its own, but for those of the loopback: every machine has these."""
        found = {match[1] for match in _LOCAL.finditer(_text(self.routes))}
        found |= {str(IPv6Address(bytes.fromhex(line[:32]))) for line in _text(self.addresses6).splitlines()}
        return frozenset(each for each in found if not ip_address(each).is_loopback)

    def system_uuid(self) -> str:
        """What the firmware calls it; empty if it cannot be read."""
        return _text(self.uuid).strip().lower()


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


@dataclass(kw_only=True)
class OwnPlace:
    """Looks every quarter of a minute, and reports what changed."""

    config: Callable[[], Config]
    hosts: Callable[[], Mapping[int, Host]]
    targets: Callable[[], Sequence[Target]]
    all_vms: Callable[[], Awaitable[Sequence[OnedVm]]]
    read_vms: Callable[[Sequence[int]], Awaitable[Sequence[Vm]]]
    report: Callable[[SelfPlaced], None]
    clock: Callable[[], float]
    machine: Machine = field(default_factory=Machine)
    last: SelfPlaced | None = None
    _vm: int | None = None  #: found by our UUID
    _find_at: float = 0.0
    _why_not_found: str = ""  #: why it cannot be told whether there is one; empty: it could

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if self.hosts():
                await self.look()
            await anyio.sleep(LOOK_EVERY_S if self.last is not None else 1.0)

    async def look(self) -> None:
        """Look once and report a change."""
        try:
            found = await self._found()
        except (OpenNebulaError, TimeoutError) as error:
            if self.last is not None and self.last.hosts:
                return  # what was known stays
            found = SelfPlaced(
                hosts=None, detail=f"whether this controller runs in a VM of this cloud: {error or 'no answer in time'}"
            )
        if found != self.last:
            self.last = found
            log.info("own host", hosts=found.hosts, detail=found.detail)
            self.report(found)

    async def _found(self) -> SelfPlaced:
        guard = self.config().guard
        if guard.own_host == "none":
            return SelfPlaced(hosts=(), detail="the operator states that this controller runs on none of the hosts")
        addresses = await _read(self.machine.addresses)
        for target in self.targets():
            if target.host >= 0 and target.address in addresses:
                why = f"{target.address} is an address of this machine"
                return SelfPlaced(hosts=(target.host,), detail=f"this controller runs on {target.name} ({why})")
            if _is_name_of(target.name, self.machine.hostname()):
                why = "this machine has its name"
                return SelfPlaced(hosts=(target.host,), detail=f"this controller runs on {target.name} ({why})")
        return await self._in_a_vm(guard.own_vm)

    async def _in_a_vm(self, noted: Literal["look"] | int) -> SelfPlaced:
        uuid = "" if noted != "look" else await _read(self.machine.system_uuid)
        if noted == "look" and not uuid:
            text = "whether this controller runs in a VM of this cloud cannot be told: only root may read the machine's"
            return SelfPlaced(hosts=None, detail=f'{text} UUID. Set guard.own_vm to its id, or guard.own_host = "none"')
        number = noted if noted != "look" else await self._by_uuid(uuid)
        if number is None and self._why_not_found:
            text = f"whether this controller runs in a VM of this cloud: {self._why_not_found}"
            return SelfPlaced(hosts=None, detail=text)
        if number is None:
            return SelfPlaced(hosts=(), detail="this controller runs on none of the hosts, and in no VM with its UUID")
        vms = await self.read_vms([number])
        if not (places := _places(vms, number)):
            return SelfPlaced(hosts=None, detail=f"this controller runs in VM {number}, which is on no host")
        names = " or ".join(self._name(host) for host in places)
        return SelfPlaced(hosts=places, detail=f"this controller runs in VM {number} on {names}")

    async def _by_uuid(self, uuid: str) -> int | None:
        if self.clock() >= self._find_at:
            self._find_at, self._why_not_found = self.clock() + FIND_AGAIN_S, "its VMs could not be read"
            vms = await self.all_vms()
            self._vm = next((vm.id for vm in vms if vm.os_uuid == uuid), None)
            is_told = not vms or any(vm.os_uuid for vm in vms)
            self._why_not_found = "" if is_told else "OpenNebula tells the UUID of none. Set guard.own_vm to its id"
            self._find_at = float("inf") if is_told else self._find_at
        return self._vm

    def _name(self, host: int) -> str:
        known = self.hosts().get(host)
        return known.name if known is not None else f"host {host}"


async def _read(what: Callable[[], Read]) -> Read:
    with anyio.fail_after(FILES_WITHIN_S):
        return await threads.run_sync(what, abandon_on_cancel=True)


def _is_name_of(host: str, machine: str) -> bool:
    """Whether a host's name is the machine's, where one of them may be without its domain."""
    names = [host.lower().rstrip("."), machine.lower().rstrip(".")]
    labels = [name.split(".") for name in names]
    if labels[1][0] in ("", "localhost"):
        return False
    return names[0] == names[1] or (labels[0][0] == labels[1][0] and 1 in map(len, labels))


def _places(vms: Sequence[Vm], number: int) -> tuple[int, ...]:
    """Where it is, and where it comes from while it migrates: it may still run there."""
    found = {host for vm in vms if vm.id == number for host in (vm.host, vm.previous_host) if host is not None}
    return tuple(sorted(found))


def own_place_of(runtime: Runtime) -> OwnPlace:
    """The same, for a controller that runs."""
    return OwnPlace(
        config=lambda: runtime.config,
        hosts=lambda: runtime.controller.state.hosts,
        targets=runtime.watching.targets,
        all_vms=runtime.client.all_vms,
        read_vms=runtime.recoverer.read_vms,
        report=runtime.post,
        clock=runtime.clock,
    )
