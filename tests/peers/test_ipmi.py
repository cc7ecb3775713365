"""The IPMI agent against ipmi_sim, a BMC that none of us wrote, one process per BMC."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from ha_controller_ipmi import IpmiAgent, IpmiConfig
from ha_controller_ipmi.rmcp import NETFN_APP, NETFN_CHASSIS, Credentials
from ha_controller_ipmi.session import open_session

from ha_controller.core.events import FenceResult
from ha_controller.plugin import AccessDenied, FenceError, PowerState, Rejected, Unreachable
from ha_controller.testing import CHECKS, Check, Rig
from tests.peers.conftest import fenced_in_two_rounds
from tests.peers.ipmi_sim import (
    ADMINISTRATOR,
    MONITOR,
    OPERATOR,
    BlackHole,
    Fault,
    IpmiSim,
    IpmiSimFarm,
    User,
    tampering_relay,
)

pytestmark = pytest.mark.peer

KG = "a-key-of-the-bmc"
WRONG_PASSWORD = "not-the-password"


def agent_for(bmc: IpmiSim | BlackHole, **settings: Any) -> IpmiAgent:
    """Build an agent with the operator's account, unless the settings say otherwise."""
    account = {"username": OPERATOR.name, "password": OPERATOR.password}
    return IpmiAgent(IpmiConfig.model_validate({"address": bmc.address, "port": bmc.port} | account | settings))


def credentials_of(user: User, privilege: int) -> Credentials:
    return Credentials(username=user.name.encode(), password=user.password.encode(), kg=None, privilege=privilege)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    with anyio.fail_after(within_s):
        while True:
            if await condition():
                return
            await anyio.sleep(0.02)


async def wait_until_off(agent: IpmiAgent) -> None:
    async def is_off() -> bool:
        return await agent.power_state() is PowerState.OFF

    await until(is_off, within_s=10)


@pytest.fixture
def bmc(bmc_farm: IpmiSimFarm) -> IpmiSim:
    return bmc_farm.start(1)[0]


OPERATOR_LOGIN = credentials_of(OPERATOR, privilege=3)


# --- the conformance suite --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_agent_conforms(check: Check, ipmi_rig: Rig) -> None:
    await check(ipmi_rig)


# --- one BMC ----------------------------------------------------------------------------------------------------------


async def test_off_is_one_hard_power_down_and_is_read_back(bmc: IpmiSim) -> None:
    agent = agent_for(bmc)
    await agent.power_off()
    assert await agent.power_state() is PowerState.OFF
    assert bmc.orders() == ["power 0"]


async def test_an_administrator_can_do_it_too(bmc: IpmiSim) -> None:
    agent = agent_for(bmc, username=ADMINISTRATOR.name, password=ADMINISTRATOR.password, privilege="administrator")
    assert (await agent.check()).ok
    await agent.power_off()
    assert not bmc.power_is_on()


async def test_a_name_is_resolved_and_told_as_a_risk(bmc: IpmiSim) -> None:
    report = await agent_for(bmc, address="localhost").check()
    assert report.ok
    assert "DNS" in report.summary


async def test_an_unknown_name_is_unreachable(bmc: IpmiSim) -> None:
    with anyio.fail_after(20), pytest.raises(Unreachable, match="resolved"):
        await agent_for(bmc, address="no-such-host.invalid").power_state()


@pytest.mark.parametrize("wrong", [{"password": WRONG_PASSWORD}, {"username": "nobody"}, {"kg": "another-key"}])
async def test_wrong_credentials_are_denied_at_once(bmc: IpmiSim, wrong: dict[str, str]) -> None:
    with anyio.fail_after(2), pytest.raises(AccessDenied):
        await agent_for(bmc, **wrong).power_off()
    assert bmc.orders() == []


async def test_a_bmc_with_a_kg_wants_it(bmc_farm: IpmiSimFarm) -> None:
    [bmc] = bmc_farm.start(1, kg=KG)
    assert await agent_for(bmc, kg=KG).power_state() is PowerState.ON
    assert await agent_for(bmc, kg="0x" + KG.encode().hex()).power_state() is PowerState.ON
    with pytest.raises(AccessDenied):
        await agent_for(bmc).power_state()


async def test_check_sees_an_account_that_may_only_read(bmc: IpmiSim) -> None:
    report = await agent_for(bmc, username=MONITOR.name, password=MONITOR.password).check()
    assert not report.ok
    assert "privilege" in report.summary
    assert report.power is PowerState.ON


async def test_an_order_above_the_privilege_level_is_denied(bmc: IpmiSim) -> None:
    async with open_session(bmc.address, bmc.port, credentials_of(MONITOR, privilege=2)) as session:
        assert (await session.command(NETFN_CHASSIS, 0x01))[0] & 1
        with pytest.raises(AccessDenied, match="0xd4"):
            await session.command(NETFN_CHASSIS, 0x02, b"\x00")
    assert bmc.power_is_on()


async def test_a_refusal_is_told_in_the_words_of_ipmi_and_unspecified_claims_nothing(bmc: IpmiSim) -> None:
    bmc.break_with(Fault.FAIL)
    with pytest.raises(FenceError, match="completion code 0xff") as raised:
        await agent_for(bmc).power_off()
    assert not isinstance(raised.value, Rejected)


async def test_a_stuck_chassis_is_read_as_on(bmc: IpmiSim) -> None:
    bmc.break_with(Fault.STUCK)
    agent = agent_for(bmc)
    await agent.power_off()
    assert await agent.power_state() is PowerState.ON


async def test_the_hook_runs_and_the_probe_is_believed(bmc_farm: IpmiSimFarm, tmp_path: Path) -> None:
    hook, probe = tmp_path / "hook.sh", tmp_path / "probe.sh"
    hook.write_text(f"#!/bin/sh\necho $1 >{tmp_path}/state\n")
    probe.write_text(f"#!/bin/sh\ncat {tmp_path}/state\n")
    (tmp_path / "state").write_text("1\n")
    hook.chmod(0o755)
    probe.chmod(0o755)
    [bmc] = bmc_farm.start(1, hook=hook, probe=probe)
    agent = agent_for(bmc)
    assert await agent.power_state() is PowerState.ON
    await agent.power_off()
    assert (tmp_path / "state").read_text() == "0\n"
    assert await agent.power_state() is PowerState.OFF


# --- a BMC that does not answer ---------------------------------------------------------------------------------------


async def test_a_closed_port_is_unreachable_at_once(bmc: IpmiSim) -> None:
    bmc.kill()
    with anyio.fail_after(1), pytest.raises(Unreachable, match="nothing listens"):
        await agent_for(bmc).power_off()


async def test_a_black_hole_ends_at_the_deadline(black_hole: BlackHole) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError), anyio.fail_after(1.0):
        await agent_for(black_hole).power_off()
    assert 0.9 < time.monotonic() - started < 1.5


@pytest.mark.slow
async def test_a_black_hole_is_given_up_without_a_deadline(black_hole: BlackHole) -> None:
    with anyio.fail_after(30), pytest.raises(Unreachable, match="no answer"):
        await agent_for(black_hole).power_off()


@pytest.mark.slow
async def test_a_bmc_that_falls_silent_in_the_login_is_given_up(bmc: IpmiSim) -> None:
    def lose_proofs(answer: bytes) -> list[bytes]:
        return [] if answer[4:6] == b"\x06\x13" else [answer]  # RAKP message 2

    async with tampering_relay(bmc, lose_proofs) as port:
        with anyio.fail_after(30), pytest.raises(Unreachable, match="no answer"):
            await agent_for(bmc, port=port).power_off()


async def test_a_frozen_bmc_ends_at_the_deadline_and_works_again_later(bmc: IpmiSim) -> None:
    agent = agent_for(bmc)
    bmc.freeze()
    with pytest.raises(TimeoutError), anyio.fail_after(0.5):
        await agent.power_state()
    bmc.restart()
    assert await agent.power_state() is PowerState.ON


async def test_a_bmc_lost_inside_a_session_is_unreachable(bmc: IpmiSim) -> None:
    with anyio.fail_after(10):
        async with open_session(bmc.address, bmc.port, OPERATOR_LOGIN) as session:
            bmc.kill()
            with pytest.raises(Unreachable):
                await session.command(NETFN_CHASSIS, 0x01)


async def test_every_session_is_given_back(bmc: IpmiSim) -> None:
    for _ in range(3):
        await agent_for(bmc).power_state()
    assert await active_sessions(bmc) == 1


async def test_a_call_cancelled_inside_a_session_gives_it_back(bmc: IpmiSim) -> None:
    for _ in range(3):
        with anyio.CancelScope() as scope:
            async with (
                open_session(bmc.address, bmc.port, OPERATOR_LOGIN) as session,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(session.command, NETFN_CHASSIS, 0x01)
                await anyio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
    assert await active_sessions(bmc) == 1


async def active_sessions(bmc: IpmiSim) -> int:
    """Ask the BMC how many sessions are open, the asking one included (Get Session Info)."""
    async with open_session(bmc.address, bmc.port, OPERATOR_LOGIN) as session:
        return (await session.command(NETFN_APP, 0x3D, b"\x00"))[2]


async def test_calls_of_one_agent_wait_for_each_other(bmc: IpmiSim) -> None:
    agent = agent_for(bmc)
    bmc.freeze()
    results: list[PowerState] = []

    async def read() -> None:
        results.append(await agent.power_state())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(read)
        await anyio.lowlevel.checkpoint()

        async def one_is_open() -> bool:
            return agent_sockets(bmc.port) > 0

        await until(one_is_open, within_s=5)
        assert agent_sockets(bmc.port) == 1
        bmc.restart()
    assert results == [PowerState.ON] * 5


def agent_sockets(port: int) -> int:
    """Count the UDP sockets of this machine that are connected to a local port."""
    remote = f"0100007F:{port:04X}"
    return sum(line.split()[2] == remote for line in Path("/proc/net/udp").read_text().splitlines()[1:])


async def test_with_every_tenth_packet_lost_each_way_it_is_still_fenced(
    bmc: IpmiSim, lose_packets: Callable[[int, int], None]
) -> None:
    lose_packets(bmc.port, 10)
    report = await fenced_in_two_rounds(agent_for(bmc), 15)
    assert report.result is FenceResult.OFF_READ
    assert set(bmc.orders()) == {"power 0"}  # sent again when an answer was lost, never as something else
    assert not bmc.power_is_on()


# --- hostile bytes ----------------------------------------------------------------------------------------------------


def is_session_traffic(datagram: bytes) -> bool:
    """Tell commands inside a session from the login: RMCP+, signed and encrypted."""
    return datagram[4] == 6 and datagram[5] & 0xC0 == 0xC0


def flipped(datagram: bytes, position: int) -> bytes:
    """Flip one bit of one byte, and leave a datagram that is too short as it is."""
    return bytes(byte ^ (position == index) for index, byte in enumerate(datagram))


async def test_forged_packets_do_not_disturb_a_session(bmc: IpmiSim) -> None:
    old: list[bytes] = []

    def surround(answer: bytes) -> list[bytes]:
        if not is_session_traffic(answer):
            return [answer]
        unsigned = answer[:4] + b"\x00" + b"\xf0\xff\xff\xff" + bytes(4) + b"\x08" + bytes(8)
        cut_login = answer[:4] + b"\x06\x13" + bytes(12)
        old.append(answer)
        return [b"", answer[:20], unsigned, cut_login, flipped(answer, len(answer) - 1), old[0], answer, answer]

    with anyio.fail_after(2):
        async with tampering_relay(bmc, surround) as port:
            await agent_for(bmc, port=port).power_off()
        async with tampering_relay(bmc, surround) as port:
            assert await agent_for(bmc, port=port).power_state() is PowerState.OFF
    assert bmc.orders() == ["power 0"]


@pytest.mark.parametrize("in_session", [False, True])
async def test_no_flipped_bit_makes_a_running_host_look_off(bmc: IpmiSim, in_session: bool) -> None:
    seen: set[object] = set()
    slots = anyio.Semaphore(5)  # ipmi_sim has few sessions

    async def read_with_flipped(position: int) -> None:
        def tamper(answer: bytes) -> list[bytes]:
            return [flipped(answer, position) if is_session_traffic(answer) == in_session else answer]

        async with slots, tampering_relay(bmc, tamper) as port:
            try:
                with anyio.fail_after(0.4):
                    seen.add(await agent_for(bmc, port=port).power_state())
            except (FenceError, TimeoutError) as error:
                seen.add(type(error))

    async with anyio.create_task_group() as tasks:
        for position in range(64):
            tasks.start_soon(read_with_flipped, position)
    assert PowerState.OFF not in seen
    assert TimeoutError in seen


# --- many BMCs --------------------------------------------------------------------------------------------------------


async def test_dead_bmcs_do_not_delay_the_live_ones(bmc_farm: IpmiSimFarm) -> None:
    bmcs = bmc_farm.start(20)
    for frozen, closed in zip(bmcs[10:15], bmcs[15:], strict=True):
        frozen.freeze()
        closed.kill()
    off_after_s: dict[int, float] = {}
    failed: dict[int, type[BaseException]] = {}
    started = time.monotonic()

    async def fence(bmc: IpmiSim) -> None:
        agent = agent_for(bmc)
        try:
            with anyio.fail_after(4):
                await agent.power_off()
                await wait_until_off(agent)
        except (FenceError, TimeoutError) as error:
            failed[bmc.port] = type(error)
        else:
            off_after_s[bmc.port] = time.monotonic() - started

    async with anyio.create_task_group() as tasks:
        for bmc in bmcs:
            tasks.start_soon(fence, bmc)
    assert set(off_after_s) == {bmc.port for bmc in bmcs[:10]}
    assert max(off_after_s.values()) < 3
    assert [failed[bmc.port] for bmc in bmcs[10:]] == [TimeoutError] * 5 + [Unreachable] * 5
    assert time.monotonic() - started < 5


async def test_no_socket_and_no_task_is_left(bmc: IpmiSim, black_hole: BlackHole) -> None:
    tasks_before, sockets_before = set(anyio.get_running_tasks()), open_sockets()

    async def try_to_read(target: IpmiSim | BlackHole, password: str) -> None:
        try:
            with anyio.move_on_after(0.3):
                await agent_for(target, password=password).power_state()
        except FenceError:
            return

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(try_to_read, bmc, OPERATOR.password)
            tasks.start_soon(try_to_read, bmc, WRONG_PASSWORD)
            tasks.start_soon(try_to_read, black_hole, OPERATOR.password)

    async def none_is_left() -> bool:
        return open_sockets() <= sockets_before

    await until(none_is_left, within_s=2)
    assert set(anyio.get_running_tasks()) == tasks_before


def open_sockets() -> int:
    """Count this process's sockets."""
    links = Path("/proc/self/fd").iterdir()
    return sum(str(link.readlink()).startswith("socket:") for link in links if link.is_symlink())
