"""What all tests against real peers share: when they run, and the peers themselves.

A missing peer skips a test on a developer's machine and fails it in continuous integration (`CI` is set there): a
skipped safety test must not look like a passed one.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ha_controller_ipmi import IpmiAgent, IpmiConfig
from leads import always

from ha_controller.adapters.fencer import Device, Fencer
from ha_controller.core.effects import Fence
from ha_controller.core.events import Event, FenceReported, FenceResult
from ha_controller.plugin import FenceAgent, SecretStr
from ha_controller.testing import Fault
from tests.peers.ipmi_sim import ADDRESS, OPERATOR, BlackHole, IpmiSim, IpmiSimFarm
from tests.peers.ipmi_sim import Fault as FaultFile
from tests.peers.snmp_pdu import PduFarm

KG = "a-key-of-the-bmc"
WRONG_PASSWORD = "not-the-password"


@pytest.fixture
def bmc_farm(require_peer: Callable[[str], str], tmp_path: Path) -> Iterator[IpmiSimFarm]:
    """Start real BMCs with it; all are ended after the test."""
    require_peer("ipmi_sim")
    farm = IpmiSimFarm(tmp_path)
    yield farm
    farm.stop()


@pytest.fixture
def peers_venv() -> Path:
    """The virtual environment of the peers that are written in Python: HA_PEERS_VENV, or .peers/venv (make peers)."""
    venv = Path(os.environ.get("HA_PEERS_VENV", "") or Path(__file__).parents[2] / ".peers/venv")
    if (venv / "bin/sushy-emulator").exists():
        return venv
    if os.environ.get("CI"):
        pytest.fail("sushy-tools is not installed: make peers")
    pytest.skip("sushy-tools is not installed: make peers")


@pytest.fixture
def pdu_farm(require_peer: Callable[[str], str], tmp_path: Path) -> Iterator[PduFarm]:
    """Start real SNMP agents with it; all are ended after the test."""
    require_peer("snmpd")
    require_peer("snmpget")
    folder = tmp_path / "pdus"
    folder.mkdir()
    farm = PduFarm(folder)
    yield farm
    farm.stop()


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    """An address that swallows every packet."""
    hole = BlackHole()
    yield hole
    hole.close()


@pytest.fixture
def lose_packets(require_peer: Callable[[str], str]) -> Iterator[Callable[[int, int], None]]:
    """Have the kernel drop a share (percent) of all UDP packets to and from a port of this machine, by nftables."""
    require_peer("nft")
    table = f"inet ha_controller_loss_{os.getpid()}"
    chain = f"add table {table}; add chain {table} loss {{ type filter hook input priority 0; }}"

    def lose(port: int, percent: int) -> None:
        dice = f"numgen random mod 100 < {percent} drop"
        rules = "; ".join(f"add rule {table} loss udp {side} {port} {dice}" for side in ("sport", "dport"))
        subprocess.run(["nft", f"{chain}; {rules}"], check=True, capture_output=True, timeout=10)

    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("nftables need root")
        pytest.skip("nftables need root")
    yield lose
    subprocess.run(["nft", f"delete table {table}"], check=False, capture_output=True, timeout=10)


@pytest.fixture
async def ipmi_rig(bmc_farm: IpmiSimFarm) -> AsyncIterator[IpmiRig]:
    """The conformance suite's view of one BMC that has a Kg."""
    loop = asyncio.get_running_loop()
    babbling, _ = await loop.create_datagram_endpoint(BabblingBmc, local_addr=(ADDRESS, 0))
    [bmc] = bmc_farm.start(1, kg=KG)
    yield IpmiRig(bmc, babbling.get_extra_info("sockname")[1])
    babbling.close()


class BabblingBmc(asyncio.DatagramProtocol):
    """Answers every datagram with noise, and then with an answer that has no data where some must be."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        sequence_number = data[18]
        self.transport.sendto(b"\x06\x00\xff\x07" + bytes(range(40)), addr)
        self.transport.sendto(data[:13] + bytes((8, 0x81, 0x1C, 0x63, 0x20, sequence_number, 0x38, 0, 0)), addr)


class IpmiRig:
    """Implements `ha_controller.testing.Rig` with one ipmi_sim."""

    agent_class: type[FenceAgent[Any]] = IpmiAgent
    secrets: Sequence[str] = (OPERATOR.password, WRONG_PASSWORD, KG)

    def __init__(self, bmc: IpmiSim, nonsense_port: int) -> None:
        self.bmc = bmc
        self.system_uuid: str | None = str(bmc.system_uuid)
        self._nonsense_port = nonsense_port
        self._fault: Fault | None = None

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        password = WRONG_PASSWORD if wrong_password else OPERATOR.password
        port = self._nonsense_port if self._fault is Fault.NONSENSE else self.bmc.port
        return IpmiAgent(
            IpmiConfig(
                address=self.bmc.address,
                port=port,
                username=OPERATOR.name,
                password=SecretStr(password),
                kg=SecretStr(KG),
            )
        )

    async def host_is_on(self) -> bool:
        return self.bmc.power_is_on()

    async def set_host_power(self, on: bool) -> None:
        self.bmc.set_power(on)

    async def set_fault(self, fault: Fault | None) -> None:
        if self._fault is Fault.HANGS:
            self.bmc.restart()  # what reached the frozen process is lost with it
        for file in FaultFile:
            self.bmc.repair(file)
        self._fault = fault
        match fault:
            case Fault.HANGS:
                self.bmc.freeze()
            case Fault.STAYS_ON:
                self.bmc.break_with(FaultFile.STUCK)
            case Fault.REFUSES:
                self.bmc.break_with(FaultFile.FAIL)
            case Fault.SLOW:
                self.bmc.break_with(FaultFile.OFFLAG, "1")


async def fenced(agent: FenceAgent[Any], timeout_s: float = 15.0) -> FenceReported:
    """Fence one host with one device, as the controller does."""
    events: list[Event] = []
    clock = asyncio.get_running_loop().time
    fencer = Fencer(report=events.append, may_act=always, clock=clock)
    fencer.equip(1, {"device": Device(name="device", agent=agent, timeout_s=timeout_s)})
    await fencer.fence(Fence(host=1, incident=1, attempt=1, devices=("device",), send=True, not_after=clock() + 5))
    [report] = [event for event in events if isinstance(event, FenceReported)]
    return report


async def fenced_in_two_rounds(agent: FenceAgent[Any], timeout_s: float) -> FenceReported:
    """Fence one host with one device, a second time if the first was not verified, as the core orders it."""
    first = await fenced(agent, timeout_s)
    return first if first.result is FenceResult.OFF_READ else await fenced(agent, timeout_s)
