"""Switches a host through a acme device. Here: a line protocol over TCP, one connection for each call.

Replace `_ask` by your device's protocol. What must stay: no verification here, no repetition of an order, no deadline
of your own, nothing but FenceError raised, no secret in any text.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from ha_controller.plugin import (
    AccessDenied,
    AgentConfig,
    Capability,
    CheckReport,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
    Unreachable,
)

LINE_MAX = 1024


class AcmeConfig(AgentConfig):
    """Settings of one acme device."""

    address: Annotated[str, Field(min_length=1, description="literal IP address of the device")]
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port")] = 7000
    password: Annotated[SecretStr, Field(description="password of the device")]


class AcmeAgent(FenceAgent[AcmeConfig]):
    """Controls a host's power through a acme device."""

    kind: ClassVar[str] = "acme"
    config_model: ClassVar[type[AgentConfig]] = AcmeConfig
    capabilities = Capability.READ_POWER | Capability.OUT_OF_BAND | Capability.POWER_ON

    async def power_off(self) -> None:
        """Order the power off."""
        await self._ask("off")

    async def power_on(self) -> None:
        """Order the power on."""
        await self._ask("on")

    async def power_state(self) -> PowerState:
        """Read the power."""
        return {"on": PowerState.ON, "off": PowerState.OFF}.get(await self._ask("state"), PowerState.UNKNOWN)

    async def check(self) -> CheckReport:
        """Log in and read the power; changes nothing."""
        power = await self.power_state()
        return CheckReport(ok=True, summary=f"logged in; power {power.value}", power=power)

    async def _ask(self, command: str) -> str:
        """One question in a connection of its own.

        Raises:
            FenceError: as the contract says.
        """
        try:
            reader, writer = await asyncio.open_connection(self.config.address, self.config.port, limit=LINE_MAX)
        except OSError as error:
            raise Unreachable(f"{self.config.address}: {error.strerror or 'no connection'}") from None
        try:
            writer.write(f"{self.config.password.get_secret_value()} {command}\n".encode())
            await writer.drain()
            answer = (await reader.readline()).decode(errors="replace").strip()
        except (OSError, ValueError):
            raise Unreachable(f"{self.config.address}: the connection broke") from None
        finally:
            writer.close()
        match answer.split(" ", 1):
            case ["ok", rest]:
                return rest
            case ["ok"]:
                return ""
            case ["denied", *_]:
                raise AccessDenied(f"{self.config.address}: wrong password")
            case ["refused", *_]:
                raise Rejected(f"{self.config.address}: the device refuses")
            case _:
                raise FenceError(f"{self.config.address}: an answer that makes no sense")
