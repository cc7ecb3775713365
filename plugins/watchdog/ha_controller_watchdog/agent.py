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
from dataclasses import dataclass, replace
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
FIRST_LOOK_S: Final = 2.5  #: a lease that is seen for the first time is watched for so long
MOVED_WITHIN_S: Final = 900.0  #: a proof stands on a lease that was seen moving so lately; checks look every minute
ORDER_WITHIN_S: Final = 5.0  #: the proof does not need the order: a datastore that hangs must not eat the time for it
LONG_S: Final = 86400.0  #: no watchdog and no lease lasts so long
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

    run: tuple[str, str]  #: of which boot, and of which run of the host's unit
    counter: int
    armed: bool
    identity: str
    watchdog_s: float
    lease_s: float

    @property
    def mark(self) -> tuple[str, str, int]:
        """Another one means that the host lived since."""
        return (*self.run, self.counter)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was seen of a lease, on this machine's monotonic clock."""

    lease: _Lease
    since: float  #: when its mark was first seen
    looked_at: float
    moved_at: float | None  #: when it was last seen to move within one run


class WatchdogAgent(FenceAgent[WatchdogConfig]):
    """Has a host reset itself through its hardware watchdog (a lease on the shared datastore)."""

    kind: ClassVar[str] = "watchdog"
    config_model: ClassVar[type[AgentConfig]] = WatchdogConfig
    check_every_s: ClassVar[float | None] = 60.0
    capabilities = (
        Capability.READ_POWER
        | Capability.OUT_OF_BAND
        | Capability.POWER_ON
        | Capability.LASTING
        | Capability.SELF_RESET
    )

    def __init__(self, config: WatchdogConfig) -> None:
        super().__init__(config)
        self._lease_file = config.folder / f"{config.lease_name}.lease"
        self._order_file = config.folder / f"{config.lease_name}.order"
        self._proof_s = config.lease_s + 2 * config.watchdog_s
        self.timeout_min_s = self._proof_s + MARGIN_S
        self._seen: _Seen | None = None

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
        """Look at the lease: ON when it moves, OFF when it has not for long enough, else UNKNOWN.

        Only a lease that this agent saw moving, lately and in the same run of the host's unit, can read OFF: one of a
        former boot says nothing about a host whose unit did not start again.

        Raises:
            Unreachable: the datastore did not answer.
            FenceError: the lease is not there, not armed, or not that of a hardware watchdog with our times.
        """
        power = await self._look()
        begun = time.monotonic()
        while power is None and time.monotonic() - begun < FIRST_LOOK_S:
            await anyio.sleep(LOOK_EVERY_S)  # a living host writes once a second
            power = await self._look()
        return power or PowerState.UNKNOWN

    async def _look(self) -> PowerState | None:
        """One look; None when it is worth to look again at once, because nothing is known yet."""
        now = time.monotonic()  # before the reading: what was read is at least that old
        lease = await self._read()
        seen, self._seen = self._seen, _Seen(lease=lease, since=now, looked_at=now, moved_at=None)
        if seen is not None and seen.lease.mark == lease.mark:
            self._seen = replace(seen, looked_at=now)
        elif seen is not None and seen.lease.run == lease.run:
            self._seen = replace(self._seen, moved_at=now)
        if why := self._why_it_proves_nothing(lease):
            raise FenceError(f"{self._lease_file}: {why}")
        if self._seen.moved_at == now:
            return PowerState.ON if seen is not None and now - seen.looked_at < LATELY_S else None
        if self._seen.moved_at is None or now - self._seen.moved_at > MOVED_WITHIN_S:
            return None if now - self._seen.since < FIRST_LOOK_S else PowerState.UNKNOWN
        return PowerState.OFF if now - self._seen.since >= self._proof_s else PowerState.UNKNOWN

    async def boot_id(self) -> str | None:
        """Tell which boot of the host wrote the lease. Errors as for `power_state`."""
        return (await self._read()).run[0]

    async def check(self) -> CheckReport:
        """Watch the lease move, and look whether the order could be written. Changes nothing.

        Raises:
            Unreachable, FenceError: as for `power_state`.
        """
        order = (await self._text(self._order_file)).strip()
        power = await self.power_state()
        if power is not PowerState.ON:
            text = f"the lease is not renewed (order: {order}): look at ha-controller-watchdog on the host"
            return CheckReport(ok=False, summary=one_line(text), power=power)
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
            armed, counter = words["armed"], words["counter"]
            times = (float(words["timeout_s"]) if armed else 0.0, float(words["lease_s"]))
            if not isinstance(armed, bool) or type(counter) is not int or not all(0 <= each < LONG_S for each in times):
                raise ValueError  # NaN, too: it would pass every comparison with what is configured
            return _Lease(
                run=(str(words["boot_id"]), str(words["run_id"])),
                counter=counter,
                armed=armed,
                identity=one_line(str(words["identity"])) if armed else "",
                watchdog_s=times[0],
                lease_s=times[1],
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise FenceError(f"{self._lease_file}: this is no lease") from None

    async def _text(self, path: Path) -> str:
        ended = await self._run("head", "-c", str(BYTES), str(path))
        if ended.status != 0:
            self._fail(path, ended)
        return ended.output

    async def _order(self, word: str) -> None:
        given = word.ljust(BYTES - 1) + "\n"
        with anyio.move_on_after(ORDER_WITHIN_S) as waiting:
            ended = await self._run("dd", f"of={self._order_file}", "conv=notrunc,fsync", "status=none", given=given)
        if waiting.cancelled_caught:
            raise Unreachable(f"{self._order_file}: not written within {ORDER_WITHIN_S:g} s")
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
