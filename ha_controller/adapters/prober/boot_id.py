"""The `boot-id` channel: which boot of the host answers, asked over SSH.

A host that reboots faster than it is missed shows here: another boot id, and the VMs of the boot before are gone. It is
also the one channel that proves who answers, since the host's key is verified.

It must never say SILENT: a login that fails has many reasons. A login that works is life, whatever is said then.
"""

from __future__ import annotations

import re
from typing import Final

from ha_controller.adapters.prober.channel import AsyncProbe, boot_id_in
from ha_controller.adapters.prober.login import SlowLoginConfig
from ha_controller.adapters.ssh_login import LoginFailed, run_command
from ha_controller.plugin import Domain, ProbeContext, Reading, Signal, Target

#: what is run on the host; a key may be bound to it (docs/channels.md)
COMMAND: Final = "cat /proc/sys/kernel/random/boot_id /proc/uptime"
_UPTIME = re.compile(r"(\d{1,10}\.\d+) \d+\.\d+")


class BootIdConfig(SlowLoginConfig):
    """Settings of `[channel.boot-id]`."""


class BootIdProbe(AsyncProbe[BootIdConfig]):
    """Asks hosts for their boot id."""

    kind = "boot-id"
    config_model = BootIdConfig
    domain = Domain.SELF
    watched_every_s = 2.0

    def __init__(self, config: BootIdConfig, context: ProbeContext) -> None:
        super().__init__(config, context, per_s=config.logins_per_s)

    async def ask(self, target: Target, now: float) -> Reading:
        """Log in and read it."""
        try:
            said = await run_command(self.config.login, target.address, COMMAND, timeout_s=self.config.timeout_s)
        except LoginFailed as error:
            return Reading(host=target.host, signal=Signal.UNKNOWN, sent_at=now, detail=str(error))
        first, _, rest = said.text.strip().partition("\n")
        uptime = _UPTIME.fullmatch(rest)
        boot_id = boot_id_in(first) if uptime or not rest else ""  # a key may be bound to less than we ask
        detail = f"boot {boot_id[:8]}" if boot_id else "logged in, but it told no boot id: what is the key bound to?"
        booted_at = now - float(uptime[1]) if boot_id and uptime else 0.0
        return Reading(
            host=target.host, signal=Signal.ALIVE, sent_at=now, detail=detail, boot_id=boot_id, booted_at=booted_at
        )
