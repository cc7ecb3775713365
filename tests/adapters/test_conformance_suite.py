"""The conformance suite itself: a good agent passes every check, and every check catches an agent made to fail it.

The device is pretended here, in memory, since what is under test is the suite.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from pydantic import ConfigDict, SecretStr

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    Identity,
    PowerState,
    Rejected,
    Unreachable,
)
from ha_controller.testing import CHECKS, Check, ConformanceFailure, Fault, tools
from ha_controller.testing import checks as testing

SYSTEM_UUID = "0b5c2a1e-7d1f-4f0e-9a53-1c9c0f5d6a77"
PASSWORD = "right-password-1"
WRONG_PASSWORD = "wrong-password-2"
SLOWNESS_S = 0.3


class Device:
    """A host and its device, in memory."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self._on = True
        self._off_at: float | None = None

    def is_on(self) -> bool:
        return self._on and (self._off_at is None or anyio.current_time() < self._off_at)

    def switch(self, on: bool) -> None:
        self._on, self._off_at = on, None

    def order_off(self) -> None:
        if self.fault is Fault.REFUSES:
            raise Rejected("the device refuses")
        if self.fault is Fault.SLOW:
            self._off_at = anyio.current_time() + SLOWNESS_S
        elif self.fault is not Fault.STAYS_ON:
            self.switch(False)


class GoodConfig(AgentConfig):
    password: SecretStr


class GoodAgent(FenceAgent[Any]):
    """Keeps the contract; the others below break it in one point each."""

    kind: ClassVar[str] = "pretended"
    config_model: ClassVar[type[AgentConfig]] = GoodConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.POWER_ON | Capability.IDENTITY
    device: Device

    async def exchange(self) -> None:
        """Do what every call does first: reach the device and log in."""
        await checkpoint()
        await checkpoint()
        if self.device.fault is Fault.HANGS:
            await anyio.sleep_forever()
        if self.device.fault is Fault.NONSENSE:
            self.read_nonsense()
        if self.password() != PASSWORD:
            self.refuse_login()

    def password(self) -> str:
        return str(self.config.password.get_secret_value())

    def read_nonsense(self) -> None:
        raise FenceError("the answer makes no sense")

    def refuse_login(self) -> None:
        raise AccessDenied("wrong password")

    async def power_off(self) -> None:
        await self.exchange()
        self.device.order_off()

    async def power_on(self) -> None:
        await self.exchange()
        self.device.switch(True)

    async def power_state(self) -> PowerState:
        await self.exchange()
        return PowerState.ON if self.device.is_on() else PowerState.OFF

    async def check(self) -> CheckReport:
        await self.exchange()
        return CheckReport(ok=True, summary="logged in")

    async def identity(self) -> Identity | None:
        await self.exchange()
        return Identity(system_uuid=SYSTEM_UUID)


class PlainAgent(FenceAgent[Any]):
    """A good agent that can do only what it must."""

    kind: ClassVar[str] = "plain"
    config_model: ClassVar[type[AgentConfig]] = GoodConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND
    device: Device
    exchange = GoodAgent.exchange
    password = GoodAgent.password
    read_nonsense = GoodAgent.read_nonsense
    refuse_login = GoodAgent.refuse_login
    power_off = GoodAgent.power_off
    power_state = GoodAgent.power_state
    check = GoodAgent.check


class OddKind(GoodAgent):
    kind = "Odd Kind"


class NeverLifts(PlainAgent):
    capabilities = PlainAgent.capabilities | Capability.LASTING


class KnowsNoDatastore(PlainAgent):
    capabilities = PlainAgent.capabilities | Capability.STORAGE


class SilentAboutPowerOn(GoodAgent):
    capabilities = Capability.READ_POWER | Capability.IDENTITY


class LooseConfig(GoodConfig):
    model_config = ConfigDict(extra="allow")


class LooseSettings(GoodAgent):
    config_model = LooseConfig


class OpenConfig(AgentConfig):
    password: str


class OpenPassword(GoodAgent):
    config_model = OpenConfig

    def password(self) -> str:
        return str(self.config.password)


class DoesNothing(GoodAgent):
    async def power_off(self) -> None:
        await self.exchange()


class DislikesOff(GoodAgent):
    async def power_off(self) -> None:
        await self.exchange()
        if not self.device.is_on():
            raise Unreachable("no answer")
        self.device.order_off()


class TrustsTheAcknowledgement(GoodAgent):
    ordered = False

    async def power_off(self) -> None:
        await super().power_off()
        self.ordered = True

    async def power_state(self) -> PowerState:
        return PowerState.OFF if self.ordered else await super().power_state()


class SwallowsRefusals(GoodAgent):
    async def power_off(self) -> None:
        try:
            await super().power_off()
        except Rejected:
            return


class CallsEverythingUnreachable(GoodAgent):
    def refuse_login(self) -> None:
        raise Unreachable("something went wrong")


class ChecksByDoing(GoodAgent):
    async def check(self) -> CheckReport:
        await self.power_off()
        return CheckReport(ok=True, summary="it can be switched off")


class NeverPowersOn(GoodAgent):
    async def power_on(self) -> None:
        await self.exchange()


class ShoutsTheUuid(GoodAgent):
    async def identity(self) -> Identity | None:
        return Identity(system_uuid=SYSTEM_UUID.upper())


class CannotBeStopped(GoodAgent):
    async def exchange(self) -> None:
        if self.device.fault is Fault.HANGS:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
        await super().exchange()


class InventsAnAnswer(GoodAgent):
    async def exchange(self) -> None:
        if self.device.fault is not Fault.HANGS:
            await super().exchange()


class TriesAgainBehindOurBack(GoodAgent):
    async def power_off(self) -> None:
        self.later = asyncio.get_running_loop().create_task(self.try_until_done())
        await super().power_off()

    async def try_until_done(self) -> None:
        while self.device.fault is Fault.HANGS:  # this agent is meant to be bad
            await anyio.sleep(0.05)
        await super().power_off()


class LeavesATask(GoodAgent):
    async def exchange(self) -> None:
        self.left = asyncio.get_running_loop().create_task(anyio.sleep(60))
        await super().exchange()
        self.left.cancel()


class KeepsItsLock(GoodAgent):
    locked = False

    async def exchange(self) -> None:
        if self.locked:
            raise Unreachable("another session is open")
        self.locked = True
        await super().exchange()
        self.locked = False


class TurnsCancellationIntoAnError(GoodAgent):
    async def exchange(self) -> None:
        try:
            await super().exchange()
        except asyncio.CancelledError:
            raise Unreachable("no answer") from None


class LetsBugsOut(GoodAgent):
    def read_nonsense(self) -> None:
        raise ValueError("unpack requires a buffer of 4 bytes")


class BelievesNonsense(GoodAgent):
    def read_nonsense(self) -> None:
        """Take it for an answer."""


class TellsThePassword(GoodAgent):
    def refuse_login(self) -> None:
        raise AccessDenied(f"the device does not take {self.password()}")


class LogsThePassword(GoodAgent):
    def refuse_login(self) -> None:
        logging.getLogger(__name__).debug("tried %s", self.password())
        super().refuse_login()


class HidesThePasswordInTheCause(GoodAgent):
    def refuse_login(self) -> None:
        raise AccessDenied("wrong password") from ValueError(self.password())


class ShowsThePassword(GoodAgent):
    def __repr__(self) -> str:
        return f"ShowsThePassword({self.password()})"


class BlocksTheLoop(GoodAgent):
    async def power_state(self) -> PowerState:
        time.sleep(0.15)  # noqa: ASYNC251  # this agent is meant to be bad
        return await super().power_state()


CAUGHT: tuple[tuple[Check, type[FenceAgent[Any]]], ...] = (
    (testing.describes_itself, OddKind),
    (testing.describes_itself, SilentAboutPowerOn),
    (testing.describes_itself, NeverLifts),
    (testing.describes_itself, KnowsNoDatastore),
    (testing.has_strict_settings, LooseSettings),
    (testing.has_strict_settings, OpenPassword),
    (testing.switches_a_running_host_off, DoesNothing),
    (testing.accepts_a_host_that_is_off, DislikesOff),
    (testing.never_says_off_too_early, TrustsTheAcknowledgement),
    (testing.sees_that_a_host_stayed_on, TrustsTheAcknowledgement),
    (testing.tells_a_refusal, SwallowsRefusals),
    (testing.tells_a_wrong_password, CallsEverythingUnreachable),
    (testing.checks_without_changing_anything, ChecksByDoing),
    (testing.powers_on_if_it_says_so, NeverPowersOn),
    (testing.identifies_the_machine_if_it_says_so, ShoutsTheUuid),
    (testing.stops_at_the_deadline, CannotBeStopped),
    (testing.stops_at_the_deadline, InventsAnAnswer),
    (testing.sends_nothing_after_cancellation, TriesAgainBehindOurBack),
    (testing.can_be_cancelled_at_every_step, LeavesATask),
    (testing.can_be_cancelled_at_every_step, KeepsItsLock),
    (testing.can_be_cancelled_at_every_step, TurnsCancellationIntoAnError),
    (testing.raises_only_fence_errors, LetsBugsOut),
    (testing.raises_only_fence_errors, BelievesNonsense),
    (testing.keeps_its_secrets, TellsThePassword),
    (testing.keeps_its_secrets, LogsThePassword),
    (testing.keeps_its_secrets, HidesThePasswordInTheCause),
    (testing.keeps_its_secrets, ShowsThePassword),
    (testing.does_not_block_the_event_loop, BlocksTheLoop),
)


class PretendedRig:
    """Implements `testing.Rig`."""

    secrets: Sequence[str] = (PASSWORD, WRONG_PASSWORD)
    system_uuid: str | None = SYSTEM_UUID

    def __init__(self, agent_class: type[FenceAgent[Any]]) -> None:
        self.agent_class = agent_class
        self.device = Device()

    def make_agent(self, *, wrong_password: bool = False) -> FenceAgent[Any]:
        password = WRONG_PASSWORD if wrong_password else PASSWORD
        agent = self.agent_class(self.agent_class.config_model.model_validate({"password": password}))
        agent.device = self.device  # type: ignore[attr-defined]
        return agent

    async def host_is_on(self) -> bool:
        return self.device.is_on()

    async def set_host_power(self, on: bool) -> None:
        self.device.switch(on)

    async def set_fault(self, fault: Fault | None) -> None:
        self.device.fault = fault


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretended device answers at once, so nothing needs the patience that real ones get."""
    for module in (testing, tools):
        monkeypatch.setattr(module, "CALL_WITHIN_S", 2.0)
        monkeypatch.setattr(module, "HANG_DEADLINE_S", 0.2)


@pytest.mark.parametrize("agent_class", [GoodAgent, PlainAgent])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_good_agent_passes(check: Check, agent_class: type[FenceAgent[Any]]) -> None:
    await check(PretendedRig(agent_class))


@pytest.mark.parametrize(("check", "agent_class"), CAUGHT, ids=lambda value: value.__name__)
async def test_a_bad_agent_is_caught(check: Check, agent_class: type[FenceAgent[Any]]) -> None:
    with pytest.raises(ConformanceFailure):
        await check(PretendedRig(agent_class))


def test_every_check_has_an_agent_that_fails_it() -> None:
    assert {check for check, _ in CAUGHT} == set(CHECKS)


async def test_every_bad_agent_passes_what_it_does_not_break() -> None:
    """A bad agent that fails everywhere would prove nothing about the check that it stands for."""
    for check in (testing.switches_a_running_host_off, testing.powers_on_if_it_says_so):
        await check(PretendedRig(TellsThePassword))
        await check(PretendedRig(LooseSettings))
