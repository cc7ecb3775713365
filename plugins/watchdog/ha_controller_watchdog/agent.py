"""The watchdog fence agent: revokes a host's lease, and proves by its age that the host's own watchdog has reset it.

For hosts that lose their BMC with their power and have no PDU. The host (see `host`) feeds its hardware watchdog only
right after it has renewed its lease on the shared datastore. So a lease that did not move for its own length and twice
the watchdog's time-out belongs to a host that was reset or has no power.

That is believed only of a hardware watchdog that is armed, and only after a drill has shown that it fires. Files are
read and written by child processes, because network file systems hang.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, NoReturn

import anyio
from pydantic import Field, field_validator

from ha_controller import process
from ha_controller.plugin import (
    AgentConfig,
    Capability,
    CheckReport,
    Duration,
    FenceAgent,
    FenceError,
    PowerState,
    Rejected,
    Unreachable,
    duration_field,
    one_line,
)
from ha_controller_watchdog.host import BYTES, REVOKED, NoWatchdog

MARGIN_S: Final = 10.0  #: on top of the proof: two readings, and slow storage
LOOK_EVERY_S: Final = 0.5
LATELY_S: Final = 5.0  #: a lease that moved between two looks no further apart is that of a living host
#: What head and dd say (LC_ALL=C) when they could not even open the file.
_NOTHING_DONE: Final = ("No such file", "Permission denied", "a directory", "Read-only file system")
_SOFTWARE: Final = "software"  #: in the identity of softdog, which dies with the kernel


class WatchdogConfig(AgentConfig):
    """Where a host's lease is, and what the unit on the host was told."""

    folder: Path  #: on the shared datastore, as the controller sees it
    lease_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]  #: the unit's --name
    watchdog_s: Duration = duration_field("15s", key="watchdog_timeout")  #: the unit's --timeout; more is refused
    lease_s: Duration = duration_field("10s", key="lease")  #: the unit's --lease; more is refused

    @field_validator("folder")
    @classmethod
    def _is_absolute(cls, folder: Path) -> Path:
        if not folder.is_absolute():
            raise ValueError("must be an absolute path")
        return folder


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lease:
    """What a host wrote."""

    mark: tuple[str, int]  #: boot id and counter: another one means that it lived since
    armed: bool
    identity: str
    watchdog_s: float
    lease_s: float


class WatchdogAgent(FenceAgent[WatchdogConfig]):
    """Has a host reset itself through its hardware watchdog (a lease on the shared datastore)."""

    kind: ClassVar[str] = "watchdog"
    config_model: ClassVar[type[AgentConfig]] = WatchdogConfig
    capabilities = (
        Capability.READ_POWER
        | Capability.OUT_OF_BAND
        | Capability.POWER_ON
        | Capability.LASTING
        | Capability.DRILL_NEEDED
    )

    def __init__(self, config: WatchdogConfig) -> None:
        super().__init__(config)
        self._lease_file = config.folder / f"{config.lease_name}.lease"
        self._order_file = config.folder / f"{config.lease_name}.order"
        self._proof_s = config.lease_s + 2 * config.watchdog_s
        self.takes_s = self._proof_s + MARGIN_S
        self._seen: tuple[tuple[str, int], float] | None = None  # the newest mark, and when it was first seen
        self._looked_at = float("-inf")

    async def power_off(self) -> None:
        """Revoke the lease; returns when that is written. The host sees it when it next renews, or cannot renew.

        Raises:
            Unreachable: the datastore did not answer.
            Rejected: there is no such lease, or the order cannot be written.
            FenceError: what lies there is no lease of this host.
        """
        lease = await self._read()
        if why := self._why_it_proves_nothing(lease):
            raise Rejected(f"{self._lease_file}: {why}")  # revoking would not end it
        await self._order(REVOKED)

    async def power_on(self) -> None:
        """Let the host have its lease again. It must boot, or be switched on, by itself. Errors as for `power_off`."""
        await self._order("run")

    async def power_state(self) -> PowerState:
        """Watch the lease until it moves (ON), or has not moved for long enough (OFF); the caller sets the deadline.

        What was seen is kept, so a later call goes on where this one was cut off.

        Raises:
            Unreachable: the datastore did not answer.
            FenceError: the lease is not there, not armed, or not that of a hardware watchdog with our times.
        """
        while True:
            lease = await self._read()
            if why := self._why_it_proves_nothing(lease):
                raise FenceError(f"{self._lease_file}: {why}")
            now = time.monotonic()
            if self._seen is None or self._seen[0] != lease.mark:
                lately = now - self._looked_at < LATELY_S
                self._seen, self._looked_at = (lease.mark, now), now
                if lately:
                    return PowerState.ON
            if now - self._seen[1] >= self._proof_s:
                return PowerState.OFF
            self._looked_at = now
            await anyio.sleep(LOOK_EVERY_S)

    async def check(self) -> CheckReport:
        """Watch the lease move, and look whether the order could be written. Changes nothing.

        Raises:
            Unreachable, FenceError: as for `power_state`.
        """
        order = (await self._text(self._order_file)).strip()
        with anyio.move_on_after(LATELY_S) as waiting:
            power = await self.power_state()
        if waiting.cancelled_caught:
            text = f"the lease is not renewed (order: {order}): look at ha-controller-watchdog on the host"
            return CheckReport(ok=False, summary=one_line(text))
        writable = await self._run("test", "-w", str(self._order_file))
        if writable.status != 0:
            return CheckReport(ok=False, summary=f"{self._order_file} cannot be written", power=power)
        lease = await self._read()
        text = f"{lease.identity}, {lease.watchdog_s:g} s, its lease is renewed; order: {order}"
        return CheckReport(ok=True, summary=one_line(text), power=power)

    # --- the files ---

    def _why_it_proves_nothing(self, lease: _Lease) -> str:
        config = self.config
        if not lease.armed:
            return "the watchdog is not armed: start ha-controller-watchdog on the host"
        if lease.identity == NoWatchdog.identity:
            return "the host writes a heartbeat only, and has no watchdog (--device none)"
        if _SOFTWARE in lease.identity.lower():
            return f"{lease.identity} is no hardware: it does not fire when the kernel hangs"
        if lease.watchdog_s > config.watchdog_s or lease.lease_s > config.lease_s:
            return (
                f"the host uses {lease.watchdog_s:g} s and a lease of {lease.lease_s:g} s; "
                f"watchdog_timeout is {config.watchdog_s:g} s and lease {config.lease_s:g} s"
            )
        return ""

    async def _read(self) -> _Lease:
        text = await self._text(self._lease_file)
        try:
            words = json.loads(text)
            if words["host"] != self.config.lease_name:
                raise FenceError(f"{self._lease_file}: it is the lease of {one_line(str(words['host']))}")
            armed = bool(words["armed"])
            return _Lease(
                mark=(str(words["boot_id"]), int(words["counter"])),
                armed=armed,
                identity=one_line(str(words["identity"])) if armed else "",
                watchdog_s=float(words["timeout_s"]) if armed else 0.0,
                lease_s=float(words["lease_s"]),
            )
        except (ValueError, TypeError, KeyError):
            raise FenceError(f"{self._lease_file}: this is no lease") from None

    async def _text(self, path: Path) -> str:
        ended = await self._run("head", "-c", str(BYTES), str(path))
        if ended.status != 0:
            self._fail(path, ended)
        return ended.output

    async def _order(self, word: str) -> None:
        given = word.ljust(BYTES - 1) + "\n"
        ended = await self._run("dd", f"of={self._order_file}", "conv=notrunc,fsync", "status=none", given=given)
        if ended.status != 0:
            self._fail(self._order_file, ended)

    async def _run(self, program: str, *words: str, given: str = "") -> process.Ended:
        path = process.find(program)
        if path is None:
            raise FenceError(f"the program {program} is not installed")
        try:
            return await process.run([path, *words], given)
        except OSError as error:
            raise FenceError(f"{program} cannot be started: {error.strerror}") from None

    def _fail(self, path: Path, ended: process.Ended) -> NoReturn:
        said = one_line(ended.errors).rpartition(": ")[2] or f"status {ended.status}"
        refused = any(word in said for word in _NOTHING_DONE)
        raise Rejected(f"{path}: {said}") if refused else Unreachable(f"{path}: {said}")
