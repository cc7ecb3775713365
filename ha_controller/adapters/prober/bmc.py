"""The `bmc` channel: what a host's fence device says about its power. Asked only about suspects.

OFF is the one thing that it may say for a death. ON proves nothing: a hung host is on, too. It never opens a session of
its own: the fencer lends `read_power`, which keeps to one session per device. It must never change the power.
"""

from __future__ import annotations

from ha_controller.adapters.prober.channel import AsyncProbe, AsyncProbeConfig
from ha_controller.plugin import Domain, PowerState, Reading, Signal, Target


class BmcConfig(AsyncProbeConfig):
    """Settings of `[channel.bmc]`."""


class BmcProbe(AsyncProbe[BmcConfig]):
    """Reads the chassis power of suspects."""

    kind = "bmc"
    config_model = BmcConfig
    domain = Domain.POWER
    suspects_only = True
    proves_userland = False

    async def ask(self, target: Target, now: float) -> Reading:
        """Read the power once."""
        power = await self.context.read_power(target.host)
        if power is PowerState.OFF:
            return Reading(host=target.host, signal=Signal.OFF, sent_at=now, detail="chassis off")
        if power is PowerState.ON:
            return Reading(host=target.host, signal=Signal.ON, sent_at=now, detail="chassis on")
        return Reading(host=target.host, signal=Signal.UNKNOWN, sent_at=now, detail="the device cannot tell")
