"""The Redfish agent against sushy-emulator over TLS; and against a double, for what the emulator has not."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from ha_controller_redfish import RedfishAgent, RedfishConfig
from ha_controller_redfish.service import Busy

from ha_controller.core.events import FenceResult
from ha_controller.plugin import AccessDenied, FenceAgent, FenceError, Identity, PowerState, Rejected, Unreachable
from ha_controller.testing import CHECKS, Check, Fault, Rig
from tests.peers import redfish_double, sushy
from tests.peers.certificates import Certificate, self_signed
from tests.peers.conftest import fenced
from tests.peers.redfish_double import RedfishDouble
from tests.peers.sushy import NEVER, SushyEmulator

pytestmark = pytest.mark.peer
WRONG_PASSWORD = "not-the-password"
BAD_TASK = {"TaskState": "Exception", "Messages": [{"Message": "The chassis refused."}]}


def agent_for(bmc: SushyEmulator | RedfishDouble, **settings: Any) -> RedfishAgent:
    account = {"username": sushy.USERNAME, "password": sushy.PASSWORD}
    return RedfishAgent(RedfishConfig.model_validate({"address": bmc.address, "port": bmc.port} | account | settings))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path)


@pytest.fixture
def emulator(tmp_path: Path, certificate: Certificate, peers_venv: Path) -> Iterator[SushyEmulator]:
    made = SushyEmulator(tmp_path / "sushy", peers_venv, certificate)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def double(certificate: Certificate) -> AsyncIterator[RedfishDouble]:
    async with redfish_double.running(RedfishDouble(), certificate) as served:
        yield served


# --- the conformance suite --------------------------------------------------------------------------------------------


class RedfishRig:
    """Implements `ha_controller.testing.Rig` with one sushy-emulator."""

    agent_class: type[FenceAgent[Any]] = RedfishAgent
    secrets: Sequence[str] = (
        sushy.PASSWORD, WRONG_PASSWORD,
        *(base64.b64encode(f"{sushy.USERNAME}:{word}".encode()).decode() for word in (sushy.PASSWORD, WRONG_PASSWORD)),
    )  # fmt: skip

    def __init__(self, emulator: SushyEmulator, nonsense_port: int) -> None:
        self.emulator = emulator
        self.system_uuid: str | None = emulator.uuids[0]
        self._nonsense_port = nonsense_port
        self._fault: Fault | None = None

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        return agent_for(
            self.emulator,
            port=self._nonsense_port if self._fault is Fault.NONSENSE else self.emulator.port,
            password=WRONG_PASSWORD if wrong_password else sushy.PASSWORD,
            fingerprint=self.emulator.certificate.fingerprint,
        )

    async def host_is_on(self) -> bool:
        return await anyio.to_thread.run_sync(self.emulator.power_is_on)

    async def set_host_power(self, on: bool) -> None:
        await anyio.to_thread.run_sync(self.emulator.set_power, on)

    async def set_fault(self, fault: Fault | None) -> None:
        if self._fault in (Fault.HANGS, Fault.REFUSES) or fault is Fault.REFUSES:
            self.emulator.stop()
            await anyio.to_thread.run_sync(lambda: self.emulator.start(refuses=fault is Fault.REFUSES))
        self.emulator.set_lag({Fault.STAYS_ON: NEVER, Fault.SLOW: 2}.get(fault, 0) if fault else 0)
        if fault is Fault.HANGS:
            self.emulator.freeze()
        self._fault = fault


@pytest.fixture
async def redfish_rig(emulator: SushyEmulator) -> AsyncIterator[RedfishRig]:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = (
            b'[{"PowerState": "Off"' if b"Systems" in request else b'{"Systems": {"@odata.id": "/redfish/v1/Systems"}}'
        )
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.transport.abort()

    context = emulator.certificate.server_context()
    server = await asyncio.start_server(babble, sushy.ADDRESS, 0, ssl=context)
    yield RedfishRig(emulator, server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_agent_conforms(check: Check, redfish_rig: Rig) -> None:
    await check(redfish_rig)


# --- sushy-emulator ---------------------------------------------------------------------------------------------------


async def test_a_lagging_bmc_is_fenced_when_it_reads_off_twice(emulator: SushyEmulator) -> None:
    emulator.set_lag(3)
    report = await fenced(agent_for(emulator, fingerprint=emulator.certificate.fingerprint))
    assert report.result is FenceResult.OFF_READ
    assert not emulator.power_is_on()


async def test_a_stuck_bmc_is_not_fenced(emulator: SushyEmulator) -> None:
    emulator.set_lag(NEVER)
    report = await fenced(agent_for(emulator, fingerprint=emulator.certificate.fingerprint), timeout_s=3)
    assert report.result is FenceResult.UNVERIFIED
    assert emulator.power_is_on()


async def test_an_authority_may_vouch_for_the_certificate(emulator: SushyEmulator) -> None:
    report = await agent_for(emulator, ca_file=emulator.certificate.cert).check()
    assert report.ok, report.summary
    assert "drill" in report.summary  # the emulator has no accounts


async def test_a_certificate_that_nobody_vouches_for_is_refused_and_the_check_says_how_to_pin_it(
    emulator: SushyEmulator,
) -> None:
    agent = agent_for(emulator)
    with pytest.raises(AccessDenied, match="not trusted"):
        await agent.power_off()
    with pytest.raises(AccessDenied, match=f'fingerprint = "{emulator.certificate.fingerprint.upper()}"'):
        await agent.check()
    assert emulator.power_is_on()


async def test_another_certificate_than_the_pinned_one_is_refused(emulator: SushyEmulator) -> None:
    with pytest.raises(AccessDenied, match="another certificate"):
        await agent_for(emulator, fingerprint="00" * 32).power_off()
    assert emulator.power_is_on()


async def test_one_of_several_systems_must_be_named(tmp_path: Path, certificate: Certificate, peers_venv: Path) -> None:
    emulator = SushyEmulator(tmp_path / "two", peers_venv, certificate, systems=2)
    emulator.start()
    try:
        trusted = {"fingerprint": certificate.fingerprint}
        with pytest.raises(Rejected, match="2 systems"):
            await agent_for(emulator, **trusted).power_off()
        with pytest.raises(Rejected, match="none of"):
            await agent_for(emulator, system="no-such-serial", **trusted).power_off()
        agent = agent_for(emulator, system=emulator.uuids[1].upper(), **trusted)
        await agent.power_off()
        assert await agent.power_state() is PowerState.OFF
        assert (emulator.power_is_on(0), emulator.power_is_on(1)) == (True, False)
        assert await agent.identity() == Identity(system_uuid=emulator.uuids[1])
    finally:
        emulator.stop()


async def test_a_closed_port_is_unreachable_at_once_and_a_frozen_bmc_ends_at_the_deadline(
    emulator: SushyEmulator,
) -> None:
    agent = agent_for(emulator, fingerprint=emulator.certificate.fingerprint)
    emulator.freeze()
    with pytest.raises(TimeoutError), anyio.fail_after(0.5):
        await agent.power_off()
    emulator.stop()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await agent.power_off()
    assert time.monotonic() - began < 1


async def test_an_unknown_name_is_unreachable(emulator: SushyEmulator) -> None:
    with anyio.fail_after(20), pytest.raises(Unreachable):
        await agent_for(emulator, address="no-such-host.invalid").power_state()


# --- the double -------------------------------------------------------------------------------------------------------


async def test_an_account_that_may_only_read_is_found(double: RedfishDouble, certificate: Certificate) -> None:
    double.privileges = ["Login", "ConfigureSelf"]
    double.hidden_accounts = 3
    report = await agent_for(double, ca_file=certificate.cert).check()
    assert not report.ok
    assert "may not switch the power" in report.summary
    assert double.orders == []


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ({"PasswordExpiration": "2020-01-01T00:00:00Z"}, "the password expired on 2020-01-01"),
        ({"PasswordChangeRequired": True}, "demands a new password"),
    ],
)
async def test_an_expired_password_is_found(
    double: RedfishDouble, certificate: Certificate, account: dict[str, Any], words: str
) -> None:
    double.account = account
    report = await agent_for(double, ca_file=certificate.cert).check()
    assert not report.ok
    assert words in report.summary


async def test_a_healthy_account_is_told(double: RedfishDouble, certificate: Certificate) -> None:
    report = await agent_for(double, ca_file=certificate.cert).check()
    assert report.ok
    assert report.summary == "logged in, the account may switch the power; power on"


async def test_a_certificate_that_ends_soon_is_told(double: RedfishDouble, tmp_path: Path) -> None:
    ending = self_signed(tmp_path, "ending", days=5)
    async with redfish_double.running(RedfishDouble(), ending) as served:
        report = await agent_for(served, ca_file=ending.cert).check()
        assert report.ok
        assert "certificate expires on" in report.summary
    ended = self_signed(tmp_path, "ended", days=-5)
    async with redfish_double.running(RedfishDouble(), ended) as served:
        with pytest.raises(AccessDenied, match="expired"):
            await agent_for(served, ca_file=ended.cert).check()


async def test_reset_types_are_found_behind_action_info(double: RedfishDouble, certificate: Certificate) -> None:
    double.reset_types, double.action_info = None, ["On", "GracefulShutdown"]
    agent = agent_for(double, ca_file=certificate.cert)
    with pytest.raises(Rejected, match="no ForceOff, only GracefulShutdown, On"):
        await agent.power_off()
    assert not (await agent.check()).ok
    double.action_info = ["On", "ForceOff"]
    await agent.power_off()
    assert double.orders == [{"ResetType": "ForceOff"}]


async def test_without_any_list_the_order_is_tried(double: RedfishDouble, certificate: Certificate) -> None:
    double.reset_types = None
    await agent_for(double, ca_file=certificate.cert).power_off()
    assert double.power == "Off"


async def test_an_etag_is_sent_where_it_is_asked_for(double: RedfishDouble, certificate: Certificate) -> None:
    double.etag = 'W/"17"'
    await agent_for(double, ca_file=certificate.cert).power_off()
    assert double.orders == [{"ResetType": "ForceOff"}]


async def test_an_accepted_order_whose_task_fails_is_told_in_its_words(
    double: RedfishDouble, certificate: Certificate
) -> None:
    double.task = BAD_TASK
    with pytest.raises(FenceError, match="The chassis refused") as raised:
        await agent_for(double, ca_file=certificate.cert).power_off()
    assert not isinstance(raised.value, Rejected)  # it was accepted: what it did is unknown


async def test_a_task_that_runs_is_not_waited_for_longer_than_two_seconds(
    double: RedfishDouble, certificate: Certificate
) -> None:
    double.task = {"TaskState": "Running"}
    with anyio.fail_after(4):
        await agent_for(double, ca_file=certificate.cert).power_off()


@pytest.mark.parametrize(
    ("status", "error"),
    [(409, Rejected), (400, Rejected), (403, AccessDenied), (429, Busy), (503, FenceError), (500, FenceError)],
)
async def test_refusals_are_told_apart(
    double: RedfishDouble, certificate: Certificate, status: int, error: type[FenceError]
) -> None:
    double.refusal = status, {"error": {"@Message.ExtendedInfo": [{"Message": f"no, {sushy.PASSWORD}"}]}}
    with pytest.raises(FenceError, match=f"HTTP {status}.*no, ") as raised:
        await agent_for(double, ca_file=certificate.cert).power_off()
    assert type(raised.value) is error
    assert sushy.PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("written", "state"),
    [("On", PowerState.ON), ("Off", PowerState.OFF), ("PoweringOff", PowerState.UNKNOWN), ("PoweringOn", PowerState.ON),
     ("Paused", PowerState.ON), ("off", PowerState.UNKNOWN)],
)  # fmt: skip
async def test_only_off_is_off(
    double: RedfishDouble, certificate: Certificate, written: str, state: PowerState
) -> None:
    double.power = written
    assert await agent_for(double, ca_file=certificate.cert).power_state() is state


async def test_the_password_is_sent_to_the_bmc_alone(double: RedfishDouble, certificate: Certificate) -> None:
    agent = agent_for(double, ca_file=certificate.cert)
    double.document = lambda path: {"Systems": {"@odata.id": "//evil.example/redfish"}}  # type: ignore[method-assign]
    with pytest.raises(FenceError, match="no path of its own"):
        await agent.power_state()


async def test_of_two_systems_with_one_serial_number_none_is_taken(
    double: RedfishDouble, certificate: Certificate
) -> None:
    double.systems = {"/redfish/v1/Systems/2": {"Id": "2", "SerialNumber": "SN12345", "PowerState": "Off"}}
    with pytest.raises(Rejected, match="2 of the service's 2 systems"):
        await agent_for(double, ca_file=certificate.cert, system="SN12345").power_state()
    assert await agent_for(double, ca_file=certificate.cert, system="1").power_state() is PowerState.ON


async def test_a_system_that_moved_is_found_again(double: RedfishDouble, certificate: Certificate) -> None:
    agent = agent_for(double, ca_file=certificate.cert, system="SN12345")
    assert await agent.power_state() is PowerState.ON
    double.systems = {"/redfish/v1/Systems/9": {"Id": "9", "SerialNumber": "SN12345", "PowerState": "Off"}}
    shown = double.document

    def other_machine(path: str) -> Any:
        document = shown(path)
        return {**document, "SerialNumber": "SN999"} if document and path == redfish_double.SYSTEM else document

    double.document = other_machine  # type: ignore[method-assign]
    assert await agent.power_state() is PowerState.OFF
