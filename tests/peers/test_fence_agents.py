"""The bridge with real agents: fence_ipmilan, fence_redfish, fence_apc_snmp and fence_dummy, each on a real peer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from ha_controller_fence_agents import BridgeAgent, BridgeConfig
from pydantic import SecretStr, ValidationError

from ha_controller.app import show_plugin
from ha_controller.plugin import Capability, FenceAgent, FenceError, PowerState
from ha_controller.testing import CHECKS, Check, Fault, Rig
from tests.peers import sushy
from tests.peers.certificates import self_signed
from tests.peers.conftest import IpmiRig
from tests.peers.ipmi_sim import OPERATOR, BlackHole, IpmiSim, IpmiSimFarm
from tests.peers.snmp_pdu import MAY_WRITE, PduFarm
from tests.peers.sushy import SushyEmulator

pytestmark = pytest.mark.peer
WRONG_PASSWORD = "not-the-password"


@pytest.fixture(autouse=True)
def _agents(require_peer: Callable[[str], str]) -> None:
    require_peer("fence_dummy")


def ipmilan(bmc: IpmiSim | BlackHole, password: str = OPERATOR.password, port: int | None = None) -> BridgeAgent:
    parameters = {
        "ip": bmc.address, "ipport": port or bmc.port, "username": OPERATOR.name, "lanplus": True, "cipher": "3",
        "privlvl": "operator", "power_wait": 0, "power_timeout": 3,
    }  # fmt: skip
    config = BridgeConfig(program="fence_ipmilan", parameters=parameters, secrets={"password": SecretStr(password)})
    return BridgeAgent(config)


def dummy(folder: Path, **parameters: Any) -> BridgeAgent:
    written = {"type": "file", "status_file": str(folder / "status"), **parameters}
    return BridgeAgent(BridgeConfig(program="fence_dummy", parameters=written))


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Mark what this test starts: another run on this machine may use the same agents."""
    word = f"test-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setattr("ha_controller.process.secrets.token_hex", lambda size: word)
    return word


def processes(mark: str) -> list[str]:
    """Command lines of living processes that this test has started, and those of their descendants."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            environ = (entry / "environ").read_bytes().decode(errors="replace")
        except (OSError, IndexError):
            continue
        if state not in "ZX" and mark in environ:
            found.append(line)
    return found


# --- the conformance suite, with fence_ipmilan ------------------------------------------------------------------------


class BridgeRig(IpmiRig):
    """Implements `ha_controller.testing.Rig` with fence_ipmilan and one ipmi_sim."""

    agent_class: type[FenceAgent[Any]] = BridgeAgent
    secrets: Sequence[str] = (OPERATOR.password, WRONG_PASSWORD)
    tells_denials = False  # "Unable to obtain correct plug status or plug is not available"

    def __init__(self, bmc: IpmiSim, nonsense_port: int) -> None:
        super().__init__(bmc, nonsense_port)
        self.system_uuid = None

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        port = self._nonsense_port if self._fault is Fault.NONSENSE else self.bmc.port
        return ipmilan(self.bmc, WRONG_PASSWORD if wrong_password else OPERATOR.password, port)


@pytest.fixture
def bridge_rig(bmc_farm: IpmiSimFarm) -> Iterator[BridgeRig]:
    [bmc] = bmc_farm.start(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))  # what talks nonsense to ipmitool ends as silence does
        yield BridgeRig(bmc, mute.getsockname()[1])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_bridge_conforms(check: Check, bridge_rig: Rig) -> None:
    await check(bridge_rig)


# --- other agents -----------------------------------------------------------------------------------------------------


async def test_fence_dummy_goes_off_and_on(tmp_path: Path) -> None:
    agent = dummy(tmp_path)
    (tmp_path / "status").write_text("on")
    assert (await agent.check()).power is PowerState.ON
    await agent.power_off()
    assert await agent.power_state() is PowerState.OFF
    await agent.power_on()
    assert await agent.power_state() is PowerState.ON


async def test_fence_redfish_switches_a_system(tmp_path: Path, peers_venv: Path) -> None:
    emulator = SushyEmulator(tmp_path / "sushy", peers_venv, self_signed(tmp_path))
    emulator.start()
    try:
        agent = redfish(emulator.address, emulator.port, emulator.uuids[0])
        assert await agent.power_state() is PowerState.ON
        await agent.power_off()
        assert await agent.power_state() is PowerState.OFF
        assert not emulator.power_is_on()
    finally:
        emulator.stop()


async def test_fence_apc_snmp_calls_a_missing_plug_off_and_is_therefore_weak(
    pdu_farm: PduFarm,
) -> None:
    pdu = pdu_farm.start("apc-rpdu")
    parameters = {"ip": pdu.address, "ipport": pdu.port, "snmp_version": "2c"}
    secrets = {"community": SecretStr(MAY_WRITE)}
    present = BridgeAgent(
        BridgeConfig(program="fence_apc_snmp", parameters={**parameters, "plug": "3"}, secrets=secrets)
    )
    assert await present.power_state() is PowerState.ON
    missing = BridgeAgent(
        BridgeConfig(program="fence_apc_snmp", parameters={**parameters, "plug": "99"}, secrets=secrets)
    )
    assert await missing.power_state() is PowerState.OFF  # the agent says so
    assert Capability.WEAK_OFF in missing.capabilities  # and is not believed alone
    assert Capability.WEAK_OFF not in BridgeAgent.capabilities
    await present.power_off()
    assert not pdu.is_on(3)


def redfish(address: str, port: int, system: str = "1") -> BridgeAgent:
    parameters = {
        "ip": address, "ipport": port, "username": sushy.USERNAME, "ssl_insecure": True,
        "systems_uri": f"/redfish/v1/Systems/{system}",
    }  # fmt: skip
    secrets = {"password": SecretStr(sushy.PASSWORD)}
    return BridgeAgent(BridgeConfig(program="fence_redfish", parameters=parameters, secrets=secrets))


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A TCP port that accepts a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        yield int(deaf.getsockname()[1])


@pytest.mark.parametrize("program", ["fence_ipmilan", "fence_redfish"])
async def test_a_black_hole_ends_at_the_deadline_and_leaves_no_process(
    program: str, black_hole: BlackHole, deaf_port: int, mark: str
) -> None:
    agent = ipmilan(black_hole) if program == "fence_ipmilan" else redfish("127.0.0.1", deaf_port)
    began = time.monotonic()
    with anyio.move_on_after(2) as scope:
        await agent.power_off()
    assert scope.cancelled_caught
    assert time.monotonic() - began < 2.5
    with anyio.fail_after(2):
        while processes(mark):
            await anyio.sleep(0.05)


async def test_hung_agents_delay_no_other(black_hole: BlackHole, tmp_path: Path, mark: str) -> None:
    (tmp_path / "status").write_text("on")
    took: list[float] = []
    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(ipmilan(black_hole).power_state)
        with anyio.fail_after(10):
            while len(processes(mark)) < 4:
                await anyio.sleep(0.05)
        began = time.monotonic()
        assert await dummy(tmp_path).power_state() is PowerState.ON
        took.append(time.monotonic() - began)
        group.cancel_scope.cancel()
    assert took[0] < 5
    with anyio.fail_after(2):
        while processes(mark):
            await anyio.sleep(0.05)


async def test_no_secret_is_on_the_command_line_of_the_agent(black_hole: BlackHole, mark: str) -> None:
    seen: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(ipmilan(black_hole, WRONG_PASSWORD).power_state)
        with anyio.fail_after(5):
            while not (seen := processes(mark)):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    assert WRONG_PASSWORD not in " ".join(seen)


async def test_the_reason_is_told_in_the_agents_words(tmp_path: Path) -> None:
    agent = dummy(tmp_path, type="fail")
    with pytest.raises(FenceError, match="fence_dummy off: "):
        await agent.power_off()


@pytest.mark.parametrize(
    ("program", "parameters", "words"),
    [
        ("fence_no_such_thing", {}, "is not installed. Debian: apt install fence-agents"),
        ("fence_apc_snmp", {"ip": "192.0.2.1", "plugg": "3"}, "no parameter plugg; did you mean plug?"),
        ("fence_apc_snmp", {"plug": "3"}, "ip is missing"),
        ("fence_ipmilan", {"ip": "192.0.2.1", "action": "reboot"}, "action is set by the controller"),
        ("fence_ipmilan", {"ip": "192.0.2.1", "password": "x"}, "write it into the table secrets"),
        ("fence_ipmilan", {"ip": "192.0.2.1", "power_timeout": "soon"}, "power_timeout takes a number"),
        ("fence_ipmilan", {"ip": "192.0.2.1", "lanplus": "maybe"}, "lanplus takes true or false"),
        ("fence_ipmilan", {"ip": "192.0.2.1\naction=on"}, "more than one line"),
    ],
)
def test_parameters_are_checked_against_the_agents_own_metadata(
    program: str, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words.replace("?", r"\?")):
        BridgeConfig(program=program, parameters=parameters)


def test_an_older_name_of_a_required_parameter_will_do() -> None:
    BridgeConfig(program="fence_apc_snmp", parameters={"ipaddr": "192.0.2.1", "port": "3"})


def test_the_parameters_of_an_installed_agent_are_shown() -> None:
    found = show_plugin("fence-agents", "fence_apc_snmp")
    assert found is not None
    settings = {setting["name"]: setting for setting in found["settings"]}
    assert settings["ip"]["required"]
    assert "action" not in settings
    assert "weak evidence" in found["summary"]
    assert "fence_ipmilan" in show_plugin("fence-agents")["variants"]  # type: ignore[index]
    assert show_plugin("fence-agents", "fence_no_such_thing") is None
