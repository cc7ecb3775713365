"""The `libvirt` channel: whether libvirt answers on the host, and how many domains run, asked over SSH by virsh.

It must never take a failed login for libvirt's silence: only where the login and the shell worked, and virsh found
nobody or waited in vain, is it SILENT. That is a trouble of a host that lives, and no reason to power it off.
"""

from __future__ import annotations

import re
from typing import Final

from ha_controller.adapters.prober.login import SlowLoginConfig, SlowLoginProbe
from ha_controller.plugin import Domain, Duration, Reading, Signal, Target, duration_field, one_line

WAITS_S: Final = 5  #: for libvirt, on the host
#: What is run on the host; a key may be bound to it (docs/channels.md). Read-only, so that any account may. It says how
#: virsh ended: whatever else a key may be bound to does not say that.
COMMAND: Final = (
    f"LC_ALL=C timeout -k 1 {WAITS_S} virsh -c qemu:///system -r list --name --state-running 2>&1; echo virsh ended $?"
)
_END = re.compile(r"(.*)^virsh ended ([0-9]{1,3})\s*", re.DOTALL | re.MULTILINE)
SAID_MAX = 2000  #: characters of a complaint that are looked at
_IN_VAIN = frozenset({124, 137})  # timeout(1): ended it, killed it
#: of virsh: nobody listens at libvirt's socket. A socket that we may not use is our own fault.
_NOBODY = re.compile(r"failed to connect socket .*(no such file or directory|connection refused)", re.IGNORECASE)


class LibvirtConfig(SlowLoginConfig):
    """Settings of `[channel.libvirt]`."""

    timeout_s: Duration = duration_field("10s", key="timeout", longest="60s")  #: more than virsh gets on the host
    every_s: Duration = duration_field("60s", key="every", longest="1h")


class LibvirtProbe(SlowLoginProbe[LibvirtConfig]):
    """Asks libvirt on hosts for its running domains."""

    kind = "libvirt"
    config_model = LibvirtConfig
    domain = Domain.SELF
    watched_every_s = 5.0

    async def ask(self, target: Target, now: float) -> Reading:
        """Log in and run virsh."""
        signal, detail = judged(await self.run(target, COMMAND))
        return Reading(host=target.host, signal=signal, sent_at=now, detail=detail)


def judged(text: str) -> tuple[Signal, str]:
    """What the output of `COMMAND` shows, with detail. Names of domains are data: people who own VMs chose them."""
    end = _END.fullmatch(text)
    if end is None:
        return Signal.UNKNOWN, "logged in, but virsh was not run: what is the key bound to?"
    said, status = end[1].split("\n"), int(end[2])
    if status == 0:
        domains = sum(bool(line.strip()) for line in said)
        return Signal.ALIVE, f"libvirt answers, {domains} domain{'' if domains == 1 else 's'}"
    if status in _IN_VAIN:
        return Signal.SILENT, f"libvirt does not answer within {WAITS_S} s"
    if _NOBODY.search(end[1][:SAID_MAX]):
        return Signal.SILENT, "libvirt is not running"
    return Signal.UNKNOWN, f"virsh failed with status {status}: {one_line(end[1], characters_max=120)}"
