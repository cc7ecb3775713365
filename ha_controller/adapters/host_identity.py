"""Asks living hosts over SSH which machine they are, so that their fence devices can be compared with it.

Slow and jittered, a few hosts at a time: it must never disturb anything, and it decides nothing. Host keys are always
verified. What a host says of itself is posted as `HostIdentified`; a host that cannot be asked is asked again later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import anyio
import structlog

from ha_controller.adapters.ssh_login import LoginFailed, SshLogin, run_command
from ha_controller.core.events import Event, HostIdentified
from ha_controller.core.model import Identity
from ha_controller.plugin import Target, one_line

log = structlog.get_logger(__name__)

#: readable by root only on most systems; nothing else of the host is looked at
COMMAND = "cat /sys/class/dmi/id/product_uuid; echo; cat /sys/class/dmi/id/product_serial"
ASK_TIMEOUT_S = 10.0
AGAIN_AFTER_S = 6 * 3600.0
RETRY_AFTER_S = 600.0
AT_ONCE = 4
OUTPUT_MAX = 4096
SERIAL_MAX = 100
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NO_SERIALS = frozenset(
    {"", "none", "0", "not specified", "to be filled by o.e.m.", "default string", "system serial number"}
)


class HostIdentifier:
    """Keeps what hosts say of themselves up to date."""

    def __init__(
        self,
        login: SshLogin,
        *,
        targets: Callable[[], Sequence[Target]],
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        """`targets` gives the hosts with their literal addresses, anew at every look."""
        self._login, self._targets, self._report, self._clock = login, targets, report, clock
        self._due: dict[int, float] = {}
        self._asking = anyio.CapacityLimiter(AT_ONCE)

    async def run(self) -> None:
        """Ask every host at start and then slowly; runs until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                now = self._clock()
                for target in self._targets():
                    if target.host >= 0 and target.address and self._due.get(target.host, 0.0) <= now:
                        self._due[target.host] = now + RETRY_AFTER_S * random.uniform(0.8, 1.2)
                        group.start_soon(self._ask_when_free, target)
                await anyio.sleep(1.0)

    async def _ask_when_free(self, target: Target) -> None:
        async with self._asking:
            identity = await self.ask(target)
        if identity is not None:
            self._due[target.host] = self._clock() + AGAIN_AFTER_S * random.uniform(0.8, 1.2)
            self._report(HostIdentified(host=target.host, identity=identity, source=f"{self._login.username} over ssh"))

    async def ask(self, target: Target) -> Identity | None:
        """Ask one host; None when it cannot be asked or has nothing to say."""
        try:
            output = await run_command(self._login, target.address, COMMAND, timeout_s=ASK_TIMEOUT_S)
        except LoginFailed as error:
            log.info("a host could not be asked for its identity", host=target.name, error=str(error))
            return None
        identity = identity_of(output.text[:OUTPUT_MAX])
        if identity is None:
            log.info("a host does not tell its identity: only root may read it", host=target.name)
        return identity


def identity_of(output: str) -> Identity | None:
    """The identity in the output of `COMMAND`; placeholders of makers are no serials."""
    uuid = _UUID.search(output)
    serial = one_line(output.strip().split("\n")[-1], characters_max=SERIAL_MAX)
    if serial.lower() in _NO_SERIALS or _UUID.fullmatch(serial):
        serial = ""
    if uuid is None and not serial:
        return None
    return Identity(system_uuid=uuid[0].lower() if uuid else None, serial=serial or None)
