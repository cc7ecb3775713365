"""Fence agents as a plugin brings them, for the pretended devices. They break every promise of the contract when the
table of faults says so: raise what they may not, answer nonsense, hang, block the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import SecretStr

from ha_controller.plugin import (
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    Identity,
    PowerState,
    Rejected,
    Unreachable,
)
from ha_controller.sim.core_level.layout import BMC, FABRIC, PDU_A, PDU_B, identity_of

if TYPE_CHECKING:
    from ha_controller.sim.engine_level.process import Life

GIVES_UP_S = 3.0  #: an agent whose device is silent; or it waits until it is cancelled
PASSWORD = "s3cret-of-a-device"

_READS = Capability.READ_POWER | Capability.OUT_OF_BAND
_CAPABILITIES = {
    BMC: _READS | Capability.IDENTITY,
    PDU_A: _READS | Capability.OUTLET,
    PDU_B: _READS | Capability.OUTLET,
    FABRIC: _READS | Capability.WEAK_OFF,
}


class PretendedConfig(AgentConfig):
    """Which device it is."""

    host: int
    device: str
    password: SecretStr


class PretendedAgent(FenceAgent[PretendedConfig]):
    """Talks to one pretended device."""

    config_model: ClassVar[type[AgentConfig]] = PretendedConfig
    life: ClassVar[Life]

    async def power_off(self) -> None:
        """Order it off."""
        life, host, name = self.life, self.config.host, self.config.device
        world = life.world
        world.judge.device_asked(life.process, host, name)
        asked_at = world.now
        await self._reach("power off", may_block=False)
        if world.devices.of(host, name).busy_until > world.now:
            raise Rejected("no session is free")
        await life.risk("a power-off is about to leave", may_pause=False)
        await life.at_the_packet()
        with world.judged():
            machine = world.devices.machine_of(host, name)
            world.judge.power_off_sent(life.process, host, machine, asked_at)
        life.here()
        with world.judged():
            world.devices.order_off(host, name)
        world.trouble.at_the_shot(world.devices.machine_of(host, name))
        await life.risk("a power-off has just left")
        if world.trouble.strikes("answer-lost"):
            await life.never()
        await life.takes(world.dice.uniform(0.01, 0.2))

    async def power_state(self) -> PowerState:
        """Read it."""
        await self._reach("read")
        power = self.life.world.devices.read(self.config.host, self.config.device)
        if power is PowerState.OFF:
            self.life.world.trouble.read_off(self.config.host)
        await self.life.takes(self.life.world.dice.uniform(0.01, 0.1))
        if self.life.world.trouble.strikes("plugin-nonsense"):
            return cast(PowerState, self.life.world.dice.choice(("off", None, True, 0)))
        return power

    async def check(self) -> CheckReport:
        """Read it, as a check."""
        await self._reach("check")
        if self.life.world.trouble.strikes("plugin-nonsense"):
            return cast(CheckReport, self.life.world.dice.choice(("fine", None, True)))
        power = self.life.world.devices.read(self.config.host, self.config.device)
        return CheckReport(ok=power is not PowerState.UNKNOWN, summary="read", power=power)

    async def identity(self) -> Identity | None:
        """Whose it is."""
        if self.config.device != BMC:
            return None
        await self._reach("identity")
        return identity_of(self.life.world.devices.machine_of(self.config.host, self.config.device))

    async def _reach(self, what: str, *, may_block: bool = True) -> None:
        """The way there. Raises Unreachable, or what no agent may raise, or never returns."""
        life, world = self.life, self.life.world
        await life.takes(world.dice.uniform(0.01, 0.1))
        trouble = world.trouble
        if trouble.strikes("plugin-raises"):
            raise world.dice.choice((ValueError, KeyError, RuntimeError, TimeoutError))(f"bug in {what}")
        if trouble.strikes("plugin-hangs"):
            await life.never()
        if may_block and trouble.strikes("plugin-blocks"):
            life.block(world.dice.uniform(0.5, 20))
        if not world.devices.answers(self.config.host, self.config.device):
            if world.dice.random() < 0.5:
                await life.never()
            await life.takes(GIVES_UP_S)
            raise Unreachable("no answer")


def agents_of(life: Life) -> dict[str, type[FenceAgent[AgentConfig]]]:
    """The classes that one life of a controller finds, by their kinds."""
    made: dict[str, Any] = {
        name: type(f"Pretended_{name}", (PretendedAgent,), {"kind": name, "capabilities": able, "life": life})
        for name, able in _CAPABILITIES.items()
    }
    return made
