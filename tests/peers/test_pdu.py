"""The PDU agent against net-snmp's snmpd, in versions 1, 2c and 3, with the objects of six makers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from ha_controller_pdu import PduAgent, PduConfig
from ha_controller_pdu.snmp import close_engines

from ha_controller.core.events import FenceResult
from ha_controller.plugin import AccessDenied, FenceAgent, FenceError, PowerState, Rejected, Unreachable
from ha_controller.testing import CHECKS, Check, Fault, Rig
from tests.peers.conftest import fenced, fenced_in_two_rounds
from tests.peers.ipmi_sim import BlackHole, tampering_relay
from tests.peers.snmp_pdu import AUTH, MAY_READ, MAY_WRITE, PRIV, READER, SHA1_USER, USER, Pdu, PduFarm

pytestmark = pytest.mark.peer
VENDORS = ("apc-rpdu", "apc-rpdu2", "raritan", "eaton-epdu", "servertech-sentry4", "cyberpower")
V3 = {"username": USER, "auth_password": AUTH, "priv_password": PRIV, "auth_protocol": "sha256"}
ACCOUNTS = {
    "1": {"version": "1", "community": MAY_WRITE},
    "2c": {"version": "2c", "community": MAY_WRITE},
    "3": V3,
    "3-sha1": {**V3, "username": SHA1_USER, "auth_protocol": "sha"},
}
WRONG_PASSWORD = "not-the-password"


def agent_for(pdu: Pdu | BlackHole, outlets: Any = 3, **settings: Any) -> PduAgent:
    model = getattr(pdu, "vendor", "apc-rpdu")
    account = {} if "version" in settings else V3
    written = {"address": pdu.address, "port": pdu.port, "model": model, "outlets": outlets, **account, **settings}
    return PduAgent(PduConfig.model_validate(written))


@pytest.fixture(autouse=True)
async def _engines() -> AsyncIterator[None]:
    yield
    close_engines()
    await asyncio.sleep(0)


@pytest.fixture
def pdu(pdu_farm: PduFarm) -> Pdu:
    return pdu_farm.start()


# --- the conformance suite --------------------------------------------------------------------------------------------


class PduRig:
    """Implements `ha_controller.testing.Rig` with two outlets of one snmpd, over version 3."""

    agent_class: type[FenceAgent[Any]] = PduAgent
    secrets: Sequence[str] = (AUTH, PRIV, WRONG_PASSWORD)
    system_uuid: str | None = None

    def __init__(self, pdu: Pdu, nonsense_port: int) -> None:
        self.pdu = pdu
        self._nonsense_port = nonsense_port
        self._fault: Fault | None = None

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        port = self._nonsense_port if self._fault is Fault.NONSENSE else self.pdu.port
        return agent_for(self.pdu, "3 4", port=port, auth_password=WRONG_PASSWORD if wrong_password else AUTH)

    async def host_is_on(self) -> bool:
        return self.pdu.is_on(3) or self.pdu.is_on(4)

    async def set_host_power(self, on: bool) -> None:
        self.pdu.set_power(3, on)
        self.pdu.set_power(4, on)

    async def set_fault(self, fault: Fault | None) -> None:
        if self._fault is Fault.HANGS:
            await anyio.to_thread.run_sync(self.pdu.restart)
        self.pdu.repair()
        self._fault = fault
        match fault:
            case Fault.HANGS:
                self.pdu.freeze()
            case Fault.STAYS_ON:
                self.pdu.break_with("stuck")
            case Fault.REFUSES:
                self.pdu.break_with("readonly")
            case Fault.SLOW:
                self.pdu.break_with("lag", "1")


class Babble(asyncio.DatagramProtocol):
    """Answers every datagram with noise."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(b"\x30\x05\x02\x01\x03\xff\xff", addr)
        self.transport.sendto(data[:-4] + b"\0\0\0\0", addr)


@pytest.fixture
async def pdu_rig(pdu: Pdu) -> AsyncIterator[PduRig]:
    loop = asyncio.get_running_loop()
    babbling, _ = await loop.create_datagram_endpoint(Babble, local_addr=(pdu.address, 0))
    yield PduRig(pdu, babbling.get_extra_info("sockname")[1])
    babbling.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_agent_conforms(check: Check, pdu_rig: Rig) -> None:
    await check(pdu_rig)


# --- makers and versions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=ACCOUNTS)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_outlet_of_every_maker_goes_off_and_on(
    pdu_farm: PduFarm, vendor: str, account: dict[str, str]
) -> None:
    pdu = pdu_farm.start(vendor)
    agent = agent_for(pdu, 3, **account)
    assert (await agent.check()).ok
    assert await agent.power_state() is PowerState.ON
    await agent.power_off()
    assert await agent.power_state() is PowerState.OFF
    assert [pdu.is_on(outlet) for outlet in (2, 3, 4)] == [True, False, True]
    await agent.power_on()
    assert await agent.power_state() is PowerState.ON


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=ACCOUNTS)
async def test_a_missing_outlet_is_never_off(pdu: Pdu, account: dict[str, str]) -> None:
    agent = agent_for(pdu, 99, **account)
    with pytest.raises(Rejected, match="no outlet 99"):
        await agent.power_state()
    with pytest.raises(Rejected, match="no outlet 99"):
        await agent.power_off()
    assert pdu.orders() == []


async def test_the_objects_of_another_maker_are_never_off(pdu: Pdu) -> None:
    with pytest.raises(Rejected, match="or is no cyberpower"):
        await agent_for(pdu, 3, model="cyberpower").power_state()


async def test_every_value_can_be_overridden(pdu_farm: PduFarm) -> None:
    pdu = pdu_farm.start("apc-rpdu2")
    table = {
        "status": "1.3.6.1.4.1.318.1.1.26.9.2.3.1.5", "reads_on": 2, "reads_off": 1,
        "off": "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5", "on": "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5",
    }  # fmt: skip
    agent = agent_for(pdu, 3, model="apc-rpdu", override=table)
    await agent.power_off()
    assert await agent.power_state() is PowerState.OFF
    assert not pdu.is_on(3)


# --- accounts ---------------------------------------------------------------------------------------------------------


async def test_a_wrong_community_and_a_dead_pdu_look_the_same_and_that_is_said(pdu: Pdu) -> None:
    with anyio.fail_after(8), pytest.raises(Unreachable, match="does not know the community"):
        await agent_for(pdu, version="2c", community="wrong-7").power_state()


@pytest.mark.parametrize("wrong", [{"auth_password": WRONG_PASSWORD}, {"username": "nobody"}])
async def test_wrong_accounts_are_denied_at_once(pdu: Pdu, wrong: dict[str, str]) -> None:
    with anyio.fail_after(2), pytest.raises(AccessDenied):
        await agent_for(pdu, **wrong).power_off()
    assert pdu.orders() == []


@pytest.mark.parametrize(
    ("account", "error"),
    [
        ({"version": "1", "community": MAY_READ}, Rejected),
        ({"version": "2c", "community": MAY_READ}, AccessDenied),
        ({**V3, "username": READER, "auth_protocol": "sha"}, AccessDenied),
    ],
    ids=("1", "2c", "3"),
)
async def test_an_account_that_may_only_read_switches_nothing(
    pdu: Pdu, account: dict[str, str], error: type[FenceError]
) -> None:
    agent = agent_for(pdu, **account)
    assert await agent.power_state() is PowerState.ON
    with pytest.raises(error):
        await agent.power_off()
    assert pdu.orders() == []


async def test_accounts_of_the_same_name_with_other_passwords_do_not_disturb_each_other(pdu_farm: PduFarm) -> None:
    first, second = agent_for(pdu_farm.start()), agent_for(pdu_farm.start(), auth_password="another-secret-7")
    states: list[object] = []

    async def read(agent: PduAgent) -> None:
        for _ in range(10):
            try:
                states.append(await agent.power_state())
            except AccessDenied:
                states.append("denied")

    async with anyio.create_task_group() as group:
        group.start_soon(read, first)
        group.start_soon(read, second)
    assert (states.count(PowerState.ON), states.count("denied")) == (10, 10)


# --- several outlets --------------------------------------------------------------------------------------------------


async def test_one_outlet_of_two_on_is_on(pdu: Pdu) -> None:
    agent = agent_for(pdu, [3, 4])
    pdu.set_power(3, False)
    assert await agent.power_state() is PowerState.ON
    pdu.set_power(4, False)
    assert await agent.power_state() is PowerState.OFF


async def test_a_lagging_pdu_is_fenced_when_all_outlets_read_off(pdu: Pdu) -> None:
    pdu.break_with("lag", "3")
    assert (await fenced(agent_for(pdu, [3, 4]))).result is FenceResult.OFF_READ
    assert not pdu.is_on(3)
    assert not pdu.is_on(4)


async def test_a_stuck_pdu_is_not_fenced(pdu: Pdu) -> None:
    pdu.break_with("stuck")
    assert (await fenced(agent_for(pdu), timeout_s=4)).result is FenceResult.UNVERIFIED


async def test_pending_is_not_off(pdu_farm: PduFarm) -> None:
    pdu = pdu_farm.start("eaton-epdu")
    pdu.break_with("lag", "30")
    agent = agent_for(pdu)
    await agent.power_off()
    assert await agent.power_state() is PowerState.UNKNOWN


async def test_with_one_pdu_of_two_silent_nothing_is_switched(pdu: Pdu) -> None:
    agent = agent_for(pdu, ["3", "127.0.0.2/3"])  # nothing listens there
    with anyio.fail_after(8), pytest.raises(Unreachable):
        await agent.power_off()
    assert pdu.orders() == []


async def test_a_running_outlet_is_told_although_another_pdu_is_silent(pdu: Pdu) -> None:
    with anyio.fail_after(8):
        assert await agent_for(pdu, ["3", "127.0.0.2/3"]).power_state() is PowerState.ON


# --- swapped outlets --------------------------------------------------------------------------------------------------


async def test_swapped_outlets_are_found_by_their_names_and_not_switched(pdu: Pdu) -> None:
    pdu.break_with("names", "\n".join(["spare", "spare", "kvm-07 A", "kvm-06 A"]))
    agent = agent_for(pdu, 3, names="kvm-06 A")
    report = await agent.check()
    assert not report.ok
    assert "outlet 3 of PDU 127.0.0.1 is called 'kvm-07 A' there, not 'kvm-06 A': swapped?" in report.summary
    with pytest.raises(Rejected, match="not switched"):
        await agent.power_off()
    assert pdu.orders() == []
    right = agent_for(pdu, 4, names="kvm-06 A")
    assert (await right.check()).ok
    await right.power_off()
    assert pdu.orders() == ["4 0"]


# --- a PDU that does not answer ---------------------------------------------------------------------------------------


async def test_a_black_hole_ends_at_the_deadline_and_is_given_up_without_one(black_hole: BlackHole) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.5):
        await agent_for(black_hole).power_off()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await agent_for(black_hole).power_state()
    assert time.monotonic() - began < 6


class Mute(asyncio.DatagramProtocol):
    """Counts datagrams and answers none."""

    def __init__(self) -> None:
        self.heard = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard += 1


async def test_hosts_that_share_a_pdu_ask_one_after_the_other(pdu: Pdu) -> None:
    loop = asyncio.get_running_loop()
    transport, mute = await loop.create_datagram_endpoint(Mute, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    await agent_for(pdu).power_state()  # the engine is there now
    with anyio.move_on_after(0.7):
        async with anyio.create_task_group() as group:
            for outlet in range(1, 5):
                group.start_soon(agent_for(pdu, outlet, port=port).power_state)
    assert mute.heard == 1
    transport.abort()


async def test_a_repeated_order_that_is_refused_may_have_acted_the_first_time(pdu: Pdu) -> None:
    lost: list[bytes] = []

    def lose_the_answer(answer: bytes) -> list[bytes]:
        if pdu.orders() and not lost:
            lost.append(answer)
            pdu.break_with("readonly")
            return []
        return [answer]

    async with tampering_relay(pdu, lose_the_answer) as port:
        with pytest.raises(FenceError, match="refused the repeated order") as raised:
            await agent_for(pdu, port=port).power_off()
    assert type(raised.value) is FenceError
    assert not pdu.is_on(3)


async def test_wrong_accounts_of_other_hosts_take_turns_with_a_good_one(pdu: Pdu) -> None:
    wrong = agent_for(pdu, version="2c", community="wrong-7")
    good = agent_for(pdu)
    await good.power_state()

    async def fail(agent: PduAgent) -> None:
        with suppress(Unreachable):
            await agent.power_state()

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(fail, wrong)
        await anyio.lowlevel.checkpoint()
        began = time.monotonic()
        await good.power_state()
        assert time.monotonic() - began < 7  # a try of each, not all tries of all (12 s)


async def test_a_dead_pdu_delays_no_other(pdu: Pdu, black_hole: BlackHole) -> None:
    took: list[float] = []

    async def read(agent: PduAgent) -> None:
        began = time.monotonic()
        try:
            with anyio.move_on_after(2):
                await agent.power_state()
                took.append(time.monotonic() - began)
        except FenceError:
            return

    living, dead = agent_for(pdu), agent_for(black_hole)
    await living.power_state()
    async with anyio.create_task_group() as group:
        for agent in (dead, living, dead, dead):
            group.start_soon(read, agent)
    assert len(took) == 1
    assert took[0] < 1


async def test_an_unknown_name_is_unreachable(pdu: Pdu) -> None:
    with anyio.fail_after(20), pytest.raises(Unreachable, match="resolved"):
        await agent_for(pdu, address="no-such-pdu.invalid").power_state()


@pytest.mark.parametrize("account", ["2c", "3"])
async def test_with_every_tenth_packet_lost_each_way_it_is_still_fenced(
    pdu: Pdu, account: str, lose_packets: Callable[[int, int], None]
) -> None:
    lose_packets(pdu.port, 10)
    report = await fenced_in_two_rounds(agent_for(pdu, **ACCOUNTS[account]), 15)
    assert report.result is FenceResult.OFF_READ
    assert set(pdu.orders()) == {"3 0"}
    assert not pdu.is_on(3)
