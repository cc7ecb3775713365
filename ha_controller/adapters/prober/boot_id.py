"""The `boot-id` channel: which boot of the host answers, asked over SSH.

A host that reboots faster than it is missed shows here: another boot id, and the VMs of the boot before are gone. It is
also the one channel that proves who answers, since the host's key is verified.

It must never say SILENT: a login that fails has many reasons. A login that works is life, whatever is said then.
"""

from __future__ import annotations

import re
from typing import Final

from ha_controller.adapters.prober.channel import boot_id_in
from ha_controller.adapters.prober.login import SlowLoginConfig, SlowLoginProbe
from ha_controller.plugin import Domain, Reading, Signal, Target

#: what is run on the host; a key may be bound to it (docs/channels.md)
COMMAND: Final = "cat /proc/sys/kernel/random/boot_id /proc/uptime"
_UPTIME = re.compile(r"(\d{1,10}\.\d+) \d+\.\d+")


class BootIdConfig(SlowLoginConfig):
    """Settings of `[channel.boot-id]`."""


class BootIdProbe(SlowLoginProbe[BootIdConfig]):
    """Asks hosts for their boot id."""

    kind = "boot-id"
    config_model = BootIdConfig
    domain = Domain.SELF
    watched_every_s = 2.0

    async def ask(self, target: Target, now: float) -> Reading:
        """Log in and read it."""
        first, _, rest = (await self.run(target, COMMAND)).strip().partition("\n")
        uptime = _UPTIME.fullmatch(rest)
        boot_id = boot_id_in(first) if uptime or not rest else ""  # a key may be bound to less than we ask
        detail = f"boot {boot_id[:8]}" if boot_id else "logged in, but it told no boot id: what is the key bound to?"
        booted_at = now - float(uptime[1]) if boot_id and uptime else 0.0
        return Reading(
            host=target.host, signal=Signal.ALIVE, sent_at=now, detail=detail, boot_id=boot_id, booted_at=booted_at
        )
