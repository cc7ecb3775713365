"""The embedded cloud: pretended hardware, an OpenNebula, hosts that answer probes, and BMCs, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ha_controller.sim import checker, netns
from ha_controller.sim.bmc import Bmc
from ha_controller.sim.hardware import Fault, Hardware, MachineChassis
from ha_controller.sim.hosts import HostNetwork
from ha_controller.sim.netns import NetnsNetwork
from ha_controller.sim.oned_model import Datastore, History, OnedHost, OnedVm, Timings
from ha_controller.sim.oned_server import OnedServer
from ha_controller.sim.oned_state import Oned
from ha_controller.sim.oned_zone import OnedZone

if TYPE_CHECKING:
    from ha_controller.sim.oned_events import EventPublisher

TICK_S = 0.02
SSH_PORT = 7022
CLUSTER, CLUSTER_NAME = 100, "default"
SHARED_STORE, LOCAL_STORE = 100, 102


@dataclass(frozen=True, kw_only=True)
class CloudHost:
    """One host as the outside sees it."""

    id: int
    name: str
    address: str
    bmc_address: str
    system_uuid: str


class EmbeddedCloud:
    """Everything in one process; `async with` starts and ends it. Several may run side by side."""

    _ticker: asyncio.TimerHandle | None = None
    publisher: EventPublisher | None = None  #: of oned's events, once there is one

    def __init__(
        self,
        *,
        hosts: int = 6,
        vms_per_host: int = 5,
        timings: Timings | None = None,
        network: int | None = None,
        namespaces: bool = False,
        bmcs: bool = True,
        zone: Callable[..., OnedZone] | None = None,
        hardware: Callable[[Callable[[], float]], Hardware] = Hardware,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`network`: second byte of the 127.x addresses; by default one that no other cloud uses.

        `namespaces`: the hosts are network namespaces with real kernels and sshd instead, which needs root.
        `zone`: makes several front-ends of the one oned.
        `bmcs`: False when others answer at the hosts' `bmc_address` and `bmc_port`; they tell `hardware` of orders.
        `hardware`: makes the hardware from the clock; another class may start real processes as VMs.
        """
        self.timings = timings or Timings()
        self.vms_per_host = vms_per_host
        self.namespaces = namespaces
        self.session, self.bmc_user, self.bmc_password = "oneadmin:embedded-cloud", "admin", "embedded-bmc"
        self.echo_port, self.bmc_port = 7007, 7623
        self._claim: socket.socket | None = None
        second = network
        if second is None:
            second, self._claim = _claim_network()
        self.gateway_address = netns.address_of(-1) if namespaces else f"127.{second}.255.1"
        self.ssh_port = 22 if namespaces else SSH_PORT
        self.hosts = [
            CloudHost(
                id=number,
                name=f"kvm-{number + 1:02}",
                address=netns.address_of(number) if namespaces else _address(second, 1, number),
                bmc_address=_address(second, 2, number),
                system_uuid=f"4c4c4544-0000-4000-8000-{number:012x}",
            )
            for number in range(hosts)
        ]
        self._clock = clock
        self.hardware = hardware(clock)
        self.oned = Oned(self.hardware, self.timings, clock(), datastores=_stores())
        self.server = OnedServer(self.oned, session=self.session, clock=clock)
        self.zone = None if zone is None else zone(self.oned, self.server, clock=clock)
        self.endpoint = ""
        self._network = self._hosts_network()
        self._bmcs = [self._bmc(host) for host in self.hosts if bmcs]
        self._populate()

    def _hosts_network(self) -> HostNetwork | NetnsNetwork:
        addresses = {host.id: host.address for host in self.hosts}
        if self.namespaces:
            return NetnsNetwork(self.hardware, addresses)
        return HostNetwork(self.hardware, addresses, ssh_port=self.ssh_port, echo_port=self.echo_port)

    def _bmc(self, host: CloudHost) -> Bmc:
        return Bmc(
            address=host.bmc_address,
            port=self.bmc_port,
            user=self.bmc_user,
            password=self.bmc_password,
            system_uuid=host.system_uuid,
            chassis=MachineChassis(self.hardware, host.id),
        )

    def _populate(self) -> None:
        now = self._clock()
        for host in self.hosts:
            self.hardware.add(host.id)
            self.oned.hosts[host.id] = OnedHost(
                id=host.id,
                name=host.name,
                cluster=CLUSTER,
                cluster_name=CLUSTER_NAME,
                attributes={"HA_ADDRESS": host.address, "FENCE_IP": host.bmc_address},
                heard_at=now,
                monitored_at=now,
            )
            for index in range(self.vms_per_host):
                number = host.id * self.vms_per_host + index
                self.oned.vms[number] = OnedVm(
                    id=number, name=f"vm-{number:03}", history=[History(seq=0, host=host.id, started_at=now)]
                )
                self.hardware.start_vm(host.id, number)

    async def __aenter__(self) -> Self:
        """Start everything."""
        if self.zone is None:
            port = await self.server.start("127.0.0.1", 0)
            self.endpoint = f"http://127.0.0.1:{port}/RPC2"
        else:
            await self.zone.start()
            self.endpoint = self.zone.endpoints(viewer=0)[0]
        await self._network.start()
        for bmc in self._bmcs:
            await bmc.start()
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        if self._ticker is not None:
            self._ticker.cancel()
        self.server.close()
        if self.publisher is not None:
            self.publisher.close()
        if self.zone is not None:
            self.zone.close()
        self._network.close()
        for bmc in self._bmcs:
            bmc.close()
        if self._claim is not None:
            self._claim.close()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    def _tick(self) -> None:
        if self.zone is None:
            self.oned.advance(self._clock())
        else:
            self.zone.tick()
        if self.publisher is not None:
            self.publisher.look()
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def publish(self, address: str = "tcp://127.0.0.1") -> str:
        """Begin to publish oned's events, at a port of our own unless one is named; returns where. Needs pyzmq."""
        from ha_controller.sim.oned_events import EventPublisher

        self.publisher = EventPublisher(self.oned, address)
        return self.publisher.address

    def break_host(self, host: int, fault: str) -> None:
        """Let a fault hit a host, now."""
        self.hardware.break_machine(host, Fault(fault))

    def check(self, *, vms_must_wait: bool) -> list[str]:
        """What the independent checker says: everything that went wrong."""
        return checker.check(self.hardware, vms_must_wait=vms_must_wait)


def _address(second: int, kind: int, number: int) -> str:
    """On loopback; `kind`: 1 hosts, 2 BMCs. Networks of 250 take turns."""
    return f"127.{second}.{kind + 2 * (number // 250)}.{number % 250 + 1}"


def _claim_network() -> tuple[int, socket.socket]:
    """The second byte of 127.x addresses that no other cloud on this machine uses, and what keeps it ours."""
    for second in range(20, 250):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0ha-controller-embedded-cloud-{second}")
        except OSError:
            claim.close()
            continue
        return second, claim
    raise RuntimeError("230 embedded clouds run on this machine already")


def _stores() -> list[Datastore]:
    return [
        Datastore(id=SHARED_STORE, name="shared", shared=True, clusters=(CLUSTER,), tm_mad="shared"),
        Datastore(id=LOCAL_STORE, name="local", shared=False, clusters=(CLUSTER,), tm_mad="ssh"),
        Datastore(id=101, name="images", shared=True, clusters=(CLUSTER,), tm_mad="shared", type=0),
    ]
